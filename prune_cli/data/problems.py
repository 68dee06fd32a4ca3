"""What is wrong with a row or a value, in words, with what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from prune_cli.data.lines import Row

TYPES: dict[type, str] = {
    bool: "boolean",
    int: "integer",
    float: "float",
    str: "string",
    list: "list",
    dict: "object",
}
INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,17})")  # a whole number as Python writes it
_LACKS = re.compile(r'no "([^"]+)"; the row has: ')
_RENAMED = re.compile(r'no key "(.+?)" to read as "(.+?)"; ')
_AT_FAULT = re.compile(r"^(\w+) .* is (an? \w+|that of)(?: .* too(?=;))?")
_SYNONYMS = {  # keys of well-known data sets
    "text": ("sentence", "content", "review", "tweet", "sentence1", "premise", "document"),
    "text_pair": ("sentence2", "hypothesis"),
    "label": ("category", "class", "target", "sentiment", "answer", "gold"),
    "question": ("sentence", "query", "ctx", "stem"),
    "choices": ("options", "endings", "answers"),
    "prompt": ("question", "input", "instruction", "query"),
    "response": ("answer", "output", "completion", "target", "solution"),
}

NAMES = tuple(_SYNONYMS)

encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


def keys_of(row: Row) -> str:
    """The keys of a row for a message, on one line."""
    return ", ".join(json.dumps(key, ensure_ascii=False) for key in row)


def described(key: str, value: object) -> str:
    """A bad value in words, on one line: `label 1.0 is a float`, `text is null`."""
    if value is None:
        return f"{key} is null"
    type_name = TYPES.get(type(value), type(value).__name__)
    shown = json.dumps(value, ensure_ascii=False, default=str)
    shown = shown if len(shown) <= 60 else shown[:57] + "..."
    return f"{key} {shown} is {'an' if type_name[0] in 'aeio' else 'a'} {type_name}"


def text_problem(name: str, value: object) -> str | None:
    """The problem of a value that must be a string with words in it, with what is allowed; None if there is none."""
    if isinstance(value, str) and value.strip():
        return None
    problem = f"{name} is blank" if isinstance(value, str) else described(name, value)
    return f"{problem}; allowed: a string that is not blank"


def field_problem(raw: Row, fields: Mapping[str, str]) -> str | None:
    """What is wrong with a row whose keys are to be read under other names."""
    for name, key in fields.items():
        if key not in raw:
            return f'no key "{key}" to read as "{name}"; the row has: {keys_of(raw)}'
        if name in raw and name not in fields.values():
            return f'both "{key}" and "{name}"; allowed: one of them, as "{key}" is read as "{name}"'
    return None


def field_hint(problem: str, raw: Row) -> str | None:
    """For a row that lacks a key: how another of its keys is read under that name, the closest or the only other."""
    renamed, name = misnamed(problem), lacking(problem)
    if (renamed or name) and any(";" in key for key in raw):
        return "cells that look separated by semicolons; a CSV has commas between them, a TSV tabs"
    if renamed:
        name, wanted = renamed
        key = near_key(name, [key for key in raw if key.isprintable()])
        one = f"--field {_pair(name, key or '')}"
        both = f"--field {_pair(name, wanted)} {one}"
        return f"{one}, or {both} where files differ, which reads in each the one that it has" if key else None
    if name is None:
        return None
    known = {*re.findall(r'"([^"]+)"', problem.rpartition("; allowed: ")[2]), "id", "group"}
    others = [key for key in raw if key not in known and key.isprintable()]
    key = near_key(name, others) or (others[0] if len(others) == 1 else "KEY")
    found = {name: key}
    beside = {"text": "label", "prompt": "response"}.get(name)
    if beside and beside not in raw and (near := near_key(beside, [other for other in others if other != key])):
        found[beside] = near
    pairs = " ".join(f"--field {_pair(*pair)}" for pair in found.items())
    fields = ", ".join(f"{name} = {json.dumps(key)}" for name, key in found.items())
    told = f"that key as {name}" if len(found) == 1 else "these keys so"
    return f"{pairs} reads {told}; in a pipeline: fields = {{{fields}}}"


def misnamed(problem: str) -> tuple[str, str] | None:
    """The name, and the key to be read as it that a problem says a row lacks."""
    found = _RENAMED.match(problem)
    return (found[2], found[1]) if found else None


def _pair(name: str, key: str) -> str:
    return f"{name}={key}" if re.fullmatch(r"[\w.-]+", key) else f"'{name}={key}'"


def lacking(problem: str) -> str | None:
    """The key that a problem says a row lacks."""
    lacks = _LACKS.match(problem)
    return lacks[1] if lacks else None


def near_key(name: str, keys: Iterable[str]) -> str | None:
    """The first key that is close to a name, or to another word for it."""
    words = [name, *_SYNONYMS.get(name, ())]
    return next((key for key in keys if any(get_close_matches(key.lower(), words, 1, 0.8))), None)


def name_problem(key: str, value: object) -> str:
    """What is wrong with an id or a group."""
    if type(value) is str:
        return f"{key} is blank; allowed: an integer or a string that is not blank"
    return f"{described(key, value)}; allowed: an integer or a string"


def label_problem(label: object, first: type) -> str:
    """What is wrong with a label that the rows before it do not go with."""
    of_others = f"the rows before it have {TYPES.get(first, 'null')} labels; allowed: all integers or all strings"
    return f"{described('label', label)}, but {of_others}"


def label_hint(problem: str) -> str | None:
    """For a label with a point: how it becomes a whole number."""
    if not re.match(r"label -?[0-9]+\.0 is a float", problem):
        return None
    return 'write it as a whole number; pandas makes numbers of a column with gaps so: .astype("Int64") undoes it'


def id_problem(row_id: object, first: str) -> str:
    """What is wrong with an id that another row has; first: where that row is."""
    return f"id {json.dumps(row_id)} is that of {first} too; allowed: ids that differ"


def rule(problem: str) -> str:
    """A problem without the value at fault, the same for all rows that break a rule alike."""
    return _AT_FAULT.sub(r"\1 is \2", problem)


def value_problem(row: Row) -> str:
    """Why the row cannot be written as JSON, by the first key at fault."""
    for key, value in row.items():
        try:
            encode({key: value}).encode()
        except UnicodeEncodeError:
            return f"{key} holds half of a surrogate pair; allowed: Unicode text"
        except TypeError:
            return f"{described(key, value)}; allowed: text, numbers, true, false, null, lists and objects"
        except ValueError:
            return f"{key} holds NaN or Infinity; allowed: finite numbers"
    raise AssertionError("called for a row that can be written")
