"""What holds for every row format, whatever it is; and how a row's format is known."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import prune_cli
from prune_cli.data import formats
from prune_cli.errors import PruneError

PACKAGE = Path(prune_cli.__file__).parent
FORMATS = formats.names()


def test_formats_are_found_by_their_files() -> None:
    """Every file of data/formats/ is a format, and declares all that a format has."""
    assert sorted(file.stem for file in (PACKAGE / "data/formats").glob("[!_]*.py")) == FORMATS
    declared = [entry for entry in vars(formats.Format) if not entry.startswith("_")]
    for name in FORMATS:
        known = formats._formats()[name]
        assert all(hasattr(known, entry) for entry in declared), name
        assert (known.__doc__ or "").startswith('{"' + known.KEYS[0]), name
        assert isinstance(known.KEYS, tuple) and isinstance(known.PLAIN, bool) and set(known.KEYS) <= set(known.EXAMPLE)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_knows_its_own_rows(name: str) -> None:
    """Its example is of this format alone, good, and a conversation that ends with the assistant's response."""
    known = formats._formats()[name]
    row = dict(known.EXAMPLE)
    assert [other for other, its in formats._formats().items() if its.matches(row)] == [name]
    assert formats.of({"id": "a", "kind": "b", **row}) is known
    assert known.check(row) is None and formats.check(row) is None
    conversation = formats.conversation(row)
    assert len(conversation) >= 2 and conversation[-1]["role"] == "assistant"
    assert all(isinstance(message["role"], str) and message["content"].strip() for message in conversation)
    if known.PLAIN:
        assert [message["role"] for message in conversation] == ["user", "assistant"]
    assert row == known.EXAMPLE  # nothing is changed in place


@pytest.mark.parametrize("name", FORMATS)
def test_a_bad_row_of_a_format_is_told_in_words(name: str) -> None:
    """Without one of its keys, with another type, blank or empty there, the problem is one line that names the key."""
    known = formats._formats()[name]
    for key in known.KEYS:
        without = {other: value for other, value in known.EXAMPLE.items() if other != key}
        values: list[Any] = [None, 3, " ", [], {}, [None]]
        for bad in (without, *({**known.EXAMPLE, key: value} for value in values)):
            problem = formats.check(bad)
            assert problem and "; allowed: " in problem and "\n" not in problem, bad
            assert key in problem or "message 1 " in problem, bad


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"text": "a"}, 'no "prompt"; the row has: "text"; allowed: '),
        ({"response": "a"}, 'no "prompt"; the row has: "response"; allowed: '),
        ({"prompt": "a", "id": 1}, 'no "response"; the row has: "prompt", "id"; allowed: '),
        ({"messages": [], "prompt": "a"}, 'the row has "messages" and "prompt"; allowed: '),
        ({"messages": [], "response": "a"}, 'the row has "messages" and "response"; allowed: '),
    ],
)
def test_rows_of_no_format_or_several(row: dict[str, Any], problem: str) -> None:
    """The message says what the row has, and the keys of all formats."""
    told = formats.check(row)
    assert told and told.startswith(problem)
    assert all(f'"{key}"' in told.split("allowed: ")[1] for known in formats._formats().values() for key in known.KEYS)
    with pytest.raises(PruneError):
        formats.of(row)
