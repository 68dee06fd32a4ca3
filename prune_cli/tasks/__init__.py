"""The tasks, one module each: how a row is checked, tokenised, batched, and measured."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from prune_cli.errors import PruneError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from prune_cli.rows import Rows


class Task(Protocol):
    """What a task's module offers. n rows, b of them in a batch, c classes; `encoded` is the task's own record."""

    @property
    def AUTO_MODEL(self) -> str:
        """The transformers class that loads the task's models."""

    @property
    def PEFT_TASK(self) -> str:
        """The peft task type, by which LoRA knows the head to train beside its adapters."""

    def check(self, row: dict[str, Any]) -> str | None:
        """The problem of a row in words, with what is allowed; None if there is none."""

    def label_list(self, rows: Rows) -> list[Any]:
        """The distinct labels in class order: class j of a model is label_list[j]."""

    def label_indices(self, rows: Rows, labels: Sequence[Any]) -> np.ndarray:
        """int64 [n]: each row's position in `labels`. Raises PruneError with file:line for a label not in it."""

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> Any:
        """The rows as tokens, with `.lengths` int64 [n] to sort batches by."""

    def collate(
        self,
        encoded: Any,
        labels: np.ndarray,
        positions: Sequence[int] | np.ndarray,
        pad_token_id: int,
        device: torch.device | str,
    ) -> dict[str, torch.Tensor]:
        """The model's inputs for the rows at `positions`, padded on the right to the longest of them."""

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """float32 [b]: each row's own loss, in nats."""

    def dynamics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logprob`, `correct`, `margin` and `el2n`, each float32 [b]."""

    def metrics(
        self,
        labels: np.ndarray,
        probabilities: np.ndarray,
        losses: np.ndarray,
        label_list: Sequence[Any],
    ) -> Mapping[str, Any]:
        """What `eval` reports, ready for JSON."""


def load(name: str) -> Task:
    """The module of the task `name`. Raises PruneError for a name without one."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    if name not in names:
        raise PruneError(f"task: {name}; allowed: {', '.join(names)}")
    return cast(Task, importlib.import_module(f"{__name__}.{name}"))
