"""Where the assistant speaks in a conversation, by what its chat template makes of it. This file is not a task.

The text of the whole is compared with that of the conversation as it stood before each turn and after it. Both may
differ from the whole: the template may write more for the assistant to begin with than it writes before an answer
(DeepSeek-R1), leave out of an earlier turn what it writes of the last (the thinking, Qwen3), or write an earlier
message otherwise once others follow it (tools before the last question, Mistral).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import Any


def located(
    whole: str,
    before: Sequence[str],
    after: Sequence[str],
    bare: str,
    heard: Sequence[str],
    says: Sequence[Callable[[str], bool]],
) -> list[tuple[int, int] | None]:
    """From where to where each turn of the assistant stands in the text of a conversation; None: it was not found.

    before: the text up to each turn, with what the template writes for the assistant to begin; after: that of the
    conversation as if it ended with that turn; bare: as if it ended before the last turn, with nothing to begin; heard:
    what the message before each turn says; says: whether a text holds what the turn says.
    """
    cue = before[-1][shared(before[-1], bare) :]
    found: list[tuple[int, int] | None] = []
    at = 0
    for prompt, until, words, holds in zip(before, after, heard, says, strict=True):
        start = _start(whole, prompt, cue, words, at)
        end = None if start is None else _end(whole, until[shared(prompt, until) :], start, holds)
        found.append(None if start is None or end is None else (start, end))
        at = max(at, end or 0)
    return found


def _end(whole: str, said: str, start: int, holds: Callable[[str], bool]) -> int | None:
    """Where a turn ends that begins at `start`, and that was `said` when it was the last.

    The whole may go on otherwise behind it, or have it without its beginning.
    """
    end = start + _longest(len(said), lambda n: whole[start : start + n] in said)
    if holds(whole[start:end]):
        return end
    ending = said[len(said) - _longest(len(said), lambda n: whole.find(said[-n:], start) >= 0) :]
    return whole.find(ending, start) + len(ending) if holds(ending) else None


def _start(whole: str, prompt: str, cue: str, words: str, at: int) -> int | None:
    """Where the turn after a prompt begins, at `at` or later: where the whole departs from it.

    That is too early where the whole has an earlier part otherwise than the prompt. The turn begins, then, behind the
    words of the message before it and what the prompt has between them and its cue.
    """
    start = shared(prompt, whole)
    if len(prompt) - start <= len(cue):
        return start if start >= at else None
    stem = prompt.removesuffix(cue)
    spoken = stem.rfind(words)
    found = whole.find(stem[spoken:], at) if words and spoken >= 0 else -1
    if found < 0:
        return None
    start = found + len(stem) - spoken
    return start + shared(cue, whole[start:])


def _longest(most: int, fits: Callable[[int], bool]) -> int:
    """The largest number from 0 to `most` that fits; those below a number that fits do so too."""
    return bisect_left(range(1, most + 1), True, key=lambda n: not fits(n))


def shared(one: Sequence[Any], other: Sequence[Any]) -> int:
    """How many entries two sequences begin with in common."""
    most = min(len(one), len(other))
    return _longest(most, lambda n: one[:n] == other[:n])
