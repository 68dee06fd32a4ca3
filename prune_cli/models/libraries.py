"""What models and the libraries that load them say, in our form: one line an error, no bars and tables on stderr."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from prune_cli.errors import PruneError
from prune_cli.runtime.running import first_line


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


def _damaged(failure: BaseException) -> str:
    return f"its files are damaged or of another model ({type(failure).__name__}: {first_line(failure)})"


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
