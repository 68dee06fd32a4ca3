"""Drafts: an artifact is made in a folder beside its place, locked against other processes, and moved when finished."""

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

from prune_cli.artifacts import files
from prune_cli.artifacts.files import SCRATCH, replace_file, sync
from prune_cli.artifacts.manifest import (
    FORMAT,
    MANIFEST,
    OLDER,
    PART,
    RECIPE,
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
from prune_cli.artifacts.removal import remove_artifact
from prune_cli.errors import PruneError
from prune_cli.runtime import processes
from prune_cli.runtime.progress import note
from prune_cli.version import __version__

NEW = "not made yet"
REMOVED = "was removed after its use"


class Taken(PruneError):
    """Another process makes the artifact, or has just made it."""


def stale_reason(out: Path, recipe: Recipe) -> str | None:
    """Why the artifact at `out` has to be made (again); None when it is up to date.

    Sizes are compared here, and the hashes of files that changed since the manifest was last written or touched. The
    other hashes are compared when a file is read, so that a run with nothing to do stays cheap.
    """
    out = _place(out)
    _recover(out)
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return NEW
    if not is_artifact(out):
        raise PruneError(f"{out}: exists and was not made by prune; choose another name")
    if is_older(out):
        return OLDER
    try:
        found = open_artifact(out)
    except PruneError:
        return f"{MANIFEST} is damaged"
    if found.manifest["key"] != recipe.key:
        return ", ".join(difference(found.manifest["recipe"], recipe.content))
    if found.removed:
        return REMOVED
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
def draft(
    out: Path, recipe: Recipe, inputs: Mapping[str, str], *, resumable: bool, again: bool = False
) -> Iterator[Draft]:
    """Make the artifact `out`: yields its draft, and commits it when the block ends well.

    A draft that an interrupted run left is used again if its recipe is the same, else discarded. When the block fails,
    a draft that cannot be resumed is removed, and `out` stays as it was. Files that only serve the making have names
    that start with a dot; they are removed on commit. `inputs` maps each role to the path that it was read from. Of
    several processes the first begins and commits the draft; the others join it, and their block ends when the artifact
    is in place. again: make it even if it is up to date. Raises Taken where another run makes it, or made it meanwhile.
    """
    out = _place(out)
    part = _part(out)
    if not processes.first():
        with _joined(part) as work:
            yield work
        return
    try:
        part.mkdir(parents=True, exist_ok=True)
    except FileExistsError:  # a file, which is told below
        pass
    except FileNotFoundError as failure:  # in /proc, say
        raise PruneError(f"{out}: no folder can be made there ({failure.strerror})") from failure
    with _locked(part) as lock:
        if lock is None:
            raise _taken(part)
        if not again and stale_reason(out, recipe) is None:
            with suppress(OSError):  # a draft of something else stays
                part.rmdir()
            raise _taken(part)
        if not (part / RECIPE).is_file() and not (part.is_dir() and not any(part.iterdir())):
            raise PruneError(f"{part}: exists and was not made by prune; move it away, or choose another name")
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
            if isinstance(failure, OSError) and failure.errno and failure.filename is None:
                failure.filename = str(part)  # where it is that nothing can be written, say
            if not resumable or (isinstance(failure, PruneError) and not _has_progress(part)):
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
        try:
            yield Draft(part, joined=True)
        except FileNotFoundError as failure:
            if part.exists():
                raise
            raise processes.PeerLost from failure  # the first failed, and took the draft with it
        processes.wait()
    processes.wait()


def _share(lock: int, part: Path) -> None:
    """Let the other processes of this run lock the draft too: no other run gets it while one of them lives."""
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # changing the lock releases it for a moment
        raise _taken(part) from None


def _taken(part: Path) -> Taken:
    return Taken(f"{part}: another process is making this artifact or has just made it; wait for it or stop it")


def _place(out: Path) -> Path:
    """Where an artifact goes."""
    if out.is_symlink() and not out.exists():
        raise PruneError(f"{out}: a link that leads nowhere; another name is needed")
    out = followed(out)
    if out.name in ("", "..", "-"):
        raise PruneError(f"{out}: not a name; allowed: the name of a folder to make")
    if out.name.endswith(PART):
        raise PruneError(f"{out}: {PART} is for artifacts in the making; another name is needed")
    return out


def _part(out: Path) -> Path:
    """Where an artifact is made."""
    return out.with_name(out.name + PART)


@contextmanager
def _locked(part: Path, how: int = fcntl.LOCK_EX) -> Iterator[int | None]:
    """Lock a draft against other processes. None: there is none, or another process holds or has just moved it."""
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


def is_taken(out: Path) -> bool:
    """Whether another process makes the artifact `out` now."""
    part = _part(_place(out))
    with _locked(part, fcntl.LOCK_SH) as lock:
        return lock is None and part.exists()


def _begin(part: Path, recipe: Recipe) -> None:
    """Go on with a draft of this recipe, or empty the folder for a new one; of what is lost then a word."""
    started = part / RECIPE
    begun = started.read_text("utf-8") if started.is_file() else ""
    if begun != canonical(recipe.content):
        if begun and any(path != started for path in part.iterdir()):
            changes = difference(json.loads(begun), recipe.content)
            note(f"{part}: begun otherwise ({changes[0]}), so it begins anew")
        _empty(part)
        replace_file(started, lambda path: path.write_text(canonical(recipe.content), "utf-8"))
    (part / MANIFEST).unlink(missing_ok=True)  # the files are about to change


def _empty(part: Path) -> None:
    """Discard a draft's files. Its recipe is blanked first: after a kill in between it is ours but never used again."""
    (part / MANIFEST).unlink(missing_ok=True)
    started = part / RECIPE
    started.write_bytes(b"")
    sync(started)
    _remove(path for path in part.iterdir() if path != started)


def _has_progress(part: Path) -> bool:
    """Whether a draft holds what its work goes on from, under names that start with a dot, beside half-written files.

    An error that another device, or another try, does not meet must not cost it.
    """
    own = (path for path in part.iterdir() if path.name[0] == "." and path.name != RECIPE)
    return any(any(path.iterdir()) if path.is_dir() else path.suffix != SCRATCH for path in own)


def _write_manifest(work: Draft, out: Path, recipe: Recipe, inputs: Mapping[str, str]) -> None:
    kept = (p for p in sorted(work.path.iterdir()) if p.name[0] != "." and p.name != MANIFEST)
    made = [p for top in kept for p in ([top] if top.is_file() else sorted(top.rglob("*"))) if p.is_file()]
    for path in made:
        sync(path)
    manifest = {
        "prune": __version__,
        "format": FORMAT,
        "key": recipe.key,
        "recipe": recipe.content,
        "about": work.about,
        "files": {
            p.relative_to(work.path).as_posix(): {"bytes": p.stat().st_size, "sha256": digest_file(p)} for p in made
        },
        "made": {**work.made, "inputs": {role: _relative(path, out) for role, path in inputs.items()}},
    }
    text = json.dumps(sealed(manifest), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(work.path / MANIFEST, lambda path: path.write_text(text + "\n", "utf-8"))


def _relative(source: str, out: Path) -> str:
    """A path relative to the artifact; what is no path on this machine (standard input, a hub name) unchanged."""
    return os.path.relpath(source, out) if os.path.exists(source) else source  # noqa: PTH110 (source may be "-")


def _commit(part: Path, out: Path) -> None:
    """Move a finished draft into place. After a kill in between, `_recover` ends the move."""
    _remove(path for path in part.iterdir() if path.name[0] == "." and path.name != RECIPE)
    if not is_artifact(out):
        part.rename(out)
    elif not files.exchange(part, out):
        old = _free(out)
        out.rename(old)
        part.rename(out)
        remove_artifact(old)
    sync(out.parent)
    _tidy(out)


def _tidy(out: Path) -> None:
    """Remove what a commit leaves behind: the artifact that was replaced, then the recipe that says so.

    The recipe stays where the artifact cannot be removed, so that the next look tries again.
    """
    if not (out / RECIPE).is_file():
        return
    for old in (_part(out), _replaced(out)):
        if is_artifact(old) and not (old / RECIPE).exists():
            remove_artifact(old)
            if is_artifact(old):
                return
        with suppress(OSError):  # an empty folder, after a kill at its removal
            old.rmdir()
    with suppress(OSError):  # it does no harm if it stays
        (out / RECIPE).unlink()


def _recover(out: Path) -> None:
    """End a commit that was killed in between, unless another process is doing it."""
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


def _replaced(out: Path) -> Path:
    """Where an artifact is moved while the new one takes its place, if the two cannot change places."""
    return out.with_name(f".{out.name}.replaced")


def _free(out: Path) -> Path:
    """`_replaced`, or another name where that is taken by what is not ours."""
    old = _replaced(out)
    if is_artifact(old):
        remove_artifact(old)
    return old.with_name(f"{old.name}-{os.getpid()}") if old.exists() or old.is_symlink() else old


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
