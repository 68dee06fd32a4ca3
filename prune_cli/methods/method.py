"""Methods: a method is a file. Find it, load it, and read from its signature what it needs.

`score/less.py` is the score `less`, its function `score`; `select/kmeans.py` is the selection `kmeans`, its
function `select`. Files that start with `_` are helpers. In the signature

    def select(features, n_keep, rng, *, k=100): ...

the arguments before `*` are inputs asked for by name (a default of None makes one optional), and those after
it are options: the default gives an option its type, and a number its sign (above 0 where the default is, 0
or more where the default is 0). For kinds of representation that bring other inputs a file may hold other forms
of its function, `FORMS = {"influence": score_influence}`. The first line of the file's docstring says what the
method is, its line `Higher:` what a high score means, and its line `Source:` where the method comes from.

Published methods, each a representation and a selection over it, stand in `recipes.toml`.
"""

from __future__ import annotations

import difflib
import inspect
import math
import pkgutil
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module, resources
from pathlib import Path
from typing import Any

from prune_cli.artifacts.manifest import digest_file, digest_value
from prune_cli.errors import PruneError


@dataclass(frozen=True)
class Method:
    """A score or a selection, ready to be called."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]  # all that it asks for, the optional ones too
    optional: tuple[str, ...]
    options: dict[str, Any]  # name -> default
    doc: str  # the file's docstring
    code: str  # sha256 over the file and the helpers of scores and selections

    @property
    def summary(self) -> str:
        """What it is in one line, and of a score what higher means."""
        lines = self.doc.splitlines()
        return " ".join([lines[0], *(line for line in lines if line.startswith("Higher:"))])

    @property
    def wants_target(self) -> bool:
        """Whether it compares the rows with a target set."""
        return any(name.startswith("target_") for name in self.inputs if name not in self.optional)

    @property
    def wants_representation(self) -> bool:
        """Whether it runs on a representation of the user's choice."""
        return bool({"features", "trajectory"} & set(self.inputs))


def names(stage: str) -> list[str]:
    """All methods of a stage (score or select), in order of name; none is imported."""
    package = import_module(f"prune_cli.{stage}")
    return sorted(found.name for found in pkgutil.iter_modules(package.__path__) if found.name[0] != "_")


def load(stage: str, name: str, kind: str | None = None) -> Method:
    """The method of that name, with dashes or underscores, in its form for a kind of representation.

    Raises PruneError if there is none.
    """
    stem = _look_up(f"{stage} method", name.replace("-", "_"), names(stage))
    module = import_module(f"prune_cli.{stage}.{stem}")
    function = getattr(module, "FORMS", {}).get(kind, getattr(module, stage))
    parameters = inspect.signature(function).parameters.values()
    asked = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return Method(
        name=stem,
        function=function,
        inputs=tuple(p.name for p in asked),
        optional=tuple(p.name for p in asked if p.default is None),
        options={p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY},
        doc=inspect.getdoc(module) or "",
        code=_code(Path(module.__file__ or "")),
    )


def _code(file: Path) -> str:
    """sha256 (hex) over a method's file and the helpers of both stages: a selection may use those of scores."""
    helpers = {f"{stage}/{path.name}": path for stage in ("score", "select") for path in _folder(stage).glob("_*.py")}
    return digest_value({name: digest_file(path) for name, path in {**helpers, "": file}.items()})


def _folder(stage: str) -> Path:
    return Path(import_module(f"prune_cli.{stage}").__file__ or "").parent


def parse_options(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method: those given, as strings or as values of their type, else the defaults."""
    values = dict(method.options)
    for key, value in given.items():
        name = key.replace("-", "_")
        if name not in values:
            raise PruneError(f"{method.name}: no option {key}; allowed: {', '.join(values) or 'no options'}")
        values[name] = _parse(key, value, method.options[name])
    return values


def _parse(key: str, value: Any, default: Any) -> Any:
    """An option's value as the type of its default."""
    kind = type(default)
    parsed = value
    if isinstance(value, str) and kind is not str:
        try:
            parsed = {"true": True, "false": False}[value.lower()] if kind is bool else kind(value)
        except (KeyError, ValueError):
            parsed = None
    elif kind is float and type(value) is int:
        parsed = float(value)
    fits = type(parsed) is kind
    allowed = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}[kind]
    if kind in (int, float) and default >= 0:
        fits = fits and parsed < math.inf and (parsed > 0 or parsed == default == 0)
        allowed += " above 0" if default > 0 else ", 0 or more"
    if not fits:
        raise PruneError(f"{key}: {value}; allowed: {allowed}")
    return parsed


@dataclass(frozen=True)
class PublishedMethod:
    """A method as published: a representation, and a selection over it."""

    name: str
    representation: str  # a kind, several with commas (the first is the one that features are of), or none
    score: str  # name of the score method, or none where the selection reads no score
    select: str  # name of the select method
    objective: str  # difficulty, diversity, relevance or baseline
    source: str
    keep: str | None = None  # what it keeps where that is part of the method, whatever the budget
    model: str | None = None  # reference: represented with that model as it is; else with one after a warm-up
    represent_options: dict[str, Any] = field(default_factory=dict)
    score_options: dict[str, Any] = field(default_factory=dict)
    select_options: dict[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kinds of its representation."""
        return tuple(self.representation.split(",")) if self.representation != "none" else ()

    @property
    def main(self) -> str | None:
        """The kind that features are of."""
        return self.kinds[0] if self.kinds else None

    @property
    def halves(self) -> list[Method]:
        """The score, where it has one, and the selection, loaded."""
        names = {"score": self.score, "select": self.select}
        return [load(stage, name, self.main) for stage, name in names.items() if name != "none"]

    @property
    def reads_target(self) -> bool:
        """Whether one of them compares the rows with a target set's representation."""
        return any(half.wants_target for half in self.halves)

    @property
    def wants_target(self) -> bool:
        """Whether a target set is needed, for that or to represent the rows."""
        return "influence" in self.kinds or self.reads_target


@cache
def published() -> dict[str, PublishedMethod]:
    """All published methods by name, in the order of `recipes.toml`."""
    text = resources.files("prune_cli.methods").joinpath("published.toml").read_text("utf-8")
    return {name: PublishedMethod(name, **table) for name, table in tomllib.loads(text).items()}


def find_published(name: str) -> PublishedMethod:
    """The published method of that name, with dashes or underscores. Raises PruneError if there is none."""
    return published()[_look_up("method", name.replace("_", "-"), list(published()))]


def _look_up(what: str, name: str, known: Sequence[str]) -> str:
    if name in known:
        return name
    close = difflib.get_close_matches(name, known, n=1)
    raise PruneError(
        f"{what}: {name}; allowed: {', '.join(known)}", hint=f"did you mean {close[0]}?" if close else None
    )
