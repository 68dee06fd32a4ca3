"""Selection within each label or group, so that the kept rows have a given balance of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.numeric.blocks import take
from prune_cli.numeric.shares import equal_shares, proportional_shares

BALANCES = ("none", "keep", "equal")
BALANCED_BY = ("label", "group")
NOT_BY_ROW = ("n", "n_keep", "rng", "learning_rate")  # inputs that do not have a row for each example


def select_balanced(
    function: Callable[..., NDArray[np.int64]],
    arguments: Mapping[str, Any],
    part: NDArray[np.int64] | None,
    n_keep: int,
    balance: str,
    n: int,
) -> NDArray[np.int64]:
    """Run a select method on n rows: int64 [n_keep], best first.

    part [n] is each row's label, or its group. balance `none` runs the method on all rows. `keep` gives each part
    the share of n_keep that it has of the data (largest remainder); `equal` gives each the same share, and what a
    small one lacks is shared among the others. The method then runs within each part in turn, on its rows of
    every input (a copy of them, on disk where it is large); inputs of the target set stay whole. A part with no
    share is passed over.

    The parts' rows are merged in proportion: of m rows, a part's best counts as rank ½/m, its next as 1½/m
    and so on, and lower ranks come first. Every beginning of the result so has about the shares of the whole.
    """
    if balance not in BALANCES:
        raise PruneError(f"balance: {balance}; allowed: {', '.join(BALANCES)}")
    if balance == "none":
        return _checked(function(**arguments), n_keep, n, function)
    assert part is not None
    sizes = np.bincount(part)
    shares = proportional_shares(sizes, n_keep) if balance == "keep" else equal_shares(sizes, n_keep)
    picked = []
    for j in np.flatnonzero(shares):
        rows = np.flatnonzero(part == j)
        own = _within(function, arguments, rows, int(shares[j]))
        picked.append(rows[_checked(function(**own), int(shares[j]), len(rows), function)])
    ranks = [(np.arange(len(rows)) + 0.5) / len(rows) for rows in picked]
    return np.concatenate(picked)[np.argsort(np.concatenate(ranks), kind="stable")]


def _within(
    function: Callable[..., Any], arguments: Mapping[str, Any], rows: NDArray[np.int64], n_keep: int
) -> dict[str, Any]:
    """A method's arguments for some of the rows."""
    options = {p.name for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY}
    own = dict(arguments)
    for name, value in arguments.items():
        if name in options or name in NOT_BY_ROW or name.startswith("target_"):
            continue
        own[name] = [value[i] for i in rows] if isinstance(value, list) else take(value, rows)
    fresh = {"n": len(rows), "n_keep": n_keep}
    return own | {name: value for name, value in fresh.items() if name in own}


def _checked(positions: NDArray[np.int64], n_keep: int, n: int, function: Callable[..., Any]) -> NDArray[np.int64]:
    """The positions, if they are n_keep different ones of n; PruneError if the method gave others."""
    known = np.unique(positions[(positions >= 0) & (positions < n)])
    if not len(positions) == len(known) == n_keep:
        method = function.__module__.rpartition(".")[2]
        raise PruneError(f"{method}: gave positions that are not {n_keep} different ones of {n} rows")
    return positions
