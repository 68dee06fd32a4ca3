"""Generation with causal language models: {"prompt", "response"}, {"messages"}, ... -> the response.

The formats of rows are in data/formats/. The response of a conversation is its last message; what stands before it is
the prompt. Where the tokenizer has a chat template every row goes through it; elsewhere the response follows its prompt
as it is, and the end-of-sequence token follows the response. A loss is the mean over the response's tokens, so that a
row weighs the same however long it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli.data import formats
from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note
from prune_cli.tasks import Judging, chat, classification, tokens
from prune_cli.tasks.tokens import BLOCK, OUTSIDE, Encoded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

AUTO_MODEL = "AutoModelForCausalLM"
PEFT_TASK = "CAUSAL_LM"
POOLING = "last"
TABLE_METRICS = ("loss", "rougeL", "exact_match")
OPTIONS: tuple[str, ...] = ("max_new_tokens", "count_eos")
OFFERS: frozenset[str] = frozenset({"prompt"})
EXAMPLE: Row = {"prompt": "What is the capital of France?", "response": "Paris."}
PART = 256  # tokens whose probabilities over the vocabulary are held at a time

_NUMBER = re.compile(r"(?:(?<!\w)-)?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]*\.?[0-9]+)")


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    return formats.check(row)


def response(row: Row) -> str:
    """The response: the last message."""
    said: str = formats.conversation(row)[-1]["content"]
    return said


def text(row: Row) -> str:
    """The words of a row: all messages."""
    return " ".join(message["content"] for message in formats.conversation(row))


def label_list(rows: Rows) -> list[Any]:
    """Empty: there are no labels."""
    return []


def label_indices(rows: Rows, labels: Sequence[Any]) -> np.ndarray:
    """int64 [n]: zeros, as there are no labels."""
    return np.zeros(len(rows), np.int64)


def encode(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[Any]) -> Encoded:
    """Tokenise prompts and responses, special tokens included; `gold` is how many tokens the prompt has [n].

    Rows are cut to `max_length` tokens, or to the tokenizer's own limit if that is lower. The prompt is cut from the
    left, but keeps the token that begins all texts; the response is never cut. Raises PruneError with file:line for a
    response that does not fit with one token before it, for a row that the chat template refuses, and for a template
    by which the response cannot be told from its prompt.
    """
    limit = min(max_length, tokenizer.model_max_length)
    flat, prompts = tokens.Flat(limit), []
    for start in range(0, len(rows), BLOCK):
        kept, lost = [], []
        block = range(start, min(start + BLOCK, len(rows)))
        for i, (prompt, answer) in zip(block, _tokens(rows, block, tokenizer), strict=True):
            if len(answer) >= limit:
                raise _too_long(rows.where(i), len(answer), max_length, limit)
            begun = cut(prompt, limit - len(answer), tokenizer.bos_token_id)
            kept.append([*begun, *answer])
            prompts.append(len(begun))
            lost.append(len(prompt) - len(begun))
        flat.add(kept, lost)
    return flat.encoded(np.array(prompts, np.int64))


def _too_long(where: str, length: int, max_length: int, limit: int) -> PruneError:
    """The error of a response that leaves no room for a token of its prompt, and whose limit that is."""
    of = f"max_length {max_length}" if limit == max_length else f"the tokenizer's limit of {limit} tokens"
    return PruneError(
        f"{where}: response of {length} tokens; allowed: up to {limit - 1}, as {of} leaves one for the prompt",
        hint=f"--max-length {length + 1} or more" if limit == max_length else None,
    )


def _tokens(rows: Rows, positions: Sequence[int], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Tokens of prompt and response of the rows at `positions`, uncut, none of them empty."""
    some = [rows[i] for i in positions]
    if tokenizer.chat_template:
        texts = [
            chat.rendered(tokenizer, formats.conversation(row), rows.where(i))
            for i, row in zip(positions, some, strict=True)
        ]
        prompts, wholes = (
            tokenizer([pair[j] for pair in texts], add_special_tokens=False)["input_ids"] for j in range(2)
        )
        for i, prompt, whole in zip(positions, prompts, wholes, strict=True):
            if not prompt or len(whole) <= len(prompt) or whole[: len(prompt)] != prompt:
                raise PruneError(
                    f"{rows.where(i)}: through the chat template the prompt's tokens are not those that the whole "
                    "conversation begins with, so it is unknown where the response starts"
                )
        return [(prompt, whole[len(prompt) :]) for prompt, whole in zip(prompts, wholes, strict=True)]
    if tokenizer.eos_token_id is None:
        raise PruneError(
            "the tokenizer has neither an eos_token, which ends a response, nor a chat template; one is needed"
        )
    for i, row in zip(positions, some, strict=True):
        if not (known := formats.of(row)).PLAIN:
            raise PruneError(
                f'{rows.where(i)}: "{known.KEYS[0]}", but the tokenizer has no chat template; '
                f"allowed: {formats.allowed(plain=True)}"
            )
    texts = [(prompt["content"], answer["content"]) for prompt, answer in map(formats.conversation, some)]
    prompts = tokenizer([prompt for prompt, _ in texts])["input_ids"]
    answers = tokenizer([answer for _, answer in texts], add_special_tokens=False)["input_ids"]
    for i, prompt in zip(positions, prompts, strict=True):
        if not prompt:
            raise PruneError(f"{rows.where(i)}: prompt gives no token; allowed: at least one token")
    return [(prompt, [*answer, tokenizer.eos_token_id]) for prompt, answer in zip(prompts, answers, strict=True)]


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

    `labels` [b, t] hold the response's tokens at their own positions (transformers' convention: the logits of the
    position before predict them), OUTSIDE elsewhere.
    """
    positions = np.asarray(positions, dtype=np.int64)
    batch = tokens.batch(encoded, positions, pad_token_id)
    ids = batch["input_ids"]
    answer = (batch["attention_mask"] == 1) & (np.arange(ids.shape[1]) >= encoded.gold[positions, None])
    return tokens.to_device({**batch, "labels": np.where(answer, ids, OUTSIDE)}, device)


def _answers(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [m, v] that predict the batch's m response tokens, these tokens [m], their places, bool [b, t − 1]."""
    gold = labels[:, 1:]
    at = gold != OUTSIDE
    return logits[:, :-1][at], gold[at], at


def _row_means(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Mean [b] over each row's response tokens of values [m]."""
    by_row = values.new_zeros(at.shape)
    by_row[at] = values
    return by_row.sum(1) / at.sum(1)


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each row's response tokens, float32 [b], in nats. Differentiable.

    logits [b, t, v], labels int64 [b, t].
    """
    from torch.nn.functional import cross_entropy

    logits, gold, at = _answers(logits, labels)
    return _row_means(cross_entropy(logits.float(), gold, reduction="none"), at)


def dynamics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Training dynamics of each row, means over its response tokens, float32 [b]; logits [b, t, v], labels [b, t].

    `logprob` log p(token), `correct` share of the tokens whose logit is the first largest, `margin` the token's logit
    − the largest other, `el2n` ‖softmax(logits) − onehot(token)‖₂ (Paul et al. 2021, arXiv 2107.07075, who have one
    answer a row). Higher `logprob`, `correct` and `margin` mean easier; higher `el2n` harder.
    """
    import torch

    logits, gold, at = _answers(logits.detach(), labels)
    parts = [
        classification.dynamics(*part) for part in zip(logits.split(PART), gold.split(PART), strict=True)
    ]  # a token is to its vocabulary what a row is to its labels
    return {name: _row_means(torch.cat([part[name] for part in parts]), at) for name in parts[0]}


def predictions(
    judging: Judging, positions: np.ndarray, logits: torch.Tensor, labels: torch.Tensor
) -> list[dict[str, Any]]:
    """Each row's `reference`, the response; the `prediction` for its prompt; its `loss`, and over how many `tokens`.

    `prompt_cut` is how many tokens the prompt had to lose before the model answered it. Where nothing is generated
    (max_new_tokens 0) there is no `prediction` and no `prompt_cut`.
    """
    known = [
        {"reference": response(judging.rows[int(i)]), "loss": round(loss, 6), "tokens": count}
        for i, loss, count in zip(
            positions, losses(logits, labels).tolist(), (labels != OUTSIDE).sum(1).tolist(), strict=True
        )
    ]
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
    whole = [prompt for prompt, _ in _tokens(judging.rows, positions.tolist(), tokenizer)]
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

    `loss` is the mean over rows, `perplexity` the exponential of the mean over all response tokens; lower is better.
    All others are means over rows; higher is better. `rouge1`, `rouge2` and `rougeL` are F1 (Lin 2004, ACL W04-1013;
    words are stemmed, and only those of the Latin alphabet count, as in the library rouge-score). `exact_match` is the
    share of predictions that equal the reference, white space around it aside. `last_number` is the share of rows whose
    prediction ends with the same number as the reference, among rows whose reference has a number; it is left out where
    none has. `prompts_cut` counts the rows whose prompt was cut.
    """
    counts = np.array([row["tokens"] for row in predictions])
    scores: dict[str, Any] = {
        "n": len(predictions),
        "loss": float(np.mean(losses, dtype=np.float64)),
        "perplexity": math.exp(np.average(losses, weights=counts)),
    }
    if "prediction" not in predictions[0]:
        return scores
    scores["prompts_cut"] = sum(row["prompt_cut"] > 0 for row in predictions)
    if scores["prompts_cut"]:
        note(
            f"{scores['prompts_cut']} of {len(predictions)} prompts were cut from the left before generating; "
            "a larger --max-length or fewer --max-new-tokens leave more of them"
        )
    pairs = [(row["reference"], row["prediction"]) for row in predictions]
    scores |= rouge(pairs)
    scores["exact_match"] = float(np.mean([reference.strip() == said.strip() for reference, said in pairs]))
    numbers = [
        (number, last_number(said)) for reference, said in pairs if (number := last_number(reference)) is not None
    ]
    if numbers:
        scores["last_number"] = float(np.mean([wanted == given for wanted, given in numbers]))
    return scores


def rouge(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L over pairs of reference and prediction."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(reference, said) for reference, said in pairs]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in names}


def last_number(text: str) -> Decimal | None:
    """The last number of a text, which in a worked problem is the answer; `1,234` is 1234. None where there is none."""
    numbers = _NUMBER.findall(text)
    return Decimal(numbers[-1].replace(",", "")) if numbers else None
