"""JSONL: lines are read as strictly as by the standard library, however fast, and written as it writes them."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from prune_cli.artifacts import files, jsonl
from prune_cli.data import lines
from prune_cli.data.rows import read_rows
from prune_cli.errors import PruneError
from tests.test_rows import exactly, made, written


def outcome(data: bytes, path: Path) -> list[str] | str:
    """The rows exactly, or the message of the error."""
    path.write_bytes(data)
    try:
        return [exactly(row) for row in read_rows(path, check=None)]
    except PruneError as error:
        return error.message


def strictly(data: bytes, path: Path) -> list[str] | str:
    """The same with every line read by the standard library."""
    fast = lines._fast
    lines._fast = lambda texts, bounds: None
    try:
        return outcome(data, path)
    finally:
        lines._fast = fast


def by_the_standard(line: bytes) -> Any:
    """The object on a line by `json` alone, or None: written anew from the rules, without any of our code."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("twice")
        return dict(pairs)

    try:
        value = json.loads(line.decode(), object_pairs_hook=once)
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file to write over."""
    return tmp_path_factory.mktemp("rows") / "data.jsonl"


def test_hard_lines_are_read_as_the_standard_library_reads_them(scratch: Path) -> None:
    """Keys twice at any depth, colons in strings, odd numbers, broken text: the same rows and messages."""
    inside = ['":', '\\":', "\\:", "x:", " :", '" :', '{"a": 1}', "é :", "\t:", "\\\\", '":":":']
    texts = []
    for string in map(json.dumps, inside):
        texts += [
            f'{{"a": {string}}}',
            f'{{"a": {string}, "a": 2}}',
            f'{{"a": {string}, "b": {{"c": 1, "c": {string}}}}}',
            f'{{"a": [{string}, {{"k": 1, "k" : 2}}]}}',
            f'{{"a" : {string}, "b"\t: {{"c" :1}}, "d": [[{{"e":[]}}]]}}',
            f'{{{string}: 1, "b": 2}}',
            f"{{{string}: 1, {string} :2}}",
        ]
    texts += ['{"a": 1, "a" : 2}', '{"a":1,"\\u0061":2}', '{"a": {}, "a": {"b": 1}}', '{"": 1, "": 2}', '{"": 1}']
    texts += [f'{{"a": {number}}}' for number in NUMBERS]
    texts += [
        f'{{"a": {text}}}' for text in ('"\\ud800"', '"\\udc00\\ud800"', '"\\ud83d\\ude00"', "nul", "[1,]", "'x'")
    ]
    texts += [
        '{"\\ud800": 1}',
        "[]",
        "1",
        '"x"',
        "null",
        "{} {}",
        "{}x",
        '{"a": "\x01"}',
        "\ufeff\ufeff{}",
        "\x0c{}",
        "{",
    ]
    for text in texts:
        data = text.encode()
        assert outcome(data, scratch) == strictly(data, scratch), text
        value = by_the_standard(data)
        got = outcome(data, scratch)
        if value is None:
            assert isinstance(got, str) and f"{scratch}:1: " in got, text
        else:
            assert got == [exactly({**value, "id": 1})], text
    assert sum(isinstance(outcome(text.encode(), scratch), str) for text in texts) > 30
    assert "a key stands twice in an object" in outcome(b'{"x": [{"k": 1, "k": 2}]}', scratch)


NUMBERS = [
    *"0 -0 -0.0 0.1 1e22 1e23 1E5 1e-7 5e-324 1e-400 9007199254740993.0 2.2250738585072011e-308".split(),
    *"123456789012345678901234567890 -123456789012345678901234567890 18446744073709551615".split(),
    *"18446744073709551616 -9223372036854775809 1.7976931348623157e308 1e309 -1e400".split(),
    *"NaN Infinity -Infinity 01 1. .5 +1 1e 0x1 1_0 9e".split(),
    "1" * 5000,
]
PIECES = st.sampled_from(
    [
        *['{"a": 1', '"a"', '"b"', ":", " :", "\t:", ", ", ",", "{", "}", "[", "]", " ", "\r", "\n"],
        *['"', "\\", '\\"', '\\":', "\\\\", "\\u0061", "\\ud83d", "\\ude00", "é", "\x00", "\x0b", "\ufeff"],
        *["1", "1.0", "-0", "1e5", "1e400", "NaN", "null", "true"],
    ]
)
STRINGS = st.text(max_size=6) | st.sampled_from(['":', '\\":', " :", '"'])
KEYS = st.sampled_from(["a", "b", '":', " :", "\\"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | STRINGS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    """Lines of JSON, with other spaces and escapes, keys twice, and now and then a broken byte or piece."""
    written = []
    for _ in range(draw(st.integers(1, 3))):
        colon, comma = draw(st.sampled_from([":", ": ", " : ", "\t:"])), draw(st.sampled_from([",", ", ", "\t,"]))
        row = draw(st.dictionaries(st.sampled_from(["a", "b", "c:", '":']), VALUES, max_size=3))
        written.append(json.dumps(row, ensure_ascii=draw(st.booleans()), separators=(comma, colon)))
        if draw(st.booleans()):
            written[-1] = written[-1].replace('"b"', '"a"')
    data = "\n".join(written).encode("utf-8", "surrogatepass")
    for _ in range(draw(st.integers(0, 2)) if draw(st.booleans()) else 0):
        at = draw(st.integers(0, len(data)))
        piece = draw(st.binary(max_size=2) | PIECES.map(str.encode))
        data = data[:at] + piece + data[at + draw(st.integers(0, 2)) :]
    return data


@settings(max_examples=400, deadline=None)
@given(texts() | st.lists(PIECES, max_size=14).map(lambda pieces: "".join(pieces).encode()))
@example(b'{"a":1,"a" :2}')
def test_any_text_is_read_as_strictly_as_by_the_standard_library(scratch: Path, data: bytes) -> None:
    """For any bytes the rows, or the message of the error, are those of the strict way, and the values are json's."""
    got = outcome(data, scratch)
    assert got == strictly(data, scratch)
    filled = [line for line in data.removeprefix(b"\xef\xbb\xbf").split(b"\n") if line.strip(b" \t\r")]
    values = [by_the_standard(line) for line in filled]
    if isinstance(got, list):
        assert len(got) == len(values) and None not in values
        ids = read_rows(scratch, check=None).ids
        assert got == [exactly({**value, "id": row_id}) for value, row_id in zip(values, ids, strict=True)]
        assert written(read_rows(scratch, check=None)) == b"".join(line.rstrip(b"\r") + b"\n" for line in filled)
    else:
        assert not values or None in values or " is that of " in got or "; allowed: an integer" in got


@settings(max_examples=300, deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers())
def test_numbers_are_the_standard_librarys(scratch: Path, number: float) -> None:
    """A float or integer of any size has exactly the value that json reads."""
    assert outcome(b'{"x": %s}' % repr(number).encode(), scratch) == [exactly({"x": number, "id": 1})]


def test_the_bound_of_keys_is_exact_where_it_has_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines that are plainly right are not read strictly, though their strings hold quotes and colons."""
    monkeypatch.setattr(lines, "strict", lambda *_: pytest.fail("read strictly"))
    plain = [
        b'{"a": "b"}',
        b'{"a" : "x\\": y :", "b":[{"c"\t:1}, {"c": "\\\\"}]}',
        b'{"a": "{\\"k\\": 1, \\"k\\": 2}"}',
    ]
    (block,) = lines.blocks(io.BytesIO(b"\n".join([*plain, b""])), "x:")
    assert block.rows == [json.loads(line) for line in plain] and block.plain


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(exclude_categories=["Cs"]))


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(PLAIN, PLAIN | st.lists(PLAIN, max_size=2)), max_size=4))
def test_jsonl_is_written_as_json_writes_it(scratch: Path, values: list[tuple[Any, Any]]) -> None:
    """Both writers give the bytes of json.dumps, and reading gives the values back."""
    keys = ("id", 'a "%s" é')
    rows = [dict(zip(keys, pair, strict=True)) for pair in values]
    wanted = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    jsonl.write_jsonl(scratch, rows)
    assert scratch.read_bytes() == wanted
    assert repr(list(jsonl.read_jsonl(scratch))) == repr(rows)
    jsonl.write_columns(scratch, {key: [row[key] for row in rows] for key in keys})
    assert scratch.read_bytes() == wanted


def test_columns_of_two_lengths_are_refused(tmp_path: Path) -> None:
    """No line is left out in silence."""
    with pytest.raises(ValueError, match="shorter"):
        jsonl.write_columns(tmp_path / "a", {"id": [1, 2], "score": [math.pi]})


def test_a_file_is_replaced_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that fails leaves the old file and no other; one that ends is on the disk before it takes the name."""
    path = made(tmp_path, b"old", "a.jsonl")

    def fails(scratch: Path) -> None:
        scratch.write_bytes(b"half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.replace_file(path, fails)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]
    synced: list[tuple[Path, bytes]] = []
    monkeypatch.setattr(files, "sync", lambda of: synced.append((of, path.read_bytes())))
    files.replace_file(path, lambda scratch: scratch.write_bytes(b"new"))
    assert synced == [(tmp_path / ".a.jsonl.tmp", b"old"), (tmp_path, b"new")]
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]
