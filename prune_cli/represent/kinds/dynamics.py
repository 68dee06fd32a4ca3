"""Training dynamics: how sure, and how right, the model is of each example at each checkpoint."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch

from prune_cli.artifacts import tensors
from prune_cli.data import fingerprints
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.models import load as models
from prune_cli.models.load import Checkpoint
from prune_cli.represent.walk import Batch
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
    def attach(self, model: torch.nn.Module, _: Checkpoint | None = None) -> Iterator[None]:
        """Nothing to attach."""
        yield

    def begin(self, batch: Batch) -> None:
        """Nothing to prepare."""

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The task's dynamics of the batch."""
        assert batch.outputs is not None
        values: dict[str, torch.Tensor] = self._task.dynamics(batch.outputs.logits.detach(), batch.labels)
        return values


def write_recorded(source: models.Source, which: str, rows: Rows, path: Path) -> None:
    """Copy the dynamics recorded in training, for these rows, at the epochs of the checkpoints `which`."""
    trained = source.trained
    if trained is None or "dynamics.safetensors" not in trained.files:
        raise PruneError(
            f"{source.name}: no dynamics were recorded with it; a finetune artifact of at least one epoch has them",
            hint="--dynamics recompute",
        )
    recorded = trained.file("dynamics.safetensors")
    rates = tensors.metadata(recorded)["learning_rate"]
    if which == "all":
        epochs = list(range(len(rates)))
    elif which == "last":
        epochs = [len(rates) - 1]
    else:
        epochs = [int(checkpoint.name) - 1 for checkpoint in source.checkpoints]
    if trained.manifest["recipe"]["inputs"]["rows"] == rows.digest:
        order = np.arange(len(rows))
    else:
        lacking = f"was not trained on by {source.name}; only its own rows are recorded"
        order = fingerprints.positions(rows, trained.file(fingerprints.IDS), lacking, hint="--dynamics recompute")
    found = {name: array[order][:, epochs] for name, array in tensors.load(recorded).items()}
    names = [str(e + 1) for e in epochs]
    tensors.save(path, found, {"checkpoints": names, "learning_rate": [rates[e] for e in epochs], "recorded": True})
