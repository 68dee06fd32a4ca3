"""Influence on a target set: what an example's gradient has in common with the target's, without any projection.

At a checkpoint the target set is one direction v_g for each of its groups, so ⟨g_i, v_g⟩ is all that is wanted of an
example's gradient: Σ_t ⟨l_t, V r_t⟩ for a matrix parameter's factors, one matrix product a batch in place of the one
that would form the gradient (as in the ghost dot product of Wang et al. 2024, arXiv 2406.11011). Norms come from Gram
matrices (norms.py). Nothing is drawn at random.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.gradients import adam
from prune_cli.gradients.adam import Adam
from prune_cli.gradients.factors import Dense, Factors, Lookup, Outer
from prune_cli.gradients.norms import Norms
from prune_cli.gradients.per_example import PerExample
from prune_cli.models import batching
from prune_cli.models.device import autocast
from prune_cli.models.find import Checkpoint
from prune_cli.represent.walk import Batch, Pass

Direction = dict[str, torch.Tensor]  # parameter -> an entry for each of its own


class Influence:
    """Observe `influence` [b, G] on a target set of G groups.

    similarity: `cosine` the mean of cos(g_i, g_v) over the target rows v of a group (a checkpoint's term of LESS, Xia
    et al. 2024, arXiv 2402.04333, the target's rows scaled to length one as in its authors' code); `dot` the mean of
    ⟨g_i, g_v⟩ (a checkpoint's term of TracInCP, Pruthi et al. 2020, arXiv 2002.08484). Higher: a training step on the
    example lowers the target's loss more. A gradient of zero has influence zero.

    precondition: `none`, or `adam`: g_i is the step that Adam would take on the example (adam.py), as LESS has it; the
    gradient is formed for that, a few examples at a time. The target's gradients are as they are.

    target: the target rows, as they are walked at each checkpoint; group [m]: 0 to G − 1, the group of each. One
    direction takes as much memory as the trainable parameters.
    """

    needs_backward = True

    def __init__(
        self,
        target: Pass,
        group: NDArray[np.int64],
        similarity: str,
        precondition: str,
        *,
        batch_size: int,
        tokens_per_batch: int,
    ) -> None:
        self._target, self._group, self._cosine = target, group, similarity == "cosine"
        self._limits, self._preconditioned = (batch_size, tokens_per_batch), precondition == "adam"
        self._adam: Adam | None = None
        self._examples, self._norms = PerExample(target.task), Norms()
        self._directions: list[Direction] = []
        self._products = torch.empty(0)

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of a row, stored type."""
        return {"influence": ((int(self._group.max()) + 1,), "float32")}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """Watch the model's examples; walk the target set first."""
        with self._examples.attached(model) as capture:
            try:
                norms = self._target_norms() if self._cosine else np.ones(len(self._group))
                self._directions = []
                for group in range(int(self._group.max()) + 1):
                    with capture.paused():
                        self._descend(group, norms)
                        self._directions.append(
                            {name: p.grad for name, p in capture.trainable.items() if p.grad is not None}
                        )
            except torch.OutOfMemoryError as failure:
                raise PruneError(
                    "the target set does not fit the device's memory",
                    hint="a smaller --tokens-per-batch, or fewer --params",
                ) from failure
            if self._preconditioned:
                self._adam = adam.load(checkpoint, capture.trainable)
            yield
        self._directions, self._adam = [], None

    def _target_norms(self) -> NDArray[np.float64]:
        """Norm of each target row's gradient [m]."""
        norms = np.empty(len(self._group))
        for positions in self._batches(np.arange(len(norms))):
            batch = self._target.batch(positions)
            self.begin(batch)
            self._backward(batch, torch.ones(len(batch), device=batch.labels.device))
            self._examples.finish()
            norms[positions] = self._norms.norms().cpu().numpy()
        return norms

    def _descend(self, group: int, norms: NDArray[np.float64]) -> None:
        """Leave the mean of a group's gradients, each divided by its norm, in the parameters."""
        members = np.flatnonzero(self._group == group)
        shares = np.divide(1 / len(members), norms, out=np.zeros(len(norms)), where=norms > 0)
        for positions in self._batches(members):
            batch = self._target.batch(positions)
            self._backward(batch, torch.tensor(shares[positions], device=batch.labels.device))

    def _batches(self, members: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        return (members[batch] for batch in batching.batches(self._target.encoded.lengths[members], *self._limits))

    def _backward(self, batch: Batch, weights: torch.Tensor) -> None:
        """Backward of the batch's weighted losses."""
        job = self._target
        with torch.enable_grad():
            with autocast(job.device, job.precision):
                logits = job.model(**batch.inputs).logits
            losses = job.task.losses(logits, batch.labels)
            (losses * weights.to(losses.dtype)).sum().backward()

    def begin(self, batch: Batch) -> None:
        """Start the batch."""
        device = batch.labels.device
        self._seen: set[str] = set()
        self._norms.begin(len(batch), device)
        self._products = torch.zeros(len(batch), len(self._directions), dtype=torch.float64, device=device)
        self._examples.begin(batch, self._take)

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch's influence on each group."""
        self._examples.finish()
        if self._adam:
            self._adam.check(self._seen)
        if self._cosine:
            norms = self._norms.norms().unsqueeze(1)
            return {"influence": torch.where(norms > 0, self._products / norms, 0)}
        return {"influence": self._products}

    def _take(self, name: str, gradient: Factors) -> None:
        self._seen.add(name)
        if self._adam:
            self._take_steps(self._adam, name, gradient)
            return
        if self._cosine:
            self._norms.add(gradient)
        for group, direction in enumerate(self._directions):
            if name in direction:
                self._products[:, group] += product(gradient, direction[name])

    def _take_steps(self, steps: Adam, name: str, gradient: Factors) -> None:
        """The same of Adam's steps on the examples."""
        directions = [direction.get(name) for direction in self._directions]

        def take(some: slice, moved: Dense | Lookup, sign: int = 1) -> None:
            if self._cosine:
                self._norms.add(moved, some, sign)
            for group, direction in enumerate(directions):
                if direction is not None:
                    self._products[some, group] += sign * product(moved, direction)

        every = slice(None)
        if isinstance(gradient, Lookup):
            rest = steps.resting(name)
            take(every, Dense(rest.unsqueeze(0)))  # rows that no example looks up move too
            found, once = steps.looked_up(name, gradient)
            take(every, Lookup(found.ids, found.grads * once.unsqueeze(2), found.rows))
            take(every, Lookup(found.ids, rest[found.ids] * once.unsqueeze(2), found.rows), sign=-1)
        elif isinstance(gradient, Dense):
            take(every, Dense(steps.step(name, gradient.grads)))
        else:
            for some, formed in steps.formed(name, gradient):
                take(some, Dense(formed))


def product(gradient: Factors, direction: torch.Tensor) -> torch.Tensor:
    """⟨g, v⟩ of each example's gradient of a parameter with a direction of that parameter's shape: [b]."""
    if isinstance(gradient, Outer):
        left, right = gradient.left, gradient.right
        v = direction.reshape(left.shape[2], right.shape[2]).to(left.dtype)
        if v.shape[0] < v.shape[1]:  # the smaller of the two products
            return torch.linalg.vecdot((right @ v.T).flatten(1), left.flatten(1))
        return torch.linalg.vecdot((left @ v).flatten(1), right.flatten(1))
    if isinstance(gradient, Lookup):
        return torch.linalg.vecdot(
            direction[gradient.ids].flatten(1).to(gradient.grads.dtype), gradient.grads.flatten(1)
        )
    if isinstance(gradient, Dense):
        return gradient.grads.flatten(1) @ direction.flatten().to(gradient.grads.dtype)
    parts = (product(part, direction) for part in gradient.parts)
    return sum(parts, torch.zeros((), device=direction.device))
