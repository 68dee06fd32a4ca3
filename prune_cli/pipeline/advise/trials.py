"""Trials of its own: rounds of small pipelines on sub-pools of the rows, until the question is decided or time is up.

A sub-pool is drawn at random, in the ratio of the labels, and each selection keeps the share of it that is to be kept
of all rows. A first round on a small one says how long things take: sub-pools are then as large as leaves time for
ROUNDS of them, and unless they are as small that round is no more than a probe. Where there is time for all rows, all
rounds share them, and what is made of them. A method that is found on sub-pools is tried on all rows where there is
time left for that, and only what those rounds show is then advised.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli import options
from prune_cli.artifacts.files import alone, check_ours, replace_file
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
from prune_cli.pipeline.advise.pools import SHARED, pool_size, smallest_pool, time_to_confirm
from prune_cli.pipeline.advise.rounds import DRAWS, FEWEST, Question, Round, decide, measured
from prune_cli.pipeline.entries import read_entry
from prune_cli.pipeline.evidence import BASELINE, Trial, row_values
from prune_cli.pipeline.propose import quoted
from prune_cli.pipeline.results import of_trial
from prune_cli.pipeline.run import run
from prune_cli.report.contents import metrics_of
from prune_cli.represent import kinds
from prune_cli.runtime.progress import note
from prune_cli.stages.select import select

JOURNAL, ADVICE = "journal.jsonl", "advice.json"
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

    def make(self, number: int, pool: int, methods: Sequence[str], journal: Journal, *, first: bool) -> Path:
        """Run a round, or what of it is missing: random with its draws, then all others. Returns the run's folder.

        first: of those that are judged together, so that the model as it is belongs to it.
        """
        folder = self.folder(number, pool)
        rows = self.rows(number, pool)
        seed = self.seed + DRAWS * number
        others = [FULL, *([NONE] if self.ground.untrained and first else []), BASELINE]
        draws = list(range(seed, seed + DRAWS))
        told = {
            f"random-{number}.toml": ([BASELINE], draws),
            f"round-{number}.toml": ([*others, *(self.ground.entries[name] for name in methods)], [seed]),
        }

        def ended(step: str, _: str) -> None:
            over = number == 0 and journal.used > self.question.budget
            journal.spend(number, step)
            if over:
                raise PruneError(
                    f"budget: {self.question.budget:g} s; {journal.used:.0f} s were spent within the first round, "
                    "before which nothing can be said",
                    hint="the same command with a longer --budget goes on from there",
                )

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

    def read(self, number: int, run_folder: Path, methods: Sequence[str], again: float, *, first: bool) -> Round:
        """What a round measured; of the model as it is the first alone. again: seconds that another round takes."""
        seed, keep = self.seed + DRAWS * number, self.question.keep
        test, metric = self.question.test, self.question.metric
        trials: dict[str, list[Trial]] = {name: [(name, keep, seed)] for name in methods}
        trials[BASELINE] = [(BASELINE, keep, seed + draw) for draw in range(DRAWS)]
        trials[FULL] = [(FULL, "100%", seed)]
        if self.ground.untrained and first:
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
    return metrics_of(open_artifact(path, "eval"))


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


@dataclass(frozen=True)
class Ended:
    """What rounds came to. rounds: how many. number: of the last one. pool: rows of each. stop: why they ended.

    methods: of the last round, or those that were found better and go on to all rows. found: the rounds on sub-pools by
    which they were; None where these are the first.
    """

    advice: Advice
    rounds: int
    number: int
    pool: int
    stop: str
    methods: Sequence[str]
    found: Ended | None

    @property
    def told(self) -> str:
        """The rounds in words."""
        return f"{self.rounds} round{'s' * (self.rounds > 1)} on {self.pool:,}"


def answered(trials: Trials, journal: Journal, margin: float | None) -> Ended:
    """Run the rounds. Where all rows take longer than foretold, those on sub-pools, which are more, have the say."""
    ground, question = trials.ground, trials.question
    pool = smallest_pool(ground, question.keep)
    methods, rounds, spent, number = question.methods, list[Round](), 0.0, 0
    found: Ended | None = None
    while True:
        question = replace(question, pool=pool, kept=parse_keep(question.keep, pool))
        if not journal.find("tried", number):
            journal.add(round=number, tried=list(methods), pool=pool)
            note(f"advise: round {number}: {pool:,} rows, {question.kept:,} kept; {', '.join(methods)}")
        folder = trials.folder(number, pool) / "run"
        if not journal.find("ended", number):
            trials.make(number, pool, methods, journal, first=not rounds)
            journal.add(round=number, ended=True)
        if number == 0:
            smallest, pool = pool, _pool(trials, journal, pool)
            if pool != smallest:
                number += 1
                continue
        shared = SHARED if pool == ground.n else ()
        again = sum(seconds for step, seconds in journal.steps(number) if not step.startswith(shared))
        rounds.append(trials.read(number, folder, methods, again, first=not rounds))
        decided = journal.find("decided", number) or _decide(trials, journal, question, rounds, methods, number, spent)
        if decided["stop"]:
            advice = advise(measured(question, rounds, methods, decided["level"]), margin)
            ended = Ended(advice, len(rounds), number, pool, decided["decided"], decided["methods"], found)
            if not decided.get("confirm"):
                return found if found and len(rounds) < FEWEST else ended
            found, rounds, pool = ended, [], ground.n
            question = replace(question, budget=trials.question.budget - journal.used_by(number))
        methods, spent = tuple(decided["methods"]), decided["spent"] if rounds else 0.0
        number += 1


def _decide(
    trials: Trials,
    journal: Journal,
    question: Question,
    rounds: Sequence[Round],
    methods: Sequence[str],
    number: int,
    spent: float,
) -> dict[str, Any]:
    """Decide what follows from the rounds, take it down and tell it.

    The line's `methods` go on where it does not `stop`, or where it goes on to `confirm` them on all rows. The
    question's budget is what the rounds have that are judged, without the time of those before.
    """
    ground, used, budget = trials.ground, journal.used_by(number), trials.question.budget
    decision, _ = decide(question, rounds, methods, used - (budget - question.budget), spent)
    going, confirm = decision.methods, False
    if decision.better and question.pool < ground.n:
        dropped = set(methods) - set(decision.better)
        needed = time_to_confirm(ground, question.pool, journal.steps(number), dropped)
        confirm = used + needed <= budget
        going = decision.better if confirm else going
    line = journal.add(
        round=number,
        decided=decision.stop or "goes on",
        stop=bool(decision.stop),
        confirm=confirm,
        methods=list(going),
        spent=decision.spent,
        level=decision.level,
        dropped=dict(decision.dropped),
        used=round(used, 1),
    )
    told = "".join(f"; dropped {name}: {why}" for name, why in decision.dropped.items())
    told += f"; goes on to all rows with {', '.join(going)}" if confirm else ""
    note(f"advise: round {number}: {used:.0f} of {budget:.0f} s used; {line['decided']}{told}")
    return line


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
    assert asked.out
    check_ours(asked.out, JOURNAL)
    asked.out.mkdir(parents=True, exist_ok=True)
    with alone(asked.out, wait=False):
        return _answer(given, metric, margin, asked)


def _answer(given: str, metric: str | None, margin: float | None, asked: Asked) -> Answer:
    assert asked.out and asked.keep and asked.budget
    out, seed, budget = asked.out, asked.seed or 0, seconds_of(asked.budget)
    own = replace(asked, out=None, budget=None, device=None, reading=None)
    journal = Journal(out / JOURNAL)
    reading = asked.reading or Reading()
    how: dict[str, Any] = {"fields": dict(reading.fields), "format": reading.format, "drop": list(reading.drop)}
    how |= {"skip_bad": True} if reading.skip_bad else {}
    journal.same("asked", {"given": given, "metric": metric, "margin": margin, "reading": how, **asdict(own)})
    journal.within(budget)
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
    ended = answered(made, journal, margin)
    pool, found = ended.pool, ended.found
    folder = made.folder(ended.number, pool)
    data = {folder / "pool" / SELECTED: ground.original(ground.train)}
    if ground.target:
        data[Path(ground.target)] = ground.original(ground.target)
    answer = put(
        given,
        [ended.advice],
        folder / "run",
        str(out / "full"),
        Whole(ground.n / pool, not ground.steps, data, ground.reading),
    )
    facts = {
        "rounds": ended.rounds,
        "pool": pool,
        "rows": ground.n,
        "seconds": round(journal.used, 1),
        "stop": ended.stop,
        "found": {"methods": found.methods, "pool": found.pool, "rounds": found.rounds} if found else None,
    }
    told = f"{ended.told} of {ground.n:,} rows: {ended.stop}; {journal.used:.0f} s in all"
    if found:
        told = f"better than random in {found.told}, so tried on all rows: {', '.join(found.methods)}; then {told}"
    if ended.rounds < FEWEST:
        told += f"; fewer than {FEWEST} rounds say nothing of chance; a longer --budget does, with another -o"
    elif pool < ground.n:
        told += "; it need not be so on all rows, which a longer --budget tries, with another -o"
    answer = Answer({**answer.facts, "trials": facts}, [told, *answer.lines])
    text = json.dumps(answer.facts, indent=1, ensure_ascii=False) + "\n"
    replace_file(out / ADVICE, partial(_write, text))
    return answer
