"""The forms of multiple-choice rows, told apart row by row. This file is not a task.

{"question", "choices": ["…", …], "label": 1}                                             the tool's own
{"question", "choices": {"text": ["…", …], "label": ["A", …]}, "answerKey": "B"}          as ARC publishes them
{"sentence", "option1", "option2", "answer": "2"}                                         as WinoGrande does
"""

from __future__ import annotations

from typing import NamedTuple

from prune_cli.data.lines import Row
from prune_cli.data.problems import described, keys_of, text_problem

_OPTIONS = ("option1", "option2")
_NUMBERS = ("1", "2")
_OWN = ("question", "choices", "label")
_ARC = ("question", "choices", "answerKey")
_WINOGRANDE = ("sentence", *_OPTIONS, "answer")


class Asked(NamedTuple):
    """A row in the task's own form; label: the position of the right choice."""

    question: str
    choices: list[str]
    label: int


def asked(row: Row) -> Asked:
    """A good row, of whatever form, in the task's own."""
    if _is_winogrande(row):
        return Asked(row["sentence"], [row[key] for key in _OPTIONS], _NUMBERS.index(str(row["answer"])))
    choices = row["choices"]
    if isinstance(choices, dict):
        return Asked(row["question"], choices["text"], _names(choices["label"]).index(str(row["answerKey"])))
    return Asked(row["question"], choices, row["label"])


def answered(row: Row, label: int) -> Row:
    """The key of a good row that says the right choice, and its value where that is the one at position `label`."""
    if _is_winogrande(row):
        return {"answer": type(row["answer"])(_NUMBERS[label])}
    if isinstance(row["choices"], dict):
        return {"answerKey": row["choices"]["label"][label]}
    return {"label": label}


def problem(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    if _is_winogrande(row):
        return _lacking(row, _WINOGRANDE) or _winogrande_problem(row)
    if isinstance(row.get("choices"), dict):
        return _lacking(row, _ARC) or _arc_problem(row)
    return _lacking(row, _OWN) or _own_problem(row)


def _is_winogrande(row: Row) -> bool:
    return "choices" not in row and any(key in row for key in _OPTIONS)


def _lacking(row: Row, keys: tuple[str, ...]) -> str | None:
    lacking = next((key for key in keys if key not in row), None)
    if lacking is None:
        return None
    return f'no "{lacking}"; the row has: {keys_of(row)}; allowed: ' + ", ".join(f'"{key}"' for key in keys)


def _own_problem(row: Row) -> str | None:
    label, choices = row["label"], row["choices"]
    if wrong := text_problem("question", row["question"]) or _choices_problem("choices", choices):
        return wrong
    if type(label) is not int:
        return f"{described('label', label)}; allowed: the position of a choice, 0 to {len(choices) - 1}"
    if not 0 <= label < len(choices):
        return f"label {label} is not the position of a choice; allowed: 0 to {len(choices) - 1}"
    return None


def _arc_problem(row: Row) -> str | None:
    choices = row["choices"]
    texts, names, key = choices.get("text"), choices.get("label"), row["answerKey"]
    if wrong := text_problem("question", row["question"]) or _choices_problem("choices.text", texts):
        return wrong
    if not isinstance(names, list) or len(names) != len(texts) or len(set(_names(names))) < len(names):
        return f"{described('choices.label', names)}; allowed: a list of names that differ, one for each choice"
    if type(key) not in (int, str) or str(key) not in _names(names):
        return f"{described('answerKey', key)}; allowed: {', '.join(_names(names))}, a name in choices.label"
    return None


def _winogrande_problem(row: Row) -> str | None:
    for key in _WINOGRANDE[:3]:
        if wrong := text_problem(key, row[key]):
            return wrong
    answer = row["answer"]
    if type(answer) not in (int, str) or str(answer) not in _NUMBERS:
        return f"{described('answer', answer)}; allowed: 1 or 2, the number of an option"
    return None


def _choices_problem(name: str, choices: object) -> str | None:
    if not isinstance(choices, list):
        return f"{described(name, choices)}; allowed: a list of two strings or more"
    for j, choice in enumerate(choices):
        if wrong := text_problem(f"choice {j}", choice):
            return wrong
    return None if len(choices) > 1 else f"{name} has {len(choices)}; allowed: two strings or more"


def _names(names: list[object]) -> list[str]:
    return [str(name) for name in names]
