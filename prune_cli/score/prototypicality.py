"""Squared Euclidean distance to the nearest of k prototypes, the centroids of k-means over all rows.

s_i = min_c ‖x_i − μ_c‖²

Source: Sorscher et al. 2022, arXiv 2206.14486, the self-supervised prototypes metric.
Higher: less prototypical; 0 on a prototype.
Differs: the paper clusters a self-supervised model's embeddings of images; here it is any representation. The default k
is ours. Squaring keeps the order.

Of several checkpoints it reads all side by side, or their mean; the published method on gradients averages them and
scales each row to length one, as Du et al. 2025 (arXiv 2507.03648) do, who also take Adam's steps for gradients.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric import kmeans as _kmeans
from prune_cli.numeric.vectors import Checkpoints, Normalize, vectors


def score(
    features: NDArray[Any],
    rng: np.random.Generator,
    learning_rate: NDArray[np.float64] | None = None,
    scale: NDArray[Any] | None = None,
    *,
    k: Annotated[int, "Number of prototypes."] = 10,
    checkpoints: Checkpoints = "side",
    normalize: Normalize = False,
) -> NDArray[np.float64]:
    """Score rows by features [n, e × d] with k prototypes (n where k is above n): float64 [n], 0 or more."""
    rows = vectors(features, learning_rate, scale, checkpoints=checkpoints, normalize=normalize)
    _, distance = _kmeans.assign(rows, _kmeans.fit(rows, k, rng))
    return distance
