"""Artifacts in the making: a draft beside the artifact's place, held against other processes, put there when whole."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_cli.artifacts.files import replace_file, sync
from prune_cli.artifacts.manifest import (
    FORMAT,
    MANIFEST,
    OLDER,
    Recipe,
    canonical,
    difference,
    digest_file,
    digest_once,
    followed,
    is_artifact,
    is_older,
    open_artifact,
    sealed,
)
from prune_cli.errors import PruneError
from prune_cli.runtime import processes
from prune_cli.version import __version__

RECIPE = ".recipe.json"  # in a draft: what is being made, and that the folder is ours
NEW = "not made yet"


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
    if is_older(out):
        return OLDER
    try:
        found = open_artifact(out)
    except PruneError:
        return f"{MANIFEST} is damaged"
    if found.manifest["key"] != recipe.key:
        return ", ".join(difference(found.manifest["recipe"], recipe.content))
    looked_at = (out / MANIFEST).stat().st_mtime_ns
    for name, entry in found.manifest["files"].items():
        path = out / name
        if not path.is_file():
            return f"{name} is missing"
        if path.stat().st_size != entry["bytes"]:
            return f"{name} is damaged"
        if path.stat().st_mtime_ns >= looked_at and digest_once(path, path.stat()) != entry["sha256"]:
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

    def cached(self, name: str, build: Callable[[Path], object]) -> Path:
        """Make a file of the draft unless an earlier, interrupted run has already finished it."""
        path = self.path / name
        if not self.joined and not path.exists():
            replace_file(path, build)
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
    out = followed(out)
    if out.name in ("", ".."):
        raise PruneError(f"{out}: not a name; the name of a folder to make is needed")
    if out.name.endswith(".part"):
        raise PruneError(f"{out}: .part is for artifacts in the making; another name is needed")
    return out


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
        replace_file(started, lambda path: path.write_text(canonical(recipe.content), "utf-8"))
    (part / MANIFEST).unlink(missing_ok=True)  # the files are about to change


def _empty(part: Path) -> None:
    """Discard a draft's files; its recipe is blanked first: killed in between, it is still ours but never taken up."""
    (part / MANIFEST).unlink(missing_ok=True)
    started = part / RECIPE
    started.write_bytes(b"")
    sync(started)
    _remove(path for path in part.iterdir() if path != started)


def _write_manifest(work: Draft, out: Path, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    kept = (p for p in sorted(work.path.iterdir()) if p.name[0] != "." and p.name != MANIFEST)
    files = [p for top in kept for p in ([top] if top.is_file() else sorted(top.rglob("*"))) if p.is_file()]
    for path in files:
        sync(path)
    manifest = {
        "prune": __version__,
        "format": FORMAT,
        "key": recipe.key,
        "recipe": recipe.content,
        "about": work.about,
        "files": {
            p.relative_to(work.path).as_posix(): {"bytes": p.stat().st_size, "sha256": digest_file(p)} for p in files
        },
        "made": {**work.made, "inputs": {role: _relative(path, out) for role, path in inputs.items()}},
    }
    text = json.dumps(sealed(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(work.path / MANIFEST, lambda path: path.write_text(text + "\n", "utf-8"))


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
    sync(out.parent)
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
