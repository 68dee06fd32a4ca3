"""Make the sample data: `python sample_data/make.py` writes every file beside it again, with the same bytes.

A review is positive, negative or mixed (something good and something bad). Sentences come from a grammar that knows
what they mean. train, validation and test speak of household goods, ood.jsonl of restaurants and hotels, with the
same labels. No text stands in two of the files or twice in one. Each row has a `kind`:

easy         one or two plain cues: "So far, the handle is sturdy and the cord is long."
hard         the cue is negated ("is far from sturdy"), denied by what follows ("I feared a flimsy lid, but it is
             sturdy" is positive) or a word that is rare in the data; a mixed one may lack its "but"
redundant    one of eight sentences with small changes (train alone)
mislabelled  the text of an easy row under a wrong label (train alone)

`ROWS` says how many rows of each kind have each label: 60 % are positive, 28 % negative and 12 % mixed in every file.

model/ is a small BERT encoder without a head. It was trained here on masked words of reviews from the same grammar, of
both domains, none of them a sentence of validation, test or ood; it saw no label. Its hidden states tell good from
bad, so that a short fine-tune goes far.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

SEED = 0
OOD_SHARE = 0.3
THREADS = 2
HIDDEN, LAYERS, LR, EPOCHS, REVIEWS = 64, 2, 2e-3, 4, 40000
LABELS = ("positive", "negative", "mixed")
ROWS = {  # file -> kind -> rows with each of LABELS
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


@dataclass(frozen=True)
class Domain:
    """The words of what is reviewed; `cue` and `rare` are adjectives by whether they praise."""

    things: list[str]
    parts: list[str]
    openings: list[str]
    cue: dict[bool, list[str]]
    rare: dict[bool, list[str]]
    endings: dict[bool, list[str]]


GOODS = Domain(
    things="kettle lamp toaster blender heater fan chair desk drill radio speaker clock mixer vacuum backpack tent "
    "printer keyboard camera phone oven iron mattress bicycle".split(),
    parts="lid handle cord button screen battery motor cover base switch hinge strap zip frame wheel plug case stand "
    "filter nozzle blade display cable casing lock sensor timer seal".split(),
    openings="after a month|so far|for the price|to be honest|in daily use|out of the box|at home|compared to my old one".split("|"),
    cue={
        True: "sturdy reliable handy solid quiet sleek durable smooth comfortable bright precise light sharp efficient "
        "tidy stable good great excellent nice".split(),
        False: "flimsy noisy clumsy wobbly brittle dull leaky faulty clunky loose rough weak crooked heavy fragile jammed "
        "bad poor terrible awful".split(),
    },
    rare={
        True: "impeccable splendid flawless superb stellar exquisite robust nifty ingenious marvellous elegant supple "
        "refined dependable faultless polished".split(),
        False: "shoddy dreadful abysmal dismal ghastly rickety tacky lousy defective warped creaky sloppy dire feeble "
        "cheapish unusable".split(),
    },
    endings={
        True: "I would buy it again|it is worth the money|I use it every day|I am happy with it|I recommend it".split("|"),
        False: "I sent it back|it is a waste of money|I want a refund|I am sorry I chose it|I warn you off it".split("|"),
    },
)
OUTINGS = Domain(
    things="restaurant cafe hotel bistro bakery hostel bar inn diner resort canteen pub".split(),
    parts="soup waiter room breakfast bread coffee salad bed view pool menu service dessert lobby pasta garden staff "
    "terrace sauce music shower steak".split(),
    openings="on our visit|last weekend|for a family trip|at dinner|during our stay|in the evening|on a Monday".split("|"),
    cue={
        True: "tasty fresh friendly cosy crisp tender welcoming polite prompt clean lovely generous charming good great "
        "excellent nice".split(),
        False: "stale bland soggy rude cramped greasy dirty slow gloomy salty sour stingy chilly bad poor terrible "
        "awful".split(),
    },
    rare={
        True: "delectable courteous luscious serene immaculate gracious superb splendid marvellous".split(),
        False: "rancid surly dingy tepid grimy insipid dreadful dismal lousy".split(),
    },
    endings={
        True: "we will come back|it is worth the money|we stayed for hours|I am happy with it|I recommend it".split("|"),
        False: "we left early|it is a waste of money|we will stay away|I am sorry I chose it|I warn you off it".split("|"),
    },
)
DOMAIN = {"train": GOODS, "validation": GOODS, "test": GOODS, "ood": OUTINGS}

PLAIN = (
    "the {part} is {adverb}{cue}|the {part} feels {adverb}{cue}|I find the {part} {adverb}{cue}|"
    "the {part} of this {thing} is {cue}|this {thing} has a {cue} {part}|you get a {adverb}{cue} {part}"
).split("|")
NEGATED = (
    "the {part} is not {adverb}{cue}|the {part} is far from {cue}|the {part} is anything but {cue}|"
    "nobody could call the {part} {cue}|the {part} is never {cue}|this {thing} does not have a {cue} {part}"
).split("|")
DENIED = (
    "I feared a {other} {part}, but it is {cue}|I was told the {part} is {other}, but it is {adverb}{cue}|"
    "others call the {part} {other}, yet I find it {cue}|I expected a {other} {part}, but got a {cue} one"
).split("|")
ADVERBS = ["", "", "", "very ", "really ", "quite ", "rather "]
REPEATED = {  # label -> sentences said again and again
    "positive": [
        "My new {thing} is {adverb}good and the delivery was quick",
        "I bought this {thing} for my mother and she is {adverb}happy with it",
        "A {adverb}great {thing}, it does all I ask of it",
        "The {thing} came on time and works {adverb}well",
        "Five stars, this {thing} is {adverb}excellent",
        "We use this {thing} at work and all of us find it {adverb}nice",
    ],
    "negative": [
        "This {thing} broke after a week and the shop was {adverb}slow to answer",
        "One star, this {thing} is {adverb}bad",
    ],
}
TURNS = [", but ", ", yet ", ", though "]


def pick(rng: Generator, options: Sequence[str]) -> str:
    """One of the options, each as likely."""
    return options[int(rng.integers(len(options)))]


def clause(rng: Generator, domain: Domain, good: bool, form: str = "plain") -> str:
    """Say one good or bad thing; `form` is plain, rare, negated or denied."""
    words = domain.rare if form == "rare" else domain.cue
    template = pick(rng, {"negated": NEGATED, "denied": DENIED}.get(form, PLAIN))
    return template.format(
        part=pick(rng, domain.parts),
        thing=pick(rng, domain.things),
        adverb=pick(rng, ADVERBS),
        cue=pick(rng, words[good != (form == "negated")]),
        other=pick(rng, domain.cue[not good]),
    )


def sentence(rng: Generator, domain: Domain, label: str, kind: str) -> str:
    """One review sentence that means `label`; `kind` is easy or hard."""
    form = pick(rng, ["rare", "negated", "denied"]) if kind == "hard" else "plain"
    if label == "mixed":
        good = bool(rng.integers(2))
        form = "negated" if form == "denied" else form
        forms = [form, "plain"] if rng.integers(2) else ["plain", form]
        turn = pick(rng, [*TURNS, " and "]) if kind == "hard" else pick(rng, TURNS)
        text = clause(rng, domain, good, forms[0]) + turn + clause(rng, domain, not good, forms[1])
    else:
        good = label == "positive"
        text = clause(rng, domain, good, form)
        more = int(rng.integers(4))
        if more == 0 and form != "denied":
            text += " and " + clause(rng, domain, good, form)
        elif more == 1 and kind == "easy":
            text += ", and " + pick(rng, domain.endings[good])
    if rng.integers(3) == 0:
        text = f"{pick(rng, domain.openings)}, {text}"
    text = re.sub(r"\ba (?=[aeiou])", "an ", text)
    return text[0].upper() + text[1:] + "."


def near_duplicate(rng: Generator, label: str) -> str:
    """One of the repeated sentences that mean `label`, with small changes."""
    text = pick(rng, REPEATED[label]).format(adverb=pick(rng, ADVERBS[2:]), thing=pick(rng, GOODS.things[:8]))
    return text + pick(rng, [".", "!", ", I think.", ", really."])


def make_rows() -> dict[str, list[dict[str, str]]]:
    """The rows of every file, in its order, by the file's stem."""
    rng = np.random.default_rng(SEED)
    seen: set[str] = set()
    files = {}
    for name, kinds in ROWS.items():
        rows = []
        for kind, counts in kinds.items():
            for label in np.repeat(LABELS, counts).tolist():
                text = ""
                while not text or text in seen:
                    if kind == "redundant":
                        text = near_duplicate(rng, label)
                    elif kind == "mislabelled":
                        meant = pick(rng, [other for other in LABELS if other != label])
                        text = sentence(rng, DOMAIN[name], meant, "easy")
                    else:
                        text = sentence(rng, DOMAIN[name], label, kind)
                seen.add(text)
                rows.append({"text": text, "label": label, "kind": kind})
        order = rng.permutation(len(rows))
        files[name] = [{"id": f"{name}-{i + 1:04d}", **rows[at]} for i, at in enumerate(order)]
    return files


def write_rows(files: dict[str, list[dict[str, str]]], folder: Path) -> None:
    """Write each file's rows as JSONL."""
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text(lines, encoding="utf-8")


def make_reviews(n: int, held_out: set[str]) -> list[str]:
    """Reviews [n] without labels, each of one or two sentences that agree; no sentence is in `held_out`."""
    rng = np.random.default_rng(SEED + 1)
    reviews = []
    while len(reviews) < n:
        domain = (GOODS, OUTINGS)[int(rng.random() < OOD_SHARE)]
        label = pick(rng, LABELS)
        kinds = ["easy" if rng.random() < 0.5 else "hard" for _ in range(rng.integers(1, 3))]
        sentences = [sentence(rng, domain, label, kind) for kind in kinds]
        if held_out.isdisjoint(sentences):
            reviews.append(" ".join(sentences))
    return reviews


def make_model(reviews: list[str], folder: Path) -> None:
    """Train a WordPiece tokenizer and a BERT encoder on the reviews; save both."""
    import torch
    from tokenizers import BertWordPieceTokenizer
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertModel,
        BertTokenizerFast,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainingArguments,
        set_seed,
    )

    torch.set_num_threads(THREADS)
    pieces = BertWordPieceTokenizer(lowercase=True)
    pieces.train_from_iterator(reviews, vocab_size=1000, show_progress=False)
    tokenizer = BertTokenizerFast(vocab=pieces.get_vocab(), model_max_length=64)
    set_seed(SEED)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=2 * HIDDEN,
        max_position_embeddings=64,
    )
    model = BertForMaskedLM(config)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = TrainingArguments(
            scratch,
            use_cpu=True,
            per_device_train_batch_size=128,
            learning_rate=LR,
            warmup_steps=0.05,
            num_train_epochs=EPOCHS,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            seed=SEED,
        )
        rows = [{"input_ids": ids} for ids in tokenizer(reviews)["input_ids"]]
        Trainer(model, arguments, DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.2), rows).train()
    encoder = BertModel(config)
    encoder.load_state_dict(model.bert.state_dict(), strict=False)
    encoder.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    """Write everything beside this script."""
    here = Path(__file__).parent
    files = make_rows()
    write_rows(files, here)
    held_out = {row["text"] for name, rows in files.items() if name != "train" for row in rows}
    make_model(make_reviews(REVIEWS, held_out), here / "model")


if __name__ == "__main__":
    main()
