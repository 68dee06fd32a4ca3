"""Squared Euclidean distance to the nearest of k prototypes, the centroids of k-means over all rows.

s_i = min_c ‖x_i − μ_c‖²

Source: Sorscher et al. 2022, arXiv 2206.14486, the self-supervised prototypes metric.
Higher: less prototypical; 0 on a prototype.

The paper clusters a self-supervised model's embeddings of images; here it is any representation, as it is
stored, all checkpoints side by side. The default k is ours. Squaring keeps the order.
"""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric import kmeans as _kmeans


def score(
    features: NDArray[Any], rng: np.random.Generator, *, k: Annotated[int, "Number of prototypes."] = 10
) -> NDArray[np.float64]:
    """Score rows by features [n, d] with k prototypes (n where k is above n): float64 [n], 0 or more."""
    _, distance = _kmeans.assign(features, _kmeans.fit(features, k, rng))
    return distance
