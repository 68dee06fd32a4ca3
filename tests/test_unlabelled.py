"""Classification rows without labels: what needs no label runs, what does refuses them in one line."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import open_artifact
from tests.conftest import Prune, sentences, write_rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with rows that have labels, none, and null in part."""
    monkeypatch.chdir(tmp_path)
    rows = sentences(6)
    write_rows(tmp_path / "labels.jsonl", rows)
    write_rows(tmp_path / "none.jsonl", [{key: row[key] for key in ("id", "text")} for row in rows])
    write_rows(tmp_path / "part.jsonl", [*rows[:4], {**rows[4], "label": None}, rows[5]])
    return tmp_path


def test_what_needs_no_label_runs(here: Path, prune: Prune, tiny_model: Path) -> None:
    """Hidden states are those of the same rows with labels; scores and selections of them and of the rows run."""
    hidden = {}
    for name in ("labels", "none", "part"):
        ran = prune("represent", f"{name}.jsonl", "-o", name, "--model", tiny_model, "--kind", "hidden")
        assert ran.code == 0, ran.err
        hidden[name] = tensors.load(here / name / "hidden.safetensors")["hidden"]
    np.testing.assert_array_equal(hidden["none"], hidden["labels"])
    np.testing.assert_array_equal(hidden["part"], hidden["labels"])
    assert open_artifact(here / "none").about["labels"] == []
    for score in (["prototypicality", "--set", "k=2"], ["rds", "--target", "labels"], ["random"]):
        assert prune("score", "none", "-o", f"s-{score[0]}", "--method", *score).code == 0
        assert prune("select", f"s-{score[0]}", "-o", f"k-{score[0]}", "--method", "top", "--keep", 3).code == 0
    assert prune("select", "none", "-o", "kmeans", "--method", "kmeans", "--keep", 3, "--set", "k=2").code == 0
    assert prune("select", "none.jsonl", "-o", "random", "--method", "random", "--keep", 3).code == 0


@pytest.mark.parametrize("name", ["none", "part"])
def test_what_needs_labels_refuses_them(name: str, here: Path, prune: Prune, tiny_model: Path, made: Path) -> None:
    """The first row without one is named, and what needs it."""
    data, warmup = f"{name}.jsonl", made / "warmup"
    found = {"none": 'none.jsonl:1: no "label"; the row has: "text"; ', "part": "part.jsonl:5: label is null; "}
    influence = ["--kind", "influence", "--target-data"]
    for command, who in (
        (["finetune", data, "--model", tiny_model], "finetune"),
        (["eval", warmup, data], "eval"),
        (["represent", data, "--model", warmup, "--kind", "dynamics"], "dynamics"),
        (["represent", data, "--model", warmup, "--kind", "hidden,gradient", "--dim", 8], "gradient"),
        (["represent", data, "--model", warmup, *influence, "labels.jsonl"], "influence"),
        (["represent", "labels.jsonl", "--model", warmup, *influence, data], "influence"),
        (["select", data, "--method", "random", "--keep", 3, "--balance", "keep"], "--balance"),
    ):
        ran = prune(*command, "-o", "out")
        assert ran.code == 1 and len(ran.errors) == 1, ran.err
        assert ran.errors[0] == f"{found[name]}{who} needs one in every row", ran.err
        assert not (here / "out").exists() and not (here / "out.part").exists()


def test_all_rows_without_a_label_are_told(here: Path, prune: Prune, tiny_model: Path) -> None:
    """The first five one by one, the rest as a number; how to read another key only where it looks like a label."""
    rows = [{**row, "label": None} if i % 2 else row for i, row in enumerate(sentences(60))]
    write_rows(here / "half.jsonl", rows)
    ran = prune("finetune", "half.jsonl", "-o", "out", "--model", tiny_model)
    assert [error.partition(": ")[0] for error in ran.errors[:5]] == [f"half.jsonl:{i}" for i in range(2, 12, 2)]
    assert ran.errors[5:] == ["half.jsonl: and 25 more rows without a label"]
    assert "hint: give them a label, or take them out; --skip-bad does not" in ran.err
