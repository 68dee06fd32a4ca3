"""A pipeline file that fits data files, for `prune init`: it runs as it is, and its comments say what was guessed."""

from __future__ import annotations

import json
import os
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli.options import MOST
from prune_cli.pipeline.look import SMALL, TRAIN, VALIDATION, Seen
from prune_cli.runtime.terminal import CONTROL, clean

# models to train where none is named: small, well known, and of several languages where the rows are not in English
ENCODER, ENCODER_FOREIGN = "distilbert/distilbert-base-uncased", "distilbert/distilbert-base-multilingual-cased"
CHAT, CAUSAL = "Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-0.5B"
ENCODER_LIMIT = 512  # tokens that these encoders take

LENGTHS = (512, 1024, 2048, 4096)  # to cut to; the first is what the stages cut to unasked
CUT = 0.01  # so many rows may be cut before more tokens are taken
MARGIN = 1.5  # for estimates of the longest row
LARGE, HUGE = 20_000, 200_000  # rows
WARMUP_ROWS = 10_000  # of a large data set, to warm up on
LISTED = 10  # labels that a comment lists

METHODS = {
    "none": "the model as it is, before any training",
    "full": "all rows: what pruning is measured against",
    "random": "a random draw: what a method must beat",
    "hard-to-learn": "difficulty, by training dynamics",
    "memorization": "difficulty, by gradients",
    "prototypicality": "difficulty, by hidden states",
    "perplexity": "difficulty, by the untrained model",
    "ifd": "difficulty: how little the prompt helps",
    "s2l": "diversity, by training dynamics",
    "rds": "relevance to the validation rows, by hidden states",
    "less": "relevance to the validation rows, by gradients",
    "less-keep": "the same, in the label ratio of the data",
}
BY_GRADIENT = ("memorization", "less", "less-keep")
OF_TASK = {
    "classification": "full random hard-to-learn memorization prototypicality s2l less-keep",
    "choice": "full random hard-to-learn memorization s2l less",
    "generation": "none full random s2l perplexity ifd rds less",
}


@dataclass(frozen=True)
class Proposal:
    """The text of a pipeline file, and in a few lines what it rests on."""

    text: str
    told: list[str]


def propose(seen: Seen, model: str | None, file: Path) -> Proposal:
    """The pipeline file for what was seen, to lie at `file`: paths are relative to its folder."""
    limit = _max_length(seen, model)
    chosen = model or _model(seen)
    told = [f"{count:,} {role} rows: {seen.files[role]}" for role, count in seen.counts.items()]
    told += seen.guessed
    told.append(_lengths_in_words(seen, limit))
    if unfit := seen.lengths.unfit:
        told.append(
            f"{len(unfit):,} rows have a response too long for the {seen.lengths.limit:,} tokens that the model takes; "
            f"the pipeline refuses them: leave them out (prune select --fits), or name another model; the first is "
            f"{unfit[0]}"
        )
    if seen.reading.bad_rows:
        told.append(f"bad rows are left out; the pipeline writes them into {seen.reading.bad_rows}")
    if model is None:
        told.append(f"model: {chosen}, as no --model was given; another can stand there")
    told += [line for part in (VALIDATION, "test") if (line := _split_in_words(seen, part))]
    told += [f"{count:,} training rows have a text that stands in {role} too" for role, count in seen.shared.items()]
    if seen.shared:
        told.append(
            "decontaminate = true leaves those out that stand in a test set: a line of the file, to be uncommented"
        )
    if seen.repeated:
        told.append(f"{seen.repeated:,} training rows repeat the text of an earlier one")
    lines = [*_head(file, told), *_data(seen, file.parent), ""]
    lines += [_entry("model", _place(chosen, file.parent)), *_methods(seen), *_budgets(seen), ""]
    lines += [*_tests(seen, file.parent), "", *_tables(seen, limit, file.parent)]
    return Proposal("\n".join(lines) + "\n", told)


def quoted(value: Any) -> str:
    """A value as TOML: texts as basic strings, which JSON's are but for control characters."""
    return CONTROL.sub(lambda match: f"\\u{ord(match.group()):04x}", json.dumps(value, ensure_ascii=False))


def _entry(key: str, value: Any, why: str = "") -> str:
    return f"{_key(key)} = {quoted(value)}" + (f"  # {_comment(why)}" if why else "")


def _key(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z0-9_-]+", name) else quoted(name)


def _comment(text: str) -> str:
    """Text in which no character ends a comment, or is none that TOML allows."""
    return clean(" ".join(text.split()))


def _place(name: str, folder: Path) -> str:
    """A path as seen from the file's folder; what is no path, such as a name on the hub, as it is."""
    if name.startswith("hf:") or not (Path(name).exists() or set(name) & set("*?[") or ":" in name):
        return name
    return os.path.relpath(name, folder)


def _head(file: Path, told: list[str]) -> Iterator[str]:
    name = _comment(shlex.quote(file.name))
    yield "# A pipeline file that prune init wrote: what it saw and guessed stands here, all of it can be changed."
    yield f"#   prune pipeline {name} --dry-run    checks all rows, and says what would run"
    yield f"#   prune pipeline {name}              trains on what each method keeps, and measures"
    yield "#"
    yield from (f"# - {_comment(line)}" for line in told)
    yield ""


def _data(seen: Seen, folder: Path) -> Iterator[str]:
    yield _entry("task", seen.task)
    if seen.reading.format not in (None, "auto"):
        yield _entry("format", seen.reading.format, "how the rows are written")
    if seen.reading.fields:
        pairs = ", ".join(f"{_key(name)} = {quoted(keys)}" for name, keys in seen.reading.fields.items())
        yield f"fields = {{{pairs}}}"
    if seen.reading.drop:
        yield _entry("drop", list(seen.reading.drop))
    if seen.reading.bad_rows:
        why = "bad rows are left out, and written into this file with their reasons"
        yield _entry("skip_bad", os.path.relpath(seen.reading.bad_rows, folder), why)
    yield _entry("train", _place(seen.files[TRAIN], folder), f"{seen.n:,} rows{_labels_in_words(seen)}")
    why = "the target set of methods of relevance; nothing is trained on it"
    if seen.shared:
        yield "# decontaminate = true  # leaves out the training rows that stand in a test set"
    if VALIDATION in seen.files:
        yield _entry("validation", _place(seen.files[VALIDATION], folder), why)
    else:
        yield _entry("validation", seen.share, why)


def _labels_in_words(seen: Seen) -> str:
    by_count = sorted(seen.labels.items(), key=lambda entry: -entry[1])
    shown = ", ".join(f"{quoted(label)} {count:,}" for label, count in by_count[:LISTED])
    more = f", and {len(by_count) - LISTED} more labels" if len(by_count) > LISTED else ""
    return f"; labels: {shown}{more}" if shown else ""


def _split_in_words(seen: Seen, part: str) -> str:
    given = VALIDATION in seen.files if part == VALIDATION else bool(_test_files(seen))
    purpose = "not the validation rows, which methods select by" if part == "test" else "methods of relevance need them"
    return "" if given else f"no {part} rows were given: {seen.share:.0%} of the training rows are split off; {purpose}"


def _test_files(seen: Seen) -> dict[str, str]:
    return {role: file for role, file in seen.files.items() if role not in (TRAIN, VALIDATION)}


def _tests(seen: Seen, folder: Path) -> Iterator[str]:
    yield "[tests]"
    yield from (_entry(name, _place(file, folder)) for name, file in _test_files(seen).items())
    if not _test_files(seen):
        yield _entry("test", seen.share, "of the training rows; a file of rows from elsewhere tells more")


def _model(seen: Seen) -> str:
    if seen.task == "generation":
        return CAUSAL if seen.reading.format in ("text", "prompt_completion") else CHAT
    return ENCODER_FOREIGN if seen.foreign else ENCODER


def _max_length(seen: Seen, model: str | None) -> int:
    """What rows are cut to: 512 tokens, or more where many would be cut; none where responses may then not fit."""
    tokens = seen.lengths.tokens
    most = seen.lengths.limit or (ENCODER_LIMIT if model is None and seen.task != "generation" else MOST)
    known = [*(length for length in LENGTHS if length < most), min(most, max(LENGTHS))]
    if seen.task == "generation":  # a response that does not fit is an error
        longest = int(tokens.max()) if seen.lengths.counted else int(tokens.max() * MARGIN)
        enough = next((length for length in known if length >= longest), known[-1])
        return enough if seen.lengths.whole < enough else min(most, 1 << seen.lengths.whole.bit_length())
    return next((length for length in known if (tokens > length).mean() <= CUT), known[-1])


def _lengths_in_words(seen: Seen, limit: int) -> str:
    lengths = seen.lengths
    cut = int((lengths.tokens > limit).sum())
    cutting = f"{cut:,} of {len(lengths.tokens):,} rows" if cut else "no row"
    if lengths.counted:
        spread = f"median {np.median(lengths.tokens):,.0f} tokens, longest {lengths.tokens.max():,}"
        return f"lengths: {spread}; {cutting} would be cut to {limit:,}"
    spread = f"median {np.median(lengths.words):,.0f} words, longest {lengths.words.max():,} words"
    spread += f" and {lengths.characters.max():,} characters"
    return f"lengths: {spread}; guessed from these, {cutting} would be cut to {limit:,} tokens; --model counts them"


def _methods(seen: Seen) -> Iterator[str]:
    names = OF_TASK[seen.task].split()
    if not seen.prompted:
        names.remove("ifd")
    yield "methods = ["
    for name in names:
        if seen.n > HUGE and name in BY_GRADIENT:
            yield f"    # {quoted(name)},  # {METHODS[name]}: left out, as {seen.n:,} gradients take long"
        else:
            yield f"    {quoted(name)},  # {METHODS[name].replace('the same', 'relevance, by gradients')}"
    yield "]"


def _budgets(seen: Seen) -> Iterator[str]:
    yield _entry("keep", [0.1, 0.3] if seen.n >= SMALL else [0.3, 0.5], "of the training rows")
    yield _entry("seeds", [0, 1, 2] if seen.n <= LARGE else [0, 1])


def _tables(seen: Seen, limit: int, folder: Path) -> Iterator[str]:
    adapters = seen.task == "generation"
    training = ['tune = "lora"', "learning_rate = 2e-4", "batch_size = 8"] if adapters else ["batch_size = 16"]
    if seen.chat_template:
        training.append(_entry("chat_template", os.path.relpath(seen.chat_template, folder)))
    yield "[warmup]  # one training on all rows; methods read what it records"
    yield "epochs = 3"
    if seen.n > LARGE:
        yield _entry(
            "fraction", max(0.05, round(WARMUP_ROWS / seen.n, 2)), "of the training rows are enough to warm up on"
        )
    yield from (*training, f"max_length = {limit}", "", "[represent]", f"max_length = {limit}")
    yield from ("", "[finetune]", "epochs = 3", *training, f"max_length = {limit}")
    if adapters and seen.prompted:
        tokens = float(np.percentile(seen.answers, 95)) / 3  # characters of a token, at the least
        most = int(min(256, limit // 2, max(16, 2 ** np.ceil(np.log2(max(tokens, 1))))))
        yield from (
            "",
            "[eval]",
            _entry("max_new_tokens", most, "of a generated text; 0 generates none, which is faster"),
        )
