"""Steps side by side: worker processes, each a `prune pipeline FILE --only -` that makes step after step as told."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from prune_cli.artifacts.drafts import is_taken
from prune_cli.errors import PruneError
from prune_cli.models.device import check_name
from prune_cli.pipeline.work import Step, Work, spared
from prune_cli.runtime import interrupt
from prune_cli.runtime.progress import each_once, note
from prune_cli.stages.common import Outcome

POLL = 0.05  # seconds
OWN_WORDS = re.compile(r", about \d+ s left$")  # of the progress of a step, which the whole run says better

Command = Callable[[str | None], Sequence[str]]  # of a worker on a device
Ended = Callable[[Step, Outcome, float], None]


@dataclass
class _Worker:
    """A process that makes steps, what it has written so far, and the step that it is at."""

    slot: str | None
    process: subprocess.Popen[bytes]
    out: IO[bytes]
    err: IO[bytes]
    read: dict[IO[bytes], int] = field(default_factory=dict)  # bytes, of either
    errors: list[str] = field(default_factory=list)  # what it has said of the step, if that fails
    step: Step | None = None
    began: float = 0.0
    last: str = ""  # line that it wrote

    def tell(self, step: Step, name: str) -> None:
        """Have it make a step, called by its name."""
        assert self.process.stdin
        self.step, self.began, self.errors = step, time.monotonic(), []
        with suppress(BrokenPipeError):  # it has ended, which is seen below
            self.process.stdin.write(f"{name}\n".encode())
            self.process.stdin.flush()

    def lines(self, file: IO[bytes]) -> list[str]:
        """The whole lines that it has written since, of a process that has ended all."""
        start = self.read.get(file, 0)
        new = os.pread(file.fileno(), os.fstat(file.fileno()).st_size - start, start)
        if self.process.poll() is None:
            new = new[: new.rfind(b"\n") + 1]
        self.read[file] = start + len(new)
        return new.decode("utf-8", "replace").splitlines()


def slots_of(jobs: int | None, devices: Sequence[str], device: str | None) -> list[str | None]:
    """The devices on which steps are made at the same time, one at a time on each where devices are named."""
    if devices and device is not None:
        raise PruneError(f"device: {device}; allowed without devices")
    if jobs is not None and devices and jobs > len(devices):
        raise PruneError(f"jobs: {jobs}, for {len(devices)} devices; allowed: at most one a device")
    slots: list[str | None] = [*devices[:jobs]] if devices else [device] * (jobs or 1)
    for name in {name for name in slots if name is not None}:
        check_name(name)
    return slots


def run(
    work: Work,
    steps: Sequence[Step],
    current: Mapping[Path, Outcome],
    slots: Sequence[str | None],
    command: Command,
    ended: Ended,
) -> None:
    """Make steps of the work as soon as what they need is made, as many at a time as there are slots.

    current: those that are up to date. After a step that failed no other is begun; when those under way have ended it
    is told as a PruneError. At Ctrl-C the workers are told to stop, and save what they have.
    """
    left, unused, workers = {step.out: step for step in steps}, list(slots), list[_Worker]()
    failures: list[tuple[Step, str]] = []
    try:
        with interrupt.deferred() as stopped, each_once():
            while (left and not failures) or any(worker.step for worker in workers):
                if stopped():
                    break
                begun = {worker.step.out for worker in workers if worker.step}
                ready = [step for step in left.values() if not left.keys() & {*step.needs} and step.out not in begun]
                for step in ready:
                    if step.out in current:
                        del left[step.out]
                        ended(step, current[step.out], 0.0)
                    elif not failures and not is_taken(step.out):
                        if (there := spared(step, left.values(), work.out)) is not None:
                            del left[step.out]
                            ended(step, there, 0.0)
                            continue
                        worker = _free(workers, unused, command, len(slots))
                        if worker is not None:
                            worker.tell(step, work.name(step))
                for worker in [worker for worker in workers if worker.step]:
                    if (come := _come_to(worker)) is None:
                        continue
                    done, problem = come
                    tried, worker.step = worker.step, None
                    assert tried
                    if done:
                        del left[tried.out]
                        ended(tried, done, time.monotonic() - worker.began)
                        continue
                    workers.remove(worker)
                    failures.append((tried, problem))
                    if others := sum(worker.step is not None for worker in workers):
                        note(f"{tried.label}: failed; no other is begun, waiting for the {others} under way")
                time.sleep(POLL)
            _stop(workers)
    finally:
        for worker in workers:
            with suppress(OSError):
                worker.process.kill()
    if failures:
        told = [f"{step.label}: {problem}" for step, problem in failures]
        raise PruneError(told[0], hint="the same command again goes on from what is made", also=told[1:])


def _free(workers: list[_Worker], unused: list[str | None], command: Command, count: int) -> _Worker | None:
    """A worker that has nothing to do, begun where there is room for one; None where there is none."""
    for worker in [worker for worker in workers if not worker.step]:
        if worker.process.poll() is None:
            return worker
        workers.remove(worker)  # it was killed
        unused.append(worker.slot)
    if not unused:
        return None
    workers.append(_begun(unused.pop(0), command, count))
    return workers[-1]


def _begun(slot: str | None, command: Command, count: int) -> _Worker:
    """A process in a group of its own: Ctrl-C on the terminal reaches it through this one alone, and once.

    count: how many there are, which share the cores.
    """
    threads = max(1, len(os.sched_getaffinity(0)) // count)
    out, err = TemporaryFile("a+b"), TemporaryFile("a+b")  # noqa: SIM115 (they are read while the process writes)
    process = subprocess.Popen(
        [sys.executable, "-m", "prune_cli", *command(slot), "--only", "-", "--json"],
        stdin=subprocess.PIPE,
        stdout=out,
        stderr=err,
        env={"OMP_NUM_THREADS": str(threads), **os.environ},
        process_group=0,
    )
    return _Worker(slot, process, out, err)


def _come_to(worker: _Worker) -> tuple[Outcome | None, str] | None:
    """What a worker's step came to, or why it failed; None while it is at it. What it noted is told."""
    assert worker.step
    code = worker.process.poll()
    answers = worker.lines(worker.out)
    for line in worker.lines(worker.err):
        if line.startswith(("error: ", "hint: ")):
            worker.errors.append(line)
        elif not OWN_WORDS.search(line):
            note(line)
            worker.last = line
    if answers:
        return Outcome(worker.step.out, worker.step.label, **json.loads(answers[0])), ""
    if code is None:
        return None
    if code < 0:
        return None, f"its process was killed ({signal.Signals(-code).name})"
    told = [line.removeprefix("error: ") for line in worker.errors if line.startswith("error: ")]
    return None, (told or [worker.last or f"its process ended with status {code}"])[0]


def _stop(workers: Sequence[_Worker]) -> None:
    """Let those end that have nothing to do, and tell the others to stop."""
    deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN  # as in a shell's background processes, and in theirs
    for worker in workers:
        assert worker.process.stdin
        with suppress(BrokenPipeError):
            worker.process.stdin.close()
        if worker.step:
            worker.process.send_signal(signal.SIGTERM if deaf else signal.SIGINT)
    for worker in workers:
        worker.process.wait()
