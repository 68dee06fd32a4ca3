"""Rows whose label is likely wrong: a list to look through by hand, apart from what a selection keeps."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.auc import auc
from prune_cli.numeric.correlation import quantiles
from prune_cli.pipeline.page.training import Given
from prune_cli.report.compare.inputs import Inputs

LISTED = 30
# what a score's line `Higher:` says if it tells wrong labels
TELLS = re.compile(r"mislabelled examples are (?:among )?the (highest|lowest)")


def suspects(
    inputs: Inputs, score: Mapping[str, NDArray[np.float64]], given: Given, known: NDArray[np.bool_] | None
) -> dict[str, Any]:
    """Rows by their mean rank under the scores that tell wrong labels; {} where the run has none of these.

    known [n]: rows that are known to be wrong; with these comes the AUC of every score of the run.
    """
    towards = {item.name: TELLS.search(item.artifact.about["meaning"]) for item in inputs.scores}
    telling = {name: score[name] * (1 if found[1] == "highest" else -1) for name, found in towards.items() if found}
    if not telling or not given.labels:
        return {}
    ranked = {name: quantiles(values) for name, values in telling.items()}
    together = np.mean(list(ranked.values()), axis=0)
    order = np.argsort(-together, kind="stable")
    listed = [
        {
            **given.shown(int(i)),
            "suspicion": float(together[i]),
            "ranks": {name: float(of_score[i]) for name, of_score in ranked.items()},
            **({"known": bool(known[i])} if known is not None else {}),
        }
        for i in order[:LISTED]
    ]
    found: dict[str, Any] = {"scores": list(telling), "rows": len(together), "listed": listed}
    if known is not None:
        found["known"] = int(known.sum())
        found["auc"] = {name: asdict(auc(telling.get(name, values)[None], known)) for name, values in score.items()}
        found["auc_together"] = asdict(auc(together[None], known))
        found["first"] = int(known[order[: found["known"]]].sum())
    return found
