"""Projected gradients and norms of a batch's examples, or projected steps that Adam would take on them."""

from __future__ import annotations

import torch

from prune_cli.gradients.adam import Adam
from prune_cli.gradients.factors import Dense, Factors, Lookup, Outer
from prune_cli.gradients.norms import Norms
from prune_cli.gradients.projection import Sketch

_ROWS = 4096  # of a table, at a time
_REPAID = 4  # examples for which cutting a matrix into pieces is repaid


class Projected:
    """Collects the gradients of a batch, parameter by parameter, to `projected` [b, k] and `norms` [b].

    dim, seed: of the projection (projection.py); k is the largest prime up to `dim`. exact_norms: otherwise
    the norms are those of the projected gradients.
    """

    def __init__(self, dim: int, seed: int, *, exact_norms: bool = True) -> None:
        self._projection, self._exact = (dim, seed), exact_norms
        self._sketch, self._norms = Sketch(dim, seed), Norms()
        self._adam: Adam | None = None
        self._rested: dict[str, torch.Tensor] = {}  # table -> the projection of its resting steps [1, k]
        self._seen: set[str] = set()

    def precondition(self, adam: Adam | None) -> None:
        """From now on, project Adam's steps in place of gradients; None: gradients."""
        self._adam = adam
        self._rested = {}

    def begin(self, b: int, device: torch.device) -> None:
        """Start a batch of b examples."""
        self._norms.begin(b, device)
        self._sketch.begin(b, device)
        self._seen = set()

    def add(self, name: str, gradient: Factors) -> None:
        """Add the gradients of a parameter."""
        self._seen.add(name)
        if self._exact:
            self._norms.add(gradient)
        if self._adam:
            self._add_steps(self._adam, name, gradient)
        else:
            self._sketch.add(name, gradient)

    def finish(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The projections [b, k], and the norms ‖g‖ of the plain gradients, float64 [b]."""
        projected = self._sketch.projected
        if not self._exact:
            return projected, torch.linalg.vector_norm(projected, dim=1, dtype=torch.float64)
        norms = self._norms.norms()
        if self._adam:
            self._adam.check(self._seen)
            projected = sum(self._rested.values(), projected)
        else:
            projected = torch.where(norms.unsqueeze(1) > 0, projected, 0)  # rounding must not pass for a direction
        return projected, norms

    def _add_steps(self, adam: Adam, name: str, gradient: Factors) -> None:
        """Add Adam's steps for a parameter."""
        if isinstance(gradient, Lookup):
            rest = adam.resting(name)
            self._add_rest(name, rest)
            steps, once = adam.looked_up(name, gradient)
            self._sketch.add(name, Lookup(steps.ids, (steps.grads - rest[steps.ids]) * once.unsqueeze(2), len(rest)))
        elif isinstance(gradient, Dense):
            self._sketch.add(name, Dense(adam.step(name, gradient.grads)))
        elif isinstance(gradient, Outer) and gradient.left.device.type == "cpu" and len(gradient) >= _REPAID:
            fold = self._sketch.fold_of(name, gradient.left, gradient.right)
            self._sketch.spread(name, adam.folded(name, gradient, fold).flatten(1))
        else:  # a GPU is faster with fewer calls of more work
            folded = [self._sketch.folded(name, formed) for _, formed in adam.formed(name, gradient)]
            self._sketch.spread(name, torch.cat(folded))

    def _add_rest(self, name: str, rest: torch.Tensor) -> None:
        """Project the steps of a table's rows for a gradient of zero: rows that no example looks up move too."""
        if name in self._rested:
            return
        alone = Sketch(*self._projection)
        alone.begin(1, rest.device)
        for rows in torch.arange(len(rest), device=rest.device).unsqueeze(0).split(_ROWS, 1):
            alone.add(name, Lookup(rows, rest[rows], len(rest)))
        self._rested[name] = alone.projected
