"""What the tasks share: rows as tokens, tokenising block by block, and padding. This file is not a task."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from prune_cli.data.readers import Row
    from prune_cli.data.rows import Rows

BLOCK = 250  # rows tokenised at a time: only the tokens of one block are ever Python lists
TYPES = "token_type_ids"
OUTSIDE = -100  # in `labels`: there is no answer at this place, so it adds nothing to the loss


@dataclass(frozen=True, eq=False)
class Encoded:
    """n tokenised rows with their gold answers.

    Their sequences are laid end to end: sequence j is `input_ids[offsets[j]:offsets[j + 1]]`. A row is one sequence,
    or, where there is `first`, the sequences from `first[i]` to `first[i + 1]`.
    """

    input_ids: NDArray[np.int32]  # [tokens]
    token_type_ids: NDArray[np.int32] | None  # [tokens], where the tokenizer makes them
    offsets: NDArray[np.int64]  # [sequences + 1]
    gold: NDArray[Any]  # int64 [n] or bool [tokens], the answers as the task's `encode` says
    lost: NDArray[np.int64]  # [sequences], tokens that were cut off
    limit: int  # tokens that sequences were cut to
    first: NDArray[np.int64] | None = None  # [n + 1]

    @property
    def lost_by_row(self) -> NDArray[np.int64]:
        """int64 [n]: tokens that each row lost, over all its sequences."""
        return self.lost if self.first is None else np.add.reduceat(self.lost, self.first[:-1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """int64 [n]: tokens that a row takes in a batch of rows of its length, special tokens included.

        Batches are sorted and limited by it. A row of several sequences counts as many as the row with the most.
        """
        if self.first is None:
            return self.longest
        widest: np.int64 = np.diff(self.first).max()
        return self.longest * widest

    @property
    def longest(self) -> NDArray[np.int64]:
        """int64 [n]: tokens of a row's longest sequence, which the model must have positions for."""
        tokens: NDArray[np.int64] = np.diff(self.offsets)
        return tokens if self.first is None else np.maximum.reduceat(tokens, self.first[:-1])


class Flat:
    """Token sequences laid end to end, added block by block. limit: tokens that they were cut to."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._ids: list[NDArray[np.int32]] = []
        self._types: list[NDArray[np.int32]] = []
        self._lengths = array("q")
        self._lost = array("q")

    def add(
        self, ids: Sequence[Sequence[int]], lost: Iterable[int], types: Sequence[Sequence[int]] | None = None
    ) -> None:
        """Append sequences of token ids and, where the tokenizer makes them, of token types.

        lost: how many tokens were cut off each.
        """
        self._lengths.extend(map(len, ids))
        self._lost.extend(lost)
        self._ids.append(np.fromiter(chain.from_iterable(ids), np.int32))
        if types is not None:
            self._types.append(np.fromiter(chain.from_iterable(types), np.int32))

    @property
    def empty(self) -> NDArray[np.int64]:
        """Positions of the sequences without a token, ascending."""
        return np.flatnonzero(np.asarray(self._lengths) == 0)

    def encoded(self, gold: NDArray[Any], first: NDArray[np.int64] | None = None) -> Encoded:
        """All sequences, as rows with their gold answers."""
        offsets = np.concatenate([[0], np.cumsum(self._lengths)]).astype(np.int64)
        types = np.concatenate(self._types) if self._types else None
        lost = np.array(self._lost, np.int64)
        return Encoded(np.concatenate(self._ids), types, offsets, gold, lost, self._limit, first)


def blocks(rows: Rows, alike: Callable[[Row], bool]) -> Iterator[list[Row]]:
    """The rows in order, at most BLOCK at a time; `alike` is the same for all rows of a block."""
    for start in range(0, len(rows), BLOCK):
        for _, block in groupby(rows[start : start + BLOCK], key=alike):
            yield list(block)


def tokenised(
    texts: Iterable[tuple[list[str], list[str] | None]], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> Flat:
    """Tokenise blocks of texts, each with its second texts or None, special tokens included.

    Sequences are cut to `max_length` tokens, or to the tokenizer's own limit if that is lower; the longer text of a
    pair is cut first. Raises PruneError for a limit that leaves no room for text.
    """
    limit = min(max_length, tokenizer.model_max_length)
    flat = Flat(limit)
    for first, second in texts:
        special = tokenizer.num_special_tokens_to_add(pair=second is not None)
        if max_length <= special:
            raise PruneError(f"max_length: {max_length}; above {special} is allowed, the number of special tokens")
        tokens: Any = tokenizer(
            first,
            second,
            truncation=True,
            max_length=limit,
            return_attention_mask=False,
        )
        flat.add(tokens["input_ids"], _lost(tokens["input_ids"], first, second, tokenizer, limit), tokens.get(TYPES))
    return flat


def _lost(
    ids: list[list[int]], first: list[str], second: list[str] | None, tokenizer: Any, limit: int
) -> NDArray[np.int64]:
    """int64 [n]: how many tokens cut sequences lack; those as long as the limit are tokenised again in full."""
    lost = np.zeros(len(ids), np.int64)
    full = [j for j, sequence in enumerate(ids) if len(sequence) == limit]
    if full:
        pairs = [second[j] for j in full] if second else None
        whole = tokenizer([first[j] for j in full], pairs, return_attention_mask=False, verbose=False)["input_ids"]
        lost[full] = [len(sequence) - limit for sequence in whole]
    return lost


def tell_cut(encoded: Encoded, rows: Rows, own: int) -> dict[str, int]:
    """Tell on stderr how many rows were cut, where any were; the same as facts for a manifest.

    own: the tokenizer's limit. Facts: `rows` that were cut `of` all, the number of `tokens` that they lost, and
    `max_length`, the limit that held.
    """
    lost = encoded.lost_by_row
    facts = {"rows": int((lost > 0).sum()), "of": len(lost), "tokens": int(lost.sum()), "max_length": encoded.limit}
    if facts["rows"]:
        cure = "the tokenizer's limit" if encoded.limit >= own else "a larger --max-length keeps more"
        note(
            f"{rows.source}: {facts['rows']:,} of {facts['of']:,} rows were cut to {encoded.limit:,} tokens, "
            f"and lost {facts['tokens']:,}; {cure}"
        )
    return facts


def padded(
    sequences: Sequence[Sequence[int] | NDArray[Any]], fill: int, *, left: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Values int64 [b, t] with `fill` behind them (left: before them), and the mask [b, t] of what is not padding."""
    lengths = np.array([[len(sequence)] for sequence in sequences])
    columns = np.arange(lengths.max())
    mask = columns[::-1] < lengths if left else columns < lengths
    values = np.full(mask.shape, fill, np.int64)
    values[mask] = np.concatenate(sequences)
    return values, mask


def batch(encoded: Encoded, sequences: NDArray[np.int64], pad_token_id: int) -> dict[str, NDArray[np.int64]]:
    """A model's inputs [b, t] for the sequences at these positions (b), t the longest of them.

    Padding is on the right, whatever the tokenizer's side: the positions of a row's tokens do not depend on the batch.
    """
    ids, mask = padded(parts(encoded.input_ids, encoded, sequences), pad_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask.astype(np.int64)}
    if encoded.token_type_ids is not None:
        inputs["token_type_ids"] = padded(parts(encoded.token_type_ids, encoded, sequences), 0)[0]
    return inputs


def parts(flat: NDArray[Any], encoded: Encoded, sequences: NDArray[np.int64]) -> list[NDArray[Any]]:
    """What `flat` [tokens] holds of the sequences at these positions."""
    return [flat[encoded.offsets[j] : encoded.offsets[j + 1]] for j in sequences]


def to_device(arrays: dict[str, NDArray[np.int64]], device: torch.device | str) -> dict[str, torch.Tensor]:
    """The arrays of a batch as tensors on the device."""
    import torch

    return {name: torch.from_numpy(values).to(device) for name, values in arrays.items()}


def pad_token_id(tokenizer: Any) -> int:
    """The id that fills up short sequences; 0 where the tokenizer has none, as the model attends to none of it."""
    return int(tokenizer.pad_token_id or 0)
