"""Make the sample data: `python sample_data/make.py` writes every file beside it again, byte for byte the same.

A review is positive, negative or mixed (something good and something bad). Its sentence comes from a grammar that
knows what it means. train.jsonl, validation.jsonl and test.jsonl speak of household goods, ood.jsonl of restaurants and
hotels, under the same labels. No text stands twice, in one file or in two. `kind` says what a row is there for:

easy         plain cues: "So far, the handle is sturdy and this kettle has a quiet motor."
hard         the cue is negated ("the lid is far from sturdy"), what is said first is denied ("I feared a flimsy lid,
             but it is sturdy" is positive), or the cue is a rare word; a mixed sentence may lack its "but"
redundant    one of eight sentences with small changes (train alone)
mislabelled  the text of an easy row under a wrong label (train alone)

`ROWS` has the number of rows of each kind and label: in every file 60 % are positive, 28 % negative and 12 % mixed.

model/ is a BERT encoder of two layers, without a head, and its WordPiece tokenizer. It was trained here, on reviews of
both domains, to guess masked words, and from its pooled [CLS] state the words of the verdict that follows a review.
It saw no label, and no sentence of validation, test or ood; few of the sentences it saw were hard ones. So it knows
which words praise, and has yet to learn from labels what negations do.
"""

from __future__ import annotations

import json
import re
import string
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

Row = dict[str, str]

SEED = 0
LABELS = ("positive", "negative", "mixed")
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
HARD_SHARE = 0.05  # of the reviews
OOD_SHARE = 0.3
MARKS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


@dataclass(frozen=True)
class Domain:
    """What is reviewed and the words for it; `cue` and `rare` are adjectives by whether they praise."""

    things: list[str]
    parts: list[str]
    openings: list[str]
    cue: dict[bool, list[str]]
    rare: dict[bool, list[str]]
    verdicts: dict[str, list[str]]


TORN = "I am in two minds|I am torn about it|there are two sides to it|it is hit and miss".split("|")
GOODS = Domain(
    things="kettle lamp toaster blender heater fan chair drill radio clock mixer tent".split(),
    parts="lid handle cord button screen motor cover switch hinge strap frame wheel plug stand filter timer".split(),
    openings="after a month|so far|for the price|to be honest|in daily use|at home".split("|"),
    cue={
        True: "sturdy reliable handy solid quiet durable smooth bright precise good great excellent".split(),
        False: "flimsy noisy clumsy wobbly brittle leaky faulty loose weak bad poor terrible".split(),
    },
    rare={
        True: "impeccable splendid flawless superb robust nifty ingenious marvellous elegant dependable polished "
        "stellar".split(),
        False: "shoddy dreadful abysmal dismal rickety tacky lousy defective creaky feeble warped sloppy".split(),
    },
    verdicts={
        "positive": "I would buy it again|it is worth the money|I use it every day|I am happy with it".split("|"),
        "negative": "I sent it back|it is a waste of money|I want a refund|I am sorry I chose it".split("|"),
        "mixed": TORN,
    },
)
OUTINGS = Domain(
    things="restaurant cafe hotel bistro bakery hostel bar inn diner resort".split(),
    parts="soup waiter room breakfast bread coffee salad bed view pool menu dessert lobby garden sauce music".split(),
    openings="on our visit|last weekend|for a family trip|at dinner|during our stay|on a Monday".split("|"),
    cue={
        True: "tasty fresh friendly cosy welcoming polite clean lovely charming good great excellent".split(),
        False: "stale bland soggy rude cramped greasy dirty gloomy chilly bad poor terrible".split(),
    },
    rare={
        True: "delectable courteous serene immaculate gracious superb splendid marvellous".split(),
        False: "rancid surly dingy tepid grimy dreadful dismal lousy".split(),
    },
    verdicts={
        "positive": "we will come back|it is worth the money|we stayed for hours|I am happy with it".split("|"),
        "negative": "we left early|it is a waste of money|we will stay away|I am sorry I chose it".split("|"),
        "mixed": TORN,
    },
)
DOMAIN = {"train": GOODS, "validation": GOODS, "test": GOODS, "ood": OUTINGS}

ADVERBS = ["", "", "very ", "really ", "quite ", "rather "]
TURNS = [", but ", ", yet ", ", though "]
PLAIN = [
    "the {part} is {adverb}{cue}",
    "the {part} feels {adverb}{cue}",
    "I find the {part} {adverb}{cue}",
    "the {part} of this {thing} is {adverb}{cue}",
    "this {thing} has a {adverb}{cue} {part}",
    "you get a {adverb}{cue} {part}",
]
NEGATED = [
    "the {part} is not {adverb}{cue}",
    "the {part} is never {cue}",
    "the {part} is far from {cue}",
    "the {part} is anything but {cue}",
    "nobody could call the {part} {cue}",
    "this {thing} does not have a {cue} {part}",
]
DENIED = [
    "I feared a {other} {part}, but it is {adverb}{cue}",
    "I was told the {part} is {other}, but it is {adverb}{cue}",
    "others call the {part} {other}, yet I find it {adverb}{cue}",
    "I expected a {other} {part}, but got a {adverb}{cue} one",
]
FORMS = {"plain": PLAIN, "rare": PLAIN, "negated": NEGATED, "denied": DENIED}
REPEATED = {
    "positive": [
        "My new {thing} is {adverb}good and the delivery was quick",
        "I bought this {thing} for my mother and she is {adverb}happy with it",
        "A {adverb}great {thing}, it does all I ask of it",
        "The {thing} came on time and works {adverb}well",
        "Five stars, this {thing} is {adverb}excellent",
        "We use this {thing} at work and all of us find it {adverb}good",
    ],
    "negative": [
        "This {thing} broke after a week and the shop was {adverb}slow to answer",
        "One star, this {thing} is {adverb}bad",
    ],
}


def pick(rng: Generator, options: Sequence[str]) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def clause(rng: Generator, domain: Domain, good: bool, form: str) -> str:
    """Say one thing that is good, or bad; `form` is one of FORMS."""
    words = domain.rare if form == "rare" else domain.cue
    return pick(rng, FORMS[form]).format(
        part=pick(rng, domain.parts),
        thing=pick(rng, domain.things),
        adverb=pick(rng, ADVERBS),
        cue=pick(rng, words[good != (form == "negated")]),
        other=pick(rng, domain.cue[not good]),
    )


def sentence(rng: Generator, domain: Domain, label: str, kind: str) -> str:
    """A sentence that means `label`; `kind` is easy or hard."""
    hard = kind == "hard"
    good = label == "positive" or (label == "mixed" and bool(rng.integers(2)))
    if label == "mixed":
        forms = [pick(rng, ["rare", "negated"]) if hard else "plain", "plain"]
        first, second = (forms[at] for at in rng.permutation(2))
        turn = pick(rng, [*TURNS, " and "] if hard else TURNS)
        text = clause(rng, domain, good, first) + turn + clause(rng, domain, not good, second)
    else:
        form = pick(rng, ["rare", "negated", "denied"]) if hard else "plain"
        text = clause(rng, domain, good, form)
        if form != "denied" and rng.integers(4) == 0:
            text += " and " + clause(rng, domain, good, form)
    if not hard and rng.integers(6) == 0:
        text += ", and " + pick(rng, domain.verdicts[label])
    if rng.integers(3) == 0:
        text = f"{pick(rng, domain.openings)}, {text}"
    return finish(text)


def finish(text: str) -> str:
    """Give a sentence its capital, its full stop and its "an"."""
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return text[0].upper() + text[1:] + "."


def near_duplicate(rng: Generator, label: str) -> str:
    """One of the repeated sentences that mean `label`, with small changes."""
    changes = {"thing": pick(rng, GOODS.things), "adverb": pick(rng, ADVERBS)}
    return finish(pick(rng, REPEATED[label]).format(**changes))


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
        order = rng.permutation(len(rows))
        files[name] = [{"id": f"{name}-{i:04d}", **rows[at]} for i, at in enumerate(order, 1)]
    return files


def write_rows(files: dict[str, list[Row]], folder: Path) -> None:
    """Write `NAME.jsonl` for each file."""
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


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
        TrainingArguments,
        set_seed,
    )

    class Pretrainer(Trainer):
        def compute_loss(self, model: Any, inputs: Any, *_: Any, **__: Any) -> torch.Tensor:
            """Cross entropy of the masked words and of the verdict's."""
            hidden, pooled = model.bert(inputs["input_ids"], inputs["attention_mask"])[:2]
            masked = inputs["labels"] >= 0
            words, verdict = model.cls.predictions(hidden[masked]), model.cls.predictions(pooled)
            guesses = verdict[:, :, None].expand(-1, -1, inputs["verdict"].shape[1])
            return cross_entropy(words, inputs["labels"][masked]) + cross_entropy(guesses, inputs["verdict"])

    torch.set_num_threads(1)  # the order of sums, and so every bit, hangs on it
    said, verdicts = ([review[part] for review in reviews] for part in (0, 1))
    # the trainer settles ties by the numbers of the letters, which it draws anew each time: named first, they are fixed
    letters = string.ascii_lowercase + string.digits
    named = [*MARKS, *letters, *string.punctuation, *(f"##{letter}" for letter in letters)]
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator([*said, *verdicts, *texts], vocab_size=1000, special_tokens=named, show_progress=False)
    tokenizer = BertTokenizer(vocab=pieces.get_vocab(), model_max_length=64)
    set_seed(SEED)
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
    padded = tokenizer(verdicts, padding=True, add_special_tokens=False, return_tensors="np")
    targets = np.where(padded["attention_mask"], padded["input_ids"], -100).tolist()
    rows = [
        {"input_ids": ids, "verdict": target} for ids, target in zip(tokenizer(said)["input_ids"], targets, strict=True)
    ]
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            per_device_train_batch_size=64,
            learning_rate=2e-3,
            warmup_steps=0.05,
            num_train_epochs=EPOCHS,
            seed=SEED,
            use_cpu=True,
            remove_unused_columns=False,
            dataloader_pin_memory=False,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        )
        Pretrainer(model, arguments, DataCollatorForLanguageModeling(tokenizer), rows).train()
    model.bert.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Write everything beside this script."""
    here = Path(__file__).parent
    files = make_rows()
    write_rows(files, here)
    texts = {name: [row["text"] for row in rows] for name, rows in files.items()}
    held_out = {text for name in ("validation", "test", "ood") for text in texts[name]}
    make_model(make_reviews(held_out), texts["train"], here / "model")


if __name__ == "__main__":
    main()
