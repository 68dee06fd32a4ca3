"""The rows that a pipeline file names: read, counted, and checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from prune_cli import tasks
from prune_cli.data.groups import groups
from prune_cli.data.open import Reading, open_rows
from prune_cli.data.rows import Rows
from prune_cli.data.split import digests
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.contamination import Match, find
from prune_cli.methods.published import PublishedMethod
from prune_cli.models import find as models
from prune_cli.pipeline.schema import VALIDATION, Plan, as_trained
from prune_cli.represent import kinds


def rows_of(plan: Plan) -> dict[str, Rows]:
    """The rows of all data files of a plan, by the name of the file: training rows, target set, test sets."""
    check, reading = tasks.load(plan.task).check, _reading(plan)
    names = [plan.train, *([plan.validation] if plan.validation else []), *plan.tests_of_rows.values()]
    return {name: open_rows(name, reading, check) for name in names}


def _reading(plan: Plan) -> Reading:
    """How rows are read; it names the file of bad rows, which must be none of the data."""
    return replace(tasks.reading_of(plan.task, plan.reading), bad_rows=plan.bad_rows)


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


def of_rows(plan: Plan, file: str) -> Iterator[str]:
    """What is wrong with the data files: every row, every label, every budget. file: what is put before the last."""
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
    tests = [opened(data) for data in plan.tests_of_rows.values()]
    yield from mistakes
    if validation is not None:
        yield from _target_groups(plan, validation)
    if train is None:
        return
    n = len(train)
    try:
        n = n_train(plan)
    except PruneError as mistake:
        yield f"{file}{mistake.message}"
    yield from (f"{file}{told}" for told in (*_counts(plan, n), *_labels(plan, task.label_list(train))))
    yield from _balanced_groups(plan, train)
    reads_gold = any(_reads_gold_of_target(method) for method in plan.methods.values())
    yield from _gold(plan, train, "finetune", train)
    for rows in tests:
        yield from _gold(plan, rows, "eval", train)
    if validation is not train:
        yield from _gold(plan, validation, "the target set" if reads_gold else None, train)


def _target_groups(plan: Plan, validation: Rows) -> Iterator[str]:
    """Whether all rows of the target set have a group or none has, where it matters to a method."""
    if any(
        m.represents_target or any("target_group" in half.inputs for half in m.halves) for m in plan.methods.values()
    ):
        try:
            groups(validation)
        except PruneError as mistake:
            yield mistake.message


def _counts(plan: Plan, n: int) -> Iterator[str]:
    """Budgets, and other numbers of rows, of n rows to train on."""
    budgets: dict[int, str] = {}
    for keep in plan.keep:
        try:
            count = parse_keep(keep, n)
        except PruneError as mistake:
            yield mistake.message
            continue
        if count == n and plan.removal:
            yield f"removal: keep {keep} is all rows, so that none is left to train on"
        if (same := budgets.setdefault(count, keep)) != keep:
            yield f"keep: {same} and {keep} are both {count:,} of {n:,} rows; allowed: each budget once"
    for method in plan.methods.values():
        for count in _landmarks(method, plan):
            if count > n:
                told = f"represent_options.landmarks: {count}; there are {n} rows to train on; allowed: at most as many"
                yield f"methods: {method.name}: {told}"


def _labels(plan: Plan, labels: list[Any]) -> Iterator[str]:
    """Whether there are labels where methods read them, or balance by them."""
    if labels:
        return
    for method in plan.methods.values():
        if any("label" in half.inputs and "label" not in half.optional for half in method.halves):
            yield f"methods: {method.name}: it reads labels; rows of the task {plan.task} have none; leave it out"
    for entry in plan.entries:
        if entry.balance != "none" and entry.balance_by == "label":
            yield (
                f"methods: {entry.name}: rows of the task {plan.task} have no labels to balance by; "
                'allowed: balance_by = "group"'
            )
            return


def _balanced_groups(plan: Plan, train: Rows) -> Iterator[str]:
    """Whether every row has a group where methods balance by it."""
    balanced = [entry.name for entry in plan.entries if entry.balance != "none" and entry.balance_by == "group"]
    lacking = next((i for i, row in enumerate(train) if row.get("group") is None), None) if balanced else None
    if lacking is not None:
        yield f"{train.where(lacking)}: key group is missing; {balanced[-1]} needs it in every row"


def _gold(plan: Plan, rows: Rows | None, who: str | None, train: Rows) -> Iterator[str]:
    """Labels that the training rows have not, and rows without one; who: what needs one in every row, if anything."""
    task = tasks.load(plan.task)
    try:
        if rows is not None:
            gold = task.label_indices(rows, task.label_list(train))
            if who:
                tasks.check_gold(rows, gold, who)
    except PruneError as mistake:
        yield _with_field(mistake)


def _landmarks(method: PublishedMethod, plan: Plan) -> Iterator[int]:
    """Of how many rows the kinds of a method are computed, the others being estimated."""
    _, opts = plan.represented(method, target=False)
    for kind in map(kinds.load, method.kinds):
        if kind.landmarks and (drawn := kind.landmarks(kinds.options_of(kind.name, opts))):
            yield drawn[0]


def _with_field(mistake: PruneError) -> str:
    """A mistake in a row, with the field that may mend it."""
    return f"{mistake.message}; {mistake.hint}" if (mistake.hint or "").startswith("--field") else mistake.message


def _reads_gold_of_target(method: PublishedMethod) -> bool:
    """Whether a method needs the gold answers of the target set."""
    return method.reads_target and any("gold" in kinds.load(kind).needs for kind in method.kinds)


def of_lengths(plan: Plan) -> Iterator[str]:
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
