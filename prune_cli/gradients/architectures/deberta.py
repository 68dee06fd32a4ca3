"""DeBERTa's table of relative positions, made per example.

The table [2k, d] has no batch axis, and each layer sends it through the query and key projections that the tokens
go through too (He et al. 2021, arXiv 2006.03654, equation 4; v3: arXiv 2111.09543), so its gradient and its part of
theirs would arrive summed over the batch. Here the encoder hands out a copy for each example, [b, 2k, d], and a
layer sees the b examples' tables as b times as many heads of one table. Of its rows it projects those that t tokens
can be apart, which are few where t is well below k. With several sequences an example, b is their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_CLASSES = {"DebertaV2Encoder", "DisentangledSelfAttention"}
_PROJECTIONS = ("query_proj", "key_proj", "pos_query_proj", "pos_key_proj")


def applies(model: nn.Module) -> bool:
    """Whether parts of the model are those of DeBERTa v2 or v3. By name: importing their module takes time."""
    return any(base.__name__ in _CLASSES for module in model.modules() for base in type(module).__mro__)


@contextmanager
def patched(model: nn.Module, copies: Callable[[torch.Tensor], torch.Tensor]) -> Iterator[None]:
    """Give each sequence its own table. copies: a parameter [2k, d] -> [b, 2k, d]."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2Encoder, DisentangledSelfAttention

    replaced: list[tuple[nn.Module, str]] = []

    def replace(module: nn.Module, name: str, value: Any) -> None:
        module.__dict__[name] = value  # found before the class's method or the submodule of that name
        replaced.append((module, name))

    try:
        for module in model.modules():
            if isinstance(module, DebertaV2Encoder) and module.relative_attention:
                replace(module, "get_rel_embedding", _get_rel_embedding(module, copies))
            elif isinstance(module, DisentangledSelfAttention) and module.relative_attention:
                replace(module, "disentangled_attention_bias", _bias_of_batch(module))
        yield
    finally:
        for module, name in replaced:
            del module.__dict__[name]


def _get_rel_embedding(encoder: Any, copies: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], torch.Tensor]:
    def get_rel_embedding() -> torch.Tensor:
        tables = copies(encoder.rel_embeddings.weight)
        return encoder.LayerNorm(tables) if "layer_norm" in encoder.norm_rel_ebd else tables

    return get_rel_embedding


def _bias_of_batch(attention: Any) -> Callable[..., torch.Tensor]:
    original = attention.disentangled_attention_bias

    def disentangled_attention_bias(
        query: torch.Tensor, key: torch.Tensor, relative_pos: Any, tables: torch.Tensor, scale_factor: int
    ) -> torch.Tensor:
        heads, span = attention.num_attention_heads, attention.pos_ebd_size
        reach = min(span, _reach(attention, max(query.shape[1], key.shape[1])))
        used = tables[:, span - reach : span + reach]  # [b, 2k, d]

        def projected(project: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
            # [b, 2k, h·d'] -> [1, 2k, b·h·d']: to the original, one table with b·h heads
            return lambda _: project(used).transpose(0, 1).flatten(1).unsqueeze(0)

        there = [name for name in _PROJECTIONS if name in attention._modules]
        try:
            attention.num_attention_heads, attention.pos_ebd_size = len(tables) * heads, reach
            for name in there:
                attention.__dict__[name] = projected(attention._modules[name])
            return original(query, key, relative_pos, tables[0], scale_factor)
        finally:
            attention.num_attention_heads, attention.pos_ebd_size = heads, span
            for name in there:
                del attention.__dict__[name]

    return disentangled_attention_bias


def _reach(attention: Any, t: int) -> int:
    """Above the largest number that the distance between two of t tokens gets."""
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    if attention.position_buckets <= 0:
        return t
    furthest = make_log_bucket_position(
        torch.tensor(t - 1), attention.position_buckets, attention.max_relative_positions
    )
    return int(furthest) + 1
