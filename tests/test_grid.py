"""The steps of a pipeline by other ways than one after the other: some of them, side by side, by make, by several."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prune_cli.artifacts import drafts, removal
from prune_cli.artifacts.manifest import Recipe, open_artifact
from prune_cli.errors import PruneError
from prune_cli.pipeline import results
from prune_cli.pipeline.checks import read_plan
from prune_cli.pipeline.jobs import slots_of
from prune_cli.pipeline.pace import Pace
from prune_cli.pipeline.results import Report
from prune_cli.pipeline.spare import best_trial
from prune_cli.pipeline.steps import work_of
from prune_cli.stages.common import Outcome
from tests.conftest import PATIENCE, REPOSITORY, Prune, sentences, write_rows

FILE = """
train = "train.jsonl"
model = "{model}"
methods = [
    "random",
    {{name = "mine", representation = "hidden", score = "prototypicality", select = "top", score_options = {{k = 3}}}},
]
keep = [0.5]
seeds = [0]

[tests]
test = "test.jsonl"

[warmup]
epochs = 2
batch_size = 8

[finetune]
steps = 2
batch_size = 8
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
STEPS = 2 + 3 + 4  # warm-up, representation; select, finetune, eval of a trial, and mine's score


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path) -> Path:
    """A folder with data and p.toml."""
    write_rows(tmp_path / "train.jsonl", sentences(24))
    write_rows(tmp_path / "test.jsonl", sentences(12, start=200))
    (tmp_path / "p.toml").write_text(FILE.format(model=tiny_model))
    return tmp_path


def change(folder: Path, old: str, new: str) -> None:
    text = (folder / "p.toml").read_text()
    assert text.count(old) == 1, old
    (folder / "p.toml").write_text(text.replace(old, new))


def start(folder: Path, *arguments: object, at_ctrl_c: signal.Handlers = signal.SIG_DFL) -> subprocess.Popen[str]:
    """Begin a pipeline. at_ctrl_c: what it does then; a shell's background processes ignore it, tests there too."""
    command = [sys.executable, "-m", "prune_cli", "pipeline", "p.toml", *map(str, arguments)]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, at_ctrl_c)
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, text=True, start_new_session=True, **pipes)


def wait_for(ready: Callable[[], Any]) -> Any:
    """What `ready` gives once that is something."""
    deadline = time.monotonic() + PATIENCE
    while not (found := ready()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


def contents(out: Path) -> dict[str, Any]:
    """Every file's bytes; of manifests the key and the hashes."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in out.rglob("*") if path.is_file()):
        manifest = json.loads(path.read_text()) if path.name == "manifest.json" else None
        found[str(path.relative_to(out))] = (manifest["key"], manifest["files"]) if manifest else path.read_bytes()
    return found


@pytest.fixture
def plain(folder: Path) -> dict[str, Any]:
    """What the plain pipeline makes, in a process of its own as all others are."""
    done = start(folder, "-o", "plain")
    _, told = done.communicate()
    assert done.returncode == 0, told
    assert f"pipeline: {STEPS} made, 0 up to date" in told
    return contents(folder / "plain")


@pytest.mark.slow
def test_side_by_side_and_make_give_the_same_bytes(folder: Path, plain: dict[str, Any], prune: Prune) -> None:
    """`--jobs 2`, and the Makefile under `make -j2`, which has nothing to do the second time, nor has the pipeline."""
    ran = start(folder, "-o", "jobs", "--jobs", 2)
    table, told = ran.communicate()
    assert ran.returncode == 0, told
    assert f"pipeline: {STEPS} made, 0 up to date" in told
    assert contents(folder / "jobs") == plain
    assert table.splitlines()[1:3] == prune("show", folder / "plain").out.splitlines()[1:3]
    make = shutil.which("make")
    assert make, "this test needs make"
    ran = start(folder, "-o", "made", "--print", "make")
    (folder / "Makefile").write_text(ran.communicate()[0])
    command = [make, "-j2", f"PRUNE={sys.executable} -m prune_cli"]
    done = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert contents(folder / "made") == plain
    again = subprocess.run([*command, "--question"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout
    (folder / "test.jsonl").touch()  # the same rows: evaluations are looked at once more, and found up to date
    looked = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert looked.returncode == 0 and "made" not in looked.stderr and "eval" in looked.stdout
    again = subprocess.run([*command, "--question"], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert again.returncode == 0, again.stdout
    assert "pipeline: nothing to do" in start(folder, "-o", "made").communicate()[1]


@pytest.mark.slow
def test_two_runs_over_one_folder_share_the_work(folder: Path, plain: dict[str, Any]) -> None:
    """Each step is made by one of them, both end well, and the results are those of one run."""
    runs = [start(folder, "-o", "both") for _ in range(2)]
    told = [run.communicate()[1] for run in runs]
    assert [run.returncode for run in runs] == [0, 0], told
    assert sum(text.count(": made in ") for text in told) == STEPS
    assert all(": made in " in text for text in told)
    assert contents(folder / "both") == plain


@pytest.mark.slow
def test_a_run_goes_on_where_another_was_killed(folder: Path, plain: dict[str, Any]) -> None:
    """Killed in the middle of what the other waits for: that one says so, takes it over, and ends with the same."""
    killed = start(folder, "-o", "both")
    wait_for((folder / "both/warmup.part/.recipe.json").is_file)
    killed.send_signal(signal.SIGSTOP)
    other = start(folder, "-o", "both")
    assert other.stderr is not None
    lines = []
    while (line := other.stderr.readline()) != "warmup: another process is making it; waiting for it\n":
        assert line
        lines += [line] if line.startswith("step ") else []
    assert [line.split(", ")[1].split()[0] for line in lines] == ["select", "finetune", "eval"]  # what needs no warm-up
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    _, told = other.communicate()
    assert other.returncode == 0, told
    assert contents(folder / "both") == plain


def children(process: subprocess.Popen[str]) -> list[int]:
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    return [int(pid) for pid in path.read_text().split()]


@pytest.mark.slow
def test_a_step_that_is_killed_is_told_and_made_again(folder: Path, plain: dict[str, Any]) -> None:
    """One line names it, no other step is begun, and the same command goes on."""
    run = start(folder, "-o", "jobs", "--jobs", 2)
    wait_for((folder / "jobs/warmup.part").is_dir)
    os.kill(children(run)[0], signal.SIGKILL)  # the warm-up, the first of them
    _, told = run.communicate()
    assert run.returncode == 1
    assert "error: warmup: its process was killed (SIGKILL)\n" in told
    assert not (folder / "jobs/represent").exists()
    again = start(folder, "-o", "jobs", "--jobs", 2)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert contents(folder / "jobs") == plain


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "at_ctrl_c"), [("SIGINT", signal.SIG_DFL), ("SIGTERM", signal.SIG_IGN)])
def test_ctrl_c_stops_all_processes(folder: Path, plain: dict[str, Any], sent: str, at_ctrl_c: signal.Handlers) -> None:
    """They end, what they had is saved, and the same command goes on from it; in the background at SIGTERM."""
    run = start(folder, "-o", "jobs", "--jobs", 2, at_ctrl_c=at_ctrl_c)
    wait_for((folder / "jobs/warmup.part").is_dir)
    pids = children(run)
    run.send_signal(signal.Signals[sent])
    _, told = run.communicate()
    assert run.returncode == 130, told
    assert not (folder / "jobs/warmup").exists()
    assert told.endswith("interrupted: the same command again goes on from what is saved\n")
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    again = start(folder, "-o", "jobs", "--jobs", 2)
    _, told = again.communicate()
    assert again.returncode == 0, told
    assert contents(folder / "jobs") == plain


@pytest.mark.slow
def test_job_arrays(folder: Path, plain: dict[str, Any]) -> None:
    """A stand-in for sbatch that runs each task of an array at once, after the jobs that it depends on."""
    script = start(folder, "-o", "arrays", "--print", "slurm").communicate()[0]
    (folder / "submit.sh").write_text(script)
    (folder / "bin").mkdir()
    (folder / "bin/prune").write_text(f'#!/bin/sh\nexec {sys.executable} -m prune_cli "$@"\n')
    (folder / "bin/sbatch").write_text(
        "#!/bin/bash\n"
        'cat > job.sh; echo "$@" >> calls\n'
        'last=$(echo "$@" | sed -n "s/.*--array=0-\\([0-9]*\\).*/\\1/p")\n'
        "for i in $(seq 0 ${last:-0}); do SLURM_ARRAY_TASK_ID=$i bash job.sh >&2 || exit 1; done\n"
        'echo "$(wc -l < calls);cluster"\n'
    )
    for name in ("prune", "sbatch"):
        (folder / "bin" / name).chmod(0o755)
    path = {**ENVIRONMENT, "PATH": f"{folder}/bin:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "submit.sh"], cwd=folder, env=path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    calls = (folder / "calls").read_text().splitlines()
    assert [re.sub("--parsable --job-name=prune-", "", call) for call in calls] == [
        "shared --array=0-0",
        "selections --array=0-1 --dependency=afterok:1",
        "trials --array=0-1 --dependency=afterok:2",
        "--job-name=prune-table --dependency=afterok:3",
    ]
    assert contents(folder / "arrays") == plain


def test_what_is_printed(folder: Path, prune: Prune) -> None:
    """Commands are one for each step, and one for the table; nothing is made; a name that make would not take."""
    file = folder / "p.toml"
    work = work_of(read_plan(file), folder / "runs")
    lines = prune("pipeline", file, "-o", folder / "runs", "--device", "cpu", "--print", "commands").out.splitlines()
    base = ["prune", "pipeline", str(file), "-o", str(folder / "runs"), "--device", "cpu"]
    assert [shlex.split(line) for line in lines] == [*([*base, "--only", work.name(step)] for step in work.steps), base]
    assert len(work.steps) == STEPS
    rules = prune("pipeline", file, "-o", folder / "runs", "--print", "make").out
    table = next(line for line in rules.splitlines() if line.startswith(f"{folder}/runs/results.jsonl: "))
    assert len(table.split()) == 2 + STEPS
    before = {line.split(": ")[0]: line.split(": ")[1].split() for line in rules.splitlines() if ": " in line}
    test, train = str(folder / "test.jsonl"), str(folder / "train.jsonl")
    evals = {str(step.out / "manifest.json") for step in work.steps if step.kind == "eval"}
    assert evals == {target for target, needs in before.items() if test in needs}
    assert str(folder / "runs/warmup/manifest.json") in {target for target, needs in before.items() if train in needs}
    refused = prune("pipeline", file, "-o", folder / "my runs", "--print", "make")
    assert refused.code == 1 and "/my runs/warmup: a name that make would not take; allowed: " in refused.errors[0]
    assert not (folder / "runs").exists()


def test_some_steps_alone(folder: Path, prune: Prune) -> None:
    """What all methods share; a step by what it is called, with what it rests on; all in a folder; unknown ones."""
    command = ["pipeline", folder / "p.toml", "-o", folder / "runs"]
    shared = prune(*command, "--only", "shared", "--json")
    assert [step["step"] for step in shared.json()["steps"]] == [
        "warmup",
        "represent train hidden",
    ], shared.err
    assert not (folder / "runs/methods").exists()
    one = prune(*command, "--only", "eval mine keep 0.5 seed 0", "--json").json()["steps"]
    assert [(step["step"].split()[0], step["state"]) for step in one] == [
        ("warmup", "current"),
        ("represent", "current"),
        *((name, "made") for name in ("score", "select", "finetune", "eval")),
    ]
    assert not (folder / "runs/results.jsonl").exists()
    so_far = prune("show", folder / "runs")
    assert "under way; 1 of 2 trials have ended" in so_far.err and "mine" in so_far.out
    checked = (folder / "runs/warmup/manifest.json").stat().st_mtime_ns
    steps = prune(*command, "--only", "methods/random", "--json").json()["steps"]
    assert [step["step"].split()[1] for step in steps] == ["random"] * 3
    assert (folder / "runs/warmup/manifest.json").stat().st_mtime_ns == checked
    both = prune(*command, "--only", "methods/random", "--only", "shared", "--dry-run", "--json").json()["steps"]
    assert [step["step"].split()[0] for step in both] == ["warmup", "represent", "select", "finetune", "eval"]
    near = prune(*command, "--only", "select mine keep 0.5 sed 0")
    assert "did you mean select mine keep 0.5" in near.err
    for wanted in ("score mine", ""):
        told = prune(*command, "--only", "shared", "--only", wanted)
        assert told.errors == [
            f"only: {wanted}; allowed: shared, what a step is called, or a path in {folder}/runs that one makes"
        ]


def models(folder: Path) -> list[str]:
    """The trials whose model is there."""
    found = (folder / "runs/methods").glob("*/*/*/finetune/model.safetensors")
    return sorted(str(path.parent.parent.relative_to(folder / "runs/methods")) for path in found)


@pytest.mark.slow
def test_models_are_removed_once_evaluated(folder: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """The results stand without them: a rerun makes none; what needs one again makes it; a change remakes all."""
    change(folder, "seeds", 'keep_models = "none"\nkeep_representations = false\nseeds')
    command = ["pipeline", folder / "p.toml", "-o", folder / "runs"]
    done = prune(*command)
    assert done.code == 0, done.err
    assert models(folder) == []
    trained = folder / "runs/methods/mine/keep-0.5/seed-0/finetune"
    assert [path.name for path in trained.iterdir()] == ["manifest.json"]
    represented = folder / "runs/represent/train/hidden"
    assert sorted(path.name for path in represented.iterdir()) == ["ids.jsonl", "manifest.json", "rows.jsonl"]
    assert "files were removed after their use" in prune("show", trained).out
    assert prune("show", represented).code == 0
    used = prune("eval", trained, folder / "test.jsonl", "-o", folder / "again")
    assert used.errors == [f"{trained}/config.json: was removed after its use"]
    again = prune(*command)
    assert "nothing to do" in again.err and again.out == done.out
    with monkeypatch.context() as patch:  # a run that had looked before another one made and removed all
        look = lambda steps, out: {step.out: Outcome(step.out, "", "would run") for step in steps}  # noqa: E731
        patch.setattr(sys.modules["prune_cli.pipeline.run"], "look", look)
        again = prune(*command)
    assert "nothing to do" in again.err and again.out == done.out

    change(folder, "k = 3", "k = 4")  # one method's score: its representation is needed, and its trials
    steps = prune(*command, "--json").json()["steps"]
    made = [step["step"] for step in steps if step["state"] == "made"]
    assert "represent train hidden" in made and all("mine" in step for step in made if "represent" not in step)
    change(folder, "[finetune]", '[eval]\nprecision = "bfloat16"\n\n[finetune]')  # models are needed to be judged again
    steps = prune(*command, "--json").json()["steps"]
    made = [step["step"].split()[0] for step in steps if step["state"] == "made"]
    assert sorted(made) == ["eval"] * 2 + ["finetune"] * 2
    change(folder, "steps = 2", "steps = 3")
    planned = {step["step"]: step["reason"] for step in prune(*command, "--dry-run", "--json").json()["steps"]}
    assert planned["finetune random keep 0.5 seed 0"] == "options.steps 2 -> 3"
    steps = prune(*command, "--json").json()["steps"]
    made = [step["step"].split()[0] for step in steps if step["state"] == "made"]
    assert sorted(made) == ["eval"] * 2 + ["finetune"] * 2
    assert models(folder) == []


def test_the_best_model_is_kept(folder: Path, prune: Prune) -> None:
    """One of the grid: of equal ones the first."""
    change(folder, "seeds", 'keep_models = "best"\nseeds')
    done = prune("pipeline", folder / "p.toml", "-o", folder / "runs", "--json")
    assert done.code == 0, done.err
    best = max(done.json()["results"], key=lambda line: line["accuracy"])
    assert models(folder) == [f"{best['method']}/keep-0.5/seed-{best['seed']}"]
    change(folder, '"best"', '"most"')
    assert prune("pipeline", folder / "p.toml", "-o", folder / "runs").errors == [
        f"{folder}/p.toml: keep_models: most; allowed: none, best, all"
    ]


def test_the_best_trial() -> None:
    """By the first metric of the table on the first test set: the highest, of losses the lowest; none that is null."""
    lines = [("none", 0, 0.9), ("a", 5, None), ("b", 5, 0.2), ("c", 5, 0.5), ("d", 5, 0.5)]
    for metric, best in (("accuracy", "c"), ("loss", "b")):
        found = [
            {"method": name, "keep": "1", "kept": kept, "seed": 0, "test": test, metric: value if test == "x" else 0.1}
            for test in ("x", "y")
            for name, kept, value in lines
        ]
        assert best_trial(Report(Path("runs"), (metric,), results=found)) == (best, "1", 0)
    assert best_trial(Report(Path("runs"), ("accuracy",))) is None


def test_what_is_being_made(tmp_path: Path) -> None:
    """A draft that a process holds, and none that one left behind."""
    for name in ("score/less.part", "methods/a/keep-1/select.part"):
        (tmp_path / name).mkdir(parents=True)
    held = os.open(tmp_path / "score/less.part", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    assert results.making(tmp_path) == ["score/less"]
    os.close(held)
    assert results.making(tmp_path) == []


def test_time_left() -> None:
    """By steps of the same kind, by their rows; nothing before most kinds are measured, at least before all are."""
    kinds = ["finetune", "finetune", "finetune", "eval", "eval", "score"]
    steps: Any = [SimpleNamespace(out=i, kind=kind, weight=1) for i, kind in enumerate(kinds)]
    steps[0].weight, steps[1].weight, steps[2].weight = 100, 300, 200
    pace = Pace(steps, 1)
    assert pace.told == ""
    pace.ended(steps[0], 10.0)
    assert pace.told == ""  # two of five are known
    pace.ended(steps[3], 5.0)
    assert pace.told == ", at least 55 s left"  # 30 + 20 + 5
    pace.ended(steps[5], 1.0)
    assert pace.told == ", about 55 s left"
    pace.ended(steps[1], None)  # up to date after all
    assert pace.told == ", about 25 s left"
    pace.at_once, steps[2].weight = 2, 40000
    assert pace.told == ", about 33 min left"
    pace.ended(steps[2], 1.0)
    pace.ended(steps[4], 1.0)
    assert pace.told == ""


def test_the_first_step_of_a_kind_counts_until_there_is_another() -> None:
    """It has the start in it: of the device, of its kernels."""
    steps: Any = [SimpleNamespace(out=i, kind="finetune", weight=1) for i in range(4)]
    pace = Pace(steps, 1)
    for step, seconds, told in zip(steps, (30.0, 2.0, 4.0), ("90 s", "4 s", "3 s"), strict=False):
        pace.ended(step, seconds)
        assert pace.told == f", about {told} left"


def test_where_in_the_whole_a_run_is(folder: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line says which step of how many, and how long the rest takes as soon as that can be said."""
    change(folder, "seeds = [0]", "seeds = [0, 1, 2]")
    taken: list[tuple[Any, Any]] = []
    monkeypatch.setattr(Pace, "ended", lambda pace, step, seconds: taken.append((step.kind, seconds)))
    assert prune("pipeline", folder / "p.toml", "-o", folder / "other").code == 0
    monkeypatch.undo()
    assert all(seconds > 0 for kind, seconds in taken if kind == "finetune")
    ran = prune("pipeline", folder / "p.toml", "-o", folder / "runs")
    assert "were cut" not in ran.err
    lines = ran.err.splitlines()
    told = [line for line in lines if line.startswith("step ")]
    assert [line.split(",")[0] for line in told] == [f"step {i + 1} of {STEPS + 14}" for i in range(STEPS + 14)]
    assert not any(" left" in line for line in (*told[:3], told[-1]))
    assert all(re.search(r": made in \d+\.\d s, (about|at least) \d+ s left$", line) for line in told[11:-1])


def test_cut_rows_are_told_once_and_at_the_end(folder: Path, prune: Prune) -> None:
    """Of each test set, and of the training rows those of the training that lost most; again when all is made."""
    change(folder, "seeds = [0]", "seeds = [0, 1]")
    with (folder / "p.toml").open("a") as file:
        file.write("\n[eval]\nmax_length = 5\n")
    change(folder, "[finetune]", "[finetune]\nmax_length = 5")
    for again in (False, True):
        ran = prune("pipeline", folder / "p.toml", "-o", folder / "runs")
        assert ran.code == 0, ran.err
        lines = ran.err.splitlines()
        assert sum(line.startswith(f"{folder / 'test.jsonl'}: ") and "were cut" in line for line in lines) == (
            not again
        )
        told = [line for line in lines if line.startswith("warning: ") and "were cut" in line]
        assert len(told) == 2
        assert re.fullmatch(r"warning: test set test: \d+ of 12 rows were cut to 5 tokens", told[0])
        assert re.fullmatch(
            r"warning: training rows: \d+ of \d+ rows were cut to 5 tokens; some were in \d+ of \d+ trainings", told[1]
        )


def test_devices() -> None:
    """One step a device at a time; without devices as many as asked for."""
    assert slots_of(None, [], None) == [None]
    assert slots_of(2, [], "cpu") == ["cpu", "cpu"]
    assert slots_of(None, ["cuda:0", "cuda:1"], None) == ["cuda:0", "cuda:1"]
    assert slots_of(1, ["cuda:0", "cuda:1"], None) == ["cuda:0"]
    with pytest.raises(PruneError, match="jobs: 3, for 2 devices"):
        slots_of(3, ["cuda:0", "cuda:1"], None)
    with pytest.raises(PruneError, match="device: cpu; allowed without devices"):
        slots_of(None, ["cuda:0"], "cpu")
    with pytest.raises(PruneError, match="device: banana; allowed: auto, cpu, cuda or cuda:N"):
        slots_of(None, ["cuda:0", "banana"], None)


def test_what_another_run_has_just_made_is_not_made_again(tmp_path: Path) -> None:
    """It shows when the draft is locked; only who wants it made in any case goes on."""
    recipe, out = Recipe("score", {}, {}), tmp_path / "score"
    for again in (False, True):
        with drafts.draft(out, recipe, {}, resumable=False, again=again) as work:
            (work.path / "file").write_text(str(again))
    with pytest.raises(drafts.Taken), drafts.draft(out, recipe, {}, resumable=False):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["score"]
    assert (out / "file").read_text() == "True"


def test_files_that_are_removed_are_listed_and_ours(made: Path, tmp_path: Path) -> None:
    """Files beside them that are not of the artifact stay, and the digest is what it was."""
    shutil.copytree(made / "warmup", tmp_path / "warmup")
    (tmp_path / "warmup/checkpoints/notes.txt").write_text("mine")
    before = open_artifact(tmp_path / "warmup").digest
    removal.remove_files(tmp_path / "warmup")
    left = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert left == ["warmup/checkpoints/notes.txt", "warmup/manifest.json"]
    assert open_artifact(tmp_path / "warmup").digest == before


READS = """
import os, sys
import numpy as np

def read(n):
    os.system("echo said by a child")
    print("said", sys.stdin.read())
    return np.arange(float(n))

def fails(n):
    raise ValueError("boom")
"""


@pytest.mark.slow
def test_workers_keep_their_lines_to_themselves(folder: Path) -> None:
    """A method may read standard input, and write to standard output as its children do; what fails is told."""
    (folder / "mine.py").write_text(READS)
    own = '{{name = "own", representation = "none", score = "./mine.py:{}", select = "top"}},'
    change(folder, "methods = [", "methods = [" + own.format("read"))
    ran = start(folder, "-o", "jobs", "--jobs", 2)
    table, told = ran.communicate(timeout=PATIENCE)
    assert ran.returncode == 0, told
    assert "own" in table and "said by a child" in told
    change(folder, "mine.py:read", "mine.py:fails")
    ran = start(folder, "-o", "jobs", "--jobs", 2)
    _, told = ran.communicate(timeout=PATIENCE)
    assert ran.returncode == 1
    assert (
        "error: score own: ./mine.py:fails: ValueError: boom" in told or "score own: mine.py:fails: ValueError" in told
    )


@pytest.mark.slow
def test_side_by_side_what_was_removed_is_made_again(folder: Path) -> None:
    """A test set that is added needs models that are gone; so a plain run does, and this one."""
    write_rows(folder / "more.jsonl", sentences(6, start=300))
    change(folder, "seeds", 'keep_models = "none"\nkeep_representations = false\nseeds')
    for out in ("plain", "jobs"):
        ran = start(folder, "-o", out)
        _, told = ran.communicate(timeout=PATIENCE)
        assert ran.returncode == 0, told
    change(folder, "[tests]", '[tests]\nmore = "more.jsonl"')
    made = []
    for out, more in (("plain", []), ("jobs", ["--jobs", 2])):
        ran = start(folder, "-o", out, *more)
        _, told = ran.communicate(timeout=PATIENCE)
        assert ran.returncode == 0, told
        made.append(told.count(": made in "))
    assert made[0] == made[1]  # and nothing that no step needs
    assert contents(folder / "jobs") == contents(folder / "plain")


@pytest.mark.slow
def test_a_worker_that_dies_while_it_waits_costs_nothing(folder: Path, plain: dict[str, Any]) -> None:
    """Another takes its place."""
    run = start(folder, "-o", "jobs", "--jobs", 2)
    wait_for(lambda: (folder / "jobs/warmup.part").is_dir() and len(children(run)) == 2)
    wait_for((folder / "jobs/warmup").is_dir)
    os.kill(children(run)[-1], signal.SIGKILL)
    _, told = run.communicate(timeout=PATIENCE)
    if run.returncode:  # it had been given a step in between
        assert "its process was killed (SIGKILL)" in told
        again = start(folder, "-o", "jobs", "--jobs", 2)
        assert again.communicate(timeout=PATIENCE) and again.returncode == 0
    assert contents(folder / "jobs") == plain
