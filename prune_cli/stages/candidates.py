"""Which rows `select` may keep: those of an earlier selection, in no test set, and not too long for a model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.artifacts.code import digest_of_module
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.artifacts.manifest import Artifact
from prune_cli.data.open import WHY, Reading, open_rows
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.methods import contamination
from prune_cli.methods.inputs import Inputs, kept_in, selection_of
from prune_cli.models import find
from prune_cli.runtime.progress import note
from prune_cli.stages.common import task_code, template_digest

CODE = ("prune_cli.methods.contamination", "prune_cli.numeric")
CONTAMINATED = "contaminated.jsonl"
TOO_LONG = "too_long.jsonl"


@dataclass(frozen=True)
class Fits:
    """The model that rows must not be too long for, the most tokens of an example, a template in place of its own.

    loss_on: which turns are trained on.
    """

    named: find.NamedModel
    max_length: int
    template: str | None
    loss_on: str


@dataclass(frozen=True)
class Candidates:
    """What decides which rows may be kept, and how it stands in a recipe."""

    earlier: Artifact | None
    tests: Mapping[str, Rows]  # by the place that they are at
    fits: Fits | None
    options: Mapping[str, Any] = field(default_factory=dict)
    digests: Mapping[str, str] = field(default_factory=dict)
    code: Mapping[str, str] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict)


def opened(given: Inputs, opts: options.Select, reading: Reading) -> Candidates:
    """Open what decides which rows may be kept. Raises PruneError for options that have no say."""
    if opts.fits:
        options.raise_all(options.idle(opts, given.task_name))
    else:
        for name in ("max_length", "chat_template", "loss_on"):
            if getattr(opts, name) != options.declared(options.Select)[name].default:
                raise PruneError(f"{name}: {getattr(opts, name)}; allowed only with fits", hint="--fits MODEL")
    earlier = selection_of(opts.within, given.digest, given.place) if opts.within else None
    as_tests = tasks.reading_of(given.task_name, reading)
    tests = {place: open_rows(place, as_tests, given.task.check) for place in opts.decontaminate}
    fits = _fits(opts, given.task_name) if opts.fits else None
    digests = {"within": earlier.files[WHY]} if earlier else {}
    digests |= {f"test rows {j + 1}": rows.digest for j, rows in enumerate(tests.values())}
    places = {"within": opts.within} if opts.within else {}
    places |= {f"test {j + 1}": place for j, place in enumerate(tests)}
    code = {"decontaminate": digest_of_module(contamination.__name__, CODE)} if tests else {}
    if fits:
        digests |= {"model": fits.named.digest, **template_digest(fits.template)}
        places |= {"model": fits.named.name}
        code |= task_code(given.task_name)
    decided = {"max_length": fits.max_length, "loss_on": fits.loss_on} if fits else {}
    return Candidates(earlier, tests, fits, decided, digests, code, places)


def _fits(opts: options.Select, task: str) -> Fits:
    assert opts.fits
    named = find.find(opts.fits)
    length, template = opts.max_length or find.max_length(named), tasks.chat_template(task, opts.chat_template)
    return Fits(named, length, template, find.loss_on(named, opts.loss_on))


def left_out(given: Inputs, may: Candidates, folder: Path) -> tuple[list[str | None], list[str], dict[str, str]]:
    """For each row the option by which it may not be kept, empty where all may; what to warn of; facts to keep.

    Files in the folder name the rows. `contaminated.jsonl`, those that stand in a test set: {"id", "where", "test",
    "test_id", "why"}, the last but one the test row's id, and `test` the place of it. `too_long.jsonl`, those that the
    model has no room for: {"id", "where", "tokens"}, the tokens of the response. Facts are {"fits"}: which model, and
    how many tokens.
    """
    why: list[str | None] = []
    if may.earlier:
        why = [None if inside else "within" for inside in kept_in(may.earlier).tolist()]
    if not (may.tests or may.fits):
        return why, [], {}
    why = why or [None] * len(given.rows)
    told, facts = [], dict[str, str]()
    if may.tests:
        told += _decontaminate(given, may.tests, why, folder)
    if may.fits:
        more, facts["fits"] = _too_long(given, may.fits, why, folder)
        told += more
    if all(why):
        counted = ", ".join(f"{option} {why.count(option):,}" for option in dict.fromkeys(why))
        raise PruneError(f"no row may be kept; left out by {counted}; allowed: options that leave a row to keep")
    return why, told, facts


def _decontaminate(given: Inputs, tests: Mapping[str, Rows], why: list[str | None], folder: Path) -> list[str]:
    rows, sets = given.rows, list(tests.values())
    found = contamination.find(given.task, rows, sets)
    for match in found:
        why[match.row] = "decontaminate"
    named: dict[str, list[Any]] = {
        "id": [rows.ids[match.row] for match in found],
        "where": [rows.where(match.row) for match in found],
        "test": [sets[match.test].where(match.test_row) for match in found],
        "test_id": [sets[match.test].ids[match.test_row] for match in found],
        "why": [match.why for match in found],
    }
    write_columns(folder / CONTAMINATED, named)
    if not found:
        note(f"decontaminate: none of {len(rows):,} rows stands in a test set")
    return contamination.told(found, list(tests), len(rows))


def _too_long(given: Inputs, fits: Fits, why: list[str | None], folder: Path) -> tuple[list[str], str]:
    from prune_cli.models.load import load_tokenizer  # torch, which no other selection needs

    rows, tokenizer = given.rows, load_tokenizer(fits.named, fits.template)
    found = given.task.too_long(rows, tokenizer, fits.max_length, **tasks.how_encoded(given.task, fits))
    for i in found:
        why[i] = "fits"
    named: dict[str, list[Any]] = {
        "id": [rows.ids[i] for i in found],
        "where": [rows.where(i) for i in found],
        "tokens": list(found.values()),
    }
    write_columns(folder / TOO_LONG, named)
    limit = f"{fits.named.name}, {min(fits.max_length, tokenizer.model_max_length):,} tokens"
    if found:
        return [f"{len(found):,} of {len(rows):,} rows are too long for {limit}, and may not be kept"], limit
    note(f"fits: none of {len(rows):,} rows is too long for {limit}")
    return [], limit
