"""Per-example gradients: the direction in which each example would move the model, and how far."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prune_cli.errors import PruneError
from prune_cli.represent.capture import Capture, Factors
from prune_cli.represent.engine import Batch
from prune_cli.represent.norms import Norms
from prune_cli.represent.projection import SIDE, Sketch, buckets
from prune_cli.tasks import Task


class Gradient:
    """Observe `gradient` [b, k] and `grad_norm` [b].

    The gradient of the example's own loss with respect to every trainable parameter, in eval mode: `gradient` is
    its random projection (projection.py), k the largest prime up to `dim`, which keeps inner products in
    expectation; `grad_norm` is the exact norm of the whole gradient. LESS (Xia et al. 2024, arXiv 2402.04333) and
    TracIn (Pruthi et al. 2020, arXiv 2002.08484) are made of these; LESS projects with a dense Rademacher matrix
    and from batches of one.

    Before the first batch, one of its rows is compared with autograd's gradient of that row alone, parameter by
    parameter: a model in which the examples of a batch are not independent is refused, not misread.
    """

    needs_backward = True

    def __init__(self, dim: int, seed: int, dtype: str, task: Task, projection: str = "faithful") -> None:
        self._k, self._dtype, self._task = buckets(dim), dtype, task
        self._sketch, self._norms = Sketch(dim, seed, SIDE[projection]), Norms()
        self._squared = torch.empty(0)
        self._checked = False

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of a row, stored type."""
        return {"gradient": ((self._k,), self._dtype), "grad_norm": ((), "float32")}

    @contextmanager
    def attach(self, model: torch.nn.Module) -> Iterator[None]:
        """Freeze the parameters and intercept what uses them."""
        self._model, self._capture = model, Capture(model)
        with self._capture.attached(model):
            yield

    def begin(self, batch: Batch) -> None:
        """Start the batch; before the first one, check the model."""
        if not self._checked:
            self._check(batch)
            self._checked = True
        self._squared = torch.zeros(len(batch), dtype=torch.float64, device=batch.labels.device)
        self._sketch.begin(len(batch), batch.labels.device)
        self._capture.begin(len(batch), self._take, batch.sequences)

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch's projected gradients and norms."""
        self._capture.finish()
        self._norms.forget()
        return {"gradient": self._sketch.projected, "grad_norm": self._squared.sqrt()}

    def _take(self, name: str, gradient: Factors) -> None:
        self._sketch.add(name, gradient)
        self._squared += self._norms.squared(gradient)

    def _check(self, batch: Batch) -> None:
        """Compare the batch's last row (the shortest: the most padding) with that row alone, by autograd."""
        last = len(batch) - 1
        alone = batch.alone(last)
        with self._capture.paused():
            self._losses(alone.inputs, alone.labels).backward()
            true = {name: p.grad for name, p in self._capture.trainable.items()}
        whole = torch.stack([grad.norm() for grad in true.values() if grad is not None]).norm()
        seen = set()

        def compare(name: str, factors: Factors) -> None:
            seen.add(name)
            ours = factors.alone(last).dense()[0]
            grad = true[name]
            grad = torch.zeros_like(ours) if grad is None else grad
            error = float((ours - grad).norm() / (grad.norm() + _NOISE * whole))
            if not error < _TOLERANCE:
                raise PruneError(
                    f"{name}: a row's gradient in a batch is not that of the row alone (relative difference "
                    f"{error:.2g}); the gradient kind needs a model whose examples do not depend on each other"
                )

        self._capture.begin(len(batch), compare, batch.sequences)
        self._losses(batch.inputs, batch.labels).backward()
        self._capture.finish()
        for name, grad in true.items():
            if grad is not None and name not in seen and float(grad.norm()) > 0:
                raise PruneError(f"{name}: has a gradient that no rule for per-example gradients covers")

    def _losses(self, inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> torch.Tensor:
        losses: torch.Tensor = self._task.losses(self._model(**inputs).logits, labels).sum()
        return losses


_TOLERANCE = 1e-2  # far above float32's rounding, far below any real mistake
_NOISE = 1e-3  # share of the whole gradient's norm below which a parameter's gradient is not told from rounding
