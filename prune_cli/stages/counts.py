"""How many rows of each label and of each group there are and were kept, and what to warn of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.data.rows import Rows
from prune_cli.runtime.progress import note
from prune_cli.tasks import Task

MOST = 1000  # parts that are counted: more would swell the manifest
NAMED = 5  # parts that a warning names

Counts = Mapping[str, Sequence[Mapping[str, Any]]]


def counts(task: Task, labels: Sequence[Any], rows: Rows, kept: NDArray[np.int64]) -> dict[str, list[dict[str, Any]]]:
    """For label and group, where rows have any, an entry for each: {"name", "rows", "kept"}, in order of name.

    labels: the label list. kept: positions of the kept rows. Rows without a label, or a group, are not counted.
    """
    found = {"label": _counted(labels, task.label_indices(rows, labels), kept)} if labels else {}
    groups = [row.get("group") for row in rows]
    names = sorted({str(group) for group in groups if group is not None})
    if names:
        place = {name: i for i, name in enumerate(names)}
        index = np.fromiter((-1 if group is None else place[str(group)] for group in groups), np.int64, len(groups))
        found["group"] = _counted(names, index, kept)
    return found


def _counted(names: Sequence[Any], index: NDArray[np.int64], kept: NDArray[np.int64]) -> list[dict[str, Any]]:
    of_all, of_kept = (np.bincount(some[some >= 0], minlength=len(names)).tolist() for some in (index, index[kept]))
    return [{"name": name, "rows": n, "kept": m} for name, n, m in zip(names, of_all, of_kept, strict=True) if n]


def stored(found: Counts) -> dict[str, Sequence[Mapping[str, Any]] | None]:
    """The counts as a manifest holds them: null where there are too many parts."""
    return {what: parts if len(parts) <= MOST else None for what, parts in found.items()}


def share(part: Mapping[str, Any], parts: Iterable[Mapping[str, Any]], which: str) -> float:
    """The share that a label or group has of all `rows`, or of those `kept`."""
    return float(part[which] / max(1, sum(other[which] for other in parts)))


def gone(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The labels or groups with no row kept, largest first."""
    return sorted((part for part in parts if not part["kept"]), key=lambda part: -int(part["rows"]))


def halved(parts: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The labels or groups that lost more than half of their share, but not all, largest first."""
    total, kept = (sum(part[which] for part in parts) for which in ("rows", "kept"))
    lost = [part for part in parts if 0 < 2 * part["kept"] * total < part["rows"] * kept]
    return sorted(lost, key=lambda part: -int(part["rows"]))


def warnings(found: Counts) -> list[str]:
    """What to warn of: labels and groups that a selection keeps nothing of, or less than half of their share."""
    told = []
    for what, parts in found.items():
        if lost := gone(parts):
            named = [f"{part['name']} ({part['rows']:,} rows)" for part in lost]
            told.append(f"{_many(what, lost, parts)} no row kept: {_first(named)}")
        if lost := halved(parts):
            named = [
                f"{part['name']} {share(part, parts, 'rows'):.1%} -> {share(part, parts, 'kept'):.1%} "
                f"({part['kept']:,} of {part['rows']:,} rows)"
                for part in lost
            ]
            its = "its" if len(lost) == 1 else "their"
            told.append(f"{_many(what, lost, parts)} less than half of {its} share: {_first(named)}")
    return told


def short(parts: Sequence[Mapping[str, Any]], what: str) -> list[str]:
    """What to warn of where parts, all of them labels or groups, were to have equal shares: those too small for it."""
    equal = sum(part["kept"] for part in parts) // len(parts)
    few = [part for part in parts if part["kept"] < equal]
    if not few:
        return []
    named = [f"{part['name']} ({part['kept']:,} rows)" for part in few]
    has, all_of = ("has", "all of its rows") if len(few) == 1 else ("have", "all of their rows")
    told = f"{len(few):,} of {len(parts):,} {what}s {has} fewer rows than an equal share, {equal:,}: {_first(named)}"
    return [f"{told}; {all_of} that may be kept are, and more of the others"]


def warn(where: object, told: Iterable[str]) -> None:
    """Tell warnings about an artifact on stderr."""
    for line in told:
        note(f"warning: {where}: {line}")


def _many(what: str, lost: Sequence[Any], parts: Sequence[Any]) -> str:
    return f"{len(lost):,} of {len(parts):,} {what}s {'has' if len(lost) == 1 else 'have'}"


def _first(named: Sequence[str]) -> str:
    more = f"; {len(named) - NAMED:,} more" if len(named) > NAMED else ""
    return ", ".join(named[:NAMED]) + more
