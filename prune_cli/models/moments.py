"""Adam's moments, kept with a checkpoint: what its optimizer remembered of each parameter's gradients."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts import tensors
from prune_cli.errors import PruneError
from prune_cli.models.find import Checkpoint

if TYPE_CHECKING:
    import torch

FILE = "moments.safetensors"
_FIRST, _SECOND = "exp_avg.", "exp_avg_sq."  # torch's names for them, before the parameter's name


@dataclass(frozen=True)
class Moments:
    """Adam's moments by parameter name, each with the parameter's shape; read-only memory maps.

    first: m, the running mean of gradients. second: v, the running mean of their squares. Neither is corrected for the
    first steps. betas: the two decay rates. eps: Adam's ε.
    """

    first: dict[str, np.ndarray]
    second: dict[str, np.ndarray]
    betas: tuple[float, float]
    eps: float


def save_moments(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write Adam's moments as `exp_avg.NAME` and `exp_avg_sq.NAME`; its step count, betas and eps as metadata."""
    state = optimizer.state
    arrays: dict[str, NDArray[Any]] = {}
    step = 0
    for name, parameter in model.named_parameters():
        if parameter in state:
            for start, moment in ((_FIRST, "exp_avg"), (_SECOND, "exp_avg_sq")):
                arrays[start + name] = state[parameter][moment].float().cpu().numpy()
            step = int(state[parameter]["step"])
    group = optimizer.param_groups[0]
    tensors.save(path, arrays, {"step": step, "betas": list(group["betas"]), "eps": group["eps"]})


def load_moments(checkpoint: Checkpoint | None, names: Collection[str]) -> Moments:
    """The moments kept with a checkpoint, of those of the parameters `names` that were trained.

    Raises PruneError where the checkpoint keeps none.
    """
    path = checkpoint.file(FILE) if checkpoint else None
    if path is None:
        hint = "prune finetune --keep-checkpoints epoch --keep-moments keeps them with each checkpoint"
        if checkpoint and checkpoint.name == "last":
            hint += "; name those with --checkpoints all, or numbers"
        raise PruneError("precondition: adam; no moments are kept with the model's weights", hint=hint)
    about, arrays = tensors.metadata(path), tensors.load(path)
    beta1, beta2 = about["betas"]
    return Moments(
        {name: arrays[_FIRST + name] for name in names if _FIRST + name in arrays},
        {name: arrays[_SECOND + name] for name in names if _SECOND + name in arrays},
        (beta1, beta2),
        about["eps"],
    )
