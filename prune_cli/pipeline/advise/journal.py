"""What trials have done and decided: a line of JSON each, written before it is acted on.

A killed run goes on from its lines.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from time import monotonic
from typing import Any

from prune_cli.artifacts.files import replace_file
from prune_cli.artifacts.manifest import difference
from prune_cli.errors import PruneError

BEGINS = b'{"asked"'  # the first line


class Journal:
    """The lines of a journal. Time counts from when it is opened, and between lines that say seconds."""

    def __init__(self, path: Path) -> None:
        self.path, self.last = path, monotonic()
        self.lines = _read(path)

    def same(self, kind: str, values: dict[str, Any]) -> None:
        """Take down what the trials are about. Raises PruneError where they were begun about something else."""
        told = next((line[kind] for line in self.lines if kind in line), None)
        values = json.loads(json.dumps(values))
        if told is None:
            self.add(**{kind: values})
        elif changes := difference(told, values):
            raise PruneError(f"{self.path.parent}: holds trials for another question: {changes[0]}; choose another -o")

    def within(self, budget: float) -> None:
        """Write down the seconds that trials may take. They may change until rounds are planned by them.

        Raises PruneError where rounds were planned by another budget.
        """
        told = [line["budget"] for line in self.lines if "budget" in line]
        if told[-1:] == [budget]:
            return
        if any("rows" in line for line in self.lines):
            raise PruneError(
                f"{self.path.parent}: budget: {told[-1]:g} s, by which rounds were planned; choose it, or another -o"
            )
        self.add(budget=budget)

    def add(self, **line: Any) -> dict[str, Any]:
        """Write a line."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())
        self.lines.append(line)
        return line

    def spend(self, number: int, step: str) -> None:
        """Take down the seconds since the last step of a round."""
        now = monotonic()
        self.add(round=number, step=step, seconds=round(now - self.last, 2))
        self.last = now

    def find(self, kind: str, number: int) -> dict[str, Any] | None:
        """The line of a kind (`tried`, `decided`, `pool`) about a round."""
        return next((line for line in self.lines if kind in line and line.get("round") == number), None)

    def steps(self, number: int) -> list[tuple[str, float]]:
        """The steps of a round, each with its seconds."""
        return [(line["step"], line["seconds"]) for line in self.lines if "step" in line and line["round"] == number]

    def used_by(self, number: int) -> float:
        """Seconds spent by the end of a round."""
        return sum(seconds for earlier in range(number + 1) for _, seconds in self.steps(earlier))

    @property
    def used(self) -> float:
        """All seconds spent."""
        return float(sum(line["seconds"] for line in self.lines if "step" in line))


def _read(path: Path) -> list[dict[str, Any]]:
    """The lines of a journal; a last one that was cut off while it was written is none."""
    if not path.exists():
        return []
    whole, end, rest = path.read_bytes().rpartition(b"\n")
    begun = (whole + end or rest)[: len(BEGINS)]
    try:
        if not BEGINS.startswith(begun):
            raise ValueError
        lines = [json.loads(line) for line in whole.split(b"\n")] if whole else []
    except (ValueError, TypeError) as failure:
        raise PruneError(f"{path}: no journal of trials; choose another -o, or move it away") from failure
    if rest:
        replace_file(path, lambda scratch: scratch.write_bytes(whole + end))
    return lines
