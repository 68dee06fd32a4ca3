"""Methods: a method is a file. Find it, load it, and read from its signature what it needs.

`score/less.py` is the score `less`, its function `score`; `select/kmeans.py` is the selection `kmeans`, its function
`select`. In the signature

    def select(features, n_keep, rng, *, k=100): ...

the arguments before `*` are inputs, asked for by name (a default of None makes one optional). Those after it are
options: annotation and default give an option its type, choices and bounds (options.py). For kinds of representation
that bring other inputs a file may hold other forms of its function, `FORMS = {"influence": score_influence}`. The first
line of the docstring says what the method is, its line `Higher:` what a high score means, its line `Source:` where the
method comes from.

A user's own method is `FILE.py:FUNCTION`, or an entry point of an installed package in the group `prune_cli.score` or
`prune_cli.select`.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from prune_cli import options
from prune_cli.artifacts.code import digest_of_file, digest_of_module
from prune_cli.errors import PruneError, near
from prune_cli.options import Option
from prune_cli.represent import kinds
from prune_cli.runtime import plugins

STAGES = ("score", "select")
CODE = ("prune_cli.score", "prune_cli.select", "prune_cli.numeric")  # what a method's content may depend on


@dataclass(frozen=True)
class Method:
    """A score or a selection, ready to be called."""

    name: str
    function: Callable[..., Any]
    inputs: tuple[str, ...]  # all that it asks for, the optional ones too
    optional: tuple[str, ...]
    options: dict[str, Option]
    doc: str  # the file's docstring
    code: str  # sha256 over its file and the helpers that it imports
    own: bool = True  # whether prune brings it
    forms: tuple[str, ...] = ()  # what it has a form of its own for: kinds, or text

    def call(self, **arguments: Any) -> Any:
        """What the function returns. An exception in a function of others is a PruneError, and so is an overflow.

        What a function of others prints goes to stderr: stdout is for what the command makes.

        Many methods compare in single precision, which holds no square of a number above 10¹⁹.
        """
        try:
            with np.errstate(over="raise", invalid="raise") if self.own else redirect_stdout(sys.stderr):
                return self.function(**arguments)
        except PruneError:
            raise
        except FloatingPointError as failure:
            if not self.own:
                raise PruneError(f"{self.name}: {plugins.told(failure)}") from failure
            raise PruneError(
                f"{self.name}: {failure}; allowed: numbers and options that single precision can compute with",
                hint="check the model's weights; --set normalize=true, where the method has it, compares directions",
            ) from failure
        except (Exception, SystemExit) as failure:
            if self.own:
                raise
            raise PruneError(f"{self.name}: {plugins.told(failure)}") from failure

    @property
    def summary(self) -> str:
        """What it is in one line, and of a score what higher means."""
        lines = self.doc.splitlines() or [""]
        return " ".join([lines[0], *(line for line in lines if line.startswith("Higher:"))])

    @property
    def defaults(self) -> dict[str, Any]:
        """Name -> default of each option."""
        return {name: option.default for name, option in self.options.items()}

    @property
    def wants_target(self) -> bool:
        """Whether it compares the rows with a target set."""
        return any(name.startswith("target_") for name in self.inputs if name not in self.optional)

    @property
    def wants_representation(self) -> bool:
        """Whether it runs on a representation of the user's choice."""
        return bool({"features", "trajectory"} & set(self.inputs))


def names(stage: str) -> list[str]:
    """All methods of a stage (score or select) that prune brings, in order of name; none is imported."""
    return plugins.names(import_module(f"prune_cli.{stage}").__path__)


def installed(stage: str) -> dict[str, EntryPoint]:
    """The methods of a stage that other installed packages bring, by name."""
    return {point.name: point for point in entry_points(group=f"prune_cli.{stage}")}


def is_file(name: str) -> bool:
    """Whether a method's name is that of a user's own function, FILE.py:FUNCTION."""
    return name.rpartition(":")[0].endswith(".py")


def load(stage: str, name: str, kind: str | None = None) -> Method:
    """The method of that name, with dashes or underscores, in its form for a kind of representation.

    Raises PruneError if there is none, and where it compares with a target set and the kind does so too.
    """
    found = _found(stage, name, kind)
    compared = kind in kinds.names() and "target" in kinds.load(kind).needs
    if compared and found.wants_target and found.wants_representation:
        readers = [other for other in names(stage) if kind in _found(stage, other, kind).inputs]
        raise PruneError(
            f"{found.name}: compares rows with target rows, and {kind} compares them already; "
            "allowed: a representation of both, such as gradient",
            hint=f"{stage} methods that read {kind}: {', '.join(readers)}",
        )
    return found


def _found(stage: str, name: str, kind: str | None) -> Method:
    """The method, whatever the kind can be used for."""
    if is_file(name):
        file, _, function = name.rpartition(":")
        return _of_file(Path(file), function)
    stem = name.replace("-", "_")
    if stem in names(stage):
        module = plugins.load(f"prune_cli.{stage}.{stem}")
        if not callable(getattr(module, stage, None)):
            raise PruneError(f"{module.__file__}: no function {stage}; a {stage} method needs one")
        forms = getattr(module, "FORMS", {})
        function = forms.get(kind, getattr(module, stage))
        described = _described(stem, function, module, digest_of_module(module.__name__, CODE))
        return replace(described, forms=tuple(forms))
    points = installed(stage)
    if name in points:
        return _of_entry_point(stage, points[name])
    if stem in names(_other(stage)):
        raise PruneError(
            f"{stage} method: {name}; that is a method of prune {_other(stage)}", hint=f"prune methods {name}"
        )
    raise unknown(f"{stage} method", name, [*names(stage), *points])


def _other(stage: str) -> str:
    return next(other for other in STAGES if other != stage)


def _of_file(path: Path, function: str) -> Method:
    """A user's own function."""
    name = f"{path.name}:{function}"
    if not path.is_file():
        raise PruneError(f"method: {path}:{function}; there is no such file", hint="FILE.py:FUNCTION names a function")
    code = digest_of_file(path)
    module = _executed(path, code)
    if not callable(getattr(module, function, None)):
        raise PruneError(f"method: {path}:{function}; the file has no function {function}")
    return replace(_described(name, getattr(module, function), module, code), own=False)


@cache
def _executed(path: Path, code: str) -> ModuleType:
    """A user's file as a module, run once as long as its code stays the same."""
    spec = importlib.util.spec_from_file_location(f"prune_method_{code[:16]}", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    try:
        with redirect_stdout(sys.stderr):
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as failure:
        raise PruneError(f"method: {path}; it cannot be loaded: {type(failure).__name__}: {failure}") from failure
    return module


def _of_entry_point(stage: str, point: EntryPoint) -> Method:
    """A method of another installed package: a function, or a module that holds one named like the stage."""
    try:
        loaded = point.load()
    except Exception as failure:
        raise PruneError(f"{stage} method: {point.name}; {point.value} cannot be loaded: {failure}") from failure
    function = getattr(loaded, stage, None) if isinstance(loaded, ModuleType) else loaded
    module = inspect.getmodule(function)
    if not callable(function) or module is None or module.__file__ is None:
        raise PruneError(f"{stage} method: {point.name}; {point.value} is no function {stage}")
    return replace(_described(point.name, function, module, digest_of_file(Path(module.__file__))), own=False)


def _described(name: str, function: Callable[..., Any], module: ModuleType, code: str) -> Method:
    parameters = inspect.signature(function).parameters.values()
    asked = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    return Method(
        name=name,
        function=function,
        inputs=tuple(p.name for p in asked),
        optional=tuple(p.name for p in asked if p.default is None),
        options={p.name: _option(name, function, p) for p in parameters if p.kind is p.KEYWORD_ONLY},
        doc=inspect.getdoc(module) or inspect.getdoc(function) or "",
        code=code,
    )


def _option(method: str, function: Callable[..., Any], parameter: inspect.Parameter) -> Option:
    annotation, default = parameter.annotation, parameter.default
    if default is parameter.empty:
        raise PruneError(f"{method}: option {parameter.name} has no default; every option needs one")
    if isinstance(annotation, str):  # of a file with `from __future__ import annotations`
        annotation = eval(annotation, getattr(function, "__globals__", {}))
    return options.option(parameter.name, None if annotation is parameter.empty else annotation, default)


def parse_options(method: Method, given: Mapping[str, Any]) -> dict[str, Any]:
    """All options of a method: those given, as strings or as values of their type, else the defaults.

    Raises one PruneError that names every mistake.
    """
    named = {key.replace("-", "_"): value for key, value in given.items()}
    values, problems = options.checked(method.options, named, as_text=True)
    options.raise_all([f"{method.name}: {problem}" for problem in problems])
    return {**method.defaults, **values}


def unknown(what: str, name: str, known: Sequence[str]) -> PruneError:
    """The error for a name that is not known, with the nearest one as a hint."""
    return PruneError(f"{what}: {name}; allowed: {', '.join(known)}", hint=near(name, known))
