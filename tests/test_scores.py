"""Scores against numbers worked out by hand from their formulas, and against plain loops."""

import math
import tracemalloc

import numpy as np
import pytest
from sklearn.metrics.pairwise import cosine_similarity
from threadpoolctl import threadpool_limits

from prune_cli.methods import method as methods
from prune_cli.numeric import blocks as _blocks
from prune_cli.numeric import kmeans as _kmeans
from tests.truth import truth


def score(name, *args, **options):
    return methods.load("score", name).function(*args, **options)


def log(probabilities):
    return np.log(np.array(probabilities, np.float64)).astype(np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


@truth("score/random", by="closed form: mean and variance")
def test_random_is_uniform_and_follows_its_seed():
    """Random scores are in [0, 1) with mean 1/2 and variance 1/12, within three standard errors."""
    scores = score("random", 20_000, rng())
    assert scores.min() >= 0 and scores.max() < 1
    assert abs(scores.mean() - 1 / 2) < 3 * math.sqrt(1 / 12 / 20_000)
    assert abs(scores.var() - 1 / 12) < 3 * math.sqrt(1 / 180 / 20_000)
    assert score("random", 9, rng(1)).tolist() != score("random", 9, rng(2)).tolist()


@truth("score/loss", by="worked example")
def test_loss_is_minus_the_last_log_probability():
    """p = 1/2, 1/4 and 1 at the last checkpoint are losses of ln 2, ln 4 and 0."""
    logprob = log([[0.9, 0.5], [0.1, 0.25], [0.3, 1.0]])
    np.testing.assert_allclose(score("loss", logprob), [0.693147, 1.386294, 0], atol=1e-6)


@truth("score/hard_to_learn", by="worked example")
def test_hard_to_learn_is_one_minus_mean_probability():
    """Mean probabilities 0.3, 0.8 and 0.5 are scores of 0.7, 0.2 and 0.5."""
    logprob = log([[0.2, 0.4], [0.9, 0.7], [0.5, 0.5]])
    np.testing.assert_allclose(score("hard_to_learn", -np.expm1(logprob)), [0.7, 0.2, 0.5], atol=1e-6)


@truth("score/ambiguous", by="worked example")
def test_ambiguous_is_the_population_deviation_of_the_probability():
    """0.2, 0.4, 0.9: mean 0.5, squares 0.09 + 0.01 + 0.16 = 0.26, over 3 (not 2), root 0.294392."""
    logprob = log([[0.2, 0.4, 0.9], [0.3, 0.3, 0.3], [0.1, 0.9, 0.5]])
    by_hand = [math.sqrt(0.26 / 3), 0, math.sqrt(0.32 / 3)]
    np.testing.assert_allclose(score("ambiguous", -np.expm1(logprob)), by_hand, atol=1e-6)
    assert by_hand[0] == pytest.approx(0.294392, abs=1e-6)


def test_ambiguous_of_one_checkpoint_is_zero():
    """With one checkpoint nothing varies."""
    assert score("ambiguous", -np.expm1(log([[0.2], [0.9]]))).tolist() == [0, 0]


@truth("score/perplexity", by="worked example")
def test_perplexity_is_one_over_the_probability_a_token():
    """Mean log-probabilities of ln ½, ln ¼ and 0 at the last checkpoint are perplexities of 2, 4 and 1."""
    logprob = log([[0.9, 0.5], [0.1, 0.25], [0.3, 1.0]])
    np.testing.assert_allclose(score("perplexity", logprob), [2, 4, 1], atol=1e-6)


def test_perplexity_is_the_token_wise_geometric_mean():
    """Tokens of probability ½, ¼ and ⅛ have a perplexity of (2·4·8)^⅓ = 4."""
    mean = np.log([1 / 2, 1 / 4, 1 / 8]).mean()
    np.testing.assert_allclose(score("perplexity", np.array([[mean]], np.float32)), [4], rtol=1e-6)


IFD_PROMPTED = -np.array([[9, 1], [9, 2], [9, 3], [9, 6], [9, 2]], np.float32)
IFD_ALONE = -np.array([[9, 4], [9, 4], [9, 2], [9, 2], [9, 2]], np.float32)  # ratios ¼, ½, 3⁄2, 3 and 1


@truth("score/ifd", by="worked example")
def test_ifd_is_the_loss_with_the_prompt_over_the_loss_without():
    """Losses of 1 and 2 with the prompt, 4 without, at the last checkpoint: ¼ and ½; equal losses: 1."""
    scores = score("ifd", IFD_PROMPTED, IFD_ALONE)
    assert scores[[0, 1, 4]].tolist() == [0.25, 0.5, 1]


def test_ifd_ranks_rows_that_their_prompt_misleads_last():
    """Ratios of 3⁄2 and 3 come after ¼, the larger last: 1, ½, ¼, −3⁄2, −3."""
    scores = score("ifd", IFD_PROMPTED, IFD_ALONE)
    assert np.argsort(-scores).tolist() == [4, 1, 0, 2, 3]
    assert scores[[2, 3]].tolist() == [-1.5, -3]


def test_ifd_can_be_the_ratio_throughout():
    """With unhelped_last off, 3⁄2 and 3 are the highest."""
    assert score("ifd", IFD_PROMPTED, IFD_ALONE, unhelped_last=False).tolist() == [0.25, 0.5, 1.5, 3, 1]


def test_ifd_of_a_response_without_loss_is_finite():
    """A response that is certain without its prompt has no difficulty with it, and misleads without end else."""
    scores = score("ifd", np.array([[0], [-1]], np.float32), np.array([[0], [0]], np.float32))
    assert scores[0] == 0 and np.isfinite(scores[1]) and scores[1] < -1e6


def test_rds_is_the_cosine_to_the_most_similar_target_row():
    """(3, 4) has cosines 0.6 and 0.8; (−1, 0) has −1 and 0; (5, 0) has 1 and 0; zeros are like none."""
    features = np.array([[3, 4], [-1, 0], [5, 0], [0, 0]], np.float16)
    target = np.array([[2, 0], [0, 7]], np.float16)
    np.testing.assert_allclose(score("rds", features, target), [0.8, 0, 1, 0], atol=1e-12)
    np.testing.assert_allclose(score("rds", features, target[:1]), [0.6, -1, 1, 0], atol=1e-12)


@truth("score/rds", by="peer: scikit-learn")
@pytest.mark.parametrize("numbers", [1, 50, 2**22])
def test_rds_agrees_with_scikit_learn(monkeypatch, numbers):
    """Whatever the size of a block, the maximum of scikit-learn's table of cosines."""
    monkeypatch.setattr(_blocks, "NUMBERS", numbers)
    features = rng().normal(size=(31, 6)).astype(np.float16)
    target = (rng(1).normal(size=(9, 6)) * np.geomspace(1e-3, 1e3, 9)[:, None]).astype(np.float32)
    table = cosine_similarity(features.astype(np.float64), target.astype(np.float64))
    np.testing.assert_allclose(score("rds", features, target), table.max(axis=1), rtol=1e-9)


@truth("score/el2n", by="worked example")
def test_el2n_is_the_mean_over_checkpoints():
    """Error norms (1, 0.5), (0.25, 0.75) and (√2, √2) are scores of 0.75, 0.5 and √2."""
    el2n = np.array([[1, 0.5], [0.25, 0.75], [math.sqrt(2)] * 2], np.float32)
    np.testing.assert_allclose(score("el2n", el2n), [0.75, 0.5, 1.414214], atol=1e-6)


@truth("score/memorization", by="worked example")
def test_memorization_weighs_squared_norms_by_learning_rate():
    """η = 0.1, 0.01: 0.1·1 + 0.01·4 = 0.14, 0.1·9 + 0 = 0.9, 0.1·0.25 + 0.01·0.25 = 0.0275."""
    grad_norm = np.array([[1, 2], [3, 0], [0.5, 0.5]], np.float32)
    scores = score("memorization", grad_norm, np.array([0.1, 0.01]))
    np.testing.assert_allclose(scores, [0.14, 0.9, 0.0275], rtol=1e-12)


def test_memorization_holds_norms_beyond_float32():
    """A norm of 1e30 has a square of 1e60, which float64 holds and float32 does not."""
    scores = score("memorization", np.array([[1e30]], np.float32), np.array([1.0]))
    np.testing.assert_allclose(scores, [1e60], rtol=1e-6)


def test_prototypicality_is_the_squared_distance_to_the_nearest_centroid():
    """Two triangles far apart have centroids (1, 1) and (100, 2), squared distances 2, 2, 4 and 4, 4, 0."""
    features = np.array([[0, 0], [100, 0], [2, 0], [1, 3], [100, 4], [100, 2]], np.float16)
    for seed in range(5):
        scores = score("prototypicality", features, rng(seed), k=2)
        np.testing.assert_allclose(scores, [2, 4, 2, 4, 4, 0], atol=1e-5)


@truth("score/prototypicality", by="closed form: one prototype is the mean")
def test_prototypicality_with_one_prototype_is_the_distance_to_the_mean():
    """With k = 1 the scores add up to n times the variance, far from the origin too."""
    for offset in (0, 1000):
        features = (offset + rng().normal(size=(500, 20))).astype(np.float32)
        exact = features.astype(np.float64)
        by_mean = ((exact - exact.mean(axis=0)) ** 2).sum(axis=1)
        scores = score("prototypicality", features, rng(), k=1)
        np.testing.assert_allclose(scores, by_mean, rtol=1e-3)
        assert scores.sum() == pytest.approx(500 * exact.var(axis=0).sum(), rel=1e-6)


@pytest.mark.parametrize("k", [6, 7, 100])
def test_prototypicality_with_a_prototype_for_each_row_is_zero(k):
    """As many prototypes as rows, or more, leave no distance."""
    features = rng().normal(size=(6, 3)).astype(np.float32)
    np.testing.assert_allclose(score("prototypicality", features, rng(), k=k), 0, atol=1e-12)


def test_assigning_agrees_with_all_distances(monkeypatch):
    """The nearest centroid and its squared distance, block by block, are those of the full table."""
    monkeypatch.setattr(_blocks, "NUMBERS", 7 * 5)  # blocks of 7 rows
    features = (100 + rng().normal(size=(50, 5))).astype(np.float16)
    centroids = 100 + rng(1).normal(size=(8, 5))
    table = ((features.astype(np.float64)[:, None] - centroids) ** 2).sum(axis=2)
    nearest, distance = _kmeans.assign(features, centroids)
    assert nearest.tolist() == table.argmin(axis=1).tolist()
    np.testing.assert_allclose(distance, table.min(axis=1), rtol=1e-12)


def test_a_draw_finds_the_clusters_that_the_whole_finds(monkeypatch, capsys):
    """Beyond the size limit the distances to the centroids found add up to at most 5% more than below it."""
    centres = rng().normal(size=(20, 8)) * 3
    features = (centres[rng(1).integers(0, 20, 5000)] + rng(2).normal(size=(5000, 8))).astype(np.float16)
    whole = score("prototypicality", features, rng(3), k=20)
    assert not capsys.readouterr().err
    monkeypatch.setattr(_kmeans, "WHOLE", 2000 * 8)
    drawn = score("prototypicality", features, rng(3), k=20)
    assert "k-means: centroids of 2,000 of 5,000 rows, drawn at random" in capsys.readouterr().err
    assert whole.sum() < drawn.sum() * 1.05
    assert drawn.sum() < whole.sum() * 1.05
    again = score("prototypicality", features, rng(3), k=20)
    assert again.tobytes() == drawn.tobytes()


@pytest.mark.parametrize("whole", [1000 * 32, 2**27])
def test_clusters_do_not_depend_on_threads(monkeypatch, whole):
    """The same seed gives the same centroids to the last bit, with one thread or eight, time after time."""
    monkeypatch.setattr(_kmeans, "WHOLE", whole)
    features = rng().normal(size=(4000, 32)).astype(np.float32)
    found = set()
    for threads in (1, 8, 8, 8, 8):
        with threadpool_limits(threads):
            found.add(_kmeans.fit(features, 30, rng(7)).tobytes())
    assert len(found) == 1


LESS_ROWS = np.array(
    [
        [[4, 3], [0, 2]],  # directions (0.8, 0.6) and (0, 1)
        [[1, 0], [0, 0]],  # (1, 0) and nothing
        [[0, -5], [1, 0]],  # (0, −1) and (1, 0)
    ],
    np.float16,
)
LESS_TARGET = np.array([[[2, 0], [0, 3]], [[0, 1], [4, 0]]], np.float16)  # (1, 0), (0, 1) and (0, 1), (1, 0)
LESS_RATES = np.array([0.1, 0.02])


def test_less_is_the_weighted_agreement_with_the_mean_target_direction():
    """Mean target (½, ½): 0.1·0.7 + 0.02·½ = 0.08, 0.1·½ + 0 = 0.05, −0.1·½ + 0.02·½ = −0.04."""
    np.testing.assert_allclose(score("less", LESS_ROWS, LESS_TARGET, LESS_RATES), [0.08, 0.05, -0.04], atol=1e-12)


def test_less_takes_the_best_group():
    """Row 1: 0.1·0.8 + 0.02 = 0.10 or 0.1·0.6 = 0.06; row 2: 0.1 or 0; row 3: 0 or −0.1 + 0.02 = −0.08."""
    scores = score("less", LESS_ROWS, LESS_TARGET, LESS_RATES, np.array([4, 9]))
    np.testing.assert_allclose(scores, [0.10, 0.1, 0], atol=1e-12)


def test_less_knows_directions_only():
    """Making a row or a target row longer changes nothing."""
    longer = LESS_ROWS * np.array([3, 0.5, 7], np.float16)[:, None, None]
    before = score("less", LESS_ROWS, LESS_TARGET, LESS_RATES)
    np.testing.assert_allclose(score("less", longer, LESS_TARGET * 2, LESS_RATES), before, atol=1e-12)


def test_less_of_the_target_itself_is_the_sum_of_rates():
    """A row that is the only target row agrees with it fully at every checkpoint."""
    assert score("less", LESS_ROWS[:1], LESS_ROWS[:1], LESS_RATES).tolist() == pytest.approx([0.12])


@pytest.mark.parametrize("numbers", [1, 100, 2**22])
def test_less_agrees_with_a_plain_loop(monkeypatch, numbers):
    """Row by row, target row by target row, the cosines add up to the same, whatever the size of a block."""
    monkeypatch.setattr(_blocks, "NUMBERS", numbers)
    rows = rng().normal(size=(23, 3, 6)).astype(np.float16)
    target = (rng(1).normal(size=(11, 3, 6)) * np.geomspace(1e-3, 1e3, 11)[:, None, None]).astype(np.float32)
    rates = np.array([3e-5, 2e-5, 1e-5])
    group = np.array([0, 2, 2, 1, 0, 0, 2, 1, 0, 2, 0])

    def cosine(a, b):
        dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
        return dot / math.sqrt(sum(float(x) ** 2 for x in a)) / math.sqrt(sum(float(y) ** 2 for y in b))

    expected = []
    for row in rows:
        agreements = []
        for g in (0, 1, 2):
            members = [v for v in range(11) if group[v] == g]
            terms = [rates[e] * cosine(row[e], target[v, e]) for v in members for e in range(3)]
            agreements.append(sum(terms) / len(members))
        expected.append(max(agreements))
    np.testing.assert_allclose(score("less", rows, target, rates, group), expected, rtol=1e-9)


def test_large_representations_are_read_in_blocks(monkeypatch, tmp_path):
    """Memory stays far below the size of the representation, which is read from disk a block at a time."""
    monkeypatch.setattr(_blocks, "NUMBERS", 2**15)  # 256 KiB as float64
    shape = (2000, 2, 1024)
    trajectory = np.memmap(tmp_path / "trajectory", np.float16, "w+", shape=shape)
    trajectory[:] = rng().normal(size=(2, 1024)).astype(np.float16)
    centroids = rng().normal(size=(3, 2048))
    tracemalloc.start()
    try:
        score("less", trajectory, trajectory, np.array([1.0, 0.5]))
        _kmeans.assign(trajectory.reshape(2000, -1), centroids)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < trajectory.nbytes / 4
