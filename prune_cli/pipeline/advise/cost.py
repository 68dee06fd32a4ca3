"""What a selection in a pipeline's folder costs and saves, and the commands that make it anew."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.pipeline.advise.behind import commands, seconds
from prune_cli.pipeline.advise.choice import FULL, NONE, Line
from prune_cli.pipeline.entries import named
from prune_cli.pipeline.evidence import BASELINE


@dataclass(frozen=True)
class Cost:
    """Seconds: to choose rows (what methods share counted in full), to train on them, and to train on all rows."""

    choosing: float
    training: float
    all_rows: float

    @property
    def saved(self) -> float:
        """What one training saves, the choosing paid."""
        return self.all_rows - self.training - self.choosing

    def grown(self, times: float, *, training: bool) -> Cost:
        """About what so many times the rows cost; training: whether that grows too."""
        trained = times if training else 1.0
        return Cost(self.choosing * times, self.training * trained, self.all_rows * trained)


def selection(run: Path, line: Line) -> Path:
    """Where the selection of a line is: the first seed's, where each draws its own."""
    budget = run / "methods" / line.method / f"keep-{line.keep}"
    own = budget / "select"
    return own if own.is_dir() else min(budget.glob("seed-*/select"), key=lambda path: int(path.parent.name[5:]))


def cost(run: Path, line: Line) -> Cost | None:
    """What choosing and training takes; None where training on all rows was not measured.

    Of trainings the median over seeds: the first of a process loads libraries too.
    """
    every = _training(run, FULL, "*")
    if not every or line.method in (FULL, NONE):
        return None
    choosing = 0.0 if line.method == BASELINE else seconds([selection(run, line)])
    return Cost(choosing, float(np.median(_training(run, line.method, line.keep))), float(np.median(every)))


def how_to_select(
    run: Path, line: Line, out: str, data: Mapping[Path, str], reading: Reading | None = None
) -> list[str]:
    """The commands that make the selection of a line anew. data: rows in place of those at a path; reading: how."""
    if line.method in (FULL, NONE):
        return []
    try:
        wanted = named(line.method).method.kinds
    except PruneError:  # a method of the file's own: all that was represented may be read
        wanted = ()
    return commands(selection(run, line), line.keep, out, wanted, data, reading)


def _training(run: Path, method: str, keep: str) -> list[float]:
    paths = sorted((run / "methods" / method).glob(f"keep-{keep}/seed-*/finetune"))
    return [float(open_artifact(path, "finetune").manifest["made"]["seconds"]) for path in paths]
