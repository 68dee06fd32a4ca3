"""On a CUDA device: what the CPU makes, but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.gradients.factors import Outer
from prune_cli.gradients.influence import product
from prune_cli.gradients.norms import Norms
from prune_cli.gradients.projection import Sketch
from tests.conftest import REPOSITORY, Prune, read_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]

DEVICE = "cuda"
SAMPLE = REPOSITORY / "sample_data"
# task -> its rows, a model to train on them, how
TRAININGS: dict[str, tuple[str, str, list[str]]] = {
    "classification": (".", "model", []),
    "choice": ("choice", "model", []),
    "generation": ("generation", "lm", ["--tune", "lora"]),
}


@pytest.fixture(scope="module", params=TRAININGS)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, prune: Prune) -> Path:
    """A folder with a few rows of a task, and a model that was trained on them on the device for some steps."""
    rows, model, how = TRAININGS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    lines = (SAMPLE / rows / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "rows.jsonl").write_text("".join(lines[:24]), "utf-8")
    (folder / "target.jsonl").write_text("".join(lines[24:32]), "utf-8")
    start: list[Any] = ["finetune", folder / "rows.jsonl", "-o", folder / "model", "--model", SAMPLE / model]
    start += ["--task", request.param, "--epochs", 2, "--batch-size", 4, "--learning-rate", "1e-3", "--device", DEVICE]
    ran = prune(*start, "--keep-checkpoints", "epoch", "--keep-moments", *how)
    assert ran.code == 0, ran.err
    return folder


def represented(prune: Prune, folder: Path, out: Path, *asked: object) -> None:
    """Represent the rows on the CPU and on the device, into the folders `cpu` and `device` of `out`."""
    for name, device in (("cpu", "cpu"), ("device", DEVICE)):
        start: list[Any] = ["represent", folder / "rows.jsonl", "--model", folder / "model", "-o", out / name]
        ran = prune(*start, "--device", device, *asked)
        assert ran.code == 0, ran.err


def both(out: Path, kind: str) -> dict[str, tuple[Any, Any]]:
    """The tensors of a kind, each as the device and as the CPU made it."""
    ours, theirs = (tensors.load(out / name / f"{kind}.safetensors") for name in ("device", "cpu"))
    return {name: (ours[name], theirs[name]) for name in theirs}


@pytest.mark.parametrize("shape", [(40, 96, 300), (300, 24, 16), (1, 700, 700)])
def test_factors_in_bfloat16_are_multiplied_as_in_float32(shape: tuple[int, int, int]) -> None:
    """Norms are those of the same factors in float32 on the CPU; projections and products, but for the rounding."""
    t, r, c = shape
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(3, t, d, generator=generator).bfloat16() for d in (r, c))
    direction = torch.randn(r, c, generator=generator)
    given = Outer(left.to(DEVICE), right.to(DEVICE)), Outer(left.float(), right.float())
    norms, sketches, products = [], [], []
    for gradient in given:
        measured, sketch = Norms(), Sketch(512, 0)
        for collector in (measured, sketch):
            collector.begin(3, gradient.left.device)
        measured.add(gradient)
        sketch.add("layers.0.weight", gradient)
        norms.append(measured.norms().cpu())
        sketches.append(sketch.projected.cpu())
        products.append(product(gradient, direction.to(gradient.left.device)).cpu())
    assert torch.allclose(norms[0], norms[1], rtol=1e-4)
    size = norms[1].float()
    assert ((sketches[0] - sketches[1]).norm(dim=1) < 1e-2 * size).all()
    assert ((products[0] - products[1]).abs() < 1e-2 * size * direction.norm()).all()


@pytest.mark.parametrize("kinds", ["hidden,dynamics,gradient", "influence"])
def test_rows_are_represented_as_on_the_cpu(kinds: str, trained: Path, tmp_path: Path, prune: Prune) -> None:
    """Every tensor of every kind and task, from the same weights in float32."""
    more: list[Any] = ["--dim", 64, "--dtype", "float32"] if "gradient" in kinds else []
    more += ["--target-data", trained / "target.jsonl"] if kinds == "influence" else []
    if "hidden" in kinds and trained.name.startswith("generation"):
        kinds += ",unprompted"  # a kind of this task alone
    represented(prune, trained, tmp_path, "--kind", kinds, *more)
    for kind in kinds.split(","):
        for name, (ours, theirs) in both(tmp_path, kind).items():
            np.testing.assert_allclose(ours, theirs, rtol=1e-2, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("kind", ["gradient", "influence"])
def test_adams_steps_are_those_of_the_cpu(kind: str, trained: Path, tmp_path: Path, prune: Prune) -> None:
    """They point the same way; an entry whose gradient is rounding alone is a step of its own on each device."""
    more: list[Any] = ["--target-data", trained / "target.jsonl"] if kind == "influence" else ["--dim", 64]
    represented(prune, trained, tmp_path, "--kind", kind, "--precondition", "adam", *more)
    ours, theirs = (values.astype(np.float64).ravel() for values in both(tmp_path, kind)[kind])
    assert ours @ theirs > 0.95 * np.linalg.norm(ours) * np.linalg.norm(theirs)


def test_bfloat16_is_near_float32(trained: Path, tmp_path: Path, prune: Prune) -> None:
    """Gradients under autocast on the device are those of float32 on the CPU, as far as eight bits go."""
    represented(prune, trained, tmp_path / "exact", "--kind", "gradient", "--dim", 64, "--dtype", "float32")
    rough = ["--kind", "gradient", "--dim", 64, "--dtype", "float32", "--precision", "bfloat16"]
    represented(prune, trained, tmp_path / "rough", *rough)
    ours = both(tmp_path / "rough", "gradient")["gradient"][0].ravel()
    theirs = both(tmp_path / "exact", "gradient")["gradient"][1].ravel()
    assert ours @ theirs > 0.95 * np.linalg.norm(ours) * np.linalg.norm(theirs)


def test_tests_are_judged_as_on_the_cpu(trained: Path, tmp_path: Path, prune: Prune) -> None:
    """Losses are equal but for rounding, whatever the task; a language model writes on the device, too."""
    losses: list[float] = []
    for device in ("cpu", DEVICE):
        out = tmp_path / f"on-{device}-{len(losses)}"
        ran = prune("eval", trained / "model", trained / "target.jsonl", "-o", out, "--device", device, "--json")
        assert ran.code == 0, ran.err
        losses.append(ran.json()["metrics"]["target"]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_models_are_trained_and_judged(
    precision: str, data: Path, tiny_model: Path, tmp_path: Path, prune: Prune
) -> None:
    """Training on the device learns the training rows, and eval there finds what eval on the CPU does."""
    start: list[Any] = ["finetune", data / "train.jsonl", "-o", tmp_path / "model", "--model", tiny_model]
    start += ["--epochs", 20, "--batch-size", 8, "--learning-rate", "1e-2"]
    ran = prune(*start, "--device", DEVICE, "--precision", precision)
    assert ran.code == 0, ran.err
    assert open_artifact(tmp_path / "model").options["precision"] == precision
    predicted: list[list[Any]] = []
    for device in ("cpu", DEVICE):
        out = tmp_path / f"on-{device}-{len(predicted)}"
        ran = prune("eval", tmp_path / "model", data / "train.jsonl", "--device", device, "-o", out)
        assert ran.code == 0, ran.err
        predicted.append([row["prediction"] for row in read_rows(out / "predictions.jsonl")])
    assert predicted[0] == predicted[1]
    assert predicted[0] == [row["label"] for row in read_rows(data / "train.jsonl")]
