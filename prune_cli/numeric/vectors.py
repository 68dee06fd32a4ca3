"""Rows as vectors, for methods that cluster them or measure how near they are.

Checkpoints stand side by side, or are averaged; vectors are as long as they are, or scaled to length one. Which of
these a method should have depends on the representation. Gradients differ in length by orders of magnitude, so that
side by side and unscaled they are clustered by their norm; Du et al. 2025 (arXiv 2507.03648) average them over
checkpoints with the learning rates as weights, then scale. The losses that S2L (arXiv 2403.07384) clusters stand side
by side, unscaled.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.blocks import Array
from prune_cli.numeric.cosine import unit

Checkpoints = Annotated[
    Literal["side", "mean"], "Checkpoints side by side (side), or their mean, weighted by learning rates (mean)."
]
Agreement = Annotated[
    Literal["side", "mean", "each"],
    "Cosine of checkpoints side by side (side), of their mean, weighted by learning rates (mean), or the mean of the "
    "cosines at each, so weighted (each), as in LESS.",
]
Normalize = Annotated[bool, "Scale each row's vector to length one."]


def checkpoint_weights(learning_rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much each checkpoint [e] counts: in the ratio of learning rates; all the same where these are 0. Sum 1."""
    total = learning_rate.sum()
    return np.full(len(learning_rate), 1 / len(learning_rate)) if total == 0 else learning_rate / total


class Vectors:
    """n vectors [n, d], made a few at a time when they are asked for: memory does not grow with n."""

    def __init__(
        self,
        features: NDArray[Any],
        learning_rate: NDArray[np.float64] | None,
        scale: NDArray[Any] | None,
        *,
        checkpoints: str,
        normalize: bool,
    ) -> None:
        e = 1 if learning_rate is None else len(learning_rate)
        self._steps = features.reshape(len(features), e, -1)  # [n, e, k]
        self._scale, self._how, self._normalize = scale, checkpoints, normalize
        self._weights = np.full(e, 1 / e) if learning_rate is None else checkpoint_weights(learning_rate)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows, and numbers in each."""
        n, e, k = self._steps.shape
        return n, k if self._how == "mean" else e * k

    def __len__(self) -> int:
        """Rows."""
        return len(self._steps)

    def __getitem__(self, rows: Any) -> NDArray[np.float64]:
        """The vectors [b, d] of rows, a slice or positions."""
        e = self._steps.shape[1]
        steps = (self._step(rows, c) for c in range(e))
        if self._how == "each":
            steps = (np.sqrt(weight) * unit(step) for weight, step in zip(self._weights, steps, strict=True))
        if self._how == "mean":
            vectors = sum(weight * step for weight, step in zip(self._weights, steps, strict=True))
        else:
            vectors = np.concatenate(list(steps), axis=-1) if e > 1 else next(steps)
        return unit(vectors) if self._normalize else vectors

    def _step(self, rows: Any, checkpoint: int) -> NDArray[np.float64]:
        """The rows [b, k] at one checkpoint."""
        block = np.asarray(self._steps[rows, checkpoint], np.float64)
        return block if self._scale is None else block * self._scale[rows, checkpoint, None]


def vectors(
    features: NDArray[Any],
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    checkpoints: str = "side",
    normalize: bool = False,
) -> Array:
    """Rows as vectors [n, d] of features [n, e × k], or [n, e, k], the checkpoints side by side.

    learning_rate [e] weighs the checkpoints; where all are zero they weigh alike. scale [n, e]: what the features of a
    row at a checkpoint are to be multiplied by. checkpoints: `side`, `mean`, or `each`, by which the inner product of
    two vectors is the weighted mean of the cosines at each checkpoint. normalize: to length one; zeros stay.
    """
    if scale is None and checkpoints == "side" and not normalize:
        return features
    return Vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize)
