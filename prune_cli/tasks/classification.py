"""Text classification: {"text", "text_pair"?, "label"?} -> one label of c.

A row without a label, or with null for one, can be read, represented by hidden states and selected; what needs its
label refuses it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.data.problems import described, keys_of, text_problem
from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.numeric.jackknife import macro_f1_values
from prune_cli.tasks import Judging, tokens
from prune_cli.tasks.tokens import Encoded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

AUTO_MODEL = "AutoModelForSequenceClassification"
PEFT_TASK = "SEQ_CLS"
POOLING = "mean"
TABLE_METRICS = ("accuracy", "macro_f1")
OPTIONS: tuple[str, ...] = ()
OFFERS: frozenset[str] = frozenset({"classes"})
EXAMPLE: Row = {"text": "The film is good.", "label": "positive"}

_KEYS = '"text", "text_pair" if need be, "label"'
_NO_LABEL = -1  # in label indices


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    if "text" not in row:
        return f'no "text"; the row has: {keys_of(row)}; allowed: {_KEYS}'
    if problem := text_problem("text", row["text"]):
        return problem
    if _is_pair(row) and (problem := text_problem("text_pair", row["text_pair"])):
        return problem
    label = row.get("label")
    if label is None:
        return None
    if type(label) not in (int, str):
        return f"{described('label', label)}; allowed: an integer or a string"
    if label == "" or str(label).isspace():
        return "label is blank; allowed: an integer or a string that is not blank"
    return None


def text(row: Row) -> str:
    """The words of a row."""
    return " ".join(row[key] for key in ("text", "text_pair") if row.get(key) is not None)


def response(row: Row) -> str:
    """All words of a row: its answer is no text."""
    return text(row)


def label_list(rows: Rows) -> list[int | str]:
    """The distinct labels, ascending: class j of a model is label_list[j]. Where some are integers, all are."""
    labels = {row["label"] for row in rows if row.get("label") is not None}
    return sorted(labels if len(set(map(type, labels))) < 2 else set(map(int, labels)))


def label_indices(rows: Rows, labels: Sequence[int | str]) -> np.ndarray:
    """int64 [n]: each row's position in `labels`, -1 where it has no label.

    Raises PruneError with file:line for a label that is not among them.

    Labels are compared by their text: whether a column of a CSV holds whole numbers or strings is guessed from that
    file alone, so a test set may have 1 for what another file has as "1".
    """
    index = {str(label): j for j, label in enumerate(labels)}
    indices = np.empty(len(rows), dtype=np.int64)
    for i, row in enumerate(rows):
        label = row.get("label")
        position = _NO_LABEL if label is None else index.get(str(label))
        if position is None:
            shown = ", ".join(repr(known) for known in labels[:20]) + (", ..." if len(labels) > 20 else "")
            raise PruneError(f"{rows.where(i)}: label {label!r} is not among those trained on; allowed: {shown}")
        indices[i] = position
    return indices


def flips(rows: Rows, positions: np.ndarray, rng: np.random.Generator) -> list[Row]:
    """Another label of the rows' for each row at `positions`."""
    labels = label_list(rows)
    if len(labels) < 2:
        raise PruneError(f"{rows.where(0)}: all rows have one label; another one is needed to change it to")
    own = label_indices(rows, labels)[positions]
    drawn = (own + rng.integers(1, len(labels), len(own))) % len(labels)
    return [{"label": labels[j]} for j in drawn.tolist()]


def encode(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[int | str]) -> Encoded:
    """Tokenise `text` (and `text_pair`), special tokens included, the longer text cut first; `gold` is the class [n].

    Rows are cut to `max_length` tokens, or to the tokenizer's own limit if that is lower. Raises PruneError for a
    limit that leaves no room for text, and with file:line for a row that gives no token.
    """
    flat = tokens.tokenised(map(_texts, tokens.blocks(rows, _is_pair)), tokenizer, max_length)
    if len(flat.empty):
        raise PruneError(f"{rows.where(int(flat.empty[0]))}: text gives no token; allowed: at least one token")
    return flat.encoded(label_indices(rows, labels))


def too_long(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int) -> dict[int, int]:
    """Empty: every row is cut."""
    return {}


def _is_pair(row: Row) -> bool:
    return row.get("text_pair") is not None


def _texts(block: list[Row]) -> tuple[list[str], list[str] | None]:
    return [row["text"] for row in block], [row["text_pair"] for row in block] if _is_pair(block[0]) else None


def collate(
    encoded: Encoded, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The rows at `positions` (b) as int64 tensors [b, t], t the longest of them, padded on the right; `labels` [b]."""
    positions = np.asarray(positions, dtype=np.int64)
    batch = tokens.batch(encoded, positions, pad_token_id)
    return tokens.to_device({**batch, "labels": encoded.gold[positions]}, device)


def answers(labels: torch.Tensor) -> tuple[None, torch.Tensor]:
    """All logits are needed."""
    return None, labels


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Cross entropy of each row, float32 [b], in nats; logits [b, c], labels int64 [b]. Differentiable."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits.float(), labels, reduction="none")


def dynamics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Training dynamics of each row, float32 [b]; logits [b, c], labels int64 [b].

    `logprob` log p(gold), `correct` 1 where the gold logit is the first largest, `margin` gold logit − largest other
    logit, `el2n` ‖softmax(logits) − onehot(gold)‖₂ (Paul et al. 2021, arXiv 2107.07075), `improbability` 1 − p(gold),
    `entropy` −Σ_c p(c) log p(c), `upd` σ(−log p(gold)) max(0, 1 − entropy / log c) (Zhang et al. 2025, arXiv
    2503.11441), c the classes that a row has. Higher `logprob`, `correct` and `margin` mean easier; higher `el2n`,
    `improbability` and `upd` harder; higher `entropy` less sure, whatever the gold answer.
    """
    import torch

    logits = logits.detach().float()
    gold = labels[:, None]
    log_probabilities = logits.log_softmax(dim=1)
    probabilities = log_probabilities.exp()
    logprob = log_probabilities.gather(1, gold)[:, 0]
    others = logits.scatter(1, gold, -torch.inf)
    finite = log_probabilities.clamp_(min=torch.finfo(torch.float32).min)  # 0 × −∞ of a choice that a row lacks is 0
    entropy = -finite.mul_(probabilities).sum(dim=1)
    most = (logits > -torch.inf).sum(dim=1).clamp(min=2).log()  # the entropy of classes that are all alike
    rest = probabilities.scatter_(1, gold, 0)  # summed, it has the digits that 1 − p loses where p is near 1
    improbability = rest.sum(dim=1).clamp(max=1)
    return {
        "logprob": logprob,
        "improbability": improbability,
        "entropy": entropy,
        "upd": (-logprob).sigmoid() * (1 - entropy / most).clamp(min=0),
        "correct": (logits.argmax(dim=1) == labels).float(),
        "margin": logits.gather(1, gold)[:, 0] - others.amax(dim=1),
        "el2n": rest.norm(dim=1).hypot(improbability),
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

    `macro_f1` is the unweighted mean of the F1 of the labels that are gold or predicted in this set (scikit-learn's
    default): a label that the set has no row of, and that is never predicted, does not lower it. `per_label` has every
    label, as a string (JSON keys are strings), with `n` gold rows; a quotient 0 / 0 counts as 0.
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


def row_values(predictions: Sequence[Mapping[str, Any]], labels: Sequence[int | str]) -> dict[str, NDArray[np.float64]]:
    """Whether each row was classified rightly [n], and what it adds to macro-F1 [n]."""
    index = {label: j for j, label in enumerate(labels)}
    gold, predicted = (np.array([index[row[key]] for row in predictions]) for key in ("label", "prediction"))
    return {
        "accuracy": (gold == predicted).astype(np.float64),
        "macro_f1": macro_f1_values(gold, predicted, len(labels)),
    }
