"""Fine-tuning: which head is trained, and which checkpoints are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prune_cli.artifacts.manifest import open_artifact
from tests.conftest import Prune, read_rows


def with_head(encoder: Path, folder: Path, names: list[str]) -> Path:
    """A model folder with a head of its own, of random weights, over labels in this order."""
    shutil.copytree(encoder, folder)
    torch.manual_seed(1)
    labels = dict(enumerate(names))
    model = AutoModelForSequenceClassification.from_pretrained(encoder, num_labels=len(names), id2label=labels)
    with torch.no_grad():
        model.classifier.bias.copy_(torch.linspace(-0.5, 0.5, len(names)))
    model.save_pretrained(folder)
    return folder


def test_a_trained_head_keeps_its_labels(prune: Prune, data: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A head over positive, negative stays that: after a step of no size it predicts what it predicted before."""
    folder = with_head(tiny_model, tmp_path / "model", ["positive", "negative"])
    training = ["--steps", 1, "--learning-rate", "1e-12", "--device", "cpu"]
    done = prune("finetune", data / "train.jsonl", "-o", tmp_path / "tuned", "--model", folder, *training)
    assert done.code == 0, done.err
    assert "new head" not in done.err
    assert prune("eval", tmp_path / "tuned", data / "test.jsonl", "-o", tmp_path / "metrics").code == 0
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForSequenceClassification.from_pretrained(folder)
    model.eval()
    for row, predicted in zip(
        read_rows(data / "test.jsonl"), read_rows(tmp_path / "metrics" / "predictions.jsonl"), strict=True
    ):
        with torch.no_grad():
            best = int(model(**tokenizer(row["text"], return_tensors="pt")).logits.argmax())
        assert predicted["prediction"] == model.config.id2label[best]


def test_a_head_of_other_labels_is_drawn_anew(prune: Prune, data: Path, tiny_model: Path, tmp_path: Path) -> None:
    """A head over two other labels has nothing to say about these: a new one is drawn, and that is told."""
    folder = with_head(tiny_model, tmp_path / "model", ["spam", "ham"])
    training = ["--steps", 1, "--learning-rate", "1e-12", "--device", "cpu"]
    done = prune("finetune", data / "train.jsonl", "-o", tmp_path / "tuned", "--model", folder, *training)
    assert done.code == 0, done.err
    assert "a new head is drawn; its own knows the labels spam, ham" in done.err
    before = AutoModelForSequenceClassification.from_pretrained(folder)
    after = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    assert not torch.allclose(before.classifier.weight, after.classifier.weight)
    layer = "bert.encoder.layer.0.output.dense.weight"
    assert torch.allclose(before.state_dict()[layer], after.state_dict()[layer], atol=1e-6)


@pytest.mark.parametrize(("epochs", "kept"), [(2, ["1", "2"]), (1.5, ["1", "2"]), (0.4, ["1"])])
def test_a_checkpoint_after_each_epoch(
    prune: Prune, data: Path, tiny_model: Path, tmp_path: Path, epochs: float, kept: list[str]
) -> None:
    """Every epoch that was begun leaves a checkpoint with the mean of its steps' rates."""
    out = tmp_path / "tuned"
    training = ["--epochs", epochs, "--batch-size", 8, "--checkpoints", "epoch", "--schedule", "constant"]
    done = prune("finetune", data / "train.jsonl", "-o", out, "--model", tiny_model, *training)
    assert done.code == 0, done.err
    checkpoints = open_artifact(out).about["checkpoints"]
    assert [checkpoint["name"] for checkpoint in checkpoints] == kept
    assert [checkpoint["learning_rate"] for checkpoint in checkpoints] == pytest.approx([5e-5] * len(kept))
    assert json.loads((out / "checkpoints" / kept[-1] / "config.json").read_text())["hidden_size"] == 16
