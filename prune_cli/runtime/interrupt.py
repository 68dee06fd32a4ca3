"""Ctrl-C that is not lost: it is an exception, which C code now and then drops, so long work looks for it as well."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prune_cli.runtime import processes

_came = False


def listen() -> None:
    """Remember from now on that Ctrl-C came; where it is ignored (nohup) it stays so."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _take)


def _take(*_: object) -> None:
    global _came
    _came = True
    raise KeyboardInterrupt


def check() -> None:
    """Raise KeyboardInterrupt where one has come and gone."""
    if _came:
        raise KeyboardInterrupt


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Let the work in the block come to a point where it can stop: the first Ctrl-C or SIGTERM is only noted.

    Yields a function that says whether one came: the work then saves what it has and raises KeyboardInterrupt, as the
    end of the block does otherwise. A second one raises KeyboardInterrupt at once, but not in one of several processes:
    torchrun sends one of its own after the user's, and ends who takes long. Ignored signals (nohup) stay so.
    """
    came = False

    def note(*_: object) -> None:
        nonlocal came
        if came and processes.count() == 1:
            _take()
        came = True

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():  # Python allows no other thread to set handlers
        for number in (int(signal.SIGINT), int(signal.SIGTERM)):
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                before[number] = signal.signal(number, note)
    try:
        yield lambda: came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if came:
        raise KeyboardInterrupt
