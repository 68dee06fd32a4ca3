"""The kinds of representation: what each is made by."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from prune_cli import options
from prune_cli.represent import params
from prune_cli.represent.dynamics import Dynamics
from prune_cli.represent.engine import Observer
from prune_cli.represent.gradient import Gradient
from prune_cli.represent.hidden import Hidden
from prune_cli.represent.unprompted import Unprompted
from prune_cli.tasks import Task


def observers(kinds: Sequence[str], model: torch.nn.Module, task: Task, opts: options.Represent) -> dict[str, Observer]:
    """An observer for each kind, by name; the model's parameters are made those that `--params` chooses."""
    found: dict[str, Observer] = {}
    for kind in kinds:
        if kind == "hidden":
            found[kind] = Hidden(opts.layer, opts.pooling, opts.dtype, opts.choices)
        elif kind == "dynamics":
            found[kind] = Dynamics(task)
        elif kind == "unprompted":
            found[kind] = Unprompted(task, opts.precision)
        else:
            params.choose(model, opts.params)
            found[kind] = Gradient(opts.dim, opts.seed, opts.dtype, task, opts.projection)
    return found
