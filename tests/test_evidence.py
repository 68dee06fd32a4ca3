"""Methods against random: which are compared at which budget, what is said of them, and what is warned of."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prune_cli.numeric.inference import differences, holm
from prune_cli.pipeline import evidence
from prune_cli.pipeline.evidence import Trial, Values, _of_benchmark, compare, row_values, told, visible, warned
from tests.conftest import read_rows

N = 400


def runs(means: dict[tuple[str, str], float], seeds: int = 4, metric: str = "accuracy") -> dict[Trial, Values]:
    """Values of rows whose mean is about the one given, different for each seed; random has twice the seeds."""
    rng = np.random.default_rng(0)
    hard = rng.uniform(size=N)
    values: dict[Trial, Values] = {}
    for (method, keep), mean in means.items():
        for seed in range(1 if method == "none" else 2 * seeds if method == "random" else seeds):
            right = hard + rng.normal(0, 0.05, N) < mean + rng.normal(0, 0.01)
            values[method, keep, None if method == "none" else seed] = {("test", metric): right.astype(float)}
    return values


MEANS = {
    ("full", "100%"): 0.9,
    ("none", "0%"): 0.5,
    ("random", "0.1"): 0.6,
    ("random", "0.3"): 0.75,
    ("good", "0.1"): 0.75,
    ("good", "0.3"): 0.76,
    ("bad", "0.1"): 0.3,
    ("alone", "0.5"): 0.9,
}


def test_what_would_have_been_seen_is_possible() -> None:
    """No difference in accuracy is above 1; one in loss may be."""
    assert visible(0.2, "accuracy") == "a difference of 0.200 would have been seen"
    assert visible(1.2, "accuracy").startswith("for most methods no difference would have been seen")
    assert visible(0.0, "exact_match") == "all runs are alike, so nothing is told apart"
    assert visible(1.2, "loss") == "a difference of 1.200 would have been seen"


def test_methods_meet_random_at_their_budget() -> None:
    """Each method against random at its budget; the references at every budget; Holm over the methods alone."""
    values = runs(MEANS)
    found = {(c.method, c.keep): c for c in compare(values)}
    assert set(found) == {
        *(("good", "0.1"), ("good", "0.3"), ("bad", "0.1")),
        *((name, keep) for name in ("full", "none") for keep in ("0.1", "0.3")),
    }
    assert {key: c.verdict for key, c in found.items()} == {
        ("good", "0.1"): "better",
        ("good", "0.3"): "unclear",
        ("bad", "0.1"): "worse",
        ("full", "0.1"): "better",
        ("full", "0.3"): "better",
        ("none", "0.1"): "worse",
        ("none", "0.3"): "worse",
    }
    stacked: dict[tuple[str, str], list[np.ndarray]] = {}
    for (method, keep, _), of_trial in values.items():
        stacked.setdefault((method, keep), []).append(of_trial["test", "accuracy"])
    arrays = {key: np.stack(several) for key, several in stacked.items()}
    alone = {
        key: differences(arrays, ("random", key[1]), fixed=[("none", "0%")])[key]
        for key in (("good", "0.1"), ("bad", "0.1"), ("good", "0.3"))
    }
    adjusted = holm([d.p for d in alone.values() if d is not None])
    for (key, difference), p in zip(alone.items(), adjusted, strict=True):
        assert difference is not None
        assert found[key].p == pytest.approx(p)
        assert found[key].difference.estimate == difference.estimate
        assert found[key].difference.detectable > difference.detectable  # at the level of three comparisons


def test_of_a_loss_less_is_better() -> None:
    """The verdict of a loss is the other way round."""
    found = {(c.method, c.keep): c.verdict for c in compare(runs(MEANS, metric="loss"))}
    assert (found["good", "0.1"], found["bad", "0.1"], found["full", "0.1"]) == ("worse", "better", "worse")


def test_what_is_said() -> None:
    """A sentence a budget: which methods are better, which worse; that none is, where none is."""
    lines = list(told(compare(runs(MEANS))))
    assert lines[0] == "" and lines[1].startswith("Against random")
    assert len(lines) == 4
    assert lines[2].startswith("  test accuracy, keep 0.1: better: good +0.1") and "; worse: bad -0.2" in lines[2]
    assert lines[3].startswith("  test accuracy, keep 0.3: no method is better than random here (a difference of 0.0")
    assert list(told([])) == []
    assert list(told(compare(runs({("full", "100%"): 0.9, ("good", "0.1"): 0.8})))) == []  # no random


def test_what_is_warned_of() -> None:
    """Few seeds; training that is of no use; and a test set without a column."""
    shown = {"test": ["accuracy"]}
    assert list(warned(runs(MEANS), shown, 4)) == []
    useless = runs({("full", "100%"): 0.5, ("none", "0%"): 0.5})
    few, of_no_use = warned(useless, shown, 2)
    assert few == "seeds: 2; with fewer than 3 the table says little of how runs vary"
    assert of_no_use.startswith("test accuracy: all rows are no better to train on than none (")
    [unseen] = warned(runs(MEANS), {"other": []}, 4)
    assert unseen == "other: no metric that all its results have; the table does not show it, results.jsonl has all"


def test_values_of_an_evaluation(made: Path) -> None:
    """Their means are the metrics, but for the bias of macro-F1."""
    metrics = json.loads((made / "metrics/metrics.json").read_text())["test"]
    values = row_values(made / "metrics", "classification")
    assert set(values) == {("test", "accuracy"), ("test", "macro_f1")}
    assert values["test", "accuracy"].mean() == pytest.approx(metrics["accuracy"])
    assert values["test", "macro_f1"].mean() == pytest.approx(metrics["macro_f1"], abs=0.1)
    assert len(values["test", "accuracy"]) == len(read_rows(made / "metrics/predictions.jsonl"))


def losses(method: str, *rows_of: list[float]) -> dict[Trial, Values]:
    return {(method, "0.1", seed): {("near", "loss"): np.array(rows)} for seed, rows in enumerate(rows_of)}


def test_an_infinite_loss_is_not_compared() -> None:
    """A method that diverged is told, and the others are compared as without it; so it is if random did."""
    random, good = losses("random", [1, 2, 3], [2, 2, 1], [3, 1, 2]), losses("less", [0, 1, 3], [0, 2, 1], [1, 0, 2])
    bad = losses("rds", [1, 2, 3], [1, np.inf, 3], [1, np.nan, 2])
    found = compare(random | good | bad)
    assert [c.method for c in found] == ["less"] and found == compare(random | good)
    warnings = list(warned(random | good | bad, {"near": ["loss"]}, 3))
    assert warnings == ["near loss: rds, keep 0.1, has runs in which it is no number; it is not compared"]
    assert compare(good | losses("random", [1, 2, np.inf], [1, 2, 3])) == []
    none = {("none", "0%", None): random["random", "0.1", 0]}
    assert compare(random | none) and list(told(compare(random | none))) == []  # no method to speak of


def test_tasks_of_a_group_may_have_other_metrics() -> None:
    """Of a group of lm-eval's tasks what every document has a number for is compared, in the order it comes in."""
    document = {"task": "a", "id": 0, "filter": "none", "reference": 1, "prediction": 1}
    own = [{**document, "f1": 0.5, "acc": 1.0}, {**document, "task": "b", "mcc": 0.1, "acc": 0.0}]
    assert {name: array.tolist() for name, array in _of_benchmark(own).items()} == {"acc": [1.0, 0.0]}


def test_removal_is_compared_with_removing_random_rows() -> None:
    """What is left without a method's picks meets what is left without random ones; a family of its own for Holm."""
    left = {("without random", "0.1"): 0.8, ("without good", "0.1"): 0.7, ("without bad", "0.1"): 0.95}
    both, alone = compare(runs({**MEANS, **left})), compare(runs(MEANS))
    found = {(c.method, c.keep): c for c in both}
    assert found.keys() == {(c.method, c.keep) for c in alone} | {("without good", "0.1"), ("without bad", "0.1")}
    assert found["without good", "0.1"].verdict == "worse" and found["without bad", "0.1"].verdict == "better"
    assert found["without good", "0.1"].difference.estimate == pytest.approx(-0.1, abs=0.05)
    removed = [c for c in both if c.method in ("without good", "without bad")]
    assert [c.p for c in removed] == pytest.approx(holm([c.difference.p for c in removed]))
    kept = [c for c in both if c.method in ("good", "bad")]
    assert [c.p for c in kept] == pytest.approx(holm([c.difference.p for c in kept]))
    lines = list(told(both))
    assert len(lines) == 7 and lines[5].startswith("Without a method's picks against without as many random rows")
    assert lines[6].startswith("  test accuracy, without 0.1: missed more: good -0.")
    assert "; missed less: bad +0." in lines[6]
    same = {("without random", "0.1"): 0.8, ("without good", "0.1"): 0.8}
    assert "no method's picks are missed more than random rows here (a" in list(told(compare(runs(same))))[-1]


def test_of_what_was_cut_the_most_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of each test set, and of the training that lost the largest share; nothing where nothing was."""
    cut = {
        "a/eval": {"near": 2, "far": 0},
        "a/finetune": {"rows": 0},
        "b/eval": {"near": 3, "far": 0},
        "b/finetune": {"rows": 4},
        "c/eval": {"near": 1, "far": 0},
        "c/finetune": {"rows": 2},
        "untrained/eval": {"far": 0},
    }

    def of(path: Path) -> Any:
        facts = {name: {"rows": n, "of": 10, "max_length": 8} for name, n in cut[str(path)].items()}
        return SimpleNamespace(about={"cut": facts})

    monkeypatch.setattr(evidence, "open_artifact", of)
    monkeypatch.setattr(evidence, "is_artifact", lambda path: str(path) in cut)
    judged = [Path(name) for name in cut if name.endswith("eval")]
    assert list(evidence.cuts(judged)) == [
        "test set near: 3 of 10 rows were cut to 8 tokens",
        "training rows: 4 of 10 rows were cut to 8 tokens; some were in 2 of 3 trainings",
    ]
    assert list(evidence.cuts(judged[-1:])) == []
