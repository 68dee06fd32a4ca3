"""`prune select`: the rows that are kept, and why."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import options
from prune_cli.artifacts.jsonl import write_columns
from prune_cli.data.open import Reading, check_of_use, read_as, source_of
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.methods import balance
from prune_cli.methods import call as calls
from prune_cli.methods.balance import Selection
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.inputs import Inputs
from prune_cli.stages import candidates, counts
from prune_cli.stages.common import How, Outcome, done, making, settle, tell_bad_rows


def select(names: Sequence[str], out: Path, opts: options.Select, reading: Reading, how: How) -> Outcome:
    """Select rows: `select.jsonl`, the kept rows as they came; `why.jsonl`, a line for each row given.

    names: score, represent or select artifacts, or a data file. A line of `why.jsonl` has {"id", "kept", "rank"}, rank
    from 1 for the best and null for a row that is not kept, the score where the method reads one, and the columns that
    the method returned; where not every row may be kept also {"left_out"}, the option by which a row may not.
    """
    if opts.balance == "none" and opts.balance_by != "label":
        raise PruneError(
            f"balance_by: {opts.balance_by}; allowed only with a balance", hint="--balance keep, or --balance equal"
        )
    check_of_use([*names, *([opts.target] if opts.target else []), *opts.decontaminate], reading)
    call = calls.prepare("select", names, opts, reading)
    may = candidates.opened(call.given, opts, reading)
    if reading.bad_rows:  # or rows that no one reads would be opened
        tell_bad_rows(reading, [*call.all_rows, *may.tests.values()], how)
    most = may.earlier.about["kept"] if may.earlier else call.given.n
    n_keep = parse_keep(opts.keep, most, f" (that {opts.within} keeps)" if opts.within else "")
    balanced = {"balance": opts.balance, **({"balance_by": opts.balance_by} if opts.balance != "none" else {})}
    budget = {"keep": opts.keep} if may.tests or may.fits else {"n_keep": n_keep}  # a share of what is not left out
    recipe = call.recipe("select", **budget, order=opts.order, **balanced, **may.options)
    recipe = replace(recipe, inputs={**recipe.inputs, **may.digests}, code={**recipe.code, **may.code})
    places = {**call.places, **may.places}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places) as draft:
        rows = call.given.rows
        arguments = call.read()
        part = call.given.parts(opts.balance_by) if opts.balance != "none" else None
        left_out, told, facts = candidates.left_out(call.given, may, draft.path)
        among = np.flatnonzero([not why for why in left_out]) if left_out else None
        if among is not None:
            n_keep = parse_keep(opts.keep, len(among), " (that may be kept)")
        kept = balance.select(call.method, arguments, part, n_keep, opts.balance, len(rows), among)
        written = kept.positions if opts.order == "best" else np.sort(kept.positions)
        digest = rows.write(draft.path / "select.jsonl", written.tolist())
        write_columns(draft.path / "why.jsonl", _reasons(rows, kept, arguments.get("score"), left_out))
        counted = counts.counts(call.given.task, call.given.labels, rows, kept.positions)
        warned = counts.warnings(counted)
        if opts.balance == "equal":
            warned += counts.short(counted[opts.balance_by], opts.balance_by)
        counts.warn(out, told + (warned if how.warn else []))
        draft.about = {
            "rows": len(rows),
            "kept": n_keep,
            **({"candidates": len(among)} if among is not None else {}),
            "counts": counts.stored(counted),
            "warnings": told + warned,
            "digest": digest,
            "labels": call.given.labels,
            **read_as(rows, call.target_data),
            **_from(call.given),
            **call.target_source,
            **({"within": Path(opts.within).name} if opts.within else {}),
            **({"tests": [source_of(place) for place in opts.decontaminate]} if opts.decontaminate else {}),
            **facts,
        }
    return done(outcome, draft)


def _from(given: Inputs) -> dict[str, str]:
    """Where the rows are from, and by what they were scored."""
    scored = [artifact.options["method"] for artifact in given.scored]
    hidden = given.scored and not Path(given.place).exists()  # a hub name, which the score artifact knows
    source = source_of(str(given.scored[0].path) if hidden else given.place)
    target = {name: given.scored[0].about[name] for name in ("target",) if scored and name in given.scored[0].about}
    return {"source": source, **({"score": scored[0]} if scored else {}), **target}


def _reasons(
    rows: Rows, kept: Selection, score: NDArray[Any] | None, left_out: list[str | None]
) -> dict[str, Sequence[Any]]:
    """The columns of `why.jsonl`, an entry for each row given."""
    ranks = np.full(len(rows), -1)
    ranks[kept.positions] = np.arange(1, len(kept.positions) + 1)
    columns = {"rank": ranks, **({"score": score} if score is not None else {}), **kept.columns}
    return {
        "id": rows.ids,
        "kept": (ranks > 0).tolist(),
        **{name: _entries(column) for name, column in columns.items()},
        **({"left_out": left_out} if left_out else {}),
    }


def _entries(column: NDArray[Any]) -> list[Any]:
    """The entries of a column, None where there is none."""
    if column.dtype.kind == "f":
        return [None if math.isnan(value) else value for value in column.tolist()]
    return [None if value == -1 else value for value in column.tolist()]
