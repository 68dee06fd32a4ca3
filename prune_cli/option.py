"""One option, however it is declared: its type, bounds and help from an annotation, a value read and checked.

An annotation holds the option's type or `Literal` choices, its bounds (`Meta`) and its help text (`Help`).
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from types import NoneType
from typing import Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Meta

from prune_cli.errors import PruneError, near

T = TypeVar("T")


@dataclass(frozen=True)
class Help:
    """What an option means.

    key: whether it is part of the recipe. Options that change how a stage runs but not, beyond rounding, what it makes
    are not. by_task: it has a say only for tasks that name it among their OPTIONS; only: only where another option has
    one of these values, (name, values). panel: the part of a command's help that it stands in, if one of its own.
    """

    text: str
    key: bool = True
    by_task: bool = False
    only: tuple[str, tuple[str | int, ...]] | None = None
    panel: str | None = None


@dataclass(frozen=True)
class Option:
    """An option as declared. `annotation` is its type with bounds; a required one has MISSING for its default."""

    name: str
    annotation: Any
    help: Help
    default: Any = MISSING

    @property
    def type(self) -> Any:
        """Its type without bounds and None: int, float, str, bool, a Literal or a Mapping."""
        return _plain_type(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """Its allowed values, where they are few."""
        return get_args(self.type) if get_origin(self.type) is Literal else ()

    @property
    def allowed(self) -> str:
        """What values are allowed, in words."""
        if self.choices:
            return ", ".join(self.choices)
        words = {int: "a whole number", float: "a number", str: "text", bool: "true or false", tuple: "a list of names"}
        text = words.get(self.type, "a table of options")
        return text + "".join(_bounds(meta) for meta in _metas(self.annotation))

    def value(self, given: Any, *, as_text: bool = False) -> Any:
        """`given` as a value of the option, read from text where that is allowed. PruneError says what is allowed."""
        lax = as_text and isinstance(given, str) and self.type is not str
        try:
            value = msgspec.convert(given, self.annotation, strict=not lax)
        except (msgspec.ValidationError, OverflowError):
            value, fits = None, False
        else:
            empty = value == "" and self.default != ""  # of a variable that a script never set
            fits = not empty and not (isinstance(value, float) and not math.isfinite(value))
        if not fits:
            text = json.dumps(given, default=str) if self.type in (int, float, bool) and not as_text else shown(given)
            text = {"": "empty", "null": "missing"}.get(text, text)
            raise PruneError(f"{self.name}: {text}; allowed: {self.allowed}")
        return value


def option(name: str, annotation: Any, default: Any = MISSING) -> Option:
    """An option by its annotation, in which a text is its help. Without one it has the type of its default.

    A number without bounds has the sign of its default: above 0, or 0 or more where the default is 0.
    """
    if annotation is None:
        annotation = type(default)
    helps = [Help(entry) if isinstance(entry, str) else entry for entry in _metadata(annotation)]
    helps = [entry for entry in helps if isinstance(entry, Help)]
    if _plain_type(annotation) in (int, float) and not _metas(annotation) and default not in (MISSING, None):
        bound = Meta(gt=0) if default > 0 else Meta(ge=0) if default == 0 else Meta()
        annotation = Annotated[annotation, bound]
    return Option(name, annotation, helps[-1] if helps else Help(""), default)


def declared(record: type) -> dict[str, Option]:
    """The options of a record by name, in order."""
    return dict(_declared(record))


@functools.cache
def _declared(record: type) -> dict[str, Option]:
    hints = get_type_hints(record, include_extras=True)
    return {entry.name: option(entry.name, hints[entry.name], _default(entry)) for entry in fields(record)}


def build(record: type[T], values: Mapping[str, Any]) -> T:
    """A record of the values given, defaults for the rest. Raises one PruneError that names every mistake."""
    known = declared(record)
    found, problems = checked(known, values)
    problems += [f"{name}: missing; allowed: {o.allowed}" for name, o in known.items() if _lacks(o, values)]
    raise_all(problems)
    return record(**found)


def checked(
    known: Mapping[str, Option], values: Mapping[str, Any], also: Iterable[str] = (), *, as_text: bool = False
) -> tuple[dict[str, Any], list[str]]:
    """The values that fit their options, and what is wrong with the others.

    also: more names to tell as allowed. as_text: whether a string may stand for a number, true or false.
    """
    found: dict[str, Any] = {}
    problems = []
    for name, given in values.items():
        if name not in known:
            meant = near(name, known)
            told = f"unknown option; {meant} allowed" if meant else "unknown option; allowed"
            problems.append(f"{name}: {told}: {', '.join([*known, *also]) or 'none'}")
            continue
        try:
            found[name] = known[name].value(given, as_text=as_text)
        except PruneError as problem:
            problems.append(problem.message)
    return found, problems


def raise_all(problems: list[str]) -> None:
    """Raise one PruneError that names every problem, if there are any."""
    if problems:
        raise PruneError(problems[0], also=problems[1:])


def shown(value: Any) -> str:
    """A value as a message shows it."""
    if value is None:
        return "missing"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)


def _lacks(option: Option, values: Mapping[str, Any]) -> bool:
    return option.default is MISSING and option.name not in values


def _default(entry: Any) -> Any:
    return entry.default_factory() if entry.default_factory is not MISSING else entry.default


def _metadata(annotation: Any) -> tuple[Any, ...]:
    return getattr(annotation, "__metadata__", ())


def _metas(annotation: Any) -> list[Meta]:
    return [entry for entry in _metadata(annotation) if isinstance(entry, Meta)]


def _plain_type(annotation: Any) -> Any:
    """int of Annotated[int | None, …]; Mapping of Mapping[str, Any]."""
    bare = get_args(annotation)[0] if _metadata(annotation) else annotation
    several = [part for part in get_args(bare) if part is not NoneType] if NoneType in get_args(bare) else [bare]
    origin = get_origin(several[0])
    return several[0] if origin in (None, Literal) else origin


def _bounds(meta: Meta) -> str:
    words = {"gt": " above {}", "ge": ", {} or more", "le": ", at most {}", "lt": ", below {}"}
    return "".join(word.format(getattr(meta, name)) for name, word in words.items() if getattr(meta, name) is not None)
