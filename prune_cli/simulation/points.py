"""Points in the plane: a mixture of Gaussians, two classes of as many clusters each.

A cluster is a standard normal cloud, mapped by a matrix whose entries are uniform in [−1, 1], around its centre. The
centres of class −1 stand on the line x₁ = −1 and those of class +1 on x₁ = 1, two apart, so that a straight line can
tell the classes from each other.

Source: Du et al. 2025, arXiv 2507.03648, whose notebook draws from scikit-learn's make_classification, that is from the
same mixture with two clusters a class.
Differs: there one label in a hundred is drawn anew, everywhere; here labels are flipped in the training points alone,
none unless asked for. The number of points of each cluster is fixed in each split, not only in all three together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SIZES = {"train": 600, "validation": 200, "test": 200}
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Points:
    """n points of one split."""

    x: Array  # [n, 2]
    y: NDArray[np.int64]  # [n] the label, −1 or 1, flipped where `flipped` says so
    cluster: NDArray[np.int64]  # [n] number of the cluster within the class that the point was drawn from
    flipped: NDArray[np.bool_]  # [n]


def draw(rng: np.random.Generator, *, noise: float, imbalance: float, clusters: int) -> dict[str, Points]:
    """Draw the three splits.

    noise: share of the training points whose label is flipped. imbalance: points of class 1 to one of class −1, in
    training and validation; the test points are as many of each. clusters: of each class.
    """
    shapes = rng.uniform(-1, 1, (2, clusters, 2, 2))
    found = {name: _draw(rng, n, shapes, 1.0 if name == "test" else imbalance) for name, n in SIZES.items()}
    return found | {"train": _flip(rng, found["train"], noise)}


def _draw(rng: np.random.Generator, n: int, shapes: Array, imbalance: float) -> Points:
    larger = round(n * imbalance / (1 + imbalance))
    order = rng.permutation(n)
    y = np.repeat([1, -1], [larger, n - larger])[order]
    cluster = np.concatenate([np.arange(larger), np.arange(n - larger)])[order] % shapes.shape[1]
    centre = np.stack([y, 2 * cluster - (shapes.shape[1] - 1)], axis=1)
    cloud = np.einsum("ni,nij->nj", rng.standard_normal((n, 2)), shapes[(y + 1) // 2, cluster])
    return Points(cloud + centre, y, cluster, np.zeros(n, np.bool_))


def _flip(rng: np.random.Generator, points: Points, noise: float) -> Points:
    n = len(points.y)
    flipped = np.zeros(n, np.bool_)
    flipped[rng.permutation(n)[: round(noise * n)]] = True
    return Points(points.x, np.where(flipped, -points.y, points.y), points.cluster, flipped)
