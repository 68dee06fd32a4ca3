"""Rows of one text with its label, the model that is trained on them, and that model's own training.

A row is a review of household goods in train, validation and test, of restaurants and hotels in ood, under the same
labels. No text stands twice, in one file or in two. `kind` says what a row is there for:

easy         plain cues
hard         a cue is negated, denied, or a rare word; a mixed sentence may lack its "but"
redundant    one of eight sentences with small changes (train alone)
mislabelled  the text of an easy row under a wrong label (train alone)

`ROWS` has the number of rows of each kind and label: in every file 60 % are positive, 28 % negative and 12 % mixed.

model/ is a BERT encoder of two layers, without a head, and its WordPiece tokenizer. It was trained here, on reviews of
both domains, to guess masked words, and from its pooled [CLS] state the words of the verdict that follows a review.
It saw no label, and no sentence of validation, test or ood; few of the sentences it saw were hard ones. So it knows
which words praise, and has yet to learn from labels what negations do.
"""

from __future__ import annotations

import string
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from jsonl import Row, numbered
from pretraining import arguments
from world import GOODS, LABELS, OUTINGS, SEED, Domain, finish, near_duplicate, pick, sentence

ROWS = {  # file -> kind -> rows under each of LABELS
    "train": {
        "easy": (230, 120, 70),
        "hard": (160, 86, 54),
        "redundant": (270, 90, 0),
        "mislabelled": (60, 40, 20),
    },
    "validation": {"easy": (45, 21, 9), "hard": (45, 21, 9)},
    "test": {"easy": (120, 56, 24), "hard": (120, 56, 24)},
    "ood": {"easy": (90, 42, 18), "hard": (90, 42, 18)},
}
REVIEWS = 80_000  # that the model is trained on
EPOCHS = 3
RATE = 2e-3
HARD_SHARE = 0.05  # of the reviews
OOD_SHARE = 0.3
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
DOMAIN = {"train": GOODS, "validation": GOODS, "test": GOODS, "ood": OUTINGS}


def make_text(rng: Generator, domain: Domain, label: str, kind: str) -> str:
    """The text of a row."""
    if kind == "redundant":
        return near_duplicate(rng, label)
    if kind == "mislabelled":
        return sentence(rng, domain, pick(rng, [other for other in LABELS if other != label]), "easy")
    return sentence(rng, domain, label, kind)


def make_rows() -> dict[str, list[Row]]:
    """The rows of each file, by its stem, in a random order."""
    rng = np.random.default_rng(SEED)
    seen: set[str] = set()
    files = {}
    for name, kinds in ROWS.items():
        rows = []
        for kind, counts in kinds.items():
            for label in np.repeat(LABELS, counts).tolist():
                while (text := make_text(rng, DOMAIN[name], label, kind)) in seen:
                    pass
                seen.add(text)
                rows.append({"text": text, "label": label, "kind": kind})
        files[name] = numbered(rng, name, rows)
    return files


def make_reviews(held_out: set[str]) -> list[tuple[str, str]]:
    """REVIEWS sentences, none of them in `held_out`, each with the verdict that follows it."""
    rng = np.random.default_rng(SEED + 1)
    reviews: list[tuple[str, str]] = []
    while len(reviews) < REVIEWS:
        domain = OUTINGS if rng.random() < OOD_SHARE else GOODS
        label = LABELS[int(rng.choice(3, p=[0.4, 0.4, 0.2]))]
        text = sentence(rng, domain, label, "hard" if rng.random() < HARD_SHARE else "easy")
        if text not in held_out:
            reviews.append((text, finish(pick(rng, domain.verdicts[label]))))
    return reviews


def make_model(reviews: list[tuple[str, str]], texts: list[str], folder: Path) -> None:
    """Train a tokenizer on the reviews and on more `texts`, and an encoder on the reviews; save both."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from torch.nn.functional import cross_entropy
    from transformers import (
        BertConfig,
        BertForPreTraining,
        BertTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
    )

    class Pretrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
            """Cross entropy of the masked words and of the verdict's."""
            hidden, pooled = model.bert(inputs["input_ids"], inputs["attention_mask"])[:2]
            masked = inputs["labels"] >= 0
            words, verdict = model.cls.predictions(hidden[masked]), model.cls.predictions(pooled)
            guesses = verdict[:, :, None].expand(-1, -1, inputs["verdict"].shape[1])
            return cross_entropy(words, inputs["labels"][masked]) + cross_entropy(guesses, inputs["verdict"])

    said, verdicts = ([review[part] for review in reviews] for part in (0, 1))
    # the trainer settles ties by the numbers of the letters, which it draws anew each time: named first, they are fixed
    letters = string.ascii_lowercase + string.digits
    named = [*MARKS, *letters, *string.punctuation, *(f"##{letter}" for letter in letters)]
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator([*said, *verdicts, *texts], vocab_size=1000, special_tokens=named, show_progress=False)
    tokenizer = BertTokenizer(vocab=pieces.get_vocab(), model_max_length=64)
    padded = tokenizer(verdicts, padding=True, add_special_tokens=False, return_tensors="np")
    targets = np.where(padded["attention_mask"], padded["input_ids"], -100).tolist()
    rows = [
        {"input_ids": ids, "verdict": target} for ids, target in zip(tokenizer(said)["input_ids"], targets, strict=True)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        training = arguments(scratch, EPOCHS, RATE)
        config = BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=128,
            max_position_embeddings=64,
            hidden_dropout_prob=0.0,  # so small a model has nothing to spare
            attention_probs_dropout_prob=0.0,
        )
        model = BertForPreTraining(config)
        Pretrainer(model, training, DataCollatorForLanguageModeling(tokenizer), rows).train()
    model.bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
