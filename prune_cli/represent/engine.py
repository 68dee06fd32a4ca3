"""The one pass: checkpoints × batches, watched by one observer for each kind of representation."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli import models
from prune_cli.errors import PruneError
from prune_cli.progress import progress
from prune_cli.tasks import Encoded, Task
from prune_cli.tensors import RowWriter, Spec


@dataclass
class Batch:
    """A batch on its way through the model: inputs and labels of b rows; outputs once they are there.

    `alone(i)` is its row i as a batch of one, without padding.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    alone: Callable[[int], Batch]
    outputs: Any = None

    def __len__(self) -> int:
        """Rows in the batch."""
        return len(self.labels)

    @property
    def sequences(self) -> int:
        """Sequences that the model sees: a row, or each of its choices."""
        return self.inputs["input_ids"].shape[:-1].numel()


class Observer(Protocol):
    """What a kind of representation is to the pass."""

    needs_backward: bool

    def specs(self, model: torch.nn.Module) -> dict[str, tuple[tuple[int, ...], str]]:
        """Name -> shape of one row at one checkpoint, stored type."""

    def attach(
        self, model: torch.nn.Module, checkpoint: models.Checkpoint | None = None
    ) -> AbstractContextManager[None]:
        """Hooks on the model while a checkpoint is walked, the one that its weights are of."""

    def begin(self, batch: Batch) -> None:
        """Called before the forward."""

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Called after the forward (and the backward, if any observer needs one): name -> [b, …]."""


@dataclass(frozen=True)
class Pass:
    """What is walked: n encoded rows, a model, its checkpoints."""

    encoded: Encoded
    pad_token_id: int
    model: torch.nn.Module
    source: models.Source
    task: Task
    device: torch.device
    precision: str

    def batch(self, positions: NDArray[np.int64]) -> Batch:
        """The rows at `positions`, on the device."""
        inputs = self.task.collate(self.encoded, positions, self.pad_token_id, self.device)
        return Batch(inputs, inputs.pop("labels"), lambda i: self.batch(positions[i : i + 1]))


def walk(
    folder: Path,
    files: dict[str, Observer],
    job: Pass,
    *,
    batch_size: int,
    tokens_per_batch: int,
    save_minutes: float,
) -> None:
    """Walk checkpoints × batches once and write `<kind>.safetensors` for each observer into `folder`.

    Tensors are [n, e, …] in input order. Progress is kept in `folder/.progress.json`, so an interrupted walk goes on
    from its last saved batch; with the same batch limits the bytes are those of an uninterrupted walk (CPU). When
    the device runs out of memory the batch is halved, and so are those that follow.
    """
    n, e = len(job.encoded.lengths), len(job.source.checkpoints)
    checkpoints = job.source.checkpoints
    meta = {"checkpoints": [c.name for c in checkpoints], "learning_rate": [c.learning_rate for c in checkpoints]}
    mark = folder / ".progress.json"
    first, done = json.loads(mark.read_text()) if mark.exists() else (0, 0)
    order = models.longest_first(job.encoded.lengths)
    limits = (batch_size, tokens_per_batch)

    with ExitStack() as stack:
        writers: dict[str, RowWriter] = {}
        for kind, observer in files.items():
            specs = {name: Spec((n, e, *shape), dtype) for name, (shape, dtype) in observer.specs(job.model).items()}
            writers[kind] = stack.enter_context(RowWriter(folder / f"{kind}.safetensors", specs, meta))
        advance = stack.enter_context(progress("represent, rows × checkpoints", n * e, first * n + done))

        def save(checkpoint: int, rows: int) -> None:
            for writer in writers.values():
                writer.sync()
            scratch = mark.with_suffix(".tmp")
            scratch.write_text(json.dumps([checkpoint, rows]))
            scratch.replace(mark)

        saved = monotonic()
        for c in range(first, e):
            models.load_checkpoint(job.model, job.source, job.source.checkpoints[c])
            job.model.to(job.device).eval()
            with ExitStack() as attached:
                for observer in files.values():
                    attached.enter_context(observer.attach(job.model, job.source.checkpoints[c]))
                while done < n:
                    positions = models.take(order[done:], job.encoded.lengths, *limits)
                    found = _attempt(job, files, positions)
                    if found is None:
                        limits = _halved(positions, job.encoded.lengths)
                        continue
                    for kind, values in found.items():
                        for name, value in values.items():
                            writers[kind].write(name, positions, c, value)
                    done += len(positions)
                    advance(len(positions))
                    if monotonic() - saved > save_minutes * 60:
                        save(c, done)
                        saved = monotonic()
            done = 0
            save(c + 1, 0)


def _attempt(
    job: Pass, files: dict[str, Observer], positions: NDArray[np.int64]
) -> dict[str, dict[str, NDArray[Any]]] | None:
    """One batch through the model: kind -> name -> [b, …]; None when the device's memory does not hold it."""
    try:
        return _observe(job, files, positions)
    except torch.OutOfMemoryError:
        pass  # outside the handler, so that the failed batch's tensors are let go of first
    torch.cuda.empty_cache()
    return None


def _observe(job: Pass, files: dict[str, Observer], positions: NDArray[np.int64]) -> dict[str, dict[str, NDArray[Any]]]:
    batch = job.batch(positions)
    backward = any(observer.needs_backward for observer in files.values())
    with torch.set_grad_enabled(backward):
        for observer in files.values():
            observer.begin(batch)
        with models.autocast(job.device, job.precision):
            batch.outputs = job.model(**batch.inputs)
        if backward:
            job.task.losses(batch.outputs.logits, batch.labels).sum().backward()
        found = {kind: observer.rows(batch) for kind, observer in files.items()}
    return {kind: {name: value.cpu().numpy() for name, value in values.items()} for kind, values in found.items()}


def _halved(positions: NDArray[np.int64], lengths: NDArray[np.int64]) -> tuple[int, int]:
    """Batch limits (rows, tokens) of half a batch that did not fit."""
    longest = int(lengths[positions].max())
    if len(positions) == 1:
        raise PruneError(
            f"one row of {longest} tokens does not fit the device's memory",
            hint="a smaller --max-length, --precision bfloat16, or another --device",
        )
    half = len(positions) // 2
    return half, half * longest
