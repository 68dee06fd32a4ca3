"""The steps of a pipeline on few rows, in a folder that is gone afterwards: what they take is measured there."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, is_dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import options, tasks
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.open import LM_EVAL, Reading
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.models.device import batch_limits
from prune_cli.pipeline.estimate.amounts import Amount, Amounts, Positions
from prune_cli.pipeline.estimate.growth import Line, line
from prune_cli.pipeline.work import Step, Work, strings
from prune_cli.runtime.progress import hushed, note, progress
from prune_cli.stages.evaluate import evaluate
from prune_cli.stages.finetune import finetune

MOST_TIMES = 16  # that the last rehearsal is larger than the first
FEWEST = 16  # rows
WARMUP, WARMUP_ROWS = "warmup", "select warmup rows"
NO_LOG: dict[str, Any] = {name: options.declared(options.Finetune)[name].default for name in ("log", "log_steps")}
CONTENT = ("model", "target", "target_data")  # options that name what a step reads

Clock = Callable[[], float]


@dataclass(frozen=True)
class Taken:
    """What a step took."""

    amount: Amount
    seconds: float
    bytes: int
    memory: int  # MB
    device_memory: int | None  # MB


@dataclass(frozen=True)
class Measured:
    """What was measured. taken: group of steps -> what one of it took, with few rows and with more.

    failed: group -> the label of its first step, and why it could not be measured. rows: training rows of each
    rehearsal. seconds: of all of it.
    start: seconds that a run takes once, to load libraries and to warm the device up.
    """

    taken: dict[str, list[Taken]]
    failed: dict[str, str]
    rows: list[int]
    seconds: float
    start: float


def work_line(taken: Sequence[Taken]) -> Line:
    """Seconds by the work that was done."""
    return line([(one.amount.work, one.seconds) for one in taken])


def group(step: Step) -> str:
    """What steps that do the same with other rows or seeds have in common."""
    if step.stage is finetune:
        return f"finetune {replace(step.opts, seed=0)}"
    if step.stage is evaluate:
        return f"eval {step.opts} {step.given[1]}"
    return re.sub(r"( seed \d+|(?<=^select half) \d+)$", "", step.label)


def rehearse(
    work: Work, to_make: Sequence[Step], amounts: Amounts, seconds: float, seed: int, clock: Clock
) -> Measured:
    """Run one step of each group that is to be made, with few rows and then with as many as there is time for.

    Before these all run on the shortest rows: what that takes beyond what the others let expect is the start.
    """
    began, spent = clock(), list[float]()
    firsts = {group(step): step for step in reversed(to_make)}
    begun: dict[str, Taken] = {}
    taken: dict[str, list[Taken]] = {}
    failed: dict[str, str] = {}
    rows = []
    times = 0  # the shortest
    with TemporaryDirectory(prefix="prune-estimate-") as scratch:
        for turn in range(3):
            start = clock()
            steps = list(firsts.values())
            drawn = sample(amounts, steps, times, seed + turn) if times else shortest(amounts, steps)
            rows.append(len(drawn[amounts.plan.train]))
            note(f"estimate: rehearsing on {rows[-1]:,} training rows{', not counted' if turn == 0 else ''}")
            one = _Rehearsal(work, amounts, drawn, Path(scratch) / str(turn), clock)
            one.run(firsts)
            spent.append(clock() - start)
            times = 1
            if turn == 0:
                begun = one.taken
                continue
            failed |= one.failed
            for name, what in one.taken.items():
                taken.setdefault(name, []).append(what)
            if turn == 1:
                left = seconds - (clock() - began)
                times = min(max(math.floor(left / max(spent[1], 1e-9)), 2), MOST_TIMES)
    whole = {name: several for name, several in taken.items() if name not in failed}
    return Measured(whole, failed, rows[1:], clock() - began, start_of(begun, whole))


def start_of(begun: Mapping[str, Taken], later: Mapping[str, Sequence[Taken]]) -> float:
    """What the first runs took beyond what the later ones of the same steps let expect, in seconds."""
    both = begun.keys() & later.keys()
    return max(0.0, sum(begun[name].seconds - work_line(later[name]).at(begun[name].amount.work) for name in both))


def shortest(amounts: Amounts, steps: Sequence[Step]) -> dict[str, NDArray[np.int64]]:
    """Positions of a few rows of each data file, the shortest, one of each label among them."""
    found = {}
    for file, rows in amounts.rows.items():
        readers = ((name, step) for step in steps for name in amounts.read(step) if amounts.sources[name][0] == file)
        reader = next(readers, None)
        order = np.arange(len(rows)) if reader is None else _by_length(amounts, *reader)
        few = order[:FEWEST].tolist()
        if amounts.labels:
            few += order[np.unique(tasks.classes(amounts.task, rows)[order], return_index=True)[1]].tolist()
        found[file] = np.unique(np.array(few, np.int64))
    return found


def _by_length(amounts: Amounts, name: str, step: Step) -> NDArray[np.int64]:
    """The rows that a step reads, the shortest first."""
    return amounts.lengths(name, step.opts, None).argsort(kind="stable")


def sample(amounts: Amounts, steps: Sequence[Step], times: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """Positions of rows of each data file: a row of each label, the longest, and others at random.

    times: as few as fill the batches of all who read them, or so many times as many.
    """
    rng = np.random.default_rng(seed)
    found = {}
    for file, rows in amounts.rows.items():
        readers = [(name, step) for step in steps for name in amounts.read(step) if amounts.sources[name][0] == file]
        order = rng.permutation(len(rows))
        first = [int(amounts.lengths(name, step.opts, None).argmax()) for name, step in readers]
        if amounts.labels:
            first += order[np.unique(tasks.classes(amounts.task, rows)[order], return_index=True)[1]].tolist()
        first = list(dict.fromkeys(first))
        fill = [_batch(step.opts, amounts.lengths(name, step.opts, None)) for name, step in readers]
        batch = max([FEWEST, *fill])
        n = times * batch * math.ceil(2 * len(first) / batch)  # whole batches: a smaller one takes about as long
        rest = order[~np.isin(order, first)]
        found[file] = np.sort(np.array([*first, *rest[: max(0, n - len(first))].tolist()], np.int64))
    return found


def _batch(opts: Any, lengths: NDArray[np.int64]) -> int:
    """Rows of a batch of rows of these lengths; in training, of those that make a step of the optimizer."""
    if isinstance(opts, options.Finetune):
        return opts.batch_size * opts.accumulate
    rows, tokens = batch_limits(opts.batch_size, opts.tokens_per_batch, opts.device)
    return min(rows, math.ceil(tokens / lengths.mean()))


class _Rehearsal:
    """One run over some of the rows in a folder of its own."""

    def __init__(self, work: Work, amounts: Amounts, drawn: Positions, folder: Path, clock: Clock) -> None:
        self.work, self.amounts, self.drawn, self.folder, self.clock = work, amounts, drawn, folder, clock
        self.moved = {name: str(folder / f"rows-{i}.jsonl") for i, name in enumerate(drawn)}
        self.taken: dict[str, Taken] = {}
        self.failed: dict[str, str] = {}
        self.lacking: dict[Path, str] = {}  # what could not be made
        folder.mkdir()
        for name, positions in drawn.items():
            amounts.rows[name].write(self.moved[name], positions.tolist())

    def run(self, firsts: Mapping[str, Step]) -> None:
        """Measure a step of each group: what all share, scores and selections, then trainings and evaluations."""
        trials = (finetune, evaluate)
        chosen = [step for step in firsts.values() if step.stage not in trials or step.label == WARMUP]
        names = {step.out: name for name, step in firsts.items()}
        whole = self.work.with_needs(chosen)
        judged = [step for step in firsts.values() if step.stage is evaluate]
        models = {group(training): training for step in judged if (training := self.training(step))}
        trained = {name: step for name, step in firsts.items() if step.stage is finetune and step.label != WARMUP}
        to_train = {**models, **trained}
        with progress("estimate, steps", len(whole) + len(to_train) + len(judged)) as advance, hushed():
            for step in whole:
                self.measure(names.get(step.out, ""), step, self.small(step))
                advance(1)
            for i, (name, step) in enumerate(to_train.items()):
                models[name] = self.small(
                    replace(step, given=(self.amounts.train,), out=self.work.out / f"model-{i}", needs=())
                )
                self.measure(name, step, models[name])
                advance(1)
            for i, step in enumerate(judged):
                tests = {name: test for name, test in step.given[1].items() if not test.startswith(LM_EVAL)}
                training = self.training(step)
                model = str(models[group(training)].out) if training else step.given[0]
                small = self.small(step)
                self.measure(
                    group(step),
                    step,
                    replace(small, given=(model, self.place(tests)), out=self.folder / f"eval-{i}", needs=()),
                )
                advance(1)

    def training(self, judged: Step) -> Step | None:
        """The step that trains the model which is evaluated; None for one that is there."""
        return next((step for step in self.work.steps if str(step.out) == judged.given[0]), None)

    def measure(self, name: str, step: Step, small: Step) -> None:
        """Run a step as it is with few rows, and take down what it took."""
        name = name or group(step)
        lacking = [self.lacking[path] for path in step.needs if path in self.lacking]
        began = self.clock()
        try:
            if lacking and small.needs:
                raise PruneError(f"it rests on {lacking[0]}")
            small.make()
        except PruneError as failure:
            self.failed[name] = f"{step.label}: {failure.message.replace(f'{self.folder}/', '')}"
            self.lacking[step.out] = step.label
            return
        seconds = self.clock() - began
        manifest = open_artifact(small.out).manifest
        made = manifest["made"]
        size = sum(int(file["bytes"]) for file in manifest["files"].values())
        amount = self.amounts.of(replace(step, opts=small.opts) if step.stage is finetune else step, self.drawn)
        self.taken[name] = Taken(amount, seconds, size, made["peak_memory_mb"], made.get("peak_device_memory_mb"))

    def place(self, value: Any) -> Any:
        """Where in this folder something is that a step is given."""
        if isinstance(value, Mapping):
            return {name: self.place(entry) for name, entry in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self.place(entry) for entry in value)
        if not isinstance(value, str | Path):
            return value
        if str(value) in self.moved:
            return type(value)(self.moved[str(value)])
        inside = Path(value).is_relative_to(self.work.out)
        return type(value)(self.folder / Path(value).relative_to(self.work.out)) if inside else value

    def small(self, step: Step) -> Step:
        """A step as it is with few rows."""
        opts, amounts = step.opts, self.amounts
        if is_dataclass(opts) and not isinstance(opts, type):
            opts = replace(opts, **{name: self.place(getattr(opts, name)) for name in CONTENT if hasattr(opts, name)})
        if isinstance(opts, options.Select):  # of a count the share; and a training needs rows of all labels
            share = parse_keep(opts.keep, amounts.n) / amounts.n if step.label != WARMUP_ROWS else 1.0
            opts = replace(opts, keep=f"{share:.9f}")
        if isinstance(opts, options.Represent) and (few := opts.kind_options.get("landmarks")):  # the share too
            drawn = amounts.count(amounts.train, self.drawn)
            scaled = max(1, round(few * min(1.0, drawn / amounts.n)))
            opts = replace(opts, kind_options={**opts.kind_options, "landmarks": min(scaled, drawn)})
        if isinstance(opts, options.Finetune):  # as many checkpoints as there will be, and no log
            passes = math.ceil(opts.passes(step.rows)) if opts.keep_checkpoints == "epoch" else 1
            opts = replace(opts, epochs=float(passes), steps=0, **NO_LOG)
        given = self.place(step.given)
        data = step.reading != Reading() or {*self.moved.values()} & {*strings(given)}
        reading = amounts.reading if data else Reading()
        return replace(step, given=given, opts=opts, out=self.place(step.out), reading=reading, replaces=())
