"""The tasks, one module each: how a row is checked, tokenised, batched, and judged."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np

from prune_cli.errors import PruneError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from prune_cli import options
    from prune_cli.data.rows import Rows


class Encoded(Protocol):
    """n tokenised rows with their gold answers, as a task keeps them."""

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens a row takes in a batch of its like, by which batches are sorted and bounded."""

    @property
    def longest(self) -> np.ndarray:
        """int64 [n]: tokens of a row's longest sequence, by which a model's positions are counted."""


@dataclass(frozen=True)
class Judging:
    """What predictions are made with: a model in eval mode, its tokenizer, rows, the label list, options."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    rows: Rows
    encoded: Any
    labels: list[Any]
    device: torch.device
    opts: options.Eval


class Task(Protocol):
    """What a task's module offers. n rows, b of them in a batch; what logits and `labels` are, the task knows."""

    @property
    def AUTO_MODEL(self) -> str:
        """The transformers class that loads the task's models."""

    @property
    def PEFT_TASK(self) -> str | None:
        """The peft task type, by which LoRA knows the head to train beside its adapters."""

    @property
    def POOLING(self) -> str:
        """How hidden states of tokens become one vector, where it is not said."""

    @property
    def TABLE_METRICS(self) -> tuple[str, ...]:
        """Of the metrics, those that a table of results shows."""

    @property
    def OPTIONS(self) -> tuple[str, ...]:
        """Options of stages and kinds that have a say for this task and not for every one."""

    @property
    def OFFERS(self) -> frozenset[str]:
        """What rows have that kinds of representation may need: `prompt`."""

    def check(self, row: dict[str, Any]) -> str | None:
        """The problem of a row in words, with what is allowed; None if there is none."""

    def text(self, row: dict[str, Any]) -> str:
        """The words of a row, for representations that need no model."""

    def label_list(self, rows: Rows) -> list[Any]:
        """The distinct labels in class order: class j of a model is label_list[j]. Empty: rows have no labels."""

    def label_indices(self, rows: Rows, labels: Sequence[Any]) -> np.ndarray:
        """int64 [n]: each row's position in `labels`. Raises PruneError with file:line for a label not in it."""

    def encode(self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[Any]) -> Encoded:
        """The rows as tokens, with their gold answers."""

    def collate(
        self, encoded: Any, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
    ) -> dict[str, torch.Tensor]:
        """The model's inputs and `labels` for the rows at `positions`, padded on the right to the longest of them."""

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """float32 [b]: each row's own loss, in nats."""

    def dynamics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logprob`, `correct`, `margin` and `el2n`, each float32 [b]."""

    def predictions(
        self, judging: Judging, positions: np.ndarray, logits: torch.Tensor, labels: torch.Tensor
    ) -> list[dict[str, Any]]:
        """What the model says of each row at `positions`, as `predictions.jsonl` holds it; logits are the forward's."""

    def metrics(
        self, predictions: Sequence[Mapping[str, Any]], losses: np.ndarray, labels: Sequence[Any]
    ) -> dict[str, Any]:
        """What `eval` reports of n rows, ready for JSON."""


def names() -> list[str]:
    """All tasks, in order of name; none is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")


def load(name: str) -> Task:
    """The module of the task `name`. Raises PruneError for a name without one."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")
    if name not in names:
        raise PruneError(f"task: {name}; allowed: {', '.join(names)}")
    return cast(Task, importlib.import_module(f"{__name__}.{name}"))
