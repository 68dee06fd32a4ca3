"""Trials of its own: rounds of small pipelines on sub-pools of the rows, until the question is decided or time is up.

A sub-pool is drawn at random, in the ratio of the labels, and each selection keeps the share of it that is to be kept
of all rows. A first small one, the probe, says how long things take: sub-pools are then as large as leaves time for
ROUNDS of them. Where that is all rows, all rounds share one, and what is made of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli import options
from prune_cli.artifacts.files import replace_file
from prune_cli.artifacts.manifest import digest_value, is_artifact
from prune_cli.data.open import SELECTED, Reading
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.pipeline.advise import ground as grounds
from prune_cli.pipeline.advise.answers import Answer, Whole, put
from prune_cli.pipeline.advise.choice import FULL, NONE, Advice, advise
from prune_cli.pipeline.advise.finished import evaluation
from prune_cli.pipeline.advise.ground import QUIETLY, Ground
from prune_cli.pipeline.advise.journal import Journal
from prune_cli.pipeline.advise.rounds import DRAWS, Question, Round, decide, measured
from prune_cli.pipeline.evidence import BASELINE, Trial, row_values
from prune_cli.pipeline.propose import quoted
from prune_cli.pipeline.run import run
from prune_cli.runtime.progress import note
from prune_cli.stages.select import select

if TYPE_CHECKING:
    from prune_cli.pipeline.advise.ask import Asked
    from prune_cli.stages.common import Outcome

JOURNAL = "journal.jsonl"
ROUNDS = 5  # that sub-pools are made small enough for
LEAST_KEPT = 32  # rows that a selection keeps of the smallest sub-pool
UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds_of(budget: str) -> float:
    """What --budget says, in seconds."""
    found = re.fullmatch(r"([0-9]+\.?[0-9]*)\s*([smh])", budget.strip())
    if not found or float(found[1]) == 0:
        raise PruneError(f"budget: {budget}; allowed: a time such as 30s, 20m or 2h")
    return float(found[1]) * UNITS[found[2]]


@dataclass(frozen=True)
class Trials:
    """Trials as asked for: what they stand on, and the question."""

    ground: Ground
    question: Question
    out: Path
    seed: int
    device: str | None

    def folder(self, number: int, pool: int) -> Path:
        """The folder of a round; the probe is round 0."""
        return self.out / ("probe" if number == 0 else "all" if pool == self.ground.n else f"round-{number}")

    def rows(self, number: int, pool: int) -> Path:
        """The sub-pool of a round as a file of rows."""
        out = self.folder(number, pool) / "pool"
        opts = options.Select(
            method="random",
            keep=str(pool),
            balance="keep" if self.ground.labelled else "none",
            task=self.ground.task,
            seed=self.seed + (number if pool < self.ground.n else 0),
        )
        name = self.ground.original(self.ground.train)
        reading = Reading() if is_artifact(Path(name)) else self.ground.reading
        select([name], out, opts, reading, QUIETLY)
        return out / SELECTED

    def make(self, number: int, pool: int, methods: Sequence[str], journal: Journal) -> Path:
        """Run a round, or what of it is missing: random with its draws, then all others. Returns the run's folder."""
        folder = self.folder(number, pool)
        rows = self.rows(number, pool)
        first = self.seed + DRAWS * number
        others = [FULL, *([NONE] if self.ground.untrained else []), BASELINE]
        draws = list(range(first, first + (DRAWS if number else 1)))
        told = {
            f"random-{number}.toml": ([BASELINE], draws),
            f"round-{number}.toml": ([*others, *(self.ground.entries[name] for name in methods)], [first]),
        }

        def ended(step: str, done: Outcome) -> None:
            journal.spend(number, step)

        for name, (entries, seeds) in told.items():
            table = {
                **self.ground.table,
                "train": str(rows.resolve()),
                "validation": self.ground.target,
                "tests": {self.ground.test[0]: self.ground.test[1]},
                "methods": entries,
                "keep": [self.question.keep],
                "seeds": seeds,
            }
            text = toml({key: value for key, value in table.items() if value is not None})
            replace_file(folder / name, partial(_write, text))
            run(folder / name, folder / "run", device=self.device, dry_run=False, tell=ended)
        return folder / "run"

    def read(self, number: int, run_folder: Path, methods: Sequence[str]) -> Round:
        """What a round measured."""
        first, keep = self.seed + DRAWS * number, self.question.keep
        test, metric = self.question.test, self.question.metric
        trials: dict[str, list[Trial]] = {name: [(name, keep, first)] for name in methods}
        trials[BASELINE] = [(BASELINE, keep, first + draw) for draw in range(DRAWS)]
        trials[FULL] = [(FULL, "100%", first)]
        if self.ground.untrained:
            trials[NONE] = [(NONE, "0%", None)]
        values = {
            name: np.mean([self._values(run_folder, trial)[test, metric] for trial in own], axis=0)
            for name, own in trials.items()
        }
        return Round(values, {name: float(array.mean()) for name, array in values.items()}, 0.0)

    def _values(self, run_folder: Path, trial: Trial) -> Any:
        return row_values(evaluation(run_folder, trial), self.ground.task)


def _write(text: str, path: Path) -> None:
    path.write_text(text, "utf-8")


def toml(table: Mapping[str, Any]) -> str:
    """A table of a pipeline file as text: values first, then the tables."""
    lines = [f"{name} = {_value(value)}" for name, value in table.items() if not isinstance(value, dict)]
    for name, own in table.items():
        if isinstance(own, dict):
            lines += ["", f"[{name}]", *(f"{quoted(key)} = {_value(value)}" for key, value in own.items())]
    return "\n".join(lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{quoted(key)} = {_value(own)}" for key, own in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    return quoted(value)


def pool_size(ground: Ground, smallest: int, probed: Sequence[tuple[str, float]], left: float) -> int:
    """Rows of a sub-pool of which there is time for ROUNDS rounds, by what a probe of the smallest took.

    Evaluations, and the target set's representation, take as long for any sub-pool; all else grows with it.
    """
    constant = [s for step, s in probed if step.startswith(("eval", "represent validation"))]
    growing = sum(s for _, s in probed) - sum(constant)
    draws = [(step, s) for step, s in probed if f" {BASELINE} " in step and not step.startswith("select")]
    fixed = sum(constant) + (DRAWS - 1) * sum(s for step, s in draws if step.startswith("eval"))
    growing += (DRAWS - 1) * sum(s for step, s in draws if not step.startswith("eval"))
    room = (left / ROUNDS - fixed) / max(growing, 1e-9)
    return int(min(max(smallest, math.floor(smallest * room)), ground.n))


def smallest_pool(ground: Ground, keep: str) -> int:
    """Rows of the smallest sub-pool: a selection keeps some, and every label has a row."""
    share = parse_keep(keep, ground.n) / ground.n
    return min(ground.n, max(math.ceil(LEAST_KEPT / share), math.ceil(ground.n / ground.rarest)))


def answered(trials: Trials, journal: Journal, margin: float | None) -> tuple[Advice, int, int]:
    """Run the rounds. Returns the advice, the last round's number and the rows of its sub-pool."""
    pool = _pool(trials, journal)
    question = replace(trials.question, pool=pool, kept=parse_keep(trials.question.keep, pool))
    methods, rounds, spent, number = question.methods, [], 0.0, 0
    while True:
        number += 1
        if not journal.find("tried", number):
            journal.add(round=number, tried=list(methods), pool=pool)
            note(f"advise: round {number}: {pool:,} rows, {question.kept:,} kept; {', '.join(methods)}")
        folder = trials.folder(number, pool) / "run"
        if not journal.find("ended", number):
            folder = trials.make(number, pool, methods, journal)
            journal.add(round=number, ended=True)
        took = sum(seconds for _, seconds in journal.steps(number))
        rounds.append(replace(trials.read(number, folder, methods), seconds=took))
        found = journal.find("decided", number)
        if not found:
            used = sum(s for i in range(number + 1) for _, s in journal.steps(i))
            decision, _ = decide(question, rounds, methods, used, spent)
            found = journal.add(
                round=number,
                decided=decision.stop or "goes on",
                stop=bool(decision.stop),
                methods=list(decision.methods),
                spent=decision.spent,
                level=decision.level,
                dropped=dict(decision.dropped),
                used=round(used, 1),
            )
            dropped = "".join(f"; dropped {name}: {why}" for name, why in decision.dropped.items())
            note(f"advise: round {number}: {used:.0f} of {question.budget:.0f} s used; {found['decided']}{dropped}")
        if found["stop"]:
            return advise(measured(question, rounds, methods, found["level"]), margin), number, pool
        methods, spent = tuple(found["methods"]), found["spent"]


def _pool(trials: Trials, journal: Journal) -> int:
    """The rows of a sub-pool, from a probe."""
    if line := journal.find("rows", 0):
        return int(line["rows"])
    ground, question = trials.ground, trials.question
    pool = smallest = smallest_pool(ground, question.keep)
    if smallest < ground.n:
        note(f"advise: probe: {smallest:,} of {ground.n:,} rows, to see how long things take")
        trials.make(0, smallest, question.methods, journal)
        pool = pool_size(ground, smallest, journal.steps(0), question.budget - journal.used)
    journal.add(round=0, rows=pool)
    return pool


def answer(given: str, metric: str | None, margin: float | None, asked: Asked) -> Answer:
    """Advice by trials on data, or on what a pipeline file says."""
    assert asked.out and asked.keep and asked.budget
    out, seed, budget = asked.out, asked.seed or 0, seconds_of(asked.budget)
    own = replace(asked, out=None, device=None, reading=None)
    journal = Journal(out / JOURNAL)
    reading = asked.reading or Reading()
    how = {"fields": dict(reading.fields), "format": reading.format, "drop": list(reading.drop)}
    journal.same("asked", {"given": given, "metric": metric, "margin": margin, "reading": how, **asdict(own)})
    file = Path(given)
    if file.suffix != ".toml":
        assert asked.model and asked.target
        file = grounds.from_data(given, asked.model, asked.target, asked.test, reading, out)
    halve = Path(given).suffix != ".toml" and asked.test is None
    ground = grounds.ground(file, asked.methods, out, seed, halve=halve)
    journal.same("stands on", {"rows": ground.digests, "table": digest_value(ground.table)})
    if metric not in (None, *ground.metrics):
        raise PruneError(f"metric: {metric}; allowed: {', '.join(ground.metrics)}")
    question = Question(
        test=ground.test[0],
        metric=metric or ground.metrics[0],
        keep=ground.share(asked.keep),
        kept=0,
        pool=0,
        methods=tuple(ground.entries),
        margin=margin,
        budget=budget,
    )
    made = Trials(ground, question, out, seed, asked.device)
    advice, number, pool = answered(made, journal, margin)
    folder = made.folder(number, pool)
    data = {folder / "pool" / SELECTED: ground.original(ground.train)}
    if ground.target:
        data[Path(ground.target)] = ground.original(ground.target)
    answer = put(given, [advice], folder / "run", str(out / "full"), Whole(ground.n / pool, not ground.steps, data))
    last = journal.find("decided", number) or {}
    facts = {
        "rounds": number,
        "pool": pool,
        "rows": ground.n,
        "seconds": round(journal.used, 1),
        "stop": last["decided"],
    }
    rounds = f"{number} round{'s' * (number > 1)} on {pool:,} of {ground.n:,} rows"
    told = f"{rounds} in {journal.used:.0f} s: {last['decided']}"
    return Answer({**answer.facts, "trials": facts}, [told, *answer.lines])
