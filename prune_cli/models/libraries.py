"""What models and the libraries that load them say, in our form: one line an error, no bars and tables on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prune_cli.errors import PruneError
from prune_cli.runtime import processes


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turn whatever the loaders raise into a PruneError: `what`, then the first line of theirs.

    Only calls of the libraries belong into the block. On damaged files they raise errors of any type (tokenizers
    plain Exception, or a panic of Rust, which is none), so that of all but OSError and ValueError the type is told too.
    """
    try:
        yield
    except PruneError:
        raise
    except (OSError, ValueError) as failure:
        raise PruneError(f"{what}: {first_line(failure)}") from failure
    except Exception as failure:
        raise PruneError(f"{what}: {_damaged(failure)}") from failure
    except BaseException as failure:
        if type(failure).__name__ != "PanicException":
            raise
        raise PruneError(f"{what}: {_damaged(failure)}") from failure


@contextmanager
def running(model: Any) -> Iterator[None]:
    """Turn what a model's own code raises into a PruneError; what tells of memory or of the system is let through.

    Some models want more than rows of tokens: an image, a length that their blocks divide, a token that ours lack.
    """
    try:
        with processes.together():
            yield
    except (PruneError, processes.PeerLost, MemoryError, OSError):
        raise
    except Exception as failure:
        if type(failure).__name__ == "OutOfMemoryError" or "allocate memory" in str(failure):
            raise
        told = f"{type(failure).__name__}: {first_line(failure)}"
        beneath = getattr(model, "get_base_model", lambda: model)()  # where it has adapters
        raise PruneError(f"{type(beneath).__name__} does not run on these rows ({told})") from failure


def _damaged(failure: BaseException) -> str:
    return f"its files are damaged or of another model ({type(failure).__name__}: {first_line(failure)})"


def first_line(failure: BaseException) -> str:
    """The first line of an error's message, with the next if it ends in a colon; its type where there is no message."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or [type(failure).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]


# warnings of peft in which it says what it does of its own accord, and that a user can do nothing about
_OWN_AFFAIR = (
    "fan_in_fan_out is set to False but the target module is `Conv1D`",  # GPT-2 and its kin: it is set to True
    "Found missing adapter keys while loading the checkpoint",  # told by models/adapters.py
    "The following (rank|alpha)_pattern keys did not match",  # patterns of its own for mixtures of experts
)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the loaders' bars, and their tables of new and unused weights, off stderr: we check what matters of them."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            for message in _OWN_AFFAIR:
                warnings.filterwarnings("ignore", message)
            yield
    finally:
        logging.set_verbosity(level)
