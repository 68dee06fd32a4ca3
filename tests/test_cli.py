"""The command line: results on stdout, talk on stderr, exit statuses; and the stages end to end behind it."""

from __future__ import annotations

import json
import math
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import REPOSITORY, Prune, Ran, read_rows, sentences, write_rows

from prune_cli import cli, options
from prune_cli.tensors import load, metadata

STAGES = ["represent", "score", "select", "finetune", "eval"]
COMMANDS = [*STAGES, "methods", "show", "pipeline"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_needs_no_heavy_library() -> None:
    """`prune --help` and each command's help import neither torch nor any other large library."""
    program = (
        "import sys; from prune_cli.cli import hush, run; hush()\n"
        f"for command in {COMMANDS}: assert run([command, '--help']) == 0\n"
        "assert run(['--help']) == 0 and run(['--version']) == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'scipy', 'numpy', 'peft', 'safetensors'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^prune-cli \d+\.\d+\.\d+$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("command", "record"),
    [("represent", options.Represent), ("finetune", options.Finetune), ("eval", options.Eval)],
)
def test_help_shows_every_option(command: str, record: type, prune: Prune) -> None:
    """A stage's help has every option of its record with its choices and its default."""
    text = " ".join(re.sub(r"[│\s]+", " ", prune(command, "--help").out).split())
    for name, (_, opt) in options.described(record).items():
        assert f"--{name.replace('_', '-')} " in text
        assert not opt.choices or f"One of {', '.join(opt.choices)}." in text
        default = getattr(record, name, None)
        assert default is None or f"[default: {default}]" in text


def examples() -> dict[str, list[str]]:
    """The commands at the end of each command's help."""
    found = {}
    for command in cli.app.registered_commands:
        name = command.name or command.callback.__name__  # type: ignore[union-attr]  # every command has one
        assert command.epilog is not None and command.epilog.startswith("Example:\n")
        text = command.epilog.removeprefix("Example:\n").replace("\\\n", " ")
        found[name] = [line.strip() for line in text.splitlines()]
    return found


def test_examples_of_the_help_work(here: Path, prune: Prune) -> None:
    """Every example at the end of a help runs, in the order of the work, on sample_data."""
    (here / "sample_data").symlink_to(REPOSITORY / "sample_data")
    found = examples()
    assert sorted(found) == sorted(COMMANDS)
    warmup, final = found["finetune"]
    order = [warmup, *found["represent"], *found["score"], *found["select"], final, *found["eval"]]
    order += [*found["show"], *found["methods"], *(f"{line} --dry-run" for line in found["pipeline"])]
    for line in order:
        program, *arguments = shlex.split(line)
        assert program == "prune"
        done = prune(*arguments)
        assert done.code == 0, f"{line}\n{done.err}"
    metrics = json.loads((here / "runs" / "metrics" / "metrics.json").read_text())
    assert metrics["test"]["accuracy"] > 0.6  # the share of the most frequent label


def test_stdout_is_the_path_alone(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """A stage prints its artifact's path on stdout and what happened on stderr; again, it is up to date."""
    command = ["represent", data / "test.jsonl", "-o", "deep/down/out", "--model", made / "warmup"]
    looked = prune(*command, "--dry-run")
    assert (looked.code, looked.out) == (0, "deep/down/out\n")
    assert looked.err == "represent: would run: not made yet\n"
    assert list(here.iterdir()) == []
    first = prune(*command)
    assert (first.code, first.out) == (0, "deep/down/out\n")
    assert re.fullmatch(r"represent: made in \d+\.\d s\n", first.err)
    again = prune(*command)
    assert (again.code, again.out, again.err) == (0, "deep/down/out\n", "represent: up to date\n")
    assert "represent: made in" in prune(*command, "--force").err
    assert [path.name for path in (here / "deep" / "down").iterdir()] == ["out"]


def test_json_is_one_object(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """With --json stdout is one object: path, stage, state, reason, seconds, and what was kept or measured."""
    select = ["select", data / "train.jsonl", "-o", "kept", "--method", "random", "--keep", "25%", "--json"]
    would = prune(*select, "--dry-run").json()
    assert would == {"path": "kept", "stage": "select", "state": "would run", "reason": "not made yet", "seconds": 0}
    done = prune(*select).json()
    assert done["state"] == "made" and (done["kept"], done["rows"]) == (6, 24)
    assert prune(*select).json()["state"] == "current"
    ran = prune("eval", made / "warmup", data / "test.jsonl", "-o", "metrics", "--json")
    assert ran.json()["metrics"] == json.loads((here / "metrics" / "metrics.json").read_text())
    assert re.search(r"^eval: test: accuracy \d\.\d{4}, macro_f1 \d\.\d{4}, loss \d+\.\d{4}, n 12$", ran.err, re.M)


def test_stdin_csv_and_renamed_keys_give_the_same_rows(
    here: Path, prune: Prune, made: Path, data: Path
) -> None:
    """The same rows from stdin, from CSV and with other key names are represented alike."""
    rows = [{"text": row["text"], "label": row["label"]} for row in sentences(12)]
    write_rows(here / "plain.jsonl", rows)
    write_rows(here / "other.jsonl", [{"sentence": row["text"], "y": row["label"]} for row in rows])
    (here / "rows.csv").write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    model = ["--model", made / "warmup", "--dtype", "float32"]
    renamed = ["--field", "text=sentence", "--field", "label=y"]
    assert prune("represent", "plain.jsonl", "-o", "plain", *model).code == 0
    stdin = (here / "plain.jsonl").read_text()
    assert prune("represent", "-", "-o", "stdin", *model, stdin=stdin).code == 0
    assert prune("represent", "other.jsonl", "-o", "other", *model, *renamed).code == 0
    assert prune("represent", "rows.csv", "-o", "csv", *model).code == 0
    wanted = (here / "plain" / "hidden.safetensors").read_bytes()
    for name in ("stdin", "other", "csv"):
        assert (here / name / "hidden.safetensors").read_bytes() == wanted


def test_select_hands_on_the_rows_untouched(here: Path, prune: Prune, data: Path) -> None:
    """What is kept are the rows themselves, other keys included, each label in its share of the data."""
    rows = [{**row, "note": {"nested": [i, "é"]}} for i, row in enumerate(sentences(30))]
    write_rows(here / "rows.jsonl", rows)
    ran = prune("select", "rows.jsonl", "-o", "kept", "--method", "random", "--keep", 0.3, "--balance", "keep")
    assert "select: kept 9 of 30 rows" in ran.err
    kept = read_rows(here / "kept" / "select.jsonl")
    by_id = {row["id"]: row for row in rows}
    assert all(row == by_id[row["id"]] for row in kept) and len({row["id"] for row in kept}) == 9
    assert sum(row["label"] == "negative" for row in kept) == 3  # 10 of 30 are


def test_methods_lists_and_explains(prune: Prune) -> None:
    """`methods` has the published table and all halves; `methods NAME` one in full, dashes or underscores."""
    text = prune("methods").out
    assert re.search(r"^less +gradient +less +top +relevance +LESS.*arXiv 2402.04333$", text, re.MULTILINE)
    facts = prune("methods", "--json").json()
    assert {"random", "full", "less", "s2l", "memorization"} <= {m["name"] for m in facts["published"]}
    assert "hard_to_learn" in facts["score"] and "kmeans" in facts["select"]
    assert prune("methods", "hard-to-learn").out == prune("methods", "hard_to_learn").out
    assert "--set k=" in prune("methods", "kmeans").out
    assert prune("methods", "nothing").errors[0].startswith("method: nothing; allowed: ambiguous, ")


def test_show_tells_what_an_artifact_is(prune: Prune, made: Path, data: Path, tiny_model: Path) -> None:
    """`show` says what an artifact holds, from what it was made, and that it is whole."""
    facts = prune("show", made / "train", "--json").json()
    assert facts["tensors"]["hidden"] == {"shape": [24, 2, 16], "dtype": "float16"}
    assert facts["tensors"]["grad_norm"] == {"shape": [24, 2], "dtype": "float32"}
    assert facts["inputs"] == {"rows": str(data / "train.jsonl"), "model": str(made / "warmup")}
    assert facts["damaged"] == [] and facts["about"]["labels"] == ["negative", "positive"]
    shown = prune("show", made / "train").out
    assert shown.startswith(f"{made / 'train'}: 24 rows represented by dynamics, gradient, hidden\n")
    assert "yes: every file is as it was written" in shown
    assert "24 rows in 6 steps" in prune("show", made / "warmup").out
    assert "12 of 24 rows, chosen by top" in prune("show", made / "kept").out
    assert "scores of 24 rows by less. LESS: " in prune("show", made / "score").out
    assert "measurements on test (12 rows)" in prune("show", made / "metrics").out
    # warm-up free and linear: 6 steps fall from 1e-2 by a sixth each
    rates = prune("show", made / "warmup", "--json").json()["checkpoints"]
    assert rates == pytest.approx({"1": 1e-2 * 5 / 6, "2": 1e-2 * 2 / 6})


def test_streams_that_close_or_fill(prune_process: Prune, made: Path) -> None:
    """A reader that has seen enough ends the command quietly; a full disk behind stdout is one line."""
    reader, writer = os.pipe()
    os.close(reader)
    ran = prune_process("show", made / "kept", "--json", stdout=writer)
    os.close(writer)
    assert (ran.code, ran.err) == (1, "")
    with Path("/dev/full").open("w") as full:
        ran = prune_process("methods", stdout=full)
    assert (ran.code, ran.err) == (1, "error: cannot write: No space left on device\n")


def test_a_full_disk_is_one_line(here: Path, made: Path, data: Path) -> None:
    """A file that cannot grow any more ends the command with one line, and leaves nothing behind."""
    command = shlex.join([sys.executable, "-m", "prune_cli", "select", str(data / "train.jsonl"), "-o", "out"])
    limited = f"ulimit -f 1; exec {command} --method random --keep 20"
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    rows = [{**row, "note": "x" * 1000} for row in read_rows(data / "train.jsonl")]
    write_rows(here / "rows.jsonl", rows)
    limited = limited.replace(str(data / "train.jsonl"), "rows.jsonl")
    done = subprocess.run(["bash", "-c", limited], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: .*File too large.*\n", done.stderr)
    assert [path.name for path in here.iterdir()] == ["rows.jsonl"]


def test_ctrl_c_is_one_line_and_status_130(here: Path, tiny_model: Path, data: Path) -> None:
    """Ctrl-C stops a running command with one line and status 130."""
    command = [sys.executable, "-m", "prune_cli", "finetune", str(data / "train.jsonl"), "-o", "out"]
    command += ["--model", str(tiny_model), "--epochs", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not list(here.glob("out.part/resume/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(r"interrupted: .*\n", err)


def test_a_bug_shows_where_it_is(monkeypatch: pytest.MonkeyPatch, prune: Prune, data: Path, here: Path) -> None:
    """An exception that no one expects is not dressed up as a user's error."""
    from prune_cli import stages

    monkeypatch.setattr(stages, "select", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prune("select", data / "train.jsonl", "-o", "out", "--method", "random", "--keep", 1)


# the stages behind the commands


def logprobs(model: Path, rows: list[dict[str, str]]) -> np.ndarray:
    """log p(gold) of each row, one row at a time, by transformers alone."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(model).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = []
    with torch.inference_mode():
        for row in rows:
            logits = network(**tokenizer(row["text"], return_tensors="pt")).logits[0]
            found.append(float(logits.log_softmax(0)[network.config.label2id[row["label"]]]))
    return np.array(found)


def test_represented_dynamics_and_metrics_are_those_of_transformers(made: Path, data: Path) -> None:
    """Dynamics at each checkpoint, and eval's loss and predictions, agree with transformers row by row."""
    train, test = read_rows(data / "train.jsonl"), read_rows(data / "test.jsonl")
    stored = load(made / "train" / "dynamics.safetensors")
    for e in (0, 1):
        exact = logprobs(made / "warmup" / "checkpoints" / str(e + 1), train) if False else None
    weights = made / "warmup"
    np.testing.assert_allclose(stored["logprob"][:, 1], logprobs(weights, train), atol=2e-5)
    p = np.exp(stored["logprob"][:, 1].astype(float))
    np.testing.assert_allclose(stored["margin"][:, 1], np.log(p) - np.log1p(-p), atol=1e-3)  # two labels
    np.testing.assert_allclose(stored["el2n"][:, 1], math.sqrt(2) * (1 - p), atol=1e-5)
    np.testing.assert_array_equal(stored["correct"][:, 1], p > 0.5)
    exact = logprobs(weights, test)
    metrics = json.loads((made / "metrics" / "metrics.json").read_text())["test"]
    assert metrics["loss"] == pytest.approx(-exact.mean(), abs=2e-5)
    assert metrics["accuracy"] == pytest.approx((np.exp(exact) > 0.5).mean())
    lines = read_rows(made / "metrics" / "predictions.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in test]
    for line, row, value in zip(lines, test, exact, strict=True):
        gold = line["probabilities"][["negative", "positive"].index(row["label"])]
        assert gold == pytest.approx(math.exp(value), abs=2e-5)
        assert (line["prediction"] == row["label"]) == (value > math.log(0.5))
