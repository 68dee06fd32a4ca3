"""The steps of the check on a GPU, each run by gpu.py as a process of its own.

    python -m tests.benchmarks.gpu_steps STEP --device cuda:0|cpu --figures FILE.json

On a CPU the same steps run with models of a few features, in bfloat16 all the same, and the device's memory only seems
to run out.
"""

from __future__ import annotations

import argparse
import gc
import io
import json
import math
import platform
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

from prune_cli.artifacts import tensors
from prune_cli.data.rows import read_rows
from prune_cli.main import hush, run
from prune_cli.represent import walk
from prune_cli.represent.kinds import hidden
from prune_cli.represent.kinds.dynamics import Dynamics
from prune_cli.represent.kinds.influence import Influence
from prune_cli.represent.observe import Batch, Setup
from prune_cli.tasks import classification, generation
from prune_cli.tasks.tokens import OUTSIDE
from tests.benchmarks import passes
from tests.benchmarks.passes import (
    FLOOR,
    PLAIN,
    Subject,
    Way,
    frozen,
    gradient_of,
    influence_on,
    observed,
    whole_batch,
)
from tests.benchmarks.trained import lengthened

Figures = dict[str, Any]

SAMPLE = Path(__file__).parents[2] / "sample_data"
TOLERANCE = 1e-3  # of a row's values in batches of another size, relative, in float32
LEAST = 0.8  # accuracy on the sample's test set of a model trained on all rows; on a CPU it is 0.93


@dataclass(frozen=True)
class Size:
    """How large a step's model and batches are. texts: tokens of a row."""

    width: int
    layers: int
    texts: int
    rows: int
    batches: int
    dim: int
    repeats: int


ENCODER = {"cuda": Size(768, 12, 64, 1024, 1, 8192, 5), "cpu": Size(32, 2, 16, 8, 1, 64, 1)}
LLAMA = {"cuda": Size(2048, 16, 1024, 16, 1, 8192, 5), "cpu": Size(32, 2, 32, 2, 1, 64, 1)}
SCARCE = {"cuda": Size(512, 4, 0, 1200, 1, 512, 1), "cpu": Size(32, 1, 0, 48, 1, 64, 1)}


def main() -> None:
    """Run a step and write its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=sorted(STEPS))
    parser.add_argument("--device", required=True)
    parser.add_argument("--figures", type=Path, required=True)
    given = parser.parse_args()
    hush()
    figures = STEPS[given.step](torch.device(given.device))
    given.figures.write_text(json.dumps(figures), "utf-8")


def machine(device: torch.device) -> Figures:
    """The device and the versions of what computes on it."""
    figures: Figures = {
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate", "numpy")},
    }
    if device.type == "cpu":
        return {"device": f"CPU, {torch.get_num_threads()} threads", **figures}
    properties = torch.cuda.get_device_properties(device)
    assert torch.cuda.is_bf16_supported(), "the device does not compute in bfloat16"
    return {
        "device": properties.name,
        "memory_gib": round(properties.total_memory / 2**30, 1),
        "cuda": torch.version.cuda,
        **figures,
    }


def encoder(device: torch.device) -> Figures:
    """Costs for a BERT of base size with random weights, in bfloat16, on rows of the sample."""
    size = ENCODER[device.type]
    rows = read_rows(SAMPLE / "train.jsonl", check=classification.check)
    labels = classification.label_list(rows)
    encoded = lengthened(classification.encode(rows, tokenizer(), 512, labels), size.texts)
    with torch.device(device):
        model = bert(size, labels)

    def batch(positions: np.ndarray) -> Batch:
        inputs = classification.collate(encoded, positions, 0, device)
        gold = inputs.pop("labels")
        return whole_batch(inputs, gold)

    starts = range(0, size.rows * size.batches, size.rows)
    batches = [batch(np.arange(start, start + size.rows)) for start in starts]
    targets = [batch(np.array([len(rows) - 1 - i])) for i in range(4)]
    return costs(Subject(model.eval(), classification, device, "bfloat16"), batches, targets, size)


def llama(device: torch.device) -> Figures:
    """Costs for a Llama of about 1 B parameters with LoRA adapters, random weights, in bfloat16."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    size = LLAMA[device.type]
    config: Any = LlamaConfig
    with torch.device(device):
        base = LlamaForCausalLM(
            config(
                vocab_size=32_000,
                hidden_size=size.width,
                intermediate_size=4 * size.width,
                num_hidden_layers=size.layers,
                num_attention_heads=max(1, size.width // 64),
                # as many as query heads: torch 2.11 cannot count the operations of fewer
                num_key_value_heads=max(1, size.width // 64),
                max_position_embeddings=2 * size.texts,
            )
        )
        # not zeros, as peft would draw B: then A would have no gradient
        lora = LoraConfig(task_type="CAUSAL_LM", r=16, target_modules="all-linear", init_lora_weights=False)
        model: Any = get_peft_model(base, lora)
    generator = torch.Generator().manual_seed(0)

    def batch(rows: int) -> Batch:
        ids = torch.randint(3, 32_000, (rows, size.texts), generator=generator).to(device)
        labels = ids.clone()
        labels[:, : size.texts // 2] = OUTSIDE  # the prompt
        return whole_batch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, labels)

    batches = [batch(size.rows) for _ in range(size.batches)]
    targets = [batch(1) for _ in range(4)]
    figures = costs(Subject(model.eval(), generation, device, "bfloat16"), batches, targets, size)
    return {"parameters": sum(p.numel() for p in model.parameters()), **figures}


def tokenizer() -> Any:
    """The tokenizer of the sample's encoder."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(SAMPLE / "model")


def bert(size: Size, labels: list[Any]) -> Any:
    """A classifier of random weights. Its vocabulary is that of BERT, larger than the sample's."""
    from transformers import BertConfig, BertForSequenceClassification

    config: Any = BertConfig
    return BertForSequenceClassification(
        config(
            vocab_size=30_522,
            hidden_size=size.width,
            num_hidden_layers=size.layers,
            num_attention_heads=max(1, size.width // 64),
            intermediate_size=4 * size.width,
            id2label=dict(enumerate(labels)),
            label2id={label: i for i, label in enumerate(labels)},
        )
    )


def costs(subject: Subject, batches: list[Batch], targets: list[Batch], size: Size) -> Figures:
    """Rows and floating-point operations a second of a plain forward and backward, and of the kinds; peak memory."""
    rows = sum(len(batch) for batch in batches)
    ways = _ways(subject, batches, targets, size.dim)
    figures: Figures = {}
    measured = passes.costs(subject, ways, size.repeats)
    for name, cost in measured.items():
        figures[name] = {
            "x_plain": round(cost.over(measured[PLAIN]), 3),
            "x_floor": round(cost.over(measured[FLOOR]), 3),
            "rows_per_s": round(rows / cost.seconds, 1),
            "tflop_per_s": round(cost.operations / cost.seconds / 1e12, 3),
        }
        assert math.isfinite(cost.seconds), name
        if subject.device.type == "cuda":
            figures[name]["peak_gib"] = peak(*ways[name])
    shape = {"rows": size.rows, "tokens": size.texts, "batches": size.batches, "precision": subject.precision}
    return {"shape": shape, "ways": figures}


def _ways(subject: Subject, batches: list[Batch], targets: list[Batch], dim: int) -> dict[str, Way]:
    states, dynamics = hidden.Hidden(hidden.Options(pooling="mean")), Dynamics(subject.task)
    return {
        PLAIN: (nullcontext, lambda: subject.plain(batches)),
        FLOOR: (partial(frozen, subject.model), lambda: subject.plain(batches)),
        "hidden": observed(subject, batches, None, states),
        "dynamics": observed(subject, batches, None, dynamics),
        f"gradient, dim {dim}": observed(subject, batches, None, gradient_of(subject, dim=dim)),
        "gradient, sketched norms": observed(subject, batches, None, gradient_of(subject, dim=dim, norms="sketched")),
        "hidden + dynamics + gradient": observed(
            subject, batches, None, states, dynamics, gradient_of(subject, dim=dim)
        ),
        "influence, cosine": observed(subject, batches, None, influence_on(subject, targets)),
        "influence, dot": observed(subject, batches, None, influence_on(subject, targets, similarity="dot")),
    }


def peak(attach: Callable[[], Any], run_it: Callable[[], Any]) -> float:
    """Peak memory of the device in a way, above what was held before, in GiB."""
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    with attach():
        run_it()
    return round((torch.cuda.max_memory_allocated() - before) / 2**30, 2)


def pipeline(device: torch.device) -> Figures:
    """The pipeline of the sample on the device; on a CPU two of its methods on a few rows."""
    with tempfile.TemporaryDirectory() as folder:
        file = SAMPLE / "pipeline.toml" if device.type == "cuda" else small_pipeline(Path(folder))
        told = prune("pipeline", file, "-o", Path(folder) / "run", "--device", device, "--json")
    results = json.loads(told)["results"]
    assert all(math.isfinite(result["loss"]) for result in results)
    accuracy: dict[str, list[float]] = {}
    for result in results:
        if result["test"] == "test":
            accuracy.setdefault(f"{result['method']} {result['keep']}", []).append(result["accuracy"])
    means = {name: round(float(np.mean(values)), 3) for name, values in accuracy.items()}
    full = [mean for name, mean in means.items() if name.startswith("full ")]
    assert device.type == "cpu" or (full and min(full) >= LEAST), means
    return {"accuracy": means}


def small_pipeline(folder: Path) -> Path:
    """A pipeline file over the first rows of the sample."""
    for name in ("train", "validation", "test"):
        lines = (SAMPLE / f"{name}.jsonl").read_text("utf-8").splitlines(keepends=True)
        (folder / f"{name}.jsonl").write_text("".join(lines[:40]), "utf-8")
    text = f"""
        train = "train.jsonl"
        validation = "validation.jsonl"
        model = {json.dumps(str(SAMPLE / "model"))}
        methods = ["random", "less"]
        keep = [0.5]
        seeds = [0]
        tests = {{test = "test.jsonl"}}
        warmup = {{epochs = 1}}
        represent = {{dim = 64}}
        finetune = {{steps = 2}}
    """
    file = folder / "pipeline.toml"
    file.write_text(text, "utf-8")
    return file


def memory(device: torch.device) -> Figures:
    """All rows in one batch, with room for it and without: batches are halved, to the same numbers."""
    size = SCARCE[device.type]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        labels = classification.label_list(read_rows(SAMPLE / "train.jsonl", check=classification.check))
        torch.manual_seed(0)
        bert(size, labels).save_pretrained(folder / "model")
        for path in (SAMPLE / "model").glob("tokenizer*"):
            shutil.copy(path, folder / "model")
        lines = (SAMPLE / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
        (folder / "rows.jsonl").write_text("".join(lines[: size.rows]), "utf-8")

        def represent(out: Path, *asked: object) -> None:
            limits = ["--batch-size", size.rows, "--tokens-per-batch", 10**7, "--device", device]
            prune("represent", folder / "rows.jsonl", "-o", out, "--model", folder / "model", *asked, *limits)

        asked = ["--kind", "hidden,dynamics,gradient", "--dim", size.dim, "--dtype", "float32"]
        represent(folder / "whole", *asked)
        with scarce(device, size.rows // 3), mock.patch.object(walk, "_halved", wraps=walk._halved) as halved:
            represent(folder / "halved", *asked)
        stored = {"hidden": "hidden", "dynamics": "logprob", "gradient": "gradient"}
        differences = {name: difference(folder, kind, name) for kind, name in stored.items()}
        asked = ["--kind", "influence", "--target-data", folder / "rows.jsonl"]
        (folder / "influence").mkdir()
        represent(folder / "influence" / "whole", *asked)
        tried = mock.patch.object(Influence, "_directions", autospec=True, side_effect=Influence._directions)
        with scarce(device, size.rows // 3), tried as walked:
            represent(folder / "influence" / "halved", *asked)
        cosines = [
            np.asarray(tensors.load(folder / "influence" / out / "influence.safetensors")["influence"], np.float64)
            for out in ("whole", "halved")
        ]
        differences["influence"] = float(np.abs(cosines[0] - cosines[1]).max())  # as they are: some are near 0
    assert halved.call_count, "memory did not run out"
    assert walked.call_count > 1, "memory did not run out in the target set"
    assert max(differences.values()) < TOLERANCE, differences
    times = {"halved": halved.call_count, "target_set_halved": walked.call_count - 1}
    return {**times, "largest_relative_difference": differences}


@contextmanager
def scarce(device: torch.device, rows: int) -> Iterator[None]:
    """Inside, the device has six tenths of the memory that was needed so far; a CPU fails above so many rows."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction(0.6 * torch.cuda.max_memory_allocated() / total, 0)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0, 0)
            torch.cuda.reset_peak_memory_stats()
        return
    forward = Setup.forward

    def failing(setup: Setup, inputs: dict[str, torch.Tensor], at: torch.Tensor | None) -> Any:
        if len(inputs["input_ids"]) > rows:
            raise torch.OutOfMemoryError
        return forward(setup, inputs, at)

    with mock.patch.object(Setup, "forward", failing):
        yield


def difference(folder: Path, kind: str, name: str) -> float:
    """The largest difference of a row's values between the two representations, relative to their norm."""
    whole, halved = (tensors.load(folder / out / f"{kind}.safetensors")[name] for out in ("whole", "halved"))
    whole, halved = (np.asarray(values, np.float64).reshape(len(values), -1) for values in (whole, halved))
    return float((np.linalg.norm(whole - halved, axis=1) / np.linalg.norm(whole, axis=1)).max())


def prune(*arguments: object) -> str:
    """Run a command in this process; returns what it prints."""
    out = io.StringIO()
    with redirect_stdout(out):
        code = run([str(argument) for argument in arguments])
    assert code == 0, f"prune {arguments[0]}: exit status {code}"
    return out.getvalue()


STEPS: dict[str, Callable[[torch.device], Figures]] = {
    "machine": machine,
    "encoder": encoder,
    "llama": llama,
    "pipeline": pipeline,
    "memory": memory,
}

if __name__ == "__main__":
    main()
