"""`prune estimate`: what a pipeline file will take, before it is run.

Rows and tokens are counted, all of them. The file's own steps are rehearsed with few rows, and from what that took
follows what all take. What is up to date already counts nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from prune_cli.models import harness
from prune_cli.pipeline import results
from prune_cli.pipeline.estimate.amounts import Amount, Amounts
from prune_cli.pipeline.estimate.growth import line
from prune_cli.pipeline.estimate.rehearsal import Clock, Measured, Taken, group, rehearse, work_line
from prune_cli.pipeline.page.price import KINDS, PLACES
from prune_cli.pipeline.run import plan_of
from prune_cli.pipeline.schema import Plan
from prune_cli.pipeline.steps import work_of
from prune_cli.pipeline.work import WOULD_RUN, Step, Work, look
from prune_cli.stages.evaluate import evaluate
from prune_cli.stages.represent import represent
from prune_cli.stages.score import score
from prune_cli.stages.select import select

MODELS_THERE = {"none": 1, "best": 2}  # at a time: the one under way, and the best so far


@dataclass(frozen=True)
class Cost:
    """What one step will take; memory in MB. None: it was not measured."""

    seconds: float
    bytes: float
    memory: float
    device_memory: float | None


@dataclass
class Stage:
    """What steps of one kind will take, one after another. memory: the most of any, in MB. unknown: not measured."""

    stage: str
    steps: int = 0
    rows: int = 0
    tokens: int = 0
    optimizer_steps: int = 0
    seconds: float = 0.0
    bytes: float = 0.0
    peak_memory_mb: float = 0.0
    peak_device_memory_mb: float | None = None
    unknown: int = 0

    def add(self, amount: Amount, cost: Cost | None) -> None:
        """Count a step."""
        self.steps += 1
        self.rows, self.tokens = self.rows + amount.rows, self.tokens + amount.tokens
        self.optimizer_steps += amount.optimizer_steps
        if cost is None:
            self.unknown += 1
            return
        self.seconds, self.bytes = self.seconds + cost.seconds, self.bytes + cost.bytes
        self.peak_memory_mb = max(self.peak_memory_mb, cost.memory)
        if cost.device_memory is not None:
            self.peak_device_memory_mb = max(self.peak_device_memory_mb or 0.0, cost.device_memory)

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        rounded = {
            "seconds": round(self.seconds, 2),
            "bytes": round(self.bytes),
            "peak_memory_mb": round(self.peak_memory_mb),
        }
        return {**asdict(self), **rounded}


@dataclass(frozen=True)
class Estimate:
    """What a run will take.

    current: steps that are up to date. start: seconds that the run takes once, whatever its steps. rehearsed: training
    rows of each rehearsal.
    """

    stages: list[Stage]
    current: int
    start: float = 0.0
    seconds_measured: float = 0.0
    rehearsed: list[int] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def total(self) -> Stage:
        """All stages together, and the start."""
        on_device = [stage.peak_device_memory_mb for stage in self.stages if stage.peak_device_memory_mb is not None]
        return Stage(
            "total",
            steps=sum(stage.steps for stage in self.stages),
            optimizer_steps=sum(stage.optimizer_steps for stage in self.stages),
            rows=sum(stage.rows for stage in self.stages),
            tokens=sum(stage.tokens for stage in self.stages),
            seconds=self.start + sum(stage.seconds for stage in self.stages),
            bytes=sum(stage.bytes for stage in self.stages),
            peak_memory_mb=max((stage.peak_memory_mb for stage in self.stages), default=0.0),
            peak_device_memory_mb=max(on_device, default=None),
            unknown=sum(stage.unknown for stage in self.stages),
        )

    @property
    def facts(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "stages": [stage.facts for stage in self.stages],
            "total": self.total.facts,
            "start_seconds": round(self.start, 2),
            "up_to_date": self.current,
            "measured": {"seconds": round(self.seconds_measured, 1), "rows": self.rehearsed},
            "notes": self.notes,
        }


def estimate(
    file: Path, out: Path, *, device: str | None, seconds: float, seed: int = 0, clock: Clock = time.monotonic
) -> Estimate:
    """What `prune pipeline` will take for a file in the folder `out`. seconds: about how long to measure."""
    plan = plan_of(file, device)
    results.check_ours(out)
    work = work_of(plan, out)
    looked = look(work.steps, out)
    to_make = [step for step in work.steps if looked[step.out].state == WOULD_RUN]
    if not to_make:
        return Estimate([], len(work.steps))
    amounts = Amounts(plan, out)
    measured = rehearse(work, to_make, amounts, seconds, seed, clock)
    costs = {step.out: cost_of(amounts.of(step), measured.taken.get(group(step), [])) for step in to_make}
    costs |= {step.out: with_what_is_read(step, costs) for step in to_make if step.stage in (score, select)}
    stages: dict[str, Stage] = {}
    for step in sorted(to_make, key=lambda step: KINDS.index(stage_name(work, step).split()[0])):
        name = stage_name(work, step)
        stages.setdefault(name, Stage(name)).add(amounts.of(step), costs[step.out])
    spare(plan, work, stages, costs)
    notes = list(told(plan, work, to_make, costs, measured, amounts))
    current = len(work.steps) - len(to_make)
    return Estimate(list(stages.values()), current, measured.start, measured.seconds, measured.rows, notes)


def stage_name(work: Work, step: Step) -> str:
    """The line of the table that a step counts in."""
    if (place := PLACES.get(work.name(step))) in ("warm-up", "decontaminate"):
        return place
    return step.label if step.stage is represent else step.label.split()[0]


def cost_of(amount: Amount, taken: Sequence[Taken]) -> Cost | None:
    """What a step takes, by what a few rows and some more took; None where they were not measured.

    Time goes with the work and disk with the rows, each beside what any number takes. Memory is that of the longest
    row's batch, which each rehearsal has.
    """
    if not taken:
        return None
    on_device = [one.device_memory for one in taken if one.device_memory is not None]
    return Cost(
        work_line(taken).at(amount.work),
        line([(one.amount.rows, one.bytes) for one in taken]).at(amount.rows),
        max(one.memory for one in taken),
        max(on_device, default=None),
    )


def with_what_is_read(step: Step, costs: Mapping[Path, Cost | None]) -> Cost | None:
    """The cost of a score or selection with the memory of all that it reads, of which a few rows have little."""
    cost = costs[step.out]
    known = [costs.get(path) or _bytes(path) for path in step.needs]
    read = sum(one.bytes if isinstance(one, Cost) else one for one in known)
    return cost and replace(cost, memory=cost.memory + read / 2**20)


def _bytes(path: Path) -> int:
    """What the files of an artifact take; of one that is not there, nothing."""
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def spare(plan: Plan, work: Work, stages: Mapping[str, Stage], costs: Mapping[Path, Cost | None]) -> None:
    """Count of the models that are removed once they were evaluated only those that are there at a time."""
    if plan.keep_models in MODELS_THERE and "finetune" in stages:
        trained = [made.trained for made in (*work.trials.values(), *work.halves) if made.trained]
        sizes = [cost.bytes for path in trained if (cost := costs.get(path))]
        stages["finetune"].bytes = sum(sorted(sizes)[-MODELS_THERE[plan.keep_models] :])


def told(
    plan: Plan,
    work: Work,
    to_make: Iterable[Step],
    costs: Mapping[Path, Cost | None],
    measured: Measured,
    amounts: Amounts,
) -> Iterable[str]:
    """What the figures leave out, and what they take for granted."""
    yield from (f"not measured: {what}" for what in measured.failed.values())
    judged = [step for step in to_make if step.stage is evaluate]
    if judged and (asked := harness.asked(plan.tests)):
        yield f"not measured: {', '.join(asked)}: tasks of lm-eval"
    if judged and plan.task == "generation" and plan.eval.max_new_tokens:
        yield "eval: a model that is better trained may end its texts sooner, or later, than the one that was measured"
    times = amounts.n / measured.rows[-1]
    light = [step for step in to_make if stage_name(work, step) in ("score", "select") and costs[step.out]]
    if light and times > 1:
        linear = sum(cost.seconds for step in light if (cost := costs[step.out]))
        square = sum(measured.taken[group(step)][-1].seconds * times**2 for step in light)
        yield (
            f"score, select: {linear:.0f} s is for methods whose time goes with the rows; for those that compare all "
            f"pairs of rows it goes with the square, {square:.0f} s if all did"
        )
    if plan.keep_models in MODELS_THERE:
        yield f"disk: models are removed once evaluated, so {MODELS_THERE[plan.keep_models]} at a time are counted"


__all__ = ["Estimate", "Stage", "estimate"]
