"""Tensors that a model computes from parameters alone (`weight.T`, `1 + weight`) on the way to a layer.

The layer gives each example's gradient of such a tensor. The step from there back to the parameter is the same for all
examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from prune_cli.gradients.factors import Dense, Outer, Part

Pull = Callable[[Part], list[Part]]


@dataclass(frozen=True, eq=False)
class Derived:
    """A tensor, the tensors it was computed from, and a function from its gradient to a gradient of each of them."""

    tensor: torch.Tensor
    sources: list[torch.Tensor]
    pull: Pull


def derive(
    result: Any, again: Any, leaves: list[tuple[torch.Tensor, torch.Tensor]], *, casts: bool
) -> Iterator[Derived]:
    """The tensors that a function computed from parameters.

    result: what it returned. again: what it returned for stand-ins that need a gradient; leaves: (parameter,
    stand-in). casts: whether the function changes only the type.
    """
    sources = [source for source, _ in leaves]
    for tensor, graph in zip(tensors(result), tensors(again), strict=True):
        if any(tensor is source for source in sources) or not graph.requires_grad:
            continue
        if len(sources) == 1 and casts and tensor.shape == sources[0].shape:
            yield Derived(tensor, sources, _same)
        elif len(sources) == 1 and _is_transpose(tensor, sources[0]):
            yield Derived(tensor, sources, _transposed)
        else:
            yield Derived(tensor, sources, _through(graph, [leaf for _, leaf in leaves]))


def tensors(value: Any) -> Iterator[torch.Tensor]:
    """The tensors in a function's arguments or results, those in lists and tuples too."""
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, list | tuple):
        for item in value:
            yield from tensors(item)


def replaced(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """Arguments with each tensor replaced by `change(tensor)`."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(replaced(item, change) for item in value)
    return value


def _is_transpose(tensor: torch.Tensor, source: torch.Tensor) -> bool:
    return (
        source.dim() == 2
        and tensor.data_ptr() == source.data_ptr()
        and tensor.shape == source.shape[::-1]
        and tensor.stride() == source.stride()[::-1]
    )


def _same(part: Part) -> list[Part]:
    return [part]


def _transposed(part: Part) -> list[Part]:
    if isinstance(part, Outer):
        return [Outer(part.right, part.left)]
    return [Dense(part.dense().transpose(1, 2))]


def _through(graph: torch.Tensor, leaves: list[torch.Tensor]) -> Pull:
    """By autograd, an example at a time."""

    def pull(part: Part) -> list[Part]:
        each = [
            torch.autograd.grad(graph, leaves, grad.to(graph.dtype), retain_graph=True, materialize_grads=True)
            for grad in part.dense()
        ]
        return [Dense(torch.stack(grads)) for grads in zip(*each, strict=True)]

    return pull
