"""Random projection of per-example gradients that are never written out: a signed fold.

A parameter's gradient [r, c] is multiplied by random signs s_r s'_c, laid out flat, and entry f is added to bucket
(f + start) mod k. All parameters share the k buckets, each with its own signs and start. The signs of two entries
are uncorrelated and of mean zero, so inner products are kept in expectation, as with a count sketch (Charikar et
al. 2002; Weinberger et al. 2009, arXiv 0902.2206); the product form lets the signs be put on the factors of a linear
layer's gradient, before the product, at almost no cost. k is a prime: a layer's width that divided k would send
whole columns to the same few buckets.
"""

from __future__ import annotations

import hashlib

import torch

from prune_cli.represent.capture import Dense, Factors, Lookup, Outer

_BLOCK = {
    "cpu": 2**20,
    "cuda": 2**26,
}  # entries of a gradient formed at a time: what fits the caches pays on a CPU


def buckets(dim: int) -> int:
    """The largest prime up to `dim` (2 for a smaller one)."""
    return next((k for k in range(dim, 2, -1) if all(k % d for d in range(2, int(k**0.5) + 1))), 2)


class Sketch:
    """Per-example gradients of a batch, projected [b, k], and their squared norms [b], exact."""

    def __init__(self, dim: int, seed: int) -> None:
        self.k = buckets(dim)
        self._seed = seed
        self._signs: dict[tuple[str, int, int], torch.Tensor] = {}
        self._starts: dict[str, int] = {}
        self.projected = torch.empty(0)
        self.squared_norm = torch.empty(0)

    def begin(self, b: int, device: torch.device) -> None:
        """Start a batch of b examples."""
        self.projected = torch.zeros(b, self.k, device=device)
        self.squared_norm = torch.zeros(b, dtype=torch.float64, device=device)

    def add(self, name: str, gradient: Factors) -> None:
        """Add a parameter's gradients."""
        if name not in self._starts:
            self._starts[name] = self._number(name, "start") % self.k
        start = self._starts[name]
        if isinstance(gradient, Outer):
            self._add_outer(name, start, gradient)
        elif isinstance(gradient, Lookup):
            self._add_lookup(name, start, gradient)
        else:
            self._add_dense(name, start, gradient)

    def _add_outer(self, name: str, start: int, gradient: Outer) -> None:
        b, _, r = gradient.left.shape
        c = gradient.right.shape[2]
        left = (gradient.left * self._sign(name, 0, gradient.left)).transpose(1, 2)
        right = gradient.right * self._sign(name, 1, gradient.right)
        step = max(1, _BLOCK.get(left.device.type, 2**20) // (b * c))
        for row in range(0, r, step):
            flat = (left[:, row : row + step] @ right).flatten(1)
            self._fold(flat, start + row * c)

    def _add_lookup(self, name: str, start: int, gradient: Lookup) -> None:
        ids, grads = gradient.ids, gradient.grads
        b, t, d = grads.shape
        same = ids.unsqueeze(1) == ids.unsqueeze(2)  # a row looked up twice has the sum as its gradient
        self.squared_norm += ((grads @ grads.transpose(1, 2)) * same).sum((1, 2), dtype=torch.float64)
        rows = self._signs_for(name, 0, gradient.rows, grads)[ids].unsqueeze(2)
        signed = grads * rows * self._sign(name, 1, grads)
        place = (ids.unsqueeze(2) * d + torch.arange(start, start + d, device=ids.device)) % self.k
        self.projected.scatter_add_(1, place.reshape(b, t * d), signed.reshape(b, t * d).float())

    def _add_dense(self, name: str, start: int, gradient: Dense) -> None:
        flat = gradient.grads.flatten(1)
        self._fold(flat * self._sign(name, 0, flat), start)

    def _fold(self, flat: torch.Tensor, start: int) -> None:
        """Add signed entries [b, m], entry f to bucket (start + f) mod k, and their squares to the norm."""
        self.squared_norm += torch.linalg.vector_norm(flat, dim=1).double().square()  # one pass, no copy
        k, start = self.k, start % self.k
        head = min(flat.shape[1], k - start)
        self.projected[:, start : start + head] += flat[:, :head]
        rest = flat[:, head:]
        rounds = rest.shape[1] // k
        if rounds:
            self.projected += rest[:, : rounds * k].unflatten(1, (rounds, k)).sum(1)
        tail = rest[:, rounds * k :]
        self.projected[:, : tail.shape[1]] += tail

    def _sign(self, name: str, axis: int, like: torch.Tensor) -> torch.Tensor:
        """Signs for the last axis of `like`."""
        return self._signs_for(name, axis, like.shape[-1], like)

    def _signs_for(self, name: str, axis: int, size: int, like: torch.Tensor) -> torch.Tensor:
        key = (name, axis, size)
        if key not in self._signs:
            # drawn on the CPU: the same projection on every device
            generator = torch.Generator().manual_seed(self._number(name, str(axis)))
            signs = torch.randint(0, 2, (size,), generator=generator) * 2 - 1
            self._signs[key] = signs.to(like.device, like.dtype)
        return self._signs[key]

    def _number(self, *parts: str) -> int:
        """A number that follows from the seed and the words given."""
        text = "/".join([str(self._seed), *parts])
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "little")
