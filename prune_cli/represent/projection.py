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

# entries formed at a time: on a CPU one example's, as many as its cache holds; on a GPU enough to keep it busy
_BLOCK = {"cpu": 2**20, "cuda": 2**26}


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
        left, right = gradient.left, gradient.right
        (b, t, r), c, device = left.shape, right.shape[2], left.device.type
        row_signs, column_signs = self._sign(name, 0, left), self._sign(name, 1, right)
        some = 1 if device == "cpu" else b  # examples at a time
        rows = max(1, min(r, _BLOCK[device] // (some * c)))
        signed_left, signed_right = left.new_empty(some, t, rows), right.new_empty(some, t, c)
        memory = left.new_empty(some, rows * c + 2 * self.k)  # used again and again: on a CPU it stays in the cache
        for row in range(0, r, rows):
            end = min(row + rows, r)
            block, folded = self._block(memory, start + row * c, (end - row) * c)
            formed = block.view(some, end - row, c)
            for i in range(0, b, some):
                j = i + some
                some_left = torch.mul(left[i:j, :, row:end], row_signs[row:end], out=signed_left[:, :, : end - row])
                torch.mul(right[i:j], column_signs, out=signed_right)
                torch.bmm(some_left.transpose(1, 2), signed_right, out=formed)
                self.projected[i:j] += folded.sum(1)
                self.squared_norm[i:j] += torch.linalg.vector_norm(block, dim=1).double().square()

    def _add_lookup(self, name: str, start: int, gradient: Lookup) -> None:
        ids, grads = gradient.ids, gradient.grads
        b, t, d = grads.shape
        same = ids.unsqueeze(1) == ids.unsqueeze(2)  # a row looked up twice has the sum as its gradient
        self.squared_norm += ((grads @ grads.transpose(1, 2)) * same).sum((1, 2), dtype=torch.float64)
        rows = self._signs_for(name, 0, gradient.rows, grads)[ids].unsqueeze(2)
        signed = grads * rows * self._sign(name, 1, grads)
        place = (start + ids * d).remainder(self.k).unsqueeze(2) + torch.arange(d, device=ids.device)
        memory = signed.new_zeros(b, d + 2 * self.k)
        memory.scatter_add_(1, place.view(b, t * d), signed.view(b, t * d))
        self.projected += self._block(memory, 0, self.k + d)[1].sum(1)

    def _add_dense(self, name: str, start: int, gradient: Dense) -> None:
        flat = gradient.grads.flatten(1)
        block, folded = self._block(flat.new_empty(len(flat), flat.shape[1] + 2 * self.k), start, flat.shape[1])
        torch.mul(flat, self._sign(name, 0, flat), out=block)
        self.projected += folded.sum(1)
        self.squared_norm += torch.linalg.vector_norm(block, dim=1).double().square()

    def _block(self, memory: torch.Tensor, start: int, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Room [b, size] in `memory` for entries from `start` on, and a view [b, m, k] to sum over m to fold them."""
        lead = start % self.k
        rounds = -(-(lead + size) // self.k)
        memory[:, :lead] = 0
        memory[:, lead + size : rounds * self.k] = 0
        return memory[:, lead : lead + size], memory[:, : rounds * self.k].unflatten(1, (rounds, self.k))

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
