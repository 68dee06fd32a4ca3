"""The pipeline: a checked plan, every step once, only what is stale made again."""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import canonical, open_artifact
from prune_cli.methods.published import find_published
from prune_cli.pipeline.checks import read_plan
from prune_cli.pipeline.entries import read_entry
from prune_cli.pipeline.results import Report, table
from prune_cli.stages.common import Outcome
from prune_cli.stages.evaluate import evaluate
from tests.conftest import REPOSITORY, Prune, Ran, read_rows, sentences, write_rows

OWN = '{{name = "x", representation = "hidden", score = "prototypicality", select = "top", {}}}'

FILE = """
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = [
    "full",
    "random",
    "less",
    {{method = "less", balance = "equal"}},
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


def test_a_folder_of_something_else(folder: Path, prune: Prune) -> None:
    """A folder that holds other files, or a file, is no place for a run; an empty folder is."""
    file, mine = folder / "pipeline.toml", folder / "mine"
    mine.mkdir()
    assert prune("pipeline", file, "-o", mine, "--dry-run").code == 0
    (mine / "notes.txt").write_text("mine")
    trials = ["--keep", "50%", "--budget", "1s"]
    for command in (["pipeline", file], ["estimate", file], ["advise", file, *trials]):
        for out in (mine, mine / "notes.txt"):
            error = f"{out}: exists and was not made by this command; choose another name"
            assert prune(*command, "-o", out).errors == [error]
    assert [path.name for path in mine.iterdir()] == ["notes.txt"]


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
    assert again.out == done.out == prune("show", folder / "runs").out
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


def test_an_interrupted_run_leaves_its_results(
    folder: Path, prune: Prune, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Results are shown as they come; those of the run before stay until the new ones are whole."""
    file, out = folder / "pipeline.toml", folder / "runs"
    text = FILE.format(model=tiny_model, options="").replace('"full",', "").replace("seeds = [0, 1]", "seeds = [0]")
    short = re.sub(r"    (\{.*|\"less\",)\n", "", text).replace("dim = 64", "")  # random alone
    file.write_text(short)
    assert prune("pipeline", file, "-o", out).code == 0
    before = (out / "results.jsonl").read_bytes()
    file.write_text(short.replace("seeds = [0]", "seeds = [1, 2, 3]"))
    calls: list[int] = []

    def stopping(*arguments: Any) -> Outcome:
        if not arguments[-1].dry_run:
            calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return evaluate(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(sys.modules["prune_cli.pipeline.steps"], "evaluate", stopping)
        assert prune("pipeline", file, "-o", out).code == 130
    assert (out / "results.jsonl").read_bytes() == before
    so_far = prune("show", out)
    assert [line["seed"] for line in prune("show", out, "--json").json()["results"]] == [1, 2]
    assert so_far.err == f"{out}: under way; 2 of 3 trials have ended\n" and "random" in so_far.out
    assert prune("pipeline", file, "-o", out).code == 0
    assert [line["seed"] for line in read_rows(out / "results.jsonl")] == [1, 2, 3]
    assert not (out / "results.jsonl.part").exists()


def test_random_has_seeds_of_its_own(folder: Path, prune: Prune) -> None:
    """As many as asked for, those of the others first and then the smallest that are left; a balanced draw has not."""
    file = folder / "pipeline.toml"
    text = file.read_text().replace('"random",', '"random", {method = "random", balance = "keep"},')
    file.write_text(text.replace("seeds = [0, 1]", "seeds = [1, 5]\nrandom_seeds = 4"))
    plan = read_plan(file)
    seeds = {entry.name: plan.seeds_of(entry) for entry in plan.entries}
    assert seeds["random"] == (1, 5, 0, 2)
    assert {seeds[name] for name in seeds if name != "random"} == {(1, 5)}
    assert "random-keep" in seeds
    file.write_text(text.replace("seeds = [0, 1]", "seeds = [1, 5]\nrandom_seeds = 2.5"))
    assert "random_seeds: 2.5; allowed: a whole number" in prune("pipeline", file, "-o", folder / "runs").err


def test_none_is_the_model_as_it_is(folder: Path, prune: Prune, made: Path) -> None:
    """It is evaluated once, whatever the budgets and seeds, and as `eval` does; a model without a head is refused."""
    file = folder / "pipeline.toml"
    text = re.sub(r"methods = \[.*?\n\]", 'methods = ["none"]', file.read_text(), flags=re.DOTALL).replace(
        "dim = 64", ""
    )
    file.write_text(text)
    refused = prune("pipeline", file, "-o", folder / "runs", "--dry-run")
    assert refused.code == 1
    assert "methods: none: " in refused.err and "no trained head to judge; leave none out" in refused.err
    file.write_text(re.sub("model = .*", f'model = "{made}/warmup"', text))
    done = prune("pipeline", file, "-o", folder / "runs")
    assert done.code == 0, done.err
    [line] = read_rows(folder / "runs/results.jsonl")
    assert (line["method"], line["keep"], line["kept"], line["seed"]) == ("none", "0%", 0, None)
    assert prune("eval", made / "warmup", folder / "test.jsonl", "-o", folder / "alone").code == 0
    alone = json.loads((folder / "alone/metrics.json").read_text())["test"]
    assert {name: line[name] for name in alone} == alone
    file.write_text(text.replace('["none"]', '[{method = "none", balance = "keep"}, "random"]'))
    assert "balance: keep; none selects no rows; leave it out" in prune("pipeline", file, "-o", folder / "runs").err


@pytest.mark.parametrize("name", ["results.jsonl", "results.jsonl.part"])
def test_a_file_that_holds_no_results_is_not_replaced(name: str, folder: Path, prune: Prune) -> None:
    """A file of the user's stays, and is told of before anything runs."""
    (folder / "runs").mkdir()
    (folder / "runs" / name).write_text("years of work\n")
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    assert done.code == 1
    assert done.errors == [f"{folder}/runs/{name}: exists and holds no results; choose another --out, or move it away"]
    assert [path.name for path in (folder / "runs").iterdir()] == [name]


@pytest.mark.slow
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


@pytest.mark.slow
def test_the_table_is_mean_and_deviation_over_seeds(folder: Path, prune: Prune) -> None:
    """Each cell of the table is the mean of the seeds' metrics, ± their sample standard deviation."""
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    results = read_rows(folder / "runs" / "results.jsonl")
    values = [line["accuracy"] for line in results if line["method"] == "random"]
    expected = f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}"
    [line] = [line for line in done.out.splitlines() if line.split()[:1] == ["random"]]
    assert expected in " ".join(line.split())


@pytest.mark.slow
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


def changed(folder: Path, *pairs: tuple[str, str]) -> list[Any]:
    """Change the pipeline file and say how it is run."""
    text = (folder / "pipeline.toml").read_text()
    for right, wrong in pairs:
        assert text.count(right) == 1, right
        text = text.replace(right, wrong)
    (folder / "pipeline.toml").write_text(text)
    return ["pipeline", folder / "pipeline.toml", "-o", folder / "runs", "--json"]


def steps_of(done: Ran) -> dict[str, str]:
    """Label -> state of each step."""
    assert done.code == 0, done.err
    return {step["step"]: step["state"] for step in done.json()["steps"]}


def hidden(path: Path) -> Any:
    """Hidden states [n, e, d] of a represent artifact."""
    return np.array(tensors.load(path / "hidden.safetensors")["hidden"])


@pytest.mark.slow
def test_a_method_has_options_of_its_representation(folder: Path, prune: Prune) -> None:
    """Each set of options is one pass, beside the plain one; options that say the same are the same pass."""
    by = (
        '{{name = "{}", representation = "hidden", represent_options = {}, score = "prototypicality", select = "top"}},'
    )
    methods = [
        by.format("weighted", '{pooling = "position"}'),
        by.format("again", '{pooling = "position"}').replace('"top"', '"bottom"'),
        by.format("plain", '{layer = -1, pooling = "mean"}'),
    ]
    command = changed(folder, ('"random",', " ".join(methods)), ("dim = 64", 'dim = 64\npooling = "mean"'))
    steps = steps_of(prune(*command))
    assert sorted(step for step in steps if step.startswith("represent")) == [
        "represent train gradient+hidden",
        "represent train pooling-position hidden",
        "represent validation gradient",
    ]
    represent = ["--kind", "hidden"]
    for pooling, made in (("position", "pooling-position/hidden"), ("mean", "gradient+hidden")):
        command_line = ["represent", folder / "train.jsonl", "-o", folder / pooling, "--model", folder / "runs/warmup"]
        assert prune(*command_line, *represent, "--pooling", pooling).code == 0
        np.testing.assert_allclose(
            hidden(folder / "runs/represent/train" / made), hidden(folder / pooling), rtol=1e-3, atol=1e-3
        )
    weighted = open_artifact(folder / "runs/score/weighted-seed-0").origin("input 1")
    assert weighted.parts[-2:] == ("pooling-position", "hidden")
    assert open_artifact(folder / "runs/score/plain-seed-0").origin("input 1").name == "gradient+hidden"
    assert set(steps_of(prune(*command)).values()) == {"current"}


def test_rds_needs_no_warmup(folder: Path, prune: Prune, tiny_model: Path) -> None:
    """The reference is represented as it is, rows and target set, and the rows are those of the same commands."""
    command = changed(folder, ('"full",\n    "random",\n    "less",', '"rds",'))
    text = (folder / "pipeline.toml").read_text()
    lines = [line for line in text.splitlines() if not any(word in line for word in ("less", "middling", "dim"))]
    (folder / "pipeline.toml").write_text("\n".join(lines))
    steps = steps_of(prune(*command))
    assert list(steps)[:4] == [
        "represent train reference-pooling-position hidden",
        "represent validation reference-pooling-position hidden",
        "select rds keep 0.5",
        "finetune rds keep 0.5 seed 0",
    ]
    represent = ["--model", tiny_model, "--kind", "hidden", "--pooling", "position"]
    for name in ("train", "validation"):
        assert prune("represent", folder / f"{name}.jsonl", "-o", folder / name, *represent).code == 0
    select = ["--method", "round_robin", "--target", folder / "validation", "--keep", "0.5"]
    assert prune("select", folder / "train", "-o", folder / "kept", *select).code == 0
    ours = folder / "runs/methods/rds/keep-0.5/select/select.jsonl"
    assert ours.read_bytes() == (folder / "kept/select.jsonl").read_bytes()


@pytest.fixture
def small_model(tmp_path: Path, tiny_model: Path) -> Path:
    """The tiny model with 8 features in place of 16."""
    from transformers import AutoTokenizer, BertConfig, BertModel

    config = BertConfig.from_pretrained(tiny_model, hidden_size=8, intermediate_size=16)
    BertModel(config).save_pretrained(tmp_path / "small")
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path / "small")
    return tmp_path / "small"


def test_a_proxy_represents_and_the_model_is_trained(folder: Path, prune: Prune, small_model: Path) -> None:
    """Warm-up and representations are the proxy's, as is the reference where none is named; the model is trained."""
    method = (
        '{name = "asis", representation = "hidden", model = "reference", score = "prototypicality", select = "top"},'
    )
    command = changed(folder, ("methods = [", f'proxy = "{small_model.name}"\nmethods = ['), ('"random",', method))
    steps_of(prune(*command))
    runs = folder / "runs"
    widths = {
        name: json.loads((runs / name / "config.json").read_text())["hidden_size"]
        for name in ("warmup", "methods/asis/keep-0.5/seed-0/finetune", "methods/full/keep-100%/seed-0/finetune")
    }
    assert list(widths.values()) == [8, 16, 16]
    assert hidden(runs / "represent/train/gradient+hidden").shape == (24, 2, 8)
    assert hidden(runs / "represent/train/reference/hidden").shape == (24, 1, 8)


@pytest.mark.slow
def test_the_reference_is_a_model_of_its_own(folder: Path, prune: Prune, small_model: Path) -> None:
    """With a reference named, what asks for it is represented with it, and the rest with the model."""
    method = (
        '{name = "asis", representation = "hidden", model = "reference", score = "prototypicality", select = "top"},'
    )
    command = changed(folder, ("methods = [", f'reference = "{small_model.name}"\nmethods = ['), ('"random",', method))
    steps_of(prune(*command))
    assert hidden(folder / "runs/represent/train/gradient+hidden").shape == (24, 2, 16)
    assert hidden(folder / "runs/represent/train/reference/hidden").shape == (24, 1, 8)


@pytest.mark.slow
def test_a_warmup_on_a_part_of_the_rows(folder: Path, prune: Prune) -> None:
    """The warm-up trains on a random share, drawn with its seed; all rows are represented; another share is another."""
    command = changed(folder, ("epochs = 2", "epochs = 2\nfraction = 0.25\nseed = 5"))
    steps = steps_of(prune(*command))
    assert list(steps)[:2] == ["select warmup rows", "warmup"]
    drawn = ["select", folder / "train.jsonl", "-o", folder / "part", "--method", "random", "--keep", 6, "--seed", 5]
    assert prune(*drawn).code == 0
    rows = folder / "runs/warmup-rows/select.jsonl"
    assert rows.read_bytes() == (folder / "part/select.jsonl").read_bytes()
    assert open_artifact(folder / "runs/warmup").about["rows"] == 6
    assert open_artifact(folder / "runs/represent/train/gradient+hidden").about["rows"] == 24
    assert set(steps_of(prune(*command)).values()) == {"current"}
    changed(folder, ("fraction = 0.25", "fraction = 0.5"))
    planned = steps_of(prune(*command, "--dry-run"))
    assert planned["select warmup rows"] == planned["warmup"] == planned["score less"] == "would run"
    assert planned["select random keep 0.5 seed 0"] == "current"


@pytest.mark.slow
def test_methods_are_balanced_by_group(folder: Path, prune: Prune) -> None:
    """Half of 24 rows by equal shares of groups of 18 and 6 is 6 of each; S2L clusters each source by itself."""
    grouped = [{**row, "group": "web" if i % 4 else "book"} for i, row in enumerate(sentences(24))]
    write_rows(folder / "train.jsonl", grouped)
    methods = " ".join(f'{{method = "{name}", balance = "equal", balance_by = "group"}},' for name in ("s2l", "less"))
    steps_of(prune(*changed(folder, ('"random",', methods))))
    for path in ("s2l-equal-group/keep-0.5/seed-1", "less-equal-group/keep-0.5", "less-equal/keep-0.5"):
        kept = read_rows(folder / "runs/methods" / path / "select/select.jsonl")
        by = "label" if path.startswith("less-equal/") else "group"
        assert sorted(Counter(row[by] for row in kept).values()) == [6, 6], path


@pytest.mark.slow
def test_groups_of_the_validation_set_reach_less(folder: Path, prune: Prune) -> None:
    """With groups in the validation set, less scores by the best of them, as the score command does."""
    rows = [{**row, "group": row["label"]} for row in sentences(8, start=100)]
    write_rows(folder / "validation.jsonl", rows)
    steps_of(prune(*changed(folder)))
    runs = folder / "runs"
    best: dict[Any, float] = {}
    for label in ("positive", "negative"):
        part = write_rows(folder / f"{label}.jsonl", [row for row in rows if row["label"] == label])
        represent = ["--model", runs / "warmup", "--kind", "gradient", "--dim", 64]
        assert prune("represent", part, "-o", folder / label, *represent).code == 0
        score = ["--method", "less", "--on", "gradient", "--target", folder / label]
        train = runs / "represent/train/gradient+hidden"
        assert prune("score", train, "-o", folder / f"score-{label}", *score).code == 0
        for line in read_rows(folder / f"score-{label}/score.jsonl"):
            best[line["id"]] = max(line["score"], best.get(line["id"], -np.inf))
    ours = {line["id"]: line["score"] for line in read_rows(runs / "score/less/score.jsonl")}
    assert ours == pytest.approx(best, rel=1e-4)


def test_a_published_method_with_other_options() -> None:
    """Options that are named change, all others are as published."""
    entry = read_entry({"method": "rds-max", "name": "last", "represent_options": {"layer": -2}}, Path())
    published = find_published("rds-max")
    assert entry.method.represent_options == {**published.represent_options, "layer": -2}
    kept = ("representation", "score", "select", "model", "score_options", "select_options", "objective", "source")
    assert all(getattr(entry.method, key) == getattr(published, key) for key in kept)
    assert entry.name == "last"


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ("epochs = 2", "fraction = 0", "warmup.fraction: 0; allowed: a number above 0, at most 1"),
        ("epochs = 2", "fraction = 1.5", "warmup.fraction: 1.5; allowed: a number above 0, at most 1"),
        ("epochs = 2", 'fraction = "half"', "warmup.fraction: half; allowed: a number above 0, at most 1"),
        ("dim = 64", 'dynamics = "recorded"', "the warm-up trains on a part of the rows, fraction 0.5"),
        ("methods = [", 'proxy = "./none"\nmethods = [', "proxy: no such folder: "),
        ("methods = [", 'reference = "./none"\nmethods = [', "reference: no such folder: "),
        ("methods = [", "proxy = 3\nmethods = [", "proxy: 3; allowed: text"),
        ('"random"', '"ifd"', "methods: ifd: unprompted; rows of the task classification have no prompt"),
        ('"random"', '"perplexity"', "model has no trained head; leave perplexity out"),
        (
            '"random"',
            '{method = "less", balance = "keep", balance_by = "sex"}',
            "balance_by: sex; allowed: label, group",
        ),
        ('"random"', '{method = "less", balance_by = "group"}', "balance_by: group; allowed only with a balance"),
        (
            '"random"',
            '{method = "less", balance = "keep", balance_by = "group"}',
            "train.jsonl:1: key group is missing",
        ),
        (
            '"random"',
            '{method = "less", represent_options = {dim = 8}}',
            "name: missing; allowed: a name for less with options of its own, beside method",
        ),
        (
            '"random"',
            '{method = "less", name = "y", score = "el2n"}',
            "score: unknown beside method; allowed: name, represent_options, ",
        ),
        ('"random"', '{method = "less", name = "rds"}', "name: rds; allowed: a name that no published method has"),
        (
            '"random"',
            '{method = "less", name = "rds-keep"}',
            "name: rds-keep; allowed: a name that no published method",
        ),
        ('"random"', '{method = "full", name = "all"}', "name: unknown beside method full, which has no options"),
        ('"random"', '{method = "less", name = 3}', "name: 3; allowed: a name for less with options of its own"),
        ('"random"', '{method = "s2l", name = "y", select_options = {c = 1}}', "kmeans: c: unknown option"),
        ('"random"', '{method = "s2l", name = "y", select_options = 3}', "y: select_options: 3; allowed: a table"),
        (
            '"random"',
            OWN.format("represent_options = {dim = 8}"),
            "x: represent_options.dim: unknown option; allowed: ",
        ),
        (
            '"random"',
            OWN.format("represent_options = {layer = 1.5}"),
            "x: represent_options.layer: 1.5; allowed: a whole number",
        ),
        (
            '"random"',
            OWN.format('represent_options = {pooling = "max"}'),
            "x: represent_options.pooling: max; allowed: ",
        ),
        (
            '"random"',
            OWN.format('represent_options = {checkpoints = "9"}'),
            "x: represent_options.checkpoints: 9; the warm",
        ),
        (
            '"random"',
            OWN.format('represent_options = "position"'),
            "x: represent_options: position; allowed: a table, such as ",
        ),
        ('"random"', OWN.format('model = "model"'), "x: model: model; allowed: reference"),
        ('"random"', OWN.format("score_options = 3"), "x: score_options: 3; allowed: a table, such as "),
        (
            '"random"',
            OWN.format("score_options = {}").replace("hidden", "hidden,hiden"),
            "representation: hidden,hiden; allowed: none, dynamics, gradient, hidden, ",
        ),
    ],
)
def test_mistakes_in_what_rows_are_represented_with(
    folder: Path, prune: Prune, right: str, wrong: str, problem: str
) -> None:
    """Models, shares, options of a representation and groups are checked before anything runs, a line each."""
    recorded = [("epochs = 2", "epochs = 2\nfraction = 0.5"), ('"random",', '"random", "hard-to-learn",')]
    extra = recorded if "recorded" in wrong else []
    done = prune(*changed(folder, (right, wrong), *extra))
    assert (done.code, len(done.errors)) == (1, 1), done.err
    assert problem in done.errors[0]
    assert not (folder / "runs").exists()


def test_a_training_row_without_a_label_is_told(folder: Path, prune: Prune) -> None:
    """Together with what is wrong in another file, before anything runs."""
    rows = sentences(24)
    write_rows(folder / "test.jsonl", [{"text": "fine", "label": "neither"}])
    write_rows(folder / "train.jsonl", [*rows[:3], {**rows[3], "label": None}, *rows[4:]])
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    assert done.code == 1 and any("test.jsonl:1: " in error for error in done.errors)
    assert "train.jsonl:4: label is null; finetune needs one in every row" in done.errors[0]
    assert not (folder / "runs").exists()


def test_wrong_budgets_are_told_with_all_else(folder: Path, prune: Prune) -> None:
    """Those that cannot be read beside other mistakes, each by itself; two that come to the same rows."""
    before = (folder / "pipeline.toml").read_text()
    done = prune(*changed(folder, ("keep = [", 'keep = ["50%", 12, ')))
    assert "keep: 50% and 12 are both 12 of 24 rows; allowed: each budget once" in done.err
    (folder / "pipeline.toml").write_text(before)
    done = prune(*changed(folder, ('"random"', '"randm"'), ("keep = [", 'keep = [0, "x", true, 2.5, ')))
    for told in ("randm", "keep: true in the list; allowed: such as", "keep: 0; allowed: a number of rows from 1,"):
        assert told in done.err
    assert "keep: x; allowed" in done.err and "keep: 2.5; allowed" in done.err


def test_a_group_of_null_is_missing(folder: Path, prune: Prune) -> None:
    """To balance by, where other rows have one."""
    rows = [{**row, "group": None if i == 3 else "a"} for i, row in enumerate(sentences(24))]
    write_rows(folder / "train.jsonl", rows)
    done = prune(*changed(folder, ('"random"', '{method = "less", balance = "keep", balance_by = "group"}')))
    assert done.code == 1 and "train.jsonl:4: key group is missing; less-keep-group needs it" in done.err


def test_groups_that_the_target_set_lacks_in_part(folder: Path, prune: Prune) -> None:
    """A target row without a group, where others have one, is told of before the warm-up."""
    rows = sentences(8, start=100)
    write_rows(folder / "validation.jsonl", [{**row, "group": "a"} for row in rows[:5]] + rows[5:])
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    told = f"{folder / 'validation.jsonl'}:6: key group is missing, which other rows have; "
    assert done.errors == [told + "allowed: a group in every row, or in none"]
    assert not (folder / "runs").exists()


@pytest.mark.slow
def test_a_target_s_gradients_are_as_they_are(folder: Path, prune: Prune) -> None:
    """A method of the file that asks for Adam's steps has them of the training rows alone."""
    own = '{name = "mine", representation = "gradient", represent_options = {precondition = "adam"}, score = "less", '
    own += 'select = "top"}'
    done = prune(*changed(folder, ('"random"', own)))
    assert done.code == 0, done.err
    found = {
        path.parent.relative_to(folder / "runs/represent").as_posix()
        for path in folder.glob("runs/represent/**/manifest.json")
    }
    assert found == {"train/gradient+hidden", "train/precondition-adam/gradient", "validation/gradient"}


def test_the_table_shows_the_metrics_of_the_task() -> None:
    """Which metrics stand in the table is the task's to say; each is a column for each test."""
    results = [
        {"method": "rds", "keep": "0.1", "kept": 5, "seed": seed, "test": test, "loss": loss, "rougeL": 0.25, "n": 9}
        for seed, loss in ((0, 2.0), (1, 4.0))
        for test in ("near", "far")
    ]
    report = Report(Path("runs"), ("loss", "rougeL"), results=results)
    head, line = table(report)
    assert head == ["method", "keep", "rows", "near loss", "near rougeL", "far loss", "far rougeL"]
    assert line[:5] == ["rds", "0.1", "5", "3.000 ± 1.414", "0.250 ± 0.000"]


def test_a_metric_that_is_null_stays_in_the_table() -> None:
    """An infinite loss of one seed hides neither the column nor the other methods."""
    results = [
        {"method": method, "keep": "0.1", "kept": 5, "seed": seed, "test": "near", "loss": loss}
        for method, seed, loss in (("rds", 0, 2.0), ("rds", 1, None), ("less", 0, 1.0), ("less", 1, 1.0))
    ]
    _, *lines = table(Report(Path("runs"), ("loss", "rougeL"), results=results))
    assert [line[3] for line in lines] == ["null", "1.000 ± 0.000"]
    head, line = table(Report(Path("runs"), ("rougeL",), results=results[1:2]))  # nothing that could be shown
    assert head == ["method", "keep", "rows"] and line == ["rds", "0.1", "5"]


@pytest.mark.parametrize(
    "text",
    [
        b"seeds = [" + b"9" * 5000 + b"]",  # more digits than Python reads
        b"seeds = [0x" + b"f" * 5000 + b"]",  # and than it writes
        b"keep = " + b"[" * 2000 + b"]" * 2000,
        b"a" + b".a" * 5000 + b" = 1",
        b"seeds = [\xff]",
        b"seeds = [0",
    ],
    ids=["digits", "hexadecimal", "deep", "dots", "not UTF-8", "cut"],
)
def test_toml_that_cannot_be_read_is_one_line(text: bytes, folder: Path, prune: Prune) -> None:
    """Whatever Python cannot take of a file is a line that names the file."""
    (folder / "pipeline.toml").write_bytes(text)
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "runs")
    assert done.code == 1 and len(done.err.splitlines()) == 1
    assert "pipeline.toml: broken TOML (" in done.errors[0]


def test_an_option_of_a_kind_that_no_method_has(folder: Path, prune: Prune) -> None:
    """In [represent] too, it would change nothing; one that another method has is fine."""
    run = changed(folder, ("dim = 64", "dim = 64\nlayer = 1"))
    assert prune(*run, "--dry-run").code == 0
    told = prune(*changed(folder, ("layer = 1", 'similarity = "dot"')), "--dry-run")
    assert len(told.errors) == 1
    assert "represent.similarity: dot; an option of influence, and not of gradient, hidden; leave" in told.errors[0]


def test_options_without_a_say(folder: Path, prune: Prune) -> None:
    """Of LoRA where all weights are trained, of generated texts where labels are: each told, and nothing runs."""
    tables = "steps = 2\nlora_rank = 4\n[eval]\nmax_new_tokens = 9\n"
    told = prune(*changed(folder, ("steps = 2", tables)), "--dry-run")
    assert [line.split(": ", 1)[1] for line in told.errors] == [
        "finetune.lora_rank: 4; it has no say with tune full, only with lora; leave it out",
        "eval.max_new_tokens: 9; it has no say with the task classification, only with --task generation; leave it out",
    ]


def test_every_mistake_is_told_at_once(folder: Path, prune: Prune) -> None:
    """Unknown keys, wrong types, absent files, wrong methods and budgets: a line each, and nothing is made."""
    text = (folder / "pipeline.toml").read_text()
    for right, wrong in {
        '"random",': '"randum", {method = "less", balance = "even"}, {name = "x", select = "kmeans"},',
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
        "balance: even; allowed: none, keep, equal",
        "select kmeans needs a representation",
        "clusters: unknown option",
        "seeds: -1; allowed: a whole number, 0 or more, below 4294967296",
        "warmup.epoch: unknown option",
        'represent.dim: "64"; allowed: a whole number',
        "tests.test: tests.jsonl; no such file",
        "finetune.seed: unknown option",
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
        (
            '{name = "less", representation = "hidden", score = "less", select = "top"}',
            "name: less; allowed: a name that no published method has",
        ),
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


@pytest.mark.parametrize("name", ["pipeline", "choice", "generation"])
def test_the_shipped_files_are_whole(name: str) -> None:
    """Each pipeline file of sample_data passes all checks, and compares methods with a random draw and all rows."""
    plan = read_plan(REPOSITORY / "sample_data" / f"{name}.toml")
    assert {"random", "full"} < {entry.name for entry in plan.entries}


def test_a_draft_of_a_representation_is_gone_on_with(folder: Path, prune: Prune, tiny_model: Path) -> None:
    """A representation that was whole when a kill came, but not in its place yet, is no artifact of another name."""
    text = FILE.format(model=tiny_model, options="").replace("seeds = [0, 1]", "seeds = [0]").replace("dim = 64", "")
    file, out = folder / "pipeline.toml", folder / "runs"
    file.write_text(re.sub(r'    (\{.*|"full",|"random",|"less",)\n', "", text).replace("[\n]", '["el2n"]'))
    assert prune("pipeline", file, "-o", out).code == 0
    whole = out / "represent" / "train" / "dynamics"
    (whole / ".recipe.json").write_text(canonical(open_artifact(whole).manifest["recipe"]))
    whole.rename(whole.with_name("dynamics.part"))
    done = prune("pipeline", file, "-o", out)
    assert done.code == 0, done.err
    assert "nothing to do" in done.err
    assert [path.name for path in whole.parent.iterdir()] == ["dynamics"]
