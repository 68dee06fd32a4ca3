"""The figures: what each method keeps, how far they agree, and the accuracy along a sweep.

Their style is that of all figures (runtime/drawing.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli.methods.published import PublishedMethod
from prune_cli.runtime.drawing import BLUE, GREEN, MARKS, VERMILION, figure
from prune_cli.simulation.experiment import FULL, Trial
from prune_cli.simulation.settings import RANDOM

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLUMNS = 3
CLASSES = {-1: ("o", BLUE), 1: ("^", VERMILION)}
COLOURS = {"dynamics": BLUE, "hidden": VERMILION, "gradient": GREEN}
KINDS = {"dynamics": "training dynamics", "hidden": "inputs", "gradient": "gradients", "none": "no representation"}


def draw_selections(
    path: Path, trial: Trial, methods: Sequence[PublishedMethod], measured: dict[str, tuple[float, float]], about: str
) -> None:
    """What each method keeps. measured: name of the method, and full -> mean accuracy and its deviation."""
    rows = -(-(1 + len(methods)) // COLUMNS)
    caption = (
        f"What each method keeps. {about} Bright points with a dark edge are kept, pale ones are not; circles are of "
        "class −1, triangles of class +1. The dashed line is where a model trained on all points changes its mind, the "
        "solid line where one trained on the kept points does: the closer the two lines, the less is lost. Each title "
        "has the method, what it looks at, what it is after, and the accuracy on test points: mean ± deviation over "
        "seeds, and that of the seed that is drawn here, the first. Below 0.5 the model of the kept points takes each "
        "side of its line for the other."
    )
    train = trial.points["train"]
    low, high = train.x.min(axis=0) - 0.3, train.x.max(axis=0) + 0.3
    with figure(path, 2.3 * rows, caption) as whole:
        panels = whole.subplots(rows, COLUMNS, squeeze=False).flat
        first = next(panels)
        first.set_title(_title(FULL, "all training points", measured, trial), linespacing=1.25)
        _legend(first, bool(train.flipped.any()))
        for method, axes in zip(methods, panels, strict=False):
            kept = np.isin(np.arange(len(train.y)), trial.kept[method.name])
            _scatter(axes, trial, kept)
            _boundary(axes, trial.weights[FULL], low, high, "--")
            _boundary(axes, trial.weights[method.name], low, high, "-")
            axes.set(xlim=(low[0], high[0]), ylim=(low[1], high[1]), xticks=[], yticks=[])
            looks = f"{KINDS[method.main or 'none']}, {method.objective}"
            axes.set_title(_title(method.name, looks, measured, trial), linespacing=1.25)
        for axes in panels:
            axes.set_axis_off()


def _scatter(axes: Axes, trial: Trial, kept: Any) -> None:
    points = trial.points["train"]
    for label in CLASSES:
        for own, bright in ((~kept, False), (kept, True)):
            x, y = points.x[(points.y == label) & own].T
            _points(axes, x, y, label, bright)
    for own, shade in ((~kept, "0.6"), (kept, "black")):
        x, y = points.x[points.flipped & own].T
        _crosses(axes, x, y, shade)


def _points(axes: Axes, x: Any, y: Any, label: int, bright: bool, name: str | None = None) -> None:
    mark, colour = CLASSES[label]
    if bright:
        axes.scatter(x, y, s=13, marker=mark, color=colour, edgecolors="black", linewidths=0.4, label=name)
    else:
        axes.scatter(x, y, s=8, marker=mark, color=colour, alpha=0.22, linewidths=0, label=name)


def _crosses(axes: Axes, x: Any, y: Any, shade: str, name: str | None = None) -> None:
    axes.scatter(x, y, s=9, marker="x", color=shade, linewidths=0.7, label=name)


def _boundary(axes: Axes, weights: Any, low: Any, high: Any, style: str) -> None:
    """The line w·x + b = 0."""
    normal, offset = weights[:2], weights[2]
    length = float(normal @ normal)
    if length == 0:  # the model says the same everywhere
        return
    foot = -offset * normal / length
    along = np.array([-normal[1], normal[0]]) / np.sqrt(length) * 2 * np.abs([low, high]).sum()
    line = np.stack([foot - along, foot + along])
    axes.plot(*line.T, color="white", linewidth=2.6)  # so that it shows among points
    axes.plot(*line.T, style, color="black", linewidth=1.2)


def _title(name: str, looks: str, measured: dict[str, tuple[float, float]], trial: Trial) -> str:
    mean, spread = measured[name]
    bold = name.replace("-", "\N{HYPHEN}")  # a minus in what matplotlib takes for a formula
    return f"$\\bf{{{bold}}}$\n{looks}\n{mean:.2f} ± {spread:.2f}, here {trial.accuracy[name]:.2f}"


def _legend(axes: Axes, flipped: bool) -> None:
    axes.set_axis_off()
    for label, sign in ((-1, "−1"), (1, "+1")):
        _points(axes, [], [], label, True, f"class {sign}, kept")
        _points(axes, [], [], label, False, f"class {sign}, not kept")
    if flipped:
        _crosses(axes, [], [], "black", "label flipped")
    axes.plot([], [], "k--", linewidth=1.2, label="model of all points")
    axes.plot([], [], "k-", linewidth=1.2, label="model of kept points")
    axes.legend(loc="center", fontsize=8, markerscale=1.3)


def draw_overlap(path: Path, lines: Sequence[dict[str, Any]], about: str) -> None:
    """How far the methods agree, by the lines of `experiment.overlaps`."""
    from matplotlib.colors import TwoSlopeNorm

    names = list(dict.fromkeys([line["method"] for line in lines] + [line["other"] for line in lines]))
    chance = lines[0]["chance"]
    table = np.full((len(names), len(names)), np.nan)
    for line in lines:
        table[names.index(line["other"]), names.index(line["method"])] = line["overlap"]
    caption = (
        f"How far the methods agree. {about} A number is the share of the points kept by one method that the other "
        f"keeps too, a mean over seeds. Two random draws share {chance:.2f}: red is more than that, blue is less, and "
        "white is chance."
    )
    with figure(path, 1.6 + 0.38 * len(names), caption) as whole:
        axes = whole.subplots()
        norm = TwoSlopeNorm(vcenter=min(max(chance, 0.01), 0.99), vmin=0, vmax=1)
        image = axes.imshow(table[1:, :-1], cmap="RdBu_r", norm=norm)
        for (row, column), share in np.ndenumerate(table[1:, :-1]):
            if not np.isnan(share):
                strong = abs(norm(share) - 0.5) > 0.25
                axes.text(column, row, f"{share:.2f}", ha="center", va="center", color="white" if strong else "black")
        axes.set_xticks(range(len(names) - 1), names[:-1], rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names) - 1), names[1:])
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        whole.colorbar(image, shrink=0.8, label="share kept by both", ticks=sorted({0, chance, 1}))


def draw_sweep(
    path: Path, name: str, lines: Sequence[dict[str, Any]], methods: Sequence[PublishedMethod], about: str
) -> None:
    """The accuracy of each method along a sweep, by the lines of `experiment.summary`."""
    objectives = list(dict.fromkeys(method.objective for method in methods if method.name != RANDOM))
    caption = (
        f"Accuracy on test points along {name}. {about} A mark is the mean over seeds, a bar two standard errors to "
        "each side. Blue: training dynamics; vermilion: inputs; green: gradients. Grey, in every panel: all training "
        "points (solid) and a random draw (dotted). A method fails where it falls below the random draw."
    )
    with figure(path, 2.9, caption) as whole:
        panels = whole.subplots(1, len(objectives), sharey=True, squeeze=False)[0]
        for objective, axes in zip(objectives, panels, strict=True):
            for baseline, style in ((FULL, "-"), (RANDOM, ":")):
                x, y, _ = _series(name, lines, baseline)
                axes.plot(x, y, style, color="0.45", linewidth=1.8, zorder=1)
            for i, method in enumerate(m for m in methods if m.objective == objective and m.name != RANDOM):
                x, y, error = _series(name, lines, method.name)
                colour, mark = COLOURS[method.main or "hidden"], MARKS[i % len(MARKS)]
                axes.errorbar(
                    x, y, error, color=colour, marker=mark, markersize=4, linewidth=1, capsize=2, label=method.name
                )
            axes.set(title=objective, xlabel=name)
            axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), fontsize=7.5)
            axes.grid(color="0.9", linewidth=0.6)
        panels[0].set_ylabel("accuracy")


def _series(name: str, lines: Sequence[dict[str, Any]], method: str) -> tuple[list[Any], list[float], list[float]]:
    """Along the sweep: its values, the mean accuracy, two standard errors."""
    own = [line for line in lines if line["method"] == method]
    errors = [2 * line["accuracy_sd"] / line["seeds"] ** 0.5 for line in own]
    return [line[name] for line in own], [line["accuracy"] for line in own], errors
