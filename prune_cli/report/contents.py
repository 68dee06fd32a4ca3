"""What an artifact holds, for `prune show`: the kept rows of a selection, scores, metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact
from prune_cli.report.table import plain, table
from prune_cli.stages.counts import MOST, share

EDGE = 3  # rows that are shown at each end
PARTS = 10  # labels or groups that are shown, the largest
QUANTILES = {"lowest": 0.0, "10%": 0.1, "25%": 0.25, "median": 0.5, "75%": 0.75, "90%": 0.9, "highest": 1.0}


def kept(artifact: Artifact) -> dict[str, Any]:
    """Of a selection the first and the last kept rows: id, rank, score and the method's own reasons.

    Where it has scores, their quantiles over all rows and over those kept.
    """
    why = list(read_jsonl(artifact.file("why.jsonl")))
    chosen = sorted((line for line in why if line["kept"]), key=lambda line: int(line["rank"]))
    shown = [{key: value for key, value in line.items() if key != "kept"} for line in chosen]
    found: dict[str, Any] = {"first": shown[:EDGE], "last": shown[EDGE:][-EDGE:]}
    if "score" in shown[0]:
        found["scores"] = {name: _quantiles(lines) for name, lines in (("all", why), ("kept", chosen))}
    return found


def scores(artifact: Artifact) -> dict[str, Any]:
    """The quantiles of scores, and the rows that have the highest and the lowest."""
    lines = list(read_jsonl(artifact.file("score.jsonl")))
    ordered = sorted(lines, key=lambda line: -float(line["score"]))
    return {
        "quantiles": _quantiles(lines),
        "highest": ordered[:EDGE],
        "lowest": ordered[EDGE:][-EDGE:],
    }


def metrics_of(artifact: Artifact) -> dict[str, Any]:
    """What was measured on each test set."""
    return dict(json.loads(artifact.file("metrics.json").read_text("utf-8")))


READ: dict[str, tuple[str, str, Callable[[Artifact], dict[str, Any]]]] = {  # stage -> name, file, what reads it
    "select": ("kept", "why.jsonl", kept),
    "score": ("scores", "score.jsonl", scores),
    "eval": ("metrics", "metrics.json", metrics_of),
}


def contents(artifact: Artifact, damaged: Sequence[str]) -> dict[str, Any]:
    """What an artifact holds, under its name; nothing of a damaged file."""
    if artifact.stage not in READ:
        return {}
    name, file, read = READ[artifact.stage]
    return {name: {} if file in damaged else read(artifact)}


def lines(facts: Mapping[str, Any]) -> dict[str, list[str]]:
    """What an artifact holds in words: title -> lines."""
    chosen, scored, measured = (facts.get(name) or {} for name in ("kept", "scores", "metrics"))
    counts, labels = facts["about"].get("counts", {}), facts["about"].get("labels")
    return {
        "warnings": list(facts["about"].get("warnings", [])),
        "labels": [", ".join(map(str, labels))] if labels else [],
        "kept": _edges(chosen["first"], chosen["last"]) if chosen else [],
        "scores": _quantile_lines(chosen["scores"]) if chosen.get("scores") else _quantile_lines(scored),
        "rows": _edges(scored["highest"], scored["lowest"]) if scored else [],
        "metrics": _metric_lines(measured) if measured else [],
        **{f"{what}s": _share_lines(parts) for what, parts in counts.items()},
    }


def _quantiles(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    values = np.quantile([row["score"] for row in rows], list(QUANTILES.values()))
    return dict(zip(QUANTILES, values.tolist(), strict=True))


def _quantile_lines(found: Mapping[str, Any]) -> list[str]:
    """Quantiles as a table: a line for them, or for those of all rows and of those kept."""
    of = {"": found["quantiles"]} if "quantiles" in found else found
    if not of:
        return []
    head = [*([""] if len(of) > 1 else []), *QUANTILES]
    return table([head, *([*([name] if name else []), *map(_number, own.values())] for name, own in of.items())])


def _edges(first: Sequence[Mapping[str, Any]], last: Sequence[Mapping[str, Any]]) -> list[str]:
    """Rows at both ends as a table."""
    rows = [*first, *last]
    shown = table([list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)])
    gap = ["…"] if len(last) == EDGE else []
    return [*shown[: 1 + len(first)], *gap, *shown[1 + len(first) :]]


def _share_lines(parts: Sequence[Mapping[str, Any]] | None) -> list[str]:
    """Labels or groups, the largest first: rows and kept rows, with their shares."""
    if parts is None:
        return [f"more than {MOST:,}, which are not counted"]
    largest = sorted(parts, key=lambda part: -int(part["rows"]))
    cells = [
        [str(part["name"]), *(f"{part[which]:,} ({share(part, parts, which):.1%})" for which in ("rows", "kept"))]
        for part in largest[:PARTS]
    ]
    more = [f"… {len(parts) - PARTS:,} more in --json"] if len(parts) > PARTS else []
    return [*table([["", "all rows", "kept"], *cells]), *more]


def _metric_lines(measured: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each test set, a column for each number that any of them has."""
    names = list(dict.fromkeys(name for own in measured.values() for name, value in own.items() if _told(value)))
    cells = [[test, *(_number(own[name]) if name in own else "" for name in names)] for test, own in measured.items()]
    return table([["", *names], *cells])


def _told(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _cell(value: Any) -> str:
    return _number(value) if value is None or isinstance(value, float) else plain(value)


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
