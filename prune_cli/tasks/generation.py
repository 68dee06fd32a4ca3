"""Generation with causal language models: {"prompt", "response"} or {"messages"}, the response being what is learnt.

The response of a conversation is its last message; what stands before it is the prompt. Where the tokenizer has a chat
template both forms go through it; elsewhere a response follows its prompt as it is, with the end-of-sequence token
behind it. A loss is the mean over the response's tokens, so that a row weighs the same however long it is.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.data.readers import Row
from prune_cli.data.rows import Rows, described, keys_of
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note
from prune_cli.tasks import Judging

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase

AUTO_MODEL = "AutoModelForCausalLM"
PEFT_TASK = "CAUSAL_LM"
POOLING = "last"
TABLE_METRICS = ("loss", "rougeL", "exact_match")
OPTIONS: tuple[str, ...] = ("max_new_tokens",)
OFFERS: frozenset[str] = frozenset({"prompt"})
ROLES = ("system", "user", "assistant")
BLOCK = 250  # rows tokenised at a time: only a block's tokens are ever Python lists
OUTSIDE = -100  # the label of a token that is not the response's
PART = 256  # tokens whose probabilities over the vocabulary are held at a time

_FORMS = '"prompt" and "response", or "messages"'
_NUMBER = re.compile(r"(?:(?<!\w)-)?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])(?:\.[0-9]+)?|[0-9]*\.?[0-9]+)")


@dataclass(frozen=True, eq=False)
class Encoded:
    """n tokenised rows laid end to end: row i is `input_ids[offsets[i]:offsets[i + 1]]`.

    Its first `prompts[i]` tokens, one or more, are the prompt; the others, one or more, the response.
    """

    input_ids: np.ndarray  # int32 [tokens]
    offsets: np.ndarray  # int64 [n + 1]
    prompts: np.ndarray  # int64 [n]

    @property
    def lengths(self) -> np.ndarray:
        """int64 [n]: tokens per row, special tokens included."""
        return np.diff(self.offsets)

    @property
    def longest(self) -> np.ndarray:
        """The same: a row is one sequence."""
        return self.lengths


def check(row: Row) -> str | None:
    """The problem of a row in words, with what is allowed; None if there is none."""
    if "messages" in row:
        both = [key for key in ("prompt", "response") if key in row]
        if both:
            return f'the row has "messages" and "{both[0]}"; allowed: {_FORMS}'
        return _messages_problem(row["messages"])
    for key in ("prompt", "response"):
        if key not in row:
            return f'no "{key}"; the row has: {keys_of(row)}; allowed: {_FORMS}'
        if problem := _text_problem(key, row[key]):
            return problem
    return None


def _messages_problem(messages: Any) -> str | None:
    if not isinstance(messages, list):
        return f"{described('messages', messages)}; allowed: a list of objects with role and content"
    for j, message in enumerate(messages):
        name = f"message {j + 1}"
        if not isinstance(message, dict):
            return f"{described(name, message)}; allowed: an object with role and content"
        for key in ("role", "content"):
            if key not in message:
                return f'{name} has no "{key}"; allowed: an object with role and content'
        if message["role"] not in ROLES:
            return f"{name} has the role {message['role']!r}; allowed: {', '.join(ROLES)}"
        if problem := _text_problem(f"content of {name}", message["content"]):
            return problem
    if len(messages) < 2:
        return f"messages has {len(messages)}; allowed: two or more, the last by the assistant"
    if messages[-1]["role"] != "assistant":
        return (
            f"the last message has the role {messages[-1]['role']}; allowed: assistant, whose message is the response"
        )
    return None


def _text_problem(name: str, value: Any) -> str | None:
    if isinstance(value, str) and value.strip():
        return None
    problem = f"{name} is blank" if isinstance(value, str) else described(name, value)
    return f"{problem}; allowed: a string that is not blank"


def conversation(row: Row) -> list[dict[str, str]]:
    """The row as messages of a role and a content, the response last."""
    if "messages" in row:
        return [{"role": message["role"], "content": message["content"]} for message in row["messages"]]
    return [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]


def response(row: Row) -> str:
    """The response: the last message."""
    return conversation(row)[-1]["content"]


def text(row: Row) -> str:
    """The words of a row: all messages."""
    return " ".join(message["content"] for message in conversation(row))


def label_list(rows: Rows) -> list[Any]:
    """Empty: there are no labels."""
    return []


def label_indices(rows: Rows, labels: Sequence[Any]) -> np.ndarray:
    """int64 [n]: zeros, there being no labels that could be wrong."""
    return np.zeros(len(rows), np.int64)


def encode(rows: Rows, tokenizer: PreTrainedTokenizerBase, max_length: int, labels: Sequence[Any]) -> Encoded:
    """Tokenise prompts and responses, special tokens included.

    Rows are cut to `max_length` tokens, or to the tokenizer's own limit if that is lower: the prompt from the left,
    but for a token that begins all texts; the response never. Raises PruneError with file:line for a response that
    does not fit, with one token before it, and for a row that the chat template refuses or takes apart.
    """
    max_length = min(max_length, tokenizer.model_max_length)
    ids, lengths, prompts = [], [], []
    for start in range(0, len(rows), BLOCK):
        kept = []
        block = range(start, min(start + BLOCK, len(rows)))
        for i, (prompt, answer) in zip(block, _tokens(rows, block, tokenizer), strict=True):
            if len(answer) >= max_length:
                raise PruneError(
                    f"{rows.where(i)}: response of {len(answer)} tokens; allowed: up to {max_length - 1}, "
                    "which leaves one for the prompt"
                )
            prompt = cut(prompt, max_length - len(answer), tokenizer.bos_token_id)
            kept.append([*prompt, *answer])
            prompts.append(len(prompt))
        lengths.append(np.array([len(row) for row in kept], np.int64))
        ids.append(np.fromiter(chain.from_iterable(kept), np.int32))
    offsets = np.concatenate([[0], np.cumsum(np.concatenate(lengths))])
    return Encoded(np.concatenate(ids), offsets, np.array(prompts, np.int64))


def _tokens(rows: Rows, positions: Sequence[int], tokenizer: Any) -> list[tuple[list[int], list[int]]]:
    """Tokens of prompt and response of the rows at `positions`, uncut, none of them empty."""
    some = [rows[i] for i in positions]
    if tokenizer.chat_template:
        texts = [_rendered(tokenizer, conversation(row), rows.where(i)) for i, row in zip(positions, some, strict=True)]
        prompts, wholes = (
            tokenizer([pair[j] for pair in texts], add_special_tokens=False)["input_ids"] for j in range(2)
        )
        for i, prompt, whole in zip(positions, prompts, wholes, strict=True):
            if not prompt or len(whole) <= len(prompt) or whole[: len(prompt)] != prompt:
                raise PruneError(
                    f"{rows.where(i)}: through the chat template the prompt's tokens are not those that the whole "
                    "conversation begins with, so there is no telling where the response starts"
                )
        return [(prompt, whole[len(prompt) :]) for prompt, whole in zip(prompts, wholes, strict=True)]
    if tokenizer.eos_token_id is None:
        raise PruneError(
            "the tokenizer has no eos_token, by which a response ends, and no chat template; one is needed"
        )
    for i, row in zip(positions, some, strict=True):
        if "messages" in row:
            raise PruneError(
                f'{rows.where(i)}: "messages", but the tokenizer has no chat template; allowed: "prompt" and "response"'
            )
    prompts = tokenizer([row["prompt"] for row in some])["input_ids"]
    answers = tokenizer([row["response"] for row in some], add_special_tokens=False)["input_ids"]
    for i, prompt in zip(positions, prompts, strict=True):
        if not prompt:
            raise PruneError(f"{rows.where(i)}: prompt gives no token; allowed: at least one token")
    return [(prompt, [*answer, tokenizer.eos_token_id]) for prompt, answer in zip(prompts, answers, strict=True)]


def _rendered(tokenizer: Any, messages: list[dict[str, str]], where: str) -> tuple[str, str]:
    """The prompt, up to where the assistant begins to speak, and the whole conversation, by the chat template."""
    from jinja2 import TemplateError

    try:
        prompt = tokenizer.apply_chat_template(messages[:-1], tokenize=False, add_generation_prompt=True)
        return prompt, tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError as failure:
        raise PruneError(f"{where}: the chat template refuses the messages: {failure}") from failure


def cut(prompt: Sequence[int], room: int, bos: int | None) -> list[int]:
    """The last `room` tokens (one or more) of a prompt; its first stays if it is `bos`, which begins every text."""
    if len(prompt) <= room:
        return list(prompt)
    kept = 1 if prompt[0] == bos else 0
    return [*prompt[:kept], *prompt[len(prompt) - room + kept :]]


def _padded(rows: Sequence[Sequence[int] | NDArray[Any]], fill: int, *, left: bool) -> tuple[np.ndarray, np.ndarray]:
    """Tokens int64 [b, t], and the mask [b, t] of those that are not padding."""
    lengths = np.array([[len(row)] for row in rows])
    columns = np.arange(lengths.max())
    mask = columns[::-1] < lengths if left else columns < lengths
    ids = np.full(mask.shape, fill, np.int64)
    ids[mask] = np.concatenate(rows)
    return ids, mask


def collate(
    encoded: Encoded, positions: Sequence[int] | np.ndarray, pad_token_id: int, device: torch.device | str
) -> dict[str, torch.Tensor]:
    """The rows at `positions` (b) as int64 tensors [b, t], t the longest of them, padded on the right.

    `labels` [b, t] hold the response's tokens at their own positions (transformers' convention: the logits of the
    position before are about them), OUTSIDE elsewhere.
    """
    import torch

    positions = np.asarray(positions, dtype=np.int64)
    ids, mask = _padded(
        [encoded.input_ids[encoded.offsets[i] : encoded.offsets[i + 1]] for i in positions], pad_token_id, left=False
    )
    spoken = mask & (np.arange(mask.shape[1]) >= encoded.prompts[positions, None])
    batch = {
        "input_ids": ids,
        "attention_mask": mask.astype(np.int64),
        "labels": np.where(spoken, ids, OUTSIDE),
    }
    return {key: torch.from_numpy(value).to(device) for key, value in batch.items()}


def _spoken(logits: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Logits [m, v] about the batch's m response tokens, these tokens [m], and where they are, bool [b, t − 1]."""
    gold = labels[:, 1:]
    at = gold != OUTSIDE
    return logits[:, :-1][at], gold[at], at


def _row_means(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Mean [b] over each row's response tokens of values [m]."""
    laid = values.new_zeros(at.shape)
    laid[at] = values
    return laid.sum(1) / at.sum(1)


def losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of each row's response tokens, float32 [b], in nats. Differentiable.

    logits [b, t, v], labels int64 [b, t].
    """
    from torch.nn.functional import cross_entropy

    about, gold, at = _spoken(logits, labels)
    return _row_means(cross_entropy(about.float(), gold, reduction="none"), at)


def dynamics(logits: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    """Training dynamics of each row, means over its response tokens, float32 [b]; logits [b, t, v], labels [b, t].

    `logprob` log p(token), `correct` share of the tokens whose logit is the first largest, `margin` the token's logit
    − the largest other, `el2n` ‖softmax(logits) − onehot(token)‖₂ (Paul et al. 2021, arXiv 2107.07075, who have one
    answer a row). Higher `logprob`, `correct` and `margin` mean easier; higher `el2n` harder.
    """
    import torch

    from prune_cli.tasks import classification

    about, gold, at = _spoken(logits.detach(), labels)
    parts = [
        classification.dynamics(*part) for part in zip(about.split(PART), gold.split(PART), strict=True)
    ]  # a token is to its vocabulary what a row is to its labels
    return {name: _row_means(torch.cat([part[name] for part in parts]), at) for name in parts[0]}


def predictions(
    judging: Judging, positions: np.ndarray, logits: torch.Tensor, labels: torch.Tensor
) -> list[dict[str, Any]]:
    """Each row's `reference`, the response; the `prediction` for its prompt; `loss`, and the `tokens` it is of.

    `prompt_cut` is how many tokens the prompt had to lose before its response was generated. Without new tokens to
    generate there is neither that nor a `prediction`.
    """
    found = [
        {"reference": response(judging.rows[int(i)]), "loss": round(loss, 6), "tokens": tokens}
        for i, loss, tokens in zip(
            positions, losses(logits, labels).tolist(), (labels != OUTSIDE).sum(1).tolist(), strict=True
        )
    ]
    if not judging.opts.max_new_tokens:
        return found
    return [
        {"reference": row.pop("reference"), "prediction": said, **row, "prompt_cut": lost}
        for row, (said, lost) in zip(found, generate(judging, positions), strict=True)
    ]


def generate(judging: Judging, positions: np.ndarray) -> list[tuple[str, int]]:
    """What the model says to the prompts at `positions`, and how many of a prompt's tokens it was not shown.

    The most probable token at each step; special ones are left out of the text.

    Prompts are cut from the left to `max_length` tokens, fewer where the model's positions do not hold them and the new
    tokens; the row's own response has no say. It ends at the tokenizer's eos_token or another that the model ends with.
    """
    import torch
    from transformers import GenerationConfig

    from prune_cli.models import load as models

    tokenizer, most = judging.tokenizer, judging.opts.max_new_tokens
    model: Any = judging.model
    config: Any = model.config
    limit = min(getattr(config, "max_position_embeddings", None) or math.inf, tokenizer.model_max_length)
    if most >= limit:
        raise PruneError(f"max_new_tokens: {most}; the model has positions for {limit}; fewer are allowed")
    room = int(min(limit - most, judging.opts.max_length))
    whole = [prompt for prompt, _ in _tokens(judging.rows, positions.tolist(), tokenizer)]
    prompts = [cut(prompt, room, tokenizer.bos_token_id) for prompt in whole]
    pad = models.pad_token_id(tokenizer)
    ids, mask = _padded(prompts, pad, left=True)
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
    """Tokens that end a response: a chat model's turns may end otherwise than its texts."""
    found: set[Any] = set()
    for token in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        found |= set(token) if isinstance(token, list) else {token}
    return sorted(found - {None})


def metrics(predictions: Sequence[Mapping[str, Any]], losses: np.ndarray, labels: Sequence[Any]) -> dict[str, Any]:
    """Scores of what the model finds likely and, where it generated, of what it says; losses [n].

    `loss` is the mean over rows, `perplexity` the exponential of the mean over all response tokens. `rouge1`, `rouge2`
    and `rougeL` are F1 (Lin 2004, ACL W04-1013; words stemmed, and of the Latin alphabet alone, as the library
    rouge-score has them), `exact_match` is the share of predictions that are the reference but for white space around
    it, all means over rows. `last_number` is the share of rows whose prediction's last number is the reference's, of
    the rows whose reference has one; left out where none has. `prompts_cut` counts the rows whose prompt was cut.
    """
    tokens = np.array([row["tokens"] for row in predictions])
    found: dict[str, Any] = {
        "n": len(predictions),
        "loss": float(np.mean(losses, dtype=np.float64)),
        "perplexity": math.exp(np.average(losses, weights=tokens)),
    }
    if "prediction" not in predictions[0]:
        return found
    found["prompts_cut"] = sum(row["prompt_cut"] > 0 for row in predictions)
    if found["prompts_cut"]:
        note(
            f"{found['prompts_cut']} of {len(predictions)} prompts were cut from the left before generating; "
            "a larger --max-length or fewer --max-new-tokens leave more of them"
        )
    pairs = [(row["reference"], row["prediction"]) for row in predictions]
    found |= rouge(pairs)
    found["exact_match"] = float(np.mean([reference.strip() == said.strip() for reference, said in pairs]))
    numbers = [
        (number, last_number(said)) for reference, said in pairs if (number := last_number(reference)) is not None
    ]
    if numbers:
        found["last_number"] = float(np.mean([wanted == given for wanted, given in numbers]))
    return found


def rouge(pairs: Sequence[tuple[str, str]]) -> dict[str, float]:
    """Mean F1 of ROUGE-1, ROUGE-2 and ROUGE-L over pairs of reference and prediction."""
    from rouge_score.rouge_scorer import RougeScorer

    names = ("rouge1", "rouge2", "rougeL")
    scorer = RougeScorer(names, use_stemmer=True)
    scores = [scorer.score(reference, said) for reference, said in pairs]
    return {name: float(np.mean([score[name].fmeasure for score in scores])) for name in names}


def last_number(text: str) -> Decimal | None:
    """The last number of a text, as of a worked problem's answer; `1,234` is 1234. None where there is none."""
    found = _NUMBER.findall(text)
    return Decimal(found[-1].replace(",", "")) if found else None
