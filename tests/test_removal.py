"""Trials without a method's picks, and halves that scores are held against: their steps, their rows, what is said."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.errors import PruneError
from prune_cli.pipeline import results
from prune_cli.pipeline.checks import read_plan
from prune_cli.pipeline.spare import best_trial
from prune_cli.pipeline.steps import work_of
from tests.conftest import Prune, read_rows

FILE = """
train = "{data}/train.jsonl"
validation = "{data}/validation.jsonl"
model = "{model}"
methods = ["full", "random", "less", "s2l"]
keep = [6]
seeds = [0]
random_seeds = 2
removal = true
lds = 10
keep_models = "none"

[tests]
test = "{data}/test.jsonl"

[warmup]
epochs = 1

[represent]
dim = 16

[finetune]
steps = 1

[eval]
batch_size = 16
"""


@pytest.fixture
def file(tmp_path: Path, data: Path, tiny_model: Path) -> Path:
    """A pipeline file with removal and halves."""
    path = tmp_path / "pipeline.toml"
    path.write_text(FILE.format(data=data, model=tiny_model))
    return path


def test_the_steps(file: Path, tmp_path: Path) -> None:
    """Each method but full is trained without its picks too; halves are shared by all scores."""
    work = work_of(read_plan(file), tmp_path / "runs")
    trials = {(method, seed) for method, _, seed in work.trials}
    methods = {("random", 0), ("random", 1), ("less", 0), ("s2l", 0)}
    assert trials == {("full", 0), *methods, *((f"without {method}", seed) for method, seed in methods)}
    assert len(work.halves) == 10 and list(work.scores) == ["less"]
    by_label = {step.label: step for step in work.steps}
    less = by_label["select without less keep 6"]
    assert less.needs == (tmp_path / "runs/methods/less/keep-6/select",)
    assert work.name(less) == "without/less/keep-6/select"
    assert work.name(by_label["select without s2l keep 6 seed 0"]) == "without/s2l/keep-6/seed-0/select"
    assert by_label["eval half 3"].given[1].keys() == {"target set", "test"}
    assert by_label["select half 3"].opts.seed == 3 and by_label["finetune half 3"].opts.seed == 0


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("lds = 10", "lds = 9", "lds: 9; allowed: 0, or 10 up to 1000"),
        ("removal = true", 'removal = "yes"', "removal: yes; allowed: false, true"),
        ("keep = [6]", "keep = [24]", "removal: keep 24 is all rows, so that none is left to train on"),
        ('"less", ', "", "lds: 10; no method has a score that says what helps the target set, as less has"),
    ],
)
def test_they_are_checked_with_the_file(old: str, new: str, told: str, file: Path) -> None:
    """Too few halves; nothing left; no score to judge."""
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(PruneError) as raised:
        read_plan(file)
    assert f"{file}: {told}" in (raised.value.message, *raised.value.also)


@pytest.mark.slow  # trains nineteen models
def test_a_run(file: Path, tmp_path: Path, prune: Prune) -> None:
    """Removal leaves all other rows; what is told stands in the files; models go; a rerun makes nothing."""
    runs = tmp_path / "runs"
    done = prune("pipeline", file, "-o", runs, "--json")
    assert done.code == 0, done.err
    facts = done.json()
    assert [line["method"] for line in facts["results"]] == ["full", "random", "random", "less", "s2l"]
    lines = {(line["method"], line["seed"]): line for line in facts["without"]}
    assert {line["kept"] for line in lines.values()} == {18} and len(lines) == 4
    assert read_rows(runs / "results.jsonl") == [*facts["results"], *facts["without"]]
    picked = {line["id"] for line in read_rows(runs / "methods/less/keep-6/select/why.jsonl") if line["kept"]}
    left = {line["id"] for line in read_rows(runs / "without/less/keep-6/select/why.jsonl") if line["kept"]}
    assert len(picked) == 6 and len(left) == 18 and not picked & left
    assert (
        open_artifact(runs / "without/less/keep-6/seed-0/finetune").inputs["rows"]
        == (open_artifact(runs / "without/less/keep-6/select").about["digest"])
    )

    scores = [line["score"] for line in read_rows(runs / "score/less/score.jsonl")]
    sums, losses = [], []
    for j in range(10):
        kept = [line["kept"] for line in read_rows(runs / f"lds/half-{j}/select/why.jsonl")]
        assert sum(kept) == 12
        sums.append(np.array(scores)[kept].sum())
        metrics = json.loads((runs / f"lds/half-{j}/eval/metrics.json").read_text())
        losses.append([metrics[test]["loss"] for test in ("target set", "test")])
    assert facts["lds"] == read_rows(runs / "lds.jsonl")
    for found, measured in zip(facts["lds"], np.transpose(losses), strict=True):
        assert found["lds"] == pytest.approx(spearmanr(sums, -measured).statistic)
    assert not list(runs.glob("lds/**/model.safetensors")) and not list(runs.glob("without/**/model.safetensors"))

    again = prune("pipeline", file, "-o", runs)
    assert "nothing to do" in again.err, again.err
    assert again.out == prune("show", runs).out and "\nwithout less    6     18 " in again.out
    assert "models trained on 10 random halves" in again.out
    best = best_trial(results.read(runs))
    assert best is not None and not best[0].startswith("without")
    reported = prune("report", runs, "-o", tmp_path / "page")
    assert reported.code == 0, reported.err
    file.write_text(file.read_text().replace("lds = 10", ""))
    assert prune("pipeline", file, "-o", runs).code == 0 and not (runs / "lds.jsonl").exists()
