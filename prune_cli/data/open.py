"""Open the rows that a command is given: a data file, or an artifact that holds rows."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from prune_cli.artifacts.files import alone, replace_file
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact, is_artifact, open_artifact
from prune_cli.data import formats
from prune_cli.data.fields import Fields, pairs_of, settled
from prune_cli.data.fingerprints import IDS
from prune_cli.data.rows import Check, Rows, read_rows, reopen_rows
from prune_cli.data.sources import HUB, STDIN, data_name, files_of, reads
from prune_cli.errors import PruneError
from prune_cli.runtime import processes

HOLDING = ("represent", "select", "corrupt")  # stages whose artifacts hold rows
ROWS, SELECTED, WHY = "rows.jsonl", "select.jsonl", "why.jsonl"


@dataclass(frozen=True)
class Reading:
    """How rows of data files are read; those of artifacts are as they were read then.

    fields: name -> the key read under that name, or keys, of which the first that the data have is read, if any. drop:
    keys that rows lose. skip_bad: rows that break a rule are left out, and told in the file `bad_rows`, if there is
    one. format: the name of the rows' format (formats/), or `auto`, as they look; None for rows of a task without
    formats.
    """

    fields: Fields = field(default_factory=dict)
    drop: tuple[str, ...] = ()
    skip_bad: bool = False
    bad_rows: Path | None = None
    format: str | None = formats.AUTO


def check_of_use(names: Iterable[str], reading: Reading) -> None:
    """Raise PruneError where it is said how rows are read, and all that is given are artifacts, which know it.

    And where standard input is given twice, which is read but once.
    """
    names = list(names)
    if names.count("-") > 1:
        raise PruneError("-: given twice; allowed: one of the inputs on standard input")
    if not all(is_artifact(Path(name)) for name in names):
        return
    given = {
        "field": ", ".join(f"{name}={key}" for name, key in pairs_of(reading.fields)),
        "drop": ", ".join(reading.drop),
        "format": reading.format if reading.format not in (None, formats.AUTO) else "",
    }
    for option, value in given.items():
        if value:
            raise PruneError(f"{option}: {value}; allowed for data files; leave it out, artifacts know it")


def open_rows(data: str, reading: Reading, check: Check | None) -> Rows:
    """Rows of a data file, or of an artifact that holds rows (represent and corrupt: all, select: the kept ones).

    The rows of an artifact have the fields, the format and the ids that they had when it was made; `reading` and
    `check` are for data files. Raises PruneError, with file:line where a row is at fault, and for another format than
    the artifact's.
    """
    path = Path(data)
    if is_artifact(path):
        rows = _rows_of(open_artifact(path, *HOLDING))
        if reading.format not in (None, formats.AUTO, rows.format):
            told = f"format: {reading.format}; the rows of {data} are of the format {rows.format}; leave it out"
            raise PruneError(told)
        return rows
    if reading.bad_rows and reads(data, reading.bad_rows):
        raise PruneError(f"skip_bad: {reading.bad_rows}; it would be read as data, by {data}; allowed: another file")
    fields = settled(data, reading.fields)
    stamps = tuple((str(file), *_stamp(file)) for file in files_of(data))
    if not stamps:
        return read_rows(
            data,
            fields,
            check=check,
            drop=reading.drop,
            skip_bad=reading.skip_bad,
            format=reading.format,
        )
    return _read_once(
        data, stamps, tuple(sorted(fields.items())), check, reading.drop, reading.skip_bad, reading.format
    )


def read_as(rows: Rows, target: Rows | None = None) -> dict[str, Any]:
    """How rows were read, as the manifest of what is made of them says it; `Reading` of it reads them again.

    target: the target rows, where these are a data file too, of which only the keys may differ.
    """
    return {
        "fields": dict(rows.fields),
        **({"target_fields": dict(target.fields)} if target and target.fields != rows.fields else {}),
        **({"format": rows.format} if rows.format else {}),
        **({"detected": True} if rows.detected else {}),
        **({"drop": list(rows.drop)} if rows.drop else {}),
        **({"bad_rows": rows.left_out.count} if rows.left_out else {}),
    }


def reading_behind(about: Mapping[str, Any]) -> Reading:
    """How rows were read, as `read_as` wrote it."""
    written = formats.AUTO if about.get("detected") else about.get("format")
    return Reading(about["fields"], tuple(about.get("drop", ())), "bad_rows" in about, format=written)


def source_of(place: str) -> str:
    """The name of the data that rows are from; artifacts lead back to what they were made of."""
    path = Path(place)
    if is_artifact(path):
        with suppress(PruneError):  # one that was damaged since, behind what is used here, is called by its own name
            return source_behind(open_artifact(path), "rows")
    return {STDIN: "standard input"}.get(place, place if place.startswith(HUB) else path.name)


def source_behind(artifact: Artifact, role: str) -> str:
    """The name of the data that an input of an artifact is from."""
    origin = artifact.origin(role)
    return source_of(str(origin) if origin.exists() else str(artifact.manifest["made"]["inputs"][role]))


def write_bad_rows(path: Path, given: Sequence[Rows]) -> None:
    """Write the bad rows that were left out of all the rows given into a file.

    A line for each: {"where", "problem", "row"}, or "text" in place of "row" where it is no row at all. Raises
    PruneError where the file is there and is no such list.
    """
    if not processes.first():
        return
    if path.exists() and not _is_told(path):
        raise PruneError(f"{path}: exists and is no list of bad rows; choose another --skip-bad")

    def write(scratch: Path) -> None:
        with scratch.open("wb") as out:
            for left_out in [rows.left_out for rows in given if rows.left_out]:
                left_out.file.seek(0)
                shutil.copyfileobj(left_out.file, out)

    path.parent.mkdir(parents=True, exist_ok=True)
    with alone(path.parent):  # runs that share a folder write it too
        replace_file(path, write)


def rows_behind(artifact: Artifact, check: Check | None) -> Rows:
    """The rows that a score or selection was made of, from where they were.

    Raises PruneError if they are gone or have changed.
    """
    did = "scored" if artifact.stage == "score" else "chose from"
    origin = artifact.origin("rows")
    about = artifact.about
    reading = reading_behind(about)
    place = str(origin) if origin.exists() else str(artifact.manifest["made"]["inputs"]["rows"])  # a pattern, the hub
    if not origin.exists() and not files_of(place):
        where = "came from stdin" if origin.name == "-" else f"are no longer at {origin}"
        raise PruneError(
            f"{artifact.path}: the rows that it {did} {where}",
            hint="name the represent artifact or the data file as well",
        )
    rows: Rows | None
    if origin.suffix == ".jsonl" and origin.exists() and not reading.drop and not reading.skip_bad:
        ids = _Ids(artifact.file(IDS if artifact.stage == "score" else WHY), kept=False)
        rows = _reopen_once(origin, _stamp(origin), _fields(artifact), _format(artifact), ids, artifact.inputs["rows"])
    else:
        rows = open_rows(place, reading, check)
    if rows is None or rows.digest != artifact.inputs["rows"]:
        raise PruneError(
            f"{origin}: changed since {artifact.path} {did} its rows",
            hint=f"{artifact.stage} again, or name the rows as they were then",
        )
    return rows


def task_name(data: str, wanted: str) -> str:
    """The task meant by `wanted` for these rows: that of the artifact that holds them, if one does."""
    if not is_artifact(Path(data)):
        return wanted
    own = str(open_artifact(Path(data), *HOLDING).options["task"])
    if wanted not in ("auto", own):
        raise PruneError(f"task: {wanted}; {data} is of the task {own}; leave it out")
    return own


LM_EVAL = "lm-eval:"  # before tasks of lm-evaluation-harness, in place of a data file


def test_sets(given: Sequence[str]) -> dict[str, str]:
    """Test sets by name: `ood=data/test.jsonl` says its own, any other is called by its file stem.

    Tasks of lm-eval, as in `lm-eval:gsm8k,arc_easy`, are called by their names, each a test set.
    """
    tests: dict[str, str] = {}
    for test in (part for entry in given for part in _parts(entry)):
        name, equals, data = test.partition("=")
        if test.startswith(LM_EVAL):
            name, data = test.removeprefix(LM_EVAL), test
        elif not equals or "/" in name or Path(test).exists():
            name, data = data_name(test), test
        if name in tests:
            raise PruneError(
                f"two test sets are called {name}: {tests[name]} and {data}; allowed: names that differ",
                hint=f"name one yourself: {name}2={data}",
            )
        tests[name] = data
    return tests


def _parts(given: str) -> list[str]:
    """What was given, or each of the tasks of lm-eval in it."""
    name, prefix, tasks = given.rpartition(LM_EVAL)
    if not prefix or (name and not name.endswith("=")):
        return [given]
    return [f"{name}{LM_EVAL}{task.strip()}" for task in tasks.split(",")]


@dataclass(frozen=True)
class _Ids:
    """A file of an artifact that says the ids of rows: of all lines, or in `why.jsonl` of the kept ones.

    ranked: whether the rows stand in the order of their ranks, or in that of the lines.
    """

    path: Path
    kept: bool
    ranked: bool = False

    def read(self) -> list[int | str]:
        """The ids, in the order of the rows."""
        if not self.kept:
            return [line["id"] for line in read_jsonl(self.path)]
        kept = [(line["rank"], line["id"]) for line in read_jsonl(self.path) if line["kept"]]
        return [row_id for _, row_id in (sorted(kept, key=lambda line: line[0]) if self.ranked else kept)]


def _rows_of(artifact: Artifact) -> Rows:
    """The rows that an artifact holds."""
    selected = artifact.stage == "select"
    path = artifact.file(SELECTED if selected else ROWS)
    ranked = selected and artifact.options.get("order", "best") == "best"
    ids = _Ids(artifact.file(WHY if selected else IDS), kept=selected, ranked=ranked)
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


def _is_told(path: Path) -> bool:
    """Whether a file is a list of bad rows, or empty."""
    with path.open("rb") as file:
        return file.read(10) in (b"", b'{"where": ')


@lru_cache(maxsize=8)
def _read_once(
    data: str,
    stamps: tuple[tuple[str, int, int, int], ...],
    fields: tuple[tuple[str, str], ...],
    check: Check | None,
    drop: tuple[str, ...],
    skip_bad: bool,
    format: str | None,
) -> Rows:
    """`read_rows`, once as long as the files stay the same: all steps of a pipeline open the same few files.

    The rows hold their file open, so that no other can have its inode.
    """
    return read_rows(data, dict(fields), check=check, drop=drop, skip_bad=skip_bad, format=format)


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
