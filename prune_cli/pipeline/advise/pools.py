"""How many rows a round of trials takes, and what a round takes in seconds, by what an earlier one took."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from prune_cli.methods.budget import parse_keep
from prune_cli.pipeline.advise.ground import Ground
from prune_cli.pipeline.advise.rounds import FEWEST

SHARED = ("warmup", "select warmup", "represent", "score")  # steps that methods and rounds on the same rows share
OF_A_TRIAL = ("select", "finetune", "eval")  # stages whose steps name the method next
ROUNDS = 5  # that sub-pools are made small enough for
LEAST_KEPT = 32  # rows that a selection keeps of the smallest sub-pool

Steps = Sequence[tuple[str, float]]  # of a round: each step with its seconds


def smallest_pool(ground: Ground, keep: str) -> int:
    """Rows of the smallest sub-pool: a selection keeps some, and every label has a row."""
    share = parse_keep(keep, ground.n) / ground.n
    return min(ground.n, max(math.ceil(LEAST_KEPT / share), math.ceil(ground.n / ground.rarest)))


def pool_size(ground: Ground, smallest: int, probed: Steps, left: float) -> int:
    """Rows of a sub-pool of which there is time for ROUNDS rounds, by what one of the smallest took.

    Of all rows, what methods share is made once.
    """
    if seconds_of_rounds(ground, smallest, probed, ROUNDS) <= left:
        return ground.n
    constant, growing = _split(ground, probed)
    room = (left / ROUNDS - constant) / max(growing, 1e-9)
    return int(min(max(smallest, math.floor(smallest * room)), ground.n))


def time_to_confirm(ground: Ground, pool: int, probed: Steps, dropped: Collection[str]) -> float:
    """Seconds of the fewest rounds on all rows that say something, by one on a sub-pool.

    Without the trials of methods that are dropped; representations and scores count in full, whoever reads them.
    """
    kept = [(step, s) for step, s in probed if not (step.startswith(OF_A_TRIAL) and step.split()[1] in dropped)]
    return seconds_of_rounds(ground, pool, kept, FEWEST)


def seconds_of_rounds(ground: Ground, pool: int, probed: Steps, rounds: int) -> float:
    """What some rounds on all rows take, by what one on a sub-pool took."""
    times = np.array([1, ground.n / pool])
    shared = _split(ground, (entry for entry in probed if entry[0].startswith(SHARED)))
    return float((rounds * _split(ground, probed) - (rounds - 1) * shared) @ times)


def _split(ground: Ground, probed: Iterable[tuple[str, float]]) -> NDArray[np.float64]:
    """[2]: seconds that are the same for any rows, and those that grow with them.

    Evaluations and the target set's representation do not grow, nor do trainings of so many steps.
    """
    constant = ("eval", "represent validation", *(("finetune",) if ground.steps else ()))
    seconds = np.zeros(2)
    for step, own in probed:
        seconds[int(not step.startswith(constant))] += own
    return seconds
