"""The methods that a pipeline file chooses: published ones, and its own triples of representation, score, selection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.methods import arguments as inputs
from prune_cli.methods import method as methods
from prune_cli.methods.balance import BALANCED_BY, BALANCES
from prune_cli.methods.method import PublishedMethod


@dataclass(frozen=True)
class Chosen:
    """A method of the plan: a published one or the file's own, and how it is balanced."""

    method: PublishedMethod
    balance: str
    balance_by: str

    @property
    def name(self) -> str:
        """Its name in folders and tables."""
        by = "" if self.balance_by == "label" else f"-{self.balance_by}"
        return self.method.name if self.balance == "none" else f"{self.method.name}-{self.balance}{by}"


_METHOD_KEYS = (
    "name representation model represent_options score score_options select select_options balance balance_by"
).split()


def read_method(entry: str | dict[str, Any]) -> Chosen:
    """A method of the file: the name of a published one, {recipe, balance, balance_by}, or its own triple."""
    if isinstance(entry, str):
        return Chosen(methods.find_published(entry), "none", "label")
    rest = dict(entry)
    balance, by = rest.pop("balance", "none"), rest.pop("balance_by", "label")
    for key, value, allowed in (("balance", balance, BALANCES), ("balance_by", by, BALANCED_BY)):
        if value not in allowed:
            raise PruneError(f"{key}: {options.shown(value)}; allowed: {', '.join(allowed)}")
    if balance == "none" and "balance_by" in entry:
        raise PruneError(f"balance_by: {options.shown(by)}; without a balance there is nothing to go by")
    if "recipe" in rest:
        method = methods.find_published(str(rest.pop("recipe")))
        if rest:
            raise PruneError(f"{', '.join(rest)}: unknown beside recipe; allowed: balance, balance_by")
        return Chosen(method, balance, by)
    tables = {key: rest.pop(key, {}) for key in _METHOD_KEYS if key.endswith("_options")}
    texts = {key: rest.pop(key, "none") for key in ("name", "representation", "score", "select")}
    model = rest.pop("model", None)
    if rest:
        raise PruneError(f"{', '.join(rest)}: unknown; allowed: recipe, or {', '.join(_METHOD_KEYS)}")
    for key, value in texts.items():
        if not isinstance(value, str) or (key in ("name", "select") and value == "none"):
            raise PruneError(f"{key}: {options.shown(value)}; a string is needed in {options.shown(entry)}")
    if not texts["name"].replace("-", "").replace("_", "").isalnum():
        raise PruneError(f"name: {texts['name']}; letters, digits, - and _ are allowed, as it names a folder")
    if texts["name"] in methods.published():
        raise PruneError(f"name: {texts['name']}; that is a published method's, another is needed")
    if model not in (None, "reference"):
        raise PruneError(
            f"{texts['name']}: model: {options.shown(model)}; allowed: reference, or none for the one warmed up"
        )
    for key, table in tables.items():
        if not isinstance(table, dict):
            raise PruneError(f"{texts['name']}: {key}: {options.shown(table)}; a table is needed, such as {{k = 3}}")
    texts["representation"] = ",".join(kind.strip() for kind in texts["representation"].split(","))
    method = PublishedMethod(**texts, **tables, model=model, objective="own", source="")
    _check_representation(method)
    _check_halves(method)
    return Chosen(method, balance, by)


def _check_representation(method: PublishedMethod) -> None:
    """Whether what a method of the file says of its representation makes sense."""
    name = method.name
    if any(kind not in inputs.KINDS for kind in method.kinds) or len(set(method.kinds)) < len(method.kinds):
        allowed = f"none, {', '.join(inputs.KINDS)}, or several with commas"
        raise PruneError(f"representation: {method.representation}; allowed: {allowed}")
    if not method.kinds and method.model:
        raise PruneError(f"{name}: model without a representation")
    if problems := check_represent_options(method, method.represent_options):
        raise PruneError(f"{name}: represent_options.{problems[0]}")


def check_represent_options(method: PublishedMethod, given: Mapping[str, Any]) -> list[str]:
    """What is wrong with a method's options of `represent`: only those that have a say in its kinds are allowed."""
    idle = {"dynamics"} | ({"checkpoints"} if method.model else set())  # what is recorded is the file's to say
    said = {"checkpoints", "dtype"}.union(*(options.of_kind(kind, options.Represent("")) for kind in method.kinds))
    known = {key: kind for key, (kind, _) in options.described(options.Represent).items() if key in said - idle}
    return options.typed(given, known if method.kinds else {})[1]


def _check_halves(method: PublishedMethod) -> None:
    """Whether the representation, score and selection of a method of the file go together."""
    name = method.name
    for stage in ("score", "select"):
        half, values = getattr(method, stage), getattr(method, f"{stage}_options")
        if half == "none":
            if values:
                raise PruneError(f"{name}: {stage}_options without a {stage}")
            continue
        loaded = methods.load(stage, half, method.main)
        methods.parse_options(loaded, values)
        if loaded.wants_representation and not method.kinds:
            raise PruneError(f"{name}: {stage} {half} needs a representation")
        for kind in inputs.kinds_named(loaded.inputs):
            if kind not in method.kinds:
                raise PruneError(f"{name}: {stage} {half} needs the representation {kind}")
    reads = "score" in methods.load("select", method.select).inputs
    if reads != (method.score != "none"):
        problem = "needs a score" if reads else f"reads no score; leave {method.score} out"
        raise PruneError(f"{name}: select {method.select} {problem}")
