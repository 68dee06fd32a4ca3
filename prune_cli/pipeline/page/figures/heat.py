"""Heat maps: how alike scores and selections are, and the share of each label."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.pipeline.page.alike import short
from prune_cli.runtime.drawing import ON_A_PAGE, figure, named

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CELL = 0.3  # inches
NAMES = 1.8  # inches of names beside and below
COLUMNS = 20  # labels that are drawn, the largest
Draw = Callable[[Path, Mapping[str, Any]], None]


def correlations(path: Path, facts: Mapping[str, Any]) -> None:
    """Spearman's correlation of each two scores."""
    order, pairs = facts["correlations"]["order"], facts["correlations"]["pairs"]
    values, texts = _square(order, pairs, "spearman", lambda pair: f"{pair['spearman']:+.2f}".replace("-", "−"))
    _matrix(path, values, texts, order, order, (-1, 1), "Spearman's correlation")


def overlaps(i: int) -> Draw:
    """What each two selections of one size have in common."""

    def draw(path: Path, facts: Mapping[str, Any]) -> None:
        found = facts["overlaps"][i]
        values, texts = _square(
            found["order"],
            found["pairs"],
            "overlap",
            lambda pair: f"{pair['overlap']:.2f}{pair['beyond'].replace('-', '−')}",
        )
        names = list(short(found["order"]).values())
        _matrix(path, values, texts, names, names, (0, 1), "share in common")

    return draw


def shares(what: str) -> Draw:
    """The share of each label, or group, in each selection."""

    def draw(path: Path, facts: Mapping[str, Any]) -> None:
        found = facts["shares"][what]
        names = largest(found["all"])
        known = {name: own for name, own in found["selections"].items() if own}
        values, texts = [[0.0] * len(names)], [[f"{100 * found['all'][name]:.1f}" for name in names]]
        for own in known.values():
            flagged = {*own["gone"], *own["halved"]}
            ratios = [own["shares"][name] / found["all"][name] if found["all"][name] else 1 for name in names]
            values.append([math.log2(min(max(ratio, 0.25), 4)) for ratio in ratios])
            texts.append([f"{100 * own['shares'][name]:.1f}{'!' if name in flagged else ''}" for name in names])
        sides = (["all rows", *short(known).values()], names)
        _matrix(path, np.array(values), texts, *sides, (-2, 2), "times its share in all rows", doubling=True)

    return draw


def largest(of_all: Mapping[str, float]) -> list[str]:
    """The labels or groups that are drawn: all, or the largest, in their order."""
    chosen = sorted(of_all, key=lambda name: -of_all[name])[:COLUMNS]
    return [name for name in of_all if name in chosen]


def _square(
    order: Sequence[str], pairs: Sequence[Mapping[str, Any]], which: str, written: Callable[[Mapping[str, Any]], str]
) -> tuple[NDArray[np.float64], list[list[str]]]:
    """Values and texts of a symmetric matrix; nothing on its diagonal, and where a pair has no number."""
    values = np.full((len(order), len(order)), np.nan)
    texts = [["" for _ in order] for _ in order]
    for pair in pairs:
        if pair[which] is not None:
            i, j = order.index(pair["a"]), order.index(pair["b"])
            values[i, j] = values[j, i] = pair[which]
            texts[i][j] = texts[j][i] = written(pair)
    return values, texts


def _matrix(
    path: Path,
    values: NDArray[np.float64],
    texts: Sequence[Sequence[str]],
    rows: Sequence[str],
    columns: Sequence[str],
    bounds: tuple[float, float],
    about: str,
    *,
    doubling: bool = False,
) -> None:
    """A heat map with its numbers. doubling: values are logarithms to the base of two."""
    wide = max(CELL, 0.42) * len(columns)
    with figure(path, NAMES + CELL * len(rows), width=max(4.5, NAMES + wide + 1.2), dpi=ON_A_PAGE) as whole:
        axes: Axes = whole.subplots()
        image = axes.imshow(values, cmap="cividis", vmin=bounds[0], vmax=bounds[1], aspect="auto")
        middle = (bounds[0] + bounds[1]) / 2
        for (i, j), value in np.ndenumerate(values):
            if not np.isnan(value):
                colour = "black" if value > middle else "white"
                axes.text(j, i, texts[i][j], ha="center", va="center", color=colour, fontsize=7)
        axes.set_xticks(range(len(columns)), list(map(named, columns)), rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(rows)), list(map(named, rows)))
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        bar = whole.colorbar(image, label=about, shrink=0.9)
        if doubling:
            bar.set_ticks([-2, -1, 0, 1, 2], labels=["¼ or less", "½", "1", "2", "4 or more"])
