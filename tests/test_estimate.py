"""`prune estimate`: its arithmetic by brute force, and what it says of a run held against the run."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prune_cli import options
from prune_cli.models.batching import batches
from prune_cli.pipeline.estimate import Cost, Estimate, Stage, cost_of, rehearsal
from prune_cli.pipeline.estimate.amounts import Amount
from prune_cli.pipeline.estimate.growth import Line, expected_longest, line, trained, walked
from prune_cli.pipeline.estimate.rehearsal import Taken, _batch, shortest, start_of
from prune_cli.report.units import duration, size
from tests.conftest import REPOSITORY, Prune, read_rows, sentences, write_rows

LENGTHS = np.array([3, 9, 4, 4, 7, 12, 5])
FILE = """
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = ["full", "random", "less"]
keep = [0.5]
seeds = [0, 1]
{more}

[tests]
test = "test.jsonl"

[warmup]
epochs = 2
batch_size = 4

[represent]
dim = 64

[finetune]
epochs = 3
batch_size = 8
"""


@pytest.mark.parametrize("rows", [1, 2, 3, 6, 7])
def test_the_longest_of_a_draw(rows: int) -> None:
    """The expected length of a draw's longest row is the mean over all draws."""
    every = [max(drawn) for drawn in combinations(LENGTHS.tolist(), rows)]
    assert expected_longest(LENGTHS, rows) == pytest.approx(np.mean(every))


def test_rows_of_a_batch() -> None:
    """As many as either limit allows; in training, those that make a step of the optimizer."""
    assert _batch(options.Represent(batch_size=8, tokens_per_batch=60), LENGTHS) == 8
    assert _batch(options.Represent(batch_size=32, tokens_per_batch=60), LENGTHS) == 10  # 6.3 tokens a row
    assert _batch(options.Finetune(model="", batch_size=4, accumulate=3), LENGTHS) == 12


def test_the_start_is_in_the_total() -> None:
    """Once, beside the stages."""
    stages = [Stage("finetune", steps=2, seconds=3.0), Stage("eval", steps=2, seconds=1.5)]
    assert Estimate(stages, 0, start=7.0).total.seconds == 11.5


def test_the_start_is_what_first_runs_take_beyond_the_others() -> None:
    """Of two steps 5 + 2 x work and 1 + work, on a work of 3: 11 and 4. What was not measured twice is left out."""

    def taken(work: float, seconds: float) -> Taken:
        return Taken(Amount(0, 0, 0, work), seconds, 0, 0, None)

    later = {"a": [taken(10, 25), taken(20, 45)], "b": [taken(2, 3), taken(4, 5)], "c": [taken(1, 1), taken(2, 2)]}
    assert start_of({"a": taken(3, 14), "b": taken(3, 4.5), "d": taken(9, 99)}, later) == pytest.approx(3.5)
    assert start_of({"a": taken(3, 8)}, later) == 0.0


def test_an_estimate_begins_with_the_shortest_rows() -> None:
    """Sixteen of each file; of a file that no model reads the first."""
    amounts: Any = SimpleNamespace(
        rows={"read": range(40), "other": range(40)},
        labels=[],
        read=lambda step: ["train"],
        sources={"train": ("read", 1.0)},
        lengths=lambda name, opts, positions: np.arange(40)[::-1],
    )
    steps: Any = [SimpleNamespace(opts=None)]
    found = shortest(amounts, steps)
    assert found["read"].tolist() == list(range(24, 40))
    assert found["other"].tolist() == list(range(16))


def test_tokens_of_a_training() -> None:
    """Batches of random rows, each as long as its longest, the last one smaller; over shuffles the mean is that."""
    opts = options.Finetune(model="", batch_size=3, epochs=2.0)
    rng = np.random.default_rng(0)
    shuffled = [rng.permutation(LENGTHS) for _ in range(20_000)]
    epoch = np.mean([sum(len(rows[i : i + 3]) * rows[i : i + 3].max() for i in (0, 3, 6)) for rows in shuffled])
    assert trained(LENGTHS, 7, opts) == pytest.approx(2 * epoch, rel=0.01)
    fixed = options.Finetune(model="", batch_size=7, steps=5)
    assert trained(LENGTHS, 7, fixed) == 5 * 7 * 12


def test_tokens_of_a_pass() -> None:
    """Those of the batches that a pass walks; of twice the rows with the same lengths about twice as many."""
    real = sum(len(batch) * LENGTHS[batch].max() for batch in batches(LENGTHS, 3, 24))
    assert walked(LENGTHS, 7, 3, 24) == real
    assert walked(LENGTHS, 14, 1, 24) == 2 * LENGTHS.sum()
    assert walked(LENGTHS, 0, 3, 24) == 0


def test_lines() -> None:
    """Two points give their line; what does not grow is the last; no part of it is below 0."""
    assert line([(2, 7), (4, 11)]) == Line(3, 2)
    assert line([(2, 7), (2, 8)]) == Line(8, 0)
    assert line([(2, 7), (4, 6)]) == Line(6, 0)
    assert line([(2, 1), (4, 6)]) == Line(0, 1.5)


def test_the_cost_of_a_step() -> None:
    """Time goes with the work, disk with the rows, memory is the most that was seen; unmeasured is unknown."""
    taken = [
        Taken(Amount(10, 0, 0, 100.0), 3.0, 1010, 500, None),
        Taken(Amount(20, 0, 0, 300.0), 5.0, 1020, 600, None),
    ]
    assert cost_of(Amount(1000, 0, 0, 10_000.0), taken) == Cost(2.0 + 100.0, 2000.0, 600, None)
    assert cost_of(Amount(1000, 0, 0, 10_000.0), []) is None


def test_figures_in_words() -> None:
    """Seconds and bytes are rounded to what is read."""
    assert [duration(seconds) for seconds in (1.26, 59.6, 150, 7200)] == ["1.3 s", "60 s", "2.5 min", "2 h"]
    assert [size(count) for count in (900, 12_300, 1_260_000_000)] == ["900 bytes", "12 kB", "1.3 GB"]


@pytest.fixture
def file(tmp_path: Path, tiny_model: Path) -> Path:
    """A pipeline file with its rows."""
    write_rows(tmp_path / "train.jsonl", sentences(96))
    write_rows(tmp_path / "validation.jsonl", sentences(8, start=100))
    write_rows(tmp_path / "test.jsonl", sentences(12, start=200))
    (tmp_path / "my.toml").write_text(FILE.format(model=tiny_model, more=""))
    return tmp_path / "my.toml"


@pytest.mark.slow
def test_what_is_said_and_what_then_happens(file: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps, rows, tokens and disk are those of the run; what is made counts nothing; nothing is left in the folder.

    On the way it tells how many steps each rehearsal has done, and nothing of the steps themselves.
    """
    monkeypatch.setattr("prune_cli.runtime.progress.PLAIN_SECONDS", 0.0)
    counted: list[Any] = []

    def start(begun: Any, later: Any) -> float:
        counted.extend(later.values())
        return start_of(begun, later)

    monkeypatch.setattr(rehearsal, "start_of", start)
    out = file.parent / "runs"
    command = ["estimate", file, "-o", out, "--seconds", 0, "--json"]
    done = prune(*command)
    assert done.code == 0, done.err
    assert {len(taken) for taken in counted} == {2}  # with few rows and with more
    told = [line.split(", about ")[0] for line in done.err.splitlines() if ", about " in line]
    n = len(told) // 3
    assert n > 5
    assert told == 3 * [f"estimate, steps: {i + 1} of {n}" for i in range(n)]
    assert not out.exists()
    said = {stage["stage"]: stage for stage in done.json()["stages"]}
    assert not done.json()["total"]["unknown"]
    texts = [row["text"] for row in sentences(96)]
    assert said["warm-up"]["tokens"] == sum(len(text.split()) + 2 for text in texts)  # one a word, and two marks
    assert said["warm-up"]["optimizer_steps"] == 2 * 24
    assert said["finetune"]["rows"] == 2 * 96 + 4 * 48
    assert said["finetune"]["optimizer_steps"] == 2 * 3 * 12 + 4 * 3 * 6

    made = prune("pipeline", file, "-o", out, "--json")
    assert made.code == 0, made.err
    steps = {step["step"]: Path(step["path"]) for step in made.json()["steps"]}
    assert len(steps) == done.json()["total"]["steps"]
    for name, stage in said.items():
        first = {"warm-up": "warmup"}.get(name, name)
        paths = [path for step, path in steps.items() if step == name or step.split()[0] == first]
        files = [file for path in paths for file in path.rglob("*") if file.is_file() and file.name != "manifest.json"]
        size = sum(file.stat().st_size for file in files)
        assert stage["steps"] == len(paths)
        assert stage["bytes"] == pytest.approx(size, rel=0.2), name

    again = prune(*command)
    assert (again.json()["stages"], again.json()["up_to_date"]) == ([], len(steps))
    assert "nothing to do" in prune(*command[:-1]).out
    file.write_text(file.read_text().replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    more = prune(*command).json()
    assert [stage["stage"] for stage in more["stages"]] == ["select", "finetune", "eval"]
    assert more["stages"][1]["rows"] == 96 + 2 * 48


@pytest.mark.slow
def test_parts_corruption_and_what_cannot_be_measured(file: Path, prune: Prune) -> None:
    """Rows that are split off and changed are counted as such; a method that fails on a few rows is named.

    The test set calls its text differently.
    """
    mine = file.parent / "mine.py"
    mine.write_text(
        '"""Mine."""\nimport numpy as np\n\n\ndef many(features):\n    """Needs 90 rows."""\n'
        '    if len(features) < 60:\n        raise ValueError("too few rows")\n'
        "    return np.arange(len(features)) * 1.0\n"
    )
    text = file.read_text().replace('validation = "validation.jsonl"', "validation = 0.125")
    entry = '{name = "mine", representation = "hidden", score = "./mine.py:many", select = "top"}'
    text = text.replace('"less"]', f'"less", {entry}]').replace("[tests]", "[corrupt]\nduplicate = 0.25\n[tests]")
    more = 'decontaminate = true\nfields = {text = ["text", "review"]}'
    text = text.replace("keep = [0.5]", f"keep = [0.5]\n{more}")
    test = file.parent / "test.jsonl"
    test.write_text(test.read_text().replace('"text"', '"review"'))
    file.write_text(text)
    done = prune("estimate", file, "-o", file.parent / "runs", "--seconds", 0, "--json")
    assert done.code == 0, done.err
    said = {stage["stage"]: stage for stage in done.json()["stages"]}
    assert prune("pipeline", file, "-o", file.parent / "runs", "--only", "decontaminated").code == 0
    rest = len(read_rows(file.parent / "runs" / "decontaminated" / "select.jsonl"))
    assert said["warm-up"]["rows"] == rest + round(rest / 4)
    assert said["score"]["unknown"] == 1
    assert [said[name]["unknown"] for name in ("decontaminate", "finetune")] == [0, 0]
    assert said["eval"]["unknown"] == 0
    unmeasured = [note for note in done.json()["notes"] if note.startswith("not measured: ")]
    assert unmeasured[0].startswith("not measured: score mine: ")
    assert "prune-estimate-" not in "".join(unmeasured)


@pytest.mark.slow
def test_rows_whose_keys_have_other_names(file: Path, prune: Prune) -> None:
    """Every stage is measured, and trainings on all rows too."""
    for path in file.parent.glob("*.jsonl"):
        path.write_text(path.read_text().replace('"text"', '"review"'))
    file.write_text('fields = {text = "review"}\n' + file.read_text())
    done = prune("estimate", file, "-o", file.parent / "runs", "--seconds", 0, "--json")
    assert done.code == 0, done.err
    assert not any(note.startswith("not measured: ") for note in done.json()["notes"])


@pytest.mark.slow
def test_rows_of_two_formats(tmp_path: Path, prune: Prune) -> None:
    """A test set of another format than the training rows is measured as what it is."""
    write_rows(
        tmp_path / "train.jsonl", [{"instruction": f"Add {i} and {i}.", "output": str(2 * i)} for i in range(40)]
    )
    turns = ([{"role": "user", "content": f"Add {i}"}, {"role": "assistant", "content": "5"}] for i in range(8))
    write_rows(tmp_path / "test.jsonl", [{"messages": turn} for turn in turns])
    file = tmp_path / "p.toml"
    file.write_text(
        f'task = "generation"\ntrain = "train.jsonl"\nmodel = "{REPOSITORY}/sample_data/lm"\n'
        'methods = ["random"]\nkeep = [0.5]\nseeds = [0]\ntests = {test = "test.jsonl"}\n'
        "[finetune]\nsteps = 1\n[eval]\nmax_new_tokens = 0\n"
    )
    done = prune("estimate", file, "-o", tmp_path / "runs", "--seconds", 0, "--json")
    assert done.code == 0, done.err
    assert not any(note.startswith("not measured: ") for note in done.json()["notes"])
