"""Per-example gradients: the direction in which each example would move the model, and how far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prune_cli.models import Checkpoint
from prune_cli.represent.engine import Batch
from prune_cli.represent.factors import Factors
from prune_cli.represent.norms import Norms
from prune_cli.represent.per_example import PerExample
from prune_cli.represent.projection import SIDE, Sketch, buckets
from prune_cli.tasks import Task


class Gradient:
    """Observe `gradient` [b, k] and `grad_norm` [b].

    `gradient` is the random projection (projection.py) of each example's gradient (per_example.py), k the largest
    prime up to `dim`, which keeps inner products in expectation; `grad_norm` is the exact norm of the whole gradient.
    LESS (Xia et al. 2024, arXiv 2402.04333) and TracIn (Pruthi et al. 2020, arXiv 2002.08484) are made of these; LESS
    projects with a dense Rademacher matrix and from batches of one.
    """

    needs_backward = True

    def __init__(self, dim: int, seed: int, dtype: str, task: Task, projection: str = "faithful") -> None:
        self._k, self._dtype = buckets(dim), dtype
        self._examples, self._sketch, self._norms = PerExample(task), Sketch(dim, seed, SIDE[projection]), Norms()
        self._squared = torch.empty(0)

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of a row, stored type."""
        return {"gradient": ((self._k,), self._dtype), "grad_norm": ((), "float32")}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """Watch the model's examples."""
        with self._examples.attached(model):
            yield

    def begin(self, batch: Batch) -> None:
        """Start the batch."""
        self._squared = torch.zeros(len(batch), dtype=torch.float64, device=batch.labels.device)
        self._sketch.begin(len(batch), batch.labels.device)
        self._examples.begin(batch, self._take)

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch's projected gradients and norms."""
        self._examples.finish()
        self._norms.forget()
        return {"gradient": self._sketch.projected, "grad_norm": self._squared.sqrt()}

    def _take(self, name: str, gradient: Factors) -> None:
        self._sketch.add(name, gradient)
        self._squared += self._norms.squared(gradient)
