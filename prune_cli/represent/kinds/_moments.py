"""Adam's moments as training kept them with a checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from prune_cli.models.moments import load_moments

if TYPE_CHECKING:
    import torch

    from prune_cli.gradients.adam import Adam
    from prune_cli.models.find import Checkpoint


def adam_of(checkpoint: Checkpoint | None, parameters: Mapping[str, torch.Tensor]) -> Adam:
    """Adam as it stood at a checkpoint, for the parameters that gradients are taken of."""
    from prune_cli.gradients.adam import Adam

    moments = load_moments(checkpoint, parameters)
    return Adam.of(moments.first, moments.second, moments.betas, moments.eps, parameters)
