"""The response without its prompt: how likely a model finds it when nothing leads up to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from prune_cli.errors import PruneError
from prune_cli.models.device import autocast
from prune_cli.models.find import Checkpoint
from prune_cli.represent.walk import Batch
from prune_cli.tasks import Task

OUTSIDE = -100  # the label of a token that is not the response's


class Unprompted:
    """Observe `logprob_unprompted` [b]: mean log-probability of the response's tokens (nats) without the prompt.

    The response's tokens (of all turns, where there are several) stand behind the one token that begins a text: the
    model's bos_token_id, or the eos_token_id that ends the text before it, where it has no other. It costs a second
    forward, without gradients, of the responses alone. Source: the direct answer score of Li et al. 2023, arXiv
    2308.12032.
    """

    needs_backward = False

    def __init__(self, task: Task, precision: str) -> None:
        self._task, self._precision = task, precision

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of a row, stored type."""
        self._start = _beginning(model.config)
        return {"logprob_unprompted": ((), "float32")}

    @contextmanager
    def attach(self, model: torch.nn.Module, _: Checkpoint | None = None) -> Iterator[None]:
        """Remember the model: it is called once more for each batch."""
        self._model = model
        yield

    def begin(self, batch: Batch) -> None:
        """Nothing to prepare."""

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Walk the responses of the batch alone."""
        ids = batch.inputs["input_ids"]
        inputs, labels = without_prompt(batch.labels, self._start)
        with torch.no_grad(), autocast(ids.device, self._precision):
            logits = self._model(**inputs).logits
            return {"logprob_unprompted": -self._task.losses(logits, labels)}


def without_prompt(labels: torch.Tensor, start: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Inputs and labels, each [b, 1 + m], of the responses alone, padded on the right.

    labels [b, t] hold the response's token at its own position, -100 elsewhere; m is the longest response.
    """
    spoken = labels != OUTSIDE
    lengths = spoken.sum(1, keepdim=True)
    columns = torch.arange(1 + int(lengths.max()), device=labels.device)
    mask = columns <= lengths
    alone = labels.new_full(mask.shape, OUTSIDE)
    alone[mask & (columns > 0)] = labels[spoken]
    ids = torch.where(alone == OUTSIDE, start, alone)  # where nothing attends to it, any token will do
    return {"input_ids": ids, "attention_mask": mask.to(labels.dtype)}, alone


def _beginning(config: Any) -> int:
    """The token that begins a text."""
    for name in ("bos_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if isinstance(token, list):
            token = token[0] if token else None
        if token is not None:
            return int(token)
    raise PruneError(
        "kind: unprompted; the model's config has no bos_token_id and no eos_token_id, so no token to begin a text with"
    )
