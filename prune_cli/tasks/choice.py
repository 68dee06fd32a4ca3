"""Multiple choice: {"question", "choices", "label"} -> one of the row's own choices.

A row is as many sequences as it has choices, each given one number by the model; these are the row's logits. Where the
question has a blank, `_` or a run of them, a choice's sequence is the question with the blank filled, as in WinoGrande
(Sakaguchi et al. 2019, arXiv 1907.10641); elsewhere it is the pair (question, choice).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows, described, keys_of
from prune_cli.errors import PruneError
from prune_cli.tasks import Judging, classification

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

AUTO_MODEL = "AutoModelForMultipleChoice"
PEFT_TASK = None  # peft knows no such task
POOLING = "cls"
TABLE_METRICS = ("accuracy",)
OPTIONS: tuple[str, ...] = ("choices",)
OFFERS: frozenset[str] = frozenset()
BLOCK = 250  # rows tokenised at a time: only a block's tokens are ever Python lists
MISSING = -100  # the label of a choice that the row does not have, but others of its batch do

_BLANK = re.compile("_+")


@dataclass(frozen=True, eq=False)
class Encoded:
    """n tokenised rows: the choices of row i are the sequences from `first[i]` to `first[i + 1]`.

    The gold answer of a sequence is 1 for its row's gold choice, 0 for another.
    """

    sequences: classification.Encoded
    first: np.ndarray  # int64 [n + 1]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: a row's tokens among rows of its length that have the most choices, special tokens included."""
        widest: int = np.diff(self.first).max()
        return widest * self.longest

    @property
    def longest(self) -> np.ndarray:
        """int64 [n]: tokens of a row's longest sequence."""
        longest: np.ndarray = np.maximum.reduceat(self.sequences.lengths, self.first[:-1])
        return longest


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    for key in ("question", "choices", "label"):
        if key not in row:
            return f'no "{key}"; the row has: {keys_of(row)}; allowed: "question", "choices", "label"'
    question, choices, label = row["question"], row["choices"], row["label"]
    if not isinstance(question, str) or not question.strip():
        problem = "question is blank" if isinstance(question, str) else described("question", question)
        return f"{problem}; allowed: a string that is not blank"
    if not isinstance(choices, list):
        return f"{described('choices', choices)}; allowed: a list of two strings or more"
    for j, choice in enumerate(choices):
        if not isinstance(choice, str) or not choice.strip():
            name = f"choice {j}"
            problem = f"{name} is blank" if isinstance(choice, str) else described(name, choice)
            return f"{problem}; allowed: a string that is not blank"
    if len(choices) < 2:
        return f"choices has {len(choices)}; allowed: two strings or more"
    if type(label) is not int:
        return f"{described('label', label)}; allowed: the position of a choice, 0 to {len(choices) - 1}"
    if not 0 <= label < len(choices):
        return f"label {label} is not the position of a choice; allowed: 0 to {len(choices) - 1}"
    return None


def text(row: Row) -> str:
    """The words of a row: the question and all choices."""
    return " ".join([row["question"], *row["choices"]])


def label_list(rows: Rows) -> list[Any]:
    """Empty: what a label says depends on the row's choices."""
    return []


def label_indices(rows: Rows, labels: Sequence[Any]) -> np.ndarray:
    """int64 [n]: the position of each row's gold choice among its choices."""
    return np.fromiter((row["label"] for row in rows), np.int64, len(rows))


def encode(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[Any]) -> Encoded:
    """Tokenise each choice of each row, special tokens included, the longer text of a pair cut first.

    Sequences are cut to `max_length` tokens, or to the tokenizer's own limit if that is lower. Raises PruneError for a
    limit that leaves no room for text, and with file:line for a row with a choice that gives no token.
    """
    ids, types, lengths = [], [], []
    for texts, pairs in _blocks(rows):
        own = tokenizer.num_special_tokens_to_add(pair=pairs is not None)
        if max_length <= own:
            raise PruneError(f"max_length: {max_length}; above {own} is allowed, the number of special tokens")
        tokens = tokenizer(
            texts,
            pairs,
            truncation=True,
            max_length=min(max_length, tokenizer.model_max_length),
            return_attention_mask=False,
        )
        lengths.append(np.array([len(sequence) for sequence in tokens["input_ids"]], dtype=np.int64))
        ids.append(np.fromiter(chain.from_iterable(tokens["input_ids"]), np.int32))
        if "token_type_ids" in tokens:
            types.append(np.fromiter(chain.from_iterable(tokens["token_type_ids"]), np.int32))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    first = np.concatenate([[0], np.cumsum(np.fromiter((len(row["choices"]) for row in rows), np.int64, len(rows)))])
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if len(empty):
        row = int(np.searchsorted(first, empty[0], "right")) - 1
        raise PruneError(
            f"{rows.where(row)}: choice {empty[0] - first[row]} gives no token; allowed: at least one token"
        )
    gold = np.zeros(len(offsets) - 1, np.int64)
    gold[first[:-1] + label_indices(rows, labels)] = 1
    token_types = np.concatenate(types) if types else None
    return Encoded(classification.Encoded(np.concatenate(ids), token_types, offsets, gold), first)


def _blocks(rows: Rows) -> Iterator[tuple[list[str], list[str] | None]]:
    """Texts and pairs of all sequences in order, those of at most BLOCK rows at a time; None: filled, so no pairs."""
    for start in range(0, len(rows), BLOCK):
        for blank, block in groupby(rows[start : start + BLOCK], key=lambda row: "_" in row["question"]):
            asked = [(row["question"], choice) for row in block for choice in row["choices"]]
            if blank:
                yield [filled(question, choice) for question, choice in asked], None
            else:
                yield [question for question, _ in asked], [choice for _, choice in asked]


def filled(question: str, choice: str) -> str:
    """The question with the choice in each blank."""
    return _BLANK.sub(lambda _: choice, question)


def collate(
    encoded: Encoded, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The rows at `positions` (b) as int64 tensors [b, c, t], and `labels` [b, c].

    c is the largest number of choices among them, t the longest sequence, padded on the right. `labels` has 1 for the
    gold choice, 0 for another and MISSING where a row has no such choice; its first stands there, so that no sequence
    is empty.
    """
    import torch

    positions = np.asarray(positions, dtype=np.int64)
    first, counts = encoded.first[positions, None], np.diff(encoded.first)[positions, None]
    columns = np.arange(counts.max())
    there = columns < counts
    flat = classification.collate(
        encoded.sequences, (first + np.where(there, columns, 0)).ravel(), pad_token_id, device
    )
    batch = {key: value.unflatten(0, there.shape) for key, value in flat.items()}
    batch["labels"] = batch["labels"].masked_fill(~torch.from_numpy(there).to(device), MISSING)
    return batch


def _own(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [b, c] with −∞ for choices that a row does not have, and each row's gold position [b]."""
    import torch

    return logits.masked_fill(labels == MISSING, -torch.inf), labels.argmax(dim=1)


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row over its own choices, float32 [b], in nats; logits, labels [b, c]. Differentiable."""
    return classification.losses(*_own(logits, labels))


def dynamics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Training dynamics of each row over its own choices, float32 [b]; logits, labels [b, c].

    As for classification, with the row's choices for classes.
    """
    return classification.dynamics(*_own(logits, labels))


def predictions(
    judging: Judging, positions: np.ndarray, logits: torch.Tensor, labels: torch.Tensor
) -> list[dict[str, Any]]:
    """Positions of each row's gold and most probable choice (the first of equals), and its choices' probabilities."""
    masked, gold = _own(logits, labels)
    probabilities = masked.double().softmax(dim=1).cpu().numpy()
    counts = (labels != MISSING).sum(dim=1).tolist()
    return [
        {
            "label": label,
            "prediction": int(row.argmax()),
            "probabilities": [round(p, 6) for p in row[:count].tolist()],
        }
        for label, row, count in zip(gold.tolist(), probabilities, counts, strict=True)
    ]


def metrics(predictions: Sequence[Mapping[str, Any]], losses: np.ndarray, labels: Sequence[Any]) -> dict[str, Any]:
    """Share of rows whose gold choice was predicted, and mean loss; losses [n]."""
    return {
        "n": len(predictions),
        "loss": float(np.mean(losses, dtype=np.float64)),
        "accuracy": float(np.mean([row["prediction"] == row["label"] for row in predictions])),
    }
