"""The table of relative positions of T5, MPNet and their kin, looked up for each sequence.

They look it up once for a batch, for pairs of positions, and add what they find to the attention of every sequence
(Raffel et al. 2020, arXiv 1910.10683, section 2.1). Here each sequence has a table of its own: to the model, one table
with n times as many heads, whose answer is then taken apart.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_METHODS = ("compute_bias", "compute_position_bias")  # of a module with the table `relative_attention_bias`
Copies = Callable[[torch.Tensor], torch.Tensor]


def applies(model: nn.Module) -> bool:
    """Whether a part of the model has such a table."""
    return any(_method(module) for module in model.modules())


def _method(module: nn.Module) -> str | None:
    if not isinstance(getattr(module, "relative_attention_bias", None), nn.Embedding):
        return None
    return next((name for name in _METHODS if hasattr(module, name)), None)


@contextmanager
def patched(model: nn.Module, copies: Copies) -> Iterator[None]:
    """Give each sequence its own table."""
    there = [(module, name) for module in model.modules() if (name := _method(module))]
    try:
        for module, name in there:
            module.__dict__[name] = _by_sequence(module, getattr(module, name), copies)  # before the class's method
        yield
    finally:
        for module, name in there:
            del module.__dict__[name]


def _by_sequence(module: Any, original: Callable[..., torch.Tensor], copies: Copies) -> Callable[..., torch.Tensor]:
    def bias(*args: Any, **kwargs: Any) -> torch.Tensor:
        """The bias [n, h, q, k] of n sequences; the original's is [1 or n, n·h, q, k]."""
        tables = copies(module.relative_attention_bias.weight)  # [n, buckets, h]
        module.__dict__["relative_attention_bias"] = tables.transpose(0, 1).flatten(1).__getitem__
        try:
            found = original(*args, **kwargs)
        finally:
            del module.__dict__["relative_attention_bias"]
        return found[0].unflatten(0, (len(tables), -1))

    return bias
