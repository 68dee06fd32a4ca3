"""Per-example gradients: the direction in which each example would move the model, and how far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prune_cli.gradients import adam
from prune_cli.gradients.adam import Adam
from prune_cli.gradients.factors import Dense, Factors, Lookup, Sum
from prune_cli.gradients.norms import Norms
from prune_cli.gradients.per_example import PerExample
from prune_cli.gradients.projection import SIDE, Sketch, buckets
from prune_cli.models.find import Checkpoint
from prune_cli.represent.walk import Batch
from prune_cli.tasks import Task


class Gradient:
    """Observe `gradient` [b, k] and `grad_norm` [b].

    `gradient` is the random projection (projection.py) of each example's gradient (per_example.py), k the largest
    prime up to `dim`, which keeps inner products in expectation; `grad_norm` is the exact norm of the whole gradient.
    LESS (Xia et al. 2024, arXiv 2402.04333) and TracIn (Pruthi et al. 2020, arXiv 2002.08484) are made of these; LESS
    projects with a dense Rademacher matrix and from batches of one.

    precondition: `none`, or `adam`: what is projected is the step that Adam would take on the example (adam.py), which
    LESS compares with the target's plain gradients. `grad_norm` is of the gradient in any case.
    """

    needs_backward = True

    def __init__(
        self, dim: int, seed: int, dtype: str, task: Task, projection: str = "faithful", precondition: str = "none"
    ) -> None:
        self._k, self._dtype, self._preconditioned = buckets(dim), dtype, precondition == "adam"
        self._examples, self._norms = PerExample(task), Norms()
        self._projection = dim, seed, SIDE[projection]
        self._sketch = Sketch(*self._projection)
        self._adam: Adam | None = None

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of a row, stored type."""
        return {"gradient": ((self._k,), self._dtype), "grad_norm": ((), "float32")}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """Watch the model's examples."""
        with self._examples.attached(model) as capture:
            if self._preconditioned:
                self._adam = adam.load(checkpoint, capture.trainable)
                self._rested: dict[str, torch.Tensor] = {}
            yield
        self._adam = None

    def begin(self, batch: Batch) -> None:
        """Start the batch."""
        self._norms.begin(len(batch), batch.labels.device)
        self._sketch.begin(len(batch), batch.labels.device)
        self._seen: set[str] = set()
        self._examples.begin(batch, self._take)

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch's projected gradients and norms."""
        self._examples.finish()
        projected, norms = self._sketch.projected, self._norms.norms()
        if self._adam:
            self._adam.check(self._seen)
            projected = sum(self._rested.values(), projected)
        else:
            projected = torch.where(norms.unsqueeze(1) > 0, projected, 0)  # what is nothing has no direction
        return {"gradient": projected, "grad_norm": norms}

    def _take(self, name: str, gradient: Factors) -> None:
        self._seen.add(name)
        self._norms.add(gradient)
        if self._adam:
            self._add_steps(self._adam, name, gradient)
        else:
            self._sketch.add(name, gradient)

    def _add_steps(self, steps: Adam, name: str, gradient: Factors) -> None:
        """Add Adam's steps on the examples."""
        if isinstance(gradient, Lookup):
            rest = steps.resting(name)
            self._add_rest(name, rest)
            found, once = steps.looked_up(name, gradient)
            self._sketch.add(name, Lookup(found.ids, (found.grads - rest[found.ids]) * once.unsqueeze(2), len(rest)))
        elif isinstance(gradient, Dense):
            self._sketch.add(name, Dense(steps.step(name, gradient.grads)))
        else:
            tied = isinstance(gradient, Sum)
            folded = [self._sketch.folded(name, formed, tied=tied) for _, formed in steps.formed(name, gradient)]
            self._sketch.spread(name, torch.cat(folded))

    def _add_rest(self, name: str, rest: torch.Tensor) -> None:
        """Add a table's steps where no gradient is: rows that no example looks up move too, for all examples alike."""
        if name in self._rested:
            return
        alone = Sketch(*self._projection)
        alone.begin(1, rest.device)
        for rows in torch.arange(len(rest), device=rest.device).unsqueeze(0).split(_ROWS, 1):
            alone.add(name, Lookup(rows, rest[rows], len(rest)))
        self._rested[name] = alone.projected


_ROWS = 4096  # of a table, at a time
