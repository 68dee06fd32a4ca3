"""What is told of rows that repeat another."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.runtime.progress import note


def tell_kept(method: str, repeats: NDArray[np.bool_], n_keep: int) -> None:
    """Tell how many rows are kept for want of others though they repeat one; repeats [n]."""
    others = int((~repeats).sum())
    if n_keep > others:
        note(
            f"{method}: {n_keep - others:,} of {repeats.sum():,} rows that repeat another are kept; "
            f"a budget of {others:,} of these {len(repeats):,} rows keeps none"
        )
