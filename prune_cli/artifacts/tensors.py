"""The one reader and writer of safetensors files.

Files are written here byte by byte rather than through the library for three reasons: rows can be streamed to
their places so that no whole tensor is ever in memory; the header comes out the same every time (the library
writes metadata keys in random order); and arrays of any memory layout are written right. They are read through
the library, which checks the header, and handed out as memory maps.

Layout (https://github.com/huggingface/safetensors): 8 bytes little-endian header length, the header as JSON,
the tensors' bytes. All our metadata stands under the one key `prune`, as canonical JSON.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.manifest import canonical
from prune_cli.errors import PruneError

_CODES = {
    "float16": "F16",
    "float32": "F32",
    "float64": "F64",
    "bool": "BOOL",
    "int32": "I32",
    "int64": "I64",
}
_SUM = 4  # bytes of a row's checksum
_DTYPES = {code: np.dtype(name) for name, code in _CODES.items()}


@dataclass(frozen=True)
class Spec:
    """Shape and element type of one tensor; the first axis is the row."""

    shape: tuple[int, ...]
    dtype: str

    @property
    def nbytes(self) -> int:
        """Bytes the tensor takes on disk."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


def _header(specs: Mapping[str, Spec], metadata: Mapping[str, Any]) -> tuple[bytes, dict[str, int]]:
    """The file's head, and where each tensor starts in the file. Wide types first, so that all are aligned."""
    names = sorted(specs, key=lambda name: (-np.dtype(specs[name].dtype).itemsize, name))
    entries: dict[str, Any] = {"__metadata__": {"prune": canonical(metadata)}}
    starts: dict[str, int] = {}
    end = 0
    for name in names:
        starts[name], end = end, end + specs[name].nbytes
        entries[name] = {
            "dtype": _CODES[specs[name].dtype],
            "shape": list(specs[name].shape),
            "data_offsets": [starts[name], end],
        }
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    return head, {name: len(head) + start for name, start in starts.items()}


class RowWriter:
    """Write rows of tensors to a safetensors file in any order.

    The whole file is reserved when it is created, so that a full disk is an error at the start and not after hours. A
    file that an interrupted run left is used again if its header agrees; `.<stem>.sums` beside it has a checksum of
    each row that was written, by which `holds` knows it.

    scales: name -> the tensor float32 [n, e] that what is stored is to be multiplied by. The values of a row at a
    checkpoint are divided by a power of two, so that the largest is between a half and one: float16 then loses neither
    small nor large ones, and the division rounds nothing. vanished: name -> rows written so far that are not zero, but
    are once cast to the tensor's type.
    """

    def __init__(
        self, path: Path, specs: Mapping[str, Spec], metadata: Mapping[str, Any], scales: Mapping[str, str] = {}
    ) -> None:
        self._scales = dict(scales)
        self._names = sorted(specs)
        self.vanished = dict.fromkeys(specs, 0)
        self._specs = dict(specs)
        head, self._starts = _header(specs, metadata)
        size = len(head) + sum(spec.nbytes for spec in specs.values())
        size_of_sums = sum(spec.shape[0] * spec.shape[1] * _SUM for spec in specs.values())
        sums = path.with_name(f".{path.stem}.sums")
        self._file, self._sums = (os.open(file, os.O_RDWR | os.O_CREAT, 0o644) for file in (path, sums))
        try:
            new = os.fstat(self._file).st_size != size or os.pread(self._file, len(head), 0) != head
            if new:
                _reserve(self._file, size)
                os.pwrite(self._file, head, 0)
            if new or os.fstat(self._sums).st_size != size_of_sums:
                _reserve(self._sums, size_of_sums)
        except OSError as failure:
            self.close()
            for file in (path, sums):
                file.unlink(missing_ok=True)
            raise PruneError(f"{path}: cannot reserve {size / 1e9:.2f} GB: {failure.strerror}") from failure

    def __enter__(self) -> Self:
        """The writer itself, whose file is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
        os.close(self._sums)

    def write(self, name: str, positions: NDArray[np.int64], checkpoint: int, values: NDArray[Any]) -> None:
        """Write values [b, …] to rows `positions` [b] of tensor `name` [n, e, …] at one checkpoint.

        Values that the tensor's type cannot hold (NaN, or beyond float16's 65,504) are an error.
        """
        if name in self._scales:
            scale = power_of_two(values)
            values = values / scale.reshape(-1, *[1] * (values.ndim - 1))
            self.write(self._scales[name], positions, checkpoint, scale)
        spec = self._specs[name]
        with np.errstate(over="ignore"):
            cast = np.ascontiguousarray(values, dtype=spec.dtype)
        if not np.isfinite(cast).all():
            what = "not a finite number" if not np.isfinite(values).all() else "too large for float16"
            raise PruneError(
                f"{name}: a value is {what}",
                hint="check the model's weights, or store with --dtype float32",
            )
        if spec.dtype == "float16":
            here, there = (array.reshape(len(cast), -1).any(1) for array in (values, cast))
            self.vanished[name] += int((here & ~there).sum())
        for position, row in zip(positions.tolist(), cast, strict=True):
            at, at_sum = self._places(name, position, checkpoint)
            data = row.tobytes()
            os.pwrite(self._file, data, at)
            os.pwrite(self._sums, _checksum(data), at_sum)

    def holds(self, positions: NDArray[np.int64], checkpoint: int) -> bool:
        """Whether rows `positions` [b] of all tensors were written at a checkpoint, and are as they were written."""
        for name, spec in self._specs.items():
            size = spec.nbytes // (spec.shape[0] * spec.shape[1])
            for position in positions.tolist():
                at, at_sum = self._places(name, position, checkpoint)
                if _checksum(os.pread(self._file, size, at)) != os.pread(self._sums, _SUM, at_sum):
                    return False
        return True

    def _places(self, name: str, position: int, checkpoint: int) -> tuple[int, int]:
        """Where a row of a tensor at a checkpoint is in the file, and its checksum in the other."""
        n, e = self._specs[name].shape[:2]
        number = position * e + checkpoint
        size = self._specs[name].nbytes // (n * e)
        return self._starts[name] + number * size, (self._names.index(name) * n * e + number) * _SUM

    def sync(self) -> None:
        """Bring what was written so far safely to disk."""
        os.fdatasync(self._file)
        os.fdatasync(self._sums)


def _reserve(file: int, size: int) -> None:
    """Make a file one of `size` zeros that the disk has room for."""
    os.ftruncate(file, 0)
    os.posix_fallocate(file, 0, size)


def _checksum(data: bytes) -> bytes:
    """A checksum that is not zero: zero stands where nothing was written."""
    return (zlib.crc32(data) or 1).to_bytes(_SUM, "little")


def power_of_two(values: NDArray[Any]) -> NDArray[np.float32]:
    """For each row of float32 values [b, …] the power of two above its largest magnitude [b]; 1 for a row of zeros."""
    largest = np.abs(values).reshape(len(values), -1).max(axis=1)
    exponents = np.frexp(np.where(np.isfinite(largest), largest, 1))[1]
    return np.ldexp(np.float32(1), np.where(largest > 0, np.clip(exponents, -126, 127), 0)).astype(np.float32)


def save(path: Path, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, Any]) -> None:
    """Write whole tensors with their metadata (JSON values)."""
    specs = {name: Spec(array.shape, str(array.dtype)) for name, array in tensors.items()}
    head, starts = _header(specs, metadata)
    with path.open("wb") as stream:
        stream.write(head)
        for name in sorted(starts, key=starts.__getitem__):
            np.ascontiguousarray(tensors[name]).tofile(stream)  # no copy, of a map of a file either


def load(path: Path) -> dict[str, NDArray[Any]]:
    """All tensors of a file, memory-mapped and read-only: only what is looked at is read from disk."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):
            pass  # the library's own check of the head and of the file's size
    except SafetensorError as failure:
        raise PruneError(f"{path}: not a whole safetensors file ({failure})") from failure
    head_bytes, entries = _read_header(path)
    return {
        name: np.memmap(
            path,
            dtype=_DTYPES[entry["dtype"]],
            mode="r",
            offset=head_bytes + entry["data_offsets"][0],
            shape=tuple(entry["shape"]),
        )
        for name, entry in entries.items()
        if name != "__metadata__"
    }


def metadata(path: Path) -> dict[str, Any]:
    """The metadata that a file of ours was written with."""
    _, entries = _read_header(path)
    return dict(json.loads(entries["__metadata__"]["prune"]))


def _read_header(path: Path) -> tuple[int, dict[str, Any]]:
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        return 8 + length, json.loads(stream.read(length))
