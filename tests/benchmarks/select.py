"""Time and peak memory of selections, beside those of other libraries in the same run.

    python -m tests.benchmarks.select [--share 1.0] [--only NAME,NAME]

Each figure is from a process of its own, on rows in clusters, drawn anew (seed 0) into a temporary file and read from
there. Times are processor seconds, all threads together: a busy machine changes them little. First the ratios to each
peer that is installed, at a number of rows that it can do; then the sizes that prune is made for, times `--share`. A
value is what the selection maximises: minus the radius for k_center, the objective for facility_location and gist, log
det for k_dpp, minus the mean squared distance to a centroid for centroids, which are k-means itself: so many are kept.
`make bench-select` installs the peers in an environment of its own. A plain loop, one pass over all rows for each pick,
stands for the published scripts of k-center. The target set of less and rds has 50 rows, that of uot and tsds 500, in
5 groups.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.numeric.kmeans import assign, fit

Features = NDArray[Any]
Picks = NDArray[Any]  # positions, or centroids
Run = Callable[[Features, NDArray[np.float64], int], Picks]


@dataclass(frozen=True)
class Case:
    """A selection at its full size: rows, features, rows kept, how they are stored; how many rows peers are given."""

    method: str
    n: int
    d: int
    keep: int
    dtype: str = "float32"
    peers: int = 5_000


SCORES = ("less", "rds", "memorization", "moderate", "prototypicality", "uot")
TARGETS = {"uot": 500, "tsds": 500}  # rows of the target set; else 50
CASES = (
    Case("k_center", 200_000, 128, 20_000),
    Case("facility_location", 100_000, 128, 10_000),
    Case("k_dpp", 50_000, 128, 2_000),
    Case("gist", 500_000, 128, 100),
    Case("centroids", 100_000, 256, 100, peers=100_000),
    Case("less", 1_000_000, 1024, 100_000, "float16"),
    Case("rds", 1_000_000, 1024, 100_000, "float16"),
    Case("memorization", 1_000_000, 1024, 100_000, "float16"),
    Case("top", 1_000_000, 1024, 100_000, "float16"),
    Case("kmeans", 1_000_000, 1024, 100_000, "float16"),
    Case("prototypicality", 1_000_000, 1024, 100_000, "float16"),
    Case("ccs", 1_000_000, 1024, 100_000, "float16"),
    Case("moderate", 1_000_000, 1024, 100_000, "float16"),
    Case("uot", 100_000, 1024, 10_000, "float16"),
    Case("tsds", 100_000, 1024, 10_000, "float16"),
    Case("semdedup", 1_000_000, 1024, 500_000, "float16"),
    Case("d4", 1_000_000, 1024, 500_000, "float16"),
)


def main() -> None:
    """Print the table, or, in a process of its own, one figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--share", type=float, default=1.0, help="of the full sizes")
    parser.add_argument("--only", default=",".join(case.method for case in CASES))
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one[0], Path(given.one[1]), int(given.one[2]))))
        return
    cases = [case for case in CASES if case.method in given.only.split(",")]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for case in cases:
            beside_peers(case, folder, case.peers)
        print("\nprune alone, at its sizes:")
        for case in cases:
            n, keep = max(2, int(case.n * given.share)), max(1, int(case.keep * given.share))
            if case.method == "gist":
                keep = min(case.keep, n)
            path = draw(folder, n, case)
            began = time.process_time()
            for start in range(0, n, 4096):
                np.load(path, mmap_mode="r")[start : start + 4096].sum()
            reading = time.process_time() - began
            found = measured(f"prune {case.method}", path, keep)
            print(
                f"  {case.method:18} {n:>9,} × {case.d} {case.dtype}, {keep:,} kept: {found['seconds']:8.1f} s, "
                f"{found['peak'] / 1e6:6,.0f} MB; the file has {path.stat().st_size / 1e6:,.0f} MB, read once in "
                f"{reading:.1f} s",
                flush=True,
            )


def beside_peers(case: Case, folder: Path, n: int) -> None:
    """Print the ratios to each peer that is installed."""
    peers = [name for name in PEERS if name.endswith(" " + case.method)]
    path = draw(folder, n, case)
    keep = case.keep if case.method == "gist" else max(1, n * case.keep // case.n)
    own = measured(f"prune {case.method}", path, keep) if peers else {}
    for name in peers:
        library = name.split()[0]
        if library != "plain" and find_spec(library) is None:
            print(f"{name}: not installed")
            continue
        theirs = measured(name, path, keep)
        print(
            f"{case.method}, {n:,} rows, {keep:,} kept: {theirs['seconds'] / own['seconds']:.1f} × as fast as "
            f"{library}, {own['peak'] / theirs['peak']:.2f} of its memory; value {own['value']:.6g} beside "
            f"{theirs['value']:.6g} ({own['seconds']:.2f} s, {own['peak'] / 1e6:,.0f} MB; {theirs['seconds']:.2f} s, "
            f"{theirs['peak'] / 1e6:,.0f} MB)",
            flush=True,
        )


def draw(folder: Path, n: int, case: Case) -> Path:
    """A NumPy file of n rows in clusters, which is written unless an earlier case has drawn the same."""
    path = folder / f"{n}-{case.d}-{case.dtype}.npy"
    if path.exists():
        return path
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((200, case.d), np.float32)
    rows = np.lib.format.open_memmap(path, "w+", case.dtype, (n, case.d))
    for start in range(0, n, 8192):
        size = min(8192, n - start)
        rows[start : start + size] = (
            centres[rng.integers(0, 200, size)] + rng.standard_normal((size, case.d), np.float32) / 2
        )
    rows.flush()
    return path


def measured(name: str, path: Path, keep: int) -> dict[str, float]:
    """Processor seconds, value and peak memory in bytes, from a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.select", "--one", name, str(path), str(keep)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    told = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return {**json.loads(told), "peak": usage.ru_maxrss * 1024}


def one(name: str, path: Path, keep: int) -> dict[str, float]:
    """Run a selection of prune, or a peer's, once."""
    features = np.load(path, mmap_mode="r")
    library, method = name.split()
    score = np.random.default_rng(1).random(len(features))
    run = ours(method) if library == "prune" else PEERS[name]
    if library != "plain":
        import_module("sklearn.cluster" if library == "prune" else library)  # outside the time
    began = time.process_time()
    picks = run(features, score, keep)
    seconds = time.process_time() - began
    return {"seconds": seconds, "value": value(method, features, score, picks)}


def ours(method: str) -> Run:
    """The selection, or the score and its highest rows."""
    if method == "centroids":
        return centroids
    from prune_cli.methods import method as methods

    stage = "score" if method in SCORES else "select"
    chosen = methods.load(stage, method)

    def run(features: Features, score: NDArray[np.float64], keep: int) -> Picks:
        every = {"features": features, "score": score, "n_keep": keep, "rng": np.random.default_rng(0)}
        every["label"] = np.arange(len(features)) % 3
        every["trajectory"], every["learning_rate"] = features[:, None], np.ones(1)
        target = features[: TARGETS.get(method, 50)]
        every["target_features"], every["target_group"] = target, np.arange(len(target)) * 5 // len(target)
        every["target_trajectory"], every["grad_norm"] = target[:, None], score[:, None]
        found = chosen.function(**{key: every[key] for key in chosen.inputs if key in every})
        if stage == "score":
            return np.argsort(-found, kind="stable")[:keep]
        return found[0] if isinstance(found, tuple) else found

    return run


def value(method: str, features: Features, score: NDArray[np.float64], picks: Picks) -> float:
    """What the selection maximises, where it maximises something and the rows are few enough to say."""
    if method == "centroids":
        return float(-assign(features, picks)[1].mean())
    if len(features) > 20_000 or method not in ("k_center", "facility_location", "k_dpp", "gist"):
        return float("nan")
    x = np.asarray(features, np.float64)
    kept = x[picks]
    if method == "k_dpp":
        kept /= np.linalg.norm(kept, axis=1, keepdims=True)
        return float(np.linalg.slogdet(kept @ kept.T + 1e-4 * np.eye(len(kept)))[1])
    within = x if method != "gist" else kept
    squares = (within**2).sum(axis=1)[:, None] - 2 * within @ kept.T + (kept**2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares, 0))
    if method == "gist":
        return float(score[picks].sum() + apart[np.triu_indices(len(kept), 1)].min())
    return float(-apart.min(axis=1).max() if method == "k_center" else -apart.min(axis=1).sum())


def centroids(features: Features, score: NDArray[np.float64], keep: int) -> NDArray[np.float64]:
    """The centroids of k-means, as the methods cluster."""
    return fit(features, keep, np.random.default_rng(0))


def faiss_centroids(features: Features, score: NDArray[np.float64], keep: int) -> NDArray[np.float64]:
    """All rows, 25 rounds at most, from a k-means++ start."""
    import faiss  # type: ignore[import-not-found]  # in an environment of its own

    start = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    model = faiss.Kmeans(
        features.shape[1],
        keep,
        seed=0,
        max_points_per_centroid=len(features),
        early_stop_threshold=1e-4,
        init_method=start,
    )
    model.train(np.asarray(features, np.float32))
    return np.asarray(model.centroids, np.float64)


def sklearn_centroids(features: Features, score: NDArray[np.float64], keep: int) -> NDArray[np.float64]:
    """As it comes: all rows, for the start too."""
    from sklearn.cluster import KMeans

    return np.asarray(KMeans(keep, random_state=0).fit(features).cluster_centers_, np.float64)


def plain_k_center(features: Features, score: NDArray[np.float64], keep: int) -> Picks:
    """One pass over all rows for each pick."""
    x = np.asarray(features, np.float32)
    picks = [int(((x - x.mean(axis=0)) ** 2).sum(axis=1).argmin())]
    nearest = np.full(len(x), np.inf, np.float32)
    while len(picks) < keep:
        np.minimum(nearest, ((x - x[picks[-1]]) ** 2).sum(axis=1), out=nearest)
        picks.append(int(nearest.argmax()))
    return np.array(picks)


def apricot_facility(features: Features, score: NDArray[np.float64], keep: int) -> Picks:
    """All pairs in memory, its lazy greedy."""
    from apricot import FacilityLocationSelection  # type: ignore[import-not-found]  # in an environment of its own

    x = np.asarray(features, np.float64)
    squares = (x**2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] - 2 * x @ x.T + squares, 0))
    model = FacilityLocationSelection(keep, metric="precomputed", optimizer="lazy")
    return np.asarray(model.fit(apart.max() - apart).ranking)


def submodlib_facility(features: Features, score: NDArray[np.float64], keep: int) -> Picks:
    """All pairs in memory, its lazy greedy."""
    from submodlib import FacilityLocationFunction  # type: ignore[import-not-found]  # in an environment of its own

    x = np.asarray(features, np.float64)
    squares = (x**2).sum(axis=1)
    apart = np.sqrt(np.maximum(squares[:, None] - 2 * x @ x.T + squares, 0))
    function = FacilityLocationFunction(n=len(x), mode="dense", sijs=apart.max() - apart, separate_rep=False)
    return np.array([i for i, _ in function.maximize(keep, optimizer="LazyGreedy", show_progress=False)])


def submodlib_determinant(features: Features, score: NDArray[np.float64], keep: int) -> Picks:
    """All pairs in memory, its lazy greedy."""
    from submodlib import LogDeterminantFunction  # in an environment of its own

    x = np.asarray(features, np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    function = LogDeterminantFunction(n=len(x), mode="dense", lambdaVal=1e-4, sijs=x @ x.T)
    found = function.maximize(keep, optimizer="LazyGreedy", show_progress=False, stopIfNegativeGain=False)
    return np.array([i for i, _ in found])


def gist_select(features: Features, score: NDArray[np.float64], keep: int) -> Picks:
    """Its own sweep."""
    from gist import EuclideanDistance, LinearUtility, gist  # type: ignore[import-not-found]  # in one of its own

    x = np.asarray(features, np.float64)
    return np.asarray(gist(x, LinearUtility(score), EuclideanDistance(), k=keep, lam=1.0, eps=0.1, seed=0).indices)


PEERS: dict[str, Run] = {
    "plain k_center": plain_k_center,
    "apricot facility_location": apricot_facility,
    "submodlib facility_location": submodlib_facility,
    "submodlib k_dpp": submodlib_determinant,
    "gist gist": gist_select,
    "faiss centroids": faiss_centroids,
    "sklearn centroids": sklearn_centroids,
}


if __name__ == "__main__":
    main()
