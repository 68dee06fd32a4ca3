"""The represent pass against a plain forward of each row alone, and pooling by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prune_cli.artifacts import tensors
from prune_cli.represent.kinds.hidden import pool
from prune_cli.represent.output import Output
from tests.conftest import Prune, read_rows

LABELS = ["negative", "positive"]


def stored(folder: Path, kind: str) -> dict[str, Any]:
    return tensors.load(folder / f"{kind}.safetensors")


def outputs(checkpoint: Path, tokens: Path, rows: list[dict[str, Any]]) -> list[Any]:
    """Each row's own forward, by transformers alone."""
    tokenizer = AutoTokenizer.from_pretrained(tokens)
    model = AutoModelForSequenceClassification.from_pretrained(checkpoint).eval()
    with torch.no_grad():
        return [model(**tokenizer(row["text"], return_tensors="pt"), output_hidden_states=True) for row in rows]


def test_pooling_by_hand() -> None:
    """Two rows of 3 and 2 tokens, one feature, padding that must not count: each pooling worked by hand."""
    states = torch.tensor([[[1.0], [2.0], [6.0]], [[4.0], [8.0], [99.0]]])
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    assert pool(states, mask, "cls").tolist() == [[1.0], [4.0]]
    assert pool(states, mask, "last").tolist() == [[6.0], [8.0]]
    assert pool(states, mask, "mean").tolist() == [[3.0], [6.0]]
    # weights t / Σ t: (1·1 + 2·2 + 3·6) / 6 and (1·4 + 2·8) / 3
    assert pool(states, mask, "position")[:, 0].tolist() == pytest.approx([23 / 6, 20 / 3])


def test_each_row_is_represented_as_it_is_alone(made: Path, data: Path) -> None:
    """Hidden states and dynamics at every checkpoint equal those of the row alone, in the order of the file."""
    rows = read_rows(data / "train.jsonl")
    hidden, dynamics = stored(made / "train", "hidden"), stored(made / "train", "dynamics")
    assert hidden["hidden"].shape == (24, 2, 16)
    for e, epoch in enumerate("12"):
        for i, output in enumerate(outputs(made / "warmup" / "checkpoints" / epoch, made / "warmup", rows)):
            mean = output.hidden_states[-1][0].mean(0).numpy()
            assert np.allclose(hidden["hidden"][i, e], mean, atol=2e-3)  # stored in half precision
            logits = output.logits[0].double()
            gold = LABELS.index(rows[i]["label"])
            p = torch.softmax(logits, 0)
            error = p - torch.nn.functional.one_hot(torch.tensor(gold), 2)
            assert dynamics["logprob"][i, e] == pytest.approx(float(p[gold].log()), abs=1e-5)
            assert dynamics["margin"][i, e] == pytest.approx(float(logits[gold] - logits[1 - gold]), abs=1e-5)
            assert dynamics["correct"][i, e] == float(logits.argmax() == gold)
            assert dynamics["el2n"][i, e] == pytest.approx(float(error.norm()), abs=1e-5)


def test_the_batch_changes_no_more_than_rounding(made: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """One row at a time or all at once, the kinds together or apart: the same numbers."""
    common = [
        "represent",
        data / "train.jsonl",
        "--model",
        made / "warmup",
        "--dim",
        64,
        "--dtype",
        "float32",
    ]
    prune(*common, "-o", tmp_path / "all", "--kind", "gradient,hidden,dynamics", "--batch-size", 24)
    for kind in ("hidden", "dynamics", "gradient"):
        done = prune(*common, "-o", tmp_path / kind, "--kind", kind, "--batch-size", 1)
        assert done.code == 0, done.err
        one, other = stored(tmp_path / kind, kind), stored(tmp_path / "all", kind)
        for name in one:
            assert np.allclose(one[name], other[name], rtol=1e-4, atol=1e-5), name


def test_learning_rates_travel_with_each_checkpoint(made: Path) -> None:
    """The rates in the artifact are the means over each epoch's steps: linear from 1e-2 over 6 steps to 0."""
    rates = tensors.metadata(made / "train" / "gradient.safetensors")["learning_rate"]
    steps = [1e-2 * (6 - step) / 6 for step in range(6)]  # 24 rows in batches of 8, 2 epochs
    assert rates == pytest.approx([np.mean(steps[:3]), np.mean(steps[3:])])


def test_recorded_dynamics_are_those_of_training(made: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """`--dynamics recorded` is what the training forward gave; in the first batch that is the untrained model's."""
    out = tmp_path / "recorded"
    done = prune(
        *("represent", data / "train.jsonl", "-o", out, "--model", made / "warmup"),
        *("--kind", "dynamics", "--dynamics", "recorded"),
    )
    assert done.code == 0, done.err
    recorded = stored(out, "dynamics")
    assert recorded["logprob"].shape == (24, 2)
    log = [json.loads(line) for line in (made / "warmup" / "log.jsonl").read_text().splitlines()]
    assert [line["loss"] for line in log] == pytest.approx(-recorded["logprob"].mean(0).astype(float), abs=1e-6)
    recomputed = stored(made / "train", "dynamics")
    assert not np.array_equal(recorded["logprob"][:, 0], recomputed["logprob"][:, 0])


def test_rows_that_float16_loses_are_told_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A row that is not zero but is in float16 is counted and told of; zeros and rows held in part are not."""
    rows = np.array([[1e-9, -1e-9], [0, 0], [1e-9, 1.0]], np.float32)
    specs = {kind: {"v": tensors.Spec((3, 1, 2), kind)} for kind in ("float16", "float32")}
    with Output(tmp_path, specs, {}) as output:
        output.put(np.arange(3), 0, {kind: {"v": torch.from_numpy(rows)} for kind in specs})
    told = "v: 1 rows × checkpoints are too small for float16 and stand as zeros; --dtype float32 keeps them\n"
    assert capsys.readouterr().err == told


def test_a_layer_of_choice(made: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """`--layer 0 --pooling cls` is the embedding of the first token, the same for every row."""
    out = tmp_path / "embeddings"
    done = prune(
        *("represent", data / "train.jsonl", "-o", out, "--model", made / "warmup", "--layer", 0),
        *("--pooling", "cls", "--checkpoints", "last"),
    )
    assert done.code == 0, done.err
    hidden = stored(out, "hidden")["hidden"]
    assert hidden.shape == (24, 1, 16)
    assert np.array_equal(hidden, np.broadcast_to(hidden[:1], hidden.shape))
