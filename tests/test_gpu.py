"""On a CUDA device: what the CPU makes, but for rounding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import open_artifact
from tests.conftest import Prune, read_rows

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here"),
]


@pytest.mark.parametrize("kinds", ["hidden,dynamics,gradient", "influence"])
def test_rows_are_represented_as_on_the_cpu(kinds: str, made: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """Every tensor, from the same weights in float32."""
    start: list[Any] = [
        "represent",
        data / "train.jsonl",
        "--model",
        made / "warmup",
        "--kind",
        kinds,
        "--dtype",
        "float32",
    ]
    start += ["--target-data", data / "validation.jsonl"] if kinds == "influence" else ["--dim", 64]
    for device in ("cpu", "cuda"):
        ran = prune(*start, "--device", device, "-o", tmp_path / device)
        assert ran.code == 0, ran.err
    for kind in kinds.split(","):
        ours, theirs = (tensors.load(tmp_path / device / f"{kind}.safetensors") for device in ("cuda", "cpu"))
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-2, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_models_are_trained_and_judged(
    precision: str, data: Path, tiny_model: Path, tmp_path: Path, prune: Prune
) -> None:
    """Training on the device learns the training rows, and eval there finds what eval on the CPU does."""
    start: list[Any] = ["finetune", data / "train.jsonl", "-o", tmp_path / "model", "--model", tiny_model]
    ran = prune(
        *start,
        "--device",
        "cuda",
        "--precision",
        precision,
        "--epochs",
        20,
        "--batch-size",
        8,
        "--learning-rate",
        "1e-2",
    )
    assert ran.code == 0, ran.err
    assert open_artifact(tmp_path / "model").options["precision"] == precision
    found = []
    for device in ("cpu", "cuda"):
        ran = prune("eval", tmp_path / "model", data / "train.jsonl", "--device", device, "-o", tmp_path / device)
        assert ran.code == 0, ran.err
        found.append([row["prediction"] for row in read_rows(tmp_path / device / "predictions.jsonl")])
    assert found[0] == found[1]
    assert found[0] == [row["label"] for row in read_rows(data / "train.jsonl")]
