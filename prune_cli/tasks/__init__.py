"""The tasks, one file each: how a row is checked, tokenised, batched and judged.

Adding a task is adding a file. A file is a task if it assigns AUTO_MODEL; other files hold what tasks share
(tokens.py). What a task's file must declare is what `Task` lists; `load` checks that it is there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from prune_cli.data import formats
from prune_cli.errors import PruneError
from prune_cli.runtime import plugins

if TYPE_CHECKING:  # the command line's help lists the tasks, so this module needs no library
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from prune_cli.data.open import Reading
    from prune_cli.data.rows import Rows
    from prune_cli.data.split import Parts
    from prune_cli.tasks.tokens import Encoded

_ASSIGNED = re.compile(r"^AUTO_MODEL\b.*=", re.MULTILINE)


@dataclass(frozen=True)
class Judging:
    """What predictions are made with: a model in eval mode, its tokenizer, n rows and their tokens, the label list.

    max_length: most tokens of an example. max_new_tokens: most tokens of a generated text; 0: nothing is generated.
    """

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerBase
    rows: Rows
    encoded: Any
    labels: list[Any]
    device: torch.device
    max_length: int
    max_new_tokens: int


class Task(Protocol):
    """What a task's file declares. n rows, b of them in a batch; what logits and `labels` are, the task knows."""

    @property
    def AUTO_MODEL(self) -> str:
        """The transformers class that loads the task's models."""

    @property
    def PEFT_TASK(self) -> str | None:
        """The peft task type, by which LoRA knows the head to train beside its adapters; None where peft has none."""

    @property
    def POOLING(self) -> str:
        """How the hidden states of a row's tokens become one vector, if the user does not say."""

    @property
    def TABLE_METRICS(self) -> tuple[str, ...]:
        """The metrics that a table of results shows."""

    @property
    def OPTIONS(self) -> tuple[str, ...]:
        """Options of stages and kinds that are for some tasks only, this one among them."""

    @property
    def OFFERS(self) -> frozenset[str]:
        """What rows have that kinds of representation may need: `prompt`."""

    @property
    def EXAMPLE(self) -> dict[str, Any]:
        """A good row, with the keys that every row needs."""

    def check(self, row: dict[str, Any]) -> str | None:
        """The problem of a row in words, with what is allowed; None if there is none."""

    def text(self, row: dict[str, Any], **options: Any) -> str:
        """The words of a row, for representations that need no model.

        options: `format`, for a task that names it among OPTIONS.
        """

    def response(self, row: dict[str, Any], **options: Any) -> str:
        """The part of `text` that is trained on, or all of it where the answer is no text. options: as of `text`."""

    def label_list(self, rows: Rows) -> list[Any]:
        """The distinct labels in class order: class j of a model is label_list[j]. Empty: rows have no labels."""

    def label_indices(self, rows: Rows, labels: Sequence[Any]) -> np.ndarray:
        """int64 [n]: each row's position in `labels`; -1 for a row without a gold answer, where the task allows it.

        Raises PruneError with file:line for a label not in it.
        """

    def flips(self, rows: Rows, positions: np.ndarray, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Another answer, drawn uniformly, for each row at `positions`: the keys that change, and their values then.

        Raises PruneError where there is no other answer.
        """

    def encode(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[Any], **options: Any
    ) -> Encoded:
        """The rows as tokens, with their gold answers. options: `loss_on`, for a task that names it among OPTIONS."""

    def too_long(
        self, rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, **options: Any
    ) -> dict[int, int]:
        """The rows that `encode` refuses for their length, by position: how many tokens they have. options: its own."""

    def collate(
        self, encoded: Any, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
    ) -> dict[str, torch.Tensor]:
        """The model's inputs and `labels` for the rows at `positions`, padded on the right to the longest of them."""

    def answers(self, labels: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Where in each row the logits are needed, int64 [b, a], and the labels of these; None: everywhere.

        The other functions take such logits and labels as they take those of whole rows.
        """

    def losses(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """float32 [b]: each row's own loss, in nats; lower means easier. Differentiable."""

    def dynamics(self, logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        """`logprob`, `correct`, `margin`, `el2n`, `improbability`, `entropy`, `upd`, each float32 [b].

        `logprob` is minus the loss.
        """

    def predictions(
        self, judging: Judging, positions: np.ndarray, logits: torch.Tensor, labels: torch.Tensor
    ) -> list[dict[str, Any]]:
        """What the model says of each row at `positions`, as predictions.jsonl holds it; logits are the forward's."""

    def metrics(
        self, predictions: Sequence[Mapping[str, Any]], losses: np.ndarray, labels: Sequence[Any]
    ) -> dict[str, Any]:
        """What `eval` reports of n rows, ready for JSON: `n`, mean `loss`, and the task's own."""

    def row_values(
        self, predictions: Sequence[Mapping[str, Any]], labels: Sequence[Any]
    ) -> dict[str, NDArray[np.float64]]:
        """Of metrics of the table, what each row adds to them [n]: the metric is the mean of these.

        Of a metric that is no mean over rows, jackknife pseudo-values, whose mean is the metric but for its bias.
        """


def names() -> list[str]:
    """All tasks, in order of name; none is imported."""
    return sorted(file.stem for file in _files() if _ASSIGNED.search(file.read_text("utf-8")))


def load(name: str) -> Task:
    """The module of the task `name`.

    Raises PruneError for a name without a task, and for a task whose file does not declare all that `Task` lists.
    """
    if any(file.stem == name for file in _files()):
        module = plugins.load(f"{__name__}.{name}")
        declared = [entry for entry in vars(Task) if not entry.startswith("_")]
        lacking = [entry for entry in declared if not hasattr(module, entry)]
        if 0 < len(lacking) < len(declared):
            raise PruneError(f"task {name}: half declared; it lacks {', '.join(lacking)}")
        if not lacking:
            return cast(Task, module)
    raise PruneError(f"task: {name}; allowed: {', '.join(names())}")


def format_of(name: str, wanted: str | None) -> str | None:
    """The format that rows of a task are read in: `wanted`, or None for a task whose rows have none.

    Raises PruneError for an unknown format, and for one that is wanted where rows have none.
    """
    given = wanted not in (None, formats.AUTO)
    if "format" not in load(name).OPTIONS:
        if given:
            raise PruneError(f"format: {wanted}; rows of the task {name} have no formats; leave it out")
        return None
    if wanted and given:
        formats.load(wanted)
    return wanted


def reading_of(name: str, reading: Reading) -> Reading:
    """How rows of a task are read: as asked, with the format that `format_of` says."""
    return replace(reading, format=format_of(name, reading.format))


def how_encoded(task: Task, opts: Any) -> dict[str, Any]:
    """The options of a stage that have a say in how a task encodes its rows."""
    return {"loss_on": opts.loss_on} if "loss_on" in task.OPTIONS else {}


def chat_template(name: str, path: str | None) -> str | None:
    """The chat template in a file, for rows of a task; None: the tokenizer's own.

    Raises PruneError where it cannot be read, and where rows of the task are no conversations.
    """
    if path is None:
        return None
    if "chat_template" not in load(name).OPTIONS:
        raise PruneError(f"chat_template: {path}; rows of the task {name} are no conversations; leave it out")
    from prune_cli.tasks import chat

    return chat.read_template(Path(path))


def texts(task: Task, rows: Rows) -> Iterator[str]:
    """The words of each row."""
    return (task.text(row, **_format(rows)) for row in rows)


def responses(task: Task, rows: Rows) -> Iterator[str]:
    """The part of each row's words that is trained on."""
    return (task.response(row, **_format(rows)) for row in rows)


def text_and_prompt(task: Task, rows: Rows, row: dict[str, Any]) -> list[str]:
    """The words of a row; where they end with a response to a prompt, those of the prompt too."""
    text, response = task.text(row, **_format(rows)), task.response(row, **_format(rows))
    prompt = text.removesuffix(response).strip()
    return [text, prompt] if prompt and prompt != text.strip() else [text]


def parted(task: Task, rows: Rows, parts: Parts) -> np.ndarray:
    """Which part each row is in, int64 [n], in the ratio of its labels where the task has any."""
    return parts.of(texts(task, rows), classes(task, rows))


def classes(task: Task, rows: Rows) -> np.ndarray:
    """A number from 0 for each row's label, int64 [n], and one for no label; all 0 where the task has no labels."""
    labels = task.label_list(rows)
    indices = task.label_indices(rows, labels)
    return indices - indices.min() if labels else indices * 0


def check_gold(rows: Rows, indices: np.ndarray, who: str) -> None:
    """Raise PruneError with file:line of all rows without a gold answer, the first ones one by one, which `who` needs.

    indices [n]: as `label_indices` gives them.
    """
    from prune_cli.data import problems
    from prune_cli.data.checking import ALIKE

    lacking = (indices < 0).nonzero()[0].tolist()
    if not lacking:
        return
    told, hint = [], "give them a label, or take them out; --skip-bad does not, as such rows can be represented"
    none = len(lacking) == len(rows)
    for i in lacking[: 1 if none else ALIKE]:
        row = {key: value for key, value in rows[i].items() if key != "id"}
        problem = "label is null" if "label" in row else f'no "label"; the row has: {problems.keys_of(row)}'
        told.append(f"{rows.where(i)}: {problem}; {who} needs one in every row")
        if none:
            hint = problems.field_hint(f'{problem}; allowed: "text", "text_pair", "label"', row) or hint
    if len(lacking) > ALIKE and not none:
        told.append(f"{rows.source}: and {len(lacking) - ALIKE:,} more rows without a label")
    raise PruneError(told[0], hint=hint, also=told[1:])


def _format(rows: Rows) -> dict[str, str]:
    return {"format": rows.format} if rows.format else {}


def _files() -> list[Path]:
    """The files of this package but for its own."""
    return [file for folder in __path__ for file in Path(folder).glob("*.py") if file.stem != "__init__"]
