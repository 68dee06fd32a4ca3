"""Fine-tuning in several processes, started by torchrun, makes what one does, to rounding; killed, a rerun ends it."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prune_cli import tasks
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.open import Reading, open_rows
from prune_cli.runtime import processes
from prune_cli.tasks import classification
from prune_cli.training.record import Record
from prune_cli.training.trainer import _Trainer, part_of
from tests.conftest import PATIENCE, REPOSITORY, Prune, sentences, write_rows
from tests.test_processes import finish, of_rank, start
from tests.test_resume import digests


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rows(tmp_path_factory.mktemp("rows") / "train.jsonl", sentences(45))


def training(rows: Path, out: Path, model: Path, *more: object) -> list[object]:
    """45 rows in batches of 4, two to a step: six steps an epoch, the last of a batch of one row."""
    options = ["--epochs", 2, "--batch-size", 4, "--accumulate", 2, "--learning-rate", "1e-2"]
    return ["finetune", rows, "-o", out, "--model", model, *options, "--keep-checkpoints", "epoch", *more]


def same_to_rounding(one: Path, two: Path) -> None:
    """The same files; numbers may differ by rounding."""
    first, second = open_artifact(one), open_artifact(two)
    assert first.manifest["key"] == second.manifest["key"]
    assert first.files.keys() == second.files.keys()
    for name in first.files:
        if name.endswith(".safetensors"):
            ours, theirs = load_file(one / name), load_file(two / name)
            assert ours.keys() == theirs.keys()
            for tensor in ours:
                np.testing.assert_allclose(
                    theirs[tensor], ours[tensor], rtol=1e-3, atol=2e-4, err_msg=f"{name} {tensor}"
                )
        elif name != "log.jsonl":
            assert first.files[name] == second.files[name], name


@pytest.mark.parametrize("rows_in_batch", [1, 3, 4])
def test_the_parts_make_the_whole(
    rows_in_batch: int, data: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The mean of two processes' gradients is that of the mean loss over the batch; each row is noted once."""
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    rows = open_rows(str(data / "train.jsonl"), tasks.reading_of("classification", Reading()), classification.check)
    encoded = classification.encode(rows, tokenizer, 32, ["negative", "positive"])
    batch = [5, 0, 4, 3][:rows_in_batch]

    def gradient(loss: torch.Tensor) -> torch.Tensor:
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])

    record = Record(len(rows), 1)
    trainer = SimpleNamespace(_task=classification, _record=record, state=SimpleNamespace(epoch=0.0))
    monkeypatch.setattr(processes, "count", lambda: 2)
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr(processes, "rank", lambda rank=rank: rank)
        inputs = part_of(batch, task=classification, encoded=encoded, pad=0)
        parts.append(gradient(_Trainer.compute_loss(trainer, model, inputs)))
    monkeypatch.undo()
    whole = classification.collate(encoded, batch, 0, "cpu")
    gold = whole.pop("labels")
    expected = gradient(torch.nn.functional.cross_entropy(model(**whole).logits, gold))
    torch.testing.assert_close((parts[0] + parts[1]) / 2, expected, rtol=1e-4, atol=1e-6)
    record.flush()
    assert np.flatnonzero(~np.isnan(record.arrays["logprob"][:, 0])).tolist() == sorted(batch)


def test_another_precision_of_accelerates_is_refused(
    data: Path, tiny_model: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer would follow it, and the recipe would not tell."""
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    ran = prune("finetune", data / "train.jsonl", "-o", tmp_path / "out", "--model", tiny_model, "--device", "cpu")
    assert ran.errors == ["precision: float32; accelerate's settings say fp16, the same is needed"]


@pytest.mark.slow
def test_two_train_as_one(rows: Path, tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """The same recipe, weights, moments and dynamics, each row once an epoch: the last batch has no row for one."""
    more = ["--keep-moments"]
    ran = prune(*training(rows, tmp_path / "one", tiny_model, *more))
    assert ran.code == 0, ran.err
    code, printed, err = finish(start(*training(rows, tmp_path / "two", tiny_model, *more)))
    assert (code, printed) == (0, f"{tmp_path / 'two'}\n"), err
    same_to_rounding(tmp_path / "one", tmp_path / "two")
    assert [json.loads(line)["rows"] for line in (tmp_path / "two" / "log.jsonl").open()] == [45, 45]
    assert open_artifact(tmp_path / "two").manifest["made"]["processes"] == 2


@pytest.mark.slow
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_two_train_a_language_model_as_one(tune: str, tmp_path: Path, prune: Prune) -> None:
    """Also where logits are worked out in parts, outside the forward that the processes share."""
    few = (REPOSITORY / "sample_data/generation/train.jsonl").read_text("utf-8").splitlines(keepends=True)[:20]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(few), "utf-8")
    more = ["--task", "generation", "--tune", tune]
    ran = prune(*training(rows, tmp_path / "one", REPOSITORY / "sample_data/lm", *more))
    assert ran.code == 0, ran.err
    code, _, err = finish(start(*training(rows, tmp_path / "two", REPOSITORY / "sample_data/lm", *more)))
    assert code == 0, err
    same_to_rounding(tmp_path / "one", tmp_path / "two")


@pytest.fixture(scope="module")
def undisturbed(rows: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a long training in two processes, with dropout."""
    out = tmp_path_factory.mktemp("whole") / "out"
    code, _, err = finish(start(*long(rows, out, tiny_model)))
    assert code == 0, err
    return digests(out)


def long(rows: Path, out: Path, model: Path) -> list[object]:
    lora = ["--tune", "lora", "--lora-dropout", 0.2, "--lora-targets", "query,value"]
    return training(rows, out, model, *lora, "--epochs", 12, "--save-minutes", 0)


@pytest.mark.slow
@pytest.mark.parametrize(("killed", "more"), [(0, 2), (1, 2), (1, 1)])
def test_killed_and_run_again(
    rows: Path, tiny_model: Path, undisturbed: dict[str, str], tmp_path: Path, prune: Prune, killed: int, more: int
) -> None:
    """kill -9 of either ends both. Two go on to the bytes of an undisturbed run; one goes on, and it is told."""
    out = tmp_path / "out"
    process = start(*long(rows, out, tiny_model))
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob("out.part/.resume/checkpoint-1?/whole")):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(of_rank(process.pid, killed), signal.SIGKILL)
    code, _, err = finish(process)
    assert code != 0
    assert "SIGKILL" in err or "Signal 9" in err
    assert not out.exists()
    if more == 2:
        code, printed, err = finish(start(*long(rows, out, tiny_model)))
        assert (code, printed) == (0, f"{out}\n"), err
        assert digests(out) == undisturbed
    else:
        ran = prune(*long(rows, out, tiny_model))
        assert ran.code == 0, ran.err
        assert "finetune: 2 processes began, 1 go on: dropout draws anew" in ran.err
        err = ran.err
        assert [json.loads(line)["rows"] for line in (out / "log.jsonl").open()] == [45] * 12
    assert "finetune, steps: going on from 1" in err


@pytest.mark.slow
def test_ctrl_c_saves_the_step(rows: Path, tiny_model: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    """As a terminal sends it, to all: the step is finished and saved by both, and gone on from."""
    out = tmp_path / "out"
    command = [*long(rows, out, tiny_model), "--save-minutes", 60]
    process = start(*command)
    deadline = time.monotonic() + PATIENCE
    while not list(tmp_path.glob("out.part/checkpoints/2")):
        assert process.poll() is None, finish(process)
        assert time.monotonic() < deadline
        time.sleep(0.002)
    for rank in (0, 1):
        os.kill(of_rank(process.pid, rank), signal.SIGINT)
    process.send_signal(signal.SIGINT)
    code, _, err = finish(process)
    assert code != 0
    assert err.count("interrupted: the same command again") == 1
    code, _, err = finish(start(*command))
    assert code == 0, err
    assert "finetune, steps: going on from" in err
    assert digests(out) == undisturbed


@pytest.mark.slow
def test_what_goes_wrong_is_one_line(rows: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A training that diverges ends both; a batch that cannot be shared out is refused."""
    code, _, err = finish(start(*training(rows, tmp_path / "out", tiny_model, "--learning-rate", "1e30")))
    assert code != 0
    assert err.count("error: ") == err.count("error: training diverged: logprob is not a finite number in epoch") == 1
    assert not list(tmp_path.iterdir())
    code, _, err = finish(start(*training(rows, tmp_path / "out", tiny_model, "--batch-size", 5)))
    assert code != 0
    assert err.count("error: batch_size: 5, for 2 processes; allowed: a multiple of 2") == 1
