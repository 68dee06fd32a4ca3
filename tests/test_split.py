"""Parts that a pipeline splits off its training rows: disjoint, balanced, drawn by a seed, no text on two sides."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.split import Parts
from prune_cli.errors import PruneError
from prune_cli.pipeline.checks import read_plan
from tests.conftest import Prune, read_rows, sentences, write_rows

FILE = """
train = "train.jsonl"
validation = 0.25
model = "{model}"
methods = ["less"]
keep = [6]
seeds = [0]
{more}

[tests]
held-out = 0.2
ood = "ood.jsonl"

[warmup]
epochs = 1

[represent]
dim = 16

[finetune]
steps = 1
"""


def rows(n: int) -> list[dict[str, Any]]:
    """n rows without ids, each with a text of its own; every third negative."""
    return [{"label": row["label"], "text": f"{row['text']} {i}"} for i, row in enumerate(sentences(n))]


def parts_of(texts: list[str], labels: list[int], shares: dict[str, float], seed: int = 0) -> dict[str, list[int]]:
    parts = Parts(shares, seed)
    went = parts.of(texts, np.array(labels))
    return {name: np.flatnonzero(went == j).tolist() for j, name in enumerate(parts.names)}


@pytest.mark.parametrize("seed", range(5))
def test_parts_have_the_ratio_of_the_labels(seed: int) -> None:
    """Each part has its share of each label, and all rows are in one part."""
    labels = [0] * 60 + [1] * 30 + [2] * 10
    found = parts_of([str(i) for i in range(100)], labels, {"validation": 0.1, "tests/a": 0.2}, seed)
    counts = {name: [sum(labels[i] == label for i in rows) for label in range(3)] for name, rows in found.items()}
    assert counts == {"tests/a": [12, 6, 2], "validation": [6, 3, 1], "train": [42, 21, 7]}
    assert sorted(i for some in found.values() for i in some) == list(range(100))


def test_a_text_stays_on_one_side() -> None:
    """Rows of one text, whatever their labels, are in one part, and a part is no larger than its share."""
    rng = np.random.default_rng(0)
    texts = [f"text {j}" for j in rng.integers(0, 60, 200)]
    labels = rng.integers(0, 2, 200).tolist()
    for seed in range(20):
        found = parts_of(texts, labels, {"validation": 0.2}, seed)
        assert not {texts[i] for i in found["validation"]} & {texts[i] for i in found["train"]}
        assert 30 <= len(found["validation"]) <= 40


def test_the_seed_decides() -> None:
    """The same seed draws the same rows, another one others; two runs of texts are drawn by place, not by content."""
    texts, labels = [str(i) for i in range(50)], [0] * 50
    first = parts_of(texts, labels, {"validation": 0.2})
    assert first == parts_of(texts, labels, {"validation": 0.2}) == parts_of(texts[::-1], labels, {"validation": 0.2})
    assert first != parts_of(texts, labels, {"validation": 0.2}, 1)


@pytest.mark.parametrize(("n", "share"), [(3, 0.1), (1, 0.9)])
def test_a_part_without_rows_is_an_error(n: int, share: float) -> None:
    """Too few rows for a share, or for what is left."""
    with pytest.raises(PruneError, match=r"(validation: 0.1|train: the rest) of [13] rows has no row"):
        parts_of([str(i) for i in range(n)], [0] * n, {"validation": share})


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """train.jsonl of 60 rows in unusual JSON, ood.jsonl that shares 3 texts with it, pipeline.toml."""
    lines = [json.dumps(row, separators=(" ,", ":  ")) + "\n" for row in rows(60)]
    (tmp_path / "train.jsonl").write_text("".join(lines))
    write_rows(tmp_path / "ood.jsonl", [*rows(3), *({"text": f"other {i}", "label": "positive"} for i in range(4))])
    (tmp_path / "pipeline.toml").write_text(FILE.format(model=tiny_model, more=""))
    return tmp_path


@pytest.mark.parametrize("braced", [False, True])
def test_rows_of_the_target_set_that_stand_in_a_test_set_are_told(
    braced: bool, folder: Path, tmp_path: Path, prune: Prune
) -> None:
    """Of a file of its own, and of a part that is split off where contaminated rows are left out; once each."""
    name = "target {0}.jsonl" if braced else "target.jsonl"
    write_rows(tmp_path / name, rows(2) + rows(9)[5:])
    file = folder / "pipeline.toml"
    text = file.read_text()
    file.write_text(re.sub(r"(?m)^validation = .*$", f'validation = "{name}"', text))
    told = prune("pipeline", file, "-o", folder / "runs", "--dry-run")
    assert told.code == 0, told.err
    assert f"{name}: 2 of 6 rows of the target set have a text of a test set: ood 2; what is" in told.err
    file.write_text("decontaminate = true\n" + text)
    parts = tmp_path / "runs/split/validation/select.jsonl"
    assert prune("pipeline", file, "-o", folder / "runs", "--only", "split validation").code == 0
    shared = sum(json.loads(line)["text"] in [row["text"] for row in rows(3)] for line in parts.open())
    told = prune("pipeline", file, "-o", folder / "runs", "--dry-run")
    assert ("split off as the target set have a text" in told.err) == bool(shared)
    assert not shared or f"{shared} of 15 rows that are split off" in told.err


def test_a_pipeline_splits_its_training_rows(folder: Path, prune: Prune) -> None:
    """The parts are the rows as they came, disjoint, and all that follows rests on them; a rerun does none."""
    command = ["pipeline", folder / "pipeline.toml", "-o", folder / "runs"]
    planned = prune(*command, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert {step["state"] for step in planned.json()["steps"]} == {"would run"}
    done = prune(*command, "--json")
    assert done.code == 0, done.err
    warnings = [line for line in done.err.splitlines() if line.startswith("warning: ") and "training rows" in line]
    assert len(warnings) == 1 and "as the target set" not in done.err
    assert "train.jsonl: 3 of 60 training rows have a text of a test set: ood 3; decontaminate = true" in warnings[0]
    assert [step["step"] for step in done.json()["steps"]] == [step["step"] for step in planned.json()["steps"]]

    split = folder / "runs/split"
    names = ["tests/held-out", "validation", "train"]
    lines = {name: (split / name / "select.jsonl").read_bytes().splitlines() for name in names}
    assert [len(lines[name]) for name in names] == [12, 15, 33]
    assert sorted(line for some in lines.values() for line in some) == sorted(
        (folder / "train.jsonl").read_bytes().splitlines()
    )
    for name in names:
        why = read_rows(split / name / "why.jsonl")
        assert [line["id"] for line in why] == list(range(1, 61))
        assert [line["kept"] for line in why] == [line["part"] == name for line in why]
        labels = Counter(json.loads(line)["label"] for line in lines[name])
        assert labels["negative"] * 2 == labels["positive"]
    runs = folder / "runs"
    assert open_artifact(runs / "warmup").about["rows"] == 33
    assert open_artifact(next((runs / "represent/validation").iterdir())).about["rows"] == 15
    assert {result["test"]: result["n"] for result in done.json()["results"]} == {"held-out": 12, "ood": 7}
    kept = read_rows(runs / "methods/less/keep-6/select/why.jsonl")
    assert {row["id"] for row in kept} == {row["id"] for row in why if row["kept"]}
    assert "chosen by split" in prune("show", split / "train").out
    exported = prune("export", split / "train", "-o", folder / "exported", "--for", "datasets", "--why", "part")
    assert exported.code == 0, exported.err
    assert "| from | train.jsonl |" in (folder / "exported/README.md").read_text()

    again = prune(*command, "--json")
    assert {step["state"] for step in again.json()["steps"]} == {"current"}
    text = (folder / "pipeline.toml").read_text()
    (folder / "pipeline.toml").write_text("split_seed = 3\n" + text)
    changed = prune(*command, "--json", "--dry-run")
    assert {step["state"] for step in changed.json()["steps"]} == {"would run"}
    assert "options.seed 0 -> 3" in changed.json()["steps"][0]["reason"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("0.25", "1", "validation: 1; allowed: a data file, or a share between 0 and 1"),
        ("0.25", "true", "validation: true; allowed: the path of a data file"),
        ("0.25", "0.8", "validation, tests/held-out: shares of 1 in all; allowed: below 1"),
        ("held-out", '"../x"', "tests/../x; allowed for a share: letters, digits, - and _, as it names a folder"),
        ("keep = [6]", "keep = [40]", "keep: 40; "),
        ("0.25", "0.001", "validation: 0.001 of 60 rows has no row"),
        ("methods", "split_seed = -1\nmethods", "split_seed: -1; allowed: a whole number, 0 or more"),
    ],
)
def test_shares_are_checked_with_the_file(old: str, new: str, told: str, folder: Path) -> None:
    """A wrong share, and a budget that is more than the rows that are left, are mistakes of the file."""
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(PruneError) as raised:
        read_plan(file)
    assert any(f"{file}: {told}" in line for line in (raised.value.message, *raised.value.also))
