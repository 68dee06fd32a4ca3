"""The methods that a pipeline file names: published ones, and its own of representation, score and selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods import published
from prune_cli.methods.published import NONE, PublishedMethod
from prune_cli.options import shown
from prune_cli.represent import kinds

OPTION_TABLES = ("represent_options", "score_options", "select_options")
TEXTS = ("name", "representation", "score", "select")
OWN = (*TEXTS, "model", *OPTION_TABLES)
BALANCE = ("balance", "balance_by")


@dataclass(frozen=True)
class Entry:
    """A method of the plan: a published one or the file's own, and how it is balanced."""

    method: PublishedMethod
    balance: str = "none"
    balance_by: str = "label"

    @property
    def untrained(self) -> bool:
        """Whether it is the model as it is, which no row is selected for."""
        return self.method.select == NONE

    @property
    def name(self) -> str:
        """Its name in folders and tables."""
        by = "" if self.balance_by == "label" else f"-{self.balance_by}"
        return self.method.name if self.balance == "none" else f"{self.method.name}-{self.balance}{by}"


def read_entry(entry: str | dict[str, Any], folder: Path) -> Entry:
    """A method of the file: the name of a published one, {method, balance, balance_by}, or one of the file's own.

    {method, name, …} is the published one under a name of its own, with options of its stages in place of its own.

    Paths of a user's own functions are relative to `folder`.
    """
    if isinstance(entry, str):
        return named(entry)
    balance = {key: entry[key] for key in BALANCE if key in entry}
    rest = {key: value for key, value in entry.items() if key not in BALANCE}
    known = options.declared(options.Select)
    values, problems = options.checked({key: known[key] for key in BALANCE}, balance)
    if problems:
        raise PruneError(problems[0])
    if "balance_by" in values and values.get("balance", "none") == "none":
        raise PruneError(f"balance_by: {values['balance_by']}; allowed only with a balance")
    if "method" in rest:
        method = published.find_published(str(rest.pop("method")))
        made = Entry(_varied(method, rest, folder) if rest else method, **values)
        if made.untrained and made.balance != "none":
            raise PruneError(f"balance: {made.balance}; {method.name} selects no rows; leave it out")
        return made
    return Entry(_own(rest, folder), **values)


def named(name: str) -> Entry:
    """A published method by its name, or as tables call it when it is balanced: less-keep, less-equal-group."""
    for method in published.published().values():
        if method.select == NONE:
            continue
        for balance, by in product(("keep", "equal"), ("label", "group")):
            if Entry(method, balance, by).name == name:
                return Entry(method, balance, by)
    return Entry(published.find_published(name))


def _varied(method: PublishedMethod, changes: Mapping[str, Any], folder: Path) -> PublishedMethod:
    """A published method under another name, with other options of its stages."""
    allowed = ("name", *OPTION_TABLES)
    if unknown := [key for key in changes if key not in allowed]:
        raise PruneError(f"{', '.join(unknown)}: unknown beside method; allowed: {', '.join((*allowed, *BALANCE))}")
    if method.select == NONE or method.keep:
        raise PruneError(f"{', '.join(changes)}: unknown beside method {method.name}, which has no options")
    if not isinstance(changes.get("name"), str):
        given = shown(changes["name"]) if "name" in changes else "missing"
        raise PruneError(f"name: {given}; allowed: a name for {method.name} with options of its own, beside method")
    whole = {key: getattr(method, key) for key in ("representation", "score", "select", "model")}
    tables = {key: getattr(method, key) for key in OPTION_TABLES}
    own = {key: value for key, value in whole.items() if value not in (None, NONE)}
    for key, table in tables.items():
        change = changes.get(key, {})
        own[key] = {**table, **change} if isinstance(change, dict) else change
    made = _own({**own, "name": changes["name"]}, folder)
    return replace(made, objective=method.objective, source=method.source)


def _own(entry: Mapping[str, Any], folder: Path) -> PublishedMethod:
    """A method of the file's own, checked as far as one method alone can be."""
    if unknown := [key for key in entry if key not in OWN]:
        raise PruneError(f"{', '.join(unknown)}: unknown; allowed: method, or {', '.join((*OWN, *BALANCE))}")
    texts = {key: entry.get(key, NONE) for key in TEXTS}
    tables = {key: entry.get(key, {}) for key in OPTION_TABLES}
    model = entry.get("model")
    for key, value in texts.items():
        if not isinstance(value, str) or (key in ("name", "select") and value == NONE):
            raise PruneError(f"{key}: {shown(value)}; allowed: text, in {shown(dict(entry))}")
    name = texts["name"]
    if not name.replace("-", "").replace("_", "").isalnum():
        raise PruneError(f"name: {name}; allowed: letters, digits, - and _, as it names a folder")
    if _is_published(name):
        raise PruneError(f"name: {name}; allowed: a name that no published method has, balanced or not")
    if model not in (None, "reference"):
        raise PruneError(f"{name}: model: {shown(model)}; allowed: reference, or none for the one after the warm-up")
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise PruneError(f"{name}: {key}: {shown(table)}; allowed: a table, such as {{k = 3}}")
    for stage in methods.STAGES:
        if methods.is_file(texts[stage]):
            texts[stage] = str(folder / texts[stage])
    texts["representation"] = ",".join(kind.strip() for kind in texts["representation"].split(","))
    method = PublishedMethod(**texts, **tables, model=model, objective="own", source="")
    method = _with_representation_checked(method)
    _check_halves(method)
    return method


def _is_published(name: str) -> bool:
    try:
        named(name)
    except PruneError:
        return False
    return True


def _with_representation_checked(method: PublishedMethod) -> PublishedMethod:
    """The method with its options of `represent` as values of their types."""
    if any(kind not in kinds.names() for kind in method.kinds) or len(set(method.kinds)) < len(method.kinds):
        allowed = f"{NONE}, {', '.join(kinds.names())}, or several with commas"
        raise PruneError(f"representation: {method.representation}; allowed: {allowed}")
    if not method.kinds and method.model:
        raise PruneError(f"{method.name}: model without a representation")
    values, problems = options.checked(represent_options(method), method.represent_options)
    if problems:
        raise PruneError(f"{method.name}: represent_options.{problems[0]}")
    return replace(method, represent_options=values)


def represent_options(method: PublishedMethod) -> dict[str, options.Option]:
    """The options of `represent` that a method may set: those of its kinds, and which checkpoints are taken."""
    if not method.kinds:
        return {}
    own = {} if method.model else {"checkpoints": options.declared(options.Represent)["checkpoints"]}
    return own | {
        name: option for name, option in kinds.options().items() if set(kinds.users(name)) & set(method.kinds)
    }


def _check_halves(method: PublishedMethod) -> None:
    """Whether the representation, score and selection of a method go together."""
    name = method.name
    for stage in methods.STAGES:
        half, values = getattr(method, stage), getattr(method, f"{stage}_options")
        if half == NONE:
            if values:
                raise PruneError(f"{name}: {stage}_options without a {stage}")
            continue
        loaded = methods.load(stage, half, method.on)
        methods.parse_options(loaded, values)
        if "scores" in loaded.inputs:
            raise PruneError(f"{name}: {stage} {half} reads several scores; a pipeline gives one")
        if loaded.wants_representation and not method.kinds:
            raise PruneError(f"{name}: {stage} {half} needs a representation")
        for kind in kinds_read(loaded):
            if kind not in method.kinds:
                raise PruneError(f"{name}: {stage} {half} needs the representation {kind}")
    reads = "score" in methods.load("select", method.select).inputs
    if reads != (method.score != NONE):
        problem = "needs a score" if reads else f"reads no score; leave {method.score} out"
        raise PruneError(f"{name}: select {method.select} {problem}")


def kinds_read(half: methods.Method) -> list[str]:
    """The kinds whose tensors a score or selection reads by name, those of the target set too."""
    bare = [name.removeprefix("target_") for name in half.inputs]
    return sorted({kind for name in bare if (kind := kinds.kind_of(name))})
