"""A model whose batches give each example's own gradient, after a check that they do."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prune_cli.errors import PruneError
from prune_cli.gradients.capture import Capture, Factors, Sink
from prune_cli.represent.walk import Batch
from prune_cli.tasks import Task

Grads = dict[str, torch.Tensor | None]


class PerExample:
    """Hand per-example gradients of batches to a sink, parameter by parameter.

    They are of the example's own loss with respect to every trainable parameter, in eval mode. Before the first batch
    with a gradient to speak of, one of its rows is compared with autograd's gradient of that row alone: a model in
    which the examples of a batch are not independent is refused, not misread.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self._checked = False

    @contextmanager
    def attached(self, model: torch.nn.Module) -> Iterator[Capture]:
        """Freeze the parameters and intercept what uses them."""
        self._model, self._capture = model, Capture(model)
        with self._capture.attached(model):
            yield self._capture

    def begin(self, batch: Batch, sink: Sink) -> None:
        """Start the batch; before the first one, check the model."""
        self._checked = self._checked or self._check(batch)
        self._capture.begin(len(batch), sink, batch.sequences)

    def finish(self) -> None:
        """After the backward."""
        self._capture.finish()

    def _check(self, batch: Batch) -> bool:
        """Compare one of the batch's rows with that row alone, by autograd; False where there is nothing to compare."""
        at, true = self._alone(batch)
        whole = _size(true)
        if whole < _SMALL:
            return False
        seen = set()

        def compare(name: str, factors: Factors) -> None:
            seen.add(name)
            ours = factors.of(slice(at, at + 1)).dense()[0]
            grad = true[name]
            grad = torch.zeros_like(ours) if grad is None else grad
            error = float((ours - grad).norm() / (grad.norm() + _NOISE * whole + _ROUNDING))
            if not error < _TOLERANCE:
                raise PruneError(
                    f"{name}: a row's gradient in a batch is not that of the row alone (relative difference "
                    f"{error:.2g}); the gradient kind needs a model whose examples do not depend on each other"
                )

        self._capture.begin(len(batch), compare, batch.sequences)
        self._loss(batch).backward()
        self._capture.finish()
        for name, grad in true.items():
            if grad is not None and name not in seen and float(grad.norm()) > 0:
                raise PruneError(f"{name}: has a gradient that no rule for per-example gradients covers")
        return True

    def _alone(self, batch: Batch) -> tuple[int, Grads]:
        """A row and its gradients by autograd: of the last ones (the shortest: the most padding) the largest."""
        found: list[tuple[int, Grads]] = []
        for at in range(len(batch) - 1, max(-1, len(batch) - 1 - _ROWS), -1):
            with self._capture.paused():
                self._loss(batch.alone(at)).backward()
                found.append((at, {name: p.grad for name, p in self._capture.trainable.items()}))
            if _size(found[-1][1]) > _LARGE:
                return found[-1]
            found = [max(found, key=lambda row: float(_size(row[1])))]
        return found[0]

    def _loss(self, batch: Batch) -> torch.Tensor:
        """Sum of the examples' losses."""
        return self._task.losses(self._model(**batch.inputs).logits, batch.labels).sum()


def _size(grads: Grads) -> torch.Tensor:
    """Norm of the whole gradient."""
    return torch.stack([torch.zeros(()), *(grad.norm().cpu() for grad in grads.values() if grad is not None)]).norm()


_ROWS = 4  # that are tried for one whose gradient is not small: a row that is learnt perfectly shows nothing
_LARGE, _SMALL = 1e-2, 1e-3  # norms, where losses are of the order of one; a smaller one is mostly rounding
_TOLERANCE = 1e-2  # far above float32's rounding, far below any real mistake
_NOISE = 1e-3  # share of the whole gradient's norm below which a parameter's gradient is not told from rounding
_ROUNDING = 1e-4  # far above what a parameter's gradient that is zero comes to
