"""The rows that each method values most and least, with what it says of them."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.data.open import WHY
from prune_cli.pipeline.page.outcomes import MARKED
from prune_cli.pipeline.page.training import Given, target
from prune_cli.report.compare.inputs import Inputs, Item

EVERY = ("id", "kept", "rank", "score")  # columns that are no reasons of a method's own
ORDERED = ("top", "bottom")  # selections that order all rows by their scores


def smallest(inputs: Inputs) -> dict[str, Item]:
    """Of each method the selection of fewest rows, in the order of the methods."""
    found: dict[str, Item] = {}
    for item in inputs.selections:
        method, kept = item.name.partition("/")[0], item.artifact.about["kept"]
        if method not in found or kept < found[method].artifact.about["kept"]:
            found[method] = item
    return found


def examples(inputs: Inputs, given: Given, run: Path, n: int) -> list[dict[str, Any]]:
    """The n rows at both ends of each method, random ones left out.

    Of methods that do not order the rows they leave out, those kept last stand for the least valued.
    """
    aims = target(run)
    return [
        _of_method(method, item, given, aims, n) for method, item in smallest(inputs).items() if method not in MARKED
    ]


def _of_method(method: str, item: Item, given: Given, aims: Given | None, n: int) -> dict[str, Any]:
    row = range(len(given.rows)) if item.order is None else np.argsort(item.order).tolist()  # of each line
    way = item.artifact.options["method"]
    most = item.artifact.read(WHY, lambda path: heapq.nsmallest(n, _kept(path), key=lambda line: line[1]["rank"]))
    ordered = way in ORDERED and "score" in most[0][1]
    if ordered:
        sign = 1 if way == "top" else -1
        least = item.artifact.read(
            WHY, lambda path: heapq.nsmallest(n, enumerate(read_jsonl(path)), key=lambda line: sign * line[1]["score"])
        )
    else:
        last = item.artifact.read(WHY, lambda path: heapq.nlargest(n, _kept(path), key=lambda line: line[1]["rank"]))
        least = [line for line in reversed(last) if line[1]["rank"] > n]
    return {
        "method": method,
        "selection": item.name,
        "score": item.artifact.about.get("score"),
        "kept": item.artifact.about["kept"],
        "ordered": ordered,
        "most": [_row(row[at], line, given, aims) for at, line in most],
        "least": [_row(row[at], line, given, aims) for at, line in least],
    }


def _kept(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The lines of the kept rows, with their places."""
    return ((at, line) for at, line in enumerate(read_jsonl(path)) if line["kept"])


def _row(i: int, line: Mapping[str, Any], given: Given, aims: Given | None) -> dict[str, Any]:
    """A row with its rank, its score and the reasons that `why.jsonl` has."""
    reasons = [_reason(name, value, aims) for name, value in line.items() if name not in EVERY and value is not None]
    return {**given.shown(i), "rank": line["rank"], "score": line.get("score"), "why": reasons}


def _reason(name: str, value: Any, aims: Given | None) -> dict[str, Any]:
    """A column's entry; that of `target` is the position of a row of the target set, which is shown."""
    if name == "target" and aims is not None and value < len(aims.rows):
        return {"name": "nearest target", "row": aims.shown(int(value))}
    return {"name": name, "value": value}
