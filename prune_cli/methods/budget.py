"""What `--keep` says."""

from __future__ import annotations

import re
from contextlib import suppress
from decimal import ROUND_HALF_UP, Decimal

from prune_cli.errors import PruneError


def parse_keep(keep: str, n: int, which: str = "") -> int:
    """Number of rows to keep of n: `500` is rows, `0.3` and `30%` are shares; `1` is one row, `1.0` all.

    A share is rounded to the nearest row, half a row up, and keeps at least one. Raises PruneError for
    anything that is not above 0 and at most n; which: what it says of the n rows.
    """
    text = keep.strip()
    rows = Decimal(0)
    if re.fullmatch(r"[0-9]+", text):
        rows = Decimal(text)
    elif re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?%?", text):
        with suppress(ArithmeticError):  # an exponent beyond what a Decimal holds
            share = Decimal(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
            if 0 < share <= 1:
                rows = max(Decimal(1), (share * n).to_integral_value(ROUND_HALF_UP))
    if not 0 < rows <= n:
        raise PruneError(f"keep: {keep}; allowed: a number of rows from 1 to {n}{which}, or a share such as 0.3 or 30%")
    return int(rows)
