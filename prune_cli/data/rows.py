"""Examples on disk: read and checked once, parsed again when they are asked for, and written as they came.

One pass at opening checks every row, so that memory does not grow with the texts. Rows that break a rule are an error
that names them; none is left out unasked.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.manifest import canonical
from prune_cli.data import lines, problems
from prune_cli.data.checking import Bad, Checker, Good
from prune_cli.data.checking import Check as Check  # who opens rows imports it from here
from prune_cli.data.formats import AUTO
from prune_cli.data.lines import Block, Row
from prune_cli.data.readers import open_records
from prune_cli.data.sources import READABLE, data_name
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note

AT_ONCE = 2**20  # bytes of rows that are read at once, if no single row is larger
SCATTERED = 1000  # rows from anywhere that are written at once


@dataclass(frozen=True)
class Places:
    """Where n rows came from. Part j is the file whose messages begin with prefixes[j], from row firsts[j] on."""

    prefixes: tuple[str, ...]
    firsts: NDArray[np.int64]
    numbers: NDArray[np.int64]  # [n], lines or rows of the files from 1

    def where(self, i: int) -> str:
        """The place of row `i`: `data.jsonl:7`, or `data.parquet:row 7` without lines."""
        return f"{self.prefixes[self.part(i)]}{self.numbers[i]}"

    def part(self, i: int) -> int:
        """The number of the file of row `i`."""
        return int(np.searchsorted(self.firsts, i, "right")) - 1


@dataclass(frozen=True, eq=False)
class LeftOut:
    """Bad rows that were left out: how many, and a line of JSON for each: {"where", "problem", "row" or "text"}."""

    count: int
    file: IO[bytes]


@dataclass(frozen=True, eq=False, repr=False)
class Rows(Sequence[Row]):
    """n checked rows on disk, each parsed when asked for, in the order of their file.

    `name` is what the data is called. `fields` are the renames (name -> key) that apply to what is read, not to what
    is written. `ids` are the n ids; a row without one has the number of its line, or of several files its number among
    all rows. `digest` (hex) identifies the rows under their ids: the same rows have the same digest from a file, from
    stdin or compressed. `format` is how they are read (formats/), None for rows of a task without formats; `detected`
    if it was not given, but known by how they look. `drop` are the keys that rows lost when they were read, `left_out`
    the bad rows, if they were to be left out.
    Reading a row raises PruneError where the file was changed after it was checked.
    """

    name: str
    ids: list[int | str]
    digest: str
    fields: Mapping[str, str]
    format: str | None
    _places: Places
    _file: IO[bytes]
    _stamp: tuple[int, int]
    _offsets: NDArray[np.int64]  # [n + 1], bytes
    _lacking: NDArray[np.bool_]  # [n], whether the row has no id of its own
    drop: tuple[str, ...] = ()
    left_out: LeftOut | None = None
    detected: bool = False

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.ids)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> list[Row]: ...
    def __getitem__(self, index: int | slice) -> Row | list[Row]:
        """Row `index` with renames applied and `id` filled in; a slice gives a list of rows."""
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return list(self._between(start, stop)) if step == 1 else [self[i] for i in range(start, stop, step)]
        i = range(len(self))[index]
        return self._row(i, self._lines(i, i + 1)[0])

    def __iter__(self) -> Iterator[Row]:
        """The rows in order, read by blocks."""
        return self._between(0, len(self))

    @property
    def source(self) -> str:
        """What messages call the rows: their file, or the data's name where they are of several."""
        prefixes = self._places.prefixes
        return prefixes[0].rpartition(":")[0] if len(prefixes) == 1 else self.name

    def __del__(self) -> None:
        """Close the file."""
        self._file.close()

    def where(self, i: int) -> str:
        """The place of row `i` for messages: `data.jsonl:7`, or `data.parquet:row 7` without lines."""
        return self._places.where(i)

    def write(self, path: str | Path, positions: Iterable[int] | None = None) -> str:
        """Write the rows, or those at `positions` in that order, as JSONL. Returns the digest of what is written.

        A row of JSONL is written byte for byte as it came, any other as JSON with its own keys in their own order.
        """
        chosen = None if positions is None else np.arange(len(self))[np.fromiter(positions, np.int64)]
        digest = hashlib.sha256()
        with Path(path).open("wb") as out:
            for some in self._all_lines() if chosen is None else self._lines_at(chosen):
                data = b"\n".join([*some, b""])
                digest.update(data)
                out.write(data)
        if chosen is None:
            return self.digest
        ids = [self.ids[i] for i in chosen.tolist()]
        return _digest(digest.hexdigest(), self.fields, self.format, ids, self._lacking[chosen])

    def _row(self, i: int, line: bytes) -> Row:
        row = lines.parse(line)
        if self.fields:
            row = _renamed(row, {key: name for name, key in self.fields.items()})
        row["id"] = self.ids[i]
        return row

    def _between(self, start: int, stop: int) -> Iterator[Row]:
        for some in self._blocks(start, stop):
            for i, line in zip(some, self._lines(some.start, some.stop), strict=True):
                yield self._row(i, line)

    def _blocks(self, start: int, stop: int) -> Iterator[range]:
        """Rows from `start` to before `stop`, in parts of AT_ONCE bytes or one row."""
        while start < stop:
            end = int(np.searchsorted(self._offsets, self._offsets[start] + AT_ONCE, "right")) - 1
            end = min(max(end, start + 1), stop)
            yield range(start, end)
            start = end

    def _lines(self, start: int, stop: int) -> list[bytes]:
        """The lines of the rows from `start` to before `stop`, as they are written, without their ends."""
        first, end = int(self._offsets[start]), int(self._offsets[stop])
        data = os.pread(self._file.fileno(), end - first, first)
        self._check_unchanged(start)
        return lines.split(data)

    def _check_unchanged(self, i: int) -> None:
        """Raise PruneError, for row `i`, if the file is no longer what was checked."""
        if _stamp(self._file) != self._stamp:
            raise PruneError(f"{self.where(i)}: the file was changed while in use; allowed: an unchanged file")

    def _all_lines(self) -> Iterator[list[bytes]]:
        return (self._lines(some.start, some.stop) for some in self._blocks(0, len(self)))

    def _lines_at(self, positions: NDArray[np.int64]) -> Iterator[list[bytes]]:
        handle, starts, ends = self._file.fileno(), self._offsets[positions], self._offsets[positions + 1]
        for at in range(0, len(positions), SCATTERED):
            some = slice(at, at + SCATTERED)
            places = zip((ends - starts)[some].tolist(), starts[some].tolist(), strict=True)
            texts = [os.pread(handle, length, start) for length, start in places]
            self._check_unchanged(int(positions[at]))
            yield [text.partition(b"\n")[0].rstrip(b"\r") for text in texts]  # behind it only blank lines


def read_rows(
    data: str | Path,
    fields: Mapping[str, str] = {},
    *,
    check: Check | None,
    ids: Sequence[int | str] | None = None,
    drop: Sequence[str] = (),
    skip_bad: bool = False,
    format: str | None = None,
) -> Rows:
    """Open `data` and check all of its rows in one pass.

    `data` is what guide/rows.md lists: a file, several by a pattern, a folder, `hf:NAME` or `-` for JSONL on stdin.
    `fields` {"text": "sentence"} reads the key `sentence` as `text`. `check` is the task's: the problem of a row in
    words, or None. Blank lines are no rows but count as lines. In CSV and TSV every cell is a string or, where it is
    blank, null; but a label column that holds integers alone is read as integers. `ids` [n] are used for rows that
    have no id of their own, in place of line numbers. `drop`: keys that rows lose. `skip_bad`: leave bad rows out.
    `format` is for rows that have one (formats/): its name, or `auto`, by which the first good row decides; rows are
    then checked as of that format, not by `check`.

    Raises a PruneError that tells all bad rows by file:line.
    """
    data = str(data)
    checker = Checker(fields, tuple(drop), check, format, skip=skip_bad)
    with contextlib.ExitStack() as stack:
        gathered = _Gathered()
        try:
            parts = open_records(data, fields)
            file = stack.enter_context(parts[0].file) if parts[0].file else None
            before = _stamp(file) if file else None
            in_place = file is not None and not (skip_bad or drop)  # the rows are read again from where they are
            store = file if file and in_place else stack.enter_context(tempfile.TemporaryFile())
            for part in parts:
                gathered.begin(part.prefix)
                for block in part.blocks:
                    before_it = gathered.n_records if len(parts) > 1 else None
                    good = checker.check(block, len(gathered.prefixes) - 1, part.prefix, before_it)
                    text = gathered.add(block, good, in_place=in_place)
                    if skip_bad or not (in_place or checker.n_bad):  # after a bad row only to tell what else is bad
                        store.write(text)
            store.flush()
        except PruneError as error:
            raise (None if skip_bad else checker.error(data, error)) or error from error
        except (OSError, EOFError, zlib.error) as error:
            raise PruneError(f"{data}: cannot be read ({error}); allowed: {READABLE}") from error
        if file and _stamp(file) != before:
            raise PruneError(f"{data}: the file was changed while it was read; allowed: an unchanged file")
        places = gathered.places()
        given = ids if ids is not None else gathered.running() if len(parts) > 1 else places.numbers
        full_ids, lacking = _filled(gathered.ids, given, data)
        if not skip_bad and not (ids is None and lacking.all()):  # line numbers differ
            _check_unique(full_ids, places, checker)
        if not skip_bad and (failure := checker.error(data)):
            raise failure
        if not full_ids:
            raise checker.no_rows(parts[0].prefix, data)
        offsets = np.concatenate([*gathered.starts, [os.fstat(store.fileno()).st_size]])
        stack.pop_all()  # the store stays open: Rows closes it
    if file and not in_place:
        file.close()
    digest = _digest(gathered.written.hexdigest(), fields, checker.format, full_ids, lacking)
    left_out = LeftOut(checker.n_bad, checker.left_out) if checker.left_out else None
    name, stamp = data_name(data), _stamp(store)
    rows = Rows(
        name,
        full_ids,
        digest,
        dict(fields),
        checker.format,
        places,
        store,
        stamp,
        offsets,
        lacking,
        tuple(drop),
        left_out,
        detected=format == AUTO,
    )
    _tell(rows, data, checker)
    return rows


class _Gathered:
    """What is known of the good rows after each block: their ids, their places, where their lines begin, their hash."""

    def __init__(self) -> None:
        self.ids: list[int | str | None] = []
        self.prefixes: list[str] = []
        self.n_records = 0  # bad ones too
        self.starts = [np.empty(0, np.int64)]
        self.written = hashlib.sha256()
        self._firsts: list[int] = []
        self._numbers, self._running = [np.empty(0, np.int64)], [np.empty(0, np.int64)]
        self._end = 0

    def begin(self, prefix: str) -> None:
        """Begin with a file."""
        self.prefixes.append(prefix)
        self._firsts.append(len(self.ids))

    def add(self, block: Block, good: Good, *, in_place: bool) -> bytes:
        """Add the good rows of a block; returns their lines, each with its end."""
        some = slice(None) if good.kept is None else good.kept
        self.ids += good.ids
        self._numbers.append(block.numbers[some])
        self._running.append(np.arange(self.n_records + 1, self.n_records + len(block.rows) + 1)[some])
        self.n_records += len(block.rows)
        text = b"\n".join([*good.texts, b""]) if good.texts else b""
        self.written.update(text)
        if in_place:
            assert block.starts is not None
            self.starts.append(block.starts[some])
        else:
            lengths = np.fromiter(map(len, good.texts), np.int64, len(good.texts))
            self.starts.append(self._end + np.cumsum(lengths + 1) - lengths - 1)
            self._end += len(text)
        return text

    def places(self) -> Places:
        """Where the rows came from."""
        return Places(tuple(self.prefixes), np.array(self._firsts, np.int64), np.concatenate(self._numbers))

    def running(self) -> NDArray[np.int64]:
        """The number of each row among the records of all files, from 1."""
        return np.concatenate(self._running)


def _tell(rows: Rows, data: str, checker: Checker) -> None:
    """Tell on stderr what format the rows look like, what was left out of them, and what was to be but is not there."""
    if rows.detected:
        note(f"{data}: rows of the format {rows.format}")
    if checker.n_bad:
        left_out = "bad row is" if checker.n_bad == 1 else "bad rows are"
        note(f"{data}: {checker.n_bad:,} {left_out} left out, {len(rows):,} are kept")
    for key in sorted(checker.undropped):
        note(f"{data}: no row has the key {key}, which was to be dropped")


def reopen_rows(
    path: Path, fields: Mapping[str, str], format: str | None, ids: Sequence[int | str], digest: str
) -> Rows | None:
    """The rows of a JSONL file that were checked before, under the ids that they had then; None if they are others.

    They are known by their digest, so that nothing is parsed.
    """
    numbers, starts, written = [np.empty(0, np.int64)], [np.empty(0, np.int64)], hashlib.sha256()
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(path.open("rb"))
        before = _stamp(file)
        for texts, some_numbers, some_starts in lines.filled(file):
            written.update(b"\n".join([*texts, b""]))
            numbers.append(some_numbers)
            starts.append(some_starts)
        lines_of = np.concatenate(numbers)
        lacking = np.full(len(lines_of), written.hexdigest() != digest)  # or the lines alone would not have it
        same = len(ids) == len(lines_of) and _digest(written.hexdigest(), fields, format, ids, lacking) == digest
        if not same or _stamp(file) != before:
            return None
        stack.pop_all()  # the file stays open: Rows closes it
    offsets = np.concatenate([*starts, [before[0]]])
    places = Places((f"{path}:",), np.zeros(1, np.int64), lines_of)
    return Rows(path.stem, list(ids), digest, dict(fields), format, places, file, before, offsets, lacking)


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    """The row under the names that keys are read as; names: key -> name."""
    return {names.get(key, key): value for key, value in row.items()}


def _filled(
    own: list[int | str | None], others: Sequence[int | str] | NDArray[np.int64], data: str
) -> tuple[list[int | str], NDArray[np.bool_]]:
    """The ids, those of `others` where a row has none of its own, and which rows these are."""
    if len(others) != len(own):
        raise PruneError(f"{data}: {len(own)} rows, but {len(others)} ids; allowed: an id for each row")
    lacking = np.fromiter((row_id is None for row_id in own), np.bool_, len(own))
    given = others.tolist() if isinstance(others, np.ndarray) else others
    return [other if row_id is None else row_id for row_id, other in zip(own, given, strict=True)], lacking


def _check_unique(ids: Sequence[int | str], places: Places, checker: Checker) -> None:
    """Take down the rows whose id, as a string, an earlier row has.

    Hashes first: a set of a million strings takes much memory.
    """
    alike = len(set(map(type, ids))) == 1  # as strings two are equal, then, if they are equal
    hashes = np.fromiter(map(hash, ids if alike else map(str, ids)), np.int64, len(ids))
    hashes.sort()
    if (hashes[1:] != hashes[:-1]).all():
        return
    seen: dict[str, int] = {}
    for i, row_id in enumerate(ids):
        first = seen.setdefault(str(row_id), i)
        if first != i:
            problem = problems.id_problem(row_id, places.where(first))
            hint = "a row without an id gets its line number"
            checker.add(Bad(places.part(i), int(places.numbers[i]), places.where(i), problem, hint))


def _digest(
    written: str,
    fields: Mapping[str, str],
    format: str | None,
    ids: Sequence[int | str],
    lacking: NDArray[np.bool_],
) -> str:
    """sha256 (hex) of rows, `written` being that of their lines: with what the lines do not say, how they are read."""
    if not fields and not format and not lacking.any():
        return written
    read = [canonical(fields), canonical(ids), *([format] if format else [])]
    return hashlib.sha256("\n".join([written, *read]).encode()).hexdigest()
