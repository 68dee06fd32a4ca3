"""Trials of its own: rounds of small pipelines on sub-pools of the rows, until the question is decided or time is up.

A sub-pool is drawn at random, in the ratio of the labels, and each selection keeps the share of it that is to be kept
of all rows. A first round on a small one says how long things take: sub-pools are then as large as leaves time for
ROUNDS of them, and unless they are as small that round is no more than a probe. Where there is time for all rows, all
rounds share them, and what is made of them.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli import options
from prune_cli.artifacts.files import check_ours, replace_file
from prune_cli.artifacts.manifest import digest_value, is_artifact, open_artifact
from prune_cli.data.open import SELECTED, Reading
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.pipeline.advise import ground as grounds
from prune_cli.pipeline.advise.answers import Answer, Whole, put
from prune_cli.pipeline.advise.asked import Asked
from prune_cli.pipeline.advise.choice import FULL, NONE, Advice, advise
from prune_cli.pipeline.advise.ground import QUIETLY, Ground
from prune_cli.pipeline.advise.journal import Journal
from prune_cli.pipeline.advise.rounds import DRAWS, FEWEST, Question, Round, decide, measured
from prune_cli.pipeline.entries import read_entry
from prune_cli.pipeline.evidence import BASELINE, Trial, row_values
from prune_cli.pipeline.propose import quoted
from prune_cli.pipeline.results import of_trial
from prune_cli.pipeline.run import run
from prune_cli.represent import kinds
from prune_cli.runtime.progress import note
from prune_cli.stages.select import select

JOURNAL, ADVICE = "journal.jsonl", "advice.json"
SHARED = ("warmup", "select warmup", "represent", "score")  # steps that methods and rounds on the same rows share
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
        """The folder of a round."""
        return self.out / ("all" if pool == self.ground.n else f"round-{number}")

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
        others = [FULL, *([NONE] if self.ground.untrained and number <= 1 else []), BASELINE]
        draws = list(range(first, first + DRAWS))
        told = {
            f"random-{number}.toml": ([BASELINE], draws),
            f"round-{number}.toml": ([*others, *(self.ground.entries[name] for name in methods)], [first]),
        }

        def ended(step: str, _: str) -> None:
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
            table["represent"] = _of_kinds(table.get("represent", {}), entries)
            text = toml({key: value for key, value in table.items() if value is not None})
            replace_file(folder / name, partial(_write, text))
            run(folder / name, folder / "run", device=self.device, dry_run=False, tell=ended)
        return folder / "run"

    def read(self, number: int, run_folder: Path, methods: Sequence[str], again: float) -> Round:
        """What a round measured; of the model as it is the first alone. again: seconds that another round takes."""
        first, keep = self.seed + DRAWS * number, self.question.keep
        test, metric = self.question.test, self.question.metric
        trials: dict[str, list[Trial]] = {name: [(name, keep, first)] for name in methods}
        trials[BASELINE] = [(BASELINE, keep, first + draw) for draw in range(DRAWS)]
        trials[FULL] = [(FULL, "100%", first)]
        if self.ground.untrained and number <= 1:
            trials[NONE] = [(NONE, "0%", None)]
        values, metrics = {}, {}
        for name, own in trials.items():
            paths = [of_trial(run_folder, *trial)[1] for trial in own]
            stacked = np.stack([row_values(path, self.ground.task)[test, metric] for path in paths])
            if np.isfinite(stacked).all():  # a model that diverged has no say, and goes on no further
                values[name] = stacked.mean(axis=0)
                metrics[name] = float(np.mean([_metrics(path)[test][metric] for path in paths]))
        if BASELINE not in values:
            raise PruneError(f"{run_folder}: {metric} of random is no finite number; methods are held against it")
        return Round(values, metrics, again)


def _metrics(path: Path) -> Any:
    return json.loads(open_artifact(path, "eval").file("metrics.json").read_text("utf-8"))


def _of_kinds(represent: Mapping[str, Any], entries: Sequence[Any]) -> dict[str, Any]:
    """The options of `represent` but for those of kinds that no method reads."""
    read = {kind for entry in entries for kind in read_entry(entry, Path()).method.kinds}
    idle = {name for name in kinds.options() if not read & set(kinds.users(name))}
    return {name: value for name, value in represent.items() if name not in idle}


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
    """Rows of a sub-pool of which there is time for ROUNDS rounds, by what one of the smallest took.

    Evaluations, and the target set's representation, take as long for any sub-pool, and so do trainings of so many
    steps; all else grows with it. Of all rows, what methods share is made once.
    """
    constant = ("eval", "represent validation", *(("finetune",) if ground.steps else ()))
    every, once = np.zeros(2), np.zeros(2)  # seconds of a round, of what is shared: constant, growing
    for step, seconds in probed:
        grows = int(not step.startswith(constant))
        every[grows] += seconds
        once[grows] += seconds if step.startswith(SHARED) else 0
    times = np.array([1, ground.n / smallest])
    if float((once + ROUNDS * (every - once)) @ times) <= left:
        return ground.n
    room = (left / ROUNDS - every[0]) / max(every[1], 1e-9)
    return int(min(max(smallest, math.floor(smallest * room)), ground.n))


def smallest_pool(ground: Ground, keep: str) -> int:
    """Rows of the smallest sub-pool: a selection keeps some, and every label has a row."""
    share = parse_keep(keep, ground.n) / ground.n
    return min(ground.n, max(math.ceil(LEAST_KEPT / share), math.ceil(ground.n / ground.rarest)))


def answered(trials: Trials, journal: Journal, margin: float | None) -> tuple[Advice, int, int, int]:
    """Run the rounds. Returns the advice, how many rounds it rests on, the last one's number, rows of a sub-pool."""
    ground, question = trials.ground, trials.question
    pool = smallest_pool(ground, question.keep)
    methods, rounds, spent, number = question.methods, [], 0.0, 0
    while True:
        question = replace(question, pool=pool, kept=parse_keep(question.keep, pool))
        if not journal.find("tried", number):
            journal.add(round=number, tried=list(methods), pool=pool)
            note(f"advise: round {number}: {pool:,} rows, {question.kept:,} kept; {', '.join(methods)}")
        folder = trials.folder(number, pool) / "run"
        if not journal.find("ended", number):
            trials.make(number, pool, methods, journal)
            journal.add(round=number, ended=True)
        if number == 0:
            smallest, pool = pool, _pool(trials, journal, pool)
            if pool != smallest:
                number += 1
                continue
        shared = SHARED if pool == ground.n else ()
        again = sum(seconds for step, seconds in journal.steps(number) if not step.startswith(shared))
        rounds.append(trials.read(number, folder, methods, again))
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
            advice = advise(measured(question, rounds, methods, found["level"]), margin)
            return advice, len(rounds), number, pool
        methods, spent = tuple(found["methods"]), found["spent"]
        number += 1


def _pool(trials: Trials, journal: Journal, smallest: int) -> int:
    """The rows of a sub-pool, by what the first round took."""
    if line := journal.find("rows", 0):
        return int(line["rows"])
    left = trials.question.budget - journal.used
    pool = pool_size(trials.ground, smallest, journal.steps(0), left)
    journal.add(round=0, rows=pool)
    if pool != smallest:
        note(f"advise: round 0: took {journal.used:.0f} s; there is time for larger sub-pools, and it counts no more")
    return pool


def answer(given: str, metric: str | None, margin: float | None, asked: Asked) -> Answer:
    """Advice by trials on data, or on what a pipeline file says."""
    assert asked.out and asked.keep and asked.budget
    out, seed, budget = asked.out, asked.seed or 0, seconds_of(asked.budget)
    own = replace(asked, out=None, device=None, reading=None)
    check_ours(out, JOURNAL)
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
    advice, count, number, pool = answered(made, journal, margin)
    folder = made.folder(number, pool)
    data = {folder / "pool" / SELECTED: ground.original(ground.train)}
    if ground.target:
        data[Path(ground.target)] = ground.original(ground.target)
    answer = put(given, [advice], folder / "run", str(out / "full"), Whole(ground.n / pool, not ground.steps, data))
    last = journal.find("decided", number) or {}
    facts = {
        "rounds": count,
        "pool": pool,
        "rows": ground.n,
        "seconds": round(journal.used, 1),
        "stop": last["decided"],
    }
    rounds = f"{count} round{'s' * (count > 1)} on {pool:,} of {ground.n:,} rows"
    told = f"{rounds} in {journal.used:.0f} s: {last['decided']}"
    if count < FEWEST:
        told += f"; fewer than {FEWEST} rounds say nothing of chance, a longer --budget does"
    elif pool < ground.n:
        told += "; it need not be so on all rows, which a longer --budget tries"
    answer = Answer({**answer.facts, "trials": facts}, [told, *answer.lines])
    text = json.dumps(answer.facts, indent=1, ensure_ascii=False) + "\n"
    replace_file(out / ADVICE, partial(_write, text))
    return answer
