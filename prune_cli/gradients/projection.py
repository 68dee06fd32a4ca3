"""Random projection of per-example gradients that are never written out: a signed fold in two steps.

A matrix parameter's gradient Σ_t l_t ⊗ r_t is folded from both sides first: the entries of l_t and r_t get random
signs and those whose index is the same modulo a width are added, so that the product is no larger than `widths` says.
It is laid out flat, and entry f is added to bucket (f + start) mod k. All parameters share the k buckets. Signs
s_i s'_j of two different entries are uncorrelated and of mean zero, so inner products are kept in expectation, as with
a count sketch (Charikar et al. 2002; Weinberger et al. 2009, arXiv 0902.2206). The variance has a part from the k
buckets, ∝ 1/k, and one from each folded side, ∝ 1/width for gradients of low rank. That part averages out over a
model's blocks; a matrix outside them (a pooler, a head) holds much of the norm in the gradient of a single token, so
it is given more room. `make bench-fidelity` measures the error beside that of a count sketch of the whole gradient.

Rows of a table that is only looked up are not folded. k is a prime: a width that divided k would send whole columns
to the same few buckets.
"""

from __future__ import annotations

import hashlib
import math
import re
from itertools import pairwise

import torch
from torch.nn.functional import pad

from prune_cli.gradients.factors import Dense, Factors, Fold, Lookup, Outer, narrow, times

_AREA = 2**14  # entries that a matrix in one of the model's blocks is folded to
_OUTSIDE = 2**20  # one outside them: there are few
_PRODUCT = 256  # the widest side that bfloat16 is folded to by a product of matrices
_BLOCK = re.compile(r"(?:.*?\.)??\d+\.")  # encoder.layer.4. of encoder.layer.4.output.dense.weight


def buckets(dim: int) -> int:
    """The largest prime up to `dim`, 2 or more."""
    return next((k for k in range(dim, 2, -1) if all(k % d for d in range(2, int(k**0.5) + 1))), 2)


class Sketch:
    """Per-example gradients of a batch, projected [b, k]."""

    def __init__(self, dim: int, seed: int) -> None:
        self.k = buckets(dim)
        self._seed = seed
        self._signs: dict[tuple[str, int, torch.dtype], torch.Tensor] = {}
        self._wraps: dict[tuple[str, int, int], torch.Tensor] = {}
        self._starts: dict[str, int] = {}
        self._of: torch.Tensor | None = None  # the input that `_folded` are of
        self._folded: dict[tuple[str, int], torch.Tensor] = {}  # by block and width
        self.projected = torch.empty(0)

    def begin(self, b: int, device: torch.device) -> None:
        """Start a batch of b examples."""
        self._of = None
        self.projected = torch.zeros(b, self.k, device=device)

    def add(self, name: str, gradient: Factors) -> None:
        """Add a parameter's gradients."""
        if isinstance(gradient, Outer):
            self._add_outer(name, gradient)
        elif isinstance(gradient, Lookup):
            grads = gradient.grads
            rows = self._signs_for(name, gradient.rows, grads)[gradient.ids].unsqueeze(2)
            self._scatter(name, gradient.ids, grads * rows * self._signs_for(_columns(name), grads.shape[2], grads))
        elif isinstance(gradient, Dense):
            flat = gradient.grads.flatten(1)
            self.spread(name, flat, self._signs_for(name, flat.shape[1], flat))
        else:
            for part in gradient.parts:
                self._add_tied(name, part)

    def fold_of(self, name: str, left: torch.Tensor, right: torch.Tensor) -> Fold:
        """How a matrix parameter's gradients are folded. left […, r], right […, c]: like what is folded of them."""
        r, c = left.shape[-1], right.shape[-1]
        return Fold(self._signs_for(name, r, left), self._signs_for(_columns(name), c, right), widths(name, r, c))

    def folded(self, name: str, matrices: torch.Tensor) -> torch.Tensor:
        """Formed gradients [b, r, c] of a matrix, folded like their factors: [b, m]."""
        high, broad = widths(name, *matrices.shape[1:])
        rows = self._side(name, matrices.transpose(1, 2), high).transpose(1, 2)
        return self._side(_columns(name), rows, broad).flatten(1)

    def _add_outer(self, name: str, gradient: Outer) -> None:
        if gradient.small:
            self.spread(name, self.folded(name, gradient.formed))
            return
        left, right = gradient.left, gradient.right
        high, broad = widths(name, left.shape[2], right.shape[2])
        if self._of is not right:  # layers that share an input (query, key, value) share its fold
            self._of, self._folded = right, {}
        key = _block(name), broad
        if key not in self._folded:
            self._folded[key] = self._side(_columns(name), right, broad)
        rows = self._side(name, left, high)
        self.spread(name, times(rows.transpose(1, 2), self._folded[key]).flatten(1))

    def _add_tied(self, name: str, part: Outer | Lookup | Dense) -> None:
        """Add a part of the gradient of a table that is also a matrix: all parts are folded in the same way."""
        if isinstance(part, Outer):
            self._add_outer(name, part)
        elif isinstance(part, Lookup):
            high, broad = widths(name, part.rows, part.grads.shape[2])
            signs = self._signs_for(name, part.rows, part.grads)[part.ids].unsqueeze(2)
            folded = self._side(_columns(name), part.grads * signs, broad)
            self._scatter(name, part.ids.remainder(high), folded)
        else:
            self.spread(name, self.folded(name, part.grads))

    def _scatter(self, name: str, ids: torch.Tensor, signed: torch.Tensor) -> None:
        """Add rows `ids` [b, t] of a table, signed [b, t, d]."""
        b, t, d = signed.shape
        place = (self._start(name) + ids * d).remainder(self.k).unsqueeze(2) + torch.arange(d, device=ids.device)
        rounds = -(-(self.k + d) // self.k)
        memory = signed.new_zeros(b, rounds * self.k)
        memory.scatter_add_(1, place.view(b, t * d), signed.reshape(b, t * d))
        self.projected += memory.unflatten(1, (rounds, self.k)).sum(1)

    def spread(self, name: str, flat: torch.Tensor, signs: torch.Tensor | None = None) -> None:
        """Add entries [b, m], times signs [m], to the buckets, from the parameter's start on and cyclically."""
        k, m = self.k, flat.shape[1]
        first = k - self._start(name)  # entries until the buckets begin anew
        whole = (m - first) // k  # times that all of them are filled then
        ends = [0, *range(first, m, k), m]
        pieces = list(pairwise(ends))
        if whole > 1:
            some = slice(first, first + whole * k)
            rounds = flat[:, some] if signs is None else flat[:, some] * signs[some]
            self.projected.add_(rounds.unflatten(1, (whole, k)).sum(1))
            pieces = [(0, first), (some.stop, m)]
        for start, end in pieces:
            at = self.projected[:, (start - first) % k :][:, : end - start]
            if signs is None:
                at.add_(flat[:, start:end])  # not `+=`: an assignment to a slice would write it once more
            else:
                at.addcmul_(flat[:, start:end], signs[start:end])

    def _start(self, name: str) -> int:
        if name not in self._starts:
            self._starts[name] = self._number(name, "start") % self.k
        return self._starts[name]

    def _side(self, side: str, x: torch.Tensor, w: int) -> torch.Tensor:
        """What lies along a side of a matrix, […, d], signed and folded: […, w]."""
        d = x.shape[-1]
        signs = self._signs_for(side, d, x)
        if w == d or w > _PRODUCT or not narrow(x):
            return fold(x, signs, w)
        if (side, d, w) not in self._wraps:  # x is read once, and added up in float32
            place = torch.arange(w, device=x.device) == torch.arange(d, device=x.device).remainder(w).unsqueeze(1)
            self._wraps[side, d, w] = place * signs.unsqueeze(1)
        return x @ self._wraps[side, d, w]

    def _signs_for(self, name: str, size: int, like: torch.Tensor) -> torch.Tensor:
        key = name, size, like.dtype
        if key not in self._signs:
            # drawn on the CPU: the same projection on every device
            generator = torch.Generator().manual_seed(self._number(name, str(size)))
            signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
            self._signs[key] = signs.to(like.device, like.dtype)
        return self._signs[key]

    def _number(self, *parts: str) -> int:
        """A number that depends on the seed and the given words alone."""
        text = "/".join([str(self._seed), *parts])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")


def _block(name: str) -> str:
    """The block that a parameter is in: its name up to the first number; nothing outside the blocks."""
    found = _BLOCK.match(name)
    return found[0] if found else ""


def _columns(name: str) -> str:
    """What the signs for the columns of a block's matrices are drawn by. Their rows have signs of their own."""
    return f"columns of {_block(name)}"


def widths(name: str, rows: int, columns: int) -> tuple[int, int]:
    """What the sides of a matrix parameter are folded to: all of a small matrix stays, else its shorter side may."""
    area = _AREA if _block(name) else _OUTSIDE
    side = math.isqrt(area)
    return min(rows, max(side, area // columns)), min(columns, max(side, area // rows))


def fold(x: torch.Tensor, signs: torch.Tensor, w: int) -> torch.Tensor:
    """Signed sums of the entries of the last axis [d] whose index is the same modulo w, at most d."""
    if w == x.shape[-1]:
        return x * signs
    if x.is_cuda:  # few calls
        signed = pad(x * signs, (0, -x.shape[-1] % w))
        return signed.unflatten(-1, (-1, w)).sum(-2)
    folded = x[..., :w] * signs[:w]
    for at in range(w, x.shape[-1], w):
        part = x[..., at : at + w]
        folded[..., : part.shape[-1]].addcmul_(part, signs[at : at + w])
    return folded
