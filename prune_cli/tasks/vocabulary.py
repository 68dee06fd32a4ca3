"""Losses over a vocabulary, some tokens at a time: their logits never exist all at once. This file is not a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

PART = 256  # tokens whose probabilities over the vocabulary are held at a time


@dataclass(frozen=True)
class Unheaded:
    """Logits [b, t, v] that are not worked out yet: the last layer `head`, and what it is to see, [b, t, d].

    autocast: the context that it computes in.
    """

    states: torch.Tensor
    head: torch.nn.Module
    autocast: torch.autocast

    def logits(self, states: torch.Tensor) -> torch.Tensor:
        """Logits [m, v] of some of the states [m, d]."""
        with self.autocast:
            logits: torch.Tensor = self.head(states)
        return logits


Logits = torch.Tensor | Unheaded


def cross_entropies(logits: Logits, at: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
    """Cross entropy of the tokens gold [m] by the logits [b, t, v] at these places, bool [b, t]: float32 [m].

    Differentiable. Where the last layer takes no gradient, that of its input is worked out with the loss, and logits
    but once; else the backward works out the logits of each part again.
    """

    def lost(given: torch.Tensor, gold: torch.Tensor) -> torch.Tensor:
        logits_given = logits.logits(given) if isinstance(logits, Unheaded) else given
        return cross_entropy(logits_given.float(), gold, reduction="none")

    given = _given(logits)[at]
    if not (torch.is_grad_enabled() and given.requires_grad):
        return torch.cat([lost(*part) for part in _parts(given, gold)])
    if isinstance(logits, Unheaded) and not any(p.requires_grad for p in logits.head.parameters()):
        taken: torch.Tensor = _Lost.apply(given, gold, lost)
        return taken
    return torch.cat([checkpoint(lost, *part, use_reentrant=False) for part in _parts(given, gold)])


def parts(logits: Logits, at: torch.Tensor, gold: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """The logits [p, v] at these places, without a graph, and the tokens gold [p] there, some at a time."""
    for given, said in _parts(_given(logits).detach()[at], gold):
        with torch.no_grad():
            yield logits.logits(given) if isinstance(logits, Unheaded) else given, said


def _given(logits: Logits) -> torch.Tensor:
    return logits.states if isinstance(logits, Unheaded) else logits


def _parts(given: torch.Tensor, gold: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    return zip(given.split(PART), gold.split(PART), strict=True)


class _Lost(torch.autograd.Function):
    """The loss of each token by itself, and with it the gradient of what it is given."""

    @staticmethod
    def forward(
        ctx: Any, given: torch.Tensor, gold: torch.Tensor, lost: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
    ) -> torch.Tensor:
        found: list[torch.Tensor] = []
        grads: list[torch.Tensor] = []
        for part, said in _parts(given, gold):
            leaf = part.detach().requires_grad_()
            with torch.enable_grad():
                one = lost(leaf, said)
                one.sum().backward(inputs=[leaf])  # not autograd.grad, in which modules cannot be watched (FLOP counts)
            assert leaf.grad is not None
            grads.append(leaf.grad)
            found.append(one.detach())
        ctx.save_for_backward(torch.cat(grads))
        return torch.cat(found)

    @staticmethod
    def backward(ctx: Any, *above: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (grads,) = ctx.saved_tensors
        return grads * above[0].unsqueeze(1).to(grads.dtype), None, None
