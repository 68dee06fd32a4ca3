"""A forward whose last layer, the one to the vocabulary, sees the tokens that are trained on alone, in parts.

Of a language model the logits are its largest tensor, and those of prompts and padding are never looked at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import torch

from prune_cli.tasks.vocabulary import Logits, Unheaded

_plain: WeakKeyDictionary[torch.nn.Module, bool] = WeakKeyDictionary()  # last layer -> whether it gives the logits
_whole: WeakSet[torch.nn.Module] = WeakSet()  # last layers whose gradients are captured


class Outputs:
    """A model's outputs. `answers`: what the task's functions take for logits, which may not be worked out yet."""

    def __init__(self, outputs: Any, answers: Logits) -> None:
        self._outputs = outputs
        self.answers: Any = answers  # a task knows what its own are

    @cached_property
    def logits(self) -> torch.Tensor:
        """[b, a, v] at the places that were asked for, or what the model gave."""
        answers = self.answers
        return answers.logits(answers.states) if isinstance(answers, Unheaded) else answers

    def __getattr__(self, name: str) -> Any:
        """What else the model gave."""
        return getattr(self._outputs, name)


def forward(model: Any, inputs: Mapping[str, torch.Tensor], at: torch.Tensor | None) -> Outputs:
    """The outputs of a model [b, t] with the logits [b, a, v] of each row's places `at`, int64 [b, a]; None: of all.

    They are worked out later, in parts, where the last layer gives the logits and nothing follows it. A model whose
    last layer does not see [b, t, d], or is not told, works out all logits, of which these are taken.
    """
    if at is None:
        outputs = model(**inputs)
        return Outputs(outputs, outputs.logits)
    within = getattr(model, "module", model)  # DistributedDataParallel has it beneath
    head = within.get_output_embeddings()
    in_parts = head is not None and head not in _whole and _gives_logits(within, head, inputs)
    shape, seen = inputs["input_ids"].shape, []

    def narrow(_: torch.nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if not given or given[0].dim() != 3 or given[0].shape[:2] != shape:
            return None
        seen.append(Unheaded(_take(given[0], at), head, _autocast(given[0].device.type)))
        # of one token with its graph: by it DistributedDataParallel finds the parameters that are used
        return (given[0][:, :1] if in_parts else seen[0].states, *given[1:])

    hook = head.register_forward_pre_hook(narrow) if head is not None else None
    try:
        outputs = model(**inputs)
    finally:
        if hook is not None:
            hook.remove()
    if in_parts and seen:
        return Outputs(outputs, seen[0])
    return Outputs(outputs, outputs.logits if seen else _take(outputs.logits, at))


@contextmanager
def whole(model: Any, trainable: Mapping[str, torch.nn.Parameter]) -> Iterator[None]:
    """Inside, logits are worked out within the forward if the last layer is `trainable`: its gradients are captured."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    captured = {id(p) for p in trainable.values()}
    if head is None or not any(id(p) in captured for p in head.parameters()):
        yield
        return
    _whole.add(head)
    try:
        yield
    finally:
        _whole.discard(head)


def _gives_logits(model: Any, head: torch.nn.Module, inputs: Mapping[str, torch.Tensor]) -> bool:
    """Whether a model's logits are what its last layer gives, and not scaled or bounded after it; of one token."""
    if head not in _plain:
        given: list[torch.Tensor] = []
        hook = head.register_forward_hook(lambda *called: given.append(called[-1]))
        try:
            with torch.no_grad(), torch.random.fork_rng():
                logits = model(**{name: value[:1, :1] for name, value in inputs.items()}).logits
        finally:
            hook.remove()
        _plain[head] = len(given) == 1 and torch.equal(given[0].float(), logits.float())
    return _plain[head]


def _autocast(device: str) -> torch.autocast:
    """The context that computes as is computed here."""
    return torch.autocast(device, dtype=torch.get_autocast_dtype(device), enabled=torch.is_autocast_enabled(device))


def _take(values: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
    """Values [b, a, d] of values [b, t, d] at the places [b, a]."""
    return values.gather(1, at[:, :, None].expand(-1, -1, values.shape[2]))
