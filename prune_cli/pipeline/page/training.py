"""The training rows of a run: their texts as a page shows them, their labels, and which are known to be wrong."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact, is_artifact, open_artifact
from prune_cli.data.open import WHY, Reading, open_rows, rows_behind
from prune_cli.data.rows import Rows
from prune_cli.report.compare.inputs import Inputs, artifacts
from prune_cli.report.corruption import CORRUPT
from prune_cli.report.table import plain
from prune_cli.tasks import Task

CUT = 300  # characters of a text that are shown


@dataclass(frozen=True)
class Given:
    """n rows of a task; labels: the label list; label [n]: which of them each row has, -1 for none."""

    task: Task
    rows: Rows
    labels: list[Any]
    label: NDArray[np.int64]

    def shown(self, i: int) -> dict[str, Any]:
        """A row's id, its label if it has one, and its text; `cut`: how many characters of it are left out."""
        text = self.task.text(self.rows[i], **({"format": self.rows.format} if self.rows.format else {}))
        label = {"label": self.labels[self.label[i]]} if self.label[i] >= 0 else {}
        return {"id": self.rows.ids[i], **label, "text": text[:CUT], "cut": max(0, len(text) - CUT)}

    def known(self, key: str, value: str) -> NDArray[np.bool_]:
        """Which rows [n] have a value under a key: a text, or another JSON value as it is written."""
        found = (key in row and plain(row[key]) == value for row in self.rows)
        return np.fromiter(found, np.bool_, len(self.rows))


def training(inputs: Inputs) -> Given:
    """The rows that the artifacts of a run are about. Raises PruneError where they are gone or have changed."""
    for item in inputs.represented:
        if item.order is None:
            return _given(item.artifact, open_rows(str(item.artifact.path), Reading(), None))
    item = next(item for item in (*inputs.scores, *inputs.selections) if item.order is None)
    return _given(item.artifact, rows_behind(item.artifact, tasks.load(item.artifact.options["task"]).check))


def target(run: Path) -> Given | None:
    """The rows of the target set, where the run represents one."""
    for path in artifacts((run / "represent" / "validation").glob("**")):
        return _given(open_artifact(path, "represent"), open_rows(str(path), Reading(), None))
    return None


def corrupted(run: Path) -> set[int | str]:
    """The ids of the rows that a run changed on purpose."""
    if not is_artifact(run / CORRUPT):
        return set()
    lines = open_artifact(run / CORRUPT).read(WHY, lambda path: list(read_jsonl(path)))
    return {line["id"] for line in lines if line["was"] is not None}


def _given(artifact: Artifact, rows: Rows) -> Given:
    task = tasks.load(artifact.options["task"])
    labels = task.label_list(rows)
    return Given(task, rows, labels, task.label_indices(rows, labels) if labels else np.full(len(rows), -1))
