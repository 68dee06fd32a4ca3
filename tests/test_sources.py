"""What DATA names: packed files, patterns, folders of the library datasets, data sets of the hub."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pytest
from datasets.exceptions import DatasetNotFoundError

from prune_cli.data.rows import read_rows
from prune_cli.data.sources import data_name
from prune_cli.errors import PruneError
from prune_cli.tasks import classification
from tests.conftest import Prune, sentences, write_rows

ROWS: list[dict[str, Any]] = [{"text": f"text {i}", "label": i % 2} for i in range(5)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
TABLE = b"text,label\n" + b"".join(b"%s,%d\n" % (str(row["text"]).encode(), row["label"]) for row in ROWS)
CONTENT = {
    "jsonl": LINES,
    "ndjson": LINES,
    "json": json.dumps(ROWS).encode(),
    "csv": TABLE,
    "tsv": TABLE.replace(b",", b"\t"),
}


def zstd(data: bytes) -> bytes:
    """Packed by the library of Arrow, in two frames, as parallel packers write them."""
    half = data.index(b"\n", len(data) // 2) + 1 if b"\n" in data else len(data)
    return b"".join(pa.Codec("zstd").compress(part, asbytes=True) for part in (data[:half], data[half:]))


@pytest.mark.parametrize("packed", ["", ".gz", ".zst"])
@pytest.mark.parametrize("kind", CONTENT)
def test_files_of_every_kind_hold_the_same_rows(kind: str, packed: str, tmp_path: Path) -> None:
    """Packed or not; named by the stem."""
    pack: Any = {"": bytes, ".gz": gzip.compress, ".zst": zstd}[packed]
    path = tmp_path / f"data.{kind}{packed}"
    path.write_bytes(pack(CONTENT[kind]))
    rows = read_rows(path, check=classification.check)
    assert [{key: row[key] for key in ("text", "label")} for row in rows] == ROWS
    assert rows.name == "data"


@pytest.mark.parametrize(("name", "pack"), [("a.jsonl.gz", gzip.compress), ("a.jsonl.zst", zstd), ("a.csv.zst", zstd)])
def test_a_packed_file_that_is_cut_short_is_refused(name: str, pack: Any, tmp_path: Path) -> None:
    """Also where whole rows stand before the cut."""
    content = CONTENT["csv" if "csv" in name else "jsonl"] * (1 if "csv" in name else 2000)
    (tmp_path / name).write_bytes(pack(content)[:-6])
    with pytest.raises(PruneError, match=f"{name}: cannot be read"):
        read_rows(tmp_path / name, check=classification.check)


def test_a_packed_name_without_a_kind_is_jsonl(tmp_path: Path) -> None:
    """00.zst, as large collections have them; a packed Parquet is of no known kind."""
    (tmp_path / "00.zst").write_bytes(zstd(LINES))
    assert len(read_rows(tmp_path / "00.zst", check=None)) == 5
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(PruneError, match=r"a.parquet.gz: unknown kind of file"):
        read_rows(tmp_path / "a.parquet.gz", check=None)


def test_a_pattern_is_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order of name; rows without an id have running numbers, and places are those of their own files."""
    monkeypatch.chdir(tmp_path)
    write_rows(Path("part-1.jsonl"), ROWS[:2])
    Path("part-2.csv.gz").write_bytes(gzip.compress(b"text,label\ntext 2,0\ntext 3,1\n"))
    Path("part-3.json").write_text(json.dumps(ROWS[4:]))
    rows = read_rows("part-*", check=classification.check)
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS]
    assert (rows.ids, rows.name) == ([1, 2, 3, 4, 5], "part")
    places = ["part-1.jsonl:1", "part-1.jsonl:2", "part-2.csv.gz:2", "part-2.csv.gz:3", "part-3.json:row 1"]
    assert [rows.where(i) for i in range(5)] == places
    assert rows.digest == read_rows(write_rows(Path("whole.jsonl"), ROWS), check=None).digest
    Path("part-2.csv.gz").write_bytes(gzip.compress(b"text,label\ntext 2,0\n,1\n"))
    Path("part-3.json").write_text("[3]")
    with pytest.raises(PruneError) as refused:
        read_rows("part-*", check=classification.check)
    assert refused.value.message.startswith("part-2.csv.gz:3: text is null")
    assert refused.value.also[0].startswith("part-3.json:row 1: the row is a number")
    with pytest.raises(PruneError, match=r"none-\*: no file has such a name; allowed: "):
        read_rows("none-*", check=None)
    Path("part-*").write_bytes(b"")  # a file of that very name is no pattern
    with pytest.raises(PruneError, match="unknown kind of file"):
        read_rows("part-*", check=None)


def test_ids_are_unique_over_all_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An id that another file has is told with both places."""
    monkeypatch.chdir(tmp_path)
    write_rows(Path("a-1.jsonl"), sentences(2))
    write_rows(Path("a-2.jsonl"), [sentences(9)[8], sentences(2)[1]])
    with pytest.raises(PruneError, match=r'a-2.jsonl:2: id "row-1" is that of a-1.jsonl:2 too'):
        read_rows("a-?.jsonl", check=None)


def test_the_labels_of_several_tables_are_of_one_type(tmp_path: Path) -> None:
    """Integers only where those of all files are."""
    for name, labels in (("1", ["1", "2"]), ("2", ["3", "x"])):
        (tmp_path / f"{name}.csv").write_text("text,label\n" + "".join(f"t,{label}\n" for label in labels))
    assert [row["label"] for row in read_rows(tmp_path / "[12].csv", check=classification.check)] == list("123x")
    assert [row["label"] for row in read_rows(tmp_path / "1.csv", check=classification.check)] == [1, 2]


def test_commands_take_patterns(tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """A selection, and a selection by a score that leads back to the files; a changed file is noticed."""
    monkeypatch.chdir(tmp_path)
    write_rows(Path("p-1.jsonl"), ROWS[:2])
    write_rows(Path("p-2.jsonl"), ROWS[2:])
    assert prune("score", "p-*.jsonl", "-o", "score", "--method", "random").code == 0
    select = ["select", "score", "-o", "kept", "--method", "top", "--keep", 5]
    assert prune(*select).code == 0
    assert sorted(Path("kept/select.jsonl").read_bytes().splitlines()) == LINES.splitlines()
    assert "up to date" in prune(*select).err
    write_rows(Path("p-2.jsonl"), ROWS[3:])
    assert prune("score", "p-*.jsonl", "-o", "score", "--method", "random").errors[0].endswith("input rows changed")


def test_folders_of_save_to_disk(tmp_path: Path) -> None:
    """A data set, and one of several splits: `train` if no other is asked for."""
    whole = datasets.Dataset.from_list(ROWS)
    whole.select([3, 1]).save_to_disk(tmp_path / "one")  # by positions, which the library keeps apart
    datasets.DatasetDict({"train": whole, "test": whole.select([4])}).save_to_disk(tmp_path / "many")
    read = {name: read_rows(f"{tmp_path}/{name}", check=classification.check) for name in ("one", "many", "many:test")}
    assert [row["text"] for row in read["one"]] == ["text 3", "text 1"]
    assert [row["text"] for row in read["many"]] == [row["text"] for row in ROWS]
    assert [(rows.name, len(rows)) for rows in read.values()] == [("one", 2), ("many", 5), ("many-test", 1)]
    assert read["one"].where(1) == f"{tmp_path}/one:row 2"
    with pytest.raises(PruneError, match=r"many:dev: no split dev; allowed: train, test"):
        read_rows(f"{tmp_path}/many:dev", check=None)
    with pytest.raises(PruneError, match="one:train: the folder holds one data set, without splits"):
        read_rows(f"{tmp_path}/one:train", check=None)


HUB = {  # DATA -> what the library is asked for
    "hf:squad": ("squad", None, "train"),
    "hf:squad:validation": ("squad", None, "validation"),
    "hf:owner/name:test": ("owner/name", None, "test"),
    "hf:glue/sst2:validation": ("glue", "sst2", "validation"),
    "hf:owner/name/config": ("owner/name", "config", "train"),
}


@pytest.mark.parametrize("data", HUB)
def test_data_sets_of_the_hub(data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two parts are an owner and a name where the hub has them, else a name and a configuration."""
    asked = []

    def load_dataset(name: str, config: str | None, *, split: str, streaming: bool) -> Any:
        asked.append((name, config, split))
        if name not in ("squad", "owner/name", "glue"):
            raise DatasetNotFoundError(f"no {name}")
        return datasets.Dataset.from_list(ROWS).to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    rows = read_rows(data, check=classification.check)
    assert asked[-1] == HUB[data] and len(rows) == 5 and rows.where(4) == f"{data}:row 5"
    with pytest.raises(PruneError, match=r"hf:nothing: cannot be read \(no nothing\)"):
        read_rows("hf:nothing", check=None)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        ("a/b.jsonl", "b"),
        ("a/b.csv.gz", "b"),
        ("a/part-*.jsonl", "part"),
        ("a/*.jsonl", "a"),
        ("*.jsonl", "rows"),
        ("hf:o/n/c:s", "c-s"),
        ("-", "stdin"),
    ],
)
def test_what_data_is_called(data: str, name: str) -> None:
    """By its stem; a pattern by what stands before the wildcard, or by its folder."""
    assert data_name(data) == name
