"""A look at data files, for `prune init`: what their rows are, how many, how long."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.data import formats, problems
from prune_cli.data.fields import Fields, first_rows, settled
from prune_cli.data.groups import groups
from prune_cli.data.open import Reading, open_rows
from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows
from prune_cli.data.sources import STDIN, data_name, files_of
from prune_cli.data.split import Parts, digests
from prune_cli.errors import PruneError
from prune_cli.models import find
from prune_cli.options import MOST
from prune_cli.tasks.tokens import Encoded

LISTED = 10  # keys that are told
PEEKED = 100  # texts by which it is guessed whether the language is another
ORDER = ("choice", "classification", "generation")  # of equal claims the first
SMALL = 500  # training rows: of fewer, larger shares are split off
FEW = 0.2  # labels are this many of the rows at most where a key was guessed to be the label
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_ROLES = {
    VALIDATION: re.compile(r"(?:^|[-_. ])(?:validation|valid|val|dev)(?:$|[-_. \d])", re.IGNORECASE),
    TEST: re.compile(r"(?:^|[-_. ])(?:test|ood|held[-_]?out)(?:$|[-_. \d])", re.IGNORECASE),
}
_PER_WORD, _PER_CHARACTER = 4 / 3, 1 / 4  # tokens, in English


@dataclass(frozen=True)
class Lengths:
    """Tokens of rows [n]: counted by a tokenizer, or estimated from words and characters.

    limit: the most that the tokenizer and the model take; None where it is not known. whole: tokens of the longest
    response that the limit leaves room for, as responses are never cut; unfit: the places of rows with a longer one.
    """

    tokens: NDArray[np.int64]
    counted: bool
    words: NDArray[np.int64]
    characters: NDArray[np.int64]
    limit: int | None = None
    whole: int = 0
    unfit: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """What data files hold. guessed: what was not said, in words."""

    files: dict[str, str]  # role (train, validation, or the name of a test set) -> data
    counts: dict[str, int]  # role -> rows
    task: str
    reading: Reading
    prompted: bool
    labels: dict[Any, int]  # of the training rows; empty where the task has none
    lengths: Lengths  # of all rows
    answers: NDArray[np.int64]  # of training rows to generate: characters of the response
    repeated: int  # training rows whose text an earlier one has
    shared: dict[str, int]  # role -> training rows whose text stands in it
    foreign: bool  # whether most letters are none of the Latin script
    guessed: list[str]
    chat_template: str | None  # a file

    @property
    def n(self) -> int:
        """The number of training rows."""
        return self.counts[TRAIN]

    @property
    def share(self) -> float:
        """The share of the training rows that is split off for a set that was not given."""
        return share(self.n)


def share(n: int) -> float:
    """The share of n training rows that is split off for a set that was not given."""
    return 0.1 if n >= SMALL else 0.2


def look(
    data: Sequence[str],
    validation: str | None,
    tests: Mapping[str, str],
    reading: Reading,
    model: str | None,
    chat_template: str | None = None,
) -> Seen:
    """Read all files and say what they hold.

    data: the training rows, or several files whose names say what they are for. Raises PruneError for bad rows, as the
    other commands do, and for rows that could not be trained on.
    """
    guessed: list[str] = []
    files = _roles(data, validation, tests, guessed)
    task_name, fields = _guess(files[TRAIN], reading, guessed)
    reading = replace(reading, fields=reading.fields or _fields_of_all(files, task_name, fields, guessed))
    task, template = tasks.load(task_name), tasks.chat_template(task_name, chat_template)
    own = tasks.reading_of(task_name, reading)
    rows = {role: open_rows(file, own, task.check) for role, file in files.items()}
    train = rows[TRAIN]
    if len({some.format for some in rows.values()}) == 1:
        reading = replace(reading, format=train.format or reading.format)
    labels = task.label_list(train)
    for role, some in rows.items():
        tasks.check_gold(some, task.label_indices(some, labels), "finetune" if role == TRAIN else "eval")
    if len(labels) == 1:
        raise PruneError(f"{train.where(0)}: all rows have the label {labels[0]!r}; at least two labels are needed")
    _check_parts(task, files, train)
    groups(rows.get(VALIDATION, train))  # in every row or in none, as for methods of relevance
    counted = Counter(task.label_indices(train, labels).tolist()) if labels else {}
    guessed += _alike(labels)
    texts = {role: list(tasks.texts(task, some)) for role, some in rows.items()}
    hashes = {role: digests(some) for role, some in texts.items()}
    shared = {role: int(np.isin(hashes[TRAIN], some).sum()) for role, some in hashes.items() if role != TRAIN}
    told = [formats.conversation(row, train.format or formats.AUTO) for row in train] if train.format else []
    return Seen(
        files=files,
        counts={role: len(some) for role, some in rows.items()},
        task=task_name,
        reading=reading,
        prompted=not told or told[0].prompted,
        labels={label: counted[j] for j, label in enumerate(labels)},
        lengths=_lengths(task, rows, texts, labels, model, template),
        answers=np.array([len(entry.response) for entry in told], np.int64),
        repeated=len(train) - len(np.unique(hashes[TRAIN])),
        shared={role: count for role, count in shared.items() if count},
        foreign=_foreign(texts[TRAIN]),
        guessed=guessed,
        chat_template=chat_template,
    )


def _roles(data: Sequence[str], validation: str | None, tests: Mapping[str, str], guessed: list[str]) -> dict[str, str]:
    """What each file is for: as was said; of several by its name."""
    given = {VALIDATION: validation} if validation else {}
    held_out, train = dict(tests), list(data)
    if len(data) > 1:
        for role, pattern in _ROLES.items():
            for file in [file for file in train if pattern.search(data_name(file))]:
                if role == VALIDATION and VALIDATION in given:
                    continue
                train.remove(file)
                guessed.append(f"{file}: {role} rows, by its name")
                if role == VALIDATION:
                    given[VALIDATION] = file
                else:
                    held_out[data_name(file)] = file
    if not train:
        raise PruneError(
            f"{', '.join(data)}: no training rows; by their names all are validation or test rows",
            hint="give the training rows too; --validation FILE and --test FILE say what the others are for",
        )
    if len(train) > 1:
        raise PruneError(
            f"{', '.join(train)}: {len(train)} files of training rows; allowed: one, or a pattern such as "
            "'part-*.jsonl'",
            hint="--validation FILE and --test FILE say what the others are for",
        )
    files = {TRAIN: train[0], **given, **held_out}
    if len(files) < 1 + len(given) + len(held_out):
        raise PruneError(f"test sets: {', '.join(held_out)}; allowed: other names than {TRAIN} and {VALIDATION}")
    for file in files.values():
        if file == STDIN or not (file.startswith("hf:") or files_of(file)):
            told = "is not a file" if Path(file).exists() else "no such file"
            raise PruneError(f"{file}: {told}; allowed: a data file, as `prune guide rows` lists them")
    return files


def _check_parts(task: tasks.Task, files: Mapping[str, str], train: Rows) -> None:
    """Raise PruneError where the training rows are too few, or too much alike, to split off what was not given."""
    lacking = {} if VALIDATION in files else {VALIDATION: share(len(train))}
    lacking |= {} if files.keys() - {TRAIN, VALIDATION} else {f"tests/{TEST}": share(len(train))}
    try:
        if lacking:
            tasks.parted(task, train, Parts(lacking, 0))
    except PruneError as mistake:
        told = f"{files[TRAIN]}: too few rows to split off what was not given; {mistake.message}"
        raise PruneError(told, hint="--validation FILE and --test FILE give others") from mistake


def _guess(data: str, reading: Reading, guessed: list[str]) -> tuple[str, dict[str, str]]:
    """The task that rows are of, and the names under which their keys are read: as given, or as they look."""
    rows = first_rows(data)
    fields = settled(data, reading.fields)
    if reading.format not in (None, formats.AUTO):
        return "generation", fields
    found = _task_of([_renamed(row, fields) for row in rows])
    if found is None and not fields and rows:
        for task in ORDER:
            fields = _fields_for(task, rows)
            if fields and _task_of([_renamed(row, fields) for row in rows]) == task:
                found = task
                break
        else:
            fields = {}
    keys = ", ".join([*rows[0]][:LISTED]) if rows else ""
    guessed.append(f"task: {found or 'classification'}, by the keys of the rows: {keys}")
    return found or "classification", fields  # where none fits, opening the rows says what is wrong with them


def _fields_of_all(files: Mapping[str, str], task: str, fields: Mapping[str, str], guessed: list[str]) -> Fields:
    """The names under which keys are read, as they look in the training rows, with the keys of files that differ."""
    keys = {name: [key] for name, key in fields.items()}
    for role, file in files.items():
        rows = first_rows(file) if role != TRAIN else []
        if not rows or (
            {*fields.values()} <= rows[0].keys() and tasks.load(task).check(_renamed(rows[0], fields)) is None
        ):
            continue
        own = {name: name for name in fields if name in rows[0]} | _fields_for(task, rows)
        for name, key in own.items():
            keys[name] = list(dict.fromkeys([*keys.get(name, [name]), key]))
    if keys:
        told = (f"{' or '.join(several)} is read as {name}" for name, several in keys.items())
        guessed.append(f"fields: {', '.join(told)}")
    return {name: tuple(several) if len(several) > 1 else several[0] for name, several in keys.items()}


def _task_of(rows: Sequence[Row]) -> str | None:
    """The task whose rule the most rows keep; None where no row keeps any. Classification needs labels."""
    claims = {}
    for name in ORDER:
        good = [row for row in rows if tasks.load(name).check(row) is None]
        labelled = name != "classification" or any(row.get("label") is not None for row in good)
        claims[name] = len(good) if labelled else 0
    best = max(ORDER, key=lambda name: claims[name])  # of equal ones the first
    return best if claims[best] else None


def _fields_for(task: str, rows: Sequence[Row]) -> dict[str, str]:
    """Keys of the rows that may stand for those that a task lacks; empty where there are none."""
    fields: dict[str, str] = {}
    for _ in range(len(tasks.load(task).EXAMPLE) + 1):
        problem = tasks.load(task).check(_renamed(rows[0], fields))
        key = problems.lacking(problem or "")
        near = problems.near_key(key, rows[0]) if key else None
        if key is None or near is None or near in fields.values():
            break
        fields[key] = near
    if task == "classification" and fields:
        fields |= _more_fields(fields, rows)
    return fields


def _more_fields(fields: Mapping[str, str], rows: Sequence[Row]) -> dict[str, str]:
    """Keys that may stand for a second text and for the label, which the rule of the task lets a row lack."""
    more: dict[str, str] = {}
    for name in ("text_pair", "label"):
        others = [key for key in rows[0] if key not in (*fields.values(), *more.values(), "label")]
        near = problems.near_key(name, others) if name not in rows[0] else None
        if near and (name != "label" or len({str(row.get(near)) for row in rows}) <= max(2, FEW * len(rows))):
            more[name] = near  # a key whose values differ from row to row is an answer, not a label
    return more


def _renamed(row: Row, fields: Mapping[str, str]) -> Row:
    names = {key: name for name, key in fields.items()}
    return {names.get(key, key): value for key, value in row.items()}


def _lengths(
    task: tasks.Task,
    rows: Mapping[str, Rows],
    texts: Mapping[str, list[str]],
    labels: list[Any],
    model: str | None,
    template: str | None,
) -> Lengths:
    every = list(chain.from_iterable(texts.values()))
    words = np.array([len(text.split()) for text in every], np.int64)
    characters = np.array([len(text) for text in every], np.int64)
    if model is None:
        estimate = np.maximum(words * _PER_WORD, characters * _PER_CHARACTER)
        return Lengths(np.ceil(estimate).astype(np.int64), False, words, characters)
    from prune_cli.models.load import load_tokenizer

    named = find.find(model)
    tokenizer = load_tokenizer(named, template)
    limits = [limit for limit in (tokenizer.model_max_length, find.positions(named)) if limit and limit < MOST]
    limit = min(limits, default=None)
    tokenizer.model_max_length = MOST  # nothing is cut, nor refused, to be counted
    encoded = {role: task.encode(some, tokenizer, MOST, labels) for role, some in rows.items()}
    tokens = np.concatenate([entry.longest for entry in encoded.values()])
    whole, unfit = 0, []
    for role, entry in encoded.items() if task.AUTO_MODEL == "AutoModelForCausalLM" else ():
        responses = _responses(entry)
        fits = responses < (limit or MOST)
        whole = max(whole, int(responses[fits].max(initial=0)))
        unfit += [rows[role].where(i) for i in np.flatnonzero(~fits).tolist()]
    return Lengths(tokens, True, words, characters, limit, whole, tuple(unfit))


def _responses(encoded: Encoded) -> NDArray[np.int64]:
    """Tokens of each row [n] from where the last turn that is trained on begins; a row's first token never is."""
    begins = np.flatnonzero(encoded.gold[1:] & ~encoded.gold[:-1]) + 1
    ends = encoded.offsets[1:]
    return ends - begins[np.searchsorted(begins, ends) - 1]


def _alike(labels: Sequence[Any]) -> list[str]:
    """A word on labels that are one but for blanks and case."""
    of: dict[str, list[Any]] = {}
    for label in labels:
        of.setdefault(str(label).strip().casefold(), []).append(label)
    told = [" and ".join(map(repr, alike)) for alike in of.values() if len(alike) > 1]
    return [f"labels: {some} are different labels, and differ by case or blanks alone" for some in told]


def _foreign(texts: Sequence[str]) -> bool:
    """Whether most letters of the first texts are none of the Latin script."""
    letters = [letter for text in texts[:PEEKED] for letter in text if letter.isalpha()]
    return sum(letter > "\u024f" for letter in letters) * 2 > len(letters)
