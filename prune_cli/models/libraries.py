"""What the libraries that load models say, in our form: an error is one line, and bars and tables stay off stderr."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from safetensors import SafetensorError

from prune_cli.errors import PruneError


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn the loaders' own errors into a PruneError: `what`, then the first line of theirs."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as failure:
        raise PruneError(f"{what}: {first_line(failure)}") from failure


def first_line(failure: BaseException) -> str:
    """The first line of an error's message, or its type where it has no message."""
    return (str(failure).strip() or type(failure).__name__).splitlines()[0]


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the loaders' bars, and their tables of new and unused weights, off stderr: we check what matters of them."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
