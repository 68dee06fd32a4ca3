"""The kinds of representation: what each is made by."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli import options
from prune_cli.gradients import params
from prune_cli.represent.kinds.dynamics import Dynamics
from prune_cli.represent.kinds.gradient import Gradient
from prune_cli.represent.kinds.hidden import Hidden
from prune_cli.represent.kinds.influence import Influence
from prune_cli.represent.kinds.unprompted import Unprompted
from prune_cli.represent.walk import Observer, Pass
from prune_cli.tasks import Task


def observers(
    kinds: Sequence[str],
    model: torch.nn.Module,
    task: Task,
    opts: options.Represent,
    target: tuple[Pass, NDArray[np.int64]] | None,
) -> dict[str, Observer]:
    """An observer for each kind, by name; the model's parameters are made those that `--params` chooses.

    target: of the kind influence: the target rows, and the group of each [m].
    """
    found: dict[str, Observer] = {}
    for kind in kinds:
        if kind == "hidden":
            found[kind] = Hidden(opts.layer, opts.pooling, opts.dtype, opts.choices)
        elif kind == "dynamics":
            found[kind] = Dynamics(task)
        elif kind == "unprompted":
            found[kind] = Unprompted(task, opts.precision)
        elif kind == "influence":
            assert target is not None
            params.choose(model, opts.params)
            found[kind] = Influence(
                *target,
                opts.similarity,
                opts.precondition,
                batch_size=opts.batch_size,
                tokens_per_batch=opts.tokens_per_batch,
            )
        else:
            params.choose(model, opts.params)
            found[kind] = Gradient(opts.dim, opts.seed, opts.dtype, task, opts.projection, opts.precondition)
    return found
