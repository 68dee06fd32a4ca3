"""Rows: read strictly and fast, written as they came, identified by a digest, and found again by their ids."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import sys
import tracemalloc
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.artifacts import drafts, jsonl
from prune_cli.artifacts.manifest import Recipe, canonical, open_artifact
from prune_cli.data import fingerprints, lines, open, readers
from prune_cli.data.lines import Row
from prune_cli.data.open import Reading
from prune_cli.data.rows import Rows, read_rows
from prune_cli.errors import PruneError
from tests.conftest import Prune, sentences, write_rows

ODD = [  # rows that a parser and a writer would not give back as they are
    b'{"id": "a", "text": "caf\\u00e9 \\ud83d\\ude00 \\/"}',
    '{"id":"b","text":"caf\xe9 😀"}'.encode(),
    b'  { "text" :\t"c" , "id":3,"x":[ 1.0,1e3 ,-0.0, 1E5, 0.10]}  ',
    b'{"z": null, "y": {"b": 1, "a": true}, "text": "d", "id": 12345678901234567890123}',
]


def made(folder: Path, data: bytes, name: str = "data.jsonl") -> Path:
    """A file of these bytes."""
    path = folder / name
    path.write_bytes(data)
    return path


def written(rows: Rows, positions: Iterable[int] | None = None) -> bytes:
    """What `write` writes."""
    folder = Path(rows._file.name).parent if isinstance(rows._file.name, str) else Path()
    path = folder / "written.jsonl"
    rows.write(path, positions)
    data = path.read_bytes()
    path.unlink()
    return data


def exactly(value: Any) -> str:
    """A value in words that tell 1 from 1.0 and True, and 0.0 from -0.0."""
    return repr(value)


# Rows as they came


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("blank", [b"", b"\n", b" \t\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
def test_rows_are_written_byte_for_byte(end: bytes, blank: bytes, last: bool, bom: bytes, tmp_path: Path) -> None:
    """Escapes, spaces, order and numbers stay as typed; ends of lines, blank lines and a byte order mark do not."""
    data = bom + blank + (end + blank).join(ODD) + (end if last else b"")
    rows = read_rows(made(tmp_path, data), check=None)
    assert written(rows) == b"\n".join([*ODD, b""])
    assert written(rows, [2, 0]) == b"\n".join([ODD[2], ODD[0], b""])
    assert [exactly(row) for row in rows] == [exactly(json.loads(line)) for line in ODD]
    assert rows.digest == hashlib.sha256(b"\n".join([*ODD, b""])).hexdigest()


def test_the_same_rows_have_the_same_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file, a packed one, standard input and other ends of lines give the same digest, ids and bytes."""
    data = b"\n".join([*ODD, b""])
    packed = made(tmp_path, gzip.compress(data), "data.jsonl.gz")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    forms = [made(tmp_path, data), packed, "-", made(tmp_path, data.replace(b"\n", b"\r\n\r\n"), "crlf.jsonl")]
    opened = [read_rows(form, check=None) for form in forms]
    assert [rows.name for rows in opened] == ["data", "data", "stdin", "crlf"]
    for rows in opened:
        assert (rows.digest, rows.ids) == (opened[0].digest, ["a", "b", 3, 12345678901234567890123])
        rows.write(tmp_path / "out")
        assert (tmp_path / "out").read_bytes() == data
        assert rows.write(tmp_path / "out", [3, 1]) == opened[0].write(tmp_path / "again", [3, 1])
        assert (tmp_path / "out").read_bytes() == (tmp_path / "again").read_bytes()


def test_a_digest_tells_rows_and_ids_apart(tmp_path: Path) -> None:
    """Another value, order, id, line number or name of a key is another digest; a file's name is none."""
    rows = [b'{"text": "a"}', b'{"text": "b"}']
    data = {
        "plain": b"\n".join(rows),
        "turned": b"\n".join(rows[::-1]),
        "blank": b"\n\n".join(rows),
        "spaced": b"\n".join(rows).replace(b":", b" :"),
        "named": b"\n".join(rows).replace(b"text", b"words"),
    }
    digests = {name: read_rows(made(tmp_path, text, f"{name}.jsonl"), check=None).digest for name, text in data.items()}
    digests["field"] = read_rows(tmp_path / "named.jsonl", {"text": "words"}, check=None).digest
    digests["ids"] = read_rows(tmp_path / "plain.jsonl", check=None, ids=[2, 1]).digest
    own = write_rows(tmp_path / "own.jsonl", [{"words": "a", "id": 1}, {"words": "b", "id": 2}])
    digests["own"] = read_rows(own, check=None).digest
    digests["own field"] = read_rows(own, {"text": "words"}, check=None).digest
    assert len(set(digests.values())) == 9
    assert read_rows(made(tmp_path, data["plain"], "copy.jsonl"), check=None).digest == digests["plain"]
    lines_digest = hashlib.sha256(data["plain"] + b"\n").hexdigest()
    assert digests["plain"] == hashlib.sha256(f"{lines_digest}\n{{}}\n[1,2]".encode()).hexdigest()


def test_what_is_written_is_known_by_its_digest(tmp_path: Path) -> None:
    """`write` returns the digest that the written rows have when they are read with their names and ids."""
    data = [{"words": f"row {i}", **({"id": f"x{i}"} if i % 3 else {}), "n": 1.0} for i in range(9)]
    rows = read_rows(write_rows(tmp_path / "data.jsonl", data), {"text": "words"}, check=None)
    for positions in (None, [3, 0, 8, 1], [1, 2]):
        digest = rows.write(tmp_path / "out.jsonl", positions)
        ids = rows.ids if positions is None else [rows.ids[i] for i in positions]
        again = read_rows(tmp_path / "out.jsonl", {"text": "words"}, check=None, ids=ids)
        assert (again.digest, again.ids) == (digest, ids)
        assert list(again) == [rows[i] for i in (range(9) if positions is None else positions)]
    digest = read_rows(tmp_path / "data.jsonl", check=None).write(tmp_path / "out.jsonl", [4, 2])  # these have ids
    assert digest == hashlib.sha256((tmp_path / "out.jsonl").read_bytes()).hexdigest()


def test_renames_apply_to_reading_alone(tmp_path: Path) -> None:
    """A row has the names asked for, and what is written the keys that it came with."""
    line = b'{"y": 1, "sentence": "fine", "uid": 7, "other": [1]}\n'
    rows = read_rows(made(tmp_path, line), {"text": "sentence", "label": "y", "id": "uid"}, check=None)
    assert rows[0] == {"label": 1, "text": "fine", "id": 7, "other": [1]} and rows.ids == [7]
    assert rows.fields == {"text": "sentence", "label": "y", "id": "uid"}
    assert written(rows) == written(rows, [0]) == line


@pytest.mark.parametrize(
    ("name", "data", "line"),
    [
        ("a.csv", b'label,"text"\n1,"caf\xc3\xa9, ""so"""\n', '{"label": 1, "text": "café, \\"so\\""}\n'),
        ("a.tsv", b"label\ttext\nx\t1.0\n", '{"label": "x", "text": "1.0"}\n'),
        ("a.json", b'[{"text":"fine","id":null, "x":[1.50]}]', '{"text": "fine", "id": null, "x": [1.5]}\n'),
    ],
)
def test_rows_of_tables_are_written_as_json(name: str, data: bytes, line: str, tmp_path: Path) -> None:
    """A record is one line with its own keys in their own order, no id added, whatever it is read as."""
    rows = read_rows(made(tmp_path, data, name), {"words": "text"}, check=None)
    assert written(rows).decode() == written(rows, [0]).decode() == line
    assert "words" in rows[0] and rows[0]["id"] == rows.ids[0] == (1 if name == "a.json" else 2)


def test_rows_of_parquet_are_written_as_json(tmp_path: Path) -> None:
    """The rows of a table have their row numbers as ids, also beyond a block, and null is missing."""
    datasets = pytest.importorskip("datasets")
    n = readers.RECORDS * 2 + 1
    columns = {"text": [f"t{i}" for i in range(n)], "group": [None, "g"] * (n // 2) + [None]}
    datasets.Dataset.from_dict(columns).to_parquet(tmp_path / "data.parquet")
    rows = read_rows(tmp_path / "data.parquet", check=None)
    assert rows.ids == list(range(1, n + 1)) and rows.where(n - 1).endswith(f"data.parquet:row {n}")
    wanted = [{"text": text, "group": group} for text, group in zip(*columns.values(), strict=True)]
    assert written(rows).decode() == "".join(json.dumps(row) + "\n" for row in wanted)


# Ids


def test_rows_without_ids_have_their_line_numbers(tmp_path: Path) -> None:
    """Blank lines count as lines; null is missing; an id that a row has of its own stays."""
    path = made(tmp_path, b'\n{"t": 1}\n \n{"t": 2, "id": "x"}\n\r\n{"t": 3, "id": null}\n')
    rows = read_rows(path, check=None)
    assert rows.ids == [row["id"] for row in rows] == [2, "x", 6]
    assert [rows.where(i) for i in range(3)] == [f"{path}:{line}" for line in (2, 4, 6)]
    assert read_rows(path, check=None, ids=["p", "q", "r"]).ids == ["p", "x", "r"]
    with pytest.raises(PruneError, match="3 rows, but 2 ids"):
        read_rows(path, check=None, ids=["p", "q"])


@pytest.mark.parametrize(
    ("ids", "at"),
    [([1, 2, 1], 3), (["a", "b", "b"], 3), (["2", 2, 5], 2), ([3, "x", None], 3), (["3", "x", None], 3)],
)
def test_ids_that_are_equal_as_strings_are_refused(ids: list[Any], at: int, tmp_path: Path) -> None:
    """Equal ids, the number and the string of it, and an id that is another row's line number: file and line."""
    rows = [{"text": "fine", **({"id": row_id} if row_id else {})} for row_id in ids]
    path = write_rows(tmp_path / "data.jsonl", rows)
    with pytest.raises(PruneError) as refused:
        read_rows(path, check=None)
    assert refused.value.message.startswith(f"{path}:{at}: id ")
    assert "too; allowed: ids that differ" in refused.value.message


def test_ids_with_equal_hashes_are_no_duplicates(tmp_path: Path) -> None:
    """-1 and -2 have the same hash in Python, and are two ids."""
    assert hash(-1) == hash(-2)
    assert read_rows(write_rows(tmp_path / "a.jsonl", [{"id": -1}, {"id": -2}]), check=None).ids == [-1, -2]


@pytest.mark.parametrize("key", ["id", "group"])
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (" ", "{} is blank; allowed: an integer or a string that is not blank"),
        ("", "{} is blank; allowed: an integer or a string that is not blank"),
        (1.5, "{} 1.5 is a float; allowed: an integer or a string"),
        (True, "{} true is a boolean; allowed: an integer or a string"),
        ([1], "{} [1] is a list; allowed: an integer or a string"),
    ],
)
def test_ids_and_groups_are_integers_or_strings(key: str, value: Any, problem: str, tmp_path: Path) -> None:
    """Any other id or group is named with its file and line."""
    path = write_rows(tmp_path / "data.jsonl", [{key: "a"}, {key: value}])
    with pytest.raises(PruneError) as refused:
        read_rows(path, check=None)
    assert refused.value.message == f"{path}:2: {problem.format(key)}"


# Order and place of errors


def test_a_key_that_stands_twice_behind_blank_lines(tmp_path: Path) -> None:
    """Blank lines do not shift what is counted on the lines behind them."""
    path = made(tmp_path, b'\n{"b": 1}\n \n{"a": 1, "a": 2}\n')
    with pytest.raises(PruneError, match=r"data.jsonl:4: broken JSON \(a key stands twice"):
        read_rows(path, check=None)
    path = made(tmp_path, b'\n{"b": 1}\n{"a": 1, "a": 2}\n')
    with pytest.raises(PruneError, match=r"data.jsonl:3: broken JSON \(a key stands twice"):
        read_rows(path, check=None)


@pytest.mark.parametrize("size", [1, 7, 64, 2**20])
def test_blocks_change_nothing(size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many bytes are read at a time, rows, ids, lines and digest are the same, long lines included."""
    rows = [{"text": "x" * (i * 7 % 90), **({"id": f"r{i}"} if i % 2 else {})} for i in range(60)]
    data = b"\xef\xbb\xbf" + b"\r\n".join(json.dumps(row).encode() + b"\n" * (i % 5 == 0) for i, row in enumerate(rows))
    path = made(tmp_path, data)
    wanted = read_rows(path, check=None)
    monkeypatch.setattr(lines, "BLOCK", size)
    monkeypatch.setattr("prune_cli.data.rows.AT_ONCE", size)
    monkeypatch.setattr("prune_cli.data.rows.SCATTERED", 2)
    found = read_rows(path, check=None)
    assert (found.ids, found.digest, list(found)) == (wanted.ids, wanted.digest, list(wanted))
    assert [found.where(i) for i in range(60)] == [wanted.where(i) for i in range(60)]
    assert written(found) == written(wanted) == written(found, range(60))
    assert written(found, [59, 0, 3]) == written(wanted, [59, 0, 3])


def blank_text(row: Row) -> str | None:
    """A check."""
    return None if row.get("text", "x") else "text is blank"


BAD = {
    "check": (b'{"text": ""}', "text is blank"),
    "broken": (b'{"text": ', "broken JSON at column 10 (Expecting value); allowed: one JSON object a line"),
    "twice": (b'{"a": 1, "a": 2}', "broken JSON (a key stands twice in an object); allowed: one JSON object a line"),
    "infinite": (b'{"x": {"y": 1e999}}', "x holds NaN or Infinity; allowed: finite numbers"),
    "surrogate": (b'{"x": ["\\ud800"]}', "x holds half of a surrogate pair; allowed: Unicode text"),
    "encoding": (b'{"x": "\xe9"}', "byte 8 of the line, 0xe9, is not UTF-8; allowed: UTF-8"),
    "list": (b"[1]", "the row is a list; allowed: a JSON object"),
    "number": (b"1", "the row is a number, true or false; allowed: a JSON object"),
    "control": (b'{"x": "a\tb"}', "broken JSON at column 9 (Invalid control character at)"),
    "trailing": (b"{} 1", "broken JSON at column 4 (Extra data)"),
    "digits": (b'{"x": %s}' % (b"1" * 5000), "broken JSON (Exceeds the limit (4300 digits) for integer string"),
    "deep": (b'{"x": %s}' % (b"[" * 100_000), "broken JSON (maximum recursion depth exceeded"),
}


@pytest.mark.parametrize("first", BAD)
@pytest.mark.parametrize("second", ["check", "broken", "infinite", "encoding"])
def test_the_first_bad_row_is_told(first: str, second: str, tmp_path: Path) -> None:
    """Whatever is wrong further down in the same block, the error is that of the first line at fault."""
    good = [b'{"text": "fine", "id": "g%d"}' % i for i in range(3)]
    path = made(tmp_path, b"\n".join([*good, b"", BAD[first][0], good[0], BAD[second][0]]))
    with pytest.raises(PruneError) as refused:
        read_rows(path, check=blank_text)
    assert refused.value.message.startswith(f"{path}:5: {BAD[first][1]}")


def test_lines_are_counted_over_all_blocks(tmp_path: Path) -> None:
    """A bad row far down, after many blocks and blank lines, has the number that an editor shows."""
    good = b"".join(
        b'{"id": %d, "text": "some words to fill a block"}\n' % i + b"\n" * (i % 7 == 0) for i in range(20_000)
    )
    newlines = good.count(b"\n")
    assert len(good) > 3 * lines.BLOCK
    path = made(tmp_path, good + b'{"text": ""}\n')
    with pytest.raises(PruneError) as refused:
        read_rows(path, check=blank_text)
    assert refused.value.message == f"{path}:{newlines + 1}: text is blank"


def test_a_table_tells_the_first_bad_row(tmp_path: Path) -> None:
    """A bad record is told before a broken one that follows it."""
    path = made(tmp_path, b"text,x\nfine,1\n,2\nfine\n", "data.csv")
    with pytest.raises(PruneError, match=r"data.csv:3: text is blank"):
        read_rows(path, check=blank_text)
    path = made(tmp_path, b"text,x\nfine,1\nfine\n,2\n", "data.csv")
    with pytest.raises(PruneError, match=r"data.csv:3: 1 cells; allowed: 2"):
        read_rows(path, check=blank_text)


def test_no_rows_at_all(tmp_path: Path) -> None:
    """An empty file, a byte order mark alone and blank lines alone hold no rows."""
    for data in (b"", b"\xef\xbb\xbf", b"\xef\xbb\xbf\n", b"\n \n\r\n"):
        with pytest.raises(PruneError, match=r"data.jsonl:1: no rows"):
            read_rows(made(tmp_path, data), check=None)


# Reading again


def test_rows_are_a_sequence(tmp_path: Path) -> None:
    """Single rows, slices and the whole are the same rows, in any order asked for."""
    data = sentences(30)
    rows = read_rows(write_rows(tmp_path / "data.jsonl", data), check=None)
    assert list(rows) == rows[:] == [rows[i] for i in range(30)] == data and len(rows) == 30
    assert (rows[-1], rows[5:9], rows[20:2:-5], rows[40:], rows[-3:]) == (
        data[-1],
        data[5:9],
        data[20:2:-5],
        [],
        data[-3:],
    )
    for wrong in (30, -31):
        with pytest.raises(IndexError):
            rows[wrong]
        with pytest.raises(IndexError):
            rows.write(tmp_path / "out", [0, wrong])


def changed(path: Path) -> None:
    """Give a file other bytes of the same length."""
    with path.open("r+b") as stream:
        stream.write(b"{ ")
    os.utime(path, ns=(1, 1))


def test_a_file_that_changes_while_it_is_read(tmp_path: Path) -> None:
    """Rows that were checked before the change are not those that are there now."""
    path = write_rows(tmp_path / "data.jsonl", sentences(3))

    def meddling(row: Row) -> None:
        changed(path)

    with pytest.raises(PruneError, match=r"data.jsonl: the file was changed while it was read"):
        read_rows(path, check=meddling)


@pytest.mark.parametrize(
    "use", [lambda rows: rows[1], lambda rows: list(rows), lambda rows: rows[0:2], lambda rows: written(rows, [1])]
)
def test_a_file_that_changes_afterwards(use: Callable[[Rows], Any], tmp_path: Path) -> None:
    """No row is used of a file that is no longer the one that was checked."""
    path = write_rows(tmp_path / "data.jsonl", sentences(3))
    rows = read_rows(path, check=None)
    use(rows)
    changed(path)
    with pytest.raises(PruneError, match="the file was changed while in use; allowed: an unchanged file"):
        use(rows)


def test_memory_does_not_grow_with_the_texts(tmp_path: Path) -> None:
    """Reading, iterating and writing 40 MB of rows take a fraction of that."""
    line = b'{"text": "%s"}\n' % (b"word " * 400)
    path = made(tmp_path, line * 20_000)
    tracemalloc.start()
    try:
        rows = read_rows(path, check=None)
        assert sum(1 for _ in rows) == 20_000
        rows.write(tmp_path / "all")
        rows.write(tmp_path / "some", range(0, 20_000, 2))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert (tmp_path / "all").stat().st_size == 20_000 * len(line)
    assert peak < 10e6, peak


# Fingerprints and ids files


def test_a_fingerprint_is_of_all_that_a_row_holds(tmp_path: Path) -> None:
    """It has 16 hex digits, leaves the id and the order of keys out, and differs with any value or key."""
    rows: list[Row] = [{"a": 1, "b": {"c": [1, 2]}}, {"a": 1.0, "b": {"c": [1, 2]}}, {"a": 1, "b": {"c": [2, 1]}}]
    rows += [{"a": "1"}, {"a": True}, {"a": None}, {}, {"a": 10**30}, {"a": 10**30 + 1}, {"a": "é"}, {"a": "e"}]
    marks = [fingerprints.fingerprint(row) for row in rows]
    assert len(set(marks)) == len(rows) and all(len(mark) == 16 and int(mark, 16) >= 0 for mark in marks)
    for row, mark in zip(rows, marks, strict=True):
        turned = json.loads(json.dumps(dict(reversed(list(row.items())))))
        assert fingerprints.fingerprint({"id": 7, **turned}) == fingerprints.fingerprint({**turned, "id": "x"}) == mark
    assert marks[0] == hashlib.sha256(canonical(rows[0]).encode()).hexdigest()[:16]


def test_rows_are_found_by_id_and_fingerprint(tmp_path: Path) -> None:
    """Each row's position in the file of ids; a row that is not in it or is another one is named by its line."""
    data = [{"id": 7 if i == 2 else f"é{i}", "text": f"t{i}"} for i in range(5)]
    rows = read_rows(write_rows(tmp_path / "data.jsonl", data), check=None)
    file = tmp_path / "scored" / fingerprints.IDS
    file.parent.mkdir()
    fingerprints.write_ids(rows, file)
    wanted = [{"id": row["id"], "fingerprint": fingerprints.fingerprint(row)} for row in data]
    assert file.read_text("utf-8") == "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in wanted)
    turned = read_rows(
        write_rows(tmp_path / "turned.jsonl", [{**data[i], "id": str(data[i]["id"])} for i in (3, 2, 0)]), check=None
    )
    assert fingerprints.positions(turned, file, "is lacking").tolist() == [3, 2, 0]
    other = read_rows(write_rows(tmp_path / "other.jsonl", [data[1], {"id": "new"}]), check=None)
    with pytest.raises(PruneError, match=r"other.jsonl:2: id new is lacking") as refused:
        fingerprints.positions(other, file, "is lacking", hint="look")
    assert refused.value.hint == "look"
    edited = read_rows(write_rows(tmp_path / "edited.jsonl", [data[0], {**data[1], "text": "x"}]), check=None)
    with pytest.raises(
        PruneError, match=r"edited.jsonl:2: id é1 is that of another row in .*scored; allowed: the same row"
    ):
        fingerprints.positions(edited, file, "is lacking")


# Rows of artifacts


def artifact(out: Path, stage: str, about: dict[str, Any], files: dict[str, Callable[[Path], object]]) -> Path:
    """A finished artifact that holds these files."""
    recipe = Recipe(stage, {"task": "classification"}, {})
    with drafts.draft(out, recipe, {}, resumable=False) as draft:
        for name, write in files.items():
            write(draft.path / name)
        draft.about = about
    return out


def test_rows_of_a_representation_keep_their_ids_and_names(tmp_path: Path) -> None:
    """Reopened from an artifact the rows, the ids that they lack and the digest are those of the data."""
    path = made(tmp_path, b'\n{"words": "a"}\n\n{"words": "b", "id": "x"}\n')
    rows = read_rows(path, {"text": "words"}, check=None)
    files = {"rows.jsonl": rows.write, "ids.jsonl": lambda path: fingerprints.write_ids(rows, path)}
    about = {"fields": rows.fields, "digest": rows.digest}
    out = artifact(tmp_path / "rep", "represent", about, files)
    again = open.open_rows(str(out), Reading({"text": "not for artifacts"}), None)
    assert (again.ids, again.digest, list(again)) == ([2, "x"], rows.digest, list(rows))
    assert again.where(0) == f"{out}/rows.jsonl:1"
    assert open.open_rows(str(out), Reading(), None) is again
    assert open.task_name(str(out), "auto") == "classification"


def test_kept_rows_keep_their_ids_in_order_of_rank(tmp_path: Path) -> None:
    """Of a selection the ids are those of the kept rows, best first, however the reasons are ordered."""
    rows = read_rows(made(tmp_path, b'{"t": 1}\n{"t": 2}\n{"t": 3}\n{"t": 4, "id": "x"}\n'), check=None)
    kept, ranks = [2, 0, 3], {2: 1, 0: 2, 3: 3}
    why = [{"id": rows.ids[i], "kept": i in kept, "rank": ranks.get(i)} for i in range(4)]
    files: dict[str, Callable[[Path], object]] = {
        "select.jsonl": lambda path: rows.write(path, kept),
        "why.jsonl": lambda path: jsonl.write_jsonl(path, why),
    }
    digest = rows.write(tmp_path / "written", kept)
    about = {"fields": {}, "digest": digest}
    again = open.open_rows(str(artifact(tmp_path / "kept", "select", about, files)), Reading(), None)
    assert (again.ids, again.digest) == ([3, 1, "x"], digest)
    assert [row["t"] for row in again] == [3, 1, 4]
    assert fingerprints.fingerprint(again[0]) == fingerprints.fingerprint(rows[2])
    other = {"fields": {}, "digest": rows.write(tmp_path / "written", kept[::-1])}
    with pytest.raises(PruneError, match=r"select\.jsonl: differs from what was written"):
        open.open_rows(str(artifact(tmp_path / "other", "select", other, files)), Reading(), None)


@pytest.mark.parametrize("name", ["rows.jsonl", "ids.jsonl"])
def test_edited_rows_of_an_artifact_are_refused(name: str, tmp_path: Path) -> None:
    """Its rows and their ids are read only as they were written."""
    rows = read_rows(made(tmp_path, b'{"t": 1}\n{"t": 2}\n'), check=None)
    files = {"rows.jsonl": rows.write, "ids.jsonl": lambda path: fingerprints.write_ids(rows, path)}
    out = artifact(tmp_path / "rep", "represent", {"fields": {}, "digest": rows.digest}, files)
    text = (out / name).read_text()
    (out / name).write_text(text.replace("1", "7", 1))
    with pytest.raises(PruneError, match=f"rep/{name}: differs from what was written"):
        open.open_rows(str(out), Reading(), None)


def test_a_represent_artifact_holds_the_bytes_of_its_data(
    tmp_path: Path, prune: Prune, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the command line: rows as they came, their names and ids beside them, scores for the same ids."""
    monkeypatch.chdir(tmp_path)
    data = b'\xef\xbb\xbf{"s":"the film is good","y" : 0}\r\n\r\n{"y": 1, "s": "the pl\\u006ft is bad"}'
    made(tmp_path, data)
    fields = ["--field", "text=s", "--field", "label=y"]
    done = prune("represent", "data.jsonl", "-o", "rep", "--model", tiny_model, "--kind", "hidden", *fields)
    assert done.code == 0, done.err
    found = open_artifact(tmp_path / "rep")
    assert (
        found.file("rows.jsonl").read_bytes()
        == b'{"s":"the film is good","y" : 0}\n{"y": 1, "s": "the pl\\u006ft is bad"}\n'
    )
    assert found.about["fields"] == {"text": "s", "label": "y"}
    score = prune("score", "rep", "-o", "score", "--method", "prototypicality", "--set", "k=1")
    assert score.code == 0, score.err
    assert [line["id"] for line in jsonl.read_jsonl(tmp_path / "score" / "score.jsonl")] == [1, 3]
    kept = prune("select", "score", "rep", "-o", "kept", "--method", "top", "--keep", 1)
    assert kept.code == 0, kept.err
    assert (tmp_path / "kept" / "select.jsonl").read_bytes().rstrip(b"\n") in data


def test_positions_may_be_an_array(tmp_path: Path) -> None:
    """What numpy gives as positions is written as a list of them is."""
    rows = read_rows(write_rows(tmp_path / "data.jsonl", sentences(5)), check=None)
    assert written(rows, np.array([4, 1])) == written(rows, [4, 1]) == written(rows, iter([-1, 1]))
