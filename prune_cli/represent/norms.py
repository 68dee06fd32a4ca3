"""Exact norms of per-example gradients, from their factors.

‖Σ_t l_t ⊗ r_t‖² = Σ_{t,s} ⟨l_t, l_s⟩⟨r_t, r_s⟩: for a short example two T × T Gram matrices are cheaper than the
gradient itself (the ghost norm of Li et al. 2022, arXiv 2110.05679, section 4); for a long one the gradient is formed,
a block at a time, measured and dropped.
"""

from __future__ import annotations

import torch

from prune_cli.represent.factors import Factors, Lookup, Outer, Sum

# entries formed at a time: on a CPU as many as its cache holds; on a GPU enough to keep it busy
_BLOCK = {"cpu": 2**20, "cuda": 2**26}


class Norms:
    """Squared norms of gradients; what layers that share an input have in common is worked out once."""

    def __init__(self) -> None:
        self._of: torch.Tensor | None = None  # the input that `_gram` is of
        self._gram = torch.empty(0)

    def squared(self, gradient: Factors) -> torch.Tensor:
        """‖g‖² of each example's gradient: float64 [b]."""
        if isinstance(gradient, Outer):
            return self._outer(gradient)
        if isinstance(gradient, Lookup):
            same = gradient.ids.unsqueeze(1) == gradient.ids.unsqueeze(2)  # looked up twice: the sum is its gradient
            return (gram(gradient.grads) * same).sum((1, 2), dtype=torch.float64)
        if isinstance(gradient, Sum):
            whole = sum((self.squared(part) for part in gradient.parts), torch.zeros((), dtype=torch.float64))
            outer = next((part for part in gradient.parts if isinstance(part, Outer)), None)
            lookup = next((part for part in gradient.parts if isinstance(part, Lookup)), None)
            if outer is None or lookup is None or len(gradient.parts) > 2:
                dense = gradient.dense().flatten(1)
                return torch.linalg.vector_norm(dense, dim=1).double().square()
            return whole + 2 * _outer_lookup(outer, lookup)
        return torch.linalg.vector_norm(gradient.grads.flatten(1), dim=1).double().square()

    def _outer(self, gradient: Outer) -> torch.Tensor:
        _, t, r = gradient.left.shape
        c = gradient.right.shape[2]
        if t * (r + c) > r * c:
            return _formed(gradient)
        if self._of is not gradient.right:
            self._of, self._gram = gradient.right, gram(gradient.right)
        return (gram(gradient.left) * self._gram).sum((1, 2), dtype=torch.float64)

    def forget(self) -> None:
        """Let go of the last input."""
        self._of = None


def gram(x: torch.Tensor) -> torch.Tensor:
    """⟨x_t, x_s⟩ of each example's tokens: [b, t, d] -> [b, t, t]."""
    return x @ x.transpose(1, 2)


def _outer_lookup(outer: Outer, lookup: Lookup) -> torch.Tensor:
    """⟨Σ_t l_t ⊗ r_t, Σ_s e_{v_s} ⊗ g_s⟩ = Σ_{t,s} l_t[v_s] ⟨r_t, g_s⟩: float64 [b]."""
    at = lookup.ids.unsqueeze(1).expand(-1, outer.left.shape[1], -1)
    taken = outer.left.gather(2, at)  # [b, t, s]
    return (taken * (outer.right @ lookup.grads.transpose(1, 2))).sum((1, 2), dtype=torch.float64)


def _formed(gradient: Outer) -> torch.Tensor:
    left, right = gradient.left, gradient.right
    (b, _, r), c = left.shape, right.shape[2]
    some = 1 if left.device.type == "cpu" else b  # examples at a time
    rows = max(1, min(r, _BLOCK[left.device.type] // (some * c)))
    squared = left.new_zeros(b, dtype=torch.float64)
    memory = left.new_empty(some, rows, c)  # used again and again: on a CPU it stays in the cache
    for row in range(0, r, rows):
        formed = memory[:, : min(rows, r - row)]
        for i in range(0, b, some):
            j = i + some
            torch.bmm(left[i:j, :, row : row + rows].transpose(1, 2), right[i:j], out=formed)
            squared[i:j] += torch.linalg.vector_norm(formed.flatten(1), dim=1).double().square()
    return squared
