"""Steps side by side: each is `prune pipeline FILE --only STEP` in a process of its own."""

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
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO

from prune_cli.artifacts.drafts import is_taken
from prune_cli.errors import PruneError
from prune_cli.models.device import check_name
from prune_cli.pipeline.work import Step
from prune_cli.runtime import interrupt
from prune_cli.runtime.progress import note
from prune_cli.stages.common import Outcome

POLL = 0.05  # seconds
# what a process says of its way, which the whole run says better
OWN_WORDS = re.compile(r"^(step \d+ of |pipeline: )|, about \d+ s left$")

Command = Callable[[Step, str | None], Sequence[str]]
Ended = Callable[[Step, Outcome, float], None]


@dataclass(frozen=True)
class _Job:
    step: Step
    slot: str | None
    process: subprocess.Popen[bytes]
    began: float
    out: IO[bytes]
    err: IO[bytes]


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
    steps: Sequence[Step], current: Mapping[Path, Outcome], slots: Sequence[str | None], command: Command, ended: Ended
) -> None:
    """Make steps as soon as what they need is made, as many at a time as there are slots.

    current: those that are up to date. After a step that failed no other is begun; when those under way have ended it
    is told as a PruneError. At Ctrl-C the processes are told to stop, and save what they have.
    """
    left, free, jobs = {step.out: step for step in steps}, list(slots), list[_Job]()
    failures: list[tuple[Step, str]] = []
    threads = max(1, len(os.sched_getaffinity(0)) // len(slots))
    environment = {"OMP_NUM_THREADS": str(threads), **os.environ}
    try:
        with interrupt.deferred() as stopped:
            while (left and not failures) or jobs:
                if stopped():
                    break
                begun = {job.step.out for job in jobs}
                ready = [step for step in left.values() if not left.keys() & {*step.needs} and step.out not in begun]
                for step in ready:
                    if step.out in current:
                        del left[step.out]
                        ended(step, current[step.out], 0.0)
                    elif free and not failures and not is_taken(step.out):
                        slot = free.pop(0)
                        jobs.append(_begun(step, slot, command(step, slot), environment))
                for job in [job for job in jobs if job.process.poll() is not None]:
                    jobs.remove(job)
                    free.append(job.slot)
                    outcome, problem = _came_to(job)
                    if outcome:
                        del left[job.step.out]
                        ended(job.step, outcome, time.monotonic() - job.began)
                    else:
                        failures.append((job.step, problem))
                        if jobs:
                            note(f"{job.step.label}: failed; no other is begun, waiting for the {len(jobs)} under way")
                time.sleep(POLL)
            # a shell's background processes ignore Ctrl-C, and so do theirs
            deaf = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            for job in jobs:
                job.process.send_signal(signal.SIGTERM if deaf else signal.SIGINT)
            for job in jobs:
                job.process.wait()
    finally:
        for job in jobs:
            with suppress(OSError):
                job.process.kill()
    if failures:
        told = [f"{step.label}: {problem}" for step, problem in failures]
        raise PruneError(told[0], hint="the same command again goes on from what is made", also=told[1:])


def _begun(step: Step, slot: str | None, command: Sequence[str], environment: Mapping[str, str]) -> _Job:
    """A process in a group of its own: Ctrl-C on the terminal reaches it through this one alone, and once."""
    out, err = TemporaryFile(), TemporaryFile()  # noqa: SIM115 (they are read when the process has ended)
    process = subprocess.Popen(
        [sys.executable, "-m", "prune_cli", *command, "--json"],
        stdin=subprocess.DEVNULL,
        stdout=out,
        stderr=err,
        env=environment,
        process_group=0,
    )
    return _Job(step, slot, process, time.monotonic(), out, err)


def _came_to(job: _Job) -> tuple[Outcome | None, str]:
    """What a process that has ended says it did, or why it failed. What it noted is told."""
    job.out.seek(0)
    job.err.seek(0)
    lines = job.err.read().decode("utf-8", "replace").splitlines()
    code = job.process.returncode
    if code == 0:
        for line in lines:
            if not OWN_WORDS.search(line):
                note(f"{job.step.label}: {line}")
        done = next(step for step in json.loads(job.out.read())["steps"] if step["path"] == str(job.step.out))
        return Outcome(job.step.out, job.step.label, done["state"], done["reason"], done["seconds"]), ""
    if code < 0:
        return None, f"its process was killed ({signal.Signals(-code).name})"
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    return None, (errors or lines or [f"its process ended with status {code}"])[-1 if not errors else 0]
