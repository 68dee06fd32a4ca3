"""Examples on disk: read and checked once, parsed again when they are asked for, and written as they came.

One pass at opening checks every row, so that memory does not grow with the texts. A row that breaks a rule is an error
that names it: none is ever dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, overload

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.manifest import canonical
from prune_cli.data import formats, lines, problems
from prune_cli.data.lines import Block, Row
from prune_cli.data.readers import READABLE, open_records
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note

AT_ONCE = 2**20  # bytes of rows that are read at once, if no single row is larger
SCATTERED = 1000  # rows from anywhere that are written at once

Check = Callable[[Row], str | None]  # a task's: the problem of a row in words


@dataclass(frozen=True, eq=False, repr=False)
class Rows(Sequence[Row]):
    """n checked rows on disk, each parsed when asked for, in the order of their file.

    `name` is what the data is called. `fields` are the renames (name -> key) that apply to what is read, not to what
    is written. `ids` are the n ids; a row without one has the number of its line. `digest` (hex) identifies the rows
    under their ids: the same rows have the same digest from a file, from stdin or compressed. `format` is how they are
    read (formats/), None for rows of a task without formats.
    Reading a row raises PruneError where the file was changed after it was checked.
    """

    name: str
    ids: list[int | str]
    digest: str
    fields: Mapping[str, str]
    format: str | None
    _prefix: str  # what messages put before the number of a line or row
    _file: IO[bytes]
    _stamp: tuple[int, int]
    _offsets: NDArray[np.int64]  # [n + 1], bytes
    _numbers: NDArray[np.int64]  # [n], lines or rows from 1
    _lacking: NDArray[np.bool_]  # [n], whether the row has no id of its own

    def __len__(self) -> int:
        """The number of rows."""
        return len(self._numbers)

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

    def __del__(self) -> None:
        """Close the file."""
        self._file.close()

    def where(self, i: int) -> str:
        """The place of row `i` for messages: `data.jsonl:7`, or `data.parquet:row 7` without lines."""
        return f"{self._prefix}{self._numbers[i]}"

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
    format: str | None = None,
) -> Rows:
    """Open `data` and check all of its rows in one pass.

    `data` is a file (.jsonl, .json, .jsonl.gz, .csv, .tsv, .parquet, .arrow), `hf:NAME[:SPLIT]` (`train` if not
    given) or `-` for JSONL on stdin. `fields` {"text": "sentence"} reads the key `sentence` as `text`. `check`
    is the task's: the problem of a row in words, or None. Blank lines are no rows but count as lines. In CSV and
    TSV every cell is a string, but a label column that holds integers alone is read as integers. `ids` [n] are used
    for rows that have no id of their own, in place of line numbers. `format` is for rows that have one (formats/): its
    name, or `auto`, by which the first row decides; rows are then checked as of that format, not by `check`.

    Raises PruneError, with file:line where a row is at fault.
    """
    own_ids: list[int | str | None] = []
    numbers, starts, end = [np.empty(0, np.int64)], [np.empty(0, np.int64)], 0
    written = hashlib.sha256()
    label_type: type | None = None
    with contextlib.ExitStack() as stack:
        try:
            records = open_records(str(data), fields)
            own = records.file
            store = stack.enter_context(own) if own else stack.enter_context(tempfile.TemporaryFile())
            before = _stamp(store)
            for block in records.blocks:
                if format and not isinstance(check, formats.Check):
                    check = _format_check(block, records.prefix, fields, format)
                some_ids, some_lines, label_type = _checked(block, records.prefix, fields, check, label_type)
                text = b"\n".join([*some_lines, b""])
                written.update(text)
                own_ids += some_ids
                numbers.append(block.numbers)
                if own:
                    assert block.starts is not None
                    starts.append(block.starts)
                else:
                    lengths = np.fromiter(map(len, some_lines), np.int64, len(some_lines))
                    starts.append(end + np.cumsum(lengths + 1) - lengths - 1)
                    end += store.write(text)
            store.flush()
        except (OSError, EOFError, zlib.error) as error:
            raise PruneError(f"{data}: cannot be read ({error}); allowed: {READABLE}") from error
        if own and _stamp(store) != before:
            raise PruneError(f"{data}: the file was changed while it was read; allowed: an unchanged file")
        if not own_ids:
            raise PruneError(f"{records.prefix}1: no rows; allowed: at least one row")
        lines_of = np.concatenate(numbers)
        full_ids, lacking = _filled(own_ids, lines_of if ids is None else ids, str(data))
        if not (ids is None and lacking.all()):  # line numbers differ
            _check_unique(full_ids, lines_of, records.prefix)
        offsets = np.concatenate([*starts, [os.fstat(store.fileno()).st_size]])
        stack.pop_all()  # the store stays open: Rows closes it
    if isinstance(check, formats.Check):
        if not check.asked:
            note(f"{data}: rows of the format {check.name}")
        format = check.name
    digest = _digest(written.hexdigest(), fields, format, full_ids, lacking)
    prefix, stamp = records.prefix, _stamp(store)
    return Rows(records.name, full_ids, digest, dict(fields), format, prefix, store, stamp, offsets, lines_of, lacking)


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
    return Rows(
        path.stem, list(ids), digest, dict(fields), format, f"{path}:", file, before, offsets, lines_of, lacking
    )


def parse_fields(pairs: Iterable[str]) -> dict[str, str]:
    """`["text=sentence"]` -> {"text": "sentence"}, the key `sentence` read as `text`. Raises PruneError."""
    fields: dict[str, str] = {}
    for pair in pairs:
        new, equals, old = (part.strip() for part in pair.partition("="))
        if not (new and equals and old):
            raise PruneError(f"field: {pair}; allowed: NAME=KEY, as in text=sentence")
        if new in fields or old in fields.values():
            raise PruneError(f"field: {pair}; allowed: each name and each key once")
        fields[new] = old
    return fields


def _stamp(file: IO[bytes]) -> tuple[int, int]:
    status = os.fstat(file.fileno())
    return status.st_size, status.st_mtime_ns


def _renamed(row: Row, names: Mapping[str, str]) -> Row:
    """The row under the names that keys are read as; names: key -> name."""
    return {names.get(key, key): value for key, value in row.items()}


def _format_check(block: Block, prefix: str, fields: Mapping[str, str], format: str) -> formats.Check | None:
    """The check of the format that is named, or that the first row of a block looks like; None where that is unknown.

    It is unknown in a block without rows, and where `fields` names a key that the first row lacks.
    """
    if format != formats.AUTO:
        return formats.Check(format, asked=True)
    if not block.rows or problems.field_problem(raw := block.rows[0], fields):
        return None
    try:
        name = formats.detected(_renamed(raw, {key: name for name, key in fields.items()}))
    except PruneError as error:
        hint = error.hint or problems.field_hint(error.message, raw)
        raise PruneError(f"{prefix}{block.numbers[0]}: {error.message}", hint=hint) from error
    return formats.Check(name, asked=False)


def _checked(
    block: Block, prefix: str, fields: Mapping[str, str], check: Check | None, label_type: type | None
) -> tuple[list[int | str | None], list[bytes], type | None]:
    """Check the rows of a block: the id of each, None where it has none; its line; and the type of all labels.

    Raises PruneError for the first row that breaks a rule. The loop stays flat: it runs for every row of the data.
    """
    names = {key: name for name, key in fields.items()}
    ids: list[int | str | None] = []
    texts: list[bytes] = []
    for raw in block.rows:
        row = _renamed(raw, names) if names else raw
        row_id, group = row.get("id"), row.get("group")  # null is missing
        problem = problems.field_problem(raw, fields) if names else None
        if row_id is not None and not (type(row_id) is str and row_id.strip()) and type(row_id) is not int:
            problem = problem or problems.name_problem("id", row_id)
        if group is not None and not (type(group) is str and group.strip()) and type(group) is not int:
            problem = problem or problems.name_problem("group", group)
        if problem is None and check is not None:
            problem = check(row)
        if problem is None and "label" in row and type(row["label"]) is not label_type:
            if label_type is None:
                label_type = type(row["label"])
            else:
                problem = problems.label_problem(row["label"], label_type)
        if problem is None and not block.plain:
            try:
                texts.append(problems.encode(raw).encode())
            except (TypeError, ValueError):
                problem = problems.value_problem(row)
        if problem is not None:
            raise PruneError(f"{prefix}{block.numbers[len(ids)]}: {problem}", hint=problems.field_hint(problem, raw))
        ids.append(row_id)
    return ids, texts if block.lines is None else block.lines, label_type


def _filled(
    own: list[int | str | None], others: Sequence[int | str] | NDArray[np.int64], data: str
) -> tuple[list[int | str], NDArray[np.bool_]]:
    """The ids, those of `others` where a row has none of its own, and which rows these are."""
    if len(others) != len(own):
        raise PruneError(f"{data}: {len(own)} rows, but {len(others)} ids; allowed: an id for each row")
    lacking = np.fromiter((row_id is None for row_id in own), np.bool_, len(own))
    given = others.tolist() if isinstance(others, np.ndarray) else others
    return [other if row_id is None else row_id for row_id, other in zip(own, given, strict=True)], lacking


def _check_unique(ids: Sequence[int | str], numbers: NDArray[np.int64], prefix: str) -> None:
    """Raise PruneError if two ids are equal as strings. Hashes first: a set of a million strings takes much memory."""
    alike = len(set(map(type, ids))) == 1  # as strings two are equal, then, if they are equal
    hashes = np.fromiter(map(hash, ids if alike else map(str, ids)), np.int64, len(ids))
    hashes.sort()
    if (hashes[1:] != hashes[:-1]).all():
        return
    seen: dict[str, int] = {}
    for row_id, number in zip(ids, numbers.tolist(), strict=True):
        first = seen.setdefault(str(row_id), number)
        if first != number:
            problem = f"id {json.dumps(row_id)} is that of {prefix}{first} too; allowed: ids that differ"
            raise PruneError(f"{prefix}{number}: {problem}", hint="a row without an id gets its line number")


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
