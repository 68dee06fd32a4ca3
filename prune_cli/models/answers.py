"""A forward whose last layer, the one to the vocabulary, sees the tokens that are trained on alone.

Of a language model the logits are its largest tensor, and those of prompts and padding are never looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def forward(model: Any, inputs: Mapping[str, torch.Tensor], at: torch.Tensor | None) -> Any:
    """The outputs of a model [b, t] with the logits [b, a, v] of each row's places `at`, int64 [b, a]; None: of all.

    A model whose last layer does not see [b, t, d], or is not told, works out all logits, of which these are taken.
    """
    if at is None:
        return model(**inputs)
    head = getattr(model, "module", model).get_output_embeddings()  # DistributedDataParallel has it beneath
    shape, narrowed = inputs["input_ids"].shape, []

    def narrow(_: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not given or given[0].dim() != 3 or given[0].shape[:2] != shape:
            return None
        narrowed.append(True)
        return (_take(given[0], at), *given[1:])

    hook = head.register_forward_pre_hook(narrow) if head is not None else None
    try:
        outputs = model(**inputs)
    finally:
        if hook is not None:
            hook.remove()
    if not narrowed:
        outputs.logits = _take(outputs.logits, at)
    return outputs


def _take(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Values [b, a, d] of values [b, t, d] at the places [b, a]."""
    return values.gather(1, at[:, :, None].expand(-1, -1, values.shape[2]))
