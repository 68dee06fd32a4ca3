"""The pipeline: a checked plan, every step once, only what is stale made again."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Prune, read_rows, sentences, write_rows

FILE = """
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = [
    "full",
    "random",
    "less",
    {{recipe = "less", balance = "equal"}},
    {{name = "middling", representation = "hidden", score = "prototypicality", select = "middle", {options}}},
]
keep = [0.5]
seeds = [0, 1]

[tests]
test = "test.jsonl"

[warmup]
epochs = 2
batch_size = 8

[represent]
dim = 64

[finetune]
steps = 2
batch_size = 8
"""


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with data and pipeline.toml."""
    write_rows(tmp_path / "train.jsonl", sentences(24))
    write_rows(tmp_path / "validation.jsonl", sentences(8, start=100))
    write_rows(tmp_path / "test.jsonl", sentences(12, start=200))
    (tmp_path / "pipeline.toml").write_text(FILE.format(model=tiny_model, options="score_options = {k = 3}"))
    return tmp_path


def test_a_run_a_rerun_and_a_change(folder: Path, prune: Prune, tiny_model: Path) -> None:
    """All is made once; a second run makes nothing; a changed option remakes what rests on it and nothing else."""
    command = ["pipeline", folder / "pipeline.toml", "-o", folder / "runs"]

    done = prune(*command)
    assert done.code == 0, done.err
    results = read_rows(folder / "runs" / "results.jsonl")
    assert len(results) == 5 * 2  # methods x seeds, one budget, one test
    assert {line["kept"] for line in results} == {12, 24}
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/*.safetensors")}

    again = prune(*command)
    assert again.code == 0
    assert again.out == done.out
    assert "nothing to do" in again.err
    assert times == {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/*.safetensors")}

    (folder / "pipeline.toml").write_text(FILE.format(model=tiny_model, options="score_options = {k = 4}"))
    planned = prune(*command, "--dry-run", "--json")
    would = {step["step"] for step in planned.json()["steps"] if step["state"] == "would run"}
    changed = prune(*command, "--json")
    assert changed.code == 0, changed.err
    steps = changed.json()["steps"]
    made = {step["step"] for step in steps if step["state"] == "made"}
    assert made
    assert all("middling" in step for step in made)
    assert made <= would  # a dry run names all that may have to be made again
    score = next(step for step in steps if step["step"] == "score middling seed 0")
    assert score["reason"] == "options.set.k 3 -> 4"


def test_two_runs_from_scratch_are_the_same_bytes(folder: Path, prune: Prune) -> None:
    """On a CPU, selections, predictions and metrics depend on the file alone."""
    for out in ("one", "two"):
        assert prune("pipeline", folder / "pipeline.toml", "-o", folder / out).code == 0
    ones = sorted(
        p for name in ("select.jsonl", "metrics.json", "predictions.jsonl") for p in folder.glob(f"one/**/{name}")
    )
    assert len(ones) == 8 + 10 + 10  # less is not random: one selection for both seeds
    for path in ones:
        assert path.read_bytes() == (folder / "two" / path.relative_to(folder / "one")).read_bytes()


def test_the_table_is_mean_and_deviation_over_seeds(folder: Path, prune: Prune) -> None:
    """Each cell of the table is the mean of the seeds' metrics, ± their sample standard deviation."""
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    results = read_rows(folder / "runs" / "results.jsonl")
    values = [line["accuracy"] for line in results if line["method"] == "random"]
    expected = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    [line] = [line for line in done.out.splitlines() if line.split()[:1] == ["random"]]
    assert expected in " ".join(line.split())


def test_a_new_kind_leaves_the_old_ones_alone(folder: Path, prune: Prune) -> None:
    """A method on another representation has that one made in a pass of its own."""
    text = (folder / "pipeline.toml").read_text()
    command = ["pipeline", folder / "pipeline.toml", "-o", folder / "runs", "--json"]
    assert prune(*command).code == 0
    (folder / "pipeline.toml").write_text(text.replace('"random",', '"random", "hard-to-learn",'))
    steps = {step["step"]: step["state"] for step in prune(*command).json()["steps"]}
    assert steps["represent train dynamics"] == "made"
    assert steps["represent train gradient+hidden"] == "current"
    assert steps["score less"] == "current"


def test_every_mistake_is_told_at_once(folder: Path, prune: Prune) -> None:
    """Unknown keys, wrong types, absent files, wrong methods and budgets: a line each, and nothing is made."""
    text = (folder / "pipeline.toml").read_text()
    for right, wrong in {
        '"random",': '"randum", {recipe = "less", balance = "even"}, {name = "x", select = "kmeans"},',
        "k = 3": "clusters = 3",
        "[0, 1]": "[0, -1]",
        "epochs = 2": "epoch = 2",
        "dim = 64": 'dim = "64"',
        '"test.jsonl"': '"tests.jsonl"',
        "steps = 2": "seed = 2",
    }.items():
        assert right in text
        text = text.replace(right, wrong)
    (folder / "pipeline.toml").write_text(text)
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    assert done.code == 1
    assert done.out == ""
    for part in (
        "randum",
        '"even"',
        "select kmeans needs a representation",
        "no option clusters",
        "seeds: [0, -1]",
        "warmup.epoch: unknown key",
        'represent.dim: "64"',
        "tests.test: tests.jsonl; no such file",
        "finetune.seed: unknown key",
    ):
        assert any(part in line for line in done.errors), part
    assert len(done.errors) == 9
    assert not (folder / "runs").exists()


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        (
            '{name = "x", representation = "dynamics", score = "memorization", select = "top"}',
            "representation gradient",
        ),
        ('{name = "x", representation = "hidden", select = "top"}', "select top needs a score"),
        ('{name = "x", representation = "hidden", score = "random", select = "kmeans"}', "reads no score"),
        ('{name = "less", representation = "hidden", score = "less", select = "top"}', "a published method's"),
        (
            '{name = "x", score = "random", select = "top"}, '
            '{name = "x", score = "random", select = "bottom", balance = "keep"}',
            "two different methods",
        ),
    ],
)
def test_halves_that_do_not_go_together(folder: Path, prune: Prune, method: str, problem: str) -> None:
    """A method whose halves lack what they read, or that takes another's name, is refused before anything runs."""
    text = (folder / "pipeline.toml").read_text()
    (folder / "pipeline.toml").write_text(text.replace('"random",', f'"random", {method},'))
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    assert done.code == 1
    assert any(problem in line for line in done.errors), done.err
    assert not (folder / "runs").exists()


def test_bad_rows_are_found_before_anything_runs(folder: Path, prune: Prune) -> None:
    """Rows of every file are checked first: a bad row and an unseen label, each with file and line."""
    rows: list[dict[str, Any]] = sentences(8, start=100)
    rows[2]["text"] = " "
    write_rows(folder / "validation.jsonl", rows)
    write_rows(folder / "test.jsonl", [*sentences(3), {"text": "so so", "label": "neutral"}])
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    assert done.code == 1
    assert [line.split(": ")[0] for line in done.errors] == [
        f"{folder}/validation.jsonl:3",
        f"{folder}/test.jsonl:4",
    ]
    assert not (folder / "runs").exists()


def test_sample_data_shows_differences(tmp_path: Path) -> None:
    """The shipped pipeline file is whole: its plan can be read."""
    from prune_cli.plan import read_plan

    plan = read_plan(Path(__file__).parent.parent / "sample_data" / "pipeline.toml")
    assert {"random", "full"} < {chosen.name for chosen in plan.chosen}
    assert json.dumps(plan.tests)
