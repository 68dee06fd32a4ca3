"""The rows that each method values most and least, with what it says of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.data.open import WHY
from prune_cli.report.compare.inputs import Inputs, Item
from prune_cli.report.page.outcomes import MARKED
from prune_cli.report.page.training import Given, target

EVERY = ("id", "kept", "rank", "score")  # columns that are no reasons of a method's own
LEAST = {"top": 1, "bottom": -1}  # selections that order all rows by their scores: which end is valued least


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
    lines = item.artifact.read(WHY, lambda path: list(read_jsonl(path)))
    at = range(len(lines)) if item.order is None else item.order.tolist()
    rows = {i: lines[place] for i, place in enumerate(at)}
    ranked = sorted((i for i, line in rows.items() if line["kept"]), key=lambda i: int(rows[i]["rank"]))
    way = LEAST.get(item.artifact.options["method"])
    if way and all("score" in line for line in rows.values()):
        least = sorted(rows, key=lambda i: way * float(rows[i]["score"]))[:n]
    else:
        way, least = None, ranked[n:][-n:]
    return {
        "method": method,
        "selection": item.name,
        "score": item.artifact.about.get("score"),
        "kept": len(ranked),
        "ordered": way is not None,
        "most": [_row(i, rows[i], given, aims) for i in ranked[:n]],
        "least": [_row(i, rows[i], given, aims) for i in least],
    }


def _row(i: int, line: Mapping[str, Any], given: Given, aims: Given | None) -> dict[str, Any]:
    """A row with its rank, its score and the reasons that `why.jsonl` has."""
    reasons = [_reason(name, value, aims) for name, value in line.items() if name not in EVERY and value is not None]
    return {**given.shown(i), "rank": line["rank"], "score": line.get("score"), "why": reasons}


def _reason(name: str, value: Any, aims: Given | None) -> dict[str, Any]:
    """A column's entry; that of `target` is the position of a row of the target set, which is shown."""
    if name == "target" and aims is not None and value < len(aims.rows):
        return {"name": "nearest target", "row": aims.shown(int(value))}
    return {"name": name, "value": value}
