"""Scores of gradients and neighbours, against plain loops, explicit inverses, and leaving rows out in closed form."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from prune_cli.methods import method as methods
from prune_cli.numeric import blocks
from tests.truth import truth

E, D = 2, 4
RATES = np.array([2e-2, 5e-3])
GROUP = np.array([0, 1, 1, 0, 1])


def scored(name: str, *args: Any, **options: Any) -> Any:
    """What a score method returns."""
    return methods.load("score", name).function(*args, **options)


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [n, e, d] of very different length, as they are stored, and their scale [n, e]."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, E, D)) * 10.0 ** rng.uniform(-1, 1, (n, E, 1))
    scale = 2.0 ** rng.integers(-9, 9, (n, E))
    return vectors, vectors / scale[:, :, None], scale


X, X_STORED, X_SCALE = drawn(17, 0)
V, V_STORED, V_SCALE = drawn(len(GROUP), 1)
SCALES = (X_SCALE, V_SCALE)


@pytest.fixture(params=[1, 30, 2**22])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row, of some and of all."""
    monkeypatch.setattr(blocks, "NUMBERS", request.param)


@truth("score/tracin", by="brute force: every pair by itself")
@pytest.mark.usefixtures("block")
def test_tracin_is_the_mean_over_all_pairs() -> None:
    """TracInCP of each pair by itself, Σ_e η_e ⟨x_ie, v_je⟩, and its mean over target rows, whatever their groups."""
    pairs = [[sum(RATES[e] * float(x[e] @ v[e]) for e in range(E)) for v in V] for x in X]
    np.testing.assert_allclose(scored("tracin", X_STORED, V_STORED, RATES, *SCALES), np.mean(pairs, axis=1), rtol=1e-10)
    one = np.einsum("ned,med->nem", X, V)  # as the kind influence has it, each target row a group
    np.testing.assert_allclose(
        methods.load("score", "tracin", "influence").function(one, RATES), np.mean(pairs, axis=1), rtol=1e-10
    )


@truth("score/trak", by="brute force: the matrices of the paper")
@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("n", [17, 3])  # more rows than numbers, and fewer
def test_trak_is_its_formula_with_the_matrix_inverted(n: int) -> None:
    """Φ, its Gram matrix and its inverse as the paper writes them, from gradients of log(p / (1 − p))."""
    rng = np.random.default_rng(2)
    doubt, target_doubt = rng.uniform(0.05, 0.95, (n, E)), rng.uniform(0.05, 0.95, (len(V), E))
    phi, of_target = -X[:n] / doubt[:, :, None], -V / target_doubt[:, :, None]
    products = np.zeros((len(V), n))
    for e in range(E):
        gram = phi[:, e].T @ phi[:, e]
        damped = gram + 0.3 * gram.trace() / min(n, D) * np.eye(D)
        products += of_target[:, e] @ np.linalg.inv(damped) @ phi[:, e].T / E
    each = products * doubt.mean(axis=1)
    best = np.maximum(each[GROUP == 0].mean(axis=0), each[GROUP == 1].mean(axis=0))
    given = (X_STORED[:n], V_STORED, doubt, target_doubt)
    ours = scored("trak", *given, GROUP, X_SCALE[:n], V_SCALE, damping=0.3)
    np.testing.assert_allclose(ours, best, rtol=1e-9)
    alone = scored("trak", *given, None, X_SCALE[:n], V_SCALE, damping=0.3)
    np.testing.assert_allclose(alone, each.mean(axis=0), rtol=1e-9, atol=1e-12)


@truth("score/trak", by="closed form: least squares without each row in turn")
def test_trak_of_least_squares_is_leaving_a_row_out() -> None:
    """With gradients −r x of ½ r² it is the change of a prediction without the row, times one minus its leverage."""
    rng = np.random.default_rng(3)
    x, y, at = rng.normal(size=(30, 3)), rng.normal(size=30), rng.normal(size=3)
    fit = np.linalg.lstsq(x, y, rcond=None)[0]
    residual = y - x @ fit
    without = [np.linalg.lstsq(np.delete(x, i, 0), np.delete(y, i), rcond=None)[0] for i in range(30)]
    leverage = np.einsum("ij,jk,ik->i", x, np.linalg.inv(x.T @ x), x)
    change = np.array([(fit - other) @ at for other in without]) * (1 - leverage)
    gradient, doubt = (-residual[:, None] * x)[:, None], np.abs(residual)[:, None]
    made = scored("trak", gradient, -at[None, None], doubt, np.ones((1, 1)), damping=1e-12)
    np.testing.assert_allclose(made, change, rtol=1e-6, atol=1e-9)


def test_trak_of_zeros_is_zero() -> None:
    """Rows that the model is sure of, to the last bit, have no gradient: nothing to solve, and nothing to divide by."""
    nothing = np.zeros((5, 1, 3), np.float16)
    assert scored("trak", nothing, nothing[:2], np.zeros((5, 1)), np.zeros((2, 1))).tolist() == [0] * 5
    assert scored("datainf", nothing, nothing[:2]).tolist() == [0] * 5
    assert scored("gist_gradient", nothing, nothing[:2], np.ones(1)).tolist() == [0] * 5


@truth("score/datainf", by="brute force: each inverse by itself")
@pytest.mark.usefixtures("block")
def test_datainf_is_its_formula_with_each_matrix_inverted() -> None:
    """The mean over rows of (g gᵀ + λ I)⁻¹, each explicit, between the target's mean and each gradient."""
    each = np.zeros((len(V), len(X)))
    for e in range(E):
        damped = 0.2 * (X[:, e] ** 2).sum() / (len(X) * D) * np.eye(D)
        inverse = np.mean([np.linalg.inv(np.outer(g, g) + damped) for g in X[:, e]], axis=0)
        each += V[:, e] @ inverse @ X[:, e].T / E
    best = np.maximum(each[GROUP == 0].mean(axis=0), each[GROUP == 1].mean(axis=0))
    np.testing.assert_allclose(scored("datainf", X_STORED, V_STORED, GROUP, *SCALES, damping=0.2), best, rtol=1e-9)
    alone = scored("datainf", X_STORED, V_STORED, None, *SCALES, damping=0.2)
    np.testing.assert_allclose(alone, each.mean(axis=0), rtol=1e-9)


@truth("score/gist_gradient", by="brute force: numpy's singular vectors")
@pytest.mark.usefixtures("block")
@pytest.mark.parametrize(("rank", "m"), [(1, 5), (2, 5), (9, 5), (2, 3), (9, 3)])
def test_gist_is_the_cosine_after_a_full_svd(rank: int, m: int) -> None:
    """numpy's own singular vectors, the target's means and the rows on them, and the best group of their cosines."""
    total = np.zeros((2, len(X)))
    for e in range(E):
        basis = np.linalg.svd(V[:m, e], full_matrices=False)[2][:rank]
        rows = X[:, e] @ basis.T
        for g in (0, 1):
            task = basis @ V[:m, e][GROUP[:m] == g].mean(axis=0)
            cosine = rows @ task / np.linalg.norm(rows, axis=1) / np.linalg.norm(task)
            total[g] += RATES[e] / RATES.sum() * cosine
    given = (X_STORED, V_STORED[:m], RATES, GROUP[:m], X_SCALE, V_SCALE[:m])
    np.testing.assert_allclose(scored("gist_gradient", *given, rank=rank), total.max(axis=0), rtol=1e-8)


def test_gist_with_a_subspace_of_all_dimensions_is_less_of_raw_means() -> None:
    """Nothing is projected away where the target spans all: the cosine with its mean gradient as it stands."""
    mean = V.mean(axis=0)
    cosines = [
        X[:, e] @ mean[e] / np.linalg.norm(X[:, e], axis=1) / np.linalg.norm(mean[e]) * RATES[e] for e in range(E)
    ]
    made = scored("gist_gradient", X_STORED, V_STORED, RATES, None, *SCALES)
    np.testing.assert_allclose(made, sum(cosines) / RATES.sum(), rtol=1e-8)


@truth("score/knn_label", by="peer: scikit-learn's neighbours")
@pytest.mark.parametrize("k", [1, 3, 10])
def test_knn_label_counts_other_labels_among_scikit_learns_neighbours(k: int) -> None:
    """The k nearest by scikit-learn's cosine distance, the row itself left out."""
    rng = np.random.default_rng(4)
    features, label = rng.normal(size=(40, 6)).astype(np.float16), rng.integers(0, 3, 40)
    model = NearestNeighbors(metric="cosine", algorithm="brute", n_neighbors=k).fit(features.astype(np.float64))
    share = (label[model.kneighbors(return_distance=False)] != label[:, None]).mean(axis=1)
    assert scored("knn_label", features, label, k=k).tolist() == share.tolist()


@truth("score/knn_label", by="worked example")
def test_knn_label_by_hand() -> None:
    """Of three rows in one direction the last has the label of two in another; by the two nearest rows, and by all."""
    features = np.array([[1, 0], [1, 0.01], [1, 0.02], [0, 1], [0.01, 1]], np.float32)
    label = np.array([0, 0, 1, 1, 1])
    assert scored("knn_label", features, label, k=2).tolist() == [0.5, 0.5, 1, 0, 0]
    assert scored("knn_label", features, label, k=99).tolist() == [0.75, 0.75, 0.5, 0.5, 0.5]
    assert scored("knn_label", features[:1], label[:1]).tolist() == [0]
