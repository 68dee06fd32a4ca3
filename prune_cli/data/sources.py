"""What DATA names: a file, several by a pattern, a folder of the library datasets, the hub, or standard input."""

from __future__ import annotations

import glob
import os
import re
from pathlib import Path, PurePath

from prune_cli.data import packed, typed

STDIN, HUB = "-", "hf:"
READABLE = (
    ".jsonl, .ndjson, .json, .csv, .tsv (each also .gz or .zst), .parquet, .arrow, a pattern such as 'part-*.jsonl', "
    "a folder of save_to_disk, hf:NAME[/CONFIG][:SPLIT], or - for JSONL on stdin"
)


def data_name(data: str) -> str:
    """What data is called: its file's stem, the data set's name with the split asked for, or stdin.

    Of a pattern it is what stands before the wildcard, or else the folder.
    """
    if data == STDIN:
        return "stdin"
    if data.startswith(HUB):
        name, split = hub_parts(data)
        return Path(name).name + (f"-{split}" if split else "")
    if folder := folder_of(data):
        path, split = folder
        return path.name + (f"-{split}" if split else "")
    path = Path(data)
    if is_pattern(data):
        return re.split(r"[*?[]", path.name)[0].rstrip(" .-_") or path.parent.name or "rows"
    return packed.stem(path)


def hub_parts(data: str) -> tuple[str, str]:
    """The name (with owner and configuration) and the split, perhaps empty, of `hf:NAME:SPLIT`."""
    name, _, split = data.removeprefix(HUB).partition(":")
    return name, split


def folder_of(data: str) -> tuple[Path, str] | None:
    """The folder and the split, perhaps empty, of data that `save_to_disk` made: FOLDER or FOLDER:SPLIT."""
    folder, _, split = data.rpartition(":")
    for path, wanted in ((Path(data), ""), (Path(folder), split)):
        if str(path) and typed.is_saved(path) and (wanted or path == Path(data)):
            return path, wanted
    return None


def is_pattern(data: str) -> bool:
    """Whether data is a pattern for the names of files; a file of that very name is not."""
    return glob.has_magic(data) and not Path(data).exists()


def files_of(data: str) -> list[Path]:
    """The files that data is read from, in order of name; none of standard input, of the hub, or where none are."""
    if data == STDIN or data.startswith(HUB):
        return []
    if folder := folder_of(data):
        return sorted(path for path in folder[0].rglob("*") if path.is_file())
    found = glob.glob(data) if is_pattern(data) else [data]  # noqa: PTH207 (the pattern may be absolute)
    return sorted(path for path in map(Path, found) if path.is_file())


def reads(pattern: str, path: Path) -> bool:
    """Whether data is a pattern that a file at `path` has, were it there."""
    hidden = path.name.startswith(".") and not Path(pattern).name.startswith(".")
    if pattern.startswith(HUB) or not is_pattern(pattern) or hidden:
        return False
    # ".." goes, and links stay, as patterns see them
    return PurePath(os.path.abspath(path)).match(os.path.abspath(pattern))  # noqa: PTH100
