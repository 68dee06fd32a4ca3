"""Text classification: {"text", "text_pair"?, "label"} -> one label of c."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows, described, keys_of
from prune_cli.errors import PruneError
from prune_cli.tasks import Judging

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

AUTO_MODEL = "AutoModelForSequenceClassification"
PEFT_TASK = "SEQ_CLS"
POOLING = "mean"
TABLE_METRICS = ("accuracy", "macro_f1")
OPTIONS: tuple[str, ...] = ()
OFFERS: frozenset[str] = frozenset()
BLOCK = 1000  # rows tokenised at a time: only a block's tokens are ever Python lists


@dataclass(frozen=True, eq=False)
class Encoded:
    """n tokenised rows laid end to end: row i is `input_ids[offsets[i]:offsets[i + 1]]`, its class `gold[i]`."""

    input_ids: np.ndarray  # int32 [tokens]
    token_type_ids: np.ndarray | None  # int32 [tokens], where the tokenizer makes them
    offsets: np.ndarray  # int64 [n + 1]
    gold: np.ndarray  # int64 [n]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens per row, special tokens included."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> np.ndarray:
        """The same: a row is one sequence."""
        return self.lengths


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    for key in ("text", "text_pair"):
        text = row.get(key)
        if (isinstance(text, str) and text.strip()) or (key == "text_pair" and key not in row):
            continue
        if key not in row:
            return f'no "{key}"; the row has: {keys_of(row)}; allowed: "text", "text_pair" if need be, "label"'
        problem = f"{key} is blank" if isinstance(text, str) else described(key, text)
        return f"{problem}; allowed: a string that is not blank"
    if "label" not in row:
        return f'no "label"; the row has: {keys_of(row)}; allowed: "text", "text_pair" if need be, "label"'
    label = row["label"]
    if type(label) not in (int, str):
        return f"{described('label', label)}; allowed: an integer or a string"
    if label == "" or str(label).isspace():
        return "label is blank; allowed: an integer or a string that is not blank"
    return None


def text(row: Row) -> str:
    """The words of a row."""
    return " ".join(row[key] for key in ("text", "text_pair") if key in row)


def label_list(rows: Rows) -> list[int | str]:
    """The distinct labels, ascending: class j of a model is label_list[j]."""
    return sorted({row["label"] for row in rows})


def label_indices(rows: Rows, labels: Sequence[int | str]) -> np.ndarray:
    """int64 [n]: each row's position in `labels`. Raises PruneError with file:line for a label not in it."""
    index = {label: j for j, label in enumerate(labels)}
    indices = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        if row["label"] not in index:
            shown = ", ".join(repr(label) for label in labels[:20]) + (", ..." if len(labels) > 20 else "")
            raise PruneError(f"{rows.where(i)}: label {row['label']!r} is not one of the model's; allowed: {shown}")
        indices[i] = index[row["label"]]
    return indices


def encode(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[int | str]) -> Encoded:
    """Tokenise `text` (and `text_pair`), special tokens included, the longer text cut first.

    Rows are cut to `max_length` tokens, or to the tokenizer's own limit if that is lower. Raises PruneError for a
    limit that leaves no room for text, and with file:line for a row that gives no token.
    """
    own = tokenizer.num_special_tokens_to_add(pair="text_pair" in rows[0])
    if max_length <= own:
        raise PruneError(f"max_length: {max_length}; above {own} is allowed, the number of special tokens")
    max_length = min(max_length, tokenizer.model_max_length)
    ids, types, lengths = [], [], []
    for block in _blocks(rows):
        pairs = [row["text_pair"] for row in block] if "text_pair" in block[0] else None
        tokens = tokenizer(
            [row["text"] for row in block],
            pairs,
            truncation=True,
            max_length=max_length,
            return_attention_mask=False,
        )
        lengths.append(np.array([len(row) for row in tokens["input_ids"]], dtype=np.int64))
        ids.append(np.fromiter(chain.from_iterable(tokens["input_ids"]), np.int32))
        if "token_type_ids" in tokens:
            types.append(np.fromiter(chain.from_iterable(tokens["token_type_ids"]), np.int32))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    empty = np.flatnonzero(np.diff(offsets) == 0)
    if len(empty):
        raise PruneError(f"{rows.where(int(empty[0]))}: text gives no token; allowed: at least one token")
    gold = label_indices(rows, labels)
    return Encoded(np.concatenate(ids), np.concatenate(types) if types else None, offsets, gold)


def _blocks(rows: Rows) -> Iterator[list[Row]]:
    """The rows in order, at most BLOCK at a time, those of a block all with `text_pair` or all without."""
    for start in range(0, len(rows), BLOCK):
        for _, block in groupby(rows[start : start + BLOCK], key=lambda row: "text_pair" in row):
            yield list(block)


def collate(
    encoded: Encoded, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The rows at `positions` (b) as int64 tensors [b, t], t the longest of them, and `labels` [b].

    Padding is on the right whatever the tokenizer's side: the positions of a row's tokens do not depend on the batch.
    """
    import torch

    positions = np.asarray(positions, dtype=np.int64)
    starts, lengths = encoded.offsets[positions, None], encoded.lengths[positions, None]
    columns = np.arange(lengths.max())
    mask = columns < lengths
    token = (starts + columns)[mask]  # where each kept cell, row by row, stands in the flat arrays

    def padded(flat: np.ndarray, fill: int) -> np.ndarray:
        out = np.full(mask.shape, fill, dtype=np.int64)
        out[mask] = flat[token]
        return out

    batch = {"input_ids": padded(encoded.input_ids, pad_token_id), "attention_mask": mask.astype(np.int64)}
    if encoded.token_type_ids is not None:
        batch["token_type_ids"] = padded(encoded.token_type_ids, 0)
    batch["labels"] = encoded.gold[positions]
    return {key: torch.from_numpy(value).to(device) for key, value in batch.items()}


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row, float32 [b], in nats; logits [b, c], labels int64 [b]. Differentiable."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), labels, reduction="none")


def dynamics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Training dynamics of each row, float32 [b]; logits [b, c], labels int64 [b].

    `logprob` log p(gold), `correct` 1 where the gold logit is the first largest, `margin` gold logit − largest other
    logit, `el2n` ‖softmax(logits) − onehot(gold)‖₂ (Paul et al. 2021, arXiv 2107.07075). Higher `logprob`, `correct`
    and `margin` mean easier; higher `el2n` harder.
    """
    import torch

    logits = logits.detach().float()
    gold = labels[:, None]
    log_probabilities = logits.log_softmax(dim=1)
    others = logits.scatter(1, gold, -torch.inf)
    error = log_probabilities.exp().scatter_add(1, gold, -torch.ones_like(gold, dtype=torch.float32))
    return {
        "logprob": log_probabilities.gather(1, gold)[:, 0],
        "correct": (logits.argmax(dim=1) == labels).float(),
        "margin": logits.gather(1, gold)[:, 0] - others.amax(dim=1),
        "el2n": error.norm(dim=1),
    }


def predictions(
    judging: Judging, positions: np.ndarray, logits: torch.Tensor, labels: torch.Tensor
) -> list[dict[str, Any]]:
    """Each row's label, the most probable one (the first of equals), and all probabilities; logits [b, c]."""
    probabilities = logits.double().softmax(dim=1).cpu().numpy()
    return [
        {
            "label": judging.labels[gold],
            "prediction": judging.labels[row.argmax()],
            "probabilities": [round(p, 6) for p in row.tolist()],
        }
        for gold, row in zip(labels.tolist(), probabilities, strict=True)
    ]


def metrics(
    predictions: Sequence[Mapping[str, Any]], losses: np.ndarray, labels: Sequence[int | str]
) -> dict[str, Any]:
    """Scores of the predicted labels; losses [n].

    `macro_f1` is the mean F1 of the labels that are gold or predicted in this set (scikit-learn's own default), so a
    test set without some label is not marked down for it. `per_label` has every label, as a string (as JSON keys are),
    with `n` gold rows; a quotient 0 / 0 counts as 0.
    """
    from sklearn.metrics import accuracy_score, f1_score, precision_recall_fscore_support

    index = {label: j for j, label in enumerate(labels)}
    gold, predicted = ([index[row[key]] for row in predictions] for key in ("label", "prediction"))
    table = precision_recall_fscore_support(gold, predicted, labels=np.arange(len(labels)), zero_division=0)
    return {
        "n": len(predictions),
        "loss": float(np.mean(losses, dtype=np.float64)),
        "accuracy": float(accuracy_score(gold, predicted)),
        "macro_f1": float(f1_score(gold, predicted, average="macro", zero_division=0)),
        "per_label": {
            str(label): {"n": int(n), "precision": float(precision), "recall": float(recall), "f1": float(f1)}
            for label, precision, recall, f1, n in zip(labels, *table, strict=True)
        },
    }
