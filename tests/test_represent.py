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
from prune_cli.represent.observe import Batch, Setup
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
    common = ["represent", data / "train.jsonl", "--model", made / "warmup"]
    whole, small = ["--dtype", "float32"], ["--dim", 64]
    of: dict[str, list[Any]] = {"hidden": whole, "dynamics": [], "gradient": [*whole, *small]}
    prune(*common, "-o", tmp_path / "all", "--kind", ",".join(of), "--batch-size", 24, *whole, *small)
    for kind, options in of.items():
        done = prune(*common, "-o", tmp_path / kind, "--kind", kind, "--batch-size", 1, *options)
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
    assert np.allclose(hidden, np.broadcast_to(hidden[:1], hidden.shape), rtol=2e-3)


def recipe(folder: Path) -> dict[str, Any]:
    """The options that decided what an artifact holds."""
    options: dict[str, Any] = json.loads((folder / "manifest.json").read_text())["recipe"]["options"]
    return options


def test_the_recipe_has_what_values_depend_on(made: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """The seed of the projection makes gradients stale and nothing else; device and batch limits make nothing stale."""
    start = ["represent", data / "train.jsonl", "--model", made / "warmup", "-o"]
    for kind in ("gradient", "hidden", "dynamics"):
        assert prune(*start, tmp_path / kind, "--kind", kind).code == 0
        ran = prune(*start, tmp_path / kind, "--kind", kind, "--seed", 1)
        assert ("options.seed 0 -> 1" if kind == "gradient" else "leave it out") in ran.errors[0]
        more = ["--device", "cpu", "--batch-size", 3, "--tokens-per-batch", 99, "--save-minutes", 9]
        assert "up to date" in prune(*start, tmp_path / kind, "--kind", kind, *more).err
    shared = {"task", "kind", "checkpoints", "max_length", "precision"}
    assert set(recipe(tmp_path / "dynamics")) == {*shared, "dynamics"}
    assert set(recipe(tmp_path / "hidden")) == {*shared, "layer", "pooling", "dtype"}
    own = {"params", "precondition", "norms", "dim", "dtype", "seed"}
    assert set(recipe(tmp_path / "gradient")) == {*shared, *own}
    assert recipe(tmp_path / "hidden")["pooling"] == "mean"  # the task's own


def test_the_length_is_that_of_training(tiny_model: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """Without --max-length, rows are cut as in training; a model that was not trained here has 512."""
    quick = ["--steps", 1, "--max-length", 5, "--batch-size", 8]
    assert prune("finetune", data / "train.jsonl", "-o", tmp_path / "model", "--model", tiny_model, *quick).code == 0
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", tmp_path / "model"]
    assert prune(*start).code == 0
    assert recipe(tmp_path / "out")["max_length"] == 5
    assert "up to date" in prune(*start, "--max-length", 5).err
    assert prune(*start[:3], tmp_path / "whole", *start[4:], "--max-length", 32).code == 0
    cut, whole = (stored(tmp_path / name, "hidden")["hidden"] for name in ("out", "whole"))
    assert not np.allclose(cut, whole, atol=1e-2)
    assert prune(*start[:3], tmp_path / "plain", "--model", tiny_model).code == 0
    assert recipe(tmp_path / "plain")["max_length"] == 512


def test_batches_keep_their_limits(
    made: Path, data: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No batch has more rows or tokens, padding counted, than asked for; fewer tokens give more batches."""
    shapes: list[tuple[int, ...]] = []
    batch = Setup.batch

    def seen(self: Setup, positions: Any) -> Batch:
        shapes.append(tuple(batch(self, positions).inputs["input_ids"].shape))
        return batch(self, positions)

    monkeypatch.setattr(Setup, "batch", seen)
    start = ["represent", data / "train.jsonl", "--model", made / "warmup", "--checkpoints", "last", "-o"]
    for rows, tokens in ((24, 8192), (5, 8192), (24, 30), (4, 33)):
        shapes.clear()
        ran = prune(*start, tmp_path / f"{rows}-{tokens}", "--batch-size", rows, "--tokens-per-batch", tokens)
        assert ran.code == 0, ran.err
        assert all(b <= rows and b * t <= tokens for b, t in shapes)
        assert sum(b for b, _ in shapes) == 24
        least = -(-24 // min(rows, tokens // min(t for _, t in shapes)))
        assert len(shapes) >= least


def test_a_file_of_the_same_size_is_not_taken_for_the_own(tmp_path: Path) -> None:
    """A half-filled file is filled on only where its header agrees: names, shapes, types and metadata."""
    own = {"a": tensors.Spec((2, 1, 2), "float32")}

    def written(specs: dict[str, tensors.Spec], metadata: dict[str, Any]) -> list[float]:
        """What the file holds before anything is written, after another writer has filled it."""
        path = tmp_path / "t.safetensors"
        with tensors.RowWriter(path, specs, metadata) as writer:
            name = next(iter(specs))
            writer.write(name, np.arange(2), 0, np.ones((2, *specs[name].shape[2:]), np.float32))
        size = path.stat().st_size
        with tensors.RowWriter(path, own, {"n": 1}):
            pass
        assert path.stat().st_size == size
        return [float(value) for value in tensors.load(path)["a"].ravel()]

    assert written(own, {"n": 1}) == [1.0] * 4
    assert written({"b": own["a"]}, {"n": 1}) == [0.0] * 4
    assert written({"a": tensors.Spec((2, 2, 1), "float32")}, {"n": 1}) == [0.0] * 4
    assert written(own, {"n": 2}) == [0.0] * 4


def test_the_manifest_says_what_is_in_the_files(made: Path, data: Path) -> None:
    """Kinds with their tensors, the rows' digest, and ids with fingerprints stand beside the rows."""
    about = json.loads((made / "train/manifest.json").read_text())["about"]
    assert list(about["kinds"]) == ["dynamics", "gradient", "hidden"]
    assert about["kinds"]["hidden"] == {
        "features": "hidden",
        "tensors": {"hidden": {"shape": [24, 2, 16], "dtype": "float16"}},
    }
    assert about["kinds"]["gradient"]["tensors"]["grad_norm"] == {"shape": [24, 2], "dtype": "float32"}
    assert about["fields"] == {}
    assert about["digest"] == json.loads((made / "train/manifest.json").read_text())["recipe"]["inputs"]["rows"]
    assert [row["id"] for row in read_rows(made / "train/ids.jsonl")] == [f"row-{i}" for i in range(24)]


def test_hidden_and_recorded_dynamics_compare_with_hidden_alone(
    made: Path, data: Path, tmp_path: Path, prune: Prune
) -> None:
    """What must agree for a comparison hangs on the kind and not on the others in its pass, nor on stored types."""
    start = ["represent", data / "train.jsonl", "--model", made / "warmup", "-o"]

    def spaces(name: str, *more: object) -> dict[str, str]:
        assert prune(*start, tmp_path / name, *more).code == 0
        found: dict[str, str] = json.loads((tmp_path / name / "manifest.json").read_text())["about"]["space"]
        return found

    both = spaces("both", "--kind", "hidden,dynamics", "--dynamics", "recorded")
    assert both["hidden"] == spaces("alone", "--kind", "hidden", "--dtype", "float32")["hidden"]
    assert both["hidden"] != spaces("layer", "--kind", "hidden", "--layer", 1)["hidden"]
    plain = spaces("seed", "--kind", "gradient")["gradient"]
    assert plain != spaces("other", "--kind", "gradient", "--seed", 1)["gradient"]


def test_batches_that_do_not_fit_are_halved(
    made: Path, data: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the device's memory runs out above five rows, the batches are cut smaller, to the same numbers."""
    forward, failed, seen = Setup.forward, 0, []

    def scarce(self: Setup, inputs: dict[str, torch.Tensor], at: torch.Tensor | None) -> Any:
        nonlocal failed
        rows = len(inputs["input_ids"])
        if rows > 5 and failed < 20:
            failed += 1
            raise torch.OutOfMemoryError
        seen.append(rows)
        return forward(self, inputs, at)

    start = ["represent", data / "train.jsonl", "--model", made / "warmup", "--dtype", "float32", "-o"]
    assert prune(*start, tmp_path / "whole").code == 0
    monkeypatch.setattr(Setup, "forward", scarce)
    ran = prune(*start, tmp_path / "halved")
    assert ran.code == 0, ran.err
    assert 0 < failed < 5  # what fits is remembered
    assert max(seen) <= 5
    whole, halved = (stored(tmp_path / name, "hidden")["hidden"] for name in ("whole", "halved"))
    assert np.allclose(whole, halved, atol=1e-5)
