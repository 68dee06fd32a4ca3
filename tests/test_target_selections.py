"""Selections that compare with target rows, against plain rules on whole tables of every pair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.methods import method as methods
from prune_cli.methods.published import published
from prune_cli.numeric import blocks
from prune_cli.options import Score, Select
from prune_cli.pipeline.run import plan_of
from prune_cli.pipeline.steps import work_of
from tests.conftest import Prune, read_rows, sentences, write_rows
from tests.test_word_scores import PEERS, ROWS, TARGET
from tests.truth import truth

E, D, N, M = 2, 4, 45, 7
RATES = np.array([2e-2, 5e-3])
GROUP = np.array([1, 0, 2, 1, 0, 0, 2])


def chosen(name: str, *args: Any, on: str | None = None, **options: Any) -> Any:
    """What a selection returns, in its form for a kind."""
    return methods.load("select", name, on).function(*args, **options)


def drawn(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Vectors [n, e, d] of very different length, as they are stored [n, e × d], and their scale [n, e]."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, E, D)) * 10.0 ** rng.uniform(-1, 1, (n, E, 1))
    scale = 2.0 ** rng.integers(-9, 9, (n, E))
    return vectors, (vectors / scale[:, :, None]).reshape(n, -1), scale


X, X_STORED, X_SCALE = drawn(N, 0)
V, V_STORED, V_SCALE = drawn(M, 1)
STORED = (X_STORED, V_STORED)
SCALES = (X_SCALE, V_SCALE)


def cosines() -> np.ndarray:
    """LESS's Σ_e η_e cos(x_ie, v_je) of every pair by itself, η scaled to sum to one: [n, m]."""
    size = np.linalg.norm
    one = [[[x[e] @ v[e] / size(x[e]) / size(v[e]) for e in range(E)] for v in V] for x in X]
    return np.array(one) @ (RATES / RATES.sum())


def in_turn(table: np.ndarray, n_keep: int) -> list[int]:
    """Each column [n, turns] in turn takes its best row that is free, of equal ones the first."""
    taken: list[int] = []
    while len(taken) < n_keep:
        column = table[:, len(taken) % table.shape[1]]
        taken.append(max((i for i in range(len(table)) if i not in taken), key=lambda i: (column[i], -i)))
    return taken


@pytest.fixture(params=[1, 30, 2**22])
def block(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one row, of some and of all; and as many rows noted at a time."""
    monkeypatch.setattr(blocks, "NUMBERS", request.param)
    monkeypatch.setitem(methods.load("select", "round_robin").function.__globals__, "CANDIDATES", request.param)


@truth("select/round_robin", by="brute force: LESS's cosines of every pair by itself")
@pytest.mark.usefixtures("block")
def test_round_robin_on_gradients_takes_turns_by_the_cosines_of_less() -> None:
    """As published, over target rows, or over groups by their best row; a smaller budget is the beginning."""
    options = published()["less-round-robin"].select_options
    table = cosines()
    for n_keep in (3, 20, N):
        found, why = chosen("round_robin", *STORED, n_keep, None, RATES, *SCALES, **options)
        assert found.tolist() == in_turn(table, n_keep)
        assert why["target"][found].tolist() == [i % M for i in range(n_keep)]
    best = np.stack([table[:, g == GROUP].max(axis=1) for g in range(3)], axis=1)
    found, why = chosen("round_robin", *STORED, 20, GROUP, RATES, *SCALES, **options)
    assert found.tolist() == in_turn(best, 20)
    assert why["target_group"][found].tolist() == [i % 3 for i in range(20)]
    assert in_turn(table, 20) != chosen("round_robin", *STORED, 20, None, RATES, *SCALES)[0].tolist()


def test_a_gradient_of_zero_at_a_checkpoint_adds_nothing() -> None:
    """With checkpoints=each its cosine there is 0, and the other checkpoint counts for no more than for other rows."""
    features = np.array([[0, 0, 1, 0], [0.8, 0.6, 0.94, 0.3412]])
    target = np.array([[1.0, 0, 1, 0]])
    found = chosen("round_robin", features, target, 2, None, np.array([0.1, 0.9]), checkpoints="each")[0]
    assert found.tolist() == [1, 0]  # 0.1 × 0.8 + 0.9 × 0.94 > 0.9, and less than √0.9


@pytest.mark.usefixtures("block")
def test_round_robin_on_influence_takes_turns_by_column() -> None:
    """Cosines by target row, as the kind influence has them, give what gradients give; of products any size goes."""
    size = np.linalg.norm
    influence = np.einsum("ned,med->nem", X / size(X, axis=2, keepdims=True), V / size(V, axis=2, keepdims=True))
    for n_keep in (3, 20, N):
        found, why = chosen("round_robin", influence.astype(np.float32), RATES, n_keep, on="influence")
        assert found.tolist() == in_turn(cosines(), n_keep)
        assert why["target"][found].tolist() == [i % M for i in range(n_keep)]
    products = np.einsum("ned,med->nem", X, V) * 10.0 ** np.arange(-12, 2, 2)
    table = np.einsum("nem,e->nm", products, RATES)
    assert chosen("round_robin", products, RATES, N, on="influence")[0].tolist() == in_turn(table, N)


@pytest.mark.usefixtures("block")
def test_round_robin_on_texts_takes_turns_by_bm25() -> None:
    """By bm25s's table; rows that answer neither target text come last, in their order."""
    table = np.array(PEERS["bm25s"]).T
    for n_keep in (1, 2, 6):
        found, why = chosen("round_robin", ROWS, TARGET, n_keep, on="text")
        assert found.tolist() == in_turn(table, n_keep)
        assert why["target"][found].tolist() == [i % 2 for i in range(n_keep)]
    found, why = chosen("round_robin", ROWS, TARGET, 3, np.array([1, 0]), on="text")
    assert found.tolist() == in_turn(table[:, ::-1], 3)
    assert why["target_group"][found].tolist() == [0, 1, 0]


def test_values_keep_their_order_as_whole_numbers() -> None:
    """From the smallest to the largest, below zero too; 0 and −0 are the same, as is what single precision is."""
    ordered = methods.load("select", "round_robin").function.__globals__["_ordered"]
    values = np.array([-3e38, -1.0, -1e-40, -0.0, 0.0, 1e-40, 1e-9, 1.0, 1.0 + 1e-12, 1.0 + 2e-7, 3e38])
    keys = ordered(values)
    assert (np.diff(keys) > 0).tolist() == [True, True, True, False, True, True, True, False, True, True]
    assert (np.diff(keys) == 0).tolist() == [False, False, False, True, False, False, False, True, False, False]


@truth("select/greats", by="brute force: the loss's expansion for every free row at every pick")
@pytest.mark.usefixtures("block")
@pytest.mark.parametrize("step", [1.0, 60.0])
def test_greats_picks_what_lowers_the_loss_most(step: float) -> None:
    """Σ_e η_e ⟨g, ḡ⟩ − η_e² Σ_S ⟨g, g_k⟩, with η times the step; `gain` is that value."""
    picked: list[int] = []
    gains = []
    for _ in range(N):
        value = {
            i: sum(
                step * RATES[e] * X[i, e] @ V[:, e].mean(axis=0)
                - (step * RATES[e]) ** 2 * sum(X[i, e] @ X[k, e] for k in picked)
                for e in range(E)
            )
            for i in range(N)
            if i not in picked
        }
        picked.append(max(value, key=lambda i: value[i]))
        gains.append(value[picked[-1]])
    for n_keep in (1, 9, N):
        found, why = chosen("greats", *STORED, n_keep, RATES, *SCALES, step=step)
        assert found.tolist() == picked[:n_keep]
        np.testing.assert_allclose(why["gain"][found], gains[:n_keep], rtol=1e-3, atol=1e-5 * max(gains))


@truth("select/greats", by="published code: the rule of greedy_selection, worked through")
def test_greats_by_hand() -> None:
    """The example of its docstring; with a step near 0, the best by TracIn."""
    rows, target = np.array([[2, 0], [1.9, 0], [0, 1]]), np.array([[2.0, 1], [0, 1]])
    assert chosen("greats", rows, target, 3, np.array([0.5]))[0].tolist() == [0, 2, 1]
    assert chosen("greats", rows, target, 3, np.array([0.5]), step=1e-6)[0].tolist() == [0, 1, 2]
    best = np.argsort(-methods.load("score", "tracin").function(X, V, RATES))
    assert chosen("greats", *STORED, N, RATES, *SCALES, step=1e-9)[0].tolist() == best.tolist()


def by_rule(influence: np.ndarray) -> tuple[list[int], list[float], list[int]]:
    """BIDS on influence [n, m], plainly: all picks in order, what each was above the mean, for which target row."""
    a = (influence - influence.mean(axis=0)) / influence.std(axis=0)
    picked: list[int] = []
    gains, columns = [], []
    while len(picked) < len(a):
        above = a - (a[picked].mean(axis=0) if picked else 0)
        above[picked] = -np.inf
        i, j = np.unravel_index(above.argmax(), above.shape)
        picked.append(int(i))
        gains.append(float(above[i, j]))
        columns.append(int(j))
    return picked, gains, columns


@truth("select/bids", by="brute force: the whole table at every pick")
@pytest.mark.usefixtures("block")
def test_bids_picks_the_most_above_what_is_picked() -> None:
    """On gradients, and on influence by target row of any size; a smaller budget is the beginning."""
    picked, gains, columns = by_rule(cosines())
    for n_keep in (1, 9, N):
        found, why = chosen("bids", *STORED, n_keep, RATES, *SCALES)
        assert found.tolist() == picked[:n_keep]
        np.testing.assert_allclose(why["gain"][found], gains[:n_keep], rtol=1e-4)
        assert why["target"][found].tolist() == columns[:n_keep]
    products = np.einsum("ned,med->nem", X, V) * 10.0 ** np.arange(-12, 2, 2)
    picked, _, columns = by_rule(np.einsum("nem,e->nm", products, RATES))
    found, why = chosen("bids", products, RATES, N, on="influence")
    assert (found.tolist(), why["target"][found].tolist()) == (picked, columns)


def test_bids_by_hand() -> None:
    """Target row 0 has the larger influences and takes the first row alone; a target row that all suit says nothing."""
    influence = np.array([[9, 0, 1], [8.9, 0, 1], [0, 1, 1], [0, 0, 1.0]])[:, None]
    found = chosen("bids", influence, np.ones(1), 2, on="influence")[0]
    assert sorted(found.tolist()) == [0, 2]


def test_round_robin_on_texts_of_files(tmp_path: Path, prune: Prune, tiny_model: Path) -> None:
    """`--on text` needs no model; what is missing is named; a pipeline runs on texts too, with its target set's."""
    rows, target = (
        write_rows(tmp_path / "rows.jsonl", sentences(20)),
        write_rows(tmp_path / "t.jsonl", sentences(3, 50)),
    )
    start = ["select", rows, "--method", "round_robin", "--keep", 6, "-o"]
    ran = prune(*start, tmp_path / "kept", "--on", "text", "--target", target)
    assert ran.code == 0, ran.err
    texts = [[row["text"] for row in read_rows(path)] for path in (rows, target)]
    found = chosen("round_robin", *texts, 6, on="text")[0]
    kept = [row["text"] for row in read_rows(tmp_path / "kept/select.jsonl")]
    assert kept == [texts[0][i] for i in found]
    assert "--on: missing; allowed: text, or " in prune(*start, tmp_path / "other", "--target", target).errors[0]
    no_form = prune("select", rows, "-o", tmp_path / "other", "--method", "kmeans", "--keep", 6)
    assert no_form.errors == ["a represent artifact is needed; this method runs on one"]
    assert "hint: prune represent DATA -o OUT" in no_form.err
    assert "--target ARTIFACT is needed" in prune(*start, tmp_path / "other", "--on", "text").errors[0]
    (tmp_path / "pipeline.toml").write_text(
        f'train = "rows.jsonl"\nvalidation = "t.jsonl"\nmodel = "{tiny_model}"\ntests = {{t = "t.jsonl"}}\n'
        'methods = ["bm25", {name = "words", select = "round_robin"}]\nkeep = [6]\nseeds = [0]\n'
    )
    steps = work_of(plan_of(tmp_path / "pipeline.toml", "cpu"), tmp_path / "runs").steps
    options = {step.opts.method: step.opts for step in steps if isinstance(step.opts, Score | Select)}
    assert [options[name].target for name in ("bm25", "round_robin", "top")] == [str(target), str(target), None]
    assert options["round_robin"].on == "text"
