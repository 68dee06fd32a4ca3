"""Run commands by the thousand: a server that has all libraries loaded forks a process for each, and faults are put in.

As the libraries take seconds to load and a command on tiny data takes a tenth of one, each command is a fork of one
process that has everything loaded and has run once. `faults.c` is preloaded into it.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import pkgutil
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

import prune_cli

SOURCE = Path(__file__).with_name("faults.c")
COUNT, KILL, INTERRUPT, FULL = range(4)  # as in faults.c
LOADED = (
    *("torch", "peft", "scipy.stats", "sklearn.cluster", "sklearn.metrics", "transformers.trainer"),
    *("transformers.models.bert.modeling_bert", "transformers.models.auto.modeling_auto"),
    *("pydantic", "pydantic.fields", "typer._adapters", "torch.utils.serialization", "torch.profiler._cupti_monitor"),
)
HUNG = 100.0  # seconds


@dataclass(frozen=True)
class Command:
    """A command to run in a fork, and what is to happen to it.

    folder: where calls that change files are counted. At call `at` the `action` happens; 0: none does. writes: whether
    calls that write are counted too. kill_after: seconds after which it is killed, whatever it does. disk: bytes of a
    file system of its own that is mounted on `folder` first; later `then` bytes, for a second run of the same command.
    """

    arguments: tuple[str, ...]
    folder: str
    at: int = 0
    action: int = COUNT
    writes: bool = False
    kill_after: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code (minus the signal that killed it; None: it hung), what it said, its calls."""

    code: int | None
    err: str
    seen: int

    @property
    def errors(self) -> list[str]:
        """Its error lines."""
        return [line for line in self.err.splitlines() if line.startswith("error: ")]


Run = Callable[..., list[Ended]]


@contextmanager
def server(*, preload: bool = True) -> Iterator[Run]:
    """A server; `run(*commands)` runs commands at the same time and returns how they ended.

    preload: with `faults.c` in it; skips where there is no compiler.
    """
    compiler = shutil.which("cc")
    if preload and not compiler:
        pytest.skip("no C compiler to build faults.c with")
    with tempfile.TemporaryDirectory() as scratch:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        environment["PYTHONPATH"] = str(Path(__file__).parents[2])
        if preload:
            library = Path(scratch) / "faults.so"
            subprocess.run([str(compiler), "-O1", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True)
            environment["LD_PRELOAD"] = str(library)
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.harness.forks"],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

        def run(*commands: Command) -> list[Ended]:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps([asdict(command) for command in commands]) + "\n")
            process.stdin.flush()
            return [Ended(**ended) for ended in json.loads(process.stdout.readline())]

        try:
            yield run
        finally:
            process.terminate()
            process.wait()


def main() -> None:
    """Serve: a line of commands in, a line of how they ended out.

    What takes long at the first time is done before the first fork. Python's collector is kept from what is there then,
    as to look at it would copy it into every fork.
    """
    for module in pkgutil.walk_packages(prune_cli.__path__, "prune_cli."):
        importlib.import_module(module.name)
    for name in LOADED:
        importlib.import_module(name)
    conversions: Any = importlib.import_module("transformers.conversion_mapping")
    conversions.get_checkpoint_conversion_mapping("bert")  # makes a table of a thousand patterns
    gc.freeze()
    for line in sys.stdin:
        commands = [Command(**{**given, "arguments": tuple(given["arguments"])}) for given in json.loads(line)]
        print(json.dumps(together(commands)), flush=True)


def together(commands: Sequence[Command]) -> list[dict[str, Any]]:
    """Run commands at the same time, each in a fork."""
    with tempfile.TemporaryDirectory() as scratch:
        started = [(_fork(command, Path(scratch, str(i))), command) for i, command in enumerate(commands)]
        return [_ended(pid, command, Path(scratch, str(i))) for i, (pid, command) in enumerate(started)]


def _fork(command: Command, report: Path) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 99
    try:
        for number, target in ((1, f"{report}.out"), (2, f"{report}.err")):
            os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT), number)
        code = _run(command, report)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def _run(command: Command, report: Path) -> int:
    from prune_cli.main import run

    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
    library: Any = ctypes.CDLL(None)
    armed = hasattr(library, "fault_arm")
    if armed:
        library.fault_arm(os.fsencode(command.folder), ctypes.c_long(command.at), command.action, command.writes)
    code = run(list(command.arguments))
    if armed:
        report.write_text(str(library.fault_seen()))
    return code


def _ended(pid: int, command: Command, report: Path) -> dict[str, Any]:
    start = time.monotonic()
    limit = HUNG if command.kill_after is None else command.kill_after
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            code: int | None = os.waitstatus_to_exitcode(status)
            break
        if time.monotonic() - start > limit:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            code = None if command.kill_after is None else -signal.SIGKILL
            break
        time.sleep(0.001)
    err = Path(f"{report}.err")
    return {
        "code": code,
        "err": err.read_text("utf-8", "replace") if err.exists() else "",
        "seen": int(report.read_text()) if report.exists() else 0,
    }


if __name__ == "__main__":
    main()
