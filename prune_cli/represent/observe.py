"""What a kind of representation is written with: the tensors it declares, and the observer that fills them in a pass.

Importable without torch: `prune score` reads the declarations of the kinds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from prune_cli.data.rows import Rows
    from prune_cli.models.find import Checkpoint, NamedModel
    from prune_cli.tasks import Task
    from prune_cli.tasks.tokens import Encoded


@dataclass(frozen=True)
class Tensor:
    """A tensor of a kind, [n, e, *axes].

    axes: a letter for each axis after rows and checkpoints; the observer's `sizes` gives their sizes. dtype: the
    stored type; None: the kind's option `dtype`. about: what the numbers are, with units and direction. scaled:
    stored as float16 each row at a checkpoint is divided by a power of two, which stands in a second tensor
    (`scale_of`), so that its numbers keep their digits however small or large they are.
    """

    axes: tuple[str, ...]
    dtype: str | None
    about: str
    scaled: bool = False


def scale_of(tensor: str) -> str:
    """The name of the tensor float32 [n, e] that a scaled tensor is to be multiplied by; where it is absent, by one."""
    return f"{tensor}_scale"


@dataclass
class Batch:
    """A batch of b rows in a pass: inputs and labels, and the model's outputs after the forward.

    The logits of the outputs are those at the places `at` of each row (None: all), and answer `gold`. `alone(i)` is its
    row i as a batch of one, without padding.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    at: torch.Tensor | None
    gold: torch.Tensor
    alone: Callable[[int], Batch]
    outputs: Any = None

    def __len__(self) -> int:
        """Rows in the batch."""
        return len(self.labels)

    @property
    def sequences(self) -> int:
        """Sequences that the model sees: one for each row, or for each of its choices."""
        return self.inputs["input_ids"].shape[:-1].numel()


@dataclass(frozen=True)
class Setup:
    """What a pass works with: n encoded rows, a model, and how they are computed.

    named: the model as it was named, with its checkpoints; `model` holds their weights in turn. precision: of the
    forward, float32 or bfloat16. eos_token_id: the tokenizer's token that ends a text. batch_size, tokens_per_batch:
    most rows and tokens in a batch. target: the target set, for kinds that need one.
    among: the positions of the rows that are walked, where these are not all.
    """

    encoded: Encoded
    pad_token_id: int
    model: torch.nn.Module
    named: NamedModel
    task: Task
    device: torch.device
    precision: str
    batch_size: int
    tokens_per_batch: int
    target: Target | None = None
    eos_token_id: int | None = None
    among: NDArray[np.int64] | None = None

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [n]: tokens that each row which is walked takes in a batch of rows of its length."""
        return self.encoded.lengths if self.among is None else self.encoded.lengths[self.among]

    def batch(self, positions: NDArray[np.int64]) -> Batch:
        """The rows at `positions`, counted among those that are walked, on the device."""
        rows = positions if self.among is None else self.among[positions]
        inputs = self.task.collate(self.encoded, rows, self.pad_token_id, self.device)
        labels = inputs.pop("labels")
        return Batch(inputs, labels, *self.task.answers(labels), lambda i: self.batch(positions[i : i + 1]))

    def forward(self, inputs: dict[str, torch.Tensor], at: torch.Tensor | None = None) -> Any:
        """The model's outputs for inputs of a batch, in the precision of the pass; `at`: as of a batch."""
        from prune_cli.models.device import autocast

        with autocast(self.device, self.precision):
            return self.exactly(inputs, at)

    def exactly(self, inputs: dict[str, torch.Tensor], at: torch.Tensor | None = None) -> Any:
        """The same in the precision of the model's weights."""
        from prune_cli.models.answers import forward
        from prune_cli.runtime.running import running

        with running(self.model):
            return forward(self.model, inputs, at)


@dataclass(frozen=True)
class Target:
    """The target set: its rows, with the same model, and the index of each row's group, int64 [m]."""

    setup: Setup
    group: NDArray[np.int64]


@dataclass(frozen=True)
class Given:
    """What a kind has to work with that needs no pass.

    which: the checkpoints asked for: all, last, or numbers as in 1,3.
    """

    rows: Rows
    task: Task
    named: NamedModel
    which: str


class Observer(Protocol):
    """Fills the tensors of a kind in a pass."""

    def sizes(self, model: torch.nn.Module) -> dict[str, int]:
        """The size of each axis letter that the kind's tensors have. Raises PruneError for options that do not fit."""

    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> AbstractContextManager[None]:
        """Hooks on the model during one checkpoint, whose weights it has."""

    def begin(self, batch: Batch) -> None:
        """Called before the forward."""

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Called after the forward (and the backward, if any kind needs one): tensor name -> values [b, …]."""


class Watcher:
    """An observer of what the forward gives: it has no axes of its own, no hooks, and nothing to do before a batch."""

    def sizes(self, model: torch.nn.Module) -> dict[str, int]:
        """No axes."""
        return {}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """No hooks."""
        yield

    def begin(self, batch: Batch) -> None:
        """Nothing to prepare."""
