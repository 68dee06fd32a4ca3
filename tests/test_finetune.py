"""Fine-tuning: which head is trained, and which checkpoints are kept."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
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
    training = ["--epochs", epochs, "--batch-size", 8, "--keep-checkpoints", "epoch", "--schedule", "constant"]
    done = prune("finetune", data / "train.jsonl", "-o", out, "--model", tiny_model, *training)
    assert done.code == 0, done.err
    checkpoints = open_artifact(out).about["checkpoints"]
    assert [checkpoint["name"] for checkpoint in checkpoints] == kept
    assert [checkpoint["learning_rate"] for checkpoint in checkpoints] == pytest.approx([5e-5] * len(kept))
    assert json.loads((out / "checkpoints" / kept[-1] / "config.json").read_text())["hidden_size"] == 16


STEPS: dict[str, tuple[list[object], float, float, list[float]]] = {  # options, decay, clip, rates / peak
    "accumulated alone": (["--clip", 0], 0, math.inf, [1, 0.75, 0.5, 0.25]),
    "decay": (["--clip", 0, "--weight-decay", 20], 20, math.inf, [1, 0.75, 0.5, 0.25]),
    "clip": (["--clip", 0.01], 0, 0.01, [1, 0.75, 0.5, 0.25]),
    "constant": (["--clip", 0, "--schedule", "constant"], 0, math.inf, [1, 1, 1, 1]),
    "constant after a warm-up": (
        ["--clip", 0, "--schedule", "constant", "--warmup-ratio", 0.5],
        0,
        math.inf,
        [0, 0.5, 1, 1],
    ),
}


@pytest.mark.parametrize("case", STEPS)
def test_each_option_of_a_step_is_adamws(case: str, prune: Prune, data: Path, tiny_model: Path, tmp_path: Path) -> None:
    """Weights and moments after each step are those of AdamW by hand: the mean gradient, clipped, decay, rates.

    24 rows in 2 batches of 12 to a step are one step an epoch. Adam divides a gradient's scale out of its step; the
    moments keep it. Weights are compared where gradients are above rounding: elsewhere the step's sign is chance.
    """
    options, decay, clip, shares = STEPS[case]
    train, peak = data / "train.jsonl", 1e-2
    still = ["--steps", 1, "--learning-rate", "1e-30", "--model", tiny_model]
    assert prune("finetune", train, "-o", tmp_path / "start", *still).code == 0
    steps = ["--epochs", 4, "--batch-size", 12, "--accumulate", 2, "--learning-rate", peak, "--model"]
    kept = ["--keep-checkpoints", "epoch", "--keep-moments"]
    ran = prune("finetune", train, "-o", tmp_path / "out", *steps, tmp_path / "start", *kept, *options)
    assert ran.code == 0, ran.err

    rows = read_rows(train)
    network = AutoModelForSequenceClassification.from_pretrained(tmp_path / "start")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "start")
    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    gold = torch.tensor([["negative", "positive"].index(row["label"]) for row in rows])
    named = dict(network.named_parameters())
    first, second = ({name: torch.zeros_like(p) for name, p in named.items()} for _ in range(2))
    compared = 0
    for t, share in enumerate(shares, 1):
        network.zero_grad()
        torch.nn.functional.cross_entropy(network(**batch).logits, gold).backward()
        grads = {name: p.grad for name, p in named.items() if p.grad is not None}
        norm = torch.stack([g.norm() for g in grads.values()]).norm()
        scale = min(1.0, clip / float(norm))
        assert (scale < 1) == (case == "clip")
        moments = load_file(tmp_path / f"out/checkpoints/{t}/moments.safetensors")
        weights = load_file(tmp_path / f"out/checkpoints/{t}/model.safetensors")
        for name, g in grads.items():
            m = first[name].lerp_(g * scale, 0.1)
            v = second[name].mul_(0.999).add_((g * scale) ** 2, alpha=0.001)
            sizable = v.sqrt() > 1e-5 * scale
            compared += int(sizable.sum())
            torch.testing.assert_close(moments[f"exp_avg.{name}"], m, rtol=2e-3, atol=1e-5 * scale)
            torch.testing.assert_close(moments[f"exp_avg_sq.{name}"], v, rtol=4e-3, atol=1e-7 * scale**2)
            shrink = 1 - share * peak * decay if g.dim() > 1 else 1.0  # neither biases nor LayerNorm
            step = m / (1 - 0.9**t) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            with torch.no_grad():
                named[name].mul_(shrink).sub_(share * peak * step)
            torch.testing.assert_close(weights[name][sizable], named[name][sizable].detach(), rtol=1e-3, atol=5e-5)
            with torch.no_grad():
                named[name].copy_(weights[name])  # so that what rounding chose does not add up
    assert compared > 1000
