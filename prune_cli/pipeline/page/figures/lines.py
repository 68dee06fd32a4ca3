"""Lines: performance against budget, and histograms of scores."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli.pipeline.evidence import BASELINE
from prune_cli.runtime.drawing import COLOURS, MARKS, ON_A_PAGE, figure, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREY = "0.45"
ACROSS = 3  # histograms beside each other
STYLES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (1, 1)), "-")
WIDE = 9.6  # inches

Line = Mapping[str, Any]


def methods_of(facts: Mapping[str, Any]) -> list[str]:
    """The methods that could be chosen, in the order of the table."""
    return list(dict.fromkeys(line["method"] for line in facts["lines"] if line["rows"] and not line["marked"]))


def chunks(facts: Mapping[str, Any]) -> list[list[str]]:
    """The methods in as few panels as let each have a colour, about the same number in each."""
    names = methods_of(facts)
    count = -(-len(names) // len(COLOURS))
    return [names[len(names) * i // count : len(names) * (i + 1) // count] for i in range(count)]


def performance(path: Path, facts: Mapping[str, Any]) -> None:
    """A panel for each test set and metric; several where methods are many."""
    panels = [(column, methods) for column in range(len(facts["columns"])) for methods in chunks(facts)]
    across = min(2, len(panels))
    rows = -(-len(panels) // across)
    step = 0.012 if len({line["rows"] for line in facts["lines"] if not line["marked"]}) > 1 else 0.07
    with figure(path, 3.4 * rows, width=WIDE if across > 1 else WIDE * 0.7, dpi=ON_A_PAGE) as whole:
        grid = whole.subplots(rows, across, squeeze=False)
        for axes, (column, methods) in zip(grid.flat, panels, strict=False):
            about = facts["columns"][column]
            axes.set(title=named(f"{about['test']} {about['metric']}"), xlabel="rows kept (budget)")
            _references(axes, facts, column)
            for i, method in enumerate(methods):
                own = [line for line in facts["lines"] if line["method"] == method]
                _series(axes, own, column, COLOURS[i], MARKS[i], (i - (len(methods) - 1) / 2) * step, method)
            _budgets(axes, facts)
            axes.set_ylim(*_heights(facts, column))
            axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=7.5, borderaxespad=0.2)
            axes.grid(color="0.9", linewidth=0.6)
        for axes in list(grid.flat)[len(panels) :]:
            axes.set_axis_off()


def _references(axes: Axes, facts: Mapping[str, Any], column: int) -> None:
    """What methods are held against: random along budgets, full and none across."""
    drawn = [line for line in facts["lines"] if line["method"] == BASELINE]
    if drawn:
        _series(axes, drawn, column, GREY, ".", 0, BASELINE, style=":")
    for name, style in (("full", "-"), ("none", "-.")):
        for line in facts["lines"]:
            mean, deviation = line["cells"][column]["mean"], line["cells"][column]["deviation"]
            if line["method"] == name and mean is not None:
                axes.axhline(mean, color=GREY, linestyle=style, linewidth=1.4, zorder=1, label=name)
                if deviation:
                    axes.axhspan(mean - deviation, mean + deviation, color=GREY, alpha=0.12, linewidth=0, zorder=0)


def _series(
    axes: Axes, lines: Sequence[Line], column: int, colour: str, mark: str, aside: float, name: str, style: str = "-"
) -> None:
    """A method along its budgets; `aside` moves it a little, so that marks do not hide each other."""
    known = [(line["rows"], line["cells"][column]) for line in lines if line["cells"][column]["mean"] is not None]
    known = sorted((pair for pair in known if pair[0]), key=lambda pair: pair[0])
    if not known:
        return
    x = np.array([rows for rows, _ in known], float) * (1 + aside)
    y = np.array([cell["mean"] for _, cell in known], float)
    spread = np.array([cell["deviation"] or 0.0 for _, cell in known])
    axes.errorbar(
        x, y, spread, color=colour, linestyle=style, marker=mark, markersize=4, linewidth=1.3, elinewidth=0.7,
        capsize=2, label=named(name), zorder=3,
    )  # fmt: skip
    if len(x) > 1:
        axes.fill_between(x, y - spread, y + spread, color=colour, alpha=0.13, linewidth=0, zorder=1)


def _heights(facts: Mapping[str, Any], column: int) -> tuple[float, float]:
    """From the lowest to the highest that any panel of a column shows, so that they can be read beside each other."""
    cells = [line["cells"][column] for line in facts["lines"]]
    reach = [(cell["mean"], cell["deviation"] or 0.0) for cell in cells if cell["mean"] is not None]
    low, high = min((m - d for m, d in reach), default=0), max((m + d for m, d in reach), default=1)
    room = 0.05 * (high - low) or 0.01
    return low - room, high + room


def _budgets(axes: Axes, facts: Mapping[str, Any]) -> None:
    """The budgets on the axis, under the number of rows that each one keeps."""
    lines = [line for line in facts["lines"] if line["rows"] and line["method"] not in ("full", "none")]
    budgets = {line["rows"]: line["keep"] for line in sorted(lines, key=lambda line: line["rows"])}
    axes.set_xscale("log")
    axes.set_xticks(list(budgets), [f"{rows:,}\n({named(keep)})" for rows, keep in budgets.items()])
    axes.set_xticks([], minor=True)
    low, high = min(budgets), max(budgets)
    room = 1.15 if high > low else 1.5
    axes.set_xlim(low / room, high * room)


def histograms(path: Path, facts: Mapping[str, Any]) -> None:
    """A panel for each score, a line for each label."""
    found = facts["histograms"]
    rows = math.ceil((len(found) + 1) / ACROSS)
    with figure(path, 2.1 * rows, width=WIDE, dpi=ON_A_PAGE) as whole:
        panels = list(whole.subplots(rows, ACROSS, squeeze=False).flat)
        for axes, one in zip(panels, found, strict=False):
            for i, (_, counts) in enumerate(one["counts"].items()):
                share = np.array(counts) / max(1, sum(counts))
                axes.stairs(share, one["edges"], color=_colour(i), linestyle=STYLES[i], linewidth=1.3)
            if one["logarithmic"]:
                axes.set_xscale("log")
            else:
                axes.locator_params(axis="x", nbins=5)
                axes.ticklabel_format(axis="x", style="sci", scilimits=(-2, 4))
            axes.set(title=named(one["score"]), yticks=[])
        key = panels[len(found)]
        for i, name in enumerate(found[0]["counts"]):
            key.plot([], [], color=_colour(i), linestyle=STYLES[i], label=named(name))
        key.legend(loc="center", fontsize=8)
        for axes in panels[len(found) :]:
            axes.set_axis_off()


def _colour(i: int) -> str:
    return COLOURS[i] if i < len(COLOURS) else "black"
