"""Rows of a prompt with its response, lm/, the model that is trained on them, and that model's own training.

What is asked for is the row's `group`:

verdict   whether to buy: "Is it a good buy? The lid is far from sturdy." -> "No, it is a bad buy."
extract   what is good and bad: "Say what you like and dislike. The lid is weak." -> "I dislike the lid."
sum       "I have 3 lamps and buy 4 more. How many lamps do I have?" -> "3 and 4 make 7."

`kind` says what a row is there for:

easy         plain cues; additions
hard         a cue is negated, denied, or a rare word; subtractions
redundant    a standing sentence with small changes (train alone)
mislabelled  an easy prompt with the response to another one of its group (train alone)

No review and no sum's prompt stands twice, in one file or in two.

lm/ is a Llama of two layers with a byte-level BPE tokenizer and a chat template. It was trained here on plain text:
reviews, none of them of validation or test, followed by the verdict or by what the buyer likes, and small sums. So it
knows which words praise, and what 3 and 4 make; it has yet to learn what a prompt asks for and how to respond.
"""

from __future__ import annotations

import re
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from jsonl import Row, draw
from pretraining import arguments
from world import ADVERBS, GOODS, LABELS, SEED, TURNS, clause, finish, near_duplicate, pick, sentence, some

ROWS = {  # file -> kind -> rows of each group
    "train": {"easy": 90, "hard": 60, "redundant": 40, "mislabelled": 20},
    "validation": {"easy": 17, "hard": 17},
    "test": {"easy": 34, "hard": 34},
}
FEWEST, MOST = 2, 10  # that are added or taken away
WORTH = ["Is it a good buy?", "Should I buy it?"]
VERDICTS = {
    "positive": "Yes, it is a good buy.",
    "negative": "No, it is a bad buy.",
    "mixed": "It is hard to say.",
}
NAME = ["What do you like and dislike?", "Say what you like and dislike."]
ASKED = re.compile(f"({'|'.join(map(re.escape, [*WORTH, *NAME]))}) ")  # before a review
REPEATED_PARTS = "the lid of my {thing} is {much}good{turn}the cord is {little}bad"
REPEATED_SUMS = [(2, 2), (2, 3), (3, 2)]
PLUS = [
    "What is {a} + {b}?",
    "How much is {a} and {b}?",
    "I have {a} {thing}s and buy {b} more. How many {thing}s do I have?",
    "We have {a} {thing}s at home and {b} at work. How many {thing}s is that?",
]
MINUS = [
    "What is {c} - {a}?",
    "I had {c} {thing}s and sold {a}. How many {thing}s are left?",
    "There are {c} {thing}s in the shop and {a} of them broke. How many {thing}s still work?",
]
HARD = ["rare", "negated", "denied"]
LIKES = {
    True: ["I like the {part}.", "I am happy with the {part}."],
    False: ["I dislike the {part}.", "I am sorry about the {part}."],
}
COUNTS = [
    ("{a} {thing}s came today and {b} came last week.", "{a} and {b} make {c}."),
    ("The shop has {a} {thing}s and my mother has {b}.", "{a} and {b} make {c}."),
    ("{c} {thing}s came today and {a} went back.", "{c} less {a} is {b}."),
    ("My mother had {c} {thing}s and lost {a}.", "{c} less {a} is {b}."),
]
TEXTS = 60_000  # that the model is trained on
EPOCHS = 2
RATE = 4e-3
SUM_SHARE = 0.25  # of the texts
VERDICT_SHARE = 0.3  # of the reviews among them
HARD_SHARE = 0.1
CHAT = (
    "{{ bos_token }}{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MARKS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
ROLES = ["<|system|>", "<|user|>", "<|assistant|>"]


def verdict(rng: Generator, kind: str) -> tuple[str, str]:
    """A review, and whether to buy."""
    label = pick(rng, LABELS[:2] if kind == "redundant" else LABELS)
    review = near_duplicate(rng, label) if kind == "redundant" else sentence(rng, GOODS, label, kind)
    return f"{pick(rng, WORTH)} {review}", VERDICTS[label]


def review_of_parts(rng: Generator, hard: bool) -> tuple[str, dict[bool, list[str]]]:
    """A review of a part or two, with the good (True) and the bad; the first clause may be hard."""
    good = bool(rng.integers(2))
    parts = some(rng, GOODS.parts, int(rng.integers(1, 3)))
    text = clause(rng, replace(GOODS, parts=parts[:1]), good, pick(rng, HARD) if hard else "plain")
    if parts[1:]:
        text += pick(rng, TURNS) + clause(rng, replace(GOODS, parts=parts[1:]), not good, "plain")
    return finish(text), {good: parts[:1], not good: parts[1:]}


def extract(rng: Generator, kind: str) -> tuple[str, str]:
    """A review, and which of its parts are good and which bad."""
    if kind == "redundant":
        words = {"thing": pick(rng, GOODS.things), "turn": pick(rng, TURNS)}
        review = finish(REPEATED_PARTS.format(much=pick(rng, ADVERBS), little=pick(rng, ADVERBS), **words))
        named = {True: ["lid"], False: ["cord"]}
    else:
        review, named = review_of_parts(rng, kind == "hard")
    marks = [f"I {verb} the {named[good][0]}." for good, verb in ((True, "like"), (False, "dislike")) if named[good]]
    return f"{pick(rng, NAME)} {review}", " ".join(marks)


def addends(rng: Generator) -> tuple[int, int]:
    """Two small numbers."""
    a, b = rng.integers(FEWEST, MOST + 1, 2).tolist()
    return a, b


def total(rng: Generator, kind: str) -> tuple[str, str]:
    """A sum or, where it is hard, a difference."""
    if kind == "redundant":
        a, b = REPEATED_SUMS[int(rng.integers(len(REPEATED_SUMS)))]
        form = pick(rng, PLUS[2:])
    else:
        a, b = addends(rng)
        form = pick(rng, MINUS if kind == "hard" else PLUS)
    prompt = form.format(a=a, b=b, c=a + b, thing=pick(rng, GOODS.things))
    response = f"{a + b} less {a} is {b}." if kind == "hard" else f"{a} and {b} make {a + b}."
    return prompt, response


GROUPS = {"verdict": verdict, "extract": extract, "sum": total}


def make_row(rng: Generator, kind: str, group: str) -> Row:
    """A row of a kind and group."""
    ask = GROUPS[group]
    mislabelled = kind == "mislabelled"
    prompt, response = ask(rng, "easy" if mislabelled else kind)
    right = response
    while mislabelled and response == right:
        _, response = ask(rng, "easy")
    return {"prompt": prompt, "response": response, "kind": kind, "group": group}


def own(row: Row) -> list[str]:
    """What must not stand twice: the review of a prompt, or the whole prompt of a sum."""
    return [ASKED.sub("", row["prompt"])]


def make_rows() -> dict[str, list[Row]]:
    """The rows of each file, by its stem, in a random order."""
    return draw(np.random.default_rng(SEED + 3), ROWS, GROUPS, make_row, own)


def make_text(rng: Generator) -> tuple[str, str]:
    """A review or a count of things, and what follows it."""
    if rng.random() < SUM_SHARE:
        a, b = addends(rng)
        numbers = {"a": a, "b": b, "c": a + b}
        said, then = COUNTS[int(rng.integers(len(COUNTS)))]
        return said.format(thing=pick(rng, GOODS.things), **numbers), then.format(**numbers)
    hard = rng.random() < HARD_SHARE
    if rng.random() < VERDICT_SHARE:
        label = pick(rng, LABELS)
        return sentence(rng, GOODS, label, "hard" if hard else "easy"), finish(pick(rng, GOODS.verdicts[label]))
    review, named = review_of_parts(rng, hard)
    likes = [text.format(part=part) for good in named for part in named[good] for text in some(rng, LIKES[good], 2)]
    return review, " ".join(likes)


def make_texts(held_out: set[str]) -> list[str]:
    """TEXTS texts, with none of the reviews in `held_out`."""
    rng = np.random.default_rng(SEED + 4)
    texts: list[str] = []
    while len(texts) < TEXTS:
        said, then = make_text(rng)
        if said not in held_out:
            texts.append(f"{said} {then}")
    return texts


def make_tokenizer(texts: list[str]) -> Any:
    """A byte-level BPE tokenizer trained on texts, with a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1000,
        special_tokens=[*MARKS.values(), *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    pieces.train_from_iterator(texts, trainer)
    bos = MARKS["bos_token"]
    pieces.post_processor = processors.TemplateProcessing(f"{bos} $A", f"{bos} $A $B", [(bos, pieces.token_to_id(bos))])
    fast: Any = PreTrainedTokenizerFast  # untyped
    return fast(tokenizer_object=pieces, model_max_length=128, chat_template=CHAT, **MARKS)


def make_lm(texts: list[str], more: list[str], folder: Path) -> None:
    """Train a tokenizer on the texts and on `more`, and a causal language model on the texts; save both."""
    from transformers import DataCollatorForLanguageModeling, LlamaConfig, LlamaForCausalLM, Trainer

    tokenizer = make_tokenizer([*texts, *more])
    with tempfile.TemporaryDirectory() as scratch:
        training = arguments(scratch, EPOCHS, RATE)
        config = LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        model = LlamaForCausalLM(config)
        ids = tokenizer([text + tokenizer.eos_token for text in texts])["input_ids"]
        rows = [{"input_ids": each} for each in ids]
        Trainer(model, training, DataCollatorForLanguageModeling(tokenizer, mlm=False), rows).train()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
