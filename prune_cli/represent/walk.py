"""The one pass: checkpoints × batches, watched by one observer for each kind of representation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli.artifacts.tensors import Spec
from prune_cli.errors import PruneError
from prune_cli.models import load as models
from prune_cli.represent import resume as marks
from prune_cli.represent.output import Found, Output
from prune_cli.runtime import processes
from prune_cli.runtime.progress import progress
from prune_cli.tasks import Task
from prune_cli.tasks.tokens import Encoded


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

    Tensors are [n, e, …] in input order. Of several processes each walks every so-many-th batch and writes its rows
    into the same files. Progress is kept in `folder` (marks.py), so an interrupted walk goes on from its last saved
    batch. With the same batch limits the bytes are those of an uninterrupted walk, whatever the number of processes
    (CPU, the same number of threads). When the device runs out of memory the batch is halved, and so are those that
    follow.
    """
    lengths, checkpoints = job.encoded.lengths, job.source.checkpoints
    n, e = len(lengths), len(checkpoints)
    batches = list(models.batches(lengths, batch_size, tokens_per_batch))
    ends = np.cumsum([len(batch) for batch in batches])  # where each ends in the order that is walked
    rank, count = processes.rank(), processes.count()
    mine = range(rank, len(batches), count)
    left = processes.agreed(lambda: marks.read(folder))
    mark = marks.resume(left, rank, count, (batch_size, tokens_per_batch))
    first, done = mark.reached

    rows = sum(len(batches[i]) for i in mine)
    before = first * rows + sum(len(batches[i]) for i in mine if ends[i] <= done)
    share = f" of process 1 of {count}" if count > 1 else ""
    specs = {
        kind: {name: Spec((n, e, *shape), dtype) for name, (shape, dtype) in observer.specs(job.model).items()}
        for kind, observer in files.items()
    }
    meta = {"checkpoints": [c.name for c in checkpoints], "learning_rate": [c.learning_rate for c in checkpoints]}
    with (
        Output(folder, specs, meta) as output,
        progress(f"represent, rows × checkpoints{share}", rows * e, before) as advance,
    ):
        saved = monotonic()
        for c in range(first, e):
            models.load_checkpoint(job.model, job.source, checkpoints[c])
            job.model.to(job.device).eval()
            with ExitStack() as attached:
                for observer in files.values():
                    attached.enter_context(observer.attach(job.model, checkpoints[c]))
                for i in mine:
                    if ends[i] <= done:
                        continue
                    rest = batches[i]
                    while len(rest):
                        positions = models.take(rest, lengths, batch_size, mark.tokens)
                        found = _attempt(job, files, positions)
                        if found is None:
                            mark = replace(mark, tokens=_halved(positions, lengths))
                            continue
                        output.put(positions, c, found)
                        rest = rest[len(positions) :]
                    mark = replace(mark, reached=(c, int(ends[i])))
                    advance(len(batches[i]))
                    if monotonic() - saved > save_minutes * 60:
                        output.sync()
                        marks.save(folder, rank, mark)
                        saved = monotonic()
            done = 0
            mark = replace(mark, reached=(c + 1, 0))
            output.sync()
            marks.save(folder, rank, mark)


def _attempt(job: Pass, files: dict[str, Observer], positions: NDArray[np.int64]) -> Found | None:
    """One batch through the model: kind -> name -> [b, …]; None when the device's memory does not hold it."""
    try:
        return _observe(job, files, positions)
    except torch.OutOfMemoryError:
        pass  # outside the handler, so that the failed batch's tensors are let go of first
    torch.cuda.empty_cache()
    return None


def _observe(job: Pass, files: dict[str, Observer], positions: NDArray[np.int64]) -> Found:
    batch = job.batch(positions)
    backward = any(observer.needs_backward for observer in files.values())
    with torch.set_grad_enabled(backward):
        for observer in files.values():
            observer.begin(batch)
        with models.autocast(job.device, job.precision):
            batch.outputs = job.model(**batch.inputs)
        if backward:
            job.task.losses(batch.outputs.logits, batch.labels).sum().backward()
        return {kind: observer.rows(batch) for kind, observer in files.items()}


def _halved(positions: NDArray[np.int64], lengths: NDArray[np.int64]) -> int:
    """Most tokens of a batch, where one of these rows did not fit: those of half of it."""
    longest = max(1, int(lengths[positions].max()))
    if len(positions) == 1:
        raise PruneError(
            f"one row of {longest} tokens does not fit the device's memory",
            hint="a smaller --max-length, --precision bfloat16, or another --device",
        )
    return (len(positions) + 1) // 2 * longest
