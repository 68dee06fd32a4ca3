"""The check of rows, block by block: the good ones go on, the bad ones are taken down, each with its place and reason.

Labels of a data set are all integers or all strings; strings of integers go with both, as labels are compared by their
text.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import IO

import numpy as np
from numpy.typing import NDArray

from prune_cli.data import formats, problems, typed
from prune_cli.data.lines import Block, Broken, Row
from prune_cli.data.problems import INTEGER
from prune_cli.data.sources import STDIN
from prune_cli.errors import PruneError

BROKEN = "broken JSON"
LISTED, ALIKE = 20, 5  # bad rows that are told one by one; of them, with the same problem
SKIP_BAD = '--skip-bad FILE leaves bad rows out, and writes them into FILE; in a pipeline: skip_bad = "FILE"'

Check = Callable[[Row], str | None]  # a task's: the problem of a row in words


@dataclass(frozen=True, order=True)
class Bad:
    """A bad row. part, number: which file, and the line or row in it; where: both in words."""

    part: int
    number: int
    where: str
    problem: str
    hint: str | None = field(compare=False)


@dataclass(frozen=True)
class Good:
    """The good rows of a block, m of n.

    ids [m], None where a row has none; texts [m], the lines that are written for them; kept int64 [m], their positions
    in the block, or None where all are good.
    """

    ids: list[int | str | None]
    texts: list[bytes]
    kept: NDArray[np.int64] | None


class Checker:
    """Checks the rows of a data set.

    fields: names under which keys are read. drop: keys that rows lose. format: for rows that have one, its name or
    `auto`; they are then checked as of that format, not by `check`. With `auto` the first good row decides: a bad one
    before it, which is told or left out, does not. skip: bad rows are left out and written to `left_out`, a line of
    JSON each. Only then are ids that stand twice found here; where no row is left out, it is cheaper to compare them
    all at the end.
    """

    def __init__(
        self,
        fields: Mapping[str, str],
        drop: tuple[str, ...],
        check: Check | None,
        format: str | None,
        *,
        skip: bool,
    ) -> None:
        self.format = format
        self.n_bad = 0
        self._bad: list[Bad] = []
        self.left_out: IO[bytes] | None = tempfile.TemporaryFile() if skip else None  # noqa: SIM115 (Rows keeps it)
        self.undropped = set(drop)  # keys that no row had so far
        self._fields, self._drop = fields, set(drop)
        self._check = check
        if format:
            self._check = self._undecided if format == formats.AUTO else formats.Check(format, asked=True)
        self._names = {key: name for name, key in fields.items()}
        self._label_type: type | None = None
        self._seen: dict[str, str] | None = {} if skip else None  # id -> where its row is

    def check(self, block: Block, part: int, prefix: str, before: int | None) -> Good:
        """Check the rows of a block of file number `part`. The loop stays flat: it runs for every row of the data.

        before: how many records came before the block, where rows without an id are counted and not known by line.
        """
        names, fields, drops, check = self._names, self._fields, bool(self._drop), self._check
        ids: list[int | str | None] = []
        texts: list[bytes] = []
        bad: list[int] = []
        encodes = drops or not block.plain
        for k, raw in enumerate(block.rows):
            if isinstance(raw, Broken):
                self._take_down(part, int(block.numbers[k]), prefix, raw.error, raw.text)
                bad.append(k)
                continue
            if drops:
                raw = self._without_dropped(raw)
            row = {names.get(key, key): value for key, value in raw.items()} if names else raw
            row_id, group = row.get("id"), row.get("group")  # null is missing
            problem: str | PruneError | None = problems.field_problem(raw, fields) if names else None
            if row_id is not None and not (type(row_id) is str and row_id.strip()) and type(row_id) is not int:
                problem = problem or problems.name_problem("id", row_id)
            if group is not None and not (type(group) is str and group.strip()) and type(group) is not int:
                problem = problem or problems.name_problem("group", group)
            if problem is None and check is not None:
                try:
                    problem = check(row)
                except PruneError as error:  # with a hint
                    problem = error
            text = b""
            if problem is None and encodes:
                try:
                    text = _encoded(raw, of_types=block.typed)
                except (TypeError, ValueError):
                    problem = problems.value_problem(row)
            # last of all, as these learn from a row what others must be like
            if problem is None and type(label := row.get("label")) is not self._label_type and label is not None:
                problem = self._label_problem(label)
            if problem is None and self._seen is not None:
                number = int(block.numbers[k]) if before is None else before + k + 1
                problem = self._id_problem(number if row_id is None else row_id, f"{prefix}{block.numbers[k]}")
            if problem is not None:
                self._take_down(part, int(block.numbers[k]), prefix, problem, raw)
                bad.append(k)
                continue
            ids.append(row_id)
            if encodes:
                texts.append(text)
        kept = np.delete(np.arange(len(block.rows)), bad) if bad else None
        if not encodes:
            assert block.lines is not None
            texts = block.lines if kept is None else [block.lines[k] for k in kept]
        return Good(ids, texts, kept)

    def add(self, bad: Bad) -> None:
        """Take down a bad row; only those that are told one by one are held."""
        self.n_bad += 1
        if len(self._bad) < LISTED or bad < self._bad[-1]:
            self._bad = _told([*self._bad, bad])

    def error(self, data: str, last: PruneError | None = None) -> PruneError | None:
        """The error that tells all bad rows, the first ones one by one; last: what ended the reading."""
        messages = [f"{bad.where}: {bad.problem}" for bad in self._bad]
        hints = [bad.hint for bad in self._bad]
        if more := self.n_bad - len(self._bad):
            messages.append(f"{data}: and {more:,} more bad row{'s' if more > 1 else ''}")
        if last is not None:
            messages.append(last.message)
            hints.append(last.hint)
        if not messages:
            return None
        way_out = SKIP_BAD if last is None and self.left_out is None else None
        if data == STDIN and self._bad and self._bad[0].number == 1 and self._bad[0].problem.startswith(BROKEN):
            way_out = "standard input is read as lines of JSON; other types are read from files"
        return PruneError(messages[0], hint=next(filter(None, hints), way_out), also=messages[1:])

    def no_rows(self, prefix: str, data: str) -> PruneError:
        """The error of data without rows, or with bad ones alone; then with what is wrong with the first."""
        bad = self.error(data)
        if bad is None:
            return PruneError(f"{prefix}1: no rows; allowed: at least one row")
        told = f"{prefix}1: no rows, but for {self.n_bad:,} bad ones; allowed: at least one row"
        return PruneError(told, hint=bad.hint, also=[bad.message])

    def _undecided(self, row: Row) -> str | None:
        """The problem of a row, by how it looks, until a good one decides the format; then as of that format."""
        if self.format != formats.AUTO:
            return self._check(row) if self._check else None
        name = formats.detected(row)
        problem = formats.load(name).check(row)
        if problem is None:
            self.format, self._check = name, formats.Check(name, asked=False)
        return problem

    def _take_down(self, part: int, number: int, prefix: str, problem: str | PruneError, raw: Row | str) -> None:
        where = f"{prefix}{number}"
        message, hint = (problem, None) if isinstance(problem, str) else (problem.message, problem.hint)
        message = message.removeprefix(f"{where}: ")
        if isinstance(raw, dict):
            hint = hint or _task_hint(message, raw) or problems.field_hint(message, raw) or problems.label_hint(message)
        self.add(Bad(part, number, where, message, hint))
        if self.left_out is not None:
            held = {"text": raw} if isinstance(raw, str) else {"row": typed.carried(raw)}
            line = problems.encode({"where": where, "problem": message, **held})
            self.left_out.write(line.encode(errors="replace") + b"\n")

    def _without_dropped(self, raw: Row) -> Row:
        if self.undropped:
            self.undropped.difference_update(raw)
        return {key: value for key, value in raw.items() if key not in self._drop}

    def _label_problem(self, label: object) -> str | None:
        """What is wrong with a label that is not of the type that the labels are known to have so far."""
        if type(label) is str and INTEGER.fullmatch(label):
            return None  # tells nothing, and goes with both
        if self._label_type is None:
            self._label_type = type(label)
            return None
        return problems.label_problem(label, self._label_type)

    def _id_problem(self, row_id: int | str, where: str) -> str | None:
        assert self._seen is not None
        first = self._seen.setdefault(str(row_id), where)
        return None if first is where else problems.id_problem(row_id, first)


def _encoded(raw: Row, *, of_types: bool) -> bytes:
    """The row as a line of JSON. Raises TypeError or ValueError for what JSON does not have."""
    if of_types:
        with contextlib.suppress(TypeError, ValueError):
            return problems.encode(raw).encode()
        raw = typed.carried(raw)
    return problems.encode(raw).encode()


def _task_hint(problem: str, raw: Row) -> str | None:
    """For a row that looks like one of another task than it is read as: how it is read."""
    if problems.lacking(problem) == "text" and raw.keys() >= {"question", "choices"}:
        return "--task choice reads these rows as multiple choice"
    if not any(formats.load(name).matches(raw) for name in formats.names()):
        return None
    if problems.lacking(problem) == "text":
        return "--task generation reads these rows for a language model"
    if not (renamed := problems.misnamed(problem)):
        return None
    name, key = renamed
    return f"--field {name}={key} --field {name}={name} leaves files without {key} as they are"


def _told(bad: Iterable[Bad]) -> list[Bad]:
    """Of bad rows those that are told one by one: the first by place, of those with the same problem a few."""
    alike: Counter[str] = Counter()
    told = []
    for row in sorted(bad):
        rule = problems.rule(row.problem)
        alike[rule] += 1
        if alike[rule] <= ALIKE:
            told.append(row)
    return told[:LISTED]
