"""Files of rows that are read otherwise than they were meant: told by line, or read as what they are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from prune_cli.data.rows import Rows, read_rows
from prune_cli.errors import PruneError
from prune_cli.tasks import classification
from tests.conftest import Prune, write_rows
from tests.test_model_folders import refused


def csv(path: Path, labels: list[str]) -> Path:
    """A CSV of texts with these labels."""
    words = ["good", "bad", "fine", "poor"]
    path.write_text("text,label\n" + "".join(f"the film is {words[i % 4]},{x}\n" for i, x in enumerate(labels)))
    return path


@pytest.fixture
def mixed_labels(prune: Prune, tiny_model: Path, tmp_path: Path) -> Path:
    """A model trained on a CSV whose labels 1, 2 and 3a are strings, as not all are whole numbers."""
    ran = prune(
        "finetune", csv(tmp_path / "train.csv", ["1", "2", "3a", "1"]), "-o", tmp_path / "m", "--model", tiny_model
    )
    assert ran.code == 0, ran.err
    return tmp_path / "m"


def test_cells_are_read_as_the_type_of_the_labels(prune: Prune, mixed_labels: Path, tmp_path: Path) -> None:
    """A CSV with whole numbers alone is evaluated and represented by a model of string labels, as the same strings."""
    test = csv(tmp_path / "test.csv", ["1", "2", "2"])
    same = tmp_path / "same.jsonl"
    write_rows(same, [{**row, "label": str(row["label"])} for row in read_rows(test, check=None)])
    for name, data in (("csv", test), ("jsonl", same)):
        ran = prune("eval", mixed_labels, data, "-o", tmp_path / f"eval-{name}")
        assert ran.code == 0, ran.err
        represented = tmp_path / f"represent-{name}"
        ran = prune("represent", data, "-o", represented, "--model", mixed_labels, "--kind", "dynamics")
        assert ran.code == 0, ran.err
        ran = prune("score", represented, "-o", tmp_path / f"score-{name}", "--method", "el2n")
        assert ran.code == 0, ran.err
    ours = [json.loads((tmp_path / f"eval-{n}" / "metrics.json").read_text()) for n in ("csv", "jsonl")]
    assert list(ours[0].values()) == [next(iter(ours[0].values()))] and ours[0]["test"] == ours[1]["same"]
    bytes_of = [(tmp_path / f"represent-{n}" / "dynamics.safetensors").read_bytes() for n in ("csv", "jsonl")]
    assert bytes_of[0] == bytes_of[1]


def test_training_goes_on_with_the_head_whatever_type_a_csv_has(
    prune: Prune, tiny_model: Path, mixed_labels: Path, tmp_path: Path
) -> None:
    """Labels "1" and "2" of JSONL and 1 and 2 of a CSV are the same head: none is drawn anew."""
    rows = [{"text": f"the film is {w}", "label": x} for w, x in (("good", "1"), ("bad", "2"))]
    strings = write_rows(tmp_path / "strings.jsonl", rows)
    assert prune("finetune", strings, "-o", tmp_path / "a", "--model", tiny_model).code == 0
    ran = prune("finetune", csv(tmp_path / "c.csv", ["1", "2"]), "-o", tmp_path / "b", "--model", tmp_path / "a")
    assert ran.code == 0 and "a new head is drawn" not in ran.err, ran.err
    assert json.loads((tmp_path / "b" / "manifest.json").read_text())["about"]["labels"] == ["1", "2"]


def test_a_pipeline_reads_the_labels_of_its_tests_as_those_of_its_training_rows(
    prune: Prune, tiny_model: Path, tmp_path: Path
) -> None:
    """A test set in CSV with whole numbers alone passes the checks of a pipeline whose training labels are strings."""
    csv(tmp_path / "train.csv", ["1", "2", "3a", "1"])
    csv(tmp_path / "test.csv", ["1", "2"])
    lines = [
        'train = "train.csv"',
        'tests = {test = "test.csv"}',
        f"model = {json.dumps(str(tiny_model))}",
        'methods = ["random"]',
        "keep = [0.75]",
        "seeds = [0]",
    ]
    (tmp_path / "p.toml").write_text("\n".join(lines) + "\n")
    ran = prune("pipeline", tmp_path / "p.toml", "-o", tmp_path / "out", "--dry-run")
    assert ran.code == 0, ran.err


@pytest.mark.parametrize(("labels", "given", "expected"), [(["1", "2"], [2, 1], [1, 0]), ([1, 2], ["2", "1"], [1, 0])])
def test_labels_are_compared_by_their_text(
    labels: list[Any], given: list[Any], expected: list[int], tmp_path: Path
) -> None:
    """Either type finds its label of the other; another text (01, 1.0) finds none, and is named by its own line."""
    rows = read_rows(write_rows(tmp_path / "a.jsonl", [{"text": "a", "label": label} for label in given]), check=None)
    assert classification.label_indices(rows, labels).tolist() == expected
    for other in ("01", "1.0", " 1", "3a"):
        some = [{"text": "a", "label": label} for label in ("1", other)]
        bad: Rows = read_rows(write_rows(tmp_path / "b.jsonl", some), check=None)
        with pytest.raises(PruneError, match=f"b.jsonl:2: label '{other}' is not among those trained on"):
            classification.label_indices(bad, labels)


def read(path: Path, content: bytes) -> list[dict[str, Any]]:
    """The rows of a file of this content, without their ids."""
    path.write_bytes(content)
    return [{k: v for k, v in row.items() if k != "id"} for row in read_rows(path, check=None)]


STRAY = b'text\tlabel\n"good\ta\nbad\tb\nfine"\tc\nso "so"\td\n'


def test_a_stray_quote_in_a_tsv_merges_no_rows(tmp_path: Path, prune: Prune) -> None:
    """All four rows are there, each quotation mark as it stands; `select` keeps as many as are asked for."""
    rows = [tuple(row.values()) for row in read(tmp_path / "a.tsv", STRAY)]
    assert rows == [('"good', "a"), ("bad", "b"), ('fine"', "c"), ('so "so"', "d")]
    ran = prune("select", tmp_path / "a.tsv", "-o", tmp_path / "kept", "--method", "random", "--keep", "1.0", "--json")
    assert ran.code == 0 and "quotation marks" not in ran.err
    assert len((tmp_path / "kept" / "select.jsonl").read_text().splitlines()) == 4


def test_a_tsv_with_a_quoted_header_is_read_as_quoted(tmp_path: Path) -> None:
    """The header says that quotation marks mean something: doubled ones, tabs in cells."""
    content = b'\xef\xbb\xbf"text"\tlabel\n"a ""b""\tc"\t1\nplain\t2\n'
    assert read(tmp_path / "a.tsv", content) == [{"text": 'a "b"\tc', "label": 1}, {"text": "plain", "label": 2}]


def test_a_cell_of_a_tsv_that_spans_lines_is_refused_by_its_lines(tmp_path: Path) -> None:
    """Also where a quoted header allows quotation marks; a CSV may have such cells, as RFC 4180 says."""
    quoted = b'"text"\t"label"\nfine\ta\n"good\nor\nbad"\tb\n'
    with pytest.raises(PruneError, match=r"a.tsv:3: a cell spans lines 3-5; allowed: cells on one line"):
        read(tmp_path / "a.tsv", quoted)
    with pytest.raises(PruneError, match=r"a.tsv:3: a cell spans lines 3-5|a.tsv:3: broken TSV"):
        read(tmp_path / "a.tsv", b'"text"\t"label"\nfine\ta\n"good\tb\nor\tc\nbad\td\n')
    rows = read(tmp_path / "a.csv", quoted.replace(b"\t", b","))
    assert rows == [{"text": "fine", "label": "a"}, {"text": "good\nor\nbad", "label": "b"}]


def test_quoted_cells_below_a_plain_header_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Some programs quote only the cells that need it: these are read as they stand, and told once."""
    rows = read(tmp_path / "a.tsv", b'text\tlabel\nplain\t1\n"a ""b"""\t2\n"c"\t3\n')
    assert [row["text"] for row in rows] == ["plain", '"a ""b"""', '"c"']
    assert capsys.readouterr().err.count("a.tsv:3: quotation marks about a cell are read as text") == 1


PRETTY = json.dumps({"text": "fine", "label": "a"}, indent=1)


@pytest.mark.parametrize("name", ["a.jsonl", "a.json"])
@pytest.mark.parametrize(
    "content", [PRETTY, f"{PRETTY}\n{PRETTY}\n", '{"text": "fine",\n"label": "a"}\n', '{"data": [\n{}]}']
)
def test_json_over_several_lines_is_told_as_such(name: str, content: str, tmp_path: Path) -> None:
    """Pretty-printed objects, one or many, in either kind of file: the line where one goes on, and what to do."""
    with pytest.raises(PruneError, match=rf"{name}:1: a JSON value that goes on in the next line; allowed") as failure:
        read(tmp_path / name, content.encode())
    assert "a line of its own" in str(failure.value.hint)


def test_json_over_several_lines_is_told_by_its_line(tmp_path: Path) -> None:
    """Also behind good rows; a line that is only cut short stays broken JSON, and a pretty list is read."""
    with pytest.raises(PruneError, match=r"a.jsonl:2: a JSON value that goes on"):
        read(tmp_path / "a.jsonl", f'{{"text": "a"}}\n{PRETTY}'.encode())
    with pytest.raises(PruneError, match=r"a.jsonl:2: broken JSON at column"):
        read(tmp_path / "a.jsonl", b'{"text": "a"}\n{"text": "b"\n')
    assert read(tmp_path / "a.json", f"[{PRETTY}]".encode()) == [json.loads(PRETTY)]


@pytest.mark.parametrize(
    ("task", "row", "pair"),
    [
        ("classification", {"text": "fine", "category": "a"}, "label=category"),
        ("classification", {"sentence": "fine", "label": "a"}, "text=sentence"),
        ("classification", {"sentence": "fine", "idx": 3, "label": "a"}, "text=sentence"),
        ("classification", {"id": 3, "group": "g", "text": "fine", "zzz": "a"}, "label=zzz"),
        ("classification", {"text": "fine", "Labels": "a", "x": 1}, "label=Labels"),
        ("classification", {"text": "fine", "x": "a", "y": 1}, "label=KEY"),
        ("classification", {"text": "fine", "my class": 1}, "'label=my class'"),
        ("choice", {"question": "fine", "options": ["a", "b"], "label": 0}, "choices=options"),
        ("generation", {"prompt": "fine", "solution": "a", "level": 3}, "response=solution"),
    ],
)
def test_a_missing_key_is_told_with_the_field_that_reads_another(
    task: str, row: dict[str, Any], pair: str, tmp_path: Path, prune: Prune, tiny_model: Path
) -> None:
    """The closest key, else the only other one; as an option, and as it stands in a pipeline. The hint works."""
    data = write_rows(tmp_path / "a.jsonl", [row])
    command = ["score", data, "-o", tmp_path / "out", "--method", "random", "--task", task]
    needs_label = ["finetune", data, "-o", tmp_path / "out", "--model", tiny_model]
    ran = prune(*(needs_label if "label=" in pair else command))
    refused(ran, f"{data}:1: no ")
    name, key = pair.strip("'").split("=")
    assert f"hint: --field {pair} reads that key as {name}; in a pipeline: fields = {{{name} = " in ran.err
    if key != "KEY":
        assert prune(*command, "--field", pair.strip("'")).code == 0
        lines = [
            f'task = "{task}"',
            f'train = "{data}"',
            f"tests = {{test = {json.dumps(str(data))}}}",
            f"model = {json.dumps(str(tiny_model))}",
            'methods = ["random"]\nkeep = [1]\nseeds = [0]\n',
        ]
        (tmp_path / "p.toml").write_text("\n".join(lines))
        told = prune("pipeline", tmp_path / "p.toml", "-o", tmp_path / "runs", "--dry-run")
        assert told.code == 1 and f"fields = {{{name} = {json.dumps(key)}}}" in told.err


def test_a_file_that_is_missing_is_not_called_damaged(prune: Prune, made: Path, tmp_path: Path) -> None:
    """A command and `show` say of an artifact's file that it is missing, or that it differs."""
    score = Path(shutil.copytree(made / "score", tmp_path / "score"))
    (score / "score.jsonl").unlink()
    ran = prune("select", score, made / "train", "-o", tmp_path / "out", "--method", "top", "--keep", "0.5")
    refused(ran, f"{score / 'score.jsonl'}: is missing")
    assert "score.jsonl is missing" in prune("show", score).out
    (score / "score.jsonl").write_text("{}")
    ran = prune("select", score, made / "train", "-o", tmp_path / "out", "--method", "top", "--keep", "0.5")
    refused(ran, f"{score / 'score.jsonl'}: differs from what was written")
    assert "score.jsonl differs" in prune("show", score).out
