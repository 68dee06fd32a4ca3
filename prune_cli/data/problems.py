"""Problems of values in words, which several tasks and row formats have in common."""

from __future__ import annotations

from prune_cli.data.rows import described


def text_problem(name: str, value: object) -> str | None:
    """The problem of a value that must be a string with words in it, with what is allowed; None if there is none."""
    if isinstance(value, str) and value.strip():
        return None
    problem = f"{name} is blank" if isinstance(value, str) else described(name, value)
    return f"{problem}; allowed: a string that is not blank"
