"""Influence: what an example's gradient has in common with given directions, without any projection.

A direction v has an entry for each trainable parameter's entry. ⟨g_i, v⟩ is Σ_t ⟨l_t, V r_t⟩ for the factors of a
matrix parameter: one matrix product a batch in place of the one that would form the gradient (as in the ghost dot
product of Wang et al. 2024, arXiv 2406.11011). Norms come from Gram matrices (norms.py). Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from prune_cli.gradients.adam import Adam
from prune_cli.gradients.factors import Dense, Factors, Lookup, Outer, dot
from prune_cli.gradients.norms import Norms

Direction = dict[str, torch.Tensor]  # parameter -> a tensor of its shape


class Targets(Protocol):
    """What the gradients of examples are compared with: g directions, or the gradients of g rows (pairs.py)."""

    def __len__(self) -> int:
        """How many: g."""

    def products(self, name: str, gradient: Factors) -> torch.Tensor:
        """⟨g_i, v⟩ of each example's gradient of a parameter with each target: [b, g]."""


class Directions:
    """Directions, each held whole: a tensor for every trainable parameter."""

    def __init__(self, directions: Sequence[Direction]) -> None:
        self._directions = directions

    def __len__(self) -> int:
        """Directions: g."""
        return len(self._directions)

    def products(self, name: str, gradient: Factors) -> torch.Tensor:
        """⟨g_i, v⟩ of each example's gradient of a parameter with each direction: [b, g]."""
        found = [product(gradient, direction[name]).unsqueeze(1) for direction in self._directions]
        return found[0] if len(found) == 1 else torch.cat(found, 1)


class Influence:
    """Collects the gradients of a batch, parameter by parameter, to `influence` [b, g] on g targets.

    cosine: ⟨g_i, v⟩ / ‖g_i‖, and zero where the gradient is zero; otherwise ⟨g_i, v⟩. Targets are used as given.
    adam: g_i is the step that Adam would take on the example, formed for a few examples at a time.
    """

    def __init__(self, targets: Targets, *, cosine: bool, adam: Adam | None = None) -> None:
        self._targets, self._cosine, self._adam = targets, cosine, adam
        self._norms = Norms()
        self._products = torch.empty(0)
        self._seen: set[str] = set()

    def begin(self, b: int, device: torch.device) -> None:
        """Start a batch of b examples."""
        self._seen = set()
        self._norms.begin(b, device)
        self._products = torch.zeros(b, len(self._targets), dtype=torch.float64, device=device)

    def add(self, name: str, gradient: Factors) -> None:
        """Add the gradients of a parameter."""
        self._seen.add(name)
        if self._adam:
            self._add_steps(self._adam, name, gradient)
            return
        if self._cosine:
            self._norms.add(gradient)
        self._products.add_(self._targets.products(name, gradient))

    def finish(self) -> torch.Tensor:
        """The influence of each example on each target, float64 [b, g]."""
        if self._adam:
            self._adam.check(self._seen)
        if not self._cosine:
            return self._products
        norms = self._norms.norms().unsqueeze(1)
        return torch.where(norms > 0, self._products / norms, 0)

    def _add_steps(self, adam: Adam, name: str, gradient: Factors) -> None:
        """Add Adam's steps for a parameter."""

        def add(some: slice, steps: Dense | Lookup, sign: int = 1) -> None:
            if self._cosine:
                self._norms.add(steps, some, sign)
            self._products[some].add_(self._targets.products(name, steps), alpha=sign)

        every = slice(None)
        if isinstance(gradient, Lookup):
            rest = adam.resting(name)
            add(every, Dense(rest.unsqueeze(0)))  # rows that no example looks up move too
            steps, once = adam.looked_up(name, gradient)
            add(every, Lookup(steps.ids, steps.grads * once.unsqueeze(2), steps.rows))
            add(every, Lookup(steps.ids, rest[steps.ids] * once.unsqueeze(2), steps.rows), sign=-1)
        elif isinstance(gradient, Dense):
            add(every, Dense(adam.step(name, gradient.grads)))
        else:
            for some, formed in adam.formed(name, gradient):
                add(some, Dense(formed))


def product(gradient: Factors, direction: torch.Tensor) -> torch.Tensor:
    """⟨g, v⟩ of each example's gradient of a parameter with a direction of that parameter's shape: [b]."""
    if isinstance(gradient, Outer) and gradient.small:
        return gradient.formed.flatten(1) @ direction.flatten().to(gradient.formed.dtype)
    if isinstance(gradient, Outer):
        left, right = gradient.left, gradient.right
        v = direction.reshape(left.shape[2], right.shape[2]).to(left.dtype)
        if v.shape[0] < v.shape[1]:  # the smaller of the two products
            return dot(right @ v.T, left)
        return dot(left @ v, right)
    if isinstance(gradient, Lookup):
        return torch.linalg.vecdot(
            direction[gradient.ids].flatten(1).to(gradient.grads.dtype), gradient.grads.flatten(1)
        )
    if isinstance(gradient, Dense):
        return gradient.grads.flatten(1) @ direction.flatten().to(gradient.grads.dtype)
    parts = (product(part, direction) for part in gradient.parts)
    return sum(parts, torch.zeros((), device=direction.device))
