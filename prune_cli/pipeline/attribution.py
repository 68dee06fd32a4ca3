"""Do scores predict what training does? Scores of what helps the target set against trainings on random halves."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.open import WHY
from prune_cli.methods import method as methods
from prune_cli.methods.published import NONE, PublishedMethod
from prune_cli.numeric.lds import lds
from prune_cli.pipeline.results import Made
from prune_cli.report.contents import metrics_of
from prune_cli.report.table import table

TARGET = "target set"  # in the evaluation of a half, beside the test sets
SAYS = "helps the target set"  # what a score's line `Higher:` says where it can be held against trainings


def predicts(method: PublishedMethod) -> bool:
    """Whether the score of a method says how much training on a row helps the target set."""
    return method.score != NONE and SAYS in methods.load("score", method.score, method.on).summary


def facts(halves: Sequence[Made], scores: Mapping[str, Path]) -> list[dict[str, Any]]:
    """For each score and set of rows the linear datamodeling score; models are measured by their negative loss.

    scores: name -> score artifact of the rows that the halves are of. An estimate is None where nothing varies.
    """
    subsets = np.array([_column(half.selected, WHY, "kept") for half in halves if half.selected])
    losses = [metrics_of(open_artifact(half.judged)) for half in halves]
    found = []
    for name, path in scores.items():
        values = np.array(_column(path, "score.jsonl", "score"), np.float64)
        for test in losses[0]:
            measured = np.array([-(np.inf if own[test]["loss"] is None else own[test]["loss"]) for own in losses])
            judged = lds(values, subsets, measured)
            known = math.isfinite(judged.estimate)
            figures = {"lds": judged.estimate, "low": judged.low, "high": judged.high}
            found.append(
                {
                    "score": name,
                    "test": test,
                    "halves": len(halves),
                    **{key: value if known else None for key, value in figures.items()},
                }
            )
    return found


def lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The same in words: a line for each score."""
    if not found:
        return
    yield ""
    yield (
        f"How scores predict the loss of models trained on {found[0]['halves']} random halves of the rows: linear "
        "datamodeling score, with its 95% interval; 1 wholly, 0 not at all:"
    )
    tests = list(dict.fromkeys(own["test"] for own in found))
    by_score: dict[str, list[str]] = {}
    for own in found:
        by_score.setdefault(own["score"], []).append(_figure(own))
    yield from table([["  score", *tests], *([f"  {name}", *cells] for name, cells in by_score.items())])


def _figure(own: Mapping[str, Any]) -> str:
    if own["lds"] is None:
        return "none: nothing varies"
    return f"{own['lds']:+.2f} [{own['low']:+.2f}, {own['high']:+.2f}]"


def _column(path: Path, file: str, name: str) -> list[Any]:
    return open_artifact(path).read(file, lambda opened: [line[name] for line in read_jsonl(opened)])
