"""The response without its prompt: how likely the model finds it when nothing stands before it.

The tokens that are trained on, those of all turns of the assistant one behind the other, follow the one token that
begins a text: the model's bos_token_id, or its eos_token_id, which ends the text before, where it has no bos_token_id.
This costs a second forward of the responses alone, without gradients. Source: the direct answer score of Li et al.
2023, arXiv 2308.12032, whose rows have one turn. Differs: in their code the words that end the prompt's template stand
before the response. count_eos: whether end-of-sequence tokens count; in their code a response has none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prune_cli.errors import PruneError
from prune_cli.represent.kinds._ends import ends_of, without_ends
from prune_cli.represent.kinds._shared import CountEos
from prune_cli.represent.observe import Batch, Setup, Tensor, Watcher

if TYPE_CHECKING:
    import torch

TENSORS = {
    "logprob_unprompted": Tensor(
        (), "float32", "mean log-probability of the response's tokens without the prompt (nats); higher: likelier"
    )
}
FEATURES = "logprob_unprompted"
NEEDS = frozenset({"head", "prompt"})


@dataclass(frozen=True)
class Options:
    """Options of the kind."""

    count_eos: CountEos = True


def observe(setup: Setup, opts: Options) -> Unprompted:
    """Observe a pass."""
    return Unprompted(setup, ends_of(setup, count_eos=opts.count_eos))


class Unprompted(Watcher):
    """Observes `logprob_unprompted` [b]."""

    def __init__(self, setup: Setup, ends: tuple[int, ...] = ()) -> None:
        self._setup, self._ends = setup, ends

    def sizes(self, model: torch.nn.Module) -> dict[str, int]:
        """No axes. Raises PruneError for a model that has no token to begin a text with."""
        config: Any = model.config
        self._start = _beginning(config.get_text_config())
        return {}

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Walk the responses of the batch alone."""
        import torch

        setup = self._setup
        inputs, labels = without_prompt(without_ends(batch.labels, self._ends), self._start)
        with torch.no_grad():
            logits = setup.forward(inputs).logits
            return {"logprob_unprompted": -setup.task.losses(logits, labels)}


def without_prompt(labels: torch.Tensor, start: int) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Inputs and labels, each [b, 1 + r], of the responses alone, padded on the right; r tokens are the longest.

    labels [b, t] hold the response's token at its own position, OUTSIDE elsewhere.
    """
    import torch

    from prune_cli.tasks.tokens import OUTSIDE

    spoken = labels != OUTSIDE
    lengths = spoken.sum(1, keepdim=True)
    columns = torch.arange(1 + int(lengths.max()), device=labels.device)
    mask = columns <= lengths
    alone = labels.new_full(mask.shape, OUTSIDE)
    alone[mask & (columns > 0)] = labels[spoken]
    ids = torch.where(alone == OUTSIDE, start, alone)  # padding is not attended to: any token will do
    return {"input_ids": ids, "attention_mask": mask.to(labels.dtype)}, alone


def _beginning(config: Any) -> int:
    """The token that begins a text."""
    for name in ("bos_token_id", "eos_token_id"):
        token = getattr(config, name, None)
        if isinstance(token, list):
            token = token[0] if token else None
        if token is not None:
            return int(token)
    raise PruneError(
        "kind: unprompted; the model's config has no bos_token_id and no eos_token_id, so no token to begin a text with"
    )
