"""The files that a walk fills, written while it goes on."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli.artifacts.tensors import RowWriter, Spec
from prune_cli.represent.observe import scale_of
from prune_cli.runtime import processes
from prune_cli.runtime.progress import note

Values = dict[str, dict[str, torch.Tensor]]  # kind -> name -> [b, …]


class Output:
    """`<kind>.safetensors` for each kind, of tensors [n, e, …].

    A batch's values are fetched from the device and written while the next batch is computed.
    """

    def __init__(self, folder: Path, specs: dict[str, dict[str, Spec]], metadata: dict[str, Any]) -> None:
        self._writers: dict[str, RowWriter] = {}
        with ExitStack() as stack:
            with processes.first_ahead():  # it reserves the files
                for kind in specs:
                    scales = {name: scale_of(name) for name in specs[kind] if scale_of(name) in specs[kind]}
                    writer = RowWriter(folder / f"{kind}.safetensors", specs[kind], metadata, scales)
                    self._writers[kind] = stack.enter_context(writer)
            self._thread = stack.enter_context(ThreadPoolExecutor(1))
            self._open = stack.pop_all()
        self._last: Future[None] | None = None

    def __enter__(self) -> Self:
        """The files are open from the start."""
        return self

    def __exit__(self, *_: object) -> None:
        """Wait for the last batch to be written; close the files; report values that float16 loses."""
        self._open.close()
        for writer in self._writers.values():
            for name, rows in writer.vanished.items():
                if rows:
                    note(
                        f"{name}: {rows} rows × checkpoints are too small for float16 and stand as zeros; "
                        "--dtype float32 keeps them",
                        everyone=True,
                    )

    def holds(self, positions: NDArray[np.int64], checkpoint: int) -> bool:
        """Whether all values of rows `positions` [b] at a checkpoint are there as they were written."""
        return all(writer.holds(positions, checkpoint) for writer in self._writers.values())

    def put(self, positions: NDArray[np.int64], checkpoint: int, values: Values) -> None:
        """Write the values of rows `positions` [b] in the background, after waiting for the batch before.

        Raises the error of the batch before, if it had one.
        """
        self.wait()
        self._last = self._thread.submit(self._write, positions, checkpoint, values)

    def wait(self) -> None:
        """Wait until all batches are written."""
        if self._last:
            self._last.result()

    def sync(self) -> None:
        """Wait until all batches are on disk."""
        self.wait()
        for writer in self._writers.values():
            writer.sync()

    def _write(self, positions: NDArray[np.int64], checkpoint: int, values: Values) -> None:
        for kind, by_name in values.items():
            for name, value in by_name.items():
                self._writers[kind].write(name, positions, checkpoint, value.cpu().numpy())
