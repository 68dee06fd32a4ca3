"""The tokens that end a response, left out of what is measured of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_cli.tasks.tokens import OUTSIDE

if TYPE_CHECKING:
    import torch

    from prune_cli.represent.observe import Setup


def ends_of(setup: Setup, *, count_eos: bool) -> tuple[int, ...]:
    """The end-of-sequence tokens to leave out; none where they count, or where the task has no responses."""
    if count_eos or "count_eos" not in setup.task.OPTIONS:
        return ()
    of_model = getattr(setup.model.config, "eos_token_id", None)
    known = [setup.eos_token_id, *(of_model if isinstance(of_model, list) else [of_model])]
    return tuple(sorted({token for token in known if token is not None}))


def without_ends(labels: torch.Tensor, ends: tuple[int, ...]) -> torch.Tensor:
    """Labels [b, t] with OUTSIDE in place of these tokens; a row that has no others keeps its own."""
    import torch

    if not ends:
        return labels
    rest = labels.masked_fill(torch.isin(labels, torch.tensor(ends, device=labels.device)), OUTSIDE)
    empty = (rest == OUTSIDE).all(dim=1, keepdim=True)
    return torch.where(empty, labels, rest)
