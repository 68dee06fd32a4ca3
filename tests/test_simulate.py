"""The simulation: points, model and gradients against closed forms, the overlaps of the paper, and the command."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import prune_cli
from prune_cli import options
from prune_cli.artifacts.jsonl import write_jsonl
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.methods.published import PublishedMethod, find_published, published
from prune_cli.simulation import experiment, logistic, settings
from prune_cli.simulation.arguments import represent
from prune_cli.simulation.points import SIZES, Points, draw
from tests.conftest import Prune, read_rows
from tests.test_layout import HEAVY, modules_reached

BASE = settings.base(options.Simulate())
QUICK = ["--seeds", 2, "--methods", "hard-to-learn,prototypicality"]


def drawn(seed: int = 0, *, noise: float = 0.0, imbalance: float = 1.0, clusters: int = 2) -> dict[str, Points]:
    return draw(np.random.default_rng(seed), noise=noise, imbalance=imbalance, clusters=clusters)


def of_the_notebook() -> dict[str, Points]:
    """The points of the authors' notebook: scikit-learn's, with its seed."""
    from sklearn.datasets import make_classification
    from sklearn.model_selection import train_test_split

    x, y = make_classification(
        n_samples=1000, n_features=2, n_informative=2, n_redundant=0, n_clusters_per_class=2, random_state=42
    )
    x, rest_x, y, rest_y = train_test_split(x, 2 * y - 1, test_size=0.4, random_state=42)
    validation, test, validation_y, test_y = train_test_split(rest_x, rest_y, test_size=0.5, random_state=42)
    parts = {"train": (x, y), "validation": (validation, validation_y), "test": (test, test_y)}
    none = np.zeros(600, np.int64)
    return {name: Points(x, y, none[: len(y)], none[: len(y)] > 0) for name, (x, y) in parts.items()}


def overlap(trial: experiment.Trial, one: str, other: str) -> float:
    return len(set(trial.kept[one].tolist()) & set(trial.kept[other].tolist())) / len(trial.kept[one])


def test_the_points_are_as_many_as_asked_for() -> None:
    """Each split has its size, its ratio of classes and equal clusters; the share of flipped labels is exact."""
    points = drawn(noise=0.1, imbalance=3, clusters=3)
    assert {name: len(split.y) for name, split in points.items()} == SIZES
    train = points["train"]
    true = np.where(train.flipped, -train.y, train.y)
    assert [(true == 1).sum(), (points["validation"].y == 1).sum(), (points["test"].y == 1).sum()] == [450, 150, 100]
    assert [np.bincount(train.cluster[true == label]).tolist() for label in (-1, 1)] == [[50] * 3, [150] * 3]
    assert train.flipped.sum() == 60
    assert not points["validation"].flipped.any() and not points["test"].flipped.any()


def test_the_clusters_are_around_their_centres() -> None:
    """The mean of a cluster over draws is its centre: x₁ is the class, x₂ is −2, 0 or 2."""
    train = [drawn(seed, clusters=3)["train"] for seed in range(40)]
    for label in (-1, 1):
        for cluster in range(3):
            x = np.concatenate([p.x[(p.y == label) & (p.cluster == cluster)] for p in train])
            assert np.abs(x.mean(axis=0) - [label, 2 * cluster - 2]).max() < 5 / np.sqrt(len(x)) * x.std()


def test_training_ends_where_scikit_learns_does() -> None:
    """Two models at once, each to the weights of a logistic regression without penalty; and as when one at a time."""
    from sklearn.linear_model import LogisticRegression

    both = [drawn(seed, imbalance=2)["train"] for seed in (0, 1)]
    path = logistic.train(np.stack([p.x for p in both]), np.stack([p.y for p in both]), epochs=1000)
    for points, weights in zip(both, path[:, -1], strict=True):
        peer = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(points.x, points.y)
        np.testing.assert_allclose(weights, [*peer.coef_[0], *peer.intercept_], rtol=1e-5)
    alone = logistic.train(both[1].x[None], both[1].y[None])
    np.testing.assert_allclose(alone[0], path[1, : logistic.EPOCHS], rtol=1e-9)


def test_the_gradient_is_that_of_log_p() -> None:
    """x·y·(1 − p) is the derivative of log p by w, found by differences."""
    points, weights, step = drawn()["test"], np.array([0.7, -0.4, 0.2]), 1e-5

    def logprob(moved: np.ndarray) -> np.ndarray:
        return np.log(1 / (1 + np.exp(-points.y * (points.x @ moved[:2] + moved[2]))))

    numeric = [(logprob(weights + step * e) - logprob(weights - step * e)) / (2 * step) for e in np.eye(3)[:2]]
    np.testing.assert_allclose(logistic.gradients(points.x, points.y, weights), np.stack(numeric, axis=1), atol=1e-8)


def test_the_dynamics_are_what_their_names_say() -> None:
    """Each tensor from the two class probabilities of each point after each epoch."""
    points = drawn()["test"]
    path = logistic.train(points.x[None], points.y[None])[0]
    positive = 1 / (1 + np.exp(-(points.x @ path[:, :2].T + path[:, 2])))  # [n, e]
    gold = np.where(points.y[:, None] == 1, positive, 1 - positive)
    both, onehot = np.stack([gold, 1 - gold], axis=-1), np.array([1.0, 0.0])
    tensors = represent(points, path)
    expected = {
        "logprob": np.log(gold),
        "correct": gold > 0.5,
        "margin": np.log(gold / (1 - gold)),
        "improbability": 1 - gold,
        "el2n": np.linalg.norm(both - onehot, axis=-1),
        "entropy": -(both * np.log(both)).sum(axis=-1),
        "upd": 1 / (1 + gold) * (1 + (both * np.log2(both)).sum(axis=-1)),  # σ(−log p) = 1 / (1 + p)
    }
    for name, values in expected.items():
        np.testing.assert_allclose(tensors[name], values, atol=1e-9)
    assert tensors["hidden"].shape == tensors["gradient"].shape == (200, 1, 2)


def test_methods_keep_what_their_formulas_say() -> None:
    """Hard to learn by its formula, and the three of LESS by those of the authors' notebook, sorted by hand."""
    names = ["hard-to-learn", "less-dynamics", "less-hidden", "less"]
    points = drawn()
    trial = experiment.trial(points, [find_published(name) for name in names], BASE, 0)
    train, target = points["train"], points["validation"]
    path = logistic.train(train.x[None], train.y[None])[0]
    losses, target_losses = (-represent(p, path)["logprob"] for p in (train, target))
    gradients, target_gradients = (logistic.gradients(p.x, p.y, path[-1]) for p in (train, target))
    scores = {
        "hard-to-learn": -np.exp(-losses).mean(axis=1),
        "less-dynamics": losses @ target_losses.mean(axis=0),
        "less-hidden": train.x @ target.x.mean(axis=0),
        "less": gradients @ target_gradients.mean(axis=0),
    }
    for name, score in scores.items():
        assert set(trial.kept[name].tolist()) == set(np.argsort(score)[-180:].tolist()), name


def test_the_overlaps_of_the_notebook() -> None:
    """On the notebook's points, which have .84 and .06 there: gradients far above chance, .30, inputs far below."""
    methods = [find_published(name) for name in ("hard-to-learn", "proto-gradient", "prototypicality")]
    trial = experiment.trial(of_the_notebook(), methods, BASE, 0)
    assert overlap(trial, "hard-to-learn", "proto-gradient") == pytest.approx(0.79, abs=0.02)
    assert overlap(trial, "hard-to-learn", "prototypicality") == pytest.approx(0.06, abs=0.02)


def test_the_overlaps_of_other_draws() -> None:
    """Of ten draws of ours the same; and a random draw shares what is expected, the share that is kept."""
    methods = settings.methods(options.Simulate(methods="hard-to-learn,proto-gradient,prototypicality"))
    methods.append(replace(find_published("random"), name="random again"))
    lines = experiment.overlaps(experiment.run(BASE, methods, range(10), lambda more: None))
    found = {(line["method"], line["other"]): line["overlap"] for line in lines}
    assert found["hard-to-learn", "proto-gradient"] > 0.7
    assert found["hard-to-learn", "prototypicality"] < 0.25
    error = np.sqrt(0.3 * 0.7 / 180 * (420 / 599) / 10)  # of a hypergeometric mean
    for name in ("hard-to-learn", "proto-gradient", "prototypicality", "random again"):
        assert found["random", name] == pytest.approx(0.3, abs=4 * error)


def test_every_method_that_suits_runs() -> None:
    """Of all published methods those that need no pretrained model, no text, no Adam and a budget."""
    suited = [method for method in published().values() if settings.suits(method)]
    assert {"random", "el2n", "memorization", "influential", *settings.PAPER} <= {method.name for method in suited}
    assert not {"full", "none", "longest", "rds", "ifd", "less-exact", "less-adam"} & {m.name for m in suited}
    trial = experiment.trial(drawn(noise=0.1), suited, BASE, 0)
    assert all(len(set(kept.tolist())) == 180 for kept in trial.kept.values())


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    """Results are the same byte for byte, whatever other seeds and methods ran beside; other seeds give others."""
    both, one = [find_published("random"), find_published("s2l-hidden")], [find_published("s2l-hidden")]

    def written(methods: list[PublishedMethod], seeds: list[int]) -> list[bytes]:
        lines = experiment.results(BASE, experiment.run(BASE, methods, seeds, lambda more: None))
        write_jsonl(tmp_path / "results.jsonl", [line for line in lines if line["method"] == "s2l-hidden"])
        return (tmp_path / "results.jsonl").read_bytes().splitlines()

    first = written(both, [3, 4])
    assert written(both, [3, 4]) == first
    assert written(one, [4]) == first[1:]
    assert written(one, [5]) != first[1:]


def test_the_command(tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files, table and JSON; up to date it loads nothing heavy, and the function finds it so too."""
    monkeypatch.chdir(tmp_path)
    command = ["simulate", "-o", "out", *QUICK, "--noise", 0.1, "--sweep", "noise=0.2,0"]
    ran = prune(*command)
    assert (ran.code, ran.out) == (0, "out\n")
    assert [line.split()[0] for line in ran.err.splitlines()[1:]] == [
        *("method", "full", "random", "hard-to-learn", "prototypicality")
    ]
    assert ran.err.splitlines()[1].split() == ["method", "noise", "0", "noise", "0.1", "noise", "0.2"]
    made = open_artifact(Path("out"))
    assert set(made.files) == {
        *("points.jsonl", "results.jsonl", "summary.jsonl", "overlap.jsonl"),
        *("selections.png", "overlap.png", "sweep.png"),
    }
    lines = read_rows(made.file("results.jsonl"))
    assert len(lines) == 3 * 2 * 4
    points = read_rows(made.file("points.jsonl"))
    first = next(line for line in lines if line["noise"] == 0.1 and line["method"] == "hard-to-learn")
    kept = [point for point in points if "hard-to-learn" in point["kept"]]
    assert (len(kept), sum(point["flipped"] for point in kept)) == (first["rows"], first["flipped"])
    assert len(points) == 1000 and sum(point["flipped"] for point in points) == 60
    again = prune(*command, "--json").json()
    assert (again["state"], again["swept"]) == ("current", "noise")
    mean = next(line for line in again["summary"] if (line["noise"], line["method"]) == (0.2, "random"))
    own = [line["accuracy"] for line in lines if (line["noise"], line["method"]) == (0.2, "random")]
    assert mean["accuracy"] == pytest.approx(np.mean(own))
    assert mean["accuracy_sd"] == pytest.approx(np.std(own, ddof=1))
    assert not HEAVY & modules_reached(tmp_path, *command)
    same = prune_cli.simulate("out", methods=QUICK[-1], seeds=2, noise=0.1, sweep="noise=0.2,0")
    assert (same.manifest, same.about["kept"]) == (made.manifest, 180)
    assert prune(*command, "--keep", 0.5).errors == [
        "out: holds another artifact: options.keep 180 -> 300",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--sweep", "noise"], ["sweep: noise; allowed: noise, imbalance, clusters, keep, then = and values"]),
        (["--sweep", "seeds=1"], ["sweep: seeds=1; allowed: noise, imbalance, clusters, keep, then ="]),
        (["--sweep", "noise=1,x"], ["sweep: noise: 1; allowed: a number, 0", "sweep: noise: x; allowed: a number, 0"]),
        (["--sweep", "keep=601"], ["sweep: keep: 601; allowed: a number of rows from 1 to 600"]),
        (["--noise", "0.9"], ["noise: 0.9; allowed: a number, 0 or more, at most 0.5"]),
        (["--methods", "ifd"], ["methods: ifd; allowed with simulate: random, hard-to-learn"]),
        (["--methods", "random"], ["methods: random; allowed: at least one beside random"]),
        (["--methods", "nothing"], ["method: nothing; allowed: "]),
    ],
)
def test_wrong_options(given: list[str], told: list[str], tmp_path: Path, prune: Prune) -> None:
    """A wrong option is told in one line, and nothing is made."""
    ran = prune("simulate", "-o", tmp_path / "out", *given)
    assert ran.code == 1 and not list(tmp_path.iterdir())
    assert len(ran.errors) == len(told)
    assert all(error.startswith(start) for error, start in zip(ran.errors, told, strict=True)), ran.errors
