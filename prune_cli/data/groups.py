"""Groups of rows, by which a selection is balanced or a target set is parted."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError


def groups(rows: Rows) -> tuple[list[str], NDArray[np.int64]] | None:
    """The g groups in order of name, and the index of each row's group among them, int64 [n].

    None where no row has a group. Raises PruneError with file:line where only some rows have one.
    """
    names = [row.get("group") for row in rows]
    lacking = [i for i, name in enumerate(names) if name is None]
    if len(lacking) == len(names):
        return None
    if lacking:
        raise PruneError(
            f"{rows.where(lacking[0])}: key group is missing, which other rows have; "
            "allowed: a group in every row, or in none"
        )
    order = {name: i for i, name in enumerate(sorted({str(name) for name in names}))}
    return list(order), np.array([order[str(name)] for name in names], np.int64)
