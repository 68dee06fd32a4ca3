"""Training dynamics: how sure, and how right, the model is of each example at each checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from prune_cli.represent.engine import Batch
from prune_cli.tasks import Task


class Dynamics:
    """Observe `logprob`, `correct`, `margin`, `el2n`, each [b], in eval mode.

    Sources: dataset cartography (Swayamdipta et al. 2020, arXiv 2009.10795) for the gold probability; EL2N
    (Paul et al. 2021, arXiv 2107.07075, section 2). Both take them during training; here they are recomputed at
    the checkpoints, without dropout, unless the recorded ones are asked for.
    """

    needs_backward = False

    def __init__(self, task: Task) -> None:
        self._task = task

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of a row, stored type."""
        return dict.fromkeys(("logprob", "correct", "margin", "el2n"), ((), "float32"))

    @contextmanager
    def attach(self, model: torch.nn.Module) -> Iterator[None]:
        """Nothing to attach."""
        yield

    def begin(self, batch: Batch) -> None:
        """Nothing to prepare."""

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The task's dynamics of the batch."""
        assert batch.outputs is not None
        values: dict[str, torch.Tensor] = self._task.dynamics(batch.outputs.logits.detach(), batch.labels)
        return values
