"""The one pass: checkpoints × batches, observed by one observer for each kind of representation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli.artifacts.tensors import Spec
from prune_cli.errors import PruneError
from prune_cli.models.batching import batches, next_batch
from prune_cli.models.load import load_checkpoint
from prune_cli.represent import resume
from prune_cli.represent.observe import Observer, Setup, scale_of
from prune_cli.represent.output import Output, Values
from prune_cli.runtime import processes
from prune_cli.runtime.progress import note, progress


@dataclass(frozen=True)
class Observed:
    """A kind in a pass.

    specs: tensor name -> shape of a row at a checkpoint, stored type. backward: whether it needs the backward.
    """

    observer: Observer
    specs: dict[str, tuple[tuple[int, ...], str]]
    backward: bool

    @property
    def declared(self) -> dict[str, tuple[int, ...]]:
        """Tensor name -> shape of a row, of those that the observer gives: scales are made when values are written."""
        scales = {scale_of(name) for name in self.specs}
        return {name: shape for name, (shape, _) in self.specs.items() if name not in scales}


def walk(folder: Path, observed: Mapping[str, Observed], setup: Setup, *, save_minutes: float) -> None:
    """Walk checkpoints × batches once and write `<kind>.safetensors` for each kind into `folder`.

    Tensors are [n, e, …] in input order. Of p processes, each walks every p-th batch and writes its rows into the same
    files. Progress is kept in `folder` (resume.py), so an interrupted walk goes on from its last saved batch. With the
    same batch limits the bytes are those of an uninterrupted walk, whatever the number of processes (CPU, the same
    number of threads). When the device runs out of memory, this batch and those that follow are halved.
    """
    lengths, checkpoints = setup.lengths, setup.named.checkpoints
    n, e = len(lengths), len(checkpoints)
    dealt = list(batches(lengths, setup.batch_size, setup.tokens_per_batch))
    ends = np.cumsum([len(batch) for batch in dealt])  # where each ends in the order that is walked
    rank, count = processes.rank(), processes.count()
    mine = range(rank, len(dealt), count)
    limits = (setup.batch_size, setup.tokens_per_batch)
    state = resume.resume(processes.agreed(lambda: resume.read(folder)), rank, count, limits)
    specs = {
        kind: {name: Spec((n, e, *shape), dtype) for name, (shape, dtype) in entry.specs.items()}
        for kind, entry in observed.items()
    }
    meta = {"checkpoints": [c.name for c in checkpoints], "learning_rate": [c.learning_rate for c in checkpoints]}
    with ExitStack() as stack:
        output = stack.enter_context(Output(folder, specs, meta))
        if not _is_there(output, state, dealt, mine, ends):
            state = _anew(folder, rank, count, limits)
        first, done = state.reached
        rows = sum(len(dealt[i]) for i in mine)
        before = first * rows + sum(len(dealt[i]) for i in mine if ends[i] <= done)
        share = f" of process 1 of {count}" if count > 1 else ""
        advance = stack.enter_context(progress(f"represent, rows × checkpoints{share}", rows * e, before))
        saved = monotonic()
        for c in range(first, e):
            load_checkpoint(setup.model, setup.named, checkpoints[c])
            setup.model.to(setup.device).eval()
            with ExitStack() as attached:
                for entry in observed.values():
                    attached.enter_context(entry.observer.attach(setup.model, checkpoints[c]))
                for i in mine:
                    if ends[i] <= done:
                        continue
                    rest = dealt[i]
                    while len(rest):
                        positions = next_batch(rest, lengths, setup.batch_size, state.tokens)
                        values = _attempt(setup, observed, positions)
                        if values is None:
                            state = replace(state, tokens=_halved(positions, lengths))
                            continue
                        output.put(positions, c, values)
                        rest = rest[len(positions) :]
                    state = replace(state, reached=(c, int(ends[i])))
                    advance(len(dealt[i]))
                    if monotonic() - saved > save_minutes * 60:
                        output.sync()
                        resume.save(folder, rank, state)
                        saved = monotonic()
            done = 0
            state = replace(state, reached=(c + 1, 0))
            output.sync()
            resume.save(folder, rank, state)


def _is_there(
    output: Output,
    state: resume.ResumeState,
    dealt: Sequence[NDArray[np.int64]],
    mine: Sequence[int],
    ends: NDArray[np.int64],
) -> bool:
    """Whether all that the states of all processes say was written is there as it was written."""
    first, done = state.reached
    whole = all(output.holds(dealt[i], c) for c in range(first) for i in mine)
    whole = whole and all(output.holds(dealt[i], first) for i in mine if ends[i] <= done)
    return all(processes.gathered(whole))


def _anew(folder: Path, rank: int, count: int, limits: tuple[int, int]) -> resume.ResumeState:
    """Forget what earlier runs left, and say so."""
    note("what an interrupted run saved is damaged; starting from the first row")
    if rank == 0:
        resume.discard(folder)
    processes.wait()
    return resume.resume({}, rank, count, limits)


def _attempt(setup: Setup, observed: Mapping[str, Observed], positions: NDArray[np.int64]) -> Values | None:
    """One batch through the model: kind -> tensor name -> [b, …]; None when it does not fit the device's memory."""
    try:
        return _observe(setup, observed, positions)
    except torch.OutOfMemoryError:
        pass  # the cache is emptied outside the handler, where the tensors of the failed batch are freed
    torch.cuda.empty_cache()
    return None


def _observe(setup: Setup, observed: Mapping[str, Observed], positions: NDArray[np.int64]) -> Values:
    batch = setup.batch(positions)
    backward = any(entry.backward for entry in observed.values())
    with torch.set_grad_enabled(backward):
        for entry in observed.values():
            entry.observer.begin(batch)
        batch.outputs = setup.forward(batch.inputs, batch.at)
        if backward:
            setup.task.losses(batch.outputs.answers, batch.gold).sum().backward()
        return {kind: _checked(kind, entry, entry.observer.rows(batch), len(batch)) for kind, entry in observed.items()}


def _checked(kind: str, entry: Observed, values: Any, b: int) -> dict[str, torch.Tensor]:
    """The values of a batch of b rows, if they are what the kind declares: a file is no better than its kind."""
    if not isinstance(values, dict):
        raise PruneError(f"kind {kind}: rows() gave {type(values).__name__}; declared: name -> tensor")
    for name in sorted({*entry.declared, *values}):
        given, shape = values.get(name), entry.declared.get(name)
        if shape is None or not isinstance(given, torch.Tensor) or tuple(given.shape) != (b, *shape):
            got = list(given.shape) if isinstance(given, torch.Tensor) else type(given).__name__
            told = "no such tensor" if shape is None else f"a tensor {[b, *shape]}"
            raise PruneError(f"kind {kind}: rows() gave {got} for {name}; declared: {told}")
    return values


def _halved(positions: NDArray[np.int64], lengths: NDArray[np.int64]) -> int:
    """Most tokens of a batch after one of these rows did not fit: those of half of it."""
    longest = max(1, int(lengths[positions].max()))
    if len(positions) == 1:
        raise PruneError(
            f"one row of {longest} tokens does not fit the device's memory",
            hint="a smaller --max-length, --precision bfloat16, or another --device",
        )
    return (len(positions) + 1) // 2 * longest
