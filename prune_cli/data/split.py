"""Parts of rows that are split off at random: in the label ratio of the whole, and no text in two of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.numeric.shares import proportional_shares

REST = "train"


@dataclass(frozen=True)
class Parts:
    """Which parts are split off, as shares of the rows by name, and the seed that they are drawn with."""

    shares: Mapping[str, float]
    seed: int

    @property
    def names(self) -> list[str]:
        """The parts in order of name, then the rest."""
        return [*sorted(self.shares), REST]

    def of(self, texts: Iterable[str], labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """Which part each of n rows is in, int64 [n]: its position in `names`.

        labels [n]: indices. Rows of the same text go to the same part, by the label of the first of them. A part takes
        texts of each label at random as long as they fit, so it may lack a few rows where texts repeat. Raises
        PruneError for a part without a row.
        """
        first, unit = np.unique(digests(texts), return_index=True, return_inverse=True)[1:]
        sizes = np.bincount(unit)
        rng = np.random.default_rng(self.seed)
        names = self.names
        part_of_unit = np.full(len(sizes), len(names) - 1)
        by_label = np.bincount(labels)
        room = np.array([proportional_shares(by_label, round(self.shares[name] * len(labels))) for name in names[:-1]])
        drawn = rng.permutation(np.argsort(first))  # by place, so that hashes have no say in the order
        for j in drawn:
            of_label = room[:, labels[first[j]]]
            fits = np.flatnonzero(of_label >= sizes[j])
            if len(fits):
                part_of_unit[j] = fits[0]
                of_label[fits[0]] -= sizes[j]
        parts: NDArray[np.int64] = part_of_unit[unit]
        for name, count in zip(names, np.bincount(parts, minlength=len(names)).tolist(), strict=True):
            if not count:
                alike = "; rows of one text stay together" if len(sizes) < len(labels) else ""
                raise PruneError(f"{name}: {self.shares.get(name, 'the rest')} of {len(labels)} rows has no row{alike}")
        return parts


def digests(texts: Iterable[str]) -> NDArray[np.uint64]:
    """A hash of each of n texts, uint64 [n]: equal for equal texts."""
    hashes = (hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(hashes), np.uint64)
