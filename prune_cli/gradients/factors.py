"""Per-example gradients of one parameter for the b examples of a batch, in the form in which they are smallest."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import torch

# entries of gradients formed at a time: on a CPU as many as its cache holds; on a GPU enough to keep it busy
BLOCK = {"cpu": 2**17, "cuda": 2**26}
_RANKS = 64  # the shorter side of a matrix, up to which its gradients are formed once for all who need them
_TILE = 64  # rows of the products that a GPU's matrix units are fast at


@dataclass(frozen=True)
class Outer:
    """Gradients of a matrix parameter [r, c]: Σ_t left[:, t] ⊗ right[:, t], left [b, t, r], right [b, t, c].

    Layers that are given the same input share the very tensor that holds it.
    """

    left: torch.Tensor
    right: torch.Tensor

    @property
    def small(self) -> bool:
        """Whether the parameter is narrow, as an adapter's, and its gradients are less than their factors."""
        (_, t, r), c = self.left.shape, self.right.shape[2]
        return min(r, c) <= _RANKS and r * c < t * (r + c)

    @cached_property
    def formed(self) -> torch.Tensor:
        """The gradients [b, r, c], worked out once; for small parameters."""
        return self.dense()

    def dense(self, memory: torch.Tensor | None = None) -> torch.Tensor:
        """The gradients [b, r, c]; in `memory` [b or more, r, c] where it is of their type."""
        left = self.left.transpose(1, 2)
        if memory is None or memory.dtype != left.dtype:
            return times(left, self.right)
        return torch.bmm(left, self.right, out=memory[: len(left)])

    def __len__(self) -> int:
        """Examples in the batch: b."""
        return len(self.left)

    def of(self, some: slice) -> Outer:
        """The gradients of some of the examples."""
        return Outer(self.left[some], self.right[some])

    def plus(self, *others: Outer) -> Outer:
        """The sum with those of other calls: their tokens are appended."""
        every = (self, *others)
        return Outer(torch.cat([o.left for o in every], 1), torch.cat([o.right for o in every], 1))


@dataclass(frozen=True)
class Lookup:
    """Gradients of a table [v, d]: row ids[:, t] gets grads[:, t]; ids [b, t], grads [b, t, d]."""

    ids: torch.Tensor
    grads: torch.Tensor
    rows: int

    def dense(self) -> torch.Tensor:
        """The gradients [b, v, d]."""
        table = self.grads.new_zeros(len(self.ids), self.rows, self.grads.shape[2])
        return table.scatter_add_(1, self.ids.unsqueeze(2).expand_as(self.grads), self.grads)

    def __len__(self) -> int:
        """Examples in the batch: b."""
        return len(self.ids)

    def of(self, some: slice) -> Lookup:
        """The gradients of some of the examples."""
        return Lookup(self.ids[some], self.grads[some], self.rows)

    def summed(self) -> tuple[Lookup, torch.Tensor]:
        """At each of the t positions, the sum of all gradients of its row in that example.

        Also, bool [b, t]: whether the position is the first with that row.
        """
        same = self.ids.unsqueeze(1) == self.ids.unsqueeze(2)
        return Lookup(self.ids, same.to(self.grads.dtype) @ self.grads, self.rows), ~same.tril(-1).any(2)

    def plus(self, *others: Lookup) -> Lookup:
        """The sum with those of other calls: their tokens are appended."""
        every = (self, *others)
        return Lookup(torch.cat([o.ids for o in every], 1), torch.cat([o.grads for o in every], 1), self.rows)


@dataclass(frozen=True)
class Dense:
    """Gradients [b, …] of a parameter of that shape […]."""

    grads: torch.Tensor

    def dense(self) -> torch.Tensor:
        """The gradients [b, …]."""
        return self.grads

    def __len__(self) -> int:
        """Examples in the batch: b."""
        return len(self.grads)

    def of(self, some: slice) -> Dense:
        """The gradients of some of the examples."""
        return Dense(self.grads[some])

    def plus(self, *others: Dense) -> Dense:
        """The sum with those of other calls."""
        return Dense(sum((other.grads for other in others), self.grads))


Part = Outer | Lookup | Dense


@dataclass(frozen=True)
class Sum:
    """Gradients of a parameter that is used in several ways (tied embeddings): at most one part of each kind."""

    parts: tuple[Part, ...]

    def dense(self) -> torch.Tensor:
        """The gradients [b, …]."""
        first, *others = (part.dense() for part in self.parts)
        return sum(others, first)

    def __len__(self) -> int:
        """Examples in the batch: b."""
        return len(self.parts[0])

    def of(self, some: slice) -> Sum:
        """The gradients of some of the examples."""
        return Sum(tuple(part.of(some) for part in self.parts))


Factors = Part | Sum


@dataclass(frozen=True)
class Fold:
    """How a matrix [r, c] is folded: entry i, j times rows[i] columns[j] is added to i mod high, j mod broad.

    rows [r], columns [c]: signs. sides: high and broad.
    """

    rows: torch.Tensor
    columns: torch.Tensor
    sides: tuple[int, int]


class Input:
    """A layer's input [b, t, d], made a factor when it is first needed and for all the layers that share it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def beside(self, other: torch.Tensor) -> torch.Tensor:
        """As the factor beside the gradient of a layer's output: where that is in bfloat16, the layer read it so."""
        self._tensor = self._tensor.to(other.dtype) if narrow(other) else wide(self._tensor)
        return self._tensor


def merged(given: Iterable[Part]) -> Factors:
    """The sum of the parts that the calls of one forward gave a parameter."""
    kinds: dict[type, list[Part]] = {}
    for part in given:
        kinds.setdefault(type(part), []).append(part)
    # one list holds one class, which a type checker cannot follow
    parts = tuple(first.plus(*others) if others else first for first, *others in kinds.values())  # type: ignore[arg-type]
    return parts[0] if len(parts) == 1 else Sum(parts)


def wide(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in float32 at least: in half precision, sums over tokens would lose small gradients."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def factor(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor as a factor of an Outer is kept: in float32 at least, but on a GPU bfloat16 stays.

    There `times` and `dot` multiply bfloat16 exactly and add in float32, many times faster than float32 itself.
    """
    return tensor if narrow(tensor) else wide(tensor)


def narrow(tensor: torch.Tensor) -> bool:
    """Whether a tensor is in bfloat16 on a GPU."""
    return tensor.is_cuda and tensor.dtype == torch.bfloat16


def times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """a @ b of [b, n, m] and [b, m, k], in float32 at least."""
    return _narrow_times(a, b) if narrow(a) and narrow(b) else wide(a) @ wide(b)


def _narrow_times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    return torch.bmm(a, b, out_dtype=torch.float32)


def dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """The inner product of each example's entries, [b, …] with [b, …], in float32 at least: [b]."""
    a, b = a.flatten(1), b.flatten(1)
    if narrow(a) and narrow(b):
        # rows by rows, of which the diagonal is needed: a product of two vectors would leave the matrix units idle
        rows = math.gcd(a.shape[1], _TILE)
        a, b = a.unflatten(1, (rows, -1)), b.unflatten(1, (rows, -1))
        return times(a, b.transpose(1, 2)).diagonal(dim1=1, dim2=2).sum(1)
    return torch.linalg.vecdot(wide(a), wide(b))
