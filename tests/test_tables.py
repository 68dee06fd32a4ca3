"""Tables: blank cells and null are missing, columns that no task reads are carried along, labels of either type."""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from prune_cli.data.rows import Rows, read_rows
from prune_cli.errors import PruneError
from prune_cli.tasks import classification
from tests.conftest import Prune, write_rows

FAR = pa.array([2**62, 0], pa.int64()).cast(pa.timestamp("us"))  # the first is beyond the year 9999
ODD: dict[str, tuple[Any, Any]] = {  # column, and how its first value is carried
    "moment": ([dt.datetime(2024, 1, 2, 3, 4, 5), None], "2024-01-02T03:04:05"),
    "far": (FAR, None),
    "day": ([dt.date(2024, 1, 2), None], "2024-01-02"),
    "time": ([dt.time(3, 4), None], "03:04:00"),
    "span": ([dt.timedelta(seconds=5), None], "0:00:05"),
    "price": ([decimal.Decimal("1.50"), None], "1.50"),
    "bytes": ([b"\xff\x00", None], base64.b64encode(b"\xff\x00").decode()),
    "nan": ([float("nan"), 1.5], None),
    "infinity": ([float("inf"), 1.5], None),
    "lists": ([[1.0, float("nan")], []], [1.0, None]),
    "struct": ([{"a": b"x", "b": [dt.date(2024, 1, 2)]}, None], {"a": "eA==", "b": ["2024-01-02"]}),
    "map": (pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int64())), [["k", 1]]),
}


def odd_table() -> pa.Table:
    """Two classification rows with a column of each type that JSON does not have."""
    return pa.table({"text": ["good", "bad"], "label": [1, 0], **{name: column for name, (column, _) in ODD.items()}})


def saved(folder: Path, how: str) -> Path:
    """The table as a file."""
    path, table = folder / f"odd.{how.partition('-')[0]}", odd_table()
    if how == "parquet":
        pq.write_table(table, path)
        return path
    new = pa.ipc.new_file if how == "arrow-file" else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as out, new(out, table.schema) as writer:
        writer.write(table)
    return path


def lines_of(rows: Rows, folder: Path) -> list[dict[str, Any]]:
    """What is written of rows."""
    rows.write(folder / "written.jsonl")
    return [json.loads(line) for line in (folder / "written.jsonl").read_text("utf-8").splitlines()]


@pytest.mark.parametrize("how", ["parquet", "arrow-file", "arrow-stream"])
def test_columns_that_no_task_reads_are_carried(how: str, tmp_path: Path) -> None:
    """Each type as text or null, in lists and structs too; the other columns stay as they are."""
    first, second = lines_of(read_rows(saved(tmp_path, how), check=classification.check), tmp_path)
    assert first == {"text": "good", "label": 1, **{name: carried for name, (_, carried) in ODD.items()}}
    assert second["text"] == "bad" and second["far"] == "1970-01-01T00:00:00" and second["nan"] == 1.5


def test_a_column_that_a_task_reads_is_checked_as_it_is(tmp_path: Path) -> None:
    """Bytes, dates and decimals are no text and no label, even if they could be carried as text."""
    pq.write_table(pa.table({"text": [b"good"], "label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(PruneError, match=r"a.parquet:row 1: text .* is a bytes; allowed: a string"):
        read_rows(tmp_path / "a.parquet", check=classification.check)
    pq.write_table(pa.table({"text": ["good"], "label": [dt.date(2024, 1, 2)]}), tmp_path / "b.parquet")
    with pytest.raises(PruneError, match=r"b.parquet:row 1: label .* is a date; allowed: an integer or a string"):
        read_rows(tmp_path / "b.parquet", check=classification.check)


def test_json_stays_strict(tmp_path: Path) -> None:
    """What JSON does not have is an error in JSON, also in a list, where a table would carry it."""
    (tmp_path / "a.json").write_text('[{"text": "good", "x": NaN}]')
    with pytest.raises(PruneError, match=r"a.json:row 1: x holds NaN or Infinity"):
        read_rows(tmp_path / "a.json", check=classification.check)


def test_dropped_columns_are_left_out(tmp_path: Path, prune: Prune, capsys: pytest.CaptureFixture[str]) -> None:
    """From tables and from JSONL, in what is written and in the digest; a key that no row has is told."""
    rows = read_rows(saved(tmp_path, "parquet"), check=None, drop=[*ODD])
    assert lines_of(rows, tmp_path) == [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]
    data = write_rows(tmp_path / "a.jsonl", [{"text": "good", "x": 1, "label": 0}, {"x": 2, "text": "bad"}])
    plain = write_rows(tmp_path / "b.jsonl", [{"text": "good", "label": 0}, {"text": "bad"}])
    rows = read_rows(data, check=classification.check, drop=["x", "y"])
    assert rows.digest == read_rows(plain, check=None).digest and rows[1] == {"text": "bad", "id": 2}
    assert capsys.readouterr().err == f"{data}: no row has the key y, which was to be dropped\n"
    select = ["select", data, "-o", tmp_path / "kept", "--method", "random", "--keep", 2, "--drop", "x"]
    assert prune(*select).code == 0
    assert '"x"' not in (tmp_path / "kept/select.jsonl").read_text()
    assert json.loads((tmp_path / "kept/manifest.json").read_text())["about"]["drop"] == ["x"]


def test_a_score_leads_back_to_rows_that_lost_a_column(tmp_path: Path, prune: Prune) -> None:
    """`select` of a score alone reads the rows again as they were read for the score."""
    data = write_rows(tmp_path / "a.jsonl", [{"text": f"t{i}", "x": i} for i in range(4)] + [{"text": ""}])
    read = ["--drop", "x", "--skip-bad", tmp_path / "bad.jsonl"]
    assert prune("score", data, "-o", tmp_path / "score", "--method", "random", *read).code == 0
    ran = prune("select", tmp_path / "score", "-o", tmp_path / "kept", "--method", "top", "--keep", 4)
    assert ran.code == 0, ran.err
    kept = (tmp_path / "kept/select.jsonl").read_text().splitlines()
    assert sorted(kept) == [json.dumps({"text": f"t{i}"}) for i in range(4)]


def test_blank_cells_are_missing(tmp_path: Path) -> None:
    """An optional column with blank cells is as if absent there; a blank text is told by its line."""
    path = tmp_path / "a.csv"
    path.write_text("id,text,text_pair,label,group\n,one,,1,\nx,two,more,,g\n")
    rows = read_rows(path, check=classification.check)
    assert rows.ids == [2, "x"]
    assert lines_of(rows, tmp_path)[0] == {"id": None, "text": "one", "text_pair": None, "label": 1, "group": None}
    assert [classification.text(row) for row in rows] == ["one", "two more"]
    assert classification.label_indices(rows, [0, 1]).tolist() == [1, -1]
    path.write_text("text,label\none,1\n,1\n")
    with pytest.raises(PruneError, match=r"a.csv:3: text is null; allowed: a string that is not blank"):
        read_rows(path, check=classification.check)


def test_strings_of_integers_go_with_integers(tmp_path: Path) -> None:
    """By their text they are the same labels; any other string beside integers is told, whichever comes first."""
    both = write_rows(tmp_path / "a.jsonl", [{"text": "a", "label": label} for label in ("1", 0, "0", 1)])
    rows = read_rows(both, check=classification.check)
    assert classification.label_list(rows) == [0, 1]
    assert classification.label_indices(rows, [0, 1]).tolist() == [1, 0, 0, 1]
    strings = write_rows(tmp_path / "b.jsonl", [{"text": "a", "label": label} for label in ("1", "x", "0")])
    assert classification.label_list(read_rows(strings, check=classification.check)) == ["0", "1", "x"]
    for labels, at in (((0, "1", "x"), 3), (("x", "1", 0), 3), ((0, "01"), 2)):
        mixed = write_rows(tmp_path / "c.jsonl", [{"text": "a", "label": label} for label in labels])
        with pytest.raises(PruneError, match=rf"c.jsonl:{at}: label .*, but the rows before it have"):
            read_rows(mixed, check=classification.check)
