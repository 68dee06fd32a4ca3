"""Selection within each label or group, so that the kept rows have a given balance of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.methods.call import as_array
from prune_cli.methods.method import Method
from prune_cli.numeric.blocks import rows_at
from prune_cli.numeric.shares import equal_shares, proportional_shares, smallest_first

OF_EVERY_ROW = ("id", "kept", "rank", "score", "left_out")  # columns that every selection has
CLUSTER = "cluster"  # the column of numbers that rows of one cluster have in common
NOT_BY_ROW = ("n", "n_keep", "rng", "learning_rate")  # inputs that do not have a row for each example

Columns = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Selection:
    """Positions of the kept rows [n_keep], best first; columns that say why, each with an entry for each row [n].

    NaN, or −1 in a column of whole numbers, stands for no entry.
    """

    positions: NDArray[np.int64]
    columns: Columns = field(default_factory=dict)


def select(
    method: Method,
    arguments: Mapping[str, Any],
    part: NDArray[np.int64] | None,
    n_keep: int,
    balance: str,
    n: int,
    among: NDArray[np.int64] | None = None,
) -> Selection:
    """Run a select method on n rows, or on those at the positions `among` as if there were no others.

    part [n] is each row's label, or its group. balance `none` runs the method on all rows. `keep` gives each part
    the share of n_keep that it has of the data (largest remainder); `equal` gives each the same share, and what a
    small one lacks is shared among the others. Of parts with an equal claim to a row, a method that draws at random
    has one drawn; for others it is the first. The method then runs within each part in turn, on its rows of
    every input (a copy of them, on disk where it is large); inputs of the target set stay whole. A part with no
    share is passed over.

    The parts' rows are merged in proportion: of m rows, a part's best counts as rank ½/m, its next as 1½/m
    and so on, and lower ranks come first. Every beginning of the result so has about the shares of the whole.
    Clusters are numbered on from part to part.
    """
    if among is not None:
        alone = _within(method, arguments, among, n_keep)
        inner = select(method, alone, None if part is None else part[among], n_keep, balance, len(among))
        return Selection(among[inner.positions], {name: _spread(c, among, n) for name, c in inner.columns.items()})
    if part is None:
        return _run(method, {**arguments, "n_keep": n_keep}, n_keep, n)
    sizes = np.bincount(part)
    shares = _shares(sizes, n_keep, balance, arguments.get("rng"))
    of_part = np.split(np.argsort(part, kind="stable"), np.cumsum(sizes)[:-1])
    picked, columns, clusters = [], Columns(), 0
    for j in np.flatnonzero(shares):
        rows = of_part[j]
        own = _run(method, _within(method, arguments, rows, int(shares[j])), int(shares[j]), len(rows))
        picked.append(rows[own.positions])
        for name, column in own.columns.items():
            if name == CLUSTER and column.dtype.kind == "i":
                column = np.where(column >= 0, column + clusters, column)
                clusters = max(clusters, int(column.max()) + 1)
            if name not in columns:
                columns[name] = _spread(column[:0], rows[:0], n)
            columns[name][rows] = column
    ranks = [(np.arange(len(rows)) + 0.5) / len(rows) for rows in picked]
    return Selection(np.concatenate(picked)[np.argsort(np.concatenate(ranks), kind="stable")], columns)


def _shares(sizes: NDArray[np.int64], n_keep: int, balance: str, rng: np.random.Generator | None) -> NDArray[np.int64]:
    """How many rows each part gives, by its size."""
    own = rng.spawn(1)[0] if rng is not None else None  # leaves what the method draws as it was
    if balance == "keep":
        return proportional_shares(sizes, n_keep, own)
    return equal_shares(sizes, n_keep, smallest_first(sizes, own) if own is not None else None)


def _within(method: Method, arguments: Mapping[str, Any], rows: NDArray[np.int64], n_keep: int) -> dict[str, Any]:
    """A method's arguments for some of the rows."""
    own = dict(arguments)
    for name, value in arguments.items():
        if name in method.options or name in NOT_BY_ROW or name.startswith("target_"):
            continue
        own[name] = [value[i] for i in rows] if isinstance(value, list) else rows_at(value, rows)
    fresh = {"n": len(rows), "n_keep": n_keep}
    return own | {name: value for name, value in fresh.items() if name in method.inputs}


def _run(method: Method, arguments: Mapping[str, Any], n_keep: int, n: int) -> Selection:
    """What the method selects, checked."""
    names = {*method.inputs, *method.options}
    returned = method.call(**{name: value for name, value in arguments.items() if name in names})
    positions, told = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, {})
    positions = as_array(positions)
    fits = positions.ndim == 1 and positions.dtype.kind in "iu"
    inside = positions[(positions >= 0) & (positions < n)] if fits else positions
    if not fits or not len(positions) == len(np.unique(inside)) == n_keep:
        raise PruneError(f"{method.name}: gave positions that are not {n_keep} different ones of {n} rows")
    if not isinstance(told, Mapping):
        raise PruneError(f"{method.name}: gave columns that are not a dict; allowed: name -> one number for each row")
    columns = {name: as_array(column) for name, column in told.items()}
    for name, column in columns.items():
        if name in OF_EVERY_ROW or not isinstance(name, str):
            raise PruneError(f"{method.name}: column {name}; allowed: a name other than {', '.join(OF_EVERY_ROW)}")
        if column.shape != (n,) or column.dtype.kind not in "iufb" or np.isinf(column).any():
            raise PruneError(f"{method.name}: column {name} is not one number for each of {n} rows")
    return Selection(positions.astype(np.int64), columns)


def _spread(column: NDArray[Any], rows: NDArray[np.int64], n: int) -> NDArray[Any]:
    """A column of n entries with those given at some rows, and with what stands for no entry at the others."""
    empty = np.nan if column.dtype.kind == "f" else False if column.dtype.kind == "b" else -1
    full = np.full(n, empty, column.dtype)
    full[rows] = column
    return full
