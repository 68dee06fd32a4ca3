"""A checked plan -> its steps in order. What earlier runs left is looked at here; nothing is made.

split ─▶ warmup ─▶ represent ─▶ score ─▶ select ─▶ finetune ─▶ eval
         once      once         a method a method, keep (and seed)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.artifacts.drafts import PART, REMOVED
from prune_cli.artifacts.manifest import is_artifact, open_artifact
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.method import Method
from prune_cli.methods.published import NONE, PublishedMethod
from prune_cli.pipeline.checks import n_train
from prune_cli.pipeline.entries import Entry, kinds_read
from prune_cli.pipeline.evidence import Trial
from prune_cli.pipeline.results import Made
from prune_cli.pipeline.schema import VALIDATION, Plan, as_trained
from prune_cli.represent import kinds
from prune_cli.stages.common import How, Outcome
from prune_cli.stages.evaluate import evaluate
from prune_cli.stages.finetune import finetune
from prune_cli.stages.represent import represent
from prune_cli.stages.score import score
from prune_cli.stages.select import select
from prune_cli.stages.split import Part, split

TRAIN = "train"
SHARED = ("split", "warmup-rows", "warmup", "represent")  # folders of what all methods share
WOULD_RUN = "would run"
HOW = How(replace=True, warn=False)  # the folder is the pipeline's own, and it tells the warnings of all together
LOOK = replace(HOW, dry_run=True)


@dataclass(frozen=True)
class Step:
    """A stage with all that it is called with: `stage(*given, out, opts, reading, how)`.

    needs: what other steps make and it rests on. replaces: artifacts to remove once it is made. rows: how many it
    trains on, where its time goes with them.
    """

    label: str
    stage: Callable[..., Outcome]
    given: tuple[Any, ...]
    out: Path
    opts: Any
    reading: Reading
    needs: tuple[Path, ...] = ()
    replaces: tuple[Path, ...] = ()
    rows: int = 1

    @property
    def kind(self) -> str:
        """What steps that take about as long have in common: the stage, and of represent the side."""
        return " ".join(self.label.split()[: 2 if self.stage is represent else 1])

    def make(self, how: How = HOW) -> Outcome:
        """Run the stage."""
        return self.stage(*self.given, self.out, self.opts, self.reading, how)


@dataclass(frozen=True)
class Work:
    """All that a pipeline makes in a folder: steps in an order in which they can be made; trials as in the table."""

    out: Path
    steps: tuple[Step, ...]
    trials: Mapping[Trial, Made]

    def name(self, step: Step) -> str:
        """Where in the folder a step's artifact is."""
        return step.out.relative_to(self.out).as_posix()

    def only(self, wanted: str) -> list[Step]:
        """The steps that are wanted: `shared`, the label of one, or a path that they make or that what they make is in.

        Raises PruneError where there is none.
        """
        if wanted == "shared":
            return [step for step in self.steps if self.name(step).partition("/")[0] in SHARED]
        path = Path(wanted)
        found = [
            step
            for step in self.steps
            if wanted == step.label or {path, self.out / path} & {step.out, *step.out.parents} - {*self.out.parents}
        ]
        if not found:
            raise PruneError(
                f"only: {wanted}; allowed: shared, what a step is called, or a path in {self.out} that one makes",
                hint="--dry-run lists the steps; with --json their paths too",
            )
        return found

    def with_needs(self, wanted: Iterable[Step]) -> list[Step]:
        """Steps and all that they rest on, in order."""
        known = {step.out for step in wanted}
        for step in reversed(self.steps):
            if step.out in known:
                known.update(step.needs)
        return [step for step in self.steps if step.out in known]


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
    return Work(out, tuple(planner.steps.values()), planner.trials)


def look(steps: Sequence[Step], folder: Path, known: Mapping[Path, Outcome] = {}) -> dict[Path, Outcome]:
    """What a dry run says of steps, in order: which are up to date, and which would run and why.

    known: of steps before these. A step whose files were removed after their use runs where a later one needs them.
    """
    found = dict(known)
    for step in steps:
        waiting = [path for path in step.needs if found[path].state == WOULD_RUN and found[path].reason != REMOVED]
        after = f"after {waiting[0].relative_to(folder)}" if waiting else ""
        found[step.out] = Outcome(step.out, step.label, WOULD_RUN, after) if waiting else step.make(LOOK)
    for step in reversed(steps):
        if found[step.out].reason == REMOVED:
            users = [s.label for s in steps if step.out in s.needs and found[s.out].state == WOULD_RUN]
            state, reason = (WOULD_RUN, f"{users[0]} needs it again") if users else ("current", "")
            found[step.out] = replace(found[step.out], state=state, reason=reason)
    return found


def spared(step: Step, steps: Iterable[Step], folder: Path) -> Outcome | None:
    """That a step is up to date, where its files were removed after their use and none of the steps needs them again.

    None where they are there, or needed.
    """
    with suppress(PruneError):
        if is_artifact(step.out) and open_artifact(step.out).removed:
            users = [other for other in steps if step.out in other.needs]
            others = {path: Outcome(path, "", "current") for known in (step, *users) for path in known.needs}
            found = look([step, *users], folder, others)[step.out]
            return None if found.state == WOULD_RUN else found
    return None


class _Planner:
    """Collects the steps, each once."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out, self.n = plan, out, n_train(plan)
        self.steps: dict[Path, Step] = {}
        self.trials: dict[Trial, Made] = {}
        self.looked: dict[Path, Outcome] = {}
        self.parts: tuple[Path, ...] = ()  # that the training rows are split into, which all else rests on
        self.represented: dict[tuple[str, str], dict[str, Path]] = {}  # side, variant -> kind -> artifact

    def add(self, label: str, stage: Any, given: tuple[Any, ...], out: Path, opts: Any, **more: Any) -> Path:
        """Take down a step unless there is one that makes the same; returns its artifact."""
        step = Step(label, stage, given, out, opts, **{"reading": Reading(), **more})
        self.steps.setdefault(out, replace(step, needs=tuple(dict.fromkeys((*self.parts, *step.needs)))))
        return out

    def reading(self, *names: str) -> Reading:
        """How the rows of what a step is given are read; artifacts know it."""
        made = all(Path(name) in self.steps or is_artifact(Path(name)) for name in names)
        return Reading() if made else self.plan.reading

    def split(self) -> None:
        """The parts that the file splits off its training rows, and the rest, which takes their place."""
        plan, folder = self.plan, self.out / "split"
        names = plan.parts.names if plan.parts.shares else []
        for name in names:
            part = Part(name, plan.parts, plan.task)
            self.add(f"split {name}", split, (plan.train,), folder / name, part, reading=plan.reading)
        self.plan, self.parts = plan.placed(folder), tuple(self.steps)

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
            return {
                "label": f"{label} {path.name}",
                "stage": represent,
                "given": (data,),
                "out": path,
                "opts": kinds.only(opts, held),
                "reading": self.reading(data),
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
        selector = methods.load("select", method.select, method.main)
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
        trained = self.add(
            f"finetune {label}",
            finetune,
            (str(selected),),
            trial / "finetune",
            replace(plan.finetune, seed=seed),
            needs=(selected,),
            rows=1 if plan.finetune.steps else parse_keep(keep, self.n),
        )
        judged = self.judge(f"eval {label}", str(trained), trial / "eval", plan.eval, (trained,))
        self.trials[entry.name, keep, seed] = Made(judged, trained, selected)

    def untrained(self, entry: Entry) -> None:
        """Evaluate the model as it is: once, as no seed has a say in it."""
        plan, out = self.plan, self.out / "methods" / entry.name / "eval"
        opts = replace(as_trained(plan.eval, plan.finetune), task=plan.task)
        judged = self.judge(f"eval {entry.name}", plan.model, out, opts, ())
        self.trials[entry.name, str(entry.method.keep), None] = Made(judged)

    def judge(self, label: str, model: str, out: Path, opts: options.Eval, needs: tuple[Path, ...]) -> Path:
        """Evaluate a model on the test sets."""
        tests = self.plan.tests
        return self.add(label, evaluate, (model, tests), out, opts, reading=self.reading(*tests.values()), needs=needs)

    def score(self, method: PublishedMethod, seed: int) -> Path:
        """The score of a method, of its own for each seed where it draws anything."""
        scorer = methods.load("score", method.score, method.main)
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
        return self.add(label, stage, (names,), out, opts, reading=self.reading(*names), needs=needs)

    def common(self, half: Method, method: PublishedMethod, given: dict[str, Any], seed: int) -> dict[str, Any]:
        """The options that score and select have in common."""
        runs_on = half.wants_representation or method.main in half.inputs
        target = self.target(half, method)
        return {
            "on": method.main if runs_on else None,
            "target": str(target[0]) if target else None,
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
