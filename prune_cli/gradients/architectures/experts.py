"""Mixtures of experts: the tokens of each sequence by themselves.

transformers sorts the tokens of a whole batch by the expert that they are sent to, so an expert sees the tokens of
several examples, and nothing says whose they are. Here the experts are called once for each sequence, with weights of
its own (copies that share their memory). Only where experts are trained: adapters elsewhere need none of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

Copies = Callable[[torch.Tensor], torch.Tensor]


def applies(model: nn.Module) -> bool:
    """Whether the model has experts that are trained."""
    return any(map(_trained, model.modules()))


def _trained(module: nn.Module) -> bool:
    # what transformers sets on each class whose experts are one tensor
    return "is_transposed" in vars(module) and any(p.requires_grad for p in module.parameters())


@contextmanager
def patched(model: nn.Module, copies: Copies) -> Iterator[None]:
    """Give each sequence its own experts."""
    there = [module for module in model.modules() if _trained(module)]
    try:
        for module in there:
            module.__dict__["forward"] = _by_sequence(module, copies)  # found before the class's method
        yield
    finally:
        for module in there:
            module.__dict__.pop("forward", None)


def _by_sequence(module: nn.Module, copies: Copies) -> Callable[..., torch.Tensor]:
    def forward(*tokens: torch.Tensor) -> torch.Tensor:
        """Tokens [n·t, d], the experts they go to [n·t, k], with what weight [n·t, k]; n sequences."""
        own = {name: copies(parameter) for name, parameter in module.named_parameters()}
        n = max(map(len, own.values()))
        del module.__dict__["forward"]
        try:
            outputs = [
                torch.func.functional_call(module, {name: tables[i] for name, tables in own.items()}, part)
                for i, part in enumerate(zip(*(of_tokens.chunk(n) for of_tokens in tokens), strict=True))
            ]
        finally:
            module.__dict__["forward"] = forward
        return torch.cat(outputs)

    return forward
