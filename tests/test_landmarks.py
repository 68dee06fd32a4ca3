"""Influence computed of some rows and estimated of the others: against scikit-learn, refits, and all rows computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.kernel_ridge import KernelRidge

from prune_cli.artifacts import tensors
from prune_cli.numeric import kernel_ridge
from prune_cli.represent import kinds, landmarks
from prune_cli.represent.walk import walk
from tests.conftest import Prune, sentences, write_rows
from tests.test_processes import finish, start
from tests.test_resume import digests


def units(n: int, d: int, seed: int) -> np.ndarray:
    """Vectors of length one."""
    drawn = np.random.default_rng(seed).normal(size=(n, d))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def theirs(ridge: float) -> Any:
    """Scikit-learn's fit by the same kernel."""
    return KernelRidge(alpha=ridge, kernel="polynomial", degree=1, gamma=1, coef0=1)


def predicted(fit: kernel_ridge.Fit, features: np.ndarray) -> np.ndarray:
    """All rows' predictions, put together."""
    return np.concatenate([block for _, block in fit.predicted(features)])


def test_a_fit_is_that_of_scikit_learn() -> None:
    """Predictions are those of its KernelRidge with the ridge that was chosen; the length of a vector has no say."""
    known, others = units(30, 40, 0), units(50, 40, 1)
    values = np.random.default_rng(2).normal(size=(30, 3))
    fit = kernel_ridge.fit(known, values)
    true = theirs(fit.ridge).fit(known, values).predict(others)
    assert np.allclose(predicted(fit, others), true, atol=1e-9)
    assert np.allclose(predicted(kernel_ridge.fit(7 * known, values), 0.2 * others), true, atol=1e-9)


def test_left_out_is_a_fit_without_the_row() -> None:
    """The errors of rows left out are those of refits without each; the ridge is the one of the grid with the least."""
    rows = units(25, 6, 0)
    values = rows @ np.random.default_rng(1).normal(size=(6, 2)) * [1, 100]
    values += np.random.default_rng(2).normal(size=(25, 2)) * [0.05, 300]  # one column is told by the rows, one is not
    fit = kernel_ridge.fit(rows, values)

    def left_out(ridge: float) -> np.ndarray:
        rest = [np.arange(25) != i for i in range(25)]
        return np.array([theirs(ridge).fit(rows[r], values[r]).predict(rows[~r])[0] for r in rest])

    assert np.allclose(fit.left_out, left_out(fit.ridge), atol=1e-8)
    mean = np.linalg.eigvalsh(rows @ rows.T + 1).mean()
    errors = {r: ((left_out(r) - values) ** 2 / values.var(axis=0)).sum() for r in mean * kernel_ridge.GRID}
    assert fit.ridge == pytest.approx(min(errors, key=errors.__getitem__))


def test_a_linear_function_is_found() -> None:
    """Of values linear in the vectors, with an intercept, as many rows as numbers tell all others."""
    known, others, slope = units(40, 8, 0), units(200, 8, 1), np.random.default_rng(2).normal(size=(8, 2))
    fit = kernel_ridge.fit(known, known @ slope + [5, -3])
    assert np.allclose(predicted(fit, others), others @ slope + [5, -3], atol=1e-3)
    assert kernel_ridge.explained(known @ slope, fit.left_out - [5, -3]) > 0.9999


def test_values_that_do_not_vary_are_kept() -> None:
    """A column of one value is predicted as that value, about; R² and the correlation are of the others, or none."""
    known = units(20, 4, 0)
    fit = kernel_ridge.fit(known, np.column_stack([np.full(20, 2.0), known[:, 0]]))
    assert np.allclose(predicted(fit, units(9, 4, 1))[:, 0], 2, atol=1e-2)
    same = np.ones((5, 1))
    assert np.isnan(kernel_ridge.explained(same, same))
    assert np.isnan(kernel_ridge.agreement(same, same))


def test_how_good_predictions_are() -> None:
    """R² and Spearman's correlation, each the mean over the columns."""
    draw = np.random.default_rng(0)
    true, told = draw.normal(size=(2, 12, 2))
    shares = [1 - ((true[:, j] - told[:, j]) ** 2).sum() / true[:, j].var() / 12 for j in range(2)]
    assert kernel_ridge.explained(true, told) == pytest.approx(np.mean(shares))
    found = [spearmanr(true[:, j], told[:, j]).statistic for j in range(2)]
    assert kernel_ridge.agreement(true, told) == pytest.approx(np.mean(found))


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six target rows of two groups."""
    rows = [{**row, "group": "ab"[i % 2]} for i, row in enumerate(sentences(6, 500))]
    return write_rows(tmp_path_factory.mktemp("aim") / "target.jsonl", rows)


def command(made: Path, data: Path, target: Path, out: Path, *more: object) -> list[object]:
    """Represent the rows by their influence."""
    common = ["--model", made / "warmup", "--kind", "influence", "--target-data", target, "--batch-size", 5]
    return ["represent", data / "train.jsonl", "-o", out, *common, *more]


@pytest.fixture(scope="module")
def every(made: Path, data: Path, target: Path, tmp_path_factory: pytest.TempPathFactory, prune: Prune) -> np.ndarray:
    """The influence [24, 2, 2], computed of every row."""
    out = tmp_path_factory.mktemp("every") / "out"
    ran = prune(*command(made, data, target, out))
    assert ran.code == 0, ran.err
    stored = tensors.load(out / "influence.safetensors")
    assert (stored["exact"] == 1).all()
    assert "landmarks" not in json.loads((out / "manifest.json").read_text())["about"]
    return stored["influence"]


def test_landmarks_are_exact_and_others_estimated(
    every: np.ndarray, made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """Computed values stand at the landmarks, elsewhere what scikit-learn predicts from the last block's gradients."""
    out = tmp_path / "out"
    ran = prune(*command(made, data, target, out, "--landmarks", 10, "--seed", 3))
    assert ran.code == 0, ran.err
    stored = tensors.load(out / "influence.safetensors")
    facts = json.loads((out / "manifest.json").read_text())["about"]["landmarks"]["influence"]
    assert stored["influence"].shape == every.shape
    some = stored["exact"][:, 0] == 1
    assert (some.sum(), (stored["exact"] == some[:, None]).all()) == (10, True)
    assert np.allclose(stored["influence"][some], every[some], rtol=1e-4, atol=1e-6)
    cheap = ["--kind", "gradient", "--params", "last:1", "--dim", 1024, "--norms", "sketched"]
    assert prune(*command(made, data, target, tmp_path / "cheap")[:6], *cheap, "-o", tmp_path / "cheap").code == 0
    vectors = tensors.load(tmp_path / "cheap/gradient.safetensors")["gradient"].astype(np.float64)
    vectors /= np.linalg.norm(vectors, axis=2, keepdims=True)
    assert facts["rows"] == 10
    for c, told in enumerate(facts["checkpoints"]):
        fit = theirs(told["ridge"]).fit(vectors[some, c], every[some, c])
        assert np.allclose(stored["influence"][~some, c], fit.predict(vectors[~some, c]), rtol=1e-3, atol=1e-4)
        again = kernel_ridge.fit(vectors[some, c], every[some, c].astype(np.float64))
        assert told["r2"] == pytest.approx(kernel_ridge.explained(every[some, c], again.left_out), abs=1e-3)
    lowest = min(told["spearman"] for told in facts["checkpoints"])
    assert "computed of 10 rows, estimated of 14; Spearman's correlation of the computed values with" in ran.err
    half = 1.959964 * ((1 + lowest**2 / 2) / 7) ** 0.5  # of Fisher's z, 10 rows
    low, high = np.tanh(np.arctanh(lowest) - half), np.tanh(np.arctanh(lowest) + half)
    assert f"left out in turn: {lowest:.2f} [{low:.2f}, {high:.2f}]" in ran.err
    assert "up to date" in prune(*command(made, data, target, out, "--landmarks", 10, "--seed", 3)).err
    assert "options.landmarks 10 -> 11" in prune(*command(made, data, target, out, "--landmarks", 11)).errors[0]
    ran = prune("score", out, "-o", tmp_path / "score", "--method", "less")
    assert ran.code == 0, ran.err
    assert "influence: of 14 rows, from 10 that were computed; Spearman's" in prune("show", out).out


def test_a_seed_has_a_say_only_with_landmarks(
    made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """Without them another seed is up to date, and with them it draws others."""
    alone, drawn = (command(made, data, target, tmp_path / name) for name in ("alone", "drawn"))
    assert prune(*alone, "--seed", 1).code == 0
    assert "up to date" in prune(*alone, "--seed", 2).err
    assert prune(*drawn, "--landmarks", 12, "--seed", 1).code == 0
    assert "options.seed 1 -> 2" in prune(*drawn, "--landmarks", 12, "--seed", 2).errors[0]


def test_a_model_without_blocks(
    made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is told is about landmarks, not about `--params`, which the first pass chose itself."""
    monkeypatch.setattr("prune_cli.gradients.params.nn.ModuleList", tuple)
    (error,) = prune(*command(made, data, target, tmp_path / "out", "--landmarks", 4)).errors
    assert error.startswith("landmarks: 4; rows are compared by gradients of the last transformer block and the head")
    assert not (tmp_path / "out.part").exists()


PLAN = """
train = "{data}/train.jsonl"
validation = "{target}"
model = "{model}"
methods = [{method}]
keep = [0.5]
seeds = [0]
tests = {{test = "{data}/test.jsonl"}}
"""
SCORED = '{{name = "few", representation = "influence", score = "less", select = "top", represent_options = {{{}}}}}'


def test_a_pipeline_with_landmarks(tiny_model: Path, data: Path, target: Path, tmp_path: Path, prune: Prune) -> None:
    """More landmarks than rows, and a method that compares with the target set again, are told before anything runs."""
    file, names = tmp_path / "plan.toml", {"data": data, "target": target, "model": tiny_model}
    file.write_text(PLAN.format(method=SCORED.format("landmarks = 25"), **names))
    told = "represent_options.landmarks: 25; there are 24 rows to train on; allowed: at most as many"
    assert prune("pipeline", file, "-o", tmp_path / "run").errors == [f"{file}: methods: few: {told}"]
    file.write_text(PLAN.format(method='{name = "x", representation = "influence", select = "tsds"}', **names))
    (error,) = prune("pipeline", file, "-o", tmp_path / "run").errors
    assert "tsds: compares rows with target rows, and influence compares them already" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_landmarks_are_rehearsed(tiny_model: Path, target: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """A rehearsal on few rows has the share of landmarks that the run has."""
    write_rows(tmp_path / "train.jsonl", sentences(200))
    (tmp_path / "test.jsonl").write_text((data / "test.jsonl").read_text())
    names = {"data": tmp_path, "target": target, "model": tiny_model}
    (tmp_path / "plan.toml").write_text(PLAN.format(method=SCORED.format("landmarks = 150"), **names))
    told = prune("estimate", tmp_path / "plan.toml", "-o", tmp_path / "run", "--seconds", 1)
    assert "landmarks-150 influence" in told.out and "not measured" not in told.out


def test_computed_values_are_kept_where_no_fit_gives_them(tmp_path: Path) -> None:
    """Of values that the vectors cannot tell, the landmarks' own stand in the file to the last bit."""
    draw, about = np.random.default_rng(0), {"checkpoints": ["1", "2"], "learning_rate": [1.0, 1.0]}
    cheap, known = draw.normal(size=(40, 2, 3)).astype("f2"), draw.normal(size=(20, 2, 2)).astype("f4")
    (tmp_path / ".landmarks").mkdir()
    tensors.save(tmp_path / ".cheap.safetensors", {"gradient": cheap}, about)
    tensors.save(tmp_path / ".landmarks/influence.safetensors", {"influence": known}, about)
    landmarks.Landmarks(tmp_path, kinds.load("influence"), 20, 5).write(tmp_path / "out")
    stored, chosen = tensors.load(tmp_path / "out"), landmarks.drawn(40, 20, 5)
    assert np.array_equal(stored["influence"][chosen], known)
    assert np.array_equal(np.flatnonzero(stored["exact"][:, 1]), chosen)
    rest = np.setdiff1d(np.arange(40), chosen)
    for c in range(2):
        fit = kernel_ridge.fit(cheap[chosen, c], known[:, c].astype(np.float64))
        assert np.allclose(stored["influence"][rest, c], predicted(fit, cheap[rest, c]), atol=1e-6)


def test_as_many_landmarks_as_rows_are_all_rows(
    every: np.ndarray, made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """With a landmark for each row nothing is estimated; more are refused."""
    ran = prune(*command(made, data, target, tmp_path / "out", "--landmarks", 24))
    assert ran.code == 0, ran.err
    stored = tensors.load(tmp_path / "out/influence.safetensors")
    assert (stored["exact"] == 1).all()
    assert np.allclose(stored["influence"], every, rtol=1e-4, atol=1e-6)
    ran = prune(*command(made, data, target, tmp_path / "more", "--landmarks", 25))
    assert ran.errors == [f"landmarks: 25; {data / 'train.jsonl'} has 24 rows; allowed: at most as many"]
    assert not (tmp_path / "more.part").exists()


def test_other_kinds_and_target_rows_beside_landmarks(
    made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """Other kinds are of every row, as without landmarks; by row, each target row is estimated by itself."""
    options = ["--kind", "hidden,influence,dynamics", "--by", "row", "--landmarks", 12]
    ran = prune(*command(made, data, target, tmp_path / "out", *options))
    assert ran.code == 0, ran.err
    for kind in ("hidden", "dynamics"):
        one, other = (tensors.load(folder / f"{kind}.safetensors") for folder in (tmp_path / "out", made / "train"))
        for name in one:
            assert np.allclose(one[name], other[name], rtol=1e-3, atol=2e-3), name
    assert tensors.load(tmp_path / "out/influence.safetensors")["influence"].shape == (24, 2, 6)
    assert sorted(path.name for path in (tmp_path / "out").iterdir() if path.name[0] == ".") == []


def test_the_second_pass_has_all_parameters(
    made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first pass takes gradients of the last block alone, the second of what `--params` says: all."""
    trained = []

    def watched(folder: Path, observed: Any, setup: Any, **options: Any) -> None:
        trained.append([parameter.requires_grad for parameter in setup.model.parameters()])
        walk(folder, observed, setup, **options)

    monkeypatch.setattr(landmarks, "walk", watched)
    assert prune(*command(made, data, target, tmp_path / "out", "--landmarks", 4)).code == 0
    assert [all(parameters) for parameters in trained] == [False, True]


@pytest.mark.parametrize("at", ["first", "second", "estimates"])
def test_stopped_and_run_again(
    at: str, made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after either pass or at the estimates, the same command ends with an uninterrupted run's bytes."""
    whole, out = (command(made, data, target, tmp_path / name, "--landmarks", 10) for name in ("whole", "out"))
    assert prune(*whole).code == 0
    walked = []

    def stopped(folder: Path, *arguments: Any, **options: Any) -> None:
        walk(folder, *arguments, **options)
        walked.append(folder)
        if len(walked) == ["first", "second"].index(at) + 1:
            raise KeyboardInterrupt

    def fails(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if at == "estimates":
            patch.setattr(kernel_ridge, "fit", fails)
        else:
            patch.setattr(landmarks, "walk", stopped)
        assert prune(*out).code == 130
    assert not (tmp_path / "out").exists()
    ran = prune(*out)
    assert ran.code == 0, ran.err
    assert "going on from" in ran.err
    assert digests(tmp_path / "out") == digests(tmp_path / "whole")


@pytest.mark.slow
def test_two_processes_make_what_one_makes(made: Path, target: Path, tmp_path: Path, prune: Prune) -> None:
    """Two processes share both passes; the bytes are those of one."""
    write_rows(tmp_path / "train.jsonl", sentences(200))
    one, two = (command(made, tmp_path, target, tmp_path / name, "--landmarks", 60) for name in ("one", "two"))
    assert prune(*one).code == 0
    code, printed, err = finish(start(*two))
    assert (code, printed) == (0, f"{tmp_path / 'two'}\n"), err
    assert digests(tmp_path / "two") == digests(tmp_path / "one")
