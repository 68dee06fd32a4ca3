"""Each example's own gradient from batches through a model, after a check that they are right."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, Self

import torch

from prune_cli.errors import PruneError
from prune_cli.gradients.capture import Capture, Factors, Sink
from prune_cli.gradients.rules import CURES

Grads = dict[str, torch.Tensor | None]


class Examples(Protocol):
    """A batch of b examples."""

    @property
    def sequences(self) -> int:
        """Sequences that the model's layers see: b, or a multiple of it."""

    @property
    def alone(self) -> Callable[[int], Self]:
        """i -> example i as a batch of one, without padding."""

    def __len__(self) -> int:
        """Examples in the batch: b."""


class PerExample:
    """Passes the per-example gradients of batches to a sink, parameter by parameter.

    They are gradients of each example's own loss with respect to every trainable parameter, in eval mode. Before the
    first batch whose gradients are not all tiny, the gradient of one of its examples is compared with autograd's
    gradient of that example alone: a model in which the examples of a batch depend on each other is an error.

    losses: the loss of each example of a batch through the model, [b], with a graph for the backward.
    """

    def __init__(self, losses: Callable[[Any], torch.Tensor]) -> None:
        self._losses = losses
        self._checked = False

    @contextmanager
    def attached(self, model: torch.nn.Module) -> Iterator[Capture]:
        """Freeze the parameters and intercept the functions that use them."""
        self._capture = Capture(model)
        with self._capture.attached(model):
            yield self._capture

    def begin(self, batch: Examples, sink: Sink) -> None:
        """Start the batch; check the model, unless an earlier batch has shown that it is right."""
        self._checked = self._checked or self._check(batch)
        self._capture.begin(len(batch), sink, batch.sequences)

    def finish(self) -> None:
        """End the batch, after the backward."""
        self._capture.finish()

    def _check(self, batch: Examples) -> bool:
        """Compare an example of the batch with that example alone, by autograd; False where all gradients are tiny."""
        at, true = self._alone(batch)
        whole = _size(true)
        if not math.isfinite(whole):
            raise PruneError(
                "a row's gradient is not a finite number; allowed: gradients without NaN and infinity",
                hint="check the model's weights, or compute with --precision float32",
            )
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
                    f"{error:.2g}); per-example gradients need a model whose examples do not depend on each other",
                    hint=CURES,
                )

        self._capture.begin(len(batch), compare, batch.sequences)
        self._losses(batch).sum().backward()
        self._capture.finish()
        for name, grad in true.items():
            if grad is not None and name not in seen and float(grad.norm()) > 0:
                raise PruneError(
                    f"{name}: has a gradient that no rule for per-example gradients covers",
                    hint=CURES,
                )
        return True

    def _alone(self, batch: Examples) -> tuple[int, Grads]:
        """An example's position and its gradients by autograd.

        It is the first with a large gradient from the end of the batch, where the shortest examples are, with the
        most padding; else the one with the largest gradient of those that were tried.
        """
        best: list[tuple[int, Grads]] = []
        for at in range(len(batch) - 1, max(-1, len(batch) - 1 - _ROWS), -1):
            with self._capture.paused():
                self._losses(batch.alone(at)).sum().backward()
                best.append((at, {name: p.grad for name, p in self._capture.trainable.items()}))
            if _size(best[-1][1]) > _LARGE:
                return best[-1]
            best = [max(best, key=lambda row: float(_size(row[1])))]
        return best[0]


def _size(grads: Grads) -> torch.Tensor:
    """Norm of the whole gradient."""
    return torch.stack([torch.zeros(()), *(grad.norm().cpu() for grad in grads.values() if grad is not None)]).norm()


_ROWS = 4  # examples tried for a large gradient: one that is learnt perfectly shows nothing
_LARGE, _SMALL = 1e-2, 1e-3  # norms, where losses are of the order of one; a smaller one is mostly rounding
_TOLERANCE = 1e-2  # far above float32's rounding, far below the difference that a mistake makes
_NOISE = 1e-3  # share of the whole gradient's norm; a parameter's gradient below it may be rounding alone
_ROUNDING = 1e-4  # far above the rounding in a parameter's gradient whose true value is zero
