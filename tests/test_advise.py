"""Advice on a finished grid: what is recommended, what it costs, and commands that choose the same rows again."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from prune_cli.numeric.inference import Difference, differences
from prune_cli.pipeline.advise import cost, finished
from prune_cli.pipeline.advise.choice import Advice, Key, Line, Measured, advise
from prune_cli.pipeline.evidence import Trial, compare
from tests.conftest import Prune, read_rows, sentences, write_rows
from tests.test_evidence import MEANS, runs

TINY = """
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = ["full", "random", "s2l", {{method = "less", balance = "keep"}}]
keep = [0.25, 0.5]
seeds = [0, 1]

[tests]
test = "test.jsonl"

[warmup]
epochs = 2
batch_size = 8

[represent]
dim = 64

[finetune]
epochs = 1
batch_size = 8
"""


def of_values(means: Mapping[Key, float], metric: str = "accuracy", margin: float | None = None) -> Advice:
    """The advice on runs whose means are about those given."""
    stacked: dict[Key, list[np.ndarray]] = {}
    for (method, keep, _), values in runs(dict(means), metric=metric).items():
        stacked.setdefault((method, keep), []).append(values["test", metric])
    arrays = {key: np.stack(several) for key, several in stacked.items()}
    compared = sum(method not in ("full", "none", "random") for method, _ in arrays)

    def against(line: Key, by: float) -> Mapping[Key, Difference | None]:
        return differences({**arrays, line: arrays[line] + by}, line, fixed=[("none", "0%")], compared=compared)

    kept = {key: round(1000 * float(key[1].rstrip("%"))) for key in arrays}
    own = {key: float(array.mean()) for key, array in arrays.items()}
    return advise(Measured("test", metric, own, kept, against, compared), margin)


GRID = {key: mean for key, mean in MEANS.items() if key[0] != "alone"}


def test_the_pick_of_a_budget() -> None:
    """It is the best of what is better than random, else random; the verdicts are those under the pipeline's table."""
    found = of_values(GRID)
    assert [(pick.method, pick.keep) for pick in found.picks] == [("good", "0.1"), ("random", "0.3")]
    verdicts = {(c.method, c.keep): (c.p, c.verdict) for c in compare(runs(GRID)) if c.method not in ("full", "none")}
    assert {(line.method, line.keep): line.p for line in found.lines if line.over_random} == pytest.approx(
        {key: p for key, (p, _) in verdicts.items()}
    )
    assert {line.method for line in found.lines if line.better} == {
        key[0] for key, own in verdicts.items() if own[1] == "better"
    }


def test_how_much_to_keep() -> None:
    """The smallest budget whose pick is within the margin of all rows; else all rows."""
    found = of_values(GRID)
    assert found.recommended.method == "full" and found.margin == pytest.approx(0.02 * found.recommended.mean)
    assert (found.why) == f"no budget is shown to come within {found.margin:.2g} of them"
    wide = of_values(GRID, margin=0.25)
    assert (wide.recommended.method, wide.recommended.keep) == ("good", "0.1")
    assert [pick.within for pick in wide.picks] == [True, True]
    middling = of_values({**GRID, ("good", "0.1"): 0.5}, margin=0.25)
    assert (middling.recommended.method, middling.recommended.keep) == ("random", "0.3")
    # the end of the interval decides, at the level that the number of picks leaves
    pick = of_values(GRID).picks[1]
    assert pick.to_full is not None
    assert not of_values(GRID, margin=-pick.to_full.low - 0.001).picks[1].within
    assert of_values(GRID, margin=-pick.to_full.low + 0.02).picks[1].within


def test_no_training() -> None:
    """Where neither all rows nor a pick is shown to be better than the model as it is, there is nothing to train."""
    useless = {**dict.fromkeys(GRID, 0.6), ("none", "0%"): 0.6}
    found = of_values(useless)
    assert (found.recommended.method, found.why) == (
        "none",
        "no training is shown to be better than the model as it is",
    )
    only_some = of_values({**useless, ("good", "0.3"): 0.75, ("full", "100%"): 0.6})
    assert (only_some.recommended.method, only_some.recommended.keep) == ("good", "0.3")


def test_of_a_loss_less_is_better() -> None:
    """What is bad as an accuracy is the pick as a loss."""
    found = of_values(GRID, metric="loss")
    assert [pick.method for pick in found.picks] == ["bad", "random"]
    assert found.recommended.method == "bad"


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, prune: Prune) -> Path:
    """A folder with data and a run of the pipeline."""
    folder = tmp_path_factory.mktemp("grid")
    write_rows(folder / "train.jsonl", sentences(24))
    write_rows(folder / "validation.jsonl", sentences(8, start=100))
    write_rows(folder / "test.jsonl", sentences(12, start=200))
    (folder / "pipeline.toml").write_text(TINY.format(model=tiny_model))
    ran = prune("pipeline", folder / "pipeline.toml", "-o", folder / "run")
    assert ran.code == 0, ran.err
    return folder


def seconds(*paths: Path) -> float:
    return sum(json.loads((path / "manifest.json").read_text())["made"]["seconds"] for path in paths)


@pytest.mark.slow
def test_a_finished_grid(grid: Path, prune: Prune) -> None:
    """Every pick has its price, by the manifests of what it rests on; words and JSON say the same."""
    ran = prune("advise", grid / "run", "--json")
    assert ran.code == 0, ran.err
    (advice,) = ran.json()["advice"]
    assert (advice["test"], advice["metric"]) == ("test", "accuracy")
    assert [pick["keep"] for pick in advice["picks"]] == ["0.25", "0.5"]
    words = prune("advise", grid / "run").out
    chosen = [pick for pick in advice["picks"] if pick["keep"] == advice["recommended"]["keep"]] or advice["picks"]
    assert words.startswith("test, by accuracy: ") and all(pick["commands"][-1] in words for pick in chosen)
    full = np.mean([seconds(path) for path in grid.glob("run/methods/full/*/*/finetune")])
    for pick in advice["picks"]:
        assert pick["seconds"]["all_rows"] == pytest.approx(full)
        saved = pick["seconds"]["all_rows"] - pick["seconds"]["training"] - pick["seconds"]["choosing"]
        assert pick["seconds"]["saved"] == pytest.approx(saved)
    other = prune("advise", grid / "run", "--metric", "loss")
    assert other.errors == ["metric: loss; allowed for test: accuracy, macro_f1"]
    assert prune("advise", grid / "run", "--keep", "0.1").errors[0].startswith("--keep: ")


def test_a_slow_first_training_says_little_of_the_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first of a process loads the libraries: the median is what another training takes."""
    taken = {"full": [20.0, 21.0], "random": [18.2, 2.5, 2.6]}
    monkeypatch.setattr(cost, "_training", lambda run, method, keep: taken[method])
    line = Line("random", "0.1", 9, 0.5, None, 1.0, False, None, False, None, True)
    assert cost.cost(tmp_path, line) == cost.Cost(0.0, 2.6, 20.5)


@pytest.mark.slow
def test_what_is_wrong_with_what_is_advised_is_told(grid: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warnings of its selections and models, and of no others."""
    asked: list[Trial] = []

    def warnings(trials: Mapping[Trial, Sequence[Path]]) -> list[str]:
        asked.extend(trials)
        return ["one label is predicted"]

    monkeypatch.setattr(finished, "of_artifacts", warnings)
    ran = prune("advise", grid / "run", "--json")
    assert "warning: one label is predicted" in ran.err
    (advice,) = ran.json()["advice"]
    assert {trial[:2] for trial in asked} == {(advice["recommended"]["method"], advice["recommended"]["keep"])}


@pytest.mark.slow
@pytest.mark.parametrize("method", ["less-keep", "s2l", "random"])
def test_the_commands_choose_the_same_rows(grid: Path, method: str, prune: Prune, tmp_path: Path) -> None:
    """Run one after the other they keep the rows that the grid kept, and cost what the grid's artifacts say."""
    from prune_cli.pipeline.advise.behind import commands
    from prune_cli.pipeline.advise.behind import seconds as behind
    from prune_cli.pipeline.entries import named

    budget = grid / "run" / "methods" / method / "keep-0.5"
    selected = next(path for path in (budget / "select", budget / "seed-0" / "select") if path.is_dir())
    told = commands(selected, "0.5", str(tmp_path / "again"), named(method).method.kinds, {})
    for command in told:
        ran = prune(*shlex.split(command)[1:])
        assert ran.code == 0, ran.err
    assert read_rows(tmp_path / "again/kept/select.jsonl") == read_rows(selected / "select.jsonl")
    made = grid / "run"
    shared = [made / "warmup", made / "represent/train/dynamics+gradient"]
    rests_on = {
        "less-keep": [*shared, made / "represent/validation/gradient", made / "score/less", selected],
        "s2l": [*shared, selected],
        "random": [selected],
    }
    assert behind([selected]) == pytest.approx(seconds(*rests_on[method]))
    assert len(told) == len(rests_on[method])


@pytest.mark.slow
@pytest.mark.parametrize("target", ["review", "text"])
def test_the_commands_say_how_data_files_are_read(target: str, prune: Prune, tmp_path: Path, tiny_model: Path) -> None:
    """Of a run and of trials: data files by their keys, without bad rows; artifacts, which know it, without a word."""
    from prune_cli.pipeline.advise.behind import commands

    sets = (("train", "sentence", 0, 24), ("validation", target, 100, 8), ("test", "text", 200, 12))
    for name, key, start, n in sets:
        rows = [{key: row["text"], "label": row["label"]} for row in sentences(n, start=start)]
        write_rows(tmp_path / f"{name}.jsonl", [*rows, *([{key: " "}] if name == "train" else [])])
    text = TINY.format(model=tiny_model).replace("seeds = [0, 1]", "seeds = [0]")
    text = 'fields = {text = ["text", "sentence", "review"]}\nskip_bad = "bad.jsonl"\n' + text.replace(
        '"s2l"', '"bm25", "less-exact"'
    )
    file = tmp_path / "pipeline.toml"
    for more in ("decontaminate = true\n", ""):
        file.write_text(more + text)
        done = prune("pipeline", file, "-o", tmp_path / f"run{bool(more)}")
        assert done.code == 0, done.err
        advice = prune("advise", tmp_path / f"run{bool(more)}", "--json")
        assert "with one run of each nothing can be shown" in advice.out
        for pick in advice.json()["advice"][0]["picks"]:
            words = shlex.split(pick["commands"][-1].replace("runs/advised", str(tmp_path / f"again{bool(more)}")))
            ran = prune(*words[1:], "--replace")
            assert ran.code == 0, ran.err
            assert ("--field" in words, "--skip-bad" in words) == (not more, not more)
        for method in ("bm25", "less-exact"):  # whose target set is a data file
            selected = tmp_path / f"run{bool(more)}/methods/{method}/keep-0.5/select"
            again = tmp_path / f"{method}-{bool(more)}"
            for command in commands(selected, "0.5", str(again)):
                ran = prune(*shlex.split(command)[1:])
                assert ran.code == 0, ran.err
            assert read_rows(again / "kept/select.jsonl") == read_rows(selected / "select.jsonl")
    options = ["--keep", "50%", "--budget", "10s", "--methods", "longest", "--json"]
    (tmp_path / "bad.jsonl").unlink()
    tried = prune("advise", file, "-o", tmp_path / "tried", *options)
    assert (tmp_path / "bad.jsonl").read_text().count("\n") == 1
    command = next(pick["commands"][-1] for pick in tried.json()["advice"][0]["picks"])
    ran = prune(*shlex.split(command)[1:])
    assert ran.code == 0, ran.err


@pytest.mark.slow
def test_without_random_there_is_no_advice(grid: Path, prune: Prune, tmp_path: Path) -> None:
    """What is held against nothing is not ranked."""
    file = tmp_path / "pipeline.toml"
    text = (grid / "pipeline.toml").read_text()
    for name in ("train", "validation", "test"):
        text = text.replace(f'"{name}.jsonl"', f'"{grid / name}.jsonl"')
    file.write_text(
        text.replace('"random", ', "")
        .replace('"s2l", {method = "less", balance = "keep"}', '"s2l"')
        .replace("dim = 64", "")
    )
    assert prune("pipeline", file, "-o", tmp_path / "run").code == 0
    (told,) = prune("advise", tmp_path / "run").errors
    assert "no trial of random has ended" in told
