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
from pathlib import Path
from typing import Any

from prune_cli import artifact, inputs, methods, options, stages
from prune_cli.plan import Chosen, Plan, read_plan
from prune_cli.stages import How, Outcome

METRICS = ("accuracy", "macro_f1")  # of metrics.json, those in the table


@dataclass
class Report:
    """What a run of the pipeline came to: each step's outcome; the table's lines."""

    out: Path
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
        self.report = Report(out)
        self.done: set[Path] = set()
        self.would: set[Path] = set()
        self.represented: dict[str, list[Path]] = {}

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
        """What all methods share: warm-up training, representations of the training rows and of the target set."""
        plan = self.plan
        kinds = {c.method.representation for c in plan.chosen} - {"none"}
        aimed = {c.method.representation for c in plan.chosen if c.method.wants_target}
        if not kinds:
            return
        warmup = self.step(
            "warmup",
            self.out / "warmup",
            [],
            lambda: stages.finetune(plan.train, self.out / "warmup", plan.warmup, plan.fields, self.how),
        )
        self.represent("train", plan.train, kinds, warmup)
        if aimed:
            assert plan.validation is not None
            self.represent("validation", plan.validation, aimed, warmup)

    def represent(self, name: str, data: str, kinds: set[str], warmup: Path) -> None:
        """Have every kind represented: what earlier runs left is used, what is missing is made in one pass."""
        folder = self.out / "represent" / name
        opts = replace(self.plan.represent, model=str(warmup))
        missing, stale = set(kinds), []
        for found in sorted(folder.iterdir()) if folder.is_dir() else []:
            held = set(found.name.split("+"))
            if not held <= set(inputs.KINDS) or not artifact.is_artifact(found) or not held & missing:
                continue
            if warmup in self.would or not self._is_current(data, found, replace(opts, kind=",".join(held))):
                stale.append(found)
                continue
            self.note(f"represent {name} {found.name}", Outcome(found, "represent", "current"))
            self.represented.setdefault(name, []).append(found)
            missing -= held
        if not missing:
            return
        out = folder / "+".join(sorted(missing))
        wanted = replace(opts, kind=",".join(sorted(missing)))
        self.step(
            f"represent {name} {out.name}",
            out,
            [warmup],
            lambda: stages.represent(data, out, wanted, self.plan.fields, self.how),
        )
        self.represented.setdefault(name, []).append(out)
        if not self.how.dry_run:
            for path in stale:
                if path != out:
                    shutil.rmtree(path)

    def _is_current(self, data: str, out: Path, opts: options.Represent) -> bool:
        looked = stages.represent(data, out, opts, self.plan.fields, replace(self.how, dry_run=True))
        return looked.state == "current"

    def run(self, chosen: Chosen, keep: str, seed: int) -> None:
        """Score, select, fine-tune and evaluate for one method, budget and seed."""
        plan, method = self.plan, chosen.method
        folder = self.out / "methods" / chosen.name
        label = f"{chosen.name} keep {keep} seed {seed}"
        selector = methods.load("select", method.select)
        sources: list[Path] = []
        random = "rng" in selector.inputs
        on = method.representation if method.representation != "none" else None
        if method.score != "none":
            scorer = methods.load("score", method.score)
            seeded = "rng" in scorer.inputs
            random = random or seeded
            scored = self.out / "score" / (f"{method.name}-seed-{seed}" if seeded else method.name)
            needs = [self._holding("train", on)] if on else []
            target = self._holding("validation", on) if on and scorer.wants_target else None
            self.step(
                f"score {method.name}" + (f" seed {seed}" if seeded else ""),
                scored,
                [*needs, *([target] if target else [])],
                lambda: stages.score(
                    [str(path) for path in needs] or [plan.train],
                    scored,
                    method.score,
                    on=on if scorer.wants_representation else None,
                    target=str(target) if target else None,
                    set_options=method.score_options,
                    seed=seed,
                    fields=plan.fields,
                    how=self.how,
                ),
            )
            sources.append(scored)
        if on and selector.wants_representation:
            sources.append(self._holding("train", on))
        budget = folder / f"keep-{keep}"
        trial = budget / f"seed-{seed}"
        selected = trial / "select" if random else budget / "select"
        self.step(
            f"select {label}" if random else f"select {chosen.name} keep {keep}",
            selected,
            sources,
            lambda: stages.select(
                [str(path) for path in sources] or [plan.train],
                selected,
                method.select,
                keep=keep,
                balance=chosen.balance,
                on=on if selector.wants_representation else None,
                target=None,
                set_options=method.select_options,
                seed=seed,
                fields=plan.fields,
                how=self.how,
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

    def _holding(self, name: str, kind: str) -> Path:
        """The representation of a file that has a kind; `prepare` has made every one that a method wants."""
        return next(path for path in self.represented[name] if kind in path.name.split("+"))


def _write_results(path: Path, results: list[dict[str, Any]]) -> None:
    scratch = path.with_name(path.name + ".tmp")
    with scratch.open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in results)
    scratch.replace(path)


def summary(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for each method and keep: per test and metric, (mean, sample standard deviation) over seeds.

    The deviation is None where there is one seed.
    """
    lines: dict[tuple[str, str], dict[str, Any]] = {}
    values: dict[tuple[str, str], dict[tuple[str, str], list[float]]] = {}
    for result in results:
        key = (result["method"], result["keep"])
        lines.setdefault(key, {name: result[name] for name in ("method", "keep", "kept")})
        for metric in METRICS:
            values.setdefault(key, {}).setdefault((result["test"], metric), []).append(result[metric])
    for key, line in lines.items():
        for (test, metric), found in values[key].items():
            deviation = statistics.stdev(found) if len(found) > 1 else None
            line.setdefault(test, {})[metric] = (statistics.fmean(found), deviation)
    return list(lines.values())


def describe(results: list[dict[str, Any]]) -> Iterator[list[str]]:
    """The table's cells, head first: a line for each method and keep, mean ± deviation over seeds for each test."""
    lines = summary(results)
    tests = list(dict.fromkeys(result["test"] for result in results))
    yield ["method", "keep", "rows", *(f"{test} {metric}" for test in tests for metric in METRICS)]
    for line in lines:
        cells = [line["method"], line["keep"], str(line["kept"])]
        for test in tests:
            for metric in METRICS:
                mean, deviation = line[test][metric]
                cells.append(f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else ""))
        yield cells
