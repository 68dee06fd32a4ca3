"""Selections, budgets and balance against cases worked out by hand, and against what defines them."""

import inspect
import sys
import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods.balance import select as run_balanced
from prune_cli.methods.budget import parse_keep
from prune_cli.numeric import blocks as _blocks
from prune_cli.numeric.shares import equal_shares, proportional_shares
from prune_cli.options import option
from tests.truth import truth


def select(name, *args, **options):
    returned = methods.load("select", name).function(*args, **options)
    positions = returned[0] if isinstance(returned, tuple) else returned
    return positions.tolist()


def rng(seed=0):
    return np.random.default_rng(seed)


SCORE = np.array([0.1, 0.9, 0.5, 0.9, 0.3])  # from low to high: rows 0, 4, 2, 1, 3


@truth("select/top", by="worked example")
def test_top_takes_the_highest_first_and_ties_in_order_of_rows():
    """0.9 (row 1), 0.9 (row 3), 0.5 (row 2)."""
    assert select("top", SCORE, 3) == [1, 3, 2]


@truth("select/bottom", by="worked example")
def test_bottom_takes_the_lowest_first_and_ties_in_order_of_rows():
    """0.1 (row 0), 0.3 (row 4), 0.5 (row 2), 0.9 (row 1)."""
    assert select("bottom", SCORE, 4) == [0, 4, 2, 1]


def test_ties_go_by_the_order_of_rows_however_many():
    """Of 999 rows with scores 0, 1, 2, 0, 1, 2, … the top is rows 2, 5, 8, …, the bottom 0, 3, 6, …"""
    score = np.arange(999) % 3.0
    assert select("top", score, 200) == list(range(2, 602, 3))
    assert select("bottom", score, 200) == list(range(0, 600, 3))
    assert select("middle", score, 3) == [
        499,
        496,
        502,
    ]  # of rows 1, 4, … 997 the middle one, then its neighbours


@truth("select/middle", by="worked example")
def test_middle_takes_the_ranks_around_the_median():
    """Row 2 is the median; the ranks beside it are row 4 below and row 1 above."""
    assert select("middle", SCORE, 1) == [2]
    assert select("middle", SCORE, 2) == [2, 4]
    assert select("middle", SCORE, 3) == [2, 4, 1]


def test_middle_of_an_even_number_starts_below_the_median():
    """Of rows ranked 3, 1, 2, 0 the middle two are 1 and 2, the next is the lower, row 3."""
    score = np.array([9.0, 2.0, 5.0, 1.0])
    assert select("middle", score, 1) == [1]
    assert select("middle", score, 2) == [1, 2]
    assert select("middle", score, 3) == [1, 2, 3]


@pytest.mark.parametrize("n", range(1, 9))
def test_middle_is_an_unbroken_band_with_as_many_ranks_below_as_above(n):
    """For every n_keep the ranks are consecutive; those left out below and above differ by one at most."""
    score = rng().permutation(n).astype(float)
    for n_keep in range(1, n + 1):
        ranks = sorted(score[select("middle", score, n_keep)])
        below, above = ranks[0], n - 1 - ranks[-1]
        assert ranks == list(range(int(below), int(below) + n_keep))
        assert above - below in (0, 1)


@truth("select/random", by="closed form: chances alike")
def test_random_draws_every_row_equally_often():
    """Over 3,000 seeds each of 6 rows is among 2 kept a third of the time, within four standard errors."""
    counts = Counter(row for seed in range(3000) for row in select("random", 6, 2, rng(seed)))
    error = (3000 * (1 / 3) * (2 / 3)) ** 0.5
    assert sorted(counts) == list(range(6))
    assert all(abs(count - 1000) < 4 * error for count in counts.values())


def test_random_with_a_larger_budget_begins_with_the_smaller():
    """With the same seed, 5 rows are the first of 20."""
    assert select("random", 50, 20, rng(3))[:5] == select("random", 50, 5, rng(3))


CLUSTERS = np.array([[0, 0], [0, 1], [50, 0], [1, 0], [50, 1], [0, 90]], np.float16)  # {0, 1, 3}, {2, 4}, {5}


@truth("select/kmeans", by="worked example: shares of known clusters")
@pytest.mark.parametrize(
    ("n_keep", "shares"),
    [
        (3, (1, 1, 1)),
        (4, (1, 1, 2)),  # 4/3 → 1, 3/2 → 1, 2
        (5, (1, 2, 2)),  # 5/3 → 1, 4/2 → 2, 2
        (6, (1, 2, 3)),  # 6/3 → 2 but it has 1, 5/2 → 2, 3
    ],
)
def test_kmeans_fills_the_budget_from_the_smallest_cluster_on(n_keep, shares):
    """Clusters of 1, 2 and 3 rows give the shares of S2L's rule, in this order."""
    for seed in range(4):
        rows = select("kmeans", CLUSTERS, n_keep, rng(seed), k=3)
        lone, pair, trio = shares
        assert set(rows[:lone]) <= {5} and set(rows[lone : lone + pair]) <= {2, 4}
        assert len(rows) == n_keep and len(set(rows[lone + pair :]) & {0, 1, 3}) == trio


def test_kmeans_takes_the_same_number_from_each_cluster_wherever_the_rows_stand():
    """Ten clusters of 5 to 50 rows under a budget of 100 give 5, 10 and eight times 10 or 11."""
    sizes = np.arange(5, 55, 5)
    cluster = np.repeat(np.arange(10), sizes)
    centres = rng().permutation(np.eye(10)) * 100
    features = (centres[cluster] + rng(1).normal(size=(len(cluster), 10))).astype(np.float32)
    for seed in range(3):
        order = rng(seed).permutation(len(cluster))
        picked = cluster[order][select("kmeans", features[order], 100, rng(seed), k=10)]
        assert np.bincount(picked).tolist() == [5, 10, 10, 10, 10, 11, 11, 11, 11, 11]


def test_kmeans_draws_within_a_cluster_at_random():
    """Of the three rows of the largest cluster two are kept, each two thirds of the time."""
    counts = Counter(row for s in range(400) for row in select("kmeans", CLUSTERS, 4, rng(s), k=3) if row in {0, 1, 3})
    error = (400 * (2 / 3) * (1 / 3)) ** 0.5
    assert all(abs(counts[row] - 400 * 2 / 3) < 4 * error for row in (0, 1, 3))


def test_kmeans_tells_the_cluster_of_every_row():
    """The column `cluster` is the partition {0, 1, 3}, {2, 4}, {5}, of kept rows and others."""
    _, columns = methods.load("select", "kmeans").function(CLUSTERS, 3, rng(), k=3)
    assert list(columns) == ["cluster"]
    parts = [np.flatnonzero(columns["cluster"] == j).tolist() for j in range(3)]
    assert sorted(parts) == [[0, 1, 3], [2, 4], [5]]


sizes_and_total = (
    st.lists(st.integers(0, 40), min_size=1, max_size=8)
    .filter(any)
    .flatmap(lambda sizes: st.tuples(st.just(np.array(sizes)), st.integers(1, sum(sizes))))
)


@given(sizes_and_total)
def test_equal_shares_are_as_equal_as_the_sizes_allow(case):
    """Shares add up; none is above its size; one below its size is at most one less than any other."""
    sizes, total = case
    shares = equal_shares(sizes, total)
    assert shares.sum() == total and (shares >= 0).all() and (shares <= sizes).all()
    assert all(share >= shares.max() - 1 for share, size in zip(shares, sizes, strict=True) if share < size)


@given(sizes_and_total)
def test_proportional_shares_are_within_one_row_of_the_proportion(case):
    """Shares add up; none is above its size; each is the exact proportion rounded down or up."""
    sizes, total = case
    shares = proportional_shares(sizes, total)
    exact = sizes * total / sizes.sum()
    assert shares.sum() == total and (shares >= 0).all() and (shares <= sizes).all()
    assert (np.abs(shares - exact) < 1).all()


def test_proportional_shares_go_by_the_largest_remainder():
    """60, 30 and 10 of 7 are 4.2, 2.1 and 0.7: 4, 2, 0, and the one row left goes to 0.7."""
    assert proportional_shares(np.array([60, 30, 10]), 7).tolist() == [4, 2, 1]


# directions of 0°, 30°, 60°, 90° and 180°; targets at 10° and 80°
COMPASS = np.array([[2, 0], [np.sqrt(3), 1], [1, np.sqrt(3)], [0, 3], [-1, 0]])
AIMS = np.array([[np.cos(np.pi / 18), np.sin(np.pi / 18)], [np.sin(np.pi / 18), np.cos(np.pi / 18)]])


def test_round_robin_gives_each_target_row_its_nearest_free_row_in_turn():
    """10° takes 0° and 80° takes 90°; then 30° (20° off), 60° (20° off); for 10° alone 180° is left."""
    assert select("round_robin", COMPASS, AIMS, 5) == [0, 3, 1, 2, 4]


def test_round_robin_tells_the_target_row_of_each_kept_row():
    """Rows 0, 3 and 1 are kept for target rows 0, 1 and 0; rows 2 and 4 for none."""
    positions, columns = methods.load("select", "round_robin").function(COMPASS, AIMS, 3)
    assert positions.tolist() == [0, 3, 1]
    assert {name: column.tolist() for name, column in columns.items()} == {"target": [0, 0, -1, 1, -1]}


def test_round_robin_passes_on_to_the_next_free_row():
    """Two target rows at 10° take 0°, then 30°; the first 60°, the second 90°: none loses its turn."""
    assert select("round_robin", COMPASS, AIMS[[0, 0]], 4) == [0, 1, 2, 3]


def test_round_robin_with_more_targets_than_budget_serves_the_first():
    """One row for three target rows goes to the first of them, whatever the lengths."""
    assert select("round_robin", COMPASS * 7, AIMS[[1, 0, 0]] * 3, 1) == [3]


def test_round_robin_takes_the_first_of_equal_rows():
    """Copies of a row, made longer or not, go by the order of rows."""
    features = np.array([[0, 1], [1, 0], [5, 0], [3, 0], [0, 0]], np.float16)
    assert select("round_robin", features, np.array([[1, 0]], np.float16), 5) == [1, 2, 3, 0, 4]


def brute_round_robin(features, target, n_keep):
    """The whole table of cosines, each target row's ranking in full, and a set of what is taken."""
    rows, aims = (x.astype(np.float64) for x in (features, target))
    table = (aims @ rows.T) / np.linalg.norm(rows, axis=1) / np.linalg.norm(aims, axis=1)[:, None]
    rankings = [sorted(range(len(rows)), key=lambda i: -round(line[i] * 2**30)) for line in table]
    taken: list[int] = []
    while len(taken) < n_keep:
        ranking = rankings[len(taken) % len(aims)]
        taken.append(next(i for i in ranking if i not in taken))
    return taken


@truth("select/round_robin", by="brute force: the whole table of cosines")
@pytest.mark.parametrize("numbers", [1, 60, 2**22])
@pytest.mark.parametrize("candidates", [1, 30, 2**22])
def test_round_robin_agrees_with_the_whole_table(monkeypatch, numbers, candidates):
    """In blocks and with few candidates noted at a time the answer is that of full rankings, row by row."""
    module = sys.modules[methods.load("select", "round_robin").function.__module__]
    monkeypatch.setattr(module, "CANDIDATES", candidates)
    monkeypatch.setattr(_blocks, "NUMBERS", numbers)
    features = np.concatenate([rng().normal(size=(50, 4)), rng(1).normal(size=(20, 4)) + 3]).astype(np.float16)
    target = np.concatenate([rng(2).normal(size=(4, 4)), 3 + rng(3).normal(size=(7, 4)) / 9]).astype(np.float16)
    for n_keep in (1, 7, 40, 70):
        assert select("round_robin", features, target, n_keep) == brute_round_robin(features, target, n_keep)


def test_round_robin_holds_no_table(monkeypatch, tmp_path):
    """Of 20,000 rows × 500 target rows, 80 MB as float64, no more than a part is ever in memory."""
    module = sys.modules[methods.load("select", "round_robin").function.__module__]
    monkeypatch.setattr(module, "CANDIDATES", 2**17)
    monkeypatch.setattr(_blocks, "NUMBERS", 2**17)
    features, target = (rng(i).normal(size=(n, 8)).astype(np.float32) for i, n in enumerate((20_000, 500)))
    tracemalloc.start()
    try:
        rows = select("round_robin", features, target, 3000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(set(rows)) == 3000
    assert peak < 20_000 * 500 * 8 / 8


LABEL = np.array([0, 1, 0, 2, 0, 1])
BY_LABEL = np.array([0.1, 0.6, 0.9, 0.2, 0.5, 0.7])  # label 0: rows 2, 4, 0; label 1: rows 5, 1; label 2: row 3


def method_of(function):
    """A function as a selection method."""
    parameters = inspect.signature(function).parameters.values()
    inputs = tuple(p.name for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD)
    options = {p.name: option(p.name, None, p.default) for p in parameters if p.kind is p.KEYWORD_ONLY}
    return methods.Method("mine", function, inputs, (), options, doc="", code="")


def top_balanced(n_keep, balance):
    top = methods.load("select", "top")
    return run_balanced(top, {"score": BY_LABEL}, LABEL, n_keep, balance, 6).positions.tolist()


def test_balance_none_is_the_method_itself():
    """Without balance the highest scores are kept whatever their label."""
    top = methods.load("select", "top")
    assert run_balanced(top, {"score": BY_LABEL}, None, 4, "none", 6).positions.tolist() == [2, 5, 1, 4]


def test_balance_keep_gives_each_label_its_share_of_the_data():
    """A budget of 3 is 1.5, 1 and 0.5, so 2, 1 and 0; ranks ¼ and ¾, ½ merge to 2, 5, 4."""
    assert top_balanced(3, "keep") == [2, 5, 4]


def test_balance_equal_gives_each_label_the_same_share():
    """3 rows are one of each label, the best of each."""
    assert top_balanced(3, "equal") == [2, 5, 3]


def test_balance_equal_shares_out_what_a_label_lacks():
    """5 rows: label 2 has one, labels 1 and 0 give two each; ranks ½, ¼ ¾ and ¼ ¾ merge to 2, 5, 3, 4, 1."""
    assert top_balanced(5, "equal") == [2, 5, 3, 4, 1]


@pytest.mark.parametrize("balance", ["none", "keep", "equal"])
def test_balance_with_all_rows_keeps_all_rows(balance):
    """A budget of everything is everything."""
    assert sorted(top_balanced(6, balance)) == list(range(6))


@pytest.mark.parametrize("balance", ["keep", "equal"])
@pytest.mark.parametrize("name", methods.names("select"))
def test_every_method_can_be_balanced(name, balance):
    """For every method and budget the labels come out with the shares, and the rows are all different."""
    method = methods.load("select", name)
    label = np.repeat([0, 1, 3], [25, 10, 5])  # no row has label 2
    shares: Any = {"keep": proportional_shares, "equal": equal_shares}[balance]
    for n_keep in (1, 2, 13, 39, 40):
        every = {
            "n": 40,
            "n_keep": n_keep,
            "rng": rng(),
            "score": rng(1).permutation(40) / 7,
            "features": rng(2).normal(size=(40, 3)),
            "target_features": rng(3).normal(size=(6, 3)),
            "text": [f"row {i} of forty, with words of its own: {'abcdefgh'[i % 8] * (i + 1)}" for i in range(40)],
        }
        if name == "tsds":  # needs every checkpoint
            every |= {"trajectory": rng(2).normal(size=(40, 2, 3)), "learning_rate": np.ones(2)}
            every["target_trajectory"] = rng(3).normal(size=(6, 2, 3))
        arguments = {key: every[key] for key in method.inputs if key in every}
        rows = run_balanced(method, arguments | method.defaults, label, n_keep, balance, 40).positions
        assert len(set(rows.tolist())) == n_keep == len(rows)
        assert np.bincount(label[rows], minlength=4).tolist() == shares(np.bincount(label), n_keep).tolist()


@pytest.mark.parametrize("n_keep", [50, 97])
def test_every_beginning_of_a_balanced_selection_is_balanced(n_keep):
    """Of labels 90 : 9 : 1 any first m rows have their proportion of m, within one row."""
    label = rng().permutation(np.repeat([0, 1, 2], [900, 90, 10]))
    arguments = {"score": rng(1).normal(size=1000)}
    rows = run_balanced(methods.load("select", "top"), arguments, label, n_keep, "keep", 1000).positions
    picked = np.eye(3)[label[rows]]
    proportion = picked.mean(axis=0) * np.arange(1, n_keep + 1)[:, None]
    assert np.abs(picked.cumsum(axis=0) - proportion).max() <= 1


def test_clusters_of_a_balanced_selection_are_numbered_on():
    """Two kept rows of each label, and each row's number is that of one kept row, the nearest of its label."""
    label, features = np.repeat([0, 1, 2], [5, 4, 3]), rng().normal(size=(12, 3))
    kept = run_balanced(methods.load("select", "k_center"), {"features": features}, label, 6, "equal", 12)
    cluster = kept.columns["cluster"]
    assert sorted(cluster[kept.positions].tolist()) == [0, 1, 2, 3, 4, 5]
    for i in range(12):
        own = kept.positions[label[kept.positions] == label[i]]
        nearest = own[np.linalg.norm(features[own] - features[i], axis=1).argmin()]
        assert cluster[i] == cluster[nearest]


def test_balance_gives_a_method_its_label_s_part_of_every_input():
    """Inputs by row are cut to the label; target set, rates, rng and options stay; n and n_keep are new."""
    seen = []

    def spy(features, text, n, n_keep, rng, learning_rate, target_features, *, size=5):
        seen.append((features.tolist(), text, n, n_keep, rng, learning_rate, target_features, size))
        return np.arange(n_keep)

    generator, rates, target = rng(), np.ones(6), np.ones((6, 2))
    arguments = {
        "features": np.arange(6)[:, None],
        "text": list("abcdef"),
        "n": 6,
        "n_keep": 2,
        "rng": generator,
        "learning_rate": rates,
        "target_features": target,
        "size": 7,
    }
    rows = run_balanced(method_of(spy), arguments, LABEL, 2, "keep", 6).positions.tolist()
    assert seen == [
        ([[0], [2], [4]], ["a", "c", "e"], 3, 1, generator, rates, target, 7),
        ([[1], [5]], ["b", "f"], 2, 1, generator, rates, target, 7),
    ]  # label 2 has no share: it is passed over
    assert rows == [0, 1]


def test_balance_puts_the_columns_together():
    """Each label's rows have their own entries; the rows of a label without a share have none, by type of column."""

    def explained(score, n_keep):
        n = len(score)
        columns = {"first": np.arange(n), "half": score / 2, "high": score > 0.6}
        return np.argsort(-score, kind="stable")[:n_keep], columns

    kept = run_balanced(method_of(explained), {"score": BY_LABEL}, LABEL, 3, "keep", 6)
    assert kept.positions.tolist() == [2, 5, 4]
    assert kept.columns["first"].tolist() == [0, 0, 1, -1, 2, 1]  # label 2, row 3, has no share
    np.testing.assert_array_equal(kept.columns["half"], [0.05, 0.3, 0.45, np.nan, 0.25, 0.35])
    assert kept.columns["high"].tolist() == [False, False, True, False, False, True]


@pytest.mark.parametrize(
    ("column", "problem"),
    [
        (np.arange(5), "column why is not one number for each of 6 rows"),
        (np.arange(12).reshape(6, 2), "column why is not one number"),
        (np.array(list("abcdef")), "column why is not one number"),
    ],
)
def test_a_column_that_is_not_a_number_for_each_row_is_found_out(column, problem):
    """A column that is too short, has two axes or holds text is an error that names it."""
    with pytest.raises(PruneError, match=f"^mine: {problem}"):
        run_balanced(method_of(lambda: (np.arange(3), {"why": column})), {}, None, 3, "none", 6)


@pytest.mark.parametrize("answer", [[0, 0, 1], [0, 1], [0, 1, 6], [-1, 0, 1]])
def test_a_method_that_gives_wrong_positions_is_found_out(answer):
    """Positions twice, too few or out of range are an error, not a selection."""
    with pytest.raises(PruneError, match=r"^mine: gave positions that are not 3 different ones of 6 rows$"):
        run_balanced(method_of(lambda: np.array(answer)), {}, None, 3, "none", 6)


@pytest.mark.parametrize(
    ("keep", "n", "n_keep"),
    [
        ("500", 1000, 500),
        ("1", 5, 1),
        ("5", 5, 5),
        ("1.0", 5, 5),
        ("100%", 7, 7),
        ("0.3", 10, 3),
        ("30%", 10, 3),
        (".5", 10, 5),
        ("12.5%", 16, 2),
        ("0.25", 10, 3),  # 2.5: half a row up
        ("0.24", 10, 2),
        ("0.145", 100, 15),  # 14.5 exactly, though 0.145 * 100 in floats is below it
        ("0.001", 10, 1),  # at least one
        ("1e-05", 400_000, 4),
        (" 30% ", 10, 3),
    ],
)
def test_keep_is_rows_or_a_share(keep, n, n_keep):
    """Whole numbers are rows; decimals and percentages are shares, exact and rounded half up."""
    assert parse_keep(keep, n) == n_keep


@pytest.mark.parametrize(
    "keep",
    [
        *("0", "11", "-1", "+3", "2.5", "0.0", "-0.5", "0%", "101%", "1.01", "nan", "inf", "1e400", "0e1"),
        *("", "half", "1/3", "1,5", "0.3.1", "%", ".", "3O%", "30%%", "٣", "1_0", "3 0"),
    ],
)
def test_keep_that_is_no_budget_is_refused(keep):
    """Nothing, more than all, or no number at all is an error that says what is allowed."""
    with pytest.raises(PruneError) as caught:
        parse_keep(keep, 10)
    allowed = "a number of rows from 1 to 10, or a share such as 0.3 or 30%"
    assert caught.value.message == f"keep: {keep}; allowed: {allowed}"
