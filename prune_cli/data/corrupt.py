"""Rows made worse on purpose: labels changed to others, rare labels thinned out, rows repeated.

What a method does about such rows can be measured, as it is known which they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.option import Help

Positions = NDArray[np.int64]


@dataclass(frozen=True)
class Drawn:
    """Which of the rows change: positions of those that stay, of those with another label, of those repeated.

    All are ascending; flipped and copied are among those that stay.
    """

    kept: Positions
    flipped: Positions
    copied: Positions

    def __len__(self) -> int:
        """The number of rows afterwards."""
        return len(self.kept) + len(self.copied)


@dataclass(frozen=True)
class Corruption:
    """How training rows are made worse: first imbalance, of what is left flip, of that duplicate."""

    flip: Annotated[float, Meta(ge=0, lt=1), Help("Share of the rows whose label is changed to another one.")] = 0.0
    imbalance: Annotated[
        float, Meta(gt=0, le=1), Help("Share that the rarest label keeps of its rows; those between keep μ^(i/(c-1)).")
    ] = 1.0
    duplicate: Annotated[float, Meta(ge=0, le=1), Help("Share of the rows that stand in the data twice.")] = 0.0
    seed: Annotated[int, Meta(ge=0, lt=2**32), Help("Draws the rows.")] = 0

    @property
    def idle(self) -> bool:
        """Whether nothing changes."""
        return not (self.flip or self.duplicate) and self.imbalance == 1

    def draw(self, labels: NDArray[np.int64]) -> Drawn:
        """Draw the rows that change; labels [n]: indices, all 0 where rows have none.

        imbalance μ: of c labels, the most frequent first, label i keeps the share μ^(i/(c−1)) of its rows, at least
        one (the exponential profile of Cui et al. 2019, arXiv 1901.05555, section 5.1). flip: drawn uniformly, but of
        each label one row stays as it is. Each has random numbers of its own, so that one changes no other's rows more
        than it must. Raises PruneError where so many labels cannot change.
        """
        if self.imbalance < 1 and not labels.any():
            raise PruneError("imbalance: the rows have one label, or none; allowed: rows of two labels or more")
        thin, flip, copy = np.random.default_rng(self.seed).spawn(3)
        kept = self._thinned(labels, thin)
        order = kept[flip.permutation(len(kept))]
        last = len(order) - 1 - np.unique(labels[order[::-1]], return_index=True)[1]  # of each label
        free = np.delete(order, last)
        count = round(self.flip * len(kept))
        if count > len(free):
            raise PruneError(
                f"flip: {self.flip:g} of {len(kept)} rows; allowed: at most {len(free)} rows, or a label goes"
            )
        copied = copy.permutation(kept)[: round(self.duplicate * len(kept))]
        return Drawn(kept, np.sort(free[:count]), np.sort(copied))

    def _thinned(self, labels: NDArray[np.int64], rng: np.random.Generator) -> Positions:
        names, sizes = np.unique(labels, return_counts=True)
        ranks = np.empty(len(names))
        ranks[np.argsort(-sizes, kind="stable")] = np.arange(len(names))
        shares = self.imbalance ** (ranks / max(1, len(names) - 1))
        left = np.maximum(1, np.rint(sizes * shares)).astype(np.int64)
        kept = [rng.permutation(np.flatnonzero(labels == name))[:n] for name, n in zip(names, left, strict=True)]
        return np.sort(np.concatenate(kept))


def copy_names(ids: list[int | str], copied: Positions) -> list[str]:
    """The ids of the repeated rows' copies: 7-copy for row 7, and no other row's."""
    taken = set(map(str, ids))
    names = []
    for i in copied.tolist():
        name = f"{ids[i]}-copy"
        while name in taken:
            name += "-copy"
        taken.add(name)
        names.append(name)
    return names
