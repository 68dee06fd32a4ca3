"""Generated input: values that JSON can hold, changed in one place, as text and as bytes that are damaged."""

from __future__ import annotations

import copy
import csv
import gzip
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

from hypothesis import strategies as st

# stand for what Python's own writer refuses, or is slow to draw; `text` puts them into the text
HUGE, HEX, DEEP, LONG = "@huge@", "@hex@", "@deep@", "@long@"
ODD: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    1,
    7,
    2**31,
    2**53 + 1,
    2**63,
    2**64,
    -(2**63) - 1,
    1.5,
    -0.0,
    1e308,
    5e-324,
]
ODD += [float("nan"), float("inf"), float("-inf"), HUGE, DEEP, LONG, "", " ", "\t", "\x00", "\x7f", "a\nb", "a\rb"]
ODD += ["\ud800", "\udcff", "\u2028", "\ufeff", "é", "𝄞", "none", "null", "1", "²", "_", [], {}, [[]], [None], {"": {}}]
odd = st.sampled_from(ODD).map(copy.deepcopy)

WORDS = ["good", "bad", "the film", "very\nfine", "naïve", '"quoted"', "a,b", "x\ty", "a\u2028b", "𝄞 clef", "_", "1"]
words = st.sampled_from(WORDS)
keys = st.sampled_from(["id", "group", "text", "label", "extra", "key with space", "é"])


def _optional(row: dict[str, Any], i: int, how: int) -> dict[str, Any]:
    """The row with an id, a group, or another key, or none of them."""
    more: list[dict[str, Any]] = [{}, {"id": f"r{i}"}, {"id": i, "group": "g"}, {"extra": {"a": [1, None, 1.5, True]}}]
    return {**more[how], **row}


@st.composite
def good_rows(draw: st.DrawFn, task: str, *, flat: bool = False) -> list[dict[str, Any]]:
    """Rows that are right. flat: of strings alone, as a table has them."""
    how, n = 0 if flat else draw(st.integers(0, 3)), draw(st.integers(2, 6))
    form = draw(st.integers(0, 0 if flat else 1))
    rows = []
    for i in range(n):
        text = f"{draw(words)} {i}"
        if task == "classification":
            row: dict[str, Any] = {"text": text, "label": ["no", "yes"][i % 2]}
        elif task == "choice":
            row = {"question": f"{text} is _.", "choices": [f"a {i}", "b"], "label": i % 2}
        elif form == 0:
            row = {"prompt": text, "response": draw(words)}
        else:
            turns = [{"role": "user", "content": text}, {"role": "assistant", "content": draw(words)}]
            row = {"messages": turns}
        rows.append(_optional(row, i, how))
    return rows


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as a container and its key."""
    for key in value if isinstance(value, dict) else range(len(value)):
        yield value, key
        if isinstance(value[key], dict | list):
            yield from _places(value[key])


@st.composite
def changed(draw: st.DrawFn, value: Any, values: st.SearchStrategy[Any] = odd) -> Any:
    """A JSON value changed in one place: another value, a key less, one level deeper, under another name."""
    box = [copy.deepcopy(value)]
    places = list(_places(box))
    holder, key = places[draw(st.integers(0, len(places) - 1))]
    how = draw(st.sampled_from(["replace", "replace", "remove", "wrap", "rename", "copy"]))
    if how == "remove" and holder is not box:
        del holder[key]
    elif how == "wrap":
        holder[key] = draw(st.sampled_from([[holder[key]], {"a": holder[key]}]))
    elif how == "rename" and isinstance(holder, dict):
        holder[draw(keys)] = holder.pop(key)
    elif how == "copy":
        other, at = places[draw(st.integers(0, len(places) - 1))]
        holder[key] = copy.deepcopy(other[at])
    else:
        holder[key] = draw(values)
    return box[0]


def filled(text: str) -> bytes:
    """The text with what its marks stand for; lone surrogates become bytes that are not UTF-8."""
    parts = {HUGE: "7" * 5000, HEX: "0x" + "f" * 5000, DEEP: "[" * 2000 + "]" * 2000}
    for mark, part in parts.items():
        text = text.replace(f'"{mark}"', part)
    return text.replace(LONG, "x" * 300_000).encode("utf-8", "surrogatepass")


def as_json(value: Any, *, ascii_only: bool = True) -> bytes:
    """A value with marks as JSON; ascii_only: lone surrogates as escapes."""
    return filled(json.dumps(value, ensure_ascii=ascii_only))


def as_jsonl(rows: list[Any]) -> bytes:
    """Rows as JSONL."""
    return b"".join(as_json(row, ascii_only=i % 2 == 0) + b"\n" for i, row in enumerate(rows))


def as_table(rows: list[Any], delimiter: str) -> bytes:
    """Rows as CSV, or TSV with a quoted header, by the keys of the first; what is no text as Python writes it."""
    stream = io.StringIO()
    table = [row for row in rows if isinstance(row, dict)]
    writer = csv.writer(stream, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([list(table[0]), *(list(row.values()) for row in table)] if table else [])
    text = stream.getvalue()
    return filled(text.replace("very\nfine", "very fine") if delimiter == "\t" else text)  # whose cells are on one line


WRITERS: dict[str, Callable[[list[Any]], bytes]] = {
    ".jsonl": as_jsonl,
    ".json": as_json,
    ".jsonl.gz": lambda rows: gzip.compress(as_jsonl(rows), mtime=0),
    ".csv": lambda rows: as_table(rows, ","),
    ".tsv": lambda rows: as_table(rows, "\t"),
}


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes with one thing wrong, or at least unusual, at one place."""
    at = draw(st.integers(0, len(data)))
    line = data.rfind(b"\n", 0, at) + 1
    insert = [
        b"\xef\xbb\xbf",
        b"\x00",
        b"\xff",
        b"\xed\xa0\x80",
        b"\n",
        b"\r",
        b"\n \t\n",
        b"\x0b",
        b'"',
        b"{",
        b"}",
        b"]",
    ]
    how = draw(
        st.sampled_from(["insert", "insert", "cut", "drop", "flip", "crlf", "cr", "twice", "key", "bom", "utf16"])
    )
    match how:
        case "cut":
            return data[:at]
        case "drop":
            return data[:at] + data[at + draw(st.integers(1, 40)) :]
        case "flip":
            return data[:at] + bytes([draw(st.integers(0, 255))]) + data[at + 1 :]
        case "crlf":
            return data.replace(b"\n", b"\r\n")
        case "cr":
            return data.replace(b"\n", b"\r")
        case "twice":
            return data[:at] + data[line:]
        case "key":
            return data[:line] + data[line:].replace(b"{", b'{"text": "a", "text": "b", ', 1)
        case "bom":
            return b"\xef\xbb\xbf" + data
        case "utf16":
            return data.decode("utf-8", "replace").encode("utf-16")
        case _:
            return data[:at] + draw(st.sampled_from(insert)) + data[at:]


def as_toml(table: dict[str, Any]) -> bytes:
    """A table with marks as TOML, as far as TOML has such values."""
    plain = [f"{_key(name)} = {_toml(value)}" for name, value in table.items() if not isinstance(value, dict)]
    tables = [(name, value) for name, value in table.items() if isinstance(value, dict)]
    for name, value in tables:
        plain += [f"[{_key(name)}]", *(f"{_key(key)} = {_toml(entry)}" for key, entry in value.items())]
    return filled("\n".join(plain) + "\n")


def _key(name: str) -> str:
    return name if name.isascii() and name.replace("_", "").isalnum() else json.dumps(name)


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_toml(entry)}" for name, entry in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    if isinstance(value, float):
        return repr(value)
    return "1979-05-27" if value is None else json.dumps(value, ensure_ascii=value in ("\x00", "a\nb"))


NUMBERS = (
    "0 -1 1 2 3 30% 0.5 1.0 1e3 1e20 1e-20 2147483648 4294967296 9223372036854775808 nan inf -inf -0 1e999".split()
)
NUMBERS += [
    "9" * 400,
    "9" * 5000,
    "1e-99999999999999999999",
    "1e99999999999999999999%",
    "0x10",
    "1_0",
    "١",
    "²",
    ".",
    "e",
]
TEXTS = ["", " ", "a\nb", "\udcff", "é", "--", "-", "=", "k=", "=3", "k=3", "k=1e20", "checkpoints=mean", "all", "1,2"]
TEXTS += [
    "auto",
    "cpu",
    "cuda:0",
    "cuda:²",
    "cuda:99999999999999999999",
    "x" * 5000,
    "hf:",
    "hf::",
    "hf:/",
    "./mine.py:f",
]
TEXTS += [
    "~",
    "/",
    ".",
    "..",
    "/dev/null",
    "a/b/c",
    "a/b",
    "*",
    "(",
    "[",
    "last:2",
    "last:²",
    "last:" + "9" * 5000,
    "label=text",
]
numbers = st.one_of(st.sampled_from(NUMBERS), st.integers().map(str), st.floats().map(str))
