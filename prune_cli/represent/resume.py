"""How far a walk has got, kept in its draft so that it goes on there when killed: one mark for each process.

A place is (checkpoint, rows): how many rows of that checkpoint lie behind it, in the order in which they are walked.
The batches into which that order is cut go to the processes in turn. Marks are true whatever runs later, with more
processes or other batches: what is written stays written.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

Place = tuple[int, int]


@dataclass(frozen=True)
class Mark:
    """What one process has done: of `processes`, with batches of at most `limits` (rows, tokens).

    All rows before `certain` were there when it began; all of its own batches before `reached` are. `tokens`: of a
    batch that the device's memory holds, as far as was found.
    """

    processes: int
    limits: tuple[int, int]
    certain: Place
    reached: Place
    tokens: int


def read(folder: Path) -> dict[int, Mark]:
    """The marks in a draft, by process."""
    found = {}
    for path in folder.glob(".progress.*.json"):
        facts = json.loads(path.read_text("utf-8"))
        pairs = {name: tuple(facts[name]) for name in ("limits", "certain", "reached")}
        found[int(path.name.split(".")[2])] = Mark(**{**facts, **pairs})
    return found


def save(folder: Path, process: int, mark: Mark) -> None:
    """Set a process's mark; the rows that it speaks of must be on disk."""
    scratch = folder / f".progress.{process}.tmp"
    with scratch.open("w", encoding="utf-8") as stream:
        json.dump(asdict(mark), stream)
        stream.flush()
        os.fsync(stream.fileno())
    scratch.replace(folder / f".progress.{process}.json")


def resume(found: Mapping[int, Mark], process: int, processes: int, limits: tuple[int, int]) -> Mark:
    """Where a process goes on, given the marks that earlier runs left."""
    certain = _certain(found)
    mine = found.get(process)
    if mine and (mine.processes, mine.limits) == (processes, limits):
        return Mark(processes, limits, certain, max(certain, mine.reached), mine.tokens)
    return Mark(processes, limits, certain, certain, limits[1])


def _certain(found: Mapping[int, Mark]) -> Place:
    """The place before which all rows are written, whoever wrote them."""
    places = [(0, 0), *(mark.certain for mark in found.values())]
    for ran in {(mark.processes, mark.limits) for mark in found.values()}:
        reached = [mark.reached for mark in found.values() if (mark.processes, mark.limits) == ran]
        if len(reached) == ran[0]:  # the marks of all processes of that run
            places.append(min(reached))
    return max(places)
