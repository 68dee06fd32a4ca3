"""The pipeline: a TOML file -> a checked plan -> its steps -> a table of what pruning did.

All of the file is checked before anything runs, and all mistakes are told together. The folder belongs to the
pipeline: a rerun makes what is missing or stale and leaves the rest alone. Several runs over one folder share the work.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.artifacts.drafts import Taken, is_taken
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.artifacts.removal import remove_artifact
from prune_cli.data.open import write_bad_rows
from prune_cli.pipeline import attribution, jobs, results, scripts
from prune_cli.pipeline.checks import read_plan
from prune_cli.pipeline.evidence import compare, cuts, of_artifacts, row_values, warned
from prune_cli.pipeline.pace import Pace
from prune_cli.pipeline.results import Report
from prune_cli.pipeline.row_checks import overlap, rows_of
from prune_cli.pipeline.schema import DECONTAMINATED, Plan
from prune_cli.pipeline.spare import spare_models, spare_representations
from prune_cli.pipeline.steps import work_of
from prune_cli.pipeline.work import WOULD_RUN, Step, Work, look, spared
from prune_cli.report import corruption
from prune_cli.report.outcome import happened
from prune_cli.runtime import interrupt
from prune_cli.runtime.progress import each_once, note
from prune_cli.stages.common import Outcome, touch
from prune_cli.stages.evaluate import evaluate

POLL = 0.5  # seconds between looks at what another process makes

Tell = Callable[[str, str], None]  # a step's label, and a line about it


def run(
    file: Path,
    out: Path,
    *,
    device: str | None,
    dry_run: bool,
    tell: Tell,
    only: Sequence[str] = (),
    at_once: int | None = None,
    devices: Sequence[str] = (),
) -> Report:
    """Run a pipeline file in the folder `out`; `tell` hears of each step when it ends.

    device: in place of the file's. only: which steps, with what they rest on; all if none. at_once: how many steps at a
    time, each in a process of its own; devices: one at a time on each. Returns the steps and, if all were made, a
    result for each method, keep, seed and test set; these are written to `results.jsonl` too.
    """
    slots = jobs.slots_of(at_once, devices, device)
    plan = plan_of(file, device if len(slots) > 1 else slots[0], tokenise=dry_run)
    results.check_ours(out)
    if plan.bad_rows and not dry_run and not (only and plan.bad_rows.exists()):
        write_bad_rows(plan.bad_rows, list(rows_of(plan).values()))
    for told in overlap(plan) if not only else ():
        note(f"warning: {told}")
    work = work_of(plan, out)
    wanted = work.only(only) if only else [*work.steps]
    steps = work.with_needs(wanted)
    looked = look(steps, out)
    report = Report.of(out, plan.task, {})
    course = _Course(plan, work, steps, looked, wanted, report, tell, len(slots))
    if dry_run:
        for step in steps:
            course.tell_of(step, looked[step.out])
        return report
    if not only or not any((out / name).exists() for name in (results.RESULTS, results.UNDER_WAY)):
        results.begin(out, work.trials)
    if len(slots) > 1:
        jobs.run(work, steps, course.current, slots, lambda slot: command_of(file, out, slot)(), course.ended)
    else:
        with each_once():
            _one_by_one(steps, out, course.current, course.ended)
    return report if only else _finish(plan, work, report)


def serve(file: Path, out: Path, *, device: str | None, names: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Make steps of a pipeline whose needs are made, as they are named; what each came to."""
    work = work_of(plan_of(file, device), out)
    for name in names:
        (step,) = work.only([name.rstrip("\n")])
        done = None
        while done is None:
            try:
                done = step.make()
            except Taken:  # another run makes it, and may leave it half done
                time.sleep(POLL)
                interrupt.check()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()  # other workers may be on the same device
        yield {"state": done.state, "reason": done.reason, "seconds": done.seconds}


def script(file: Path, out: Path, *, device: str | None, form: str) -> str:
    """The steps of a pipeline file for another engine; nothing is made."""
    return scripts.FORMS[form](work_of(plan_of(file, device), out), command_of(file, out, device), file)


def command_of(file: Path, out: Path, device: str | None) -> scripts.Command:
    """The command that runs all of a pipeline, or one step; arguments of prune."""

    def command(only: str | None = None) -> list[str]:
        given = {"-o": str(out), "--device": device, "--only": only}
        return ["pipeline", str(file), *(part for name, value in given.items() if value for part in (name, value))]

    return command


def plan_of(file: Path, device: str | None, *, tokenise: bool = False) -> Plan:
    """The plan of a pipeline file; device: in place of the file's."""
    plan = read_plan(file, tokenise=tokenise)
    if device is None:
        return plan
    tables = {name: replace(getattr(plan, name), device=device) for name in ("warmup", *options.STAGES_ON_DEVICE)}
    return replace(plan, **tables)


class _Course:
    """What is done when a step ends: it is told, and what it makes needless is removed."""

    def __init__(
        self,
        plan: Plan,
        work: Work,
        steps: Sequence[Step],
        looked: Mapping[Path, Outcome],
        wanted: Sequence[Step],
        report: Report,
        tell: Tell,
        at_once: int,
    ) -> None:
        self.plan, self.work, self.report, self.tell = plan, work, report, tell
        self.count = len(steps)
        self.wanted = {step.out for step in wanted}
        self.current = {path: done for path, done in looked.items() if done.state != WOULD_RUN}
        self.pace = Pace([step for step in steps if step.out not in self.current], at_once)
        self.done: set[Path] = set()

    def ended(self, step: Step, done: Outcome, seconds: float) -> None:
        """Take down a step that was made, or found to be up to date."""
        for path in step.replaces:
            remove_artifact(path)
        if step.out in self.wanted and step.out in self.current:
            touch(step.out)
        self.pace.ended(step, seconds if done.state == "made" else None)
        self.done.add(step.out)
        if done.state == "made" and step.stage is evaluate:
            spare_models(self.plan, self.work, self.done)
        self.tell_of(step, done)

    def tell_of(self, step: Step, done: Outcome) -> None:
        """Tell of a step, where in the whole it stands, and how long the rest will take."""
        self.report.steps.append((step.label, done))
        told = happened(done.state, done.reason, done.seconds)
        place = f"step {len(self.report.steps)} of {self.count}"
        self.tell(step.label, f"{place}, {step.label}: {told}{self.pace.told}")


def _one_by_one(steps: Sequence[Step], folder: Path, current: Mapping[Path, Outcome], ended: jobs.Ended) -> None:
    """Make steps in order. One that another process makes is left to it, and looked at again after the others."""
    left = {step.out: step for step in steps}
    told: set[Path] = set()
    while left:
        before = len(left)
        for step in list(left.values()):
            if left.keys() & {*step.needs} or (step.out not in current and is_taken(step.out)):
                continue
            try:
                done = current.get(step.out) or spared(step, left.values(), folder) or step.make()
            except Taken:
                continue
            del left[step.out]
            ended(step, done, done.seconds)
        if len(left) == before:
            for step in left.values():
                if step.out not in told and not left.keys() & {*step.needs}:
                    note(f"{step.label}: another process is making it; waiting for it")
                    told.add(step.out)
            time.sleep(POLL)
            interrupt.check()


def _finish(plan: Plan, work: Work, report: Report) -> Report:
    """What the trials came to, compared and written down."""
    report.add(results.of_trials(work.trials))
    values = {trial: row_values(made.judged, plan.task) for trial, made in work.trials.items()}
    report.comparisons = [c for c in compare(values) if c.metric in report.shown[c.test]]
    made = {trial: [path for path in (m.selected, m.judged) if path] for trial, m in work.trials.items()}
    if plan.decontaminate:
        report.warnings = list(open_artifact(work.out / DECONTAMINATED).about["warnings"])
    report.warnings += [*warned(values, report.shown, len(plan.seeds)), *of_artifacts(made)]
    report.warnings += cuts(paths[-1] for paths in made.values())
    report.lds = attribution.facts(work.halves, work.scores) if work.halves else []
    report.corruption = corruption.facts(work.out, work.trials)
    results.end(report)
    spare_models(plan, work, {made.judged for made in (*work.trials.values(), *work.halves)})
    spare_representations(plan, work)
    return report
