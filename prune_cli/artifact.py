"""Artifacts: folders of results with a manifest that says what they are, from what, and that they are whole.

An artifact is made in `<out>.part` and renamed into place, its `manifest.json` written last: a folder with a
manifest is complete. The manifest's `recipe` (stage, options, input digests, code version) is hashed into its
`key`: the same key means the same work, so it is not done again. `files` holds a sha256 for each file, checked
on reading. `made` (arguments, versions, seconds) says how it came about and is outside every hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_cli import __version__, processes
from prune_cli.errors import PruneError

MANIFEST = "manifest.json"
RECIPE = ".recipe.json"  # in a draft: what is being made, and that the folder is ours
FORMAT = 1
NEW = "not made yet"


def canonical(value: Any) -> str:
    """Write JSON in the one form that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_value(value: Any) -> str:
    """sha256 (hex) of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest_folder(folder: Path) -> str:
    """sha256 (hex) over the names and bytes of the files directly in a folder, hidden ones left out."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return digest_value({p.name: digest_file(p) for p in files})


_digests: dict[tuple[str, int, int, int], str] = {}


def _digest_once(path: Path, status: os.stat_result) -> str:
    """`digest_file`, read once in a process as long as the file stays the same: a pipeline opens its tensors often."""
    key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _digests:
        _digests[key] = digest_file(path)
    return _digests[key]


@dataclass(frozen=True)
class Recipe:
    """What decides an artifact's content; two equal recipes give the same artifact."""

    stage: str
    options: dict[str, Any]
    inputs: dict[str, str]  # role -> digest
    code: str = __version__

    @property
    def content(self) -> dict[str, Any]:
        """The recipe as it stands in a manifest."""
        return {"stage": self.stage, "options": self.options, "inputs": self.inputs, "code": self.code}

    @property
    def key(self) -> str:
        """sha256 (hex) of the recipe."""
        return digest_value(self.content)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def stage(self) -> str:
        """The subcommand that made it."""
        return str(self.manifest["recipe"]["stage"])

    @property
    def options(self) -> dict[str, Any]:
        """All options it was made with, defaults included."""
        return dict(self.manifest["recipe"]["options"])

    @property
    def about(self) -> dict[str, Any]:
        """Facts that travel with it: rows, labels, checkpoints and their learning rates…"""
        return dict(self.manifest["about"])

    @property
    def files(self) -> dict[str, str]:
        """Relative path -> sha256."""
        return {name: entry["sha256"] for name, entry in self.manifest["files"].items()}

    @property
    def digest(self) -> str:
        """sha256 (hex) over all its files: what it holds, however it was made."""
        return digest_value(self.files)

    def file(self, name: str) -> Path:
        """Path of one of its files, its hash checked once per process."""
        if name not in self.files:
            raise PruneError(f"{self.path}: no {name} in it; it holds {', '.join(sorted(self.files))}")
        path = self.path / name
        if not path.is_file() or _digest_once(path, path.stat()) != self.files[name]:
            raise PruneError(
                f"{path}: differs from what was written (truncated, edited or gone)",
                hint=f"make it again: the command is in {self.path / MANIFEST}, with --force",
            )
        return path

    def origin(self, role: str) -> Path:
        """Where the input of that role was when this was made (kept relative, so that a tree can move)."""
        return Path(os.path.normpath(_followed(self.path) / self.manifest["made"]["inputs"][role]))


def is_artifact(path: Path) -> bool:
    """Whether the folder holds a finished artifact."""
    return (path / MANIFEST).is_file()


def open_artifact(path: Path, *stages: str) -> Artifact:
    """Open a finished artifact, of one of the given stages where any are named."""
    allowed = f"prune {' or '.join(stages)}" if stages else "one of prune's commands"
    if not path.exists():
        raise PruneError(f"no such artifact: {path}; a folder made by {allowed} is needed")
    if not is_artifact(path):
        raise PruneError(f"not an artifact: {path}; a folder made by {allowed} is needed")
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        found = Artifact(path, manifest)
        intact = manifest["key"] == digest_value(manifest["recipe"])
        _ = found.stage, found.files, manifest["about"], manifest["made"]
    except (ValueError, KeyError, TypeError, AttributeError):
        intact = False
    if not intact:
        raise PruneError(
            f"{path / MANIFEST}: damaged or edited; it no longer agrees with its own key",
            hint="make the artifact again with --force",
        )
    if manifest["format"] != FORMAT:
        raise PruneError(f"{path}: manifest format {manifest['format']}; this version reads {FORMAT}")
    if stages and found.stage not in stages:
        raise PruneError(f"{path}: made by prune {found.stage}; one made by prune {allowed} is needed")
    return found


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two recipes, such as `options.k 3 -> 5`."""
    changes: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += difference(before, after, f"{prefix}{name}.")
        elif before != after and prefix == "inputs.":
            change = "is new" if name not in old else "is no longer read" if name not in new else "changed"
            changes.append(f"input {name} {change}")
        elif before != after:
            changes.append(f"{prefix}{name} {canonical(before)} -> {canonical(after)}")
    return changes


def stale_reason(out: Path, recipe: Recipe) -> str | None:
    """Why the artifact at `out` has to be made (again); None when it is up to date.

    Sizes are compared here, and the hashes of files changed since the manifest was last written or touched; the other
    hashes when a file is read: a run that has nothing to do stays cheap.
    """
    out = _place(out)
    _recover(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return NEW
    if not is_artifact(out):
        raise PruneError(f"{out}: is there already and was not made by prune; another name is needed")
    try:
        found = open_artifact(out)
    except PruneError:
        return f"{MANIFEST} is damaged"
    if found.manifest["key"] != recipe.key:
        return ", ".join(difference(found.manifest["recipe"], recipe.content))
    looked_at = (out / MANIFEST).stat().st_mtime_ns
    for name, entry in found.manifest["files"].items():
        path = out / name
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            return f"{name} is damaged"
        if path.stat().st_mtime_ns >= looked_at and _digest_once(path, path.stat()) != entry["sha256"]:
            return f"{name} is damaged"
    return None


@dataclass
class Draft:
    """An artifact in the making: files go into `path`, facts for the manifest into `about`.

    joined: another process began it and will commit it, and makes what is made once.
    """

    path: Path
    about: dict[str, Any] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)
    joined: bool = False

    def cached(self, name: str, build: Callable[[Path], None]) -> Path:
        """Make a file of the draft unless an earlier, interrupted run has already finished it."""
        path = self.path / name
        if not self.joined and not path.exists():
            scratch = _scratch(path)
            build(scratch)
            scratch.replace(path)
        return path


@contextmanager
def draft(out: Path, recipe: Recipe, inputs: Mapping[str, str], *, resumable: bool) -> Iterator[Draft]:
    """Make the artifact `out`: yields its draft, and commits it when the block ends well.

    A draft left by an interrupted run with the same recipe is taken up where it stands; one of another recipe is
    discarded. When the block fails, a draft that cannot be resumed is removed, and `out` is as it was before.
    What only serves the making has a name that starts with a dot: it stays until the artifact is whole, and goes then.
    `inputs` maps each role to the path it was read from. Of several processes the first begins and commits the draft;
    the others join it, and see the block end when the artifact is there.
    """
    out = _place(out)
    part = _part(out)
    if not processes.first():
        with _joined(part) as work:
            yield work
        return
    if not part.exists():
        part.mkdir(parents=True, exist_ok=True)
    with _locked(part) as lock:
        if lock is None:
            raise _taken(part)
        if not (part / RECIPE).is_file() and not (part.is_dir() and not any(part.iterdir())):
            raise PruneError(
                f"{part}: is there already and was not made by prune; move it away, or another name is needed"
            )
        work = Draft(part)
        try:
            _begin(part, recipe)
            if processes.count() > 1:
                _share(lock, part)
            processes.wait()  # for the others to join
            yield work
            processes.wait()  # for the others to have done their part
            _write_manifest(work, out, recipe, inputs)
        except BaseException as failure:
            if not resumable or isinstance(failure, PruneError):
                with suppress(OSError):  # the failure is what is to be told
                    _empty(part)
                    shutil.rmtree(part)
            raise
        _commit(part, out)
    processes.wait()  # the others leave when it is there


@contextmanager
def _joined(part: Path) -> Iterator[Draft]:
    """A draft that the first process begins and commits."""
    processes.wait()
    with _locked(part, fcntl.LOCK_SH) as lock:
        if lock is None:
            raise _taken(part)
        yield Draft(part, joined=True)
        processes.wait()
    processes.wait()


def _share(lock: int, part: Path) -> None:
    """Let the other processes of this run hold the draft as well: as long as one of them lives, no other run has it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # the lock is let go of for a moment on the way
        raise _taken(part) from None


def _taken(part: Path) -> PruneError:
    return PruneError(f"{part}: another process is making this artifact or has just made it; wait for it or stop it")


def _place(out: Path) -> Path:
    """Where an artifact goes."""
    if out.is_symlink() and not out.exists():
        raise PruneError(f"{out}: a link that leads nowhere; another name is needed")
    out = _followed(out)
    if out.name in ("", ".."):
        raise PruneError(f"{out}: not a name; the name of a folder to make is needed")
    if out.name.endswith(".part"):
        raise PruneError(f"{out}: .part is for artifacts in the making; another name is needed")
    return out


def _followed(path: Path) -> Path:
    """What a link leads to: neighbours of an artifact, and paths relative to it, are seen from there."""
    return path.resolve() if path.is_symlink() else path


def _part(out: Path) -> Path:
    """Where an artifact is made."""
    return out.with_name(out.name + ".part")


@contextmanager
def _locked(part: Path, how: int = fcntl.LOCK_EX) -> Iterator[int | None]:
    """Hold a draft against other processes. None: there is none, or another process holds it or has just moved it."""
    try:
        handle = os.open(part, os.O_RDONLY)
    except FileNotFoundError:
        yield None
        return
    try:
        try:
            fcntl.flock(handle, how | fcntl.LOCK_NB)
            held = os.path.samestat(os.fstat(handle), part.stat())  # or it was renamed before the lock was ours
        except (BlockingIOError, FileNotFoundError):
            held = False
        yield handle if held else None
    finally:
        os.close(handle)


def _begin(part: Path, recipe: Recipe) -> None:
    """Take up a draft of this recipe, or empty the folder for a new one."""
    started = part / RECIPE
    if not (started.is_file() and started.read_text("utf-8") == canonical(recipe.content)):
        _empty(part)
        _write_durably(started, canonical(recipe.content))
    (part / MANIFEST).unlink(missing_ok=True)  # the files are about to change


def _empty(part: Path) -> None:
    """Discard a draft's files; its recipe is blanked first: killed in between, it is still ours but never taken up."""
    (part / MANIFEST).unlink(missing_ok=True)
    started = part / RECIPE
    started.write_bytes(b"")
    _sync(started)
    _remove(path for path in part.iterdir() if path != started)


def _write_manifest(work: Draft, out: Path, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    kept = (p for p in sorted(work.path.iterdir()) if p.name[0] != "." and p.name != MANIFEST)
    files = [p for top in kept for p in ([top] if top.is_file() else sorted(top.rglob("*"))) if p.is_file()]
    for path in files:
        _sync(path)
    manifest = {
        "format": FORMAT,
        "key": recipe.key,
        "recipe": recipe.content,
        "about": work.about,
        "files": {
            p.relative_to(work.path).as_posix(): {"bytes": p.stat().st_size, "sha256": digest_file(p)} for p in files
        },
        "made": {**work.made, "inputs": {role: _relative(path, out) for role, path in inputs.items()}},
    }
    _write_durably(work.path / MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def _relative(source: str, out: Path) -> str:
    """A path as seen from the artifact; anything that is no path on this machine (stdin, hub names) as it is."""
    return os.path.relpath(source, out) if os.path.exists(source) else source  # noqa: PTH110 (source may be "-")


def _commit(part: Path, out: Path) -> None:
    """Put a finished draft in place. Killed in between, `_recover` ends the move at the next look."""
    _remove(path for path in part.iterdir() if path.name[0] == "." and path.name != RECIPE)
    if is_artifact(out):
        _tidy(out)
        out.rename(_replaced(out))
    part.rename(out)
    _sync(out.parent)
    _tidy(out)


def _tidy(out: Path) -> None:
    """Remove what a commit leaves once the artifact is in place: its draft's recipe, its predecessor."""
    with suppress(OSError):  # it does no harm
        (out / RECIPE).unlink()
    shutil.rmtree(_replaced(out), ignore_errors=True)


def _replaced(out: Path) -> Path:
    """Where an artifact waits while its successor takes its place: a name that no user would give a copy."""
    return out.with_name(f".{out.name}.replaced")


def _recover(out: Path) -> None:
    """End a commit that was killed in between, unless another process is at it."""
    part, old = _part(out), _replaced(out)
    with _locked(part) as lock:
        if part.exists() and lock is None:
            return
        if not out.exists() and is_artifact(part) and (part / RECIPE).is_file():
            _commit(part, out)
        if not out.exists() and is_artifact(old):
            old.rename(out)
        if is_artifact(out):
            _tidy(out)


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def _scratch(path: Path) -> Path:
    """Where a file is written until it is whole: a dot name, so that it goes when the artifact is committed."""
    return path.with_name(f".{path.name}.tmp")


def _write_durably(path: Path, text: str) -> None:
    scratch = _scratch(path)
    scratch.write_text(text, "utf-8")
    _sync(scratch)
    scratch.replace(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
