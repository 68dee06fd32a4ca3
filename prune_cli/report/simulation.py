"""What a simulation measured: the accuracy of each method in each setting."""

from __future__ import annotations

from typing import Any

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact
from prune_cli.report.table import table


def facts(artifact: Artifact) -> dict[str, Any]:
    """The summary of the results, how far the methods agree, and what was swept."""
    lines = {name: list(read_jsonl(artifact.file(f"{name}.jsonl"))) for name in ("summary", "overlap")}
    return {**lines, "swept": artifact.about["swept"]}


def lines(facts: dict[str, Any]) -> list[str]:
    """A table: a line for each method, a column for each setting; mean ± sample deviation of the accuracy."""
    swept = facts["swept"]
    cells: dict[str, dict[str, str]] = {}
    for line in facts["summary"]:
        column = f"{swept} {line[swept]:g}" if swept else "accuracy"
        cells.setdefault(line["method"], {})[column] = f"{line['accuracy']:.3f} ± {line['accuracy_sd']:.3f}"
    columns = list(next(iter(cells.values())))
    return table([["method", *columns], *([name, *(own[c] for c in columns)] for name, own in cells.items())])
