"""Run a trained model over test rows: its predictions and its losses."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.models.answers import forward
from prune_cli.models.batching import batches
from prune_cli.models.device import autocast
from prune_cli.runtime.progress import progress
from prune_cli.runtime.running import running
from prune_cli.tasks import Judging, Task
from prune_cli.tasks.tokens import pad_token_id


def predict(
    judging: Judging, task: Task, *, batch_size: int, tokens_per_batch: int, precision: str
) -> tuple[list[dict[str, Any]], NDArray[np.float64]]:
    """Predictions (n) and losses [n] (nats) of the rows, in input order, in eval mode.

    A batch has at most `batch_size` rows and `tokens_per_batch` tokens, padding counted. Raises PruneError where a loss
    is not a finite number.
    """
    encoded, pad = judging.encoded, pad_token_id(judging.tokenizer)
    n = len(encoded.lengths)
    losses = np.empty(n)
    predictions: list[Any] = [None] * n
    with torch.inference_mode(), progress("eval, rows", n) as advance:
        for positions in batches(encoded.lengths, batch_size, tokens_per_batch):
            inputs = task.collate(encoded, positions, pad, judging.device)
            at, gold = task.answers(inputs.pop("labels"))
            with autocast(judging.device, precision):
                with running(judging.model):
                    answers = forward(judging.model, inputs, at).answers
                predicted = task.predictions(judging, positions, answers, gold)
            losses[positions] = task.losses(answers, gold).cpu().numpy()
            for position, prediction in zip(positions, predicted, strict=True):
                predictions[position] = prediction
            advance(len(positions))
    if not np.isfinite(losses).all():
        raise PruneError(
            f"the model's loss is not a finite number on {int((~np.isfinite(losses)).sum())} of {n} rows",
            hint="check the model's weights, or evaluate with --precision float32",
        )
    return predictions, losses
