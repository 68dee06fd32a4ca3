"""How far a walk has got, kept in its draft so that an interrupted walk goes on from there: a state for each process.

A point is (checkpoint, rows): all rows of earlier checkpoints, and so many rows of that one, in the order in which they
are walked. The batches into which that order is cut go to the processes in turn. A state stays true whatever runs
later, with more processes or other batches: what is written stays written.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from prune_cli.artifacts.files import replace_file
from prune_cli.artifacts.manifest import digest_value

Point = tuple[int, int]
_FILES = ".progress.*.json"


@dataclass(frozen=True)
class ResumeState:
    """What one process has done: of `processes`, with batches of at most `limits` (rows, tokens).

    All rows before `certain` were written when it began; all of its own batches before `reached` are written now.
    tokens: most tokens of a batch that fits the device's memory, as far as is known.
    """

    processes: int
    limits: tuple[int, int]
    certain: Point
    reached: Point
    tokens: int


def read(folder: Path) -> dict[int, ResumeState]:
    """The states in a draft, by process; one that is damaged is as if it were not there."""
    states = {}
    for path in folder.glob(_FILES):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            facts = json.loads(path.read_text("utf-8"))
            if facts.pop("seal") == digest_value(facts):
                pairs = {name: tuple(facts[name]) for name in ("limits", "certain", "reached")}
                states[int(path.name.split(".")[2])] = ResumeState(**{**facts, **pairs})
    return states


def discard(folder: Path) -> None:
    """Remove the states in a draft."""
    for path in folder.glob(_FILES):
        path.unlink()


def save(folder: Path, process: int, state: ResumeState) -> None:
    """Write the state of a process; the rows that it speaks of must be on disk."""
    facts = asdict(state)
    text = json.dumps({**facts, "seal": digest_value(facts)})
    replace_file(folder / f".progress.{process}.json", lambda path: path.write_text(text, "utf-8"))


def resume(states: Mapping[int, ResumeState], process: int, processes: int, limits: tuple[int, int]) -> ResumeState:
    """Where a process goes on, given the states that earlier runs left."""
    certain = _certain(states)
    own = states.get(process)
    if own and (own.processes, own.limits) == (processes, limits):
        return ResumeState(processes, limits, certain, max(certain, own.reached), own.tokens)
    return ResumeState(processes, limits, certain, certain, limits[1])


def _certain(states: Mapping[int, ResumeState]) -> Point:
    """The point before which all rows are written, whichever process wrote them."""
    points = [(0, 0), *(state.certain for state in states.values())]
    for run in {(state.processes, state.limits) for state in states.values()}:
        reached = [state.reached for state in states.values() if (state.processes, state.limits) == run]
        if len(reached) == run[0]:  # all processes of that run left a state
            points.append(min(reached))
    return max(points)
