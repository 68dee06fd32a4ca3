"""The command line: results on stdout, talk on stderr, exit statuses; and the stages end to end behind it."""

from __future__ import annotations

import contextlib
import importlib
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

from prune_cli import cli, options
from prune_cli.artifacts.manifest import sealed
from prune_cli.artifacts.tensors import load, metadata
from prune_cli.represent import kinds
from prune_cli.runtime import interrupt
from prune_cli.runtime.progress import progress
from tests.conftest import PATIENCE, REPOSITORY, Prune, read_rows, sentences, write_rows

STAGES = ["represent", "score", "select", "finetune", "eval"]
LABELS = ["negative", "positive"]
COMMANDS = [*STAGES, "merge", "export", "simulate", "methods", "show", "compare", "report", "guide", "init", "pipeline"]
COMMANDS += ["advise", "estimate"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_needs_no_heavy_library() -> None:
    """`prune --help` and each command's help import neither torch nor any other large library."""
    program = (
        "import sys; from prune_cli.main import hush, run; hush()\n"
        f"for command in {COMMANDS}: assert run([command, '--help']) == 0\n"
        "assert run(['--help']) == 0 and run(['--version']) == 0\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'scipy', 'peft', 'matplotlib'}\n"
        "sys.exit(' '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^prune-cli \d+\.\d+\.\d+$", done.stdout, re.MULTILINE)


RECORDS = {
    "represent": options.Represent,
    "score": options.Score,
    "select": options.Select,
    "export": options.Export,
    "finetune": options.Finetune,
    "eval": options.Eval,
    "merge": options.Merge,
    "simulate": options.Simulate,
}


@pytest.mark.parametrize("command", RECORDS)
def test_help_shows_every_option(command: str, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stage's help has every option of its record, and of its kinds, with its text, its choices and its default."""
    monkeypatch.setenv("COLUMNS", "100")
    text = " ".join(re.sub(r"[│\s]+", " ", prune(command, "--help").out).split())
    declared = options.declared(RECORDS[command])
    if command == "represent":
        del declared["kind_options"]
        declared |= kinds.options()
    for name, option in declared.items():
        assert f"--{name.rstrip('_').replace('_', '-')} " in text
        assert option.help.text in text
        assert not option.choices or f"One of {', '.join(option.choices)}." in text
        if type(option.default) in (int, float, str):
            assert f"[default: {option.default}]" in text


@pytest.mark.parametrize("command", RECORDS)
def test_a_narrow_help_has_every_name_whole(command: str, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal of 80 columns no name of an option is cut."""
    monkeypatch.setenv("COLUMNS", "80")
    text = prune(command, "--help").out
    assert "…" not in text
    for name in (name for name in options.declared(RECORDS[command]) if name != "kind_options"):
        assert f"--{name.rstrip('_').replace('_', '-')} " in text


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
    order = [warmup, *found["represent"], *found["score"], *found["select"], *found["export"], final, *found["eval"]]
    order += [*found["show"], *found["compare"], *found["methods"], *found["guide"], *found["merge"], *found["init"]]
    order += [f"{line} --dry-run" for line in [*found["simulate"], *found["pipeline"]]]
    # report and advise are of a run that has ended, and estimate measures; tests of their own run them
    for line in order:
        program, *arguments = shlex.split(line)
        assert program == "prune"
        done = prune(*arguments)
        assert done.code == 0, f"{line}\n{done.err}"
    metrics = json.loads((here / "runs" / "metrics" / "metrics.json").read_text())
    assert {name: found["n"] for name, found in metrics.items()} == {"test": 400, "ood": 300}


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
    """With --json stdout is one object: what was made and why, in how long, what was kept or measured."""
    select = ["select", data / "train.jsonl", "-o", "kept", "--method", "random", "--keep", "25%", "--json"]
    would = prune(*select, "--dry-run").json()
    assert would == {
        "path": "kept",
        "stage": "select",
        "state": "would run",
        "reason": "not made yet",
        "seconds": 0,
    }
    done = prune(*select).json()
    assert done["state"] == "made" and (done["kept"], done["rows"]) == (6, 24)
    assert prune(*select).json()["state"] == "current"
    ran = prune("eval", made / "warmup", data / "test.jsonl", "-o", "metrics", "--json")
    assert ran.json()["metrics"] == json.loads((here / "metrics" / "metrics.json").read_text())
    assert re.search(r"^eval: test: accuracy \d\.\d{4}, macro_f1 \d\.\d{4}, loss \d+\.\d{4}, n 12$", ran.err, re.M)


def test_stdin_csv_and_renamed_keys_give_the_same_rows(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """The same rows from stdin, from CSV and with other key names are represented alike."""
    rows = [{"text": row["text"], "label": row["label"]} for row in sentences(12)]
    write_rows(here / "plain.jsonl", rows)
    write_rows(here / "other.jsonl", [{"sentence": row["text"], "y": row["label"]} for row in rows])
    (here / "rows.csv").write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    model = ["--model", made / "warmup", "--dtype", "float32"]
    renamed = ["--field", "text=sentence", "--field", "label=y"]
    assert prune("represent", "plain.jsonl", "-o", "plain", *model).code == 0
    stdin = (here / "plain.jsonl").read_bytes()
    assert prune("represent", "-", "-o", "stdin", *model, stdin=stdin).code == 0
    assert prune("represent", "other.jsonl", "-o", "other", *model, *renamed).code == 0
    assert prune("represent", "rows.csv", "-o", "csv", *model).code == 0
    wanted = (here / "plain" / "hidden.safetensors").read_bytes()
    for name in ("stdin", "other", "csv"):
        assert (here / name / "hidden.safetensors").read_bytes() == wanted
    for given in ("-", "plain.jsonl"):
        assert prune("score", given, "-o", f"score{given}", "--method", "length", stdin=stdin).code == 0
    select = ["-o", "kept", "--method", "top", "--keep", 3]
    gone = prune("select", "score-", *select)
    assert gone.errors == ["score-: the rows that it scored came from stdin"] and "hint: name the" in gone.err
    (here / "plain.jsonl").rename(here / "moved.jsonl")
    assert "are no longer at" in prune("select", "scoreplain.jsonl", *select).errors[0]


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
    assert "hint: did you mean density?" in prune("methods", "densty").err
    assert prune("methods", "nothing").errors[0] == "method: nothing; allowed: what prune methods lists"


def test_show_tells_what_an_artifact_is(prune: Prune, made: Path, data: Path, tiny_model: Path) -> None:
    """`show` says what an artifact holds, from what it was made, and that it is whole."""
    facts = prune("show", made / "train", "--json").json()
    assert facts["tensors"]["hidden"] == {"shape": [24, 2, 16], "dtype": "float16"}
    assert facts["tensors"]["grad_norm"] == {"shape": [24, 2], "dtype": "float32"}
    assert facts["inputs"] == {"rows": str(data / "train.jsonl"), "model": str(made / "warmup")}
    assert facts["damaged"] == [] and facts["about"]["labels"] == LABELS
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


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [16, 40])  # of 1 KiB: the weights have 27, a resume point's moments more
def test_training_on_a_full_disk_is_one_line(blocks: int, here: Path, tiny_model: Path, data: Path) -> None:
    """Where the libraries cannot write weights or a resume point, that is one line; what is saved stays."""
    train = ["finetune", str(data / "train.jsonl"), "-o", "out", "--model", str(tiny_model)]
    train += ["--epochs", "2", "--keep-checkpoints", "epoch", "--save-minutes", "0"]
    command = shlex.join([sys.executable, "-m", "prune_cli", *train])
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        ["bash", "-c", f"ulimit -f {blocks}; exec {command}"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"error: .*\nhint: .*\n", done.stderr), done.stderr
    assert [path.name for path in here.iterdir()] == ["out.part"]


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
    command += ["--model", str(tiny_model), "--epochs", "100000", "--save-minutes", "0"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # tests in the background of a shell ignore it
    )
    deadline = time.monotonic() + PATIENCE
    while not list(here.glob("out.part/.resume/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (130, "")
    assert re.fullmatch(r"interrupted: .*\n", err)


def test_a_ctrl_c_that_a_library_drops_comes_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The next step of long work raises what was swallowed on the way; without a Ctrl-C it goes on."""
    monkeypatch.setattr(interrupt, "_came", False)
    with progress("work", 3) as advance:
        advance(1)
        with contextlib.suppress(KeyboardInterrupt):
            interrupt._take()
        with pytest.raises(KeyboardInterrupt):
            advance(1)


def test_a_bug_shows_where_it_is(monkeypatch: pytest.MonkeyPatch, prune: Prune, data: Path, here: Path) -> None:
    """An exception that no one expects is not dressed up as a user's error."""
    stage = importlib.import_module("prune_cli.stages.select")
    monkeypatch.setattr(stage, "select", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prune("select", data / "train.jsonl", "-o", "out", "--method", "random", "--keep", 1)


# the stages behind the commands


def logprobs(weights: Path, model: Path, rows: list[dict[str, str]]) -> np.ndarray:
    """log p(gold) of each row by transformers alone, one row at a time; `model` has the tokenizer."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    network = AutoModelForSequenceClassification.from_pretrained(weights).eval()
    tokenizer = AutoTokenizer.from_pretrained(model)
    found = []
    with torch.inference_mode():
        for row in rows:
            logits = network(**tokenizer(row["text"], return_tensors="pt")).logits[0]
            found.append(float(logits.log_softmax(0)[LABELS.index(row["label"])]))
    return np.array(found)


def test_dynamics_and_metrics_are_those_of_transformers(made: Path, data: Path) -> None:
    """Dynamics at each checkpoint, and eval's loss and predictions, agree with transformers row by row."""
    train, test, model = read_rows(data / "train.jsonl"), read_rows(data / "test.jsonl"), made / "warmup"
    stored = load(made / "train" / "dynamics.safetensors")
    exact = [logprobs(model / "checkpoints" / name, model, train) for name in ("1", "2")]
    np.testing.assert_allclose(stored["logprob"], np.transpose(exact), atol=2e-5)
    p = np.exp(np.transpose(exact))
    np.testing.assert_allclose(stored["margin"], np.log(p / (1 - p)), atol=2e-4)  # as there are two labels
    np.testing.assert_allclose(stored["el2n"], math.sqrt(2) * (1 - p), atol=2e-5)
    np.testing.assert_array_equal(stored["correct"], p > 0.5)
    exact_test = logprobs(model, model, test)
    metrics = json.loads((made / "metrics" / "metrics.json").read_text())["test"]
    assert metrics["loss"] == pytest.approx(-exact_test.mean(), abs=2e-5)
    assert metrics["accuracy"] == pytest.approx((np.exp(exact_test) > 0.5).mean())
    lines = read_rows(made / "metrics" / "predictions.jsonl")
    assert [line["id"] for line in lines] == [row["id"] for row in test]
    for line, row, value in zip(lines, test, exact_test, strict=True):
        gold = line["probabilities"][LABELS.index(row["label"])]
        assert gold == pytest.approx(math.exp(value), abs=2e-5)
        assert (line["prediction"] == row["label"]) == (value > math.log(0.5))


def test_training_is_adamw_by_hand(here: Path, prune: Prune, tiny_model: Path, data: Path) -> None:
    """Warm-up, schedule, accumulation, recorded dynamics and weights agree with AdamW steps done by hand.

    24 rows in 2 batches of 12 to a step are one step an epoch on the mean loss of all rows. Of 4 steps with a
    warm-up share of 0.5, 2 rise linearly from 0, and the rest fall: 0, 1/2, 1, 1/2 of the peak.
    """
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    train = data / "train.jsonl"
    still = ["--steps", 1, "--learning-rate", "1e-30"]
    assert prune("finetune", train, "-o", "start", "--model", tiny_model, *still).code == 0
    steps = ["--epochs", 4, "--batch-size", 12, "--accumulate", 2, "--warmup-ratio", 0.5, "--learning-rate", "1e-2"]
    assert prune("finetune", train, "-o", "out", "--model", "start", *steps, "--keep-checkpoints", "epoch").code == 0
    rates = [0.0, 0.5e-2, 1e-2, 0.5e-2]
    kept = prune("show", "out", "--json").json()["checkpoints"]
    assert list(kept.values()) == pytest.approx(rates)

    rows = read_rows(train)
    network = AutoModelForSequenceClassification.from_pretrained("start")
    tokenizer = AutoTokenizer.from_pretrained("start")
    batch = tokenizer([row["text"] for row in rows], padding=True, return_tensors="pt")
    labels = torch.tensor([LABELS.index(row["label"]) for row in rows])
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.0)
    recorded = load(here / "out" / "dynamics.safetensors")["logprob"]
    assert metadata(here / "out" / "dynamics.safetensors")["learning_rate"] == pytest.approx(rates)
    for epoch, rate in enumerate(rates):
        optimizer.param_groups[0]["lr"] = rate
        found = network(**batch).logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
        np.testing.assert_allclose(recorded[:, epoch], found.detach().numpy(), atol=1e-3)
        optimizer.zero_grad()
        (-found.mean()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    np.testing.assert_allclose(
        logprobs(here / "out", here / "out", rows),
        network.eval()(**batch).logits.log_softmax(1).gather(1, labels[:, None])[:, 0].detach().numpy(),
        atol=2e-3,
    )
    log = read_rows(here / "out" / "log.jsonl")
    assert [line["loss"] for line in log] == pytest.approx(-recorded.mean(0), rel=1e-6)
    assert [line["rows"] for line in log] == [24] * 4


@pytest.mark.parametrize(
    ("length", "checkpoints", "epochs", "steps"),
    [
        (["--steps", 2], ["1"], 0, 2),  # 3 steps are an epoch
        (["--steps", 3], ["1"], 1, 3),
        (["--epochs", 0.5], ["1"], 0, 2),
        (["--epochs", 1.5], ["1", "2"], 1, 5),
        (["--steps", 7], ["1", "2", "3"], 2, 7),
    ],
)
def test_checkpoints_of_begun_and_dynamics_of_whole_epochs(
    length: list[object],
    checkpoints: list[str],
    epochs: int,
    steps: int,
    here: Path,
    prune: Prune,
    tiny_model: Path,
    data: Path,
) -> None:
    """Weights are kept of every epoch that was begun, dynamics of those in which every row was seen."""
    finetune = [
        "finetune",
        data / "train.jsonl",
        "-o",
        "out",
        "--model",
        tiny_model,
        "--keep-checkpoints",
        "epoch",
    ]
    ran = prune(*finetune, "--batch-size", 8, *length)
    assert ran.code == 0, ran.err
    facts = prune("show", "out", "--json").json()
    assert list(facts["checkpoints"]) == checkpoints and facts["about"]["steps"] == steps
    assert (facts["tensors"].get("logprob") or {"shape": [24, 0]})["shape"] == [24, epochs]
    represent = ["represent", data / "test.jsonl", "-o", "rep", "--model", "out", "--kind", "dynamics"]
    assert prune(*represent).code == 0
    shape = prune("show", "rep", "--json").json()["tensors"]["logprob"]["shape"]
    assert shape == [12, max(1, len(checkpoints))]


def test_recorded_dynamics_are_found_by_id(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """Recorded dynamics of some rows in another order are those rows' own, at the checkpoints asked for."""
    rows = read_rows(data / "train.jsonl")
    order = [5, 2, 23, 0]
    write_rows(here / "some.jsonl", [rows[i] for i in order])
    represent = ["represent", "some.jsonl", "-o", "out", "--model", made / "warmup", "--kind", "dynamics"]
    assert prune(*represent, "--dynamics", "recorded", "--checkpoints", "2").code == 0
    recorded = load(made / "warmup" / "dynamics.safetensors")
    for name, values in load(here / "out" / "dynamics.safetensors").items():
        np.testing.assert_array_equal(values, recorded[name][order][:, [1]])


@pytest.mark.parametrize("labels", [LABELS, [3, 7], [0, 1]])
def test_a_model_folder_knows_its_labels(labels: list[str | int], here: Path, prune: Prune, tiny_model: Path) -> None:
    """What was trained here and then used as a plain model folder gives the same measurements."""
    write_rows(here / "rows.jsonl", [{**row, "label": labels[i % 2]} for i, row in enumerate(sentences(12))])
    assert prune("finetune", "rows.jsonl", "-o", "out", "--model", tiny_model, "--epochs", 1).code == 0
    shutil.copytree("out", "plain")
    (here / "plain" / "manifest.json").unlink()
    measured = [prune("eval", name, "rows.jsonl", "-o", f"{name}-e", "--json").json() for name in ("out", "plain")]
    assert measured[0]["metrics"] == measured[1]["metrics"]
    assert list(measured[0]["metrics"]["rows"]["per_label"]) == [str(label) for label in labels]


def test_a_label_that_was_not_kept_is_still_the_models(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """What is trained on a selection has all labels of the data, those that were pruned away too."""
    rows = read_rows(data / "train.jsonl")
    scores = [{"id": row["id"], "score": float(row["label"] == "positive")} for row in rows]
    shutil.copytree(made / "score", here / "score")
    write_rows(here / "score" / "score.jsonl", scores)
    reseal(here / "score")
    kept = ["select", "score", made / "train", "-o", "kept", "--method", "top", "--keep", 5]
    assert prune(*kept).code == 0
    assert {row["label"] for row in read_rows(here / "kept" / "select.jsonl")} == {"positive"}
    assert prune("finetune", "kept", "-o", "out", "--model", made / "warmup", "--steps", 1).code == 0
    assert prune("show", "out", "--json").json()["about"]["labels"] == LABELS
    assert prune("eval", "out", data / "test.jsonl", "-o", "metrics").code == 0


def reseal(folder: Path) -> None:
    """Bring an artifact's hashes, and the seal over them, up to date with its files."""
    import hashlib

    manifest = json.loads((folder / "manifest.json").read_text())
    for name, entry in manifest["files"].items():
        content = (folder / name).read_bytes()
        entry |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    (folder / "manifest.json").write_text(json.dumps(sealed(manifest)))


@pytest.mark.filterwarnings("ignore::FutureWarning")  # peft's call of a name that transformers has changed
def test_lora_end_to_end(here: Path, prune: Prune, tiny_model: Path, data: Path) -> None:
    """Adapters are trained, kept at each epoch, read back and added in as W + (alpha / r) B A says."""
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification

    train, test = data / "train.jsonl", data / "test.jsonl"
    lora = ["--tune", "lora", "--lora-rank", 4, "--lora-alpha", 8, "--learning-rate", "3e-2", "--epochs", 2]
    lora += ["--keep-checkpoints", "epoch", "--batch-size", 8, "--lora-targets", "query,dense"]
    assert prune("finetune", train, "-o", "lora", "--model", tiny_model, *lora).code == 0
    kinds = ["--kind", "hidden,dynamics,gradient", "--dim", 64]
    assert prune("represent", train, "-o", "rep", "--model", "lora", *kinds).code == 0
    ran = prune("eval", "lora", test, "-o", "metrics", "--json")
    for name, adapters in {"1": "lora/checkpoints/1", "2": "lora/checkpoints/2"}.items():
        network = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=2)
        weights, state = load_file(f"{adapters}/adapter_model.safetensors"), network.state_dict()
        for key, low in weights.items():
            target = key.removeprefix("base_model.model.")
            if key.endswith("lora_A.weight"):
                high = weights[key.replace("lora_A", "lora_B")]
                state[target.replace(".lora_A", "")] += 8 / 4 * high @ low
            elif "lora" not in key:
                state[target] = low
        network.load_state_dict(state)
        network.save_pretrained(here / "merged" / name)
    exact = [logprobs(here / "merged" / name, tiny_model, read_rows(train)) for name in ("1", "2")]
    stored = load(here / "rep" / "dynamics.safetensors")["logprob"]
    assert np.abs(stored[:, 0] - stored[:, 1]).max() > 0.05
    np.testing.assert_allclose(stored, np.transpose(exact), atol=5e-5)
    loss = -logprobs(here / "merged" / "2", tiny_model, read_rows(test)).mean()
    assert ran.json()["metrics"]["test"]["loss"] == pytest.approx(loss, abs=5e-5)
    moments = load(here / "lora" / "checkpoints" / "2" / "moments.safetensors")
    trained = {name.removeprefix("exp_avg_sq.") for name in moments if name.startswith("exp_avg_sq.")}
    assert trained and all("lora_" in name or "classifier" in name for name in trained)
    config = json.loads((here / "lora" / "adapter_config.json").read_text())
    assert config["target_modules"] == ["dense", "query"]  # in one order, or the same run gives other bytes
    # and on: a model trained on from adapters has them in its weights
    for method in ("full", "lora"):
        more = ["--tune", method, "--steps", 1, "--learning-rate", "1e-30"]
        ran = prune("finetune", train, "-o", f"more-{method}", "--model", "lora", *more)
        assert ran.code == 0, ran.err
        ran = prune("eval", f"more-{method}", test, "-o", f"{method}-metrics", "--json")
        assert ran.json()["metrics"]["test"]["loss"] == pytest.approx(loss, abs=5e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_is_drawn_at_random_comes_with_the_adapters(
    here: Path, prune: Prune, tiny_model: Path, data: Path
) -> None:
    """LoRA on a model without all of a classifier's weights reads back as it was trained, whatever the seed then."""
    import torch
    from transformers import DistilBertConfig, DistilBertModel

    config = DistilBertConfig(vocab_size=19, dim=16, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=32)
    DistilBertModel(config).save_pretrained(here / "model")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / name, here / "model")
    train = data / "train.jsonl"
    for out, model in (("lora", "model"), ("full", "lora"), ("again", "full")):
        method = "full" if out == "full" else "lora"
        arguments = ["--tune", method, "--steps", 3, "--learning-rate", "1e-2"]
        ran = prune("finetune", train, "-o", out, "--model", model, *arguments)
        assert ran.code == 0, ran.err
        losses = []
        for seed in (1, 2):
            torch.manual_seed(seed)
            ran = prune("eval", out, train, "-o", f"{out}-metrics", "--json", "--force")
            losses.append(ran.json()["metrics"]["train"]["loss"])
        assert losses[0] == losses[1]


def same_artifact(one: Path, other: Path) -> bool:
    """Whether two artifacts hold the same files, byte by byte."""
    names = [sorted(p.relative_to(a) for p in a.rglob("*") if p.is_file()) for a in (one, other)]
    assert names[0] == names[1]
    return all((one / n).read_bytes() == (other / n).read_bytes() for n in names[0] if n.name != "manifest.json")


RESUMED = {
    "finetune": ["--epochs", "2.5", "--batch-size", "4", "--save-minutes", "0", "--keep-checkpoints", "epoch"],
    "lora": ["--tune", "lora", "--lora-dropout", "0.2", "--epochs", "2", "--batch-size", "4"],
    "represent": ["--kind", "hidden,dynamics,gradient", "--dim", "64", "--batch-size", "4"],
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", ["finetune", pytest.param("lora", marks=pytest.mark.slow), "represent"])
def test_interrupted_work_goes_on_and_ends_the_same(
    case: str,
    here: Path,
    prune: Prune,
    monkeypatch: pytest.MonkeyPatch,
    tiny_model: Path,
    made: Path,
    data: Path,
) -> None:
    """Stopped again and again, a command goes on from what it had saved; the bytes are the same."""
    from prune_cli.represent import walk as engine
    from prune_cli.training import trainer as finetune

    stage, model = ("represent", made / "warmup") if case == "represent" else ("finetune", tiny_model)
    command = [stage, data / "train.jsonl", "--model", model, *RESUMED[case], "--save-minutes", "0", "-o"]
    assert prune(*command, "whole").code == 0
    target, name = (engine, "_attempt") if stage == "represent" else (finetune._Trainer, "compute_loss")
    original = getattr(target, name)
    calls = 0

    def stopping(*arguments: object, **keywords: object) -> object:
        nonlocal calls
        calls += 1
        if calls % 5 == 0:
            raise KeyboardInterrupt
        return original(*arguments, **keywords)

    monkeypatch.setattr(target, name, stopping)
    codes: list[int] = []
    while not codes or (codes[-1] == 130 and len(codes) < 20):
        codes.append(prune(*command, "out").code)
    assert codes[-1] == 0 and len(codes) >= 3
    assert calls < 5 * len(codes) + 1  # each went on from the last, none from the start
    assert same_artifact(here / "whole", here / "out")
    assert sorted(path.name for path in here.iterdir()) == ["out", "whole"]


def test_a_users_copy_is_left_alone(here: Path, prune: Prune, data: Path) -> None:
    """A copy of an artifact under a name of the user's own is neither taken nor removed by a rerun."""
    select = ["select", data / "train.jsonl", "-o", "kept", "--method", "random", "--seed"]
    assert prune(*select, 0, "--keep", 5).code == 0
    for name in ("kept.old", "kept.bak"):
        shutil.copytree(here / "kept", here / name)
    assert prune(*select, 1, "--keep", 5, "--force").code == 0
    shutil.rmtree(here / "kept")
    assert "select: made in" in prune(*select, 2, "--keep", 5).err
    assert sorted(path.name for path in here.iterdir()) == ["kept", "kept.bak", "kept.old"]
