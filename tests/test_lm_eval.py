"""Tasks of lm-evaluation-harness as test sets: the numbers of its own command, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from prune_cli.data.open import test_sets as sets_of
from tests.conftest import Prune, read_rows
from tests.test_generation import made as make_model
from tests.test_generation import talks

TASK = """
task: {name}
dataset_path: json
dataset_kwargs:
  data_files: {{test: {rows}}}
test_split: test
fewshot_split: test
output_type: {kind}
doc_to_text: "{{{{prompt}}}}"
doc_to_target: {target}
{more}
metadata: {{version: 1.0}}
"""
CHOICES = "doc_to_choice: [good, bad, fine]\nmetric_list:\n  - metric: acc\n  - metric: acc_norm"
WORDS = "generation_kwargs: {until: [very], do_sample: false, max_gen_toks: 3}\nmetric_list:\n  - metric: exact_match"


def test_names_of_test_sets() -> None:
    """Tasks are called by their names, or as the user says."""
    assert sets_of(["lm-eval:gsm8k, arc_easy", "data/test.jsonl", "math=lm-eval:gsm8k"]) == {
        "gsm8k": "lm-eval:gsm8k",
        "arc_easy": "lm-eval:arc_easy",
        "test": "data/test.jsonl",
        "math": "lm-eval:gsm8k",
    }


def test_what_is_refused(tmp_path: Path, prune: Prune, made: Path, data: Path) -> None:
    """A classifier, and a task without a name, before any work; in a pipeline with all other mistakes."""
    refused = prune("eval", made / "warmup", "lm-eval:gsm8k", "-o", tmp_path / "out")
    assert refused.errors == ["lm-eval:gsm8k: tasks of lm-eval are for language models"], refused.err
    assert "lm-eval: without a task" in prune("eval", made / "warmup", "lm-eval:", "-o", tmp_path / "out").err
    file = tmp_path / "pipeline.toml"
    file.write_text(
        f'train = "{data}/train.jsonl"\nmodel = "{made}/warmup"\nmethods = ["random"]\nkeep = [0.5]\nseeds = [0]\n'
        '[tests]\nmath = "lm-eval:gsm8k"\n'
    )
    told = prune("pipeline", file, "-o", tmp_path / "runs").err
    assert f"{file}: tests: lm-eval:gsm8k: tasks of lm-eval are for language models" in told
    assert list(tmp_path.iterdir()) == [file]


def test_without_the_library(tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says what to install."""

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("prune_cli.models.harness.version", missing)
    make_model(tmp_path / "model", "llama", None)
    refused = prune("eval", tmp_path / "model", "lm-eval:gsm8k", "-o", tmp_path / "out")
    assert refused.errors == ["lm-eval:gsm8k: the package lm-eval is not installed; it is needed"], refused.err
    assert "prune-cli[eval]" in refused.err


@pytest.mark.slow  # `make test-all` installs the extra `eval`
def test_the_numbers_are_those_of_its_own_command(tmp_path: Path, prune: Prune) -> None:
    """Log-likelihoods and generated answers: each metric equals that of `lm_eval` on the same model and tasks."""
    model, tasks, rows = tmp_path / "model", tmp_path / "tasks", tmp_path / "rows.jsonl"
    make_model(model, "llama", None)
    rows.write_text("".join(json.dumps(row) + "\n" for row in talks(12)))
    tasks.mkdir()
    for name, kind, more, target in (
        ("words", "generate_until", WORDS, '"{{response}}"'),
        ("choices", "multiple_choice", CHOICES, "0"),
    ):
        (tasks / f"{name}.yaml").write_text(TASK.format(name=name, rows=rows, kind=kind, more=more, target=target))
    command = ["eval", model, "lm-eval:words,choices", rows, "-o", tmp_path / "out", "--task", "generation"]
    done = prune(*command, "--lm-eval-tasks", tasks, "--lm-eval-limit", 8, "--lm-eval-shots", 1, "--batch-size", 4)
    assert done.code == 0, done.err
    metrics = json.loads((tmp_path / "out/metrics.json").read_text())
    assert list(metrics) == ["words", "choices", "rows"]
    told = subprocess.run(
        [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "hf", "--device", "cpu"),
            *("--model_args", f"pretrained={model},dtype=float32", "--tasks", "words,choices", "--include_path", tasks),
            *("--limit", "8", "--num_fewshot", "1", "--batch_size", "4", "--output_path", tmp_path / "theirs"),
        ],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode == 0, told.stderr
    [file] = (tmp_path / "theirs").rglob("results_*.json")
    for task, values in json.loads(file.read_text())["results"].items():
        theirs = {key.replace(",none", ""): value for key, value in values.items() if isinstance(value, float)}
        assert theirs and metrics[task] == pytest.approx({"n": 8, **theirs}), (task, metrics[task], theirs)
    lines = read_rows(tmp_path / "out/predictions.jsonl")
    assert [line["test"] for line in lines].count("choices") == 8
    (tasks / "words.yaml").write_text((tasks / "words.yaml").read_text() + "\n# another\n")
    again = prune(*command, "--lm-eval-tasks", tasks, "--lm-eval-limit", 8, "--lm-eval-shots", 1, "--dry-run")
    assert "inputs.lm-eval tasks" in again.err or "inputs.lm-eval tasks" in again.out
