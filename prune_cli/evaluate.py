"""Run a trained model over test rows: class probabilities and losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli import models, options
from prune_cli.errors import PruneError
from prune_cli.progress import progress
from prune_cli.tasks import Task


def predict(
    model: torch.nn.Module,
    encoded: Any,
    labels: NDArray[np.int64],
    pad_token_id: int,
    task: Task,
    device: torch.device,
    opts: options.Eval,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Probabilities [n, c] and losses [n] (nats) of encoded rows, in input order, in eval mode."""
    n = len(labels)
    order = models.longest_first(encoded.lengths)
    losses = np.empty(n)
    probabilities: NDArray[np.float64] | None = None
    done = 0
    with torch.inference_mode(), progress("eval, rows", n) as advance:
        while done < n:
            positions = models.take(order[done:], encoded.lengths, opts.batch_size, opts.tokens_per_batch)
            inputs = task.collate(encoded, labels, positions, pad_token_id, device)
            gold = inputs.pop("labels")
            with models.autocast(device, opts.precision):
                logits = model(**inputs).logits.float()
            values = torch.softmax(logits.double(), dim=1).cpu().numpy()
            if probabilities is None:
                probabilities = np.empty((n, values.shape[1]))
            probabilities[positions] = values
            losses[positions] = task.losses(logits, gold).cpu().numpy()
            done += len(positions)
            advance(len(positions))
    assert probabilities is not None
    if not np.isfinite(losses).all():
        raise PruneError(
            f"the model's loss is not a finite number on {int((~np.isfinite(losses)).sum())} of {n} rows",
            hint="check the model's weights, or evaluate with --precision float32",
        )
    return probabilities, losses
