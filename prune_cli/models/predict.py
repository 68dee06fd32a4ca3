"""Run a trained model over test rows: what it predicts, and its losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.models import load as models
from prune_cli.runtime.progress import progress
from prune_cli.tasks import Judging, Task


def predict(
    judging: Judging, task: Task, *, batch_size: int, tokens_per_batch: int, precision: str
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Predictions and losses [n] (nats) of the rows, in input order, in eval mode."""
    encoded = judging.encoded
    n = len(encoded.lengths)
    order = models.longest_first(encoded.lengths)
    losses = np.empty(n)
    predictions: list[Any] = [None] * n
    done = 0
    with torch.inference_mode(), progress("eval, rows", n) as advance:
        while done < n:
            positions = models.take(order[done:], encoded.lengths, batch_size, tokens_per_batch)
            inputs = task.collate(encoded, positions, models.pad_token_id(judging.tokenizer), judging.device)
            gold = inputs.pop("labels")
            with models.autocast(judging.device, precision):
                logits = judging.model(**inputs).logits
                found = task.predictions(judging, positions, logits, gold)
            losses[positions] = task.losses(logits, gold).cpu().numpy()
            for position, prediction in zip(positions, found, strict=True):
                predictions[position] = prediction
            done += len(positions)
            advance(len(positions))
    if not np.isfinite(losses).all():
        raise PruneError(
            f"the model's loss is not a finite number on {int((~np.isfinite(losses)).sum())} of {n} rows",
            hint="check the model's weights, or evaluate with --precision float32",
        )
    return predictions, losses
