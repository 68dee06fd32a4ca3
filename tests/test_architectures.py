"""Every family of models that transformers has: it works, or is refused in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.artifacts import tensors
from prune_cli.training import checkpoints
from tests.conftest import Prune, write_rows
from tests.harness import families
from tests.harness.sweep import ALONE, BROKEN, REFUSED, ROWS, WORKS, attempt, auto_model, on_page, sweep

FEW = [
    # an encoder with a decoder; a table of relative positions
    pytest.param("classification", "t5", WORKS, marks=pytest.mark.slow),
    pytest.param("choice", "fnet", ALONE, marks=pytest.mark.slow),  # rows that change with the padding beside them
    # experts; names and shapes in files that are not those of the model
    pytest.param("generation", "mixtral", WORKS, marks=pytest.mark.slow),
    ("generation", "reformer", REFUSED),  # it cannot train on rows of any length
    pytest.param("generation", "rwkv", WORKS, marks=pytest.mark.slow),  # a state that is kept in place
    pytest.param("generation", "xlstm", REFUSED, marks=pytest.mark.slow),  # it fails at generating
]


@pytest.mark.parametrize(("task", "family", "expected"), FEW)
def test_a_family(task: str, family: str, expected: str, prune: Prune, tmp_path: Path) -> None:
    """What was trained is represented by every kind, trained on and evaluated, or refused in one line."""
    tried = attempt(prune, task, family, tmp_path)
    assert expected in tried.lists, tried.said


@pytest.mark.slow
def test_the_table_of_families(prune: Prune, tmp_path: Path) -> None:
    """All families work or are refused in one line; as the page says, for the transformers that it was made with."""
    tried = sweep(prune, tmp_path)
    assert not [outcome for task in tried.values() for outcome in task.values() if BROKEN in outcome.lists]
    differ = [
        (task, family, lists, tried[task][family])
        for task, of_task in on_page().items()
        for family, lists in of_task.items()
        if lists != tried[task][family].lists
    ]
    assert not differ, "python -m tests.harness.sweep writes the page anew"


def test_the_page_holds_what_is_tried_here() -> None:
    """The page is read as it was written, and is right of the families that each `make test` tries."""
    page = on_page()
    for task, family, expected in (getattr(few, "values", few) for few in FEW):
        assert expected in page.get(task, {}).get(family, {expected})


@pytest.mark.parametrize("family", ["mixtral", pytest.param("gpt_neox", marks=pytest.mark.slow)])
def test_a_training_goes_on_where_names_in_files_differ(
    family: str, prune: Prune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A training that was interrupted ends with the weights of one that was not, and each checkpoint has its own."""
    families.save(auto_model("generation"), family, tmp_path / "model")
    data = write_rows(tmp_path / "rows.jsonl", ROWS["generation"])
    train = ["finetune", data, "--model", tmp_path / "model", "--task", "generation", "--batch-size", 2]
    train += ["--epochs", 2, "--learning-rate", "1e-2", "--keep-checkpoints", "epoch", "--device", "cpu"]
    assert prune(*train, "-o", tmp_path / "whole").code == 0
    keep, train = checkpoints.keep, [*train, "--save-minutes", 0]

    def stopping(out: Path, epoch: int, *rest: Any) -> None:
        if epoch == 2:
            raise RuntimeError("stopped")
        keep(out, epoch, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "keep", stopping)
        with pytest.raises(RuntimeError, match="stopped"):
            prune(*train, "-o", tmp_path / "again")
    assert list((tmp_path / "again.part/.resume").glob("checkpoint-*"))
    assert prune(*train, "-o", tmp_path / "again").code == 0
    name = "model.safetensors"
    assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    represent = ["represent", data, "--model", tmp_path / "whole", "--kind", "dynamics", "--device", "cpu"]
    assert prune(*represent, "-o", tmp_path / "all", "--checkpoints", "all").code == 0
    assert prune(*represent, "-o", tmp_path / "last", "--checkpoints", "last").code == 0
    every, last = (tensors.load(tmp_path / n / "dynamics.safetensors")["logprob"] for n in ("all", "last"))
    np.testing.assert_array_equal(every[:, 1], last[:, 0])
    assert (every[:, 0] != every[:, 1]).all()
