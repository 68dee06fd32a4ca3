"""The pipeline: a TOML file -> a checked plan -> the stages in order -> a table of what pruning did.

    warmup ─▶ represent ─▶ score ─▶ select ─▶ finetune ─▶ eval
    once      once         a method a method, keep (and seed)

All of the file is checked before anything runs, and all mistakes are told together. The folder belongs to the
pipeline: a rerun makes what is missing or stale and leaves the rest alone.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.artifacts import manifest as artifact
from prune_cli.methods import arguments as inputs
from prune_cli.methods import method as methods
from prune_cli.methods.method import Method, PublishedMethod
from prune_cli.pipeline.entries import Chosen
from prune_cli.pipeline.schema import Plan, read_plan
from prune_cli.stages import all as stages
from prune_cli.stages.common import How, Outcome


@dataclass
class Report:
    """What a run of the pipeline came to: each step's outcome; the table's lines, and which metrics it shows."""

    out: Path
    metrics: tuple[str, ...]
    steps: list[tuple[str, Outcome]] = field(default_factory=list)
    results: list[dict[str, Any]] = field(default_factory=list)

    def count(self, state: str) -> int:
        """Number of steps with a state."""
        return sum(outcome.state == state for _, outcome in self.steps)


def run(file: Path, out: Path, *, device: str | None, dry_run: bool, tell: Callable[[str, Outcome], None]) -> Report:
    """Run a pipeline file in the folder `out`; `tell` hears of each step as it ends.

    device: in place of the file's. Returns the steps and, unless it was a dry run, a result for each method, keep,
    seed and test; these are written to `results.jsonl` as well.
    """
    plan = read_plan(file)
    if device is not None:
        plan = replace(
            plan,
            warmup=replace(plan.warmup, device=device),
            represent=replace(plan.represent, device=device),
            finetune=replace(plan.finetune, device=device),
            eval=replace(plan.eval, device=device),
        )
    if not dry_run:
        (out / "results.jsonl").unlink(missing_ok=True)  # of another plan, or about to be written again
    runner = _Runner(plan, out, How(replace=True, dry_run=dry_run), tell)
    runner.prepare()
    for chosen in plan.chosen:
        for keep in (chosen.method.keep,) if chosen.method.keep else plan.keep:
            for seed in plan.seeds:
                runner.run(chosen, keep, seed)
    if not dry_run:
        _write_results(out / "results.jsonl", runner.report.results)
    return runner.report


class _Runner:
    """Runs steps in order, each once; in a dry run, what rests on a step that would run would run too."""

    def __init__(self, plan: Plan, out: Path, how: How, tell: Callable[[str, Outcome], None]) -> None:
        self.plan, self.out, self.how, self.tell = plan, out, how, tell
        on_rows: dict[str, Any] = {"task": plan.task, "fields": plan.fields, "how": how}
        self.score: Callable[..., Outcome] = partial(stages.score, **on_rows)
        self.select: Callable[..., Outcome] = partial(stages.select, **on_rows)
        self.report = Report(out, tasks.load(plan.task).TABLE_METRICS)
        self.done: set[Path] = set()
        self.would: set[Path] = set()
        self.represented: dict[tuple[str, str], list[Path]] = {}

    def step(self, label: str, out: Path, needs: list[Path], make: Callable[[], Outcome]) -> Path:
        """Run a step unless this run has already; returns its artifact."""
        if out in self.done:
            return out
        waiting = [path for path in needs if path in self.would]
        after = f"after {waiting[0].relative_to(self.out)}" if waiting else ""
        outcome = Outcome(out, label, "would run", after) if waiting else make()
        self.note(label, outcome)
        return out

    def note(self, label: str, outcome: Outcome) -> None:
        """Take down what became of a step."""
        if outcome.state == "would run":
            self.would.add(outcome.out)
        self.done.add(outcome.out)
        self.report.steps.append((label, outcome))
        self.tell(label, outcome)

    def prepare(self) -> None:
        """What all methods share: warm-up training, representations of the training rows and of the target set.

        Rows are walked once for each way in which they are represented; the ways that need no warm-up come first.
        """
        plan = self.plan
        wanted: dict[tuple[str, str, bool], tuple[options.Represent, set[str]]] = {}
        for side in ("train", "validation"):
            for method in (c.method for c in plan.chosen):
                if method.kinds and (side == "train" or method.reads_target):
                    variant, opts = plan.represented(method, target=side == "validation")
                    for kind in method.kinds:
                        about_target = kind == "influence"  # which has a pass of its own, over the training rows alone
                        if side == "train" or not about_target:
                            wanted.setdefault((side, variant, about_target), (opts, set()))[1].add(kind)
        for (side, variant, _), (opts, kinds) in sorted(wanted.items(), key=lambda entry: not entry[1][0].model):
            needs = [] if opts.model else [self.warmup()]
            opts = replace(opts, model=opts.model or str(needs[0]))
            data = plan.train if side == "train" else plan.validation
            assert data is not None
            self.represent(side, variant, data, opts, kinds, needs)

    def warmup(self) -> Path:
        """The proxy, trained on the training rows or on a random part of them."""
        plan, out = self.plan, self.out / "warmup"
        rows, fields, needs = plan.train, plan.fields, []
        if plan.fraction < 1:
            part = self.out / "warmup-rows"
            self.step(
                "select warmup rows",
                part,
                [],
                lambda: self.select(
                    [plan.train],
                    part,
                    "random",
                    keep=str(plan.fraction),
                    balance="none",
                    balance_by="label",
                    on=None,
                    target=None,
                    set_options={},
                    seed=plan.warmup.seed,
                ),
            )
            rows, fields, needs = str(part), {}, [part]
        return self.step("warmup", out, needs, lambda: stages.finetune(rows, out, plan.warmup, fields, self.how))

    def represent(
        self, side: str, variant: str, data: str, opts: options.Represent, kinds: set[str], needs: list[Path]
    ) -> None:
        """Have every kind represented: what earlier runs left is used, what is missing is made in one pass."""
        folder, end = self.out / "represent" / side, f"-{variant}" if variant else ""
        missing, stale = set(kinds), []
        target = self.plan.validation if "influence" in kinds else None
        for found in sorted(folder.iterdir()) if folder.is_dir() else []:
            name, _, rest = found.name.partition("-")
            held = set(name.split("+"))
            if rest != variant or not held <= set(inputs.KINDS) or not artifact.is_artifact(found):
                continue
            if not held & missing:
                continue
            if any(path in self.would for path in needs) or not self._is_current(
                data, found, replace(opts, kind=",".join(held)), target
            ):
                stale.append(found)
                continue
            self.note(f"represent {side} {found.name}", Outcome(found, "represent", "current"))
            self.represented.setdefault((side, variant), []).append(found)
            missing -= held
        if not missing:
            return
        out = folder / ("+".join(sorted(missing)) + end)
        wanted = replace(opts, kind=",".join(sorted(missing)))
        self.step(
            f"represent {side} {out.name}",
            out,
            needs,
            lambda: stages.represent(data, out, wanted, target, self.plan.fields, self.how),
        )
        self.represented.setdefault((side, variant), []).append(out)
        if not self.how.dry_run:
            for path in stale:
                if path != out:
                    shutil.rmtree(path)

    def _is_current(self, data: str, out: Path, opts: options.Represent, target: str | None) -> bool:
        looked = stages.represent(data, out, opts, target, self.plan.fields, replace(self.how, dry_run=True))
        return looked.state == "current"

    def run(self, chosen: Chosen, keep: str, seed: int) -> None:
        """Score, select, fine-tune and evaluate for one method, budget and seed."""
        plan, method = self.plan, chosen.method
        folder = self.out / "methods" / chosen.name
        label = f"{chosen.name} keep {keep} seed {seed}"
        selector = methods.load("select", method.select, method.main)
        sources: list[Path] = []
        random = "rng" in selector.inputs
        if method.score != "none":
            scorer = methods.load("score", method.score, method.main)
            seeded = "rng" in scorer.inputs
            random = random or seeded
            scored = self.out / "score" / (f"{method.name}-seed-{seed}" if seeded else method.name)
            read, target = self._read("train", scorer, method), self._aim(scorer, method)
            self.step(
                f"score {method.name}" + (f" seed {seed}" if seeded else ""),
                scored,
                [*read, *target],
                lambda: self.score(
                    [str(path) for path in read] or [plan.train],
                    scored,
                    method.score,
                    on=_on(scorer, method),
                    target=str(target[0]) if target else None,
                    set_options=method.score_options,
                    seed=seed,
                ),
            )
            sources.append(scored)
        sources += self._read("train", selector, method)
        aim = self._aim(selector, method)
        budget = folder / f"keep-{keep}"
        trial = budget / f"seed-{seed}"
        selected = trial / "select" if random else budget / "select"
        self.step(
            f"select {label}" if random else f"select {chosen.name} keep {keep}",
            selected,
            [*sources, *aim],
            lambda: self.select(
                [str(path) for path in sources] or [plan.train],
                selected,
                method.select,
                keep=keep,
                balance=chosen.balance,
                balance_by=chosen.balance_by,
                on=_on(selector, method),
                target=str(aim[0]) if aim else None,
                set_options=method.select_options,
                seed=seed,
            ),
        )
        trained = self.step(
            f"finetune {label}",
            trial / "finetune",
            [selected],
            lambda: stages.finetune(str(selected), trial / "finetune", replace(plan.finetune, seed=seed), {}, self.how),
        )
        judged = self.step(
            f"eval {label}",
            trial / "eval",
            [trained],
            lambda: stages.evaluate(str(trained), plan.tests, trial / "eval", plan.eval, plan.fields, self.how),
        )
        if not self.how.dry_run:
            kept = artifact.open_artifact(selected).about["kept"]
            metrics = json.loads(artifact.open_artifact(judged).file("metrics.json").read_text("utf-8"))
            for test, values in metrics.items():
                line = {"method": chosen.name, "keep": keep, "kept": kept, "seed": seed, "test": test}
                self.report.results.append({**line, **values})

    def _read(self, side: str, half: Method, method: PublishedMethod) -> list[Path]:
        """The representations of the training rows or of the target set that a score or selection reads.

        `prepare` has made every one that a method wants.
        """
        variant, _ = self.plan.represented(method, target=side == "validation")
        kinds = [*inputs.kinds_named(half.inputs), *(method.kinds[:1] if half.wants_representation else ())]
        held = self.represented.get((side, variant), [])
        paths = [
            next(path for path in held if kind in path.name.partition("-")[0].split("+"))
            for kind in dict.fromkeys(kinds)
        ]
        return list(dict.fromkeys(paths))

    def _aim(self, half: Method, method: PublishedMethod) -> list[Path]:
        """The representation of the target set, where one is read."""
        return self._read("validation", half, method) if half.wants_target else []


def _on(half: Method, method: PublishedMethod) -> str | None:
    """The representation that a score or selection is told to run on."""
    return method.main if half.wants_representation or method.main in half.inputs else None


def _write_results(path: Path, results: list[dict[str, Any]]) -> None:
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in results)
    scratch.replace(path)


def summary(report: Report) -> list[dict[str, Any]]:
    """One line for each method and keep: per test and metric, (mean, sample standard deviation) over seeds.

    The deviation is None where there is one seed.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    values: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for result in report.results:
        key = (result["method"], result["keep"])
        lines.setdefault(key, {name: result[name] for name in ("method", "keep", "kept")})
        for metric in _shown(report):
            values.setdefault(key, {}).setdefault((result["test"], metric), []).append(result[metric])
    for key, line in lines.items():
        for (test, metric), found in values[key].items():
            deviation = statistics.stdev(found) if len(found) > 1 else None
            line.setdefault(test, {})[metric] = (statistics.fmean(found), deviation)
    return list(lines.values())


def _shown(report: Report) -> list[str]:
    """The table's metrics: without generated texts there are none of them."""
    return [metric for metric in report.metrics if all(metric in result for result in report.results)]


def describe(report: Report) -> Iterator[list[str]]:
    """The table's cells, head first: a line for each method and keep, mean ± deviation over seeds for each test."""
    tests = list(dict.fromkeys(result["test"] for result in report.results))
    yield ["method", "keep", "rows", *(f"{test} {metric}" for test in tests for metric in _shown(report))]
    for line in summary(report):
        cells = [line["method"], line["keep"], str(line["kept"])]
        for test in tests:
            for metric in _shown(report):
                mean, deviation = line[test][metric]
                cells.append(f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else ""))
        yield cells
