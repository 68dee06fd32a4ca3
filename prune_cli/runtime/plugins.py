"""Files that add something: loaded by name, so that a broken one is told in one line."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from functools import cache
from types import ModuleType

from prune_cli.errors import PruneError


def names(folders: Iterable[str]) -> list[str]:
    """The modules in a package's folders, in order of name, but for `_…`; none is imported."""
    return list(_names(tuple(folders)))


@cache
def _names(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Names are asked for a thousand times in a large pipeline, so folders are looked through once."""
    return tuple(sorted(module.name for module in pkgutil.iter_modules(folders) if module.name[0] != "_"))


def load(name: str) -> ModuleType:
    """The module `name`, dotted. Raises PruneError, with file:line, if it cannot be loaded."""
    try:
        return importlib.import_module(name)
    except SyntaxError as failure:
        raise PruneError(f"{failure.filename}:{failure.lineno}: not valid Python: {failure.msg}") from failure
    except PruneError:
        raise
    except Exception as failure:
        raise PruneError(f"{name}: cannot be loaded: {told(failure)}") from failure


def told(failure: BaseException) -> str:
    """An exception in one line: its type and text, and where it was raised."""
    lines = str(failure).strip().splitlines()
    trace = failure.__traceback__
    while trace and trace.tb_next:
        trace = trace.tb_next
    where = f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace else ""
    return type(failure).__name__ + (f": {lines[0]}" if lines else "") + where
