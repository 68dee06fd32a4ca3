"""CSV and TSV: records of text cells, each with the line that it starts on."""

from __future__ import annotations

import codecs
import csv
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from prune_cli.data import lines, packed
from prune_cli.data.lines import Broken, Row
from prune_cli.data.problems import INTEGER
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note

_QUOTED = re.compile(r'"(?:[^"]|"")*"', re.DOTALL)  # a whole cell in quotation marks


def records(path: Path, kind: str, label: str, *, integers: bool) -> Iterator[tuple[int, Row | Broken]]:
    """The records of a file of the kind `csv` or `tsv`, each with its line. A blank cell is null.

    integers: whether the cells of the column `label` are read as integers; any other cell is text. Raises PruneError
    for a header that names a column twice, and where it is unknown how the file goes on.
    """
    dialect = _dialect(path, kind)
    header: list[str] | None = None
    told = "quoting" not in dialect
    for number, cells in _table(path, dialect):
        if isinstance(cells, Broken):
            yield number, cells
        elif header is None:
            header = cells
            if len(set(header)) < len(header):
                raise PruneError(f"{path}:{number}: the header names a column twice; allowed: names that differ")
        else:
            if not told and any(_QUOTED.fullmatch(cell) for cell in cells):
                note(f"{path}:{number}: quotation marks about a cell are read as text, as the header has none")
                told = True
            row: Row = {name: cell or None for name, cell in zip(header, cells, strict=True)}
            if integers and row.get(label) is not None:
                row[label] = int(row[label])
            yield number, row


def whole_numbers(path: Path, kind: str, label: str) -> bool:
    """Whether the cells of the column `label` that are not blank are whole numbers; so too where there is none."""
    at: int | None = None
    header = False
    with suppress(PruneError):  # told when the file is read
        for _, cells in _table(path, _dialect(path, kind)):
            if isinstance(cells, Broken):
                continue
            if not header:
                header = True
                at = cells.index(label) if label in cells else None
            elif at is None:
                break
            elif cells[at] and not INTEGER.fullmatch(cells[at]):
                return False
    return True


def _dialect(path: Path, kind: str) -> dict[str, Any]:
    dialect: dict[str, Any] = {"delimiter": "\t" if kind == "tsv" else ",", "strict": True}
    if kind == "tsv" and not _quoted_header(path):
        dialect["quoting"] = csv.QUOTE_NONE
    return dialect


def _quoted_header(path: Path) -> bool:
    """Whether a cell of a TSV's header stands in quotation marks: only then do they mean anything in the file."""
    with packed.opened(path) as file:
        header = next((line for line in _text_lines(file, f"{path}:") if line.strip()), "")
    return any(_QUOTED.fullmatch(cell) for cell in header.rstrip("\r\n").split("\t"))


def _table(path: Path, dialect: Mapping[str, Any]) -> Iterator[tuple[int, list[str] | Broken]]:
    """The records of a CSV or TSV, header first, each with the line it starts on.

    In a CSV a quoted cell may span lines, as RFC 4180 has it. In a TSV it may not: there a quotation mark more likely
    stands alone, and rows would be merged. Raises PruneError where it cannot be told how the file goes on.
    """
    csv.field_size_limit(2**31 - 1)  # the default refuses texts over 128 KiB
    start, width = 1, 0
    tab = dialect["delimiter"] == "\t"
    with packed.opened(path) as file:
        reader = csv.reader(_text_lines(file, f"{path}:"), **dialect)
        while True:
            try:
                cells = next(reader, None)
            except csv.Error as error:
                name = "TSV" if tab else "CSV"
                raise PruneError(
                    f"{path}:{start}: broken {name} ({error}); allowed: cells as RFC 4180 has them"
                ) from error
            if cells is None:
                return
            if cells:
                problem = _problem(cells, width, tab, start, reader.line_num)
                if problem is None:
                    width = width or len(cells)
                    yield start, cells
                else:
                    message, hint = problem
                    broken = PruneError(f"{path}:{start}: {message}", hint=hint)
                    if not width:
                        raise broken
                    yield start, Broken(broken, dialect["delimiter"].join(cells))
            start = reader.line_num + 1


def _problem(cells: list[str], width: int, tab: bool, start: int, end: int) -> tuple[str, str | None] | None:
    """What is wrong with a record on the lines from `start` to `end`, and a hint; width: cells of the header."""
    if tab and end > start:
        return (
            f"a cell spans lines {start}-{end}; allowed: cells on one line",
            "a quotation mark may stand alone; texts of several lines can be given as CSV or JSONL",
        )
    if width and len(cells) != width:
        return f"{len(cells)} cells; allowed: {width}, as in the header", None
    return None


def _text_lines(file: Iterable[bytes], prefix: str) -> Iterator[str]:
    """The lines as text, without a byte order mark."""
    for number, line in enumerate(file, 1):
        yield lines.decoded(line.removeprefix(codecs.BOM_UTF8) if number == 1 else line, prefix, number)
