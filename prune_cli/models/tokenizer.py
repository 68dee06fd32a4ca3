"""A model's tokenizer: whether its files are there, and whether it is the model's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli.errors import PruneError
from prune_cli.models.find import NamedModel, file_names
from prune_cli.options import shown

if TYPE_CHECKING:
    import torch

    from prune_cli.data.rows import Rows
    from prune_cli.tasks.tokens import Encoded

_OWN = ("vocab_file", "merges_file")  # what transformers calls the files that hold a class's vocabulary
_ANY = ("tokenizer.", "tekken", "tiktoken")  # names of files that hold a whole tokenizer: tokenizer.json and others
_KNOWN = (*_ANY, "vocab", "merges", "spiece", "sentencepiece", "spm")


def check_there(named: NamedModel, tokenizer: Any | None) -> None:
    """Raise PruneError where the model's folder holds no vocabulary.

    transformers then makes a tokenizer of a few special tokens, for which every word is unknown. A class that needs no
    file (bytes) passes. tokenizer: as it was loaded; None where that failed.
    """
    files = file_names(named) - {"tokenizer_config.json"}
    if tokenizer is None:
        there = any(name.startswith(_KNOWN) for name in files)
    else:
        of_class = getattr(tokenizer, "vocab_files_names", None) or {}
        own = {of_class[part] for part in _OWN if part in of_class}
        there = not of_class or bool(own and own <= files) or any(name.startswith(_ANY) for name in files)
    if not there:
        raise PruneError(
            f"{named.name} holds no tokenizer; allowed: a model with its tokenizer.json or vocabulary files",
            hint="copy these files into the folder from the model that it was trained from",
        )


def check_limit(named: NamedModel, tokenizer: Any) -> None:
    """Raise PruneError where the most tokens that the tokenizer names is no number that texts can be cut to."""
    limit = tokenizer.model_max_length  # some write it as 1e30
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not (limit >= 1 and limit % 1 == 0):
        raise PruneError(f"{named.name}: model_max_length: {shown(limit)}; allowed: a whole number above 0")


def check_fits(named: NamedModel, tokenizer: Any, model: torch.nn.Module) -> None:
    """Raise PruneError where the tokenizer's vocabulary is larger than the model's table of input embeddings.

    Tokens that were added to the vocabulary are left to `check_tokens`: some models (Gemma 3) have added tokens without
    an embedding, which no text needs. A padding token without an embedding is replaced by the unknown token, the end of
    a text or the first token: the model attends to no padding, but looks its embedding up.
    """
    n = embeddings(model)
    if n is None:
        return
    added = set(tokenizer.get_added_vocab())
    largest, token = max((i, token) for token, i in tokenizer.get_vocab().items() if token not in added)
    if largest >= n:
        raise PruneError(
            f"{named.name}: its tokenizer has tokens up to number {largest} ({token!r}); allowed: up to {n - 1}, "
            "the last that its weights have an embedding for",
            hint="the tokenizer is another model's: copy the model's own tokenizer files into the folder",
        )
    if tokenizer.pad_token_id is not None and tokenizer.pad_token_id >= n:
        others = (tokenizer.unk_token_id, tokenizer.eos_token_id, 0)
        safe = next(i for i in others if i is not None and i < n)
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(safe)


def check_tokens(model: torch.nn.Module, encoded: Encoded, rows: Rows) -> None:
    """Raise PruneError with file:line for the first row with a token that the model has no embedding for."""
    n = embeddings(model)
    if n is None or not (encoded.input_ids >= n).any():
        return
    at = int(np.flatnonzero(encoded.input_ids >= n)[0])
    sequence = int(np.searchsorted(encoded.offsets, at, "right")) - 1
    row = sequence if encoded.first is None else int(np.searchsorted(encoded.first, sequence, "right")) - 1
    raise PruneError(
        f"{rows.where(row)}: token number {encoded.input_ids[at]}; allowed: up to {n - 1}, "
        "the last that the model has an embedding for"
    )


def embeddings(model: Any) -> int | None:
    """How many tokens the model has input embeddings for; None for a model that does not say."""
    try:
        return int(model.get_input_embeddings().weight.shape[0])
    except (AttributeError, NotImplementedError):  # no table of its own, or none that transformers knows of
        return None
