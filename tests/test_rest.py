"""The rows that a selection leaves out: with it, all of them once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.options import Select
from prune_cli.stages.common import How, Outcome
from prune_cli.stages.rest import rest
from prune_cli.stages.select import select
from tests.conftest import read_rows, sentences, write_rows


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 rows without ids in unusual JSON, every third negative; a selection of all negative ones, `kept`."""
    rows = [{"label": row["label"], "text": f"{row['text']} {i}"} for i, row in enumerate(sentences(30))]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row, separators=(" ,", ":  ")) + "\n" for row in rows))
    (tmp_path / "mine.py").write_text(
        '"""Label 0 first."""\nimport numpy as np\n\n\n'
        'def first(label, n_keep):\n    return np.argsort(label, kind="stable")[:n_keep]\n'
    )
    kept(tmp_path, "10")
    return tmp_path


def kept(folder: Path, keep: str) -> Outcome:
    """Select so many rows into `kept`."""
    opts = Select(f"{folder / 'mine.py'}:first", keep)
    how = How(replace=True, warn=False)
    return select([str(folder / "rows.jsonl")], folder / "kept", opts, Reading(), how)


def left(folder: Path) -> Outcome:
    """The rest of `kept`."""
    data, selection = str(folder / "rows.jsonl"), str(folder / "kept")
    return rest(data, selection, folder / "rest", "classification", Reading(), How(replace=True))


def test_the_rest_and_the_selection_are_all_rows(folder: Path) -> None:
    """In the order of the data, as they came; the label without a row stays known, and is warned of."""
    assert left(folder).state == "made"
    lines = (folder / "rest/select.jsonl").read_text().splitlines()
    chosen = set((folder / "kept/select.jsonl").read_text().splitlines())
    assert lines == [line for line in (folder / "rows.jsonl").read_text().splitlines() if line not in chosen]
    ids = [line["id"] for line in read_rows(folder / "rest/why.jsonl") if line["kept"]]
    assert ids == [i + 1 for i in range(30) if i % 3]
    about = open_artifact(folder / "rest").about
    assert (about["rows"], about["kept"], about["labels"]) == (30, 20, ["negative", "positive"])
    assert about["warnings"] == ["1 of 2 labels has no row kept: negative (10 rows)"]


def test_it_follows_its_selection(folder: Path) -> None:
    """Up to date as long as the selection chooses the same rows, and no rest of all rows, or of others."""
    left(folder)
    assert left(folder).state == "current"
    kept(folder, "9")
    assert left(folder).state == "made" and open_artifact(folder / "rest").about["kept"] == 21
    kept(folder, "30")
    with pytest.raises(PruneError, match="keeps all 30 rows; allowed: one that leaves rows out"):
        left(folder)
    write_rows(folder / "rows.jsonl", sentences(30))
    with pytest.raises(PruneError, match=r"chosen from other rows than .*rows.jsonl"):
        left(folder)
