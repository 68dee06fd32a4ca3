"""Open the rows that a command is given: a data file, or an artifact that holds rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact, is_artifact, open_artifact
from prune_cli.data import formats
from prune_cli.data.fingerprints import IDS
from prune_cli.data.readers import data_name
from prune_cli.data.rows import Check, Rows, read_rows, reopen_rows
from prune_cli.errors import PruneError

ROWS, SELECTED, WHY = "rows.jsonl", "select.jsonl", "why.jsonl"


def open_rows(data: str, fields: Mapping[str, str], check: Check | None, format: str | None = None) -> Rows:
    """Rows of a data file, or of an artifact that holds rows (represent: all of them, select: the kept ones).

    The rows of an artifact have the fields, the format and the ids that they had when it was made; `fields` and `check`
    are for data files. Raises PruneError, with file:line where a row is at fault, and for another `format` than the
    artifact's.
    """
    path = Path(data)
    if is_artifact(path):
        rows = _rows_of(open_artifact(path, "represent", "select"))
        if format not in (None, formats.AUTO, rows.format):
            raise PruneError(f"format: {format}; the rows of {data} are of the format {rows.format}; leave it out")
        return rows
    if data == "-" or not path.is_file():
        return read_rows(data, fields, check=check, format=format)
    return _read_once(data, _stamp(path), tuple(sorted(fields.items())), check, format)


def rows_behind(artifact: Artifact) -> Rows:
    """The rows that a score was made of, from where they were. Raises PruneError if they are gone or have changed."""
    origin = artifact.origin("rows")
    if not origin.exists():
        raise PruneError(
            f"{artifact.path}: the rows that it scored are no longer at {origin}",
            hint="name the represent artifact or the data file as well",
        )
    rows: Rows | None
    if origin.suffix == ".jsonl":
        ids = _Ids(artifact.file(IDS), kept=False)
        rows = _reopen_once(origin, _stamp(origin), _fields(artifact), _format(artifact), ids, artifact.inputs["rows"])
    else:
        rows = open_rows(str(origin), dict(_fields(artifact)), None, _format(artifact))
    if rows is None or rows.digest != artifact.inputs["rows"]:
        raise PruneError(
            f"{origin}: changed since {artifact.path} scored its rows",
            hint="score again, or name the rows as they were then",
        )
    return rows


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


@dataclass(frozen=True)
class _Ids:
    """A file of an artifact that says the ids of rows: of all lines, or in `why.jsonl` of the kept ones by rank."""

    path: Path
    kept: bool

    def read(self) -> list[int | str]:
        """The ids, in the order of the rows."""
        if not self.kept:
            return [line["id"] for line in read_jsonl(self.path)]
        kept = [(line["rank"], line["id"]) for line in read_jsonl(self.path) if line["kept"]]
        return [row_id for _, row_id in sorted(kept, key=lambda line: line[0])]


def _rows_of(artifact: Artifact) -> Rows:
    """The rows that an artifact holds."""
    selected = artifact.stage == "select"
    path = artifact.file(SELECTED if selected else ROWS)
    ids = _Ids(artifact.file(WHY if selected else IDS), kept=selected)
    rows = _reopen_once(path, _stamp(path), _fields(artifact), _format(artifact), ids, artifact.about["digest"])
    if rows is None:
        raise PruneError(f"{path}: differs from what was written", hint="make the artifact again with --force")
    return rows


def _fields(artifact: Artifact) -> tuple[tuple[str, str], ...]:
    """The names under which the keys of an artifact's rows are read."""
    return tuple(sorted(artifact.about["fields"].items()))


def _format(artifact: Artifact) -> str | None:
    """The format of an artifact's rows; None where its task has none."""
    return artifact.about.get("format")


def _stamp(path: Path) -> tuple[int, int, int]:
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=8)
def _read_once(
    data: str,
    stamp: tuple[int, int, int],
    fields: tuple[tuple[str, str], ...],
    check: Check | None,
    format: str | None,
) -> Rows:
    """`read_rows`, once as long as the file stays the same: all steps of a pipeline open the same few files.

    The rows hold their file open, so that no other can have its inode.
    """
    return read_rows(data, dict(fields), check=check, format=format)


@lru_cache(maxsize=8)
def _reopen_once(
    path: Path,
    stamp: tuple[int, int, int],
    fields: tuple[tuple[str, str], ...],
    format: str | None,
    ids: _Ids,
    digest: str,
) -> Rows | None:
    """`reopen_rows`, once as long as the file stays the same."""
    return reopen_rows(path, dict(fields), format, ids.read(), digest)
