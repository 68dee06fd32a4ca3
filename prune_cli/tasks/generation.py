"""Generation with causal language models: {"prompt", "response"}, {"messages"}, ... -> what the assistant says.

The formats of rows are in data/formats/, how they become tokens in conversations.py. The loss is on every turn of the
assistant, or with `loss_on` last on the last alone: it is the mean over all tokens of a row that are trained on, so
that a row weighs the same however long it is. The response of a conversation is its last turn, and the prompt all that
stands before it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.data import formats
from prune_cli.data.checking import LISTED
from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note
from prune_cli.runtime.running import running
from prune_cli.tasks import Judging, classification, conversations, tokens
from prune_cli.tasks.text_scores import rouge, text_scores
from prune_cli.tasks.tokens import BLOCK, OUTSIDE, Encoded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

    from prune_cli.tasks.vocabulary import Logits

AUTO_MODEL = "AutoModelForCausalLM"
PEFT_TASK = "CAUSAL_LM"
POOLING = "last"
TABLE_METRICS = ("loss", "rougeL", "exact_match")
OPTIONS: tuple[str, ...] = ("format", "loss_on", "chat_template", "max_new_tokens", "count_eos", "fits")
OFFERS: frozenset[str] = frozenset({"prompt"})
EXAMPLE: Row = {"prompt": "What is the capital of France?", "response": "Paris."}
LEAVE_OUT = "leave such rows out: prune select … --fits MODEL, as `prune guide methods` says"
TRIES = 1000  # rows that are drawn to find one with another response


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    return formats.check(row)


def text(row: Row, *, format: str = formats.AUTO) -> str:
    """The words of a row: all messages, or the texts that it has in place of them."""
    told = formats.conversation(row, format)
    said = [message["content"] for message in told.messages] if told.messages else list(told.plain or ())
    return " ".join(filter(None, said))


def response(row: Row, *, format: str = formats.AUTO) -> str:
    """What the assistant says in all turns that are trained on."""
    return formats.conversation(row, format).trained_text


def label_list(rows: Rows) -> list[Any]:
    """Empty: there are no labels."""
    return []


def label_indices(rows: Rows, labels: Sequence[Any]) -> np.ndarray:
    """int64 [n]: zeros, as there are no labels."""
    return np.zeros(len(rows), np.int64)


def flips(rows: Rows, positions: np.ndarray, rng: np.random.Generator) -> list[Row]:
    """The response of another row that says something else for each row at `positions`."""
    changes = []
    for row in (rows[i] for i in positions.tolist()):
        others = (rows[int(i)] for i in rng.integers(0, len(rows), TRIES))
        changed = (formats.exchanged(row, other, rows.format or formats.detected(row)) for other in others)
        found = next((change for change in changed if any(row[key] != value for key, value in change.items())), None)
        if found is None:
            raise PruneError(f"{rows.source}: of {TRIES} rows none has another response than row {row['id']}")
        changes.append(found)
    return changes


def encode(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[Any], *, loss_on: str = "all"
) -> Encoded:
    """Tokenise rows, special tokens included; `gold` is whether each token is trained on, bool [tokens].

    loss_on: every turn of the assistant (all), or the last alone. Rows are cut to `max_length` tokens, or to the
    tokenizer's own limit if that is lower: from the left, but for the token that begins all texts; so a conversation
    loses its first turns, and the last is never cut. A text without a prompt is cut from the right. Raises PruneError
    with file:line for a last turn that does not fit with one token before it, for a row that the chat template
    refuses, and for a template by which the assistant's turns cannot be told from the rest.
    """
    limit = min(max_length, tokenizer.model_max_length)
    flat, trained, unthought, untooled = tokens.Flat(limit), [], 0, 0
    refused: dict[int, int] = {}
    for block in _blocks(rows):
        kept, lost = [], []
        for i, row in zip(block, conversations.tokens(rows, block, tokenizer, loss_on=loss_on), strict=True):
            if _leaves_no_room(row, limit):
                refused[i] = len(row.ids) - row.response
                continue
            ids, gold = _cut(row, limit, tokenizer.bos_token_id)
            if not gold.any():
                told = f"{rows.where(i)}: cut to {limit} tokens, it has none left that is trained on"
                raise PruneError(told, hint=f"a larger --max-length, or {LEAVE_OUT}")
            kept.append(ids)
            trained.append(gold)
            lost.append(len(row.ids) - len(ids))
            unthought += row.unthought
            untooled += row.untooled
        flat.add(kept, lost)
    if refused:
        raise _refusal(rows, refused, max_length, tokenizer.model_max_length)
    for count, what in ((unthought, "thinking to train on"), (untooled, "tools, or calls of them")):
        if count:
            note(f"{rows.source}: of {count:,} of {len(rows):,} rows the chat template leaves out {what}")
    return flat.encoded(np.concatenate(trained))


def too_long(
    rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, *, loss_on: str = "all"
) -> dict[int, int]:
    """The rows that `encode` refuses for their length, by position: the tokens of each one's last turn.

    Those whose last turn does not fit with one token before it, and those that have nothing left to train on: of them
    all tokens.
    """
    limit, bos = min(max_length, tokenizer.model_max_length), tokenizer.bos_token_id
    found: dict[int, int] = {}
    for block in _blocks(rows):
        for i, row in zip(block, conversations.tokens(rows, block, tokenizer, loss_on=loss_on), strict=True):
            if _leaves_no_room(row, limit):
                found[i] = len(row.ids) - row.response
            elif not _cut(row, limit, bos)[1].any():
                found[i] = len(row.ids)
    return found


def _blocks(rows: Rows) -> Iterator[range]:
    return (range(start, min(start + BLOCK, len(rows))) for start in range(0, len(rows), BLOCK))


def _cut(row: conversations.Tokens, limit: int, bos: int | None) -> tuple[list[int], NDArray[np.bool_]]:
    """A row's last `limit` tokens, or of a text its first, and whether each is trained on."""
    ids = cut(row.ids, limit, bos) if row.prompted else row.ids[:limit]
    gold = row.trained[-len(ids) :] if row.prompted else row.trained[: len(ids)]
    gold[0] = False  # it follows nothing
    return ids, gold


def _leaves_no_room(row: conversations.Tokens, limit: int) -> bool:
    """Whether a row's last turn does not fit into `limit` tokens with one token before it."""
    return row.prompted and len(row.ids) - row.response >= limit


def _refusal(rows: Rows, lengths: Mapping[int, int], max_length: int, own: int) -> PruneError:
    """The error of responses that leave no room for a token of their prompts, and whose limit that is.

    lengths: tokens of the response by row. own: the tokenizer's limit.
    """
    limit, longest = min(max_length, own), max(lengths.values())
    of = f"max_length {max_length}" if max_length < own else f"the tokenizer's limit of {own} tokens"
    allowed = f"allowed: up to {limit - 1}, as {of} leaves one for the prompt"
    more = f"; {len(lengths) - 1:,} more are too long, of up to {longest:,} tokens" if len(lengths) > 1 else ""
    first, *others = lengths
    named = [f"{rows.where(i)}: response of {lengths[i]} tokens" for i in others[: LISTED - 1]]
    if unnamed := len(others) - len(named):
        named.append(f"{rows.source}: and {unnamed:,} more")
    return PruneError(
        f"{rows.where(first)}: response of {lengths[first]} tokens; {allowed}{more}",
        also=named,
        hint=_way_out(list(lengths.values()), max_length, own),
    )


def _way_out(lengths: Sequence[int], max_length: int, own: int) -> str:
    """What to do about responses of so many tokens."""
    longest, beyond = max(lengths), sum(length >= own for length in lengths)
    if not beyond:
        return f"--max-length {longest + 1} or more, or {LEAVE_OUT}"
    if beyond == len(lengths) or max_length >= own:
        return f"this model reads no more; {LEAVE_OUT}"
    return f"--max-length {own}, which is all that this model reads; {beyond:,} too long even so: {LEAVE_OUT}"


def cut(prompt: Sequence[int], room: int, bos: int | None) -> list[int]:
    """The last `room` tokens (one or more) of a prompt; its first stays if it is `bos`, which begins every text."""
    if len(prompt) <= room:
        return list(prompt)
    kept = 1 if prompt[0] == bos else 0
    return [*prompt[:kept], *prompt[len(prompt) - room + kept :]]


def collate(
    encoded: Encoded, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The rows at `positions` (b) as int64 tensors [b, t], t the longest of them, padded on the right.

    `labels` [b, t] hold the tokens that are trained on at their own positions (transformers' convention: the logits of
    the position before predict them), OUTSIDE elsewhere.
    """
    positions = np.asarray(positions, dtype=np.int64)
    batch = tokens.batch(encoded, positions, pad_token_id)
    trained = tokens.padded(tokens.parts(encoded.gold, encoded, positions), 0)[0]
    return tokens.to_device({**batch, "labels": np.where(trained, batch["input_ids"], OUTSIDE)}, device)


def answers(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The places [b, a] before each row's tokens that are trained on, and these tokens with labels before them [b, a].

    labels [b, t]. As in whole rows the logits of the place before predict a token: the first label is OUTSIDE, and the
    last place predicts nothing. a is one more than the most tokens that a row has to train on.
    """
    import torch

    spoken = labels != OUTSIDE
    counts = spoken.sum(1, keepdim=True)
    most = int(counts.max())
    order = torch.argsort(~spoken, dim=1, stable=True)[:, :most]  # their places, then any
    there = torch.arange(most, device=labels.device) < counts
    at, gold = labels.new_zeros(len(labels), most + 1), labels.new_full((len(labels), most + 1), OUTSIDE)
    at[:, :-1] = torch.where(there, order - 1, 0)
    gold[:, 1:] = torch.where(there, labels.gather(1, order), OUTSIDE)
    return at, gold


def _predicted(labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The places whose logits predict a token to train on, bool [b, t], and these m tokens [m]."""
    spoken = labels[:, 1:] != OUTSIDE
    at = spoken.new_zeros(labels.shape)
    at[:, :-1] = spoken
    return at, labels[:, 1:][spoken]


def _row_means(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Mean [b] over each row's tokens that are trained on of values [m]."""
    by_row = values.new_zeros(at.shape)
    by_row[at] = values
    return by_row.sum(1) / at.sum(1)


def losses(logits: Logits, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each row's tokens that are trained on, float32 [b], in nats. Differentiable.

    logits [b, t, v], worked out or not; labels int64 [b, t].
    """
    from prune_cli.tasks import vocabulary

    at, gold = _predicted(labels)
    return _row_means(vocabulary.cross_entropies(logits, at, gold), at)


def dynamics(logits: Logits, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Training dynamics of each row, means over its tokens that are trained on, float32 [b].

    logits [b, t, v], worked out or not; labels [b, t]. `logprob` log p(token), `correct` share of the tokens whose
    logit is the first largest, `margin` the token's logit − the largest other, `el2n` ‖softmax(logits) −
    onehot(token)‖₂ (Paul et al., 2021, arXiv 2107.07075, who have one answer a row), `improbability` 1 − p(token),
    `entropy` −Σ_v p(v) log p(v), `upd` σ(−log p(token)) max(0, 1 − entropy / log v) (Zhang et al. 2025, arXiv
    2503.11441). Higher `logprob`, `correct` and `margin` mean easier; higher `el2n`, `improbability` and `upd` harder;
    higher `entropy` less sure.
    """
    import torch

    from prune_cli.tasks import vocabulary

    at, gold = _predicted(labels)
    # a token is to its vocabulary what a row is to its labels
    parts = [classification.dynamics(*part) for part in vocabulary.parts(logits, at, gold)]
    return {name: _row_means(torch.cat([part[name] for part in parts]), at) for name in parts[0]}


def predictions(judging: Judging, positions: np.ndarray, logits: Logits, labels: torch.Tensor) -> list[dict[str, Any]]:
    """Each row's `reference`, the response; the `prediction` for its prompt; its `loss`, and over how many `tokens`.

    The response is the last turn of a conversation, and its prompt all that stands before it. `prompt_cut` is how many
    tokens the prompt had to lose before the model answered it. Where nothing is generated (max_new_tokens 0) there is
    no `prediction` and no `prompt_cut`; of a text without a prompt there is `loss` and `tokens` alone.
    """
    known: list[dict[str, Any]] = [
        {"loss": round(loss, 6), "tokens": count}
        for loss, count in zip(losses(logits, labels).tolist(), (labels != OUTSIDE).sum(1).tolist(), strict=True)
    ]
    told = [conversations.told(judging.rows, i) for i in positions.tolist()]
    if not told[0].prompted:  # nor are the others: they are of one format
        return known
    known = [{"reference": entry.response, **row} for entry, row in zip(told, known, strict=True)]
    if not judging.max_new_tokens:
        return known
    return [
        {"reference": row.pop("reference"), "prediction": said, **row, "prompt_cut": lost}
        for row, (said, lost) in zip(known, generate(judging, positions), strict=True)
    ]


def generate(judging: Judging, positions: np.ndarray) -> list[tuple[str, int]]:
    """What the model says to the prompts at `positions`, and how many of a prompt's tokens it was not shown.

    At each step the most probable token follows; special tokens are left out of the text.

    Prompts are cut from the left to `max_length` tokens, or to fewer where the model has too few positions for the
    prompt and the new tokens. The row's own response changes nothing. A text ends at the tokenizer's eos_token, or at
    another token that the model's settings name.
    """
    import torch
    from transformers import GenerationConfig

    tokenizer, most = judging.tokenizer, judging.max_new_tokens
    model: Any = judging.model
    config: Any = model.config
    limit = min(getattr(config, "max_position_embeddings", None) or math.inf, tokenizer.model_max_length)
    if most >= limit:
        raise PruneError(f"max_new_tokens: {most}; the model has positions for {limit}; fewer are allowed")
    room = int(min(limit - most, judging.max_length))
    whole = conversations.prompts(judging.rows, positions.tolist(), tokenizer)
    prompts = [cut(prompt, room, tokenizer.bos_token_id) for prompt in whole]
    pad = tokens.pad_token_id(tokenizer)
    ids, mask = tokens.padded(prompts, pad, left=True)
    greedy = GenerationConfig(
        max_new_tokens=most,
        do_sample=False,
        num_beams=1,
        repetition_penalty=1.0,
        pad_token_id=pad,
        eos_token_id=_endings(tokenizer, model) or None,
    )
    with running(model):
        made = model.generate(
            input_ids=torch.from_numpy(ids).to(judging.device),
            attention_mask=torch.from_numpy(mask.astype(np.int64)).to(judging.device),
            generation_config=greedy,
        )
    said = tokenizer.batch_decode(made[:, ids.shape[1] :], skip_special_tokens=True)
    return [(text, len(prompt) - len(kept)) for text, prompt, kept in zip(said, whole, prompts, strict=True)]


def _endings(tokenizer: Any, model: Any) -> list[int]:
    """The tokens that end a response: a chat model may end a turn with another token than a text."""
    endings: set[Any] = set()
    for token in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        endings |= set(token) if isinstance(token, list) else {token}
    return sorted(endings - {None})


def metrics(predictions: Sequence[Mapping[str, Any]], losses: np.ndarray, labels: Sequence[Any]) -> dict[str, Any]:
    """Scores of the model's losses and, where texts were generated, of the texts; losses [n].

    `loss` is the mean over rows, `token_loss` the mean over all tokens that are trained on, and `perplexity` the
    exponential of `token_loss`; lower is better. All others are means over rows, from text_scores.py; higher is better.
    `last_number` is the mean over the rows whose reference has a number, and left out where none has. `prompts_cut`
    counts the rows whose prompt was cut.
    """
    counts = np.array([row["tokens"] for row in predictions])
    token_loss = float(np.average(losses, weights=counts))
    values: dict[str, Any] = {
        "n": len(predictions),
        "loss": float(np.mean(losses, dtype=np.float64)),
        "token_loss": token_loss,
        "perplexity": math.exp(token_loss) if token_loss < math.log(sys.float_info.max) else math.inf,
    }
    if "prediction" not in predictions[0]:
        return values
    values["prompts_cut"] = sum(row["prompt_cut"] > 0 for row in predictions)
    if values["prompts_cut"]:
        note(
            f"{values['prompts_cut']} of {len(predictions)} prompts were cut from the left before generating; "
            "a larger --max-length or fewer --max-new-tokens leave more of them"
        )
    return values | text_scores([(row["reference"], row["prediction"]) for row in predictions])


def row_values(predictions: Sequence[Mapping[str, Any]], labels: Sequence[Any]) -> dict[str, NDArray[np.float64]]:
    """Each row's loss [n]; where texts were generated, its ROUGE-L and whether it is its reference [n]."""
    values = {"loss": np.array([row["loss"] for row in predictions], np.float64)}
    if "prediction" not in predictions[0]:
        return values
    pairs = [(row["reference"], row["prediction"]) for row in predictions]
    values["rougeL"] = np.array([score["rougeL"] for score in rouge(pairs)], np.float64)
    values["exact_match"] = np.array([reference.strip() == said.strip() for reference, said in pairs], np.float64)
    return values
