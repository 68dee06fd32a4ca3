"""Model architectures that need more than a rule (rules.py): one file each.

A file declares `applies(model)`, whether it has anything to do for a model, and a context manager
`patched(model, copies)`, inside which the model computes the same but keeps the examples of a batch apart. `copies`
makes of a parameter […] a copy for each sequence, [n, …]; all share the parameter's memory.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import torch

Copies = Callable[[torch.Tensor], torch.Tensor]


def names() -> list[str]:
    """All architectures, in order of name; none is imported."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")


@contextmanager
def patched(model: torch.nn.Module, copies: Copies) -> Iterator[None]:
    """Enter every architecture that applies to the model."""
    with ExitStack() as entered:
        for name in names():
            architecture = importlib.import_module(f"{__name__}.{name}")
            if architecture.applies(model):
                entered.enter_context(architecture.patched(model, copies))
        yield
