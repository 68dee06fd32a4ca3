"""Exact norms of per-example gradients, from their factors.

‖Σ_t l_t ⊗ r_t‖² = Σ_{t,s} ⟨l_t, l_s⟩⟨r_t, r_s⟩: for a short example two T × T Gram matrices are cheaper than the
gradient itself (the ghost norm of Li et al. 2022, arXiv 2110.05679, section 4); for a long one the gradient is formed,
a block at a time, measured and dropped.
"""

from __future__ import annotations

import torch

from prune_cli.gradients.factors import BLOCK, Factors, Lookup, Outer, Sum, dot, narrow, times

# A gradient's squared norm, as a share of the sum of its tokens' squared norms. Below _FORM the tokens' gradients
# cancel so far that products of Gram matrices are not precise enough; below _NOTHING only rounding is left.
_FORM, _NOTHING = 1e-4, 1e-11


class Norms:
    """Norms of a batch's gradients, parameter by parameter. Layers that share an input share its Gram matrix."""

    def __init__(self) -> None:
        self._of: torch.Tensor | None = None  # the input that `_gram` is of
        self._gram = torch.empty(0)
        self.begin(0, torch.device("cpu"))

    def begin(self, b: int, device: torch.device) -> None:
        """Start a batch of b examples."""
        squared, apart = torch.zeros(2, b, dtype=torch.float64, device=device)
        self._squared, self._apart = [squared], [apart]  # of each parameter, added up once: on a GPU every call costs

    def add(self, gradient: Factors, some: slice = slice(None), sign: int = 1) -> None:
        """Add a parameter's gradients, of all examples or of some; sign −1: subtract them again."""
        for sums, given, by in zip((self._squared, self._apart), self._both(gradient), (sign, 1), strict=True):
            if len(given) == len(sums[0]):
                sums.append(given if by > 0 else -given)
            else:
                sums[0][some].add_(given, alpha=by)

    def norms(self) -> torch.Tensor:
        """‖g‖ of each example's whole gradient: float64 [b]; 0 where only rounding is left."""
        self._of = None
        squared, apart = _total(self._squared), _total(self._apart)
        return torch.where(squared > _NOTHING * apart, squared, 0).sqrt()

    def _both(self, gradient: Factors) -> tuple[torch.Tensor, torch.Tensor]:
        """‖g‖² of each example's gradient of a parameter, and the sum of its tokens' shares ‖g_t‖²: [b]."""
        if isinstance(gradient, Outer):
            return self._outer(gradient)
        if isinstance(gradient, Lookup):
            sums, once = gradient.summed()
            apart = gradient.grads.square().sum((1, 2), dtype=torch.float64)
            return (sums.grads.square().sum(2, dtype=torch.float64) * once).sum(1), apart
        if isinstance(gradient, Sum):
            return self._sum(gradient)
        squared = _squared(gradient.grads)
        return squared, squared

    def _outer(self, gradient: Outer) -> tuple[torch.Tensor, torch.Tensor]:
        left, right = gradient.left, gradient.right
        (_, t, r), c = left.shape, right.shape[2]
        long = t * (r + c) > r * c
        if not long and self._of is not right:
            self._of, self._gram = right, gram(right)
        if narrow(left):  # what is left where tokens cancel is their own rounding, and no better if formed
            squared = _formed(gradient) if long else dot(gram(left), self._gram)
            return squared, squared
        if long:
            sizes = _sizes(left) * _sizes(right)
            return _formed(gradient), sizes.double().square().sum(1)
        grams = gram(left), self._gram
        apart = torch.stack([own.diagonal(dim1=1, dim2=2) for own in grams]).prod(0).sum(1).double()
        return _precise(gradient, dot(*grams).double(), apart), apart

    def _sum(self, gradient: Sum) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [self._both(part) for part in gradient.parts]
        apart = torch.stack([shares for _, shares in parts]).sum(0)
        outer = next((part for part in gradient.parts if isinstance(part, Outer)), None)
        lookup = next((part for part in gradient.parts if isinstance(part, Lookup)), None)
        if outer is None or lookup is None or len(gradient.parts) > 2:
            return _squared(gradient.dense()), apart
        whole = torch.stack([squared for squared, _ in parts]).sum(0)
        return _precise(gradient, whole + 2 * _outer_lookup(outer, lookup), apart), apart


def _precise(gradient: Outer | Sum, squared: torch.Tensor, apart: torch.Tensor) -> torch.Tensor:
    """‖g‖² [b], from the formed gradient where tokens nearly cancel: there a sum of products is mostly rounding."""
    few = (squared < _FORM * apart).nonzero().flatten()
    for i in few.tolist():
        formed = gradient.of(slice(i, i + 1)).dense()
        squared[i] = torch.linalg.vector_norm(formed).double().square()
    return squared


def _squared(grads: torch.Tensor) -> torch.Tensor:
    """‖g‖² of gradients [b, …]: [b]."""
    return dot(grads, grads)


def _total(parts: list[torch.Tensor]) -> torch.Tensor:
    """The sum of parts [b], in float64; those of one type at once."""
    types = dict.fromkeys(part.dtype for part in parts)
    alike = (torch.stack([part for part in parts if part.dtype == dtype]) for dtype in types)
    return torch.stack([some.sum(0, dtype=torch.float64) for some in alike]).sum(0)


def _sizes(x: torch.Tensor) -> torch.Tensor:
    """‖x_t‖ of each example's tokens, in float32 at least: [b, t, d] -> [b, t]."""
    return torch.linalg.vector_norm(x, dim=2, dtype=torch.promote_types(x.dtype, torch.float32))


def gram(x: torch.Tensor) -> torch.Tensor:
    """⟨x_t, x_s⟩ of each example's tokens: [b, t, d] -> [b, t, t]."""
    return times(x, x.transpose(1, 2))


def _outer_lookup(outer: Outer, lookup: Lookup) -> torch.Tensor:
    """⟨Σ_t l_t ⊗ r_t, Σ_s e_{v_s} ⊗ g_s⟩ = Σ_{t,s} l_t[v_s] ⟨r_t, g_s⟩: float64 [b]."""
    at = lookup.ids.unsqueeze(1).expand(-1, outer.left.shape[1], -1)
    entries = outer.left.gather(2, at)  # [b, t, s]
    return (entries * times(outer.right, lookup.grads.transpose(1, 2))).sum((1, 2), dtype=torch.float64)


def _formed(gradient: Outer) -> torch.Tensor:
    left, right = gradient.left, gradient.right
    if gradient.small:
        return _squared(gradient.formed)
    (b, _, r), c = left.shape, right.shape[2]
    some = 1 if left.device.type == "cpu" else b  # examples at a time
    rows = max(1, min(r, BLOCK[left.device.type] // (some * c)))
    squared = left.new_zeros(b, dtype=torch.float64)
    if narrow(left):
        for block in left.split(rows, 2):
            formed = times(block.transpose(1, 2), right)
            squared += _squared(formed)
        return squared
    memory = left.new_empty(some, rows, c)  # reused for every block: on a CPU it stays in the cache
    for row in range(0, r, rows):
        formed = memory[:, : min(rows, r - row)]
        for i in range(0, b, some):
            j = i + some
            torch.bmm(left[i:j, :, row : row + rows].transpose(1, 2), right[i:j], out=formed)
            squared[i:j] += _squared(formed)
    return squared
