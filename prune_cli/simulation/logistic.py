"""Logistic regression by gradient descent, many at once, with the weights after every epoch.

p(y | x) = σ(y (w·x + b)), y in {−1, 1}. An epoch is one step down the mean loss of all points, of length 1 / L, L being
the most that the mean loss can curve: the largest eigenvalue of (1/4n) Σᵢ zᵢzᵢᵀ, z = (x, 1).

Differs: Du et al. 2025 (arXiv 2507.03648) take stochastic gradient descent, one point a step, with a little weight
decay.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

EPOCHS = 100
Array = NDArray[np.float64]


def train(x: Array, y: NDArray[Any], epochs: int = EPOCHS) -> Array:
    """Train m models, each on its own x [m, n, 2] and y [m, n]: (w, b) after each epoch [m, epochs, 3]."""
    signed = _with_one(x) * y[..., None]
    curvature = np.linalg.eigvalsh(signed.swapaxes(1, 2) @ signed)[:, -1] / 4  # of the sum over the n points
    weights = np.zeros((len(x), 3))
    path = np.empty((len(x), epochs, 3))
    for epoch in range(epochs):
        uphill = np.einsum("mn,mnd->md", sigmoid(-np.einsum("mnd,md->mn", signed, weights)), signed)
        weights = weights + uphill / curvature[:, None]
        path[:, epoch] = weights
    return path


def margins(x: Array, y: NDArray[Any], path: Array) -> Array:
    """y (w·x + b) of points x [n, 2] and y [n] at each epoch of path [e, 3]: [n, e]. Above 0 the model is right."""
    return y[:, None] * (_with_one(x) @ path.T)


def gradients(x: Array, y: NDArray[Any], weights: Array) -> Array:
    """x·y·(1 − p) of points x [n, 2] and y [n], p the probability of the label: [n, 2].

    It is the gradient of log p by w, so that of the loss but for its sign, which no selection sees. Without b, as in
    the notebook of Du et al. 2025 (arXiv 2507.03648): a gradient is a point in the plane.
    """
    return x * (y[:, None] * sigmoid(-margins(x, y, weights[None])))


def accuracy(x: Array, y: NDArray[Any], weights: Array) -> float:
    """Share of points x [n, 2] and y [n] on the right side."""
    return float((margins(x, y, weights[None]) > 0).mean())


def sigmoid(z: Array) -> Array:
    """1 / (1 + e⁻ᶻ), which overflows nowhere in this form."""
    return (1 + np.tanh(z / 2)) / 2


def _with_one(x: Array) -> Array:
    """(x, 1): the last weight is then b."""
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)
