"""Ctrl-C that is not lost: it is an exception, which C code now and then drops, so long work looks for it as well."""

from __future__ import annotations

import signal

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
