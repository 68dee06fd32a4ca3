"""What other packages and the authors' programs say of a small input, as transport_peers.json holds it.

python -m venv peers && peers/bin/pip install POT==0.9.7.post1
peers/bin/python tests/transport_peers.py > tests/transport_peers.json
"""

from __future__ import annotations

import json

import numpy as np


def points() -> tuple[np.ndarray, np.ndarray]:
    """Rows [60, 5] in four heaps, and target rows [7, 5] in two of them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 5)) * 2
    rows = centres[np.arange(60) % 4] + rng.normal(size=(60, 5))
    targets = centres[np.arange(7) % 2] + rng.normal(size=(7, 5))
    return np.round(rows, 3), np.round(targets, 3)


def uot(cosine: np.ndarray, epsilon: float, penalty: float) -> list[float]:
    """The mass of each row in POT's plan between 7 target rows and 60 rows."""
    from ot.unbalanced import sinkhorn_unbalanced  # type: ignore[import-not-found]  # in the environment above alone

    plan = sinkhorn_unbalanced(
        np.full(7, 1 / 7),
        np.full(60, 1 / 60),
        (1 - cosine) / 2,
        reg=epsilon,
        reg_m=(float("inf"), penalty),
        reg_type="kl",
        stopThr=1e-14,
        numItermax=100_000,
    )
    return plan.sum(axis=0).tolist()


def main() -> None:
    """Print the file."""
    rows, targets = points()
    unit, theirs = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, targets))
    cosine = theirs @ unit.T
    found = {
        f"{epsilon:g} {penalty:g}": uot(cosine, epsilon, penalty) for epsilon, penalty in ((0.01, 1e-4), (0.1, 0.2))
    }
    print(json.dumps({"rows": rows.tolist(), "targets": targets.tolist(), "uot": found}))


if __name__ == "__main__":
    main()
