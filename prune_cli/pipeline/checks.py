"""Checks of a pipeline file across its tables."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.published import PublishedMethod
from prune_cli.models import find as models
from prune_cli.models import harness
from prune_cli.options import raise_all
from prune_cli.pipeline import row_checks
from prune_cli.pipeline.attribution import SAYS, predicts
from prune_cli.pipeline.schema import MODELS, VALIDATION, Plan, Reader, value_of
from prune_cli.represent import kinds


def read_plan(file: Path, *, tokenise: bool = False) -> Plan:
    """Read a pipeline file and check all of it, the rows of its data files too.

    tokenise: whether rows go through the tokenizers too, which finds those that do not fit. Raises one PruneError
    that names every mistake.
    """
    reader = Reader(file, read_table(file))
    plan = reader.plan()
    keeps = plan.warmup.keep_checkpoints != "none" and plan.warmup.keep_moments is None
    if keeps and any(_wants_moments(method, plan) for method in plan.methods.values()):
        plan = replace(plan, warmup=replace(plan.warmup, keep_moments=True))
    for mistake in (
        *_budgets(plan),
        *_models(plan, reader),
        *_benchmarks(plan),
        *_representations(plan),
        *_targets(plan),
    ):
        reader.wrong(mistake)
    raise_all(reader.mistakes)
    raise_all(list(row_checks.of_rows(plan, f"{file}: ")))
    if tokenise:
        raise_all(list(row_checks.of_lengths(plan)))
    return plan


def read_table(file: Path) -> dict[str, Any]:
    """The TOML of a pipeline file."""
    try:
        table = tomllib.loads(file.read_text("utf-8"))
        repr(table)  # a hexadecimal number may be too long to be told
        return table
    except OSError as failure:
        raise PruneError(f"{file}: cannot be read ({failure.strerror}); allowed: a TOML file") from failure
    except (ValueError, RecursionError) as failure:
        raise PruneError(f"{file}: broken TOML ({failure})") from failure


def _budgets(plan: Plan) -> Iterator[str]:
    """Whether budgets can be read; how many rows there are is not known yet."""
    for keep in plan.keep:
        try:
            parse_keep(keep, options.MOST)
        except PruneError:
            yield f"keep: {keep}; allowed: a number of rows from 1, or a share such as 0.3 or 30%"


def _models(plan: Plan, reader: Reader) -> Iterator[str]:
    """Whether each model that the file names is there, and can be judged untrained where that is asked for."""
    judged = [entry.name for entry in plan.entries if entry.untrained]
    for name in MODELS:
        if getattr(plan, name) and name in reader.table:
            try:
                named = models.find(getattr(plan, name))
                if name == "model" and judged and not can_be_judged(named, plan.task):
                    yield f"methods: {judged[0]}: {plan.model} has no trained head to judge; leave {judged[0]} out"
            except PruneError as mistake:
                yield f"{name}: {mistake.message}"


def _benchmarks(plan: Plan) -> Iterator[str]:
    """Whether the tasks of lm-eval among the test sets can be asked."""
    if plan.task in tasks.names():
        try:
            harness.digests(harness.asked(plan.tests), plan.eval, tasks.load(plan.task).AUTO_MODEL)
        except PruneError as mistake:
            yield f"tests: {mistake.message}"


def can_be_judged(named: models.NamedModel, task: str) -> bool:
    """Whether a model has all that its task needs before any training; of an unknown task that is not known."""
    return task not in tasks.names() or models.has_head(named, tasks.load(task).AUTO_MODEL)


def _is_headless(model: str, task: str) -> bool:
    """Whether a model lacks a trained head for a task; of one that is not there that is told elsewhere."""
    with suppress(PruneError):
        return not can_be_judged(models.find(model), task)
    return False


def _representations(plan: Plan) -> Iterator[str]:
    """Whether the rows can be represented as the file and its methods ask."""
    yield from _checkpoints("represent", plan.represent.checkpoints, plan.warmup)
    if plan.task not in tasks.names():
        yield f"task: {plan.task}; allowed: {', '.join(tasks.names())}"
        return
    try:
        tasks.format_of(plan.task, plan.reading.format)
    except PruneError as mistake:
        yield mistake.message
    for name in ("warmup", *options.STAGES_ON_DEVICE):
        try:
            tasks.chat_template(plan.task, getattr(plan, name).chat_template)
        except PruneError as mistake:
            yield f"{name}.chat_template: {mistake.message.removeprefix('chat_template: ')}"
    for name in ("warmup", "represent", "finetune", "eval"):
        yield from (f"{name}.{problem}" for problem in options.idle(getattr(plan, name), plan.task))
    asked = sorted({kind for method in plan.methods.values() for kind in method.kinds})
    yield from (f"represent.{problem}" for problem in kinds.of_others(plan.represent.kind_options, asked))
    told, not_offered = False, kinds.OF_TASK - tasks.load(plan.task).OFFERS
    for method in plan.methods.values():
        where = f"methods: {method.name}"
        if "checkpoints" in method.represent_options:
            given = method.represent_options["checkpoints"]
            yield from _checkpoints(f"{where}: represent_options", given, plan.warmup)
        if _wants_moments(method, plan) and (lacking := _lacks_moments(method, plan)):
            yield f"{where}: moments of Adam are needed, and {lacking}"
        unmet = [(kind, need) for kind in method.kinds for need in sorted(kinds.load(kind).needs & not_offered)]
        yield from (f"{where}: {kind}; rows of the task {plan.task} have no {need}" for kind, need in unmet)
        headed = [kind for kind in method.kinds if "head" in kinds.load(kind).needs]
        if method.model and headed and not unmet and _is_headless(plan.reference, plan.task):
            yield f"{where}: {headed[0]}; the reference {plan.reference} has no trained head; leave {method.name} out"
        for kind in method.kinds:
            if not told and (problem := _recorded_problem(kind, method, plan)):
                told = True
                yield problem


def _checkpoints(where: str, wanted: str, warmup: options.Finetune) -> Iterator[str]:
    """Whether the warm-up keeps what is to be represented."""
    kept = math.ceil(warmup.epochs) if not warmup.steps else None
    if wanted in ("all", "last"):
        return
    numbers = [number.strip() for number in wanted.split(",")]
    if not all(number.isdecimal() and len(number) < 6 for number in numbers):
        yield f"{where}.checkpoints: {wanted}; allowed: all, last, or numbers such as 1,3"
    elif kept and any(not 1 <= int(number) <= kept for number in numbers):
        yield f"{where}.checkpoints: {wanted}; the warm-up keeps 1 to {kept}"


def _recorded_problem(kind: str, method: PublishedMethod, plan: Plan) -> str | None:
    """Why what training records of its rows is not what a method needs."""
    _, opts = plan.represented(method, target=False)
    if method.model or kinds.is_free(kind) or kinds.load(kind).walks(kinds.options_of(kind, opts)):
        return None
    if plan.fraction < 1:
        return f"represent.{kind}: recorded; the warm-up trains on a part of the rows, fraction {plan.fraction}"
    if method.reads_target:
        return f"represent.{kind}: recorded; {method.name} needs those of validation, which is not trained on"
    return None


def _wants_moments(method: PublishedMethod, plan: Plan) -> bool:
    """Whether the training rows of a method are represented by steps of Adam, which need its moments."""
    _, opts = plan.represented(method, target=False)
    return any(
        wants(kinds.options_of(kind, opts)) for kind in method.kinds if (wants := kinds.load(kind).wants_moments)
    )


def _lacks_moments(method: PublishedMethod, plan: Plan) -> str:
    """Why no moments are kept where the rows of a method are represented; empty where they are."""
    if method.model:
        return "the reference has none"
    if plan.warmup.keep_checkpoints == "none":
        return "the warm-up keeps none; warmup.keep_checkpoints: none"
    if plan.warmup.keep_moments is False:
        return "the warm-up keeps none; warmup.keep_moments: false"
    if value_of(plan.represented(method, target=False)[1], "checkpoints") == "last":
        return "represent.checkpoints: last has none; allowed: all, or numbers such as 1,3"
    return ""


def _targets(plan: Plan) -> Iterator[str]:
    names = [entry.name for entry in plan.entries if entry.method.wants_target]
    if names and not plan.has_target:
        yield f"validation: missing; it is the target set of {', '.join(names)}"
    if plan.decontaminate and not plan.tests_of_rows and all(name == VALIDATION for name in plan.parts.shares):
        only = "tests: only tasks of lm-eval, which are not compared" if plan.tests else "tests: missing"
        yield f"decontaminate: true; {only}; allowed: with a test set of rows"
    if plan.lds and not any(predicts(method) for method in plan.methods.values()):
        yield f"lds: {plan.lds}; no method has a score that says what {SAYS}, as less has"
