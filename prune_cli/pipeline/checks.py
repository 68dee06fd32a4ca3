"""Checks of a pipeline file across its tables, and of the rows that it names."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli import options, tasks
from prune_cli.data.groups import groups
from prune_cli.data.open import Reading, open_rows
from prune_cli.data.rows import Rows
from prune_cli.data.split import digests
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.contamination import Match, find
from prune_cli.methods.published import PublishedMethod
from prune_cli.models import find as models
from prune_cli.models import harness
from prune_cli.options import raise_all
from prune_cli.pipeline.attribution import SAYS, predicts
from prune_cli.pipeline.schema import MODELS, VALIDATION, Plan, Reader, as_trained, value_of
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
    raise_all(list(_rows(plan, f"{file}: ")))
    if tokenise:
        raise_all(list(_lengths(plan)))
    return plan


def rows_of(plan: Plan) -> dict[str, Rows]:
    """The rows of all data files of a plan, by the name of the file: training rows, target set, test sets."""
    check, reading = tasks.load(plan.task).check, _reading(plan)
    names = [plan.train, *([plan.validation] if plan.validation else []), *plan.tests_of_rows.values()]
    return {name: open_rows(name, reading, check) for name in names}


def _reading(plan: Plan) -> Reading:
    """How rows are read; it names the file of bad rows, which must be none of the data."""
    return replace(tasks.reading_of(plan.task, plan.reading), bad_rows=plan.bad_rows)


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


def n_train(plan: Plan) -> int:
    """How many rows there are to train on, without those that are split off, and corrupted where the file says so."""
    task, reading = tasks.load(plan.task), tasks.reading_of(plan.task, plan.reading)
    rows, own = open_rows(plan.train, reading, task.check), plan.parts.shares
    rest = np.flatnonzero(tasks.parted(task, rows, plan.parts) == len(own)) if own else np.arange(len(rows))
    if plan.decontaminate:
        rest = np.setdiff1d(rest, [match.row for match in contaminated(plan)])
        if not len(rest):
            raise PruneError("decontaminate: every training row stands in a test set; allowed: rows that do not")
    if plan.corruption.idle:
        return len(rest)
    try:
        drawn = plan.corruption.draw(tasks.classes(task, rows)[rest])
        if len(drawn.flipped):
            task.flips(rows, rest[drawn.flipped[:1]], np.random.default_rng(0))  # whether there is another answer
    except PruneError as mistake:
        raise PruneError(f"corrupt: {mistake.message}") from mistake
    return len(drawn)


def contaminated(plan: Plan) -> list[Match]:
    """The training rows that stand in a test set, also in one that is split off them: its own rows too."""
    task, rows, names = tasks.load(plan.task), rows_of(plan), plan.parts.names
    tests: list[Rows | tuple[Rows, np.ndarray]] = [rows[test] for test in plan.tests_of_rows.values()]
    if own := [j for j, name in enumerate(names) if name in plan.parts.shares and name != VALIDATION]:
        part = tasks.parted(task, rows[plan.train], plan.parts)
        tests += [(rows[plan.train], np.flatnonzero(part == j)) for j in own]
    return find(task, rows[plan.train], tests)


def overlap(plan: Plan) -> Iterator[str]:
    """How many training rows, and rows of the target set, have a text that stands in a test set too, in words.

    Of training rows nothing is said where a step leaves them out, which tells them. The rest of a file of which parts
    are split off shares no text with these.
    """
    if not plan.tests_of_rows:
        return
    task, rows = tasks.load(plan.task), rows_of(plan)
    known = {name: digests(tasks.texts(task, rows[test])) for name, test in plan.tests_of_rows.items()}
    train = digests(tasks.texts(task, rows[plan.train]))
    sets = {} if plan.decontaminate else {(plan.train, "training rows"): train}
    told = "decontaminate = true leaves out these and what is nearly so"
    if plan.validation:
        sets[plan.validation, "rows of the target set"] = digests(tasks.texts(task, rows[plan.validation]))
    elif plan.decontaminate and VALIDATION in plan.parts.shares:
        part = tasks.parted(task, rows[plan.train], plan.parts)
        target = train[part == plan.parts.names.index(VALIDATION)]
        sets[plan.train, "rows that are split off as the target set"] = target
    for (file, whose), texts in sets.items():
        shared = {name: np.isin(texts, of_test) for name, of_test in known.items()}
        by_test = [f"{name} {int(found.sum()):,}" for name, found in shared.items() if found.any()]
        if by_test:
            count = f"{int(np.any(list(shared.values()), axis=0).sum()):,} of {len(texts):,}"
            why = told if texts is train else "what is chosen for them is chosen for the test"
            yield f"{file}: {count} {whose} have a text of a test set: {', '.join(by_test)}; {why}"


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


def _landmarks(method: PublishedMethod, plan: Plan) -> Iterator[int]:
    """Of how many rows the kinds of a method are computed, the others being estimated."""
    _, opts = plan.represented(method, target=False)
    for kind in map(kinds.load, method.kinds):
        if kind.landmarks and (drawn := kind.landmarks(kinds.options_of(kind.name, opts))):
            yield drawn[0]


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


def _rows(plan: Plan, file: str) -> Iterator[str]:
    """The data files themselves: every row, every label, every budget."""
    task, reading = tasks.load(plan.task), _reading(plan)
    mistakes: list[str] = []

    def opened(data: str) -> Rows | None:
        try:
            return open_rows(data, reading, task.check)
        except PruneError as mistake:
            mistakes.extend([_with_field(mistake), *mistake.also])
            return None

    train = opened(plan.train)
    own = plan.parts.shares
    validation = opened(plan.validation) if plan.validation else train if VALIDATION in own else None
    others = [validation, *(opened(data) for data in plan.tests_of_rows.values())]
    yield from mistakes
    if validation is not None and any(_reads_target_groups(method) for method in plan.methods.values()):
        try:
            groups(validation)
        except PruneError as mistake:
            yield mistake.message
    if train is None:
        return
    n = len(train)
    try:
        n = n_train(plan)
    except PruneError as mistake:
        yield f"{file}{mistake.message}"
    budgets: dict[int, str] = {}
    for keep in plan.keep:
        try:
            count = parse_keep(keep, n)
            if count == n and plan.removal:
                yield f"{file}removal: keep {keep} is all rows, so that none is left to train on"
            if (same := budgets.setdefault(count, keep)) != keep:
                yield f"{file}keep: {same} and {keep} are both {count:,} of {n:,} rows; allowed: each budget once"
        except PruneError as mistake:
            yield f"{file}{mistake.message}"
    for method in plan.methods.values():
        for count in _landmarks(method, plan):
            if count > n:
                told = f"represent_options.landmarks: {count}; there are {n} rows to train on; allowed: at most as many"
                yield f"{file}methods: {method.name}: {told}"
    labels = task.label_list(train)
    for method in plan.methods.values() if not labels else ():
        if any("label" in half.inputs and "label" not in half.optional for half in method.halves):
            yield f"{file}methods: {method.name}: it reads labels; rows of the task {plan.task} have none; leave it out"
    balanced = {entry.balance_by: entry.name for entry in plan.entries if entry.balance != "none"}
    if "label" in balanced and not labels:
        yield (
            f"{file}methods: {balanced['label']}: rows of the task {plan.task} have no labels to balance by; "
            'allowed: balance_by = "group"'
        )
    lacking = (
        next((i for i, row in enumerate(train) if row.get("group") is None), None) if "group" in balanced else None
    )
    if lacking is not None:
        yield f"{train.where(lacking)}: key group is missing; {balanced['group']} needs it in every row"
    reads_gold = any(_reads_gold_of_target(method) for method in plan.methods.values())
    for rows, who in ((train, "finetune"), *((rows, "eval") for rows in others)):
        try:
            if rows is not None:
                gold = task.label_indices(rows, labels)
                if rows is not validation or reads_gold:
                    tasks.check_gold(rows, gold, who if rows is not validation else "the target set")
        except PruneError as mistake:
            yield _with_field(mistake)


def _with_field(mistake: PruneError) -> str:
    """A mistake in a row, with the field that may mend it."""
    return f"{mistake.message}; {mistake.hint}" if (mistake.hint or "").startswith("--field") else mistake.message


def _reads_gold_of_target(method: PublishedMethod) -> bool:
    """Whether a method needs the gold answers of the target set."""
    return method.reads_target and any("gold" in kinds.load(kind).needs for kind in method.kinds)


def _lengths(plan: Plan) -> Iterator[str]:
    """Rows that do not go through the tokenizer of a model that reads them, such as a response that does not fit."""
    from prune_cli.models.load import load_tokenizer

    task, rows = tasks.load(plan.task), rows_of(plan)
    labels = task.label_list(rows[plan.train])
    represents = [
        name for name in (plan.train, plan.validation) if name and any(m.kinds for m in plan.methods.values())
    ]
    judged, represented = as_trained(plan.eval, plan.finetune), as_trained(plan.represent, plan.warmup)
    # what is read, by which model, with which options
    passes = [(plan.train, plan.model, plan.finetune)]
    drawn = [plan.train] if any(name != VALIDATION for name in plan.parts.shares) else []
    passes += [(name, plan.model, judged) for name in (*plan.tests_of_rows.values(), *drawn)]
    passes += [(name, plan.proxy, represented) for name in represents]
    encodings: dict[tuple[Any, ...], None] = {
        (name, model, opts.max_length, opts.chat_template, *tasks.how_encoded(task, opts).items()): None
        for name, model, opts in passes
    }
    told: set[str] = set()
    for name, model, max_length, template, *how in encodings:
        try:
            tokenizer = load_tokenizer(models.find(model), tasks.chat_template(plan.task, template))
            task.encode(rows[name], tokenizer, max_length, labels, **dict(how))
        except PruneError as mistake:
            if mistake.message not in told:
                told.add(mistake.message)
                hint = (mistake.hint or "").replace("--max-length", "max_length")
                yield mistake.message + (f" ({hint})" if hint else "")


def _reads_target_groups(method: PublishedMethod) -> bool:
    """Whether it matters to a method which groups the rows of the target set are of."""
    return method.represents_target or any("target_group" in half.inputs for half in method.halves)
