"""Points: the data map, and rows in the plane of a representation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli.runtime.drawing import BLUE, COLOURS, MARKS, ON_A_PAGE, figure, named

ACROSS = 4  # panels beside each other
WIDE = 9.6  # inches


def data_map(path: Path, facts: Mapping[str, Any]) -> None:
    """Confidence against variability, coloured by correctness."""
    import matplotlib

    found = facts["data_map"]
    correct = np.array(found["correct"])
    most = found["checkpoints"]
    colours = matplotlib.colormaps["viridis"]
    with figure(path, 4.6, width=6.4, dpi=ON_A_PAGE) as whole:
        axes = whole.subplots()
        for i, times in enumerate(sorted(set(correct.tolist()), reverse=True)):
            own = correct == times
            axes.scatter(
                np.array(found["variability"])[own],
                np.array(found["confidence"])[own],
                s=9,
                marker=MARKS[(most - times) % len(MARKS)],
                color=colours(times / max(most, 1) * 0.93),  # not the palest yellow
                alpha=0.7,
                linewidths=0,
                label=f"{times} of {most}",
                zorder=2 + i,
            )
        axes.set(xlabel="variability", ylabel="confidence", ylim=(-0.02, 1.02))
        axes.legend(title="right at", loc="upper left", bbox_to_anchor=(1, 1), markerscale=1.6)
        axes.grid(color="0.9", linewidth=0.6)


def plane(path: Path, facts: Mapping[str, Any]) -> None:
    """The labels, then what each method keeps."""
    found = facts["plane"]
    places = np.array(found["places"])
    rows = -(-(1 + len(found["methods"])) // ACROSS)
    with figure(path, 2.5 * rows, width=WIDE, dpi=ON_A_PAGE) as whole:
        panels = list(whole.subplots(rows, ACROSS, squeeze=False).flat)
        for i, name in enumerate(found["labels"]):
            own = np.array(found["label"]) == i
            colour = COLOURS[i] if i < len(COLOURS) else "0.4"
            panels[0].scatter(
                *places[own].T, s=6, marker=MARKS[i], color=colour, alpha=0.6, linewidths=0, label=named(name)
            )
        panels[0].set_title("all rows, by label" if len(found["labels"]) > 1 else "all rows")
        if len(found["labels"]) > 1:
            panels[0].legend(fontsize=6.5, loc="best", markerscale=1.5, handletextpad=0.1, frameon=True, framealpha=0.8)
        for axes, (method, own) in zip(panels[1:], found["methods"].items(), strict=False):
            axes.scatter(*places.T, s=4, color="0.8", linewidths=0)
            axes.scatter(*np.array(own["places"]).T, s=7, color=BLUE, alpha=0.8, linewidths=0)
            axes.set_title(f"{named(method)}: {own['kept']:,} kept")
        low, high = _bounds(facts)
        for axes in panels[: 1 + len(found["methods"])]:
            axes.set(xticks=[], yticks=[], xlim=(low[0], high[0]), ylim=(low[1], high[1]))
        for axes in panels[1 + len(found["methods"]) :]:
            axes.set_axis_off()


def _bounds(facts: Mapping[str, Any]) -> tuple[Any, Any]:
    """The corners around all points."""
    found = facts["plane"]
    every = np.concatenate([np.array(found["places"]), *(np.array(m["places"]) for m in found["methods"].values())])
    low, high = every.min(axis=0), every.max(axis=0)
    room = np.maximum((high - low) * 0.04, 1e-9)
    return low - room, high + room
