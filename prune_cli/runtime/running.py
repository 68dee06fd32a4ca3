"""A model's own code at work: what it raises, in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prune_cli.errors import PruneError
from prune_cli.runtime import processes


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


def first_line(failure: BaseException) -> str:
    """The first line of an error's message, with the next if it ends in a colon; its type where there is no message."""
    lines = [line.strip() for line in str(failure).splitlines() if line.strip()] or [type(failure).__name__]
    return " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
