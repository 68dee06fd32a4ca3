"""Progress on stderr: a bar on a terminal, a plain line now and then otherwise."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prune_cli.runtime import interrupt, processes
from prune_cli.runtime.terminal import clean

PLAIN_SECONDS = 15.0


_hushed = False
_said: set[str] | None = None


@contextmanager
def hushed() -> Iterator[None]:
    """Say nothing in this block: what is made in it is for a measurement alone."""
    global _hushed
    before, _hushed = _hushed, True
    try:
        yield
    finally:
        _hushed = before


@contextmanager
def each_once() -> Iterator[None]:
    """Say each note once in this block: steps that read the same rows have the same to tell."""
    global _said
    before, _said = _said, set()
    try:
        yield
    finally:
        _said = before


def note(text: str, *, everyone: bool = False) -> None:
    """Tell what a user should know but need not act on: once, not from each of several processes unless `everyone`."""
    if _hushed or not (everyone or processes.first()) or (_said is not None and text in _said):
        return
    if _said is not None:
        _said.add(text)
    print(clean(text), file=sys.stderr, flush=True)


@contextmanager
def progress(what: str, total: int, start: int = 0) -> Iterator[Callable[[int], None]]:
    """Show progress of `what` towards `total`; yields a function to call with how much more is done.

    That function is also where a Ctrl-C that was lost is raised again.
    """
    if start:
        note(f"{what}: going on from {start} of {total}")
    with _shown(what, total, start) as show:

        def advance(more: int) -> None:
            interrupt.check()
            show(more)

        yield advance


@contextmanager
def _shown(what: str, total: int, start: int) -> Iterator[Callable[[int], None]]:
    if _hushed or not processes.first():
        yield lambda more: None
    elif sys.stderr.isatty():
        with _bar(what, total, start) as show:
            yield show
    else:
        yield _lines(what, total, start)


@contextmanager
def _bar(what: str, total: int, start: int) -> Iterator[Callable[[int], None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total, completed=start)
        yield lambda more: bar.advance(task, more)


def _lines(what: str, total: int, start: int) -> Callable[[int], None]:
    done, began, told = start, time.monotonic(), time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, told
        done += more
        now = time.monotonic()
        if now - told >= PLAIN_SECONDS:
            left = (now - began) / max(done - start, 1) * (total - done)
            print(f"{what}: {done} of {total}, about {left:.0f} s left", file=sys.stderr, flush=True)
            told = now

    return advance
