"""The step that Adam would take on one example alone: its gradient, preconditioned by the moments training had.

Γ(g) = (β₁ m + (1 − β₁) g) / √(β₂ v + (1 − β₂) g² + ε), entry by entry, with m and v the moments kept with a
checkpoint. Source: LESS, Xia et al. 2024, arXiv 2402.04333, sections 2 and 3 (for training examples alone), as in its
authors' code (obtain_gradients_with_adam).
Differs: the paper, and Adam itself, add ε to the root, not within it, and correct m and v for the first steps. That
correction scales all entries alike but for ε. Within the root ε = 1e-8 damps every entry whose √v is below 1e-4.

Γ is not linear in g, and not zero where g is zero. So each example's gradient is formed for it: of a matrix for a few
examples at a time, of a table only the rows that were looked up.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.gradients.factors import BLOCK, Fold, Lookup, Outer, Sum

_PIECES = 2**18  # entries of pieces that are worked on at a time


@dataclass(frozen=True)
class Adam:
    """Moments of parameters by name, as they enter a step: β₁ m and β₂ v + ε."""

    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]
    betas: tuple[float, float]
    _resting: dict[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        first: Mapping[str, NDArray[Any]],
        second: Mapping[str, NDArray[Any]],
        betas: tuple[float, float],
        eps: float,
        parameters: Mapping[str, torch.Tensor],
    ) -> Adam:
        """Adam with the moments m and v that training kept, each on the device of its parameter."""

        def scaled(moments: Mapping[str, NDArray[Any]], by: float, plus: float) -> dict[str, torch.Tensor]:
            return {
                name: torch.tensor(moments[name]).to(parameter.device).mul_(by).add_(plus)
                for name, parameter in parameters.items()
                if name in moments
            }

        return cls(scaled(first, betas[0], 0.0), scaled(second, betas[1], eps), betas)

    def step(self, name: str, grads: torch.Tensor) -> torch.Tensor:
        """Γ of gradients [b, …] of a parameter […]."""
        return self._step(self._moment(self.first, name), self.second[name], grads)

    def resting(self, name: str) -> torch.Tensor:
        """Γ of a gradient of zero […]."""
        if name not in self._resting:
            self._resting[name] = self._moment(self.first, name) * self.second[name].rsqrt()
        return self._resting[name]

    def check(self, seen: set[str]) -> None:
        """Raise PruneError if a parameter that has moments was not among those seen in a batch."""
        if unseen := set(self.first) - seen:
            raise PruneError(f"precondition: adam; {min(unseen)} has moments, but a batch made no use of it")

    def formed(self, name: str, gradient: Outer | Sum) -> Iterator[tuple[slice, torch.Tensor]]:
        """Γ of a matrix parameter [r, c], a few examples at a time: which examples, and their steps [those, r, c].

        The steps are valid until the next are asked for: all are worked out in the same memory, which a CPU's cache
        holds.
        """
        first, second = self._moment(self.first, name), self.second[name]
        some = max(1, BLOCK[first.device.type] // first.numel())
        steps, sizes = first.new_empty(2, min(some, len(gradient)), *first.shape)
        for start in range(0, len(gradient), some):
            part = gradient.of(slice(start, start + some))
            grads, n = part.dense(steps) if isinstance(part, Outer) else part.dense(), len(part)
            size = torch.addcmul(second, grads, grads, value=1 - self.betas[1], out=sizes[:n]).rsqrt_()
            yield slice(start, start + n), torch.add(first, grads, alpha=1 - self.betas[0], out=steps[:n]).mul_(size)

    def folded(self, name: str, gradient: Outer, fold: Fold) -> torch.Tensor:
        """Γ of a matrix parameter [r, c], folded: [b, high, broad]. On a CPU faster than `formed` for several examples.

        The matrix is cut into pieces of high x broad entries, which lie on one another in the fold; a piece of some
        examples stays in the cache until it is added. A sign that is given to m and to g is that of Γ.
        """
        first, second = self._moment(self.first, name), self.second[name]
        right = (gradient.right * fold.columns).to(first.dtype)
        (r, c), b, (high, broad) = first.shape, len(gradient), fold.sides
        some = max(1, _PIECES // (high * broad))
        folded = first.new_zeros(b, high, broad)
        memory = first.new_empty(2, min(some, b) * high * broad)  # its pieces are whole, so that they are quick to fill
        for i in range(0, r, high):
            rows = slice(i, min(i + high, r))
            left = (gradient.left[:, :, rows] * fold.rows[rows]).to(first.dtype).transpose(1, 2)
            for j in range(0, c, broad):
                columns = slice(j, min(j + broad, c))
                own = first[rows, columns] * fold.columns[columns] * fold.rows[rows].unsqueeze(1)
                own_second = second[rows, columns].contiguous()
                for start in range(0, b, some):
                    part = slice(start, min(start + some, b))
                    shape = part.stop - start, *own.shape
                    step, size = (flat[: math.prod(shape)].view(shape) for flat in memory)
                    torch.bmm(left[part], right[part, :, columns], out=step)
                    torch.addcmul(own_second, step, step, value=1 - self.betas[1], out=size).rsqrt_()
                    torch.add(own, step, alpha=1 - self.betas[0], out=step)
                    folded[part, : shape[1], : shape[2]].addcmul_(step, size)
        return folded

    def looked_up(self, name: str, gradient: Lookup) -> tuple[Lookup, torch.Tensor]:
        """Γ of the rows of a table that were looked up, by the sum of a row's gradients in the example.

        Also, bool [b, t]: the positions at which a row is counted, its first in the example.
        """
        sums, once = gradient.summed()
        first, second = self._moment(self.first, name)[sums.ids], self.second[name][sums.ids]
        return Lookup(sums.ids, self._step(first, second, sums.grads), sums.rows), once

    def _step(self, first: torch.Tensor, second: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        size = torch.addcmul(second, grads, grads, value=1 - self.betas[1]).rsqrt_()
        return torch.add(first, grads, alpha=1 - self.betas[0]).mul_(size)

    def _moment(self, moments: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        if name not in moments:
            raise PruneError(
                f"precondition: adam; {name} has no moments: it was not trained",
                hint="choose parameters that were trained: --params",
            )
        return moments[name]
