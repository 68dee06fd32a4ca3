"""All that a page tells of a run, as JSON values: what is there is told, what is not is named with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.pipeline import results
from prune_cli.pipeline.page.alike import alike
from prune_cli.pipeline.page.examples import examples
from prune_cli.pipeline.page.maps import data_map, drawn, histograms, planes
from prune_cli.pipeline.page.outcomes import outcomes
from prune_cli.pipeline.page.price import Stage, price
from prune_cli.pipeline.page.suspects import suspects
from prune_cli.pipeline.page.training import Given, corrupted, training
from prune_cli.pipeline.results import Report
from prune_cli.report.compare import scores
from prune_cli.report.compare.inputs import Inputs, gather_run


def facts(run: Path, report: Report, found: dict[Path, Stage], opts: options.Report) -> dict[str, Any]:
    """What the results, artifacts and manifests of a run say. found: its finished artifacts."""
    order = list(dict.fromkeys(result["method"] for result in report.results))
    inputs = _ordered(gather_run(run), order)
    score = scores.scores(inputs)
    given, missing = _given(inputs)
    rows = drawn(inputs.n, opts.seed)
    known = _known(given, opts.known, corrupted(run)) if given else None
    return {
        "run": run.resolve().name,
        "rows": inputs.n,
        "labels": [str(label) for label in given.labels] if given else [],
        "missing": missing,
        "left_out": inputs.left_out,
        **outcomes(report),
        **alike(inputs, score),
        "data_map": data_map(inputs, given, rows),
        "histograms": histograms(score, given, inputs.n),
        "plane": planes(inputs, given, rows, opts.seed),
        "examples": examples(inputs, given, run, opts.examples) if given else [],
        "suspects": suspects(inputs, score, given, known) if given else {},
        "price": price(run, found, map(results.trial, report.results)),
    }


def _ordered(inputs: Inputs, methods: Sequence[str]) -> Inputs:
    """The selections in the order of the methods in the table; those without a result yet come last."""
    place = {name: i for i, name in enumerate(methods)}
    chosen = sorted(inputs.selections, key=lambda item: place.get(item.name.partition("/")[0], len(place)))
    return replace(inputs, selections=chosen)


def _given(inputs: Inputs) -> tuple[Given | None, str]:
    """The training rows, or why they cannot be shown."""
    if not inputs.n:
        return None, "no score, selection or representation has ended yet"
    try:
        return training(inputs), ""
    except PruneError as failure:
        return None, failure.message


def _known(given: Given, asked: str, changed: set[int | str]) -> NDArray[np.bool_] | None:
    """Which rows are known to be mislabelled; None where none is. Raises PruneError where that was asked for.

    changed: ids of rows that were changed on purpose, which count if nothing else was asked for.
    """
    key, equals, value = (part.strip() for part in asked.partition("="))
    if not (key and equals and value):
        raise PruneError(f"known: {asked}; allowed: KEY=VALUE, as in kind=mislabelled")
    known = given.known(key, value)
    if asked == options.Report.known:
        known |= np.fromiter((row_id in changed for row_id in given.rows.ids), np.bool_, len(known))
    if known.any() and not known.all():
        return known
    if asked != options.Report.known:
        which = "every row" if known.any() else "no row"
        raise PruneError(f"known: {asked}; {which} of the run has this value; allowed: one that some rows have")
    return None
