"""Training dynamics, recorded from the training forward itself.

Dropout is on and the weights move within the epoch, as in dataset cartography (Swayamdipta et al. 2020, arXiv
2009.10795); so the dynamics need no forward of their own.
"""

from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from prune_cli.artifacts import tensors
from prune_cli.errors import PruneError
from prune_cli.runtime import processes

FILE = "record.safetensors"  # in a resume state


class Record:
    """Training dynamics of n rows in e epochs, and the learning rates of every epoch's steps.

    Of several processes each notes the rows that fall to it; all have all of them after a `flush`.
    arrays: name -> float32 [n, e]; NaN where a row was not seen in an epoch.
    """

    def __init__(self, n: int, epochs: int) -> None:
        self.n, self.epochs = n, epochs
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self.rates = np.zeros((epochs, 2))  # sum of learning rates, number of steps
        self._waiting: list[tuple[int, torch.Tensor, dict[str, torch.Tensor]]] = []

    def add(self, epoch: int, rows: torch.Tensor, values: dict[str, torch.Tensor]) -> None:
        """Note the values of a batch's rows [b], each [b].

        They stay on the device until the next `flush`, so that the training does not wait for them.
        """
        self._waiting.append((epoch, rows, values))

    def add_rate(self, epoch: int, rate: float) -> None:
        """Note the learning rate of one optimizer step."""
        self.rates[epoch] += (rate, 1)

    def flush(self) -> None:
        """Move what was noted, by any of the processes, into the arrays.

        All of them flush at the same time. Raises PruneError for a value that is not a finite number.
        """
        noted = [
            (epoch, rows.cpu().numpy(), {name: value.float().cpu().numpy() for name, value in values.items()})
            for epoch, rows, values in self._waiting
        ]
        for epoch, at, arrays in chain.from_iterable(processes.gathered(noted)):
            for name, array in arrays.items():
                if name not in self.arrays:
                    self.arrays[name] = np.full((self.n, self.epochs), np.nan, np.float32)
                self.arrays[name][at, epoch] = array
                if not np.isfinite(self.arrays[name][at, epoch]).all():
                    raise PruneError(
                        f"training diverged: {name} is not a finite number in epoch {epoch + 1}",
                        hint="a lower --learning-rate, or --precision float32",
                    )
        self._waiting.clear()

    def mean_rate(self, epoch: int | None = None) -> float:
        """Mean learning rate over an epoch's steps; None: over all steps."""
        rates = self.rates if epoch is None else self.rates[epoch : epoch + 1]
        return float(rates[:, 0].sum() / rates[:, 1].sum())

    def save(self, folder: Path) -> None:
        """Write everything moved into the arrays into a resume state."""
        tensors.save(folder / FILE, {**self.arrays, "rates": self.rates}, {})

    def load(self, folder: Path) -> None:
        """Go on from what a resume state holds."""
        arrays = {name: np.array(array) for name, array in tensors.load(folder / FILE).items()}
        self.rates = arrays.pop("rates")
        self.arrays = arrays

    def write_dynamics(self, path: Path) -> None:
        """Write the dynamics [n, e] of the epochs in which every row was seen; no file where there are none."""
        whole = [e for e in range(self.epochs) if not np.isnan(self.arrays["logprob"][:, e]).any()]
        if whole:
            kept = {name: array[:, whole] for name, array in self.arrays.items()}
            tensors.save(path, kept, {"learning_rate": [self.mean_rate(e) for e in whole]})

    def write_log(self, path: Path) -> None:
        """One line an epoch: mean loss and accuracy over the rows as they were trained on, mean learning rate."""
        with path.open("w", encoding="utf-8") as stream:
            for epoch in range(self.epochs):
                logprob = self.arrays["logprob"][:, epoch]
                seen = ~np.isnan(logprob)
                line = {
                    "epoch": epoch + 1,
                    "rows": int(seen.sum()),
                    "loss": float(-logprob[seen].mean(dtype=np.float64)),
                    "accuracy": float(self.arrays["correct"][seen, epoch].mean(dtype=np.float64)),
                    "learning_rate": self.mean_rate(epoch),
                }
                stream.write(json.dumps(line) + "\n")
