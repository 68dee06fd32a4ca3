"""Where a method's outside truth stands: the mark of the tests that hold a method against something that is not it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

KINDS = ("brute force", "closed form", "worked example", "peer", "published code")


def truth(*methods: str, by: str) -> Callable[[F], F]:
    """Mark a test as the outside truth of methods, `score/NAME` or `select/NAME`; by: one of KINDS, and what."""
    assert methods and by.split(":")[0] in KINDS, (methods, by)

    def marked(test: F) -> F:
        return test

    return marked
