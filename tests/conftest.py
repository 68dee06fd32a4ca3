"""Shared fixtures: a tiny model with its tokenizer, data, and two ways to run the command line."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from prune_cli.artifacts.manifest import Artifact, digest_file
from prune_cli.main import hush, run

hush()
REPOSITORY = Path(__file__).parent.parent
PATIENCE = 600  # seconds that anything may take on a busy machine; what takes longer hangs
POSITIVE = ["good", "great", "fine", "lovely"]
NEGATIVE = ["bad", "awful", "poor", "dull"]
NOUNS = ["film", "plot", "cast", "scene"]
WORDS = [*POSITIVE, *NEGATIVE, *NOUNS, "the", "is", "very"]


@dataclass(frozen=True)
class Ran:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def errors(self) -> list[str]:
        """The error lines, without their mark."""
        return [line.removeprefix("error: ") for line in self.err.splitlines() if line.startswith("error: ")]

    def json(self) -> Any:
        """The one JSON object on stdout."""
        return json.loads(self.out)


Prune = Callable[..., Ran]


def run_here(*arguments: object, stdin: bytes | None = None) -> Ran:
    """Run a command in this process: `run_here("eval", model, "-", "-o", out, stdin=rows)`."""
    out, err, before = io.StringIO(), io.StringIO(), sys.stdin
    if stdin is not None:
        sys.stdin = io.TextIOWrapper(io.BytesIO(stdin))
    try:
        with redirect_stdout(out), redirect_stderr(err):
            code = run([str(argument) for argument in arguments])
    finally:
        sys.stdin = before
    return Ran(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def prune() -> Prune:
    """`run_here`."""
    return run_here


@pytest.fixture(scope="session")
def prune_process() -> Prune:
    """Run a command as its own process, `python -m prune_cli`; keywords go to subprocess.run."""

    def call(*arguments: object, **options: Any) -> Ran:
        command = [sys.executable, "-m", "prune_cli", *map(str, arguments)]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **options.pop("env", {})}
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        done = subprocess.run(command, text=True, env=environment, timeout=PATIENCE, check=False, **options)
        return Ran(done.returncode, done.stdout or "", done.stderr or "")

    return call


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    """Write rows as JSONL."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")
    return path


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read JSONL."""
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def sentences(n: int, start: int = 0) -> list[dict[str, Any]]:
    """n rows of mixed length, every third negative: {"id", "text", "label"}."""
    rows = []
    for i in range(start, start + n):
        label = "negative" if i % 3 == 0 else "positive"
        word = (NEGATIVE if label == "negative" else POSITIVE)[i % 4]
        text = " ".join(["the", NOUNS[i % 4], "is", *["very"] * (i % 5), word])
        rows.append({"id": f"row-{i}", "text": text, "label": label})
    return rows


def artifact_of(folder: Path) -> Artifact:
    """A folder of files as an artifact that lists them; nothing is written."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    listed = {path.relative_to(folder).as_posix(): {"sha256": digest_file(path)} for path in files}
    return Artifact(folder, {"files": listed})


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT encoder of random weights (2 layers, 16 features, no dropout) and a whitespace tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny") / "model"
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    fast: Any = PreTrainedTokenizerFast  # untyped
    fast(tokenizer_object=words, model_max_length=32, **marks).save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (24 rows), validation.jsonl (8) and test.jsonl (12)."""
    folder = tmp_path_factory.mktemp("data")
    write_rows(folder / "train.jsonl", sentences(24))
    write_rows(folder / "validation.jsonl", sentences(8, start=100))
    write_rows(folder / "test.jsonl", sentences(12, start=200))
    return folder


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory, prune: Prune, tiny_model: Path, data: Path) -> Path:
    """Artifacts, each made by its command: warmup, train, validation (represented), score, kept, metrics."""
    folder = tmp_path_factory.mktemp("made")
    warmup, represented, target, score = (folder / n for n in ("warmup", "train", "validation", "score"))
    train, validation, test = (data / f"{name}.jsonl" for name in ("train", "validation", "test"))
    quick = ["--epochs", 2, "--learning-rate", "1e-2", "--batch-size", 8]
    kinds = ["--kind", "hidden,dynamics,gradient", "--dim", 64]
    less = ["--method", "less", "--on", "gradient", "--target", target]
    for command in (
        ["finetune", train, "-o", warmup, "--model", tiny_model, "--keep-checkpoints", "epoch", *quick],
        ["represent", train, "-o", represented, "--model", warmup, *kinds],
        ["represent", validation, "-o", target, "--model", warmup, *kinds],
        ["score", represented, "-o", score, *less],
        ["select", score, "-o", folder / "kept", "--method", "top", "--keep", "0.5"],
        ["eval", warmup, test, "-o", folder / "metrics"],
    ):
        done = prune(*command)
        assert done.code == 0, done.err
    return folder
