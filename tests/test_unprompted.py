"""The response without its prompt, against a plain forward of each response by itself."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from prune_cli.errors import PruneError
from prune_cli.represent.kinds.unprompted import Unprompted, without_prompt
from prune_cli.represent.observe import Batch
from tests.conftest import Prune
from tests.test_gradient import setup_of

PROMPTS = [[5, 6, 7], [8], [9, 9, 9, 9, 9, 9]]
RESPONSES = [[11, 12, 13, 2], [14], [15, 16]]


def token_losses(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Mean cross entropy of the labelled tokens, each by the logits before it: [b]."""
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].mT, labels[:, 1:], reduction="none")
    return losses.sum(1) / (labels[:, 1:] != -100).sum(1)


TASK: Any = SimpleNamespace(losses=token_losses)


@pytest.fixture(scope="module")
def model() -> Any:
    """A GPT-2 of random weights (2 layers, 16 features), whose texts begin with token 1."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=2)
    return GPT2LMHeadModel(config).eval()


def batch() -> Batch:
    """Prompts and responses, padded on the right; labels on the response alone."""
    length = max(len(p) + len(r) for p, r in zip(PROMPTS, RESPONSES, strict=True))
    ids, labels = np.zeros((3, length), np.int64), np.full((3, length), -100)
    mask = np.zeros((3, length), np.int64)
    for i, (prompt, response) in enumerate(zip(PROMPTS, RESPONSES, strict=True)):
        end = len(prompt) + len(response)
        ids[i, :end], mask[i, :end] = prompt + response, 1
        labels[i, len(prompt) : end] = response
    inputs = {"input_ids": torch.tensor(ids), "attention_mask": torch.tensor(mask)}
    return Batch(inputs, torch.tensor(labels), None, torch.tensor(labels), lambda i: batch())


def observed(model: Any, given: Batch) -> list[float]:
    observer = Unprompted(setup_of(model, TASK))
    assert observer.sizes(model) == {}
    with observer.attach(model):
        return observer.rows(given)["logprob_unprompted"].tolist()


def alone(model: Any, start: int) -> list[float]:
    """transformers' own loss of each response behind one token, the response alone labelled."""
    found = []
    for response in RESPONSES:
        ids = torch.tensor([[start, *response]])
        found.append(-model(input_ids=ids, labels=torch.where(ids == start, -100, ids)).loss.item())
    return found


def test_it_is_the_loss_of_the_response_by_itself(model: Any) -> None:
    """Of three rows in one batch, each agrees with transformers' loss of its response behind the first token."""
    assert observed(model, batch()) == pytest.approx(alone(model, 1), rel=1e-5)


def test_a_text_begins_after_the_end_of_another_where_there_is_no_other_token(
    model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a bos_token_id the eos_token_id stands first; with neither there is no text to walk."""
    monkeypatch.setattr(model.config, "bos_token_id", None)
    monkeypatch.setattr(model.config, "eos_token_id", [3, 4])
    assert observed(model, batch()) == pytest.approx(alone(model, 3), rel=1e-5)
    monkeypatch.setattr(model.config, "eos_token_id", None)
    with pytest.raises(PruneError, match="no bos_token_id and no eos_token_id"):
        observed(model, batch())


def test_the_prompt_has_no_say(model: Any) -> None:
    """Other prompts, and more padding, change nothing; and no gradient is left behind."""
    before, given = observed(model, batch()), batch()
    given.inputs["input_ids"][given.labels == -100] = 17
    with torch.enable_grad():
        assert observed(model, given) == before
    assert all(parameter.grad is None for parameter in model.parameters())


def test_tokens_of_the_response_keep_their_order() -> None:
    """Labels with gaps, as of several turns, become one text on the right of the first token."""
    labels = torch.tensor([[-100, 7, -100, 8, 9], [-100, -100, -100, 6, -100]])
    inputs, alone = without_prompt(labels, 1)
    assert inputs["input_ids"].tolist() == [[1, 7, 8, 9], [1, 6, 1, 1]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1, 1], [1, 1, 0, 0]]
    assert alone.tolist() == [[-100, 7, 8, 9], [-100, 6, -100, -100]]


def test_rows_without_a_response_are_refused(made: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """Rows of other tasks have no prompt to leave out."""
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", made / "warmup"]
    ran = prune(*start, "--kind", "unprompted")
    assert ran.errors == ["kind: unprompted; it needs rows with a prompt; the task classification has none"]
