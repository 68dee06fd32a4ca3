"""Training rows made worse on purpose, as an artifact of rows that knows which they are."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli import tasks
from prune_cli.artifacts import code
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.artifacts.manifest import Recipe
from prune_cli.data import fingerprints, lines
from prune_cli.data.corrupt import Corruption, Drawn, copy_names
from prune_cli.data.lines import Row
from prune_cli.data.open import ROWS, WHY, Reading, open_rows, read_as, source_of
from prune_cli.data.rows import Rows, read_rows
from prune_cli.stages.common import How, Outcome, done, making, settle, task_code

CODE = ("prune_cli.data.corrupt",)
_encode = json.JSONEncoder(ensure_ascii=False).encode


@dataclass(frozen=True)
class Corrupt:
    """How rows of a task are corrupted."""

    corruption: Corruption
    task: str


def corrupt(data: str, out: Path, opts: Corrupt, reading: Reading, how: How) -> Outcome:
    """Make an artifact of the rows in their order, as they came but for what is changed; copies stand at the end.

    A line of `why.jsonl` says for each row of the data, and then for each copy, what was done: {"id", "kept", "was",
    "copy_of"}; `was` holds the keys that were changed with their values before, null where none was.
    """
    task, corruption = tasks.load(opts.task), opts.corruption
    rows = open_rows(data, tasks.reading_of(opts.task, reading), task.check)
    labels = task.label_list(rows)
    made_by = {"corrupt": code.digest_of_module("prune_cli.data.corrupt", CODE), **task_code(opts.task)}
    decided = {**asdict(corruption), "task": opts.task, "labels": labels}
    recipe = Recipe("corrupt", decided, {"rows": rows.digest}, made_by)
    places = {"rows": data}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places) as draft:
        drawn = corruption.draw(tasks.classes(task, rows))
        rng = np.random.default_rng([corruption.seed, 1])
        changed = task.flips(rows, drawn.flipped, rng) if len(drawn.flipped) else []
        changes = dict(zip(drawn.flipped.tolist(), changed, strict=True))
        names = copy_names(rows.ids, drawn.copied)
        written = _write(draft.path, rows, drawn, changes, names, task)
        fingerprints.write_ids(written, draft.path / fingerprints.IDS)
        write_columns(draft.path / WHY, _reasons(rows, drawn, changes, names))
        draft.about = {
            "rows": len(written),
            "changed": len(drawn.flipped),
            "left_out": len(rows) - len(drawn.kept),
            "copies": len(drawn.copied),
            "digest": written.digest,
            "labels": labels,
            **read_as(written),
            "source": source_of(data),
        }
    return done(outcome, draft)


def _write(
    folder: Path, rows: Rows, drawn: Drawn, changes: Mapping[int, Row], names: list[str], task: tasks.Task
) -> Rows:
    """Write the rows into `rows.jsonl` of a folder, and read them again, which checks them."""
    order = np.concatenate([drawn.kept, drawn.copied]).tolist()
    ids = [*(rows.ids[i] for i in drawn.kept.tolist()), *names]
    id_key = rows.fields.get("id", "id")
    as_they_came = folder / "came.jsonl"
    rows.write(as_they_came, order)
    with as_they_came.open("rb") as came, (folder / ROWS).open("wb") as out:
        for i, name, line in zip(order, ids, came, strict=True):
            change = {rows.fields.get(key, key): value for key, value in changes.get(i, {}).items()}
            if name != rows.ids[i] or change:
                row = lines.parse(line)
                if row.get(id_key) is not None:
                    change[id_key] = name
                line = _encode({**row, **change}).encode() + b"\n" if change else line
            out.write(line)
    as_they_came.unlink()
    return read_rows(folder / ROWS, rows.fields, check=task.check, ids=ids, format=rows.format)


def _reasons(rows: Rows, drawn: Drawn, changes: Mapping[int, Row], names: list[str]) -> dict[str, list[Any]]:
    """The columns of `why.jsonl`: an entry for each row of the data, then for each copy."""
    was: list[Row | None] = [None] * len(rows)
    for i, change in changes.items():
        row = rows[i]
        was[i] = {key: row[key] for key in change}
    kept = np.isin(np.arange(len(rows)), drawn.kept).tolist()
    copied = drawn.copied.tolist()
    return {
        "id": [*rows.ids, *names],
        "kept": [*kept, *(True for _ in copied)],
        "was": [*was, *(was[i] for i in copied)],
        "copy_of": [*(None for _ in was), *(rows.ids[i] for i in copied)],
    }
