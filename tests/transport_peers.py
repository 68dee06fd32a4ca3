"""What another package and the authors' programs say of a small input, as transport_peers.json holds it.

    python -m venv peers && peers/bin/pip install POT==0.9.7.post1 faiss-cpu==1.15.1 PyYAML \\
        torch geomloss==0.3.1 scikit-learn matplotlib seaborn wandb
    peers/bin/python tests/transport_peers.py TSDS TAROT > tests/transport_peers.json

TSDS, TAROT: checkouts of github.com/ZifanL/TSDS at 3dfe139, whose search is exact with so few rows, and of
github.com/vita-epfl/TAROT at bbb6ce2.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest.mock import patch

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
        with patch("numpy.random.multinomial", drawn):
            authors.main()
        os.chdir("/")
    return found[0]


def whitened(rows: Points, targets: Points) -> tuple[Points, Points]:
    """Both whitened by the covariance of all, at length one."""
    together = np.concatenate([rows, targets])
    together -= together.mean(axis=0)
    matrix = np.linalg.inv(np.linalg.cholesky(together.T @ together / len(together))).T
    return unit(together[: len(rows)] @ matrix), unit(together[len(rows) :] @ matrix)


def tarot(program: Path, rows: Points, targets: Points) -> dict[str, Any]:
    """By the authors' program: 25 of the rows by layers; and by folds the distance after each layer, till it rises."""
    sys.path.insert(0, str(program))
    import torch
    from sklearn.model_selection import KFold
    from tarot.data_selector import DataSelector  # type: ignore[import-not-found]

    ours, theirs = whitened(rows, targets)
    score = ours @ theirs.T
    config = {"device": "cpu", "selection_ratio": 25.5 / len(rows), "k_fold_splits": 3, "merge_target_data": False}
    told = io.StringIO()
    picks = {}
    for method in ("fixed_size", "otm"):
        selector = DataSelector({**config, "selection_method": method, "data_weighting": False})
        with contextlib.redirect_stdout(told):
            picks[method] = selector.select_data(score, torch.tensor(ours), torch.tensor(theirs))[0].tolist()
    distances = [
        [float(value) for value in re.findall(r"^k: .*distance: (\S+)$", fold, re.MULTILINE)]
        for fold in told.getvalue().split("Fold ")[1:]
    ]
    folds = [test.tolist() for _, test in KFold(3, shuffle=True, random_state=42).split(theirs)]
    return {"fixed": sorted(picks["fixed_size"]), "own": sorted(picks["otm"]), "folds": folds, "distances": distances}


def main() -> None:
    """Print the file."""
    rows, targets = points()
    first, second = (Path(name).resolve() for name in sys.argv[1:])
    cosine = unit(targets) @ unit(rows).T
    many = repeated(rows)
    found = {
        "rows": rows.tolist(),
        "targets": targets.tolist(),
        "repeated": many.tolist(),
        "uot": {f"{e:g} {p:g}": uot(cosine, e, p) for e, p in ((0.01, 1e-4), (0.1, 0.2))},
        "tsds": {f"{a:g} {h:g}": tsds(first, unit(many), unit(targets), a, h) for a, h in ((0.99, 0.2), (0.995, 0.1))},
        "tarot": tarot(second, many, targets),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
