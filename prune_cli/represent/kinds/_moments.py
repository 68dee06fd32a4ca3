"""Adam's moments as training kept them with a checkpoint."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from prune_cli.artifacts import tensors
from prune_cli.errors import PruneError

if TYPE_CHECKING:
    import torch

    from prune_cli.gradients.adam import Adam
    from prune_cli.models.load import Checkpoint


@dataclass(frozen=True)
class Moments:
    """First and second moments by parameter, memory-mapped; and Adam's β₁, β₂ and ε."""

    first: dict[str, NDArray[Any]]
    second: dict[str, NDArray[Any]]
    betas: tuple[float, float]
    eps: float


def load_moments(checkpoint: Checkpoint | None, names: Collection[str]) -> Moments:
    """The moments kept with a checkpoint, of the parameters `names` that have some."""
    path = checkpoint.path / "moments.safetensors" if checkpoint and checkpoint.path else None
    if path is None or not path.is_file():
        hint = "prune finetune --checkpoints epoch --moments yes keeps them with each checkpoint"
        if checkpoint and checkpoint.name == "last":
            hint += "; name those with --checkpoints all, or numbers"
        raise PruneError("precondition: adam; no moments are kept with the model's weights", hint=hint)
    about = tensors.metadata(path)
    (beta1, beta2), held = about["betas"], tensors.load(path)
    first, second = (
        {name: held[f"{moment}.{name}"] for name in names if f"{moment}.{name}" in held}
        for moment in ("exp_avg", "exp_avg_sq")
    )
    return Moments(first, second, (beta1, beta2), about["eps"])


def adam_of(checkpoint: Checkpoint | None, parameters: Mapping[str, torch.Tensor]) -> Adam:
    """Adam as it stood at a checkpoint, for the parameters that gradients are taken of."""
    from prune_cli.gradients.adam import Adam

    moments = load_moments(checkpoint, parameters)
    return Adam.of(moments.first, moments.second, moments.betas, moments.eps, parameters)
