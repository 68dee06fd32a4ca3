"""Hidden states, pooled over tokens: the representation of prototypicality, RDS and their kin."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from prune_cli.errors import PruneError
from prune_cli.models.find import Checkpoint
from prune_cli.represent.walk import Batch


class Hidden:
    """Observe `hidden` [b, d]: one layer's hidden states, pooled to one vector a row.

    layer: index into the model's hidden states (0 embeddings, -1 last). pooling: `cls` the first token; `mean`
    over the real tokens; `last` real token; `position` weights ∝ token index, wₜ = t / Σ t (Muennighoff 2022,
    arXiv 2202.08904, as RDS+ uses it: Ivison et al. 2025, arXiv 2503.01807); `response` the mean over the response's
    tokens, where a row has a prompt and a response. choices: where a row is several choices,
    its vector is the `mean` of its own choices' (Du et al. 2025, arXiv 2507.03648) or the `gold` choice's.
    """

    needs_backward = False

    def __init__(self, layer: int, pooling: str, dtype: str, choices: str = "mean") -> None:
        self._layer, self._pooling, self._dtype, self._choices = layer, pooling, dtype, choices

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of a row, stored type."""
        config: Any = model.config
        count = getattr(config, "num_hidden_layers", None)
        if count is not None and not -count - 1 <= self._layer <= count:
            raise PruneError(
                f"layer: {self._layer}; the model has layers 0 (embeddings) to {count}, or -1 for the last"
            )
        return {"hidden": ((config.hidden_size,), self._dtype)}

    @contextmanager
    def attach(self, model: torch.nn.Module, _: Checkpoint | None = None) -> Iterator[None]:
        """Have the model return its hidden states.

        Through the call and not through `model.config`: a model wrapped in adapters passes its own default on.
        """

        def ask(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "output_hidden_states": True}

        handle = model.register_forward_pre_hook(ask, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def begin(self, batch: Batch) -> None:
        """Nothing to prepare."""

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Pool the batch's hidden states [b, t, d], or [b·c, t, d] of c choices, to [b, d]."""
        assert batch.outputs is not None
        states = batch.outputs.hidden_states[self._layer].detach().float()
        mask = batch.inputs["attention_mask"]
        if self._pooling == "response":
            if batch.labels.shape != mask.shape:
                raise PruneError("pooling: response; only rows of the task generation have a response")
            mask = (batch.labels >= 0).long()
        pooled = pool(states, mask.flatten(end_dim=-2), self._pooling)
        if mask.dim() == 3:
            weights = (batch.labels >= 0 if self._choices == "mean" else batch.labels == 1).float()
            weights = weights / weights.sum(1, keepdim=True)
            pooled = (pooled.unflatten(0, weights.shape) * weights.unsqueeze(2)).sum(1)
        return {"hidden": pooled}


def pool(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Pool token vectors [b, t, d] under a right-padded mask [b, t] to [b, d]."""
    if how == "cls":
        return states[:, 0]
    if how == "last":
        last = mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    weights = mask.float()
    if how == "position":
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    weights = weights / weights.sum(1, keepdim=True)
    return (states * weights.unsqueeze(2)).sum(1)
