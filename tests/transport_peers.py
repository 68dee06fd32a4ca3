"""What another package and the authors' programs say of a small input, as transport_peers.json holds it.

    python -m venv peers && peers/bin/pip install POT==0.9.7.post1 faiss-cpu==1.15.1 PyYAML
    peers/bin/python tests/transport_peers.py TSDS > tests/transport_peers.json

TSDS: a checkout of github.com/ZifanL/TSDS at 3dfe139. With so few rows its search is exact.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

Points = np.ndarray[Any, np.dtype[np.float64]]


def points() -> tuple[Points, Points]:
    """Rows [60, 5] in four heaps, and target rows [7, 5] in two of them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 5)) * 2
    rows = centres[np.arange(60) % 4] + rng.normal(size=(60, 5))
    targets = centres[np.arange(7) % 2] + rng.normal(size=(7, 5))
    return np.round(rows, 3), np.round(targets, 3)


def repeated(rows: Points) -> Points:
    """The rows, and all but every third once or twice more with a little noise [120, 5]: near-duplicates."""
    more = rows[np.repeat(np.arange(60), np.arange(60) % 3)]
    return np.round(np.concatenate([rows, more + np.random.default_rng(1).normal(size=more.shape) / 20]), 3)


def unit(x: Points) -> Points:
    """Rows at length one."""
    lengths: Points = x / np.linalg.norm(x, axis=1, keepdims=True)
    return lengths


def uot(cosine: Points, epsilon: float, penalty: float) -> list[float]:
    """The mass of each row in POT's plan between target rows and rows."""
    from ot.unbalanced import sinkhorn_unbalanced  # type: ignore[import-not-found]  # in the environment above alone

    m, n = cosine.shape
    plan = sinkhorn_unbalanced(
        np.full(m, 1 / m),
        np.full(n, 1 / n),
        (1 - cosine) / 2,
        reg=epsilon,
        reg_m=(float("inf"), penalty),
        reg_type="kl",
        stopThr=1e-14,
        numItermax=100_000,
    )
    masses: list[float] = plan.sum(axis=0).tolist()
    return masses


def tsds(program: Path, rows: Points, targets: Points, alpha: float, bandwidth: float) -> list[float]:
    """The chances that the authors' program draws from, which it gives to numpy."""
    sys.path.insert(0, str(program))
    import tsds as authors  # type: ignore[import-not-found]

    found: list[list[float]] = []

    def drawn(size: int, chances: Points) -> Points:
        found.append(chances.tolist())
        return np.zeros(len(chances), int)

    with tempfile.TemporaryDirectory() as name:
        os.chdir(name)
        np.save("rows.npy", rows)
        np.save("targets.npy", targets)
        config = {
            "query_embedding_path": "targets.npy",
            "candidate_embedding_path": "rows.npy",
            "output_folder": "out",
            "sample_size": 10,
            "alpha": alpha,
            "C": 5.0,
            "sigma": bandwidth,
            "max_K": 5000,
            "kde_K": 1000,
        }
        Path("config.yaml").write_text(json.dumps(config))
        before, np.random.multinomial = np.random.multinomial, drawn
        authors.main()
        np.random.multinomial = before
        os.chdir("/")
    return found[0]


def main() -> None:
    """Print the file."""
    rows, targets = points()
    program = Path(sys.argv[1]).resolve()
    cosine = unit(targets) @ unit(rows).T
    many = repeated(rows)
    found = {
        "rows": rows.tolist(),
        "targets": targets.tolist(),
        "repeated": many.tolist(),
        "uot": {f"{e:g} {p:g}": uot(cosine, e, p) for e, p in ((0.01, 1e-4), (0.1, 0.2))},
        "tsds": {
            f"{a:g} {h:g}": tsds(program, unit(many), unit(targets), a, h) for a, h in ((0.99, 0.2), (0.995, 0.1))
        },
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
