"""Files as they are, or unpacked while they are read: .gz and .zst."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import IO, cast

PACKED = (".gz", ".zst")


def kind(path: Path) -> str:
    """What a file is by its name, without the suffix of a packed one: `jsonl`, `csv`, … or nothing."""
    name = Path(path.stem) if packing(path) else path
    return name.suffix.lower().removeprefix(".")


def packing(path: Path) -> str:
    """The suffix of a packed file; empty for any other."""
    suffix = path.suffix.lower()
    return suffix if suffix in PACKED else ""


def stem(path: Path) -> str:
    """The name of a file without its suffixes."""
    return Path(path.stem).stem if packing(path) else path.stem


def opened(path: Path) -> IO[bytes]:
    """The file, open for reading what was packed. Reading raises OSError, EOFError or zlib.error for a broken one."""
    if packing(path) == ".gz":
        return cast(IO[bytes], gzip.open(path))
    if packing(path) == ".zst":
        import pyarrow

        return io.BufferedReader(pyarrow.CompressedInputStream(pyarrow.OSFile(str(path)), "zstd"))
    return path.open("rb")
