"""`prune compare`: what scores, selections and representations of the same rows have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prune_cli.report.compare import representations, scores
from prune_cli.report.compare.inputs import gather
from prune_cli.report.compare.representations import Drawing


def facts(names: Sequence[str], drawing: Drawing, *, all_seeds: bool = False) -> dict[str, Any]:
    """All that can be said of artifacts about the same rows, or of those in a pipeline's folder, as JSON values."""
    inputs = gather(names, all_seeds=all_seeds)
    score, kept = scores.scores(inputs), scores.selections(inputs)
    return {
        "rows": inputs.n,
        "scores": list(score),
        "selections": {name: int(rows.sum()) for name, rows in kept.items()},
        "left_out": inputs.left_out,
        "correlations": scores.correlated(score),
        "overlaps": scores.overlaps(kept),
        "shares": {what: scores.shares(inputs, what) for what in ("label", "group")},
        "quantiles": scores.quantiles(kept, score) if score else {},
        "representations": representations.compared(inputs, drawing),
    }
