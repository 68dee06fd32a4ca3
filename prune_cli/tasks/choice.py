"""Multiple choice: {"question", "choices", "label"} -> one of the row's own choices.

A row is as many sequences as it has choices. The model gives one number to each sequence; these are the row's logits.
Where the question has a blank, a choice's sequence is the question with the blank filled, as in WinoGrande (Sakaguchi
et al. 2019, arXiv 1907.10641); elsewhere it is the pair (question, choice). A blank is a `_`, or a run of them, that
stands alone: no letter, digit, brace, `$` or backslash touches it, as in `my_name`, `a_{n+1}` and `\\_`. The forms of
rows are in choice_forms.py.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.tasks import Judging, choice_forms, classification, tokens
from prune_cli.tasks.choice_forms import asked
from prune_cli.tasks.tokens import OUTSIDE, Encoded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

AUTO_MODEL = "AutoModelForMultipleChoice"
PEFT_TASK = None  # peft knows no such task
POOLING = "cls"
TABLE_METRICS = ("accuracy",)
OPTIONS: tuple[str, ...] = ("choices",)
OFFERS: frozenset[str] = frozenset()
EXAMPLE: Row = {"question": "The opposite of hot is _.", "choices": ["cold", "warm"], "label": 0}

_BLANK = re.compile(r"(?<![\w{}$\\])_+(?![\w{}$\\])")


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    return choice_forms.problem(row)


def text(row: Row) -> str:
    """The words of a row: the question and all choices."""
    question, choices, _ = asked(row)
    return " ".join([question, *choices])


def response(row: Row) -> str:
    """All words of a row: its answer is no text."""
    return text(row)


def label_list(rows: Rows) -> list[Any]:
    """Empty: a label is a position among the row's own choices, not a class."""
    return []


def label_indices(rows: Rows, labels: Sequence[Any]) -> np.ndarray:
    """int64 [n]: the position of each row's gold choice among its choices."""
    return np.fromiter((asked(row).label for row in rows), np.int64, len(rows))


def flips(rows: Rows, positions: np.ndarray, rng: np.random.Generator) -> list[Row]:
    """Another of its own choices for each row at `positions`."""
    changes = []
    for row in (rows[i] for i in positions.tolist()):
        _, choices, label = asked(row)
        changes.append(choice_forms.answered(row, (label + int(rng.integers(1, len(choices)))) % len(choices)))
    return changes


def encode(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[Any]) -> Encoded:
    """Tokenise each choice of each row, special tokens included; `gold` is the position of the gold choice [n].

    Sequences are cut to `max_length` tokens, or to the tokenizer's own limit if that is lower; the longer text of a
    pair is cut first. Raises PruneError for a limit that leaves no room for text, and with file:line for a row with a
    choice that gives no token.
    """
    flat = tokens.tokenised(map(_texts, tokens.blocks(rows, _has_blank)), tokenizer, max_length)
    counts = np.fromiter((len(asked(row).choices) for row in rows), np.int64, len(rows))
    first = np.concatenate([[0], np.cumsum(counts)])
    if len(flat.empty):
        sequence = flat.empty[0]
        row = int(np.searchsorted(first, sequence, "right")) - 1
        raise PruneError(
            f"{rows.where(row)}: choice {sequence - first[row]} gives no token; allowed: at least one token"
        )
    return flat.encoded(label_indices(rows, labels), first)


too_long = classification.too_long


def _has_blank(row: Row) -> bool:
    return _BLANK.search(asked(row).question) is not None


def _texts(block: list[Row]) -> tuple[list[str], list[str] | None]:
    """A text for each choice of each row; with blanks they are filled in, elsewhere the choices are second texts."""
    pairs = [(question, choice) for question, choices, _ in map(asked, block) for choice in choices]
    if _has_blank(block[0]):
        return [filled(question, choice) for question, choice in pairs], None
    return [question for question, _ in pairs], [choice for _, choice in pairs]


def filled(question: str, choice: str) -> str:
    """The question with the choice in each blank."""
    return _BLANK.sub(lambda _: choice, question)


def collate(
    encoded: Encoded, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The rows at `positions` (b) as int64 tensors [b, c, t], and `labels` [b, c].

    c is the largest number of choices among them, t the longest sequence, padded on the right. `labels` has 1 for the
    gold choice, 0 for another and OUTSIDE where a row has no such choice; its first choice stands there, so that no
    sequence is empty.
    """
    assert encoded.first is not None
    positions = np.asarray(positions, dtype=np.int64)
    first, counts = encoded.first[positions, None], np.diff(encoded.first)[positions, None]
    columns = np.arange(counts.max())
    there = columns < counts
    batch = tokens.batch(encoded, (first + np.where(there, columns, 0)).ravel(), pad_token_id)
    batch = {name: values.reshape(*there.shape, -1) for name, values in batch.items()}
    gold = (columns == encoded.gold[positions, None]).astype(np.int64)
    return tokens.to_device({**batch, "labels": np.where(there, gold, OUTSIDE)}, device)


def _own(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [b, c] with −∞ for choices that a row does not have, and each row's gold position [b]."""
    import torch

    return logits.masked_fill(labels == OUTSIDE, -torch.inf), labels.argmax(dim=1)


def answers(labels: torch.Tensor) -> tuple[None, torch.Tensor]:
    """All logits are needed."""
    return None, labels


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
    counts = (labels != OUTSIDE).sum(dim=1).tolist()
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


def row_values(predictions: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> dict[str, NDArray[np.float64]]:
    """Whether each row was answered rightly [n]."""
    return {"accuracy": np.array([row["prediction"] == row["label"] for row in predictions], np.float64)}
