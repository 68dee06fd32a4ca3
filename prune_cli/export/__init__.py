"""Where kept rows go, one file each: export/NAME.py writes what `prune export --for NAME` makes.

A file declares `write(kept, folder)`, which fills the folder with the kept rows (_kept.py) and with what the trainer or
library needs beside them. It tells on stderr what is not as it came, and raises PruneError for rows that have no place
there.
"""

from __future__ import annotations

from types import ModuleType

from prune_cli.errors import PruneError
from prune_cli.runtime import plugins


def names() -> list[str]:
    """All that rows can be written for, in order of name; none is imported."""
    return plugins.names(__path__)


def load(name: str) -> ModuleType:
    """The module of `name`. Raises PruneError for an unknown one."""
    if name not in names():
        raise PruneError(f"for: {name}; allowed: {', '.join(names())}")
    return plugins.load(f"{__name__}.{name}")
