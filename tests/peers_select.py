"""What other libraries select on a small input, for test_selections_truth.py; run in an environment of their own.

    python -m venv peers && peers/bin/pip install apricot-select submodlib-py gist-select
    peers/bin/python tests/peers_select.py

writes peers_select.json beside this file: the rows and scores, and by library what it picks, in its order.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np


def main() -> None:
    """Write the file."""
    import apricot  # type: ignore[import-not-found]  # in the environment of the docstring alone
    import submodlib  # type: ignore[import-not-found]
    from gist import EuclideanDistance, LinearUtility, gist  # type: ignore[import-not-found]

    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 5)) * 2
    features = np.round(centres[np.arange(40) % 4] + rng.normal(size=(40, 5)), 3)
    score = np.round(rng.uniform(0.5, 1.5, 40), 3)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = (1 + unit @ unit.T) / 2
    distance = np.linalg.norm(features[:, None] - features, axis=2)
    bound = 2 * np.linalg.norm(features - features.mean(axis=0), axis=1).max()
    picks = {
        "apricot facility_location cosine": apricot.FacilityLocationSelection(
            10, metric="precomputed", optimizer="lazy"
        )
        .fit(cosine)
        .ranking.tolist(),
        "apricot facility_location euclidean": apricot.FacilityLocationSelection(
            10, metric="precomputed", optimizer="lazy"
        )
        .fit(bound - distance)
        .ranking.tolist(),
        "apricot saturated_coverage": apricot.SaturatedCoverageSelection(
            10, metric="precomputed", alpha=0.25, optimizer="naive"
        )
        .fit(cosine)
        .ranking.tolist(),
    }
    cut = submodlib.GraphCutFunction(n=40, mode="dense", lambdaVal=0.4, separate_rep=False, ggsijs=unit @ unit.T)
    picks["submodlib graph_cut"] = [i for i, _ in cut.maximize(10, optimizer="NaiveGreedy", show_progress=False)]
    found = gist(features, LinearUtility(score), EuclideanDistance(), k=6, lam=0.2, eps=0.1, seed=0)
    picks["gist-select gist"] = [int(i) for i in found.indices]
    out = {"features": features.tolist(), "score": score.tolist(), "picks": picks}
    Path(__file__).with_suffix(".json").write_text(json.dumps(out) + "\n", "utf-8")


if __name__ == "__main__":
    main()
