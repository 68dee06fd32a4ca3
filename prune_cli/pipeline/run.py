"""The pipeline: a TOML file -> a checked plan -> the stages in order -> a table of what pruning did.

    warmup ─▶ represent ─▶ score ─▶ select ─▶ finetune ─▶ eval
    once      once         a method a method, keep (and seed)

All of the file is checked before anything runs, and all mistakes are told together. The folder belongs to the
pipeline: a rerun makes what is missing or stale and leaves the rest alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.artifacts.drafts import PART, remove_artifact
from prune_cli.artifacts.jsonl import write_jsonl
from prune_cli.artifacts.manifest import is_artifact, open_artifact
from prune_cli.data.open import Reading, write_bad_rows
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods.method import Method
from prune_cli.methods.published import NONE, PublishedMethod
from prune_cli.pipeline.checks import overlap, read_plan, rows_of
from prune_cli.pipeline.entries import Entry, kinds_read
from prune_cli.pipeline.evidence import compare, of_artifacts, row_values, warned
from prune_cli.pipeline.results import COMPARISONS, RESULTS, UNDER_WAY, Report
from prune_cli.pipeline.schema import VALIDATION, Plan, as_trained
from prune_cli.report import corruption
from prune_cli.report.corruption import CORRUPT
from prune_cli.represent import kinds
from prune_cli.runtime.progress import note
from prune_cli.stages.common import How, Outcome
from prune_cli.stages.corrupt import corrupt
from prune_cli.stages.evaluate import evaluate
from prune_cli.stages.finetune import finetune
from prune_cli.stages.represent import represent
from prune_cli.stages.score import score
from prune_cli.stages.select import select
from prune_cli.stages.split import split

TRAIN = "train"

Tell = Callable[[str, Outcome], None]


def run(file: Path, out: Path, *, device: str | None, dry_run: bool, tell: Tell) -> Report:
    """Run a pipeline file in the folder `out`; `tell` hears of each step when it ends.

    device: in place of the file's. Returns the steps and, unless it was a dry run, a result for each method, keep,
    seed and test set; these are written to `results.jsonl` too.
    """
    plan = read_plan(file, tokenise=dry_run)
    if plan.bad_rows and not dry_run:
        write_bad_rows(plan.bad_rows, list(rows_of(plan).values()))
    if device is not None:
        tables = {name: replace(getattr(plan, name), device=device) for name in ("warmup", *options.STAGES_ON_DEVICE)}
        plan = replace(plan, **tables)
    if told := overlap(plan):
        note(f"warning: {told}")
    runner = _Runner(plan, out, How(replace=True, dry_run=dry_run, warn=False), tell)
    for path in (runner.partial, out / RESULTS):
        _check_ours(path, b'{"method": "')
    _check_ours(out / COMPARISONS, b'{"test": "')
    runner.split()
    runner.prepare()
    for entry in plan.entries:
        if entry.untrained:
            runner.untrained(entry)
            continue
        for keep in (entry.method.keep,) if entry.method.keep else plan.keep:
            for seed in plan.seeds_of(entry):
                runner.run(entry, keep, seed)
    if not dry_run:
        report = runner.report
        values = {trial: row_values(path, plan.task) for trial, path in report.judged.items()}
        report.comparisons = [c for c in compare(values) if c.metric in report.shown[c.test]]
        made = {trial: [*report.selected.get(trial, []), path] for trial, path in report.judged.items()}
        report.warnings = [*warned(values, report.shown, len(plan.seeds)), *of_artifacts(made)]
        report.corruption = corruption.facts(out, report.judged)
        write_jsonl(out / COMPARISONS, (comparison.facts for comparison in report.comparisons))
        runner.partial.replace(out / RESULTS)
    return runner.report


def _check_ours(path: Path, beginning: bytes) -> None:
    """Raise PruneError for a file that stands where results go and does not begin like them: it must not be lost."""
    if path.exists():
        with path.open("rb") as stream:
            if stream.read(len(beginning)) not in (b"", beginning):
                raise PruneError(f"{path}: exists and holds no results; choose another --out, or move it away")


class _Runner:
    """Runs steps in order, each once; in a dry run, what depends on a step that would run would run too."""

    def __init__(self, plan: Plan, out: Path, how: How, tell: Tell) -> None:
        self.plan, self.out, self.how, self.tell = plan, out, how, tell
        self.partial = out / UNDER_WAY
        self.report = Report(out, tasks.load(plan.task).TABLE_METRICS)
        self.done: set[Path] = set()
        self.would_run: set[Path] = set()
        self.parts: list[Path] = []  # that the training rows are split into, which all else rests on
        self.represented: dict[tuple[str, str], dict[str, Path]] = {}  # side, variant -> kind -> artifact

    def step(self, label: str, out: Path, needs: Sequence[Path], make: Callable[[], Outcome]) -> Path:
        """Run a step unless this run has already; returns its artifact."""
        if out in self.done:
            return out
        waiting = [path for path in (*self.parts, *needs) if path in self.would_run]
        after = f"after {waiting[0].relative_to(self.out)}" if waiting else ""
        self.note(label, Outcome(out, label, "would run", after) if waiting else make())
        return out

    def reading(self, *names: str) -> Reading:
        """How the rows of what a step is given are read; artifacts know it."""
        return Reading() if all(is_artifact(Path(name)) for name in names) else self.plan.reading

    def note(self, label: str, outcome: Outcome) -> None:
        """Take down the outcome of a step."""
        if outcome.state == "would run":
            self.would_run.add(outcome.out)
        self.done.add(outcome.out)
        self.report.steps.append((label, outcome))
        self.tell(label, outcome)

    def split(self) -> None:
        """The parts that the file splits off its training rows, and the rest, which takes their place."""
        plan, folder, made = self.plan, self.out / "split", []
        for part in plan.parts.names if plan.parts.shares else ():
            out = folder / part
            make = partial(split, plan.train, out, part, plan.parts, plan.task, plan.reading, self.how)
            made.append(self.step(f"split {part}", out, [], make))
        self.plan, self.parts = plan.placed(folder), made
        self.corrupt()

    def corrupt(self) -> None:
        """The training rows made worse, where the file says so, in place of those that there are."""
        plan, out = self.plan, self.out / CORRUPT
        if not plan.corruption.idle:
            make = partial(corrupt, plan.train, out, plan.corruption, plan.task, self.reading(plan.train), self.how)
            self.parts = [*self.parts, self.step(CORRUPT, out, [], make)]
            self.plan = replace(plan, train=str(out))

    def prepare(self) -> None:
        """What all methods share: warm-up training, representations of the training rows and of the target set.

        Rows are walked once for each way in which they are represented; the ways that need no warm-up come first.
        """
        plan = self.plan
        passes: dict[tuple[str, str, bool], tuple[options.Represent, set[str]]] = {}
        for side in (TRAIN, VALIDATION):
            for method in plan.methods.values():
                if side == VALIDATION and not method.reads_target:
                    continue
                variant, opts = plan.represented(method, target=side == VALIDATION)
                for kind in method.kinds:
                    about_target = "target" in kinds.load(kind).needs  # a pass of its own, over the training rows alone
                    if side == TRAIN or not about_target:
                        passes.setdefault((side, variant, about_target), (opts, set()))[1].add(kind)
        for (side, variant, about_target), (opts, wanted) in sorted(passes.items(), key=lambda p: not p[1][0].model):
            needs = [] if opts.model else [self.warmup()]
            opts = replace(
                opts,
                model=opts.model or str(needs[0]),
                target_data=plan.validation if about_target else None,
            )
            self.represent(side, variant, opts, wanted, needs)

    def warmup(self) -> Path:
        """The proxy, trained on the training rows or on a random part of them."""
        plan, out = self.plan, self.out / "warmup"
        rows, needs = plan.train, []
        if plan.fraction < 1:
            part = self.out / "warmup-rows"
            drawn = options.Select(method="random", keep=str(plan.fraction), task=plan.task, seed=plan.warmup.seed)
            self.step(
                "select warmup rows",
                part,
                [],
                lambda: select([plan.train], part, drawn, self.reading(plan.train), self.how),
            )
            rows, needs = str(part), [part]
        return self.step("warmup", out, needs, lambda: finetune(rows, out, plan.warmup, self.reading(rows), self.how))

    def represent(self, side: str, variant: str, opts: options.Represent, wanted: set[str], needs: list[Path]) -> None:
        """Have every kind represented: what earlier runs left is used, what is missing is made in one pass."""
        data = self.plan.train if side == TRAIN else self.plan.validation
        assert data is not None
        folder = self.out / "represent" / side / variant
        label = " ".join(["represent", side, *([variant] if variant else [])])
        missing, stale = set(wanted), []
        held = self.represented.setdefault((side, variant), {})
        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.endswith(PART):  # a draft, which its own step goes on with
                continue
            there = _kinds(path)
            if not there & missing:
                continue
            waiting = any(need in self.would_run for need in (*self.parts, *needs))
            if waiting or not self.is_current(data, path, kinds.only(opts, there)):
                stale.append(path)
                continue
            self.note(f"{label} {path.name}", Outcome(path, "represent", "current"))
            held |= dict.fromkeys(there & missing, path)
            missing -= there
        if not missing:
            return
        out = folder / "+".join(sorted(missing))
        opts = kinds.only(opts, missing)
        self.step(f"{label} {out.name}", out, needs, lambda: represent(data, out, opts, self.reading(data), self.how))
        held |= dict.fromkeys(missing, out)
        if not self.how.dry_run:
            for path in stale:
                if path != out:
                    remove_artifact(path)

    def is_current(self, data: str, out: Path, opts: options.Represent) -> bool:
        """Whether a represent artifact is what these options make."""
        return represent(data, out, opts, self.reading(data), replace(self.how, dry_run=True)).state == "current"

    def run(self, entry: Entry, keep: str, seed: int) -> None:
        """Score, select, fine-tune and evaluate for one method, budget and seed."""
        plan, method = self.plan, entry.method
        label = f"{entry.name} keep {keep} seed {seed}"
        budget = self.out / "methods" / entry.name / f"keep-{keep}"
        trial = budget / f"seed-{seed}"
        selector = methods.load("select", method.select, method.main)
        scored = [] if method.score == NONE else [self.score(method, seed)]
        random = any("rng" in half.inputs for half in method.halves)
        selected = trial / "select" if random else budget / "select"
        sources, target = [*scored, *self.read(TRAIN, selector, method)], self.target(selector, method)
        opts = options.Select(
            method=method.select,
            keep=keep,
            balance=entry.balance,  # type: ignore[arg-type]  # checked with the file
            balance_by=entry.balance_by,  # type: ignore[arg-type]
            **self.common(selector, method, target, method.select_options, seed),
        )
        self.step(
            f"select {label}" if random else f"select {entry.name} keep {keep}",
            selected,
            [*sources, *target],
            lambda: select(names := _names(sources, plan), selected, opts, self.reading(*names), self.how),
        )
        trained = self.step(
            f"finetune {label}",
            trial / "finetune",
            [selected],
            lambda: finetune(str(selected), trial / "finetune", replace(plan.finetune, seed=seed), Reading(), self.how),
        )
        judged = self.step(
            f"eval {label}",
            trial / "eval",
            [trained],
            lambda: evaluate(
                str(trained), plan.tests, trial / "eval", plan.eval, self.reading(*plan.tests.values()), self.how
            ),
        )
        if not self.how.dry_run:
            kept = open_artifact(selected).about["kept"]
            self.report.selected[entry.name, keep, seed] = [selected]
            self.add_results(judged, method=entry.name, keep=keep, kept=kept, seed=seed)

    def untrained(self, entry: Entry) -> None:
        """Evaluate the model as it is: once, as no seed has a say in it."""
        plan, out = self.plan, self.out / "methods" / entry.name / "eval"
        opts = replace(as_trained(plan.eval, plan.finetune), task=plan.task)
        judged = self.step(
            f"eval {entry.name}",
            out,
            [],
            lambda: evaluate(plan.model, plan.tests, out, opts, self.reading(*plan.tests.values()), self.how),
        )
        if not self.how.dry_run:
            self.add_results(judged, method=entry.name, keep=entry.method.keep, kept=0, seed=None)

    def add_results(self, judged: Path, **about: Any) -> None:
        """Take down what an evaluation measured, a line for each test set; `about` says what was evaluated."""
        self.report.judged[about["method"], about["keep"], about["seed"]] = judged
        metrics = json.loads(open_artifact(judged).file("metrics.json").read_text("utf-8"))
        for test, values in metrics.items():
            self.add_result({**about, "test": test, **values})

    def add_result(self, result: dict[str, Any]) -> None:
        """Take down a result, on disk at once: an interrupted run leaves what it has."""
        with self.partial.open("a" if self.report.results else "w", encoding="utf-8") as stream:
            stream.write(json.dumps(result, ensure_ascii=False) + "\n")
        self.report.results.append(result)

    def score(self, method: PublishedMethod, seed: int) -> Path:
        """The score of a method, of its own for each seed where it draws anything."""
        scorer = methods.load("score", method.score, method.main)
        seeded = "rng" in scorer.inputs
        out = self.out / "score" / (f"{method.name}-seed-{seed}" if seeded else method.name)
        read, target = self.read(TRAIN, scorer, method), self.target(scorer, method)
        common = self.common(scorer, method, target, method.score_options, seed)
        opts = options.Score(method=method.score, **common)
        label = f"score {method.name}" + (f" seed {seed}" if seeded else "")
        return self.step(
            label,
            out,
            [*read, *target],
            lambda: score(names := _names(read, self.plan), out, opts, self.reading(*names), self.how),
        )

    def common(
        self, half: Method, method: PublishedMethod, target: list[Path], given: dict[str, Any], seed: int
    ) -> dict[str, Any]:
        """The options that score and select have in common."""
        runs_on = half.wants_representation or method.main in half.inputs
        return {
            "on": method.main if runs_on else None,
            "target": str(target[0]) if target else None,
            "task": self.plan.task,
            "set": given,
            "seed": seed,
        }

    def read(self, side: str, half: Method, method: PublishedMethod) -> list[Path]:
        """The representations of the training rows or of the target set that a score or selection reads.

        `prepare` has made every one that a method wants.
        """
        variant, _ = self.plan.represented(method, target=side == VALIDATION)
        names = [*kinds_read(half), *(method.kinds[:1] if half.wants_representation else ())]
        held = self.represented.get((side, variant), {})
        return list(dict.fromkeys(held[kind] for kind in names))

    def target(self, half: Method, method: PublishedMethod) -> list[Path]:
        """The representation of the target set, where one is read."""
        return self.read(VALIDATION, half, method) if half.wants_target else []


def _kinds(path: Path) -> set[str]:
    """The kinds that a represent artifact holds; none where there is no whole one."""
    with suppress(PruneError):
        return set(open_artifact(path, "represent").about["kinds"])
    return set()


def _names(paths: Sequence[Path], plan: Plan) -> list[str]:
    """What a method reads: artifacts, or the training rows where it needs none."""
    return [str(path) for path in paths] or [plan.train]
