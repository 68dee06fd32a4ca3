"""A checked plan -> its steps in order. What earlier runs left is looked at here; nothing is made.

split ─▶ warmup ─▶ represent ─▶ score ─▶ select ─▶ finetune ─▶ eval
         once      once         a method a method, keep (and seed)
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.artifacts.manifest import PART, is_artifact, open_artifact
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.method import Method
from prune_cli.methods.published import NONE, PublishedMethod
from prune_cli.pipeline.attribution import TARGET, predicts
from prune_cli.pipeline.entries import Entry, kinds_read
from prune_cli.pipeline.evidence import WITHOUT, Trial
from prune_cli.pipeline.results import Made
from prune_cli.pipeline.row_checks import n_train
from prune_cli.pipeline.schema import DECONTAMINATED, VALIDATION, Plan, as_trained
from prune_cli.pipeline.work import Step, Work, look
from prune_cli.report.corruption import CORRUPT
from prune_cli.represent import kinds
from prune_cli.stages.common import Outcome
from prune_cli.stages.corrupt import Corrupt, corrupt
from prune_cli.stages.evaluate import evaluate
from prune_cli.stages.finetune import finetune
from prune_cli.stages.represent import represent
from prune_cli.stages.rest import rest
from prune_cli.stages.score import score
from prune_cli.stages.select import select
from prune_cli.stages.split import Part, split

TRAIN = "train"


def work_of(plan: Plan, out: Path) -> Work:
    """The steps of a plan in the folder `out`."""
    planner = _Planner(plan, out)
    planner.split()
    planner.prepare()
    for entry in plan.entries:
        if entry.untrained:
            planner.untrained(entry)
            continue
        for keep in (entry.method.keep,) if entry.method.keep else plan.keep:
            for seed in plan.seeds_of(entry):
                planner.trial(entry, keep, seed)
    halves = tuple(planner.half(j) for j in range(plan.lds))
    return Work(out, tuple(planner.steps.values()), planner.trials, halves, planner.scores if halves else {})


class _Planner:
    """Collects the steps, each once."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out, self.n = plan, out, n_train(plan)
        self.steps: dict[Path, Step] = {}
        self.trials: dict[Trial, Made] = {}
        self.scores: dict[str, Path] = {}  # those that say what helps the target set
        self.looked: dict[Path, Outcome] = {}
        self.parts: tuple[Path, ...] = ()  # that the training rows are split into, which all else rests on
        self.represented: dict[tuple[str, str], dict[str, Path]] = {}  # side, variant -> kind -> artifact

    def add(self, label: str, stage: Any, given: tuple[Any, ...], out: Path, opts: Any, **more: Any) -> Path:
        """Take down a step unless there is one that makes the same; returns its artifact."""
        step = Step(label, stage, given, out, opts, **{"reading": Reading(), **more})
        self.steps.setdefault(out, replace(step, needs=tuple(dict.fromkeys((*self.parts, *step.needs)))))
        return out

    def reading(self, *names: str | None) -> Reading:
        """How the rows of what a step is given are read, a target set too; artifacts know it."""
        made = all(Path(name) in self.steps or is_artifact(Path(name)) for name in names if name)
        return Reading() if made else self.plan.reading

    def split(self) -> None:
        """The parts that the file splits off its training rows, and the rest, which takes their place."""
        plan, folder = self.plan, self.out / "split"
        names = plan.parts.names if plan.parts.shares else []
        for name in names:
            part = Part(name, plan.parts, plan.task)
            self.add(f"split {name}", split, (plan.train,), folder / name, part, reading=plan.reading)
        self.plan, self.parts = plan.placed(folder), tuple(self.steps)
        if plan.decontaminate:
            train, tests = self.plan.train, tuple(self.plan.tests_of_rows.values())
            every = options.Select(method="random", keep="100%", decontaminate=tests, order="data", task=plan.task)
            reading = self.reading(train, *tests)
            out = self.add("decontaminate", select, ([train],), self.out / DECONTAMINATED, every, reading=reading)
            self.plan, self.parts = replace(self.plan, train=str(out)), (*self.parts, out)
        if not plan.corruption.idle:
            given, opts = (self.plan.train,), Corrupt(plan.corruption, plan.task)
            out = self.add(CORRUPT, corrupt, given, self.out / CORRUPT, opts, reading=self.reading(self.plan.train))
            self.plan, self.parts = replace(self.plan, train=str(out)), (*self.parts, out)

    def prepare(self) -> None:
        """What all methods share: warm-up training, representations of the training rows and of the target set.

        Rows are walked once for each way in which they are represented; the ways that need no warm-up come first, and
        of these the kinds that need no model.
        """
        plan = self.plan
        passes: dict[tuple[str, str, bool, bool], tuple[options.Represent, set[str]]] = {}
        for side in (TRAIN, VALIDATION):
            for method in plan.methods.values():
                if side == VALIDATION and not method.reads_target:
                    continue
                variant, opts = plan.represented(method, target=side == VALIDATION)
                for kind in method.kinds:
                    about_target = "target" in kinds.load(kind).needs  # a pass of its own, over the training rows alone
                    free = kinds.is_free(kind)
                    if side == TRAIN or not about_target:
                        passes.setdefault((side, variant, about_target, free), (opts, set()))[1].add(kind)
        ordered = sorted(passes.items(), key=lambda one: (not one[0][-1], not one[1][0].model))
        for (side, variant, about_target, free), (opts, wanted) in ordered:
            needs = [] if free or opts.model else [self.warmup()]
            opts = replace(
                opts,
                model=None if free else opts.model or str(needs[0]),
                target_data=plan.validation if about_target else None,
            )
            self.represent(side, variant, opts, wanted, tuple(needs))

    def warmup(self) -> Path:
        """The proxy, trained on the training rows or on a random part of them."""
        plan, rows, n = self.plan, self.plan.train, self.n
        needs: tuple[Path, ...] = ()
        if plan.fraction < 1:
            drawn = options.Select(method="random", keep=str(plan.fraction), task=plan.task, seed=plan.warmup.seed)
            reading = self.reading(rows)
            part = self.add("select warmup rows", select, ([rows],), self.out / "warmup-rows", drawn, reading=reading)
            rows, n, needs = str(part), parse_keep(str(plan.fraction), n), (part,)
        out = self.out / "warmup"
        return self.add("warmup", finetune, (rows,), out, plan.warmup, reading=self.reading(rows), needs=needs, rows=n)

    def represent(
        self, side: str, variant: str, opts: options.Represent, wanted: set[str], needs: tuple[Path, ...]
    ) -> None:
        """Have every kind represented: what earlier runs left is used, what is missing is made in one pass."""
        data = self.plan.train if side == TRAIN else self.plan.validation
        assert data is not None
        folder = self.out / "represent" / side / variant
        label = " ".join(["represent", side, *([variant] if variant else [])])
        missing, stale = set(wanted), []
        held = self.represented.setdefault((side, variant), {})

        def step(path: Path, held: set[str]) -> dict[str, Any]:
            own = kinds.only(opts, held)
            return {
                "label": f"{label} {path.name}",
                "stage": represent,
                "given": (data,),
                "out": path,
                "opts": own,
                "reading": self.reading(data, own.target_data),
                "needs": needs,
            }

        for path in sorted(folder.iterdir()) if folder.is_dir() else []:
            if path.name.endswith(PART):  # a draft, which its own step goes on with
                continue
            there = _kinds(path)
            if not there & missing:
                continue
            self.add(**step(path, there))
            new = [step for step in self.steps.values() if step.out not in self.looked]
            self.looked = look(new, self.out, self.looked)
            if self.looked[path].state != "current":
                del self.steps[path], self.looked[path]
                stale.append(path)
                continue
            held |= dict.fromkeys(there & missing, path)
            missing -= there
        if missing:
            out = folder / "+".join(sorted(missing))
            self.add(**step(out, missing), replaces=tuple(path for path in stale if path != out))
            held |= dict.fromkeys(missing, out)

    def trial(self, entry: Entry, keep: str, seed: int) -> None:
        """Score, select, fine-tune and evaluate for one method, budget and seed."""
        plan, method = self.plan, entry.method
        label = f"{entry.name} keep {keep} seed {seed}"
        budget = self.out / "methods" / entry.name / f"keep-{keep}"
        trial = budget / f"seed-{seed}"
        selector = methods.load("select", method.select, method.on)
        scored = () if method.score == NONE else (self.score(method, seed),)
        random = any("rng" in half.inputs for half in method.halves)
        sources = (*scored, *self.read(TRAIN, selector, method))
        selected = self.add_method(
            f"select {label}" if random else f"select {entry.name} keep {keep}",
            select,
            selector,
            method,
            sources,
            trial / "select" if random else budget / "select",
            options.Select(
                method=method.select,
                keep=keep,
                balance=entry.balance,  # type: ignore[arg-type]  # checked with the file
                balance_by=entry.balance_by,  # type: ignore[arg-type]
                **self.common(selector, method, method.select_options, seed),
            ),
        )
        if scored and predicts(method):
            self.scores[scored[0].name] = scored[0]
        n = parse_keep(keep, self.n)
        self.trials[entry.name, keep, seed] = self.trained(label, selected, n, trial, seed, plan.tests)
        if plan.removal and n < self.n:
            self.without(entry, keep, seed, selected, random=random)

    def trained(self, label: str, selected: Path, n: int, folder: Path, seed: int, tests: Mapping[str, str]) -> Made:
        """Fine-tune on n selected rows, and evaluate."""
        trained = self.add(
            f"finetune {label}",
            finetune,
            (str(selected),),
            folder / "finetune",
            replace(self.plan.finetune, seed=seed),
            needs=(selected,),
            rows=n,
        )
        judged = self.judge(f"eval {label}", str(trained), folder / "eval", self.plan.eval, (trained,), tests)
        return Made(judged, trained, selected)

    def without(self, entry: Entry, keep: str, seed: int, selected: Path, *, random: bool) -> None:
        """Fine-tune on what a selection leaves out, and evaluate."""
        plan, name = self.plan, WITHOUT + entry.name
        budget = self.out / "without" / entry.name / f"keep-{keep}"
        trial = budget / f"seed-{seed}"
        label = f"{name} keep {keep} seed {seed}"
        left = self.add(
            f"select {label}" if random else f"select {name} keep {keep}",
            rest,
            (plan.train, str(selected)),
            (trial if random else budget) / "select",
            plan.task,
            reading=self.reading(plan.train),
            needs=(selected,),
        )
        n = self.n - parse_keep(keep, self.n)
        self.trials[name, keep, seed] = self.trained(label, left, n, trial, seed, plan.tests)

    def half(self, j: int) -> Made:
        """Fine-tune on a random half of the training rows, and take its loss on the target set and the test sets."""
        plan, folder = self.plan, self.out / "lds" / f"half-{j}"
        assert plan.validation is not None
        drawn = options.Select(method="random", keep="0.5", task=plan.task, seed=j)
        reading = self.reading(plan.train)
        selected = self.add(f"select half {j}", select, ([plan.train],), folder / "select", drawn, reading=reading)
        tests = {TARGET: plan.validation, **plan.tests_of_rows}
        return self.trained(f"half {j}", selected, parse_keep("0.5", self.n), folder, plan.seeds[0], tests)

    def untrained(self, entry: Entry) -> None:
        """Evaluate the model as it is: once, as no seed has a say in it."""
        plan, out = self.plan, self.out / "methods" / entry.name / "eval"
        opts = replace(as_trained(plan.eval, plan.finetune), task=plan.task)
        judged = self.judge(f"eval {entry.name}", plan.model, out, opts, (), plan.tests)
        self.trials[entry.name, str(entry.method.keep), None] = Made(judged)

    def judge(
        self, label: str, model: str, out: Path, opts: options.Eval, needs: tuple[Path, ...], tests: Mapping[str, str]
    ) -> Path:
        """Evaluate a model on test sets."""
        return self.add(label, evaluate, (model, tests), out, opts, reading=self.reading(*tests.values()), needs=needs)

    def score(self, method: PublishedMethod, seed: int) -> Path:
        """The score of a method, of its own for each seed where it draws anything."""
        scorer = methods.load("score", method.score, method.on)
        seeded = "rng" in scorer.inputs
        return self.add_method(
            f"score {method.name}" + (f" seed {seed}" if seeded else ""),
            score,
            scorer,
            method,
            self.read(TRAIN, scorer, method),
            self.out / "score" / (f"{method.name}-seed-{seed}" if seeded else method.name),
            options.Score(method=method.score, **self.common(scorer, method, method.score_options, seed)),
        )

    def add_method(
        self,
        label: str,
        stage: Any,
        half: Method,
        method: PublishedMethod,
        read: tuple[Path, ...],
        out: Path,
        opts: Any,
    ) -> Path:
        """Score or select: on artifacts, or on the training rows where none is read."""
        names = [str(path) for path in read] or [self.plan.train]
        needs = (*read, *self.target(half, method))
        reading = self.reading(*names, opts.target)
        return self.add(label, stage, (names,), out, opts, reading=reading, needs=needs)

    def common(self, half: Method, method: PublishedMethod, given: dict[str, Any], seed: int) -> dict[str, Any]:
        """The options that score and select have in common."""
        runs_on = half.wants_representation or method.on in half.inputs
        target = self.target(half, method)
        texts = self.plan.validation if half.wants_target else None  # where no representation of them is read
        return {
            "on": method.on if runs_on else None,
            "target": str(target[0]) if target else texts,
            "task": self.plan.task,
            "set": given,
            "seed": seed,
        }

    def read(self, side: str, half: Method, method: PublishedMethod) -> tuple[Path, ...]:
        """The representations of the training rows or of the target set that a score or selection reads.

        `prepare` has every one that a method wants.
        """
        variant, _ = self.plan.represented(method, target=side == VALIDATION)
        names = [*kinds_read(half), *(method.kinds[:1] if half.wants_representation else ())]
        held = self.represented.get((side, variant), {})
        return tuple(dict.fromkeys(held[kind] for kind in names))

    def target(self, half: Method, method: PublishedMethod) -> tuple[Path, ...]:
        """The representation of the target set, where one is read."""
        return self.read(VALIDATION, half, method) if half.wants_target else ()


def _kinds(path: Path) -> set[str]:
    """The kinds that a represent artifact holds; none where there is no whole one."""
    with suppress(PruneError):
        return set(open_artifact(path, "represent").about["kinds"])
    return set()
