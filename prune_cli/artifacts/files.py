"""Files that are whole or not there, and that outlast a power cut."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from prune_cli.errors import PruneError

SCRATCH = ".tmp"  # how the names of files end that are being written
AT_FDCWD, RENAME_EXCHANGE = -100, 2  # of the system call renameat2


def replace_file(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file so that a reader sees the old one or the new one, both whole, even after a power cut.

    `write` is given a scratch path beside `path`, whose name starts with a dot: always the same, so that the next write
    replaces what a killed one left. So one process at a time may write a file. If it fails, `path` stays as it was.
    """
    scratch = path.with_name(f".{path.name}{SCRATCH}")
    try:
        write(scratch)
        sync(scratch)
        scratch.replace(path)
    except BaseException:
        with suppress(OSError):  # the failure itself is what the user has to see
            scratch.unlink()
        raise
    sync(path.parent)


def check_ours(folder: Path, *marks: str) -> None:
    """Raise PruneError where something else stands at `folder`: it holds something, and none of the names `marks`.

    Names that start with a dot are what a killed process may leave.
    """
    held = [path.name for path in folder.iterdir() if path.name[0] != "."] if folder.is_dir() else [folder.name]
    if folder.exists() and held and not set(marks) & set(held):
        raise PruneError(f"{folder}: exists and was not made by this command; choose another name")


@contextmanager
def alone(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Run the block while no other process is in such a block about the same folder.

    Where one is, wait for it, or raise PruneError.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PruneError(f"{folder}: another process works there; wait for it, or choose another name") from None
        yield
    finally:
        os.close(handle)


def exchange(one: Path, other: Path) -> bool:
    """Let two folders change places in one step, so that a reader finds one or the other; False where it cannot be."""
    import ctypes

    try:
        renameat2 = ctypes.CDLL(None).renameat2  # Linux; Python has no function for it
    except (AttributeError, OSError):
        return False
    return renameat2(AT_FDCWD, os.fsencode(one), AT_FDCWD, os.fsencode(other), RENAME_EXCHANGE) == 0


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Wait until a folder with everything in it is on the disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
