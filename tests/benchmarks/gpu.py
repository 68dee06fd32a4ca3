"""Check the tool on a machine with a CUDA device, in at most eight minutes and without a network.

    python -m tests.benchmarks.gpu

PyTorch 2.11, transformers 5.17, Python 3.12 or newer are needed; other packages that are missing are installed from
.wheels/ (wheels.py). The steps run one after the other, each in a process of its own with its own time limit; one that
fails does not stop the others. The figures go to runs/gpu.json, or $OUT/gpu.json where OUT is set. Exit status 0 only
if every step passed. Where there is no CUDA device, the steps that can run on a CPU do so, with small models.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.benchmarks import wheels

ROOT = Path(__file__).parents[2]
TESTS = [sys.executable, "-m", "pytest", "-m", "gpu", "-p", "no:cacheprovider", "tests/test_gpu.py"]
PROBE = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else 3)"
LINES = 15  # of an error, from its end


@dataclass(frozen=True)
class Step:
    """A step, and the most seconds that it may take. The limits add up to less than eight minutes."""

    name: str
    limit: int


STEPS = (
    Step("machine", 30),
    Step("tests", 110),
    Step("encoder", 60),
    Step("llama", 90),
    Step("memory", 50),
    Step("pipeline", 130),
)
NEED_CUDA = ("tests",)  # they compare a CUDA device with the CPU


def main() -> int:
    """Run all steps and write the report; returns the exit status."""
    out = Path(os.environ.get("OUT") or ROOT / "runs") / "gpu.json"
    report = checked(STEPS)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(report, indent=1, ensure_ascii=False))
    if not report["cuda"]:
        print(f"NO CUDA DEVICE: only small models on a CPU were checked; not run: {', '.join(report['not_run'])}")
    print(f"{'all steps passed' if report['ok'] else 'FAILED'}; written to {out}")
    return 0 if report["ok"] else 1


def checked(steps: tuple[Step, ...]) -> dict[str, Any]:
    """The report: whether there is a CUDA device, what was not run, and of each step its outcome and figures."""
    began = time.monotonic()
    report: dict[str, Any] = {"ok": True, "cuda": False, "not_run": [], "installed": [], "steps": {}}
    try:
        report["installed"] = wheels.install()
    except (OSError, ImportError, subprocess.CalledProcessError) as failure:
        text = f"{failure}\n{getattr(failure, 'stderr', None) or ''}"
        return {**report, "ok": False, "error": text.strip().splitlines()[-LINES:]}
    report["cuda"] = has_cuda()
    for step in steps:
        if step.name in NEED_CUDA and not report["cuda"]:
            report["not_run"].append(step.name)
            continue
        print(f"{step.name} …", file=sys.stderr, flush=True)
        outcome = done(step, "cuda:0" if report["cuda"] else "cpu")
        report["steps"][step.name] = outcome
        print(f"{step.name}: {'ok' if outcome['ok'] else 'FAILED'}, {outcome['seconds']} s", file=sys.stderr)
    if not report["cuda"]:
        report["not_run"] += ["models of full size", "memory of a device that really runs out"]
    report["ok"] = all(outcome["ok"] for outcome in report["steps"].values())
    return {**report, "seconds": round(time.monotonic() - began, 1)}


def has_cuda() -> bool:
    """Whether PyTorch sees a CUDA device; asked of another process, so that a fault stays there."""
    return subprocess.run([sys.executable, "-c", PROBE], env=environment(), check=False).returncode == 0


def environment(device: str = "cuda:0") -> dict[str, str]:
    """The environment of a step: what was installed for it is found, and nothing asks the network.

    On a CPU one thread: tiny models gain nothing from more, and on a busy machine threads wait for each other.
    """
    paths = [str(wheels.SITE)] if wheels.SITE.is_dir() else []
    given = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([*paths, str(ROOT), *([given] if given else [])])
    threads = {"OMP_NUM_THREADS": "1"} if device == "cpu" else {}
    return {**os.environ, **threads, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


def done(step: Step, device: str) -> dict[str, Any]:
    """The outcome of a step: ok, seconds, figures; the last lines of what it printed where it failed."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "figures.json", Path(folder) / "log"
        command = [sys.executable, "-m", "tests.benchmarks.gpu_steps", step.name]
        command = TESTS if step.name == "tests" else [*command, "--device", device, "--figures", str(file)]
        began = time.monotonic()
        with log.open("wb") as stream:
            code = limited(command, step.limit, stream, environment(device))
        seconds = round(time.monotonic() - began, 1)
        said = log.read_text("utf-8", errors="replace").splitlines()
        figures = json.loads(file.read_text("utf-8")) if file.exists() else tests_passed(said)
    ok = code == 0 and bool(figures)
    outcome: dict[str, Any] = {"ok": ok, "seconds": seconds, "limit": step.limit, "figures": figures}
    if not ok:
        reason = f"took more than {step.limit} s" if code is None else f"exit status {code}"
        outcome["error"] = [reason, *said[-LINES:]]
    return outcome


def limited(command: list[str], seconds: int, stream: Any, environ: dict[str, str]) -> int | None:
    """The exit status of a command, what it prints in `stream`; None where it took more than `seconds`."""
    try:
        return subprocess.run(
            command, cwd=ROOT, env=environ, stdout=stream, stderr=subprocess.STDOUT, timeout=seconds, check=False
        ).returncode
    except subprocess.TimeoutExpired:
        return None


def tests_passed(said: list[str]) -> dict[str, int]:
    """How many tests passed, as pytest's last line says; nothing where none did: skipped tests check nothing."""
    counted = re.search(r"(\d+) passed", said[-1]) if said else None
    return {"passed": int(counted[1])} if counted else {}


if __name__ == "__main__":
    sys.exit(main())
