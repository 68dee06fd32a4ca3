"""Open the rows that a command is given: a data file, or an artifact that holds rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact, is_artifact, open_artifact
from prune_cli.data.fingerprints import IDS
from prune_cli.data.readers import data_name
from prune_cli.data.rows import Check, Rows, read_rows
from prune_cli.errors import PruneError

ROWS, SELECTED, WHY = "rows.jsonl", "select.jsonl", "why.jsonl"


def open_rows(data: str, fields: Mapping[str, str], check: Check | None) -> Rows:
    """Rows of a data file, or of an artifact that holds rows (represent: all of them, select: the kept ones).

    The rows of an artifact have the fields and ids that they had when it was made; `fields` is for data files.
    Raises PruneError, with file:line where a row is at fault.
    """
    path, ids_file = Path(data), None
    if is_artifact(path):
        artifact = open_artifact(path, "represent", "select")
        path = artifact.file(ROWS if artifact.stage == "represent" else SELECTED)
        fields, ids_file = artifact.about.get("fields", {}), _ids_file(artifact)
        data = str(path)
    elif data == "-" or not path.is_file():
        return read_rows(data, fields, check=check)
    status = path.stat()
    stamp = (status.st_ino, status.st_size, status.st_mtime_ns)
    return _read_once(data, stamp, tuple(sorted(fields.items())), check, ids_file)


def task_name(data: str, wanted: str) -> str:
    """The task meant by `wanted` for these rows: that of the artifact that holds them, if one does."""
    if not is_artifact(Path(data)):
        return wanted
    own = str(open_artifact(Path(data), "represent", "select").options["task"])
    if wanted not in ("auto", own):
        raise PruneError(f"task: {wanted}; {data} is of the task {own}; leave it out")
    return own


def test_sets(given: Sequence[str]) -> dict[str, str]:
    """Test sets by name: `ood=data/test.jsonl` says its own, any other is called by its file stem."""
    tests: dict[str, str] = {}
    for test in given:
        name, equals, data = test.partition("=")
        if not equals or "/" in name or Path(test).exists():
            name, data = data_name(test), test
        if name in tests:
            raise PruneError(
                f"two test sets are called {name}: {tests[name]} and {data}; allowed: names that differ",
                hint=f"name one yourself: {name}2={data}",
            )
        tests[name] = data
    return tests


@lru_cache(maxsize=8)
def _read_once(
    data: str,
    stamp: tuple[int, int, int],
    fields: tuple[tuple[str, str], ...],
    check: Check | None,
    ids_file: Path | None,
) -> Rows:
    """`read_rows`, once as long as the file stays the same: all steps of a pipeline open the same few files.

    The rows hold their file open, so that no other can have its inode.
    """
    ids = _ids(ids_file) if ids_file else None
    return read_rows(data, dict(fields), check=check, ids=ids)


def _ids_file(artifact: Artifact) -> Path | None:
    """The file of an artifact that says the ids of its rows; None if it has none, and ids are those in the rows."""
    name = IDS if artifact.stage == "represent" else WHY
    return artifact.file(name) if name in artifact.files else None


def _ids(file: Path) -> list[int | str]:
    """The ids in order of an artifact's rows: of all lines, or in `why.jsonl` of the kept ones by rank."""
    if file.name == IDS:
        return [line["id"] for line in read_jsonl(file)]
    kept = [(line["rank"], line["id"]) for line in read_jsonl(file) if line["kept"]]
    return [row_id for _, row_id in sorted(kept, key=lambda line: line[0])]
