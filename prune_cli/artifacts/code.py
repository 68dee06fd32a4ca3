"""A digest of the code that makes a result: changed code changes it, a changed comment or docstring does not.

The digest is taken over syntax trees. Files are only read: no analysed module is imported or run. An import whose
name is computed at run time (`importlib.import_module(...)`) is not followed.
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
import warnings
from pathlib import Path
from types import ModuleType

from prune_cli.errors import PruneError

Import = ast.Import | ast.ImportFrom

WITH_DOCSTRING = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


@functools.cache
def digest_of_module(name: str, within: tuple[str, ...]) -> str:
    """Return the sha256 (hex) over module `name` and all modules in the packages `within` that it imports.

    Imports are followed through one another, also those inside functions and under TYPE_CHECKING. `within` holds
    dotted prefixes such as "prune_cli.represent".
    """
    texts: dict[str, str] = {}
    waiting = [name]
    while waiting:
        module = waiting.pop()
        path = None if module in texts else source_of(module)
        if path is None:
            continue
        texts[module], imports = serialised(parsed(path))
        package = module if path.name == "__init__.py" else module.rpartition(".")[0]
        waiting.extend(imported(imports, package, within))
    if name not in texts:
        raise ModuleNotFoundError(f"no source file for module {name}", name=name)
    return sha256("\n".join(f"{module}\n{texts[module]}" for module in sorted(texts)))


def digest_of_plugin(module: ModuleType, within: tuple[str, ...]) -> str:
    """`digest_of_module` of a loaded module; of its file alone where that lies outside its package."""
    if source_of(module.__name__):
        return digest_of_module(module.__name__, within)
    return digest_of_file(Path(str(module.__file__)))


def digest_of_file(path: Path) -> str:
    """Return the sha256 (hex) over one file, such as a user's own method; what it imports is not followed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of "\d": Python tells of it when it runs the file, once is enough
            tree = parsed(path)
    except SyntaxError as error:
        place = f"{path}:{error.lineno}" if error.lineno else f"{path}"
        raise PruneError(f"{place}: not valid Python: {error.msg}") from error
    return sha256(serialised(tree)[0])


def source_of(name: str) -> Path | None:
    """Return the source file of a module, or None; a package's is its `__init__.py`. Nothing is imported."""
    top, *rest = name.split(".")
    spec = importlib.util.find_spec(top)  # imports only the parents of a dotted name, and a top name has none
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        base = Path(folder, *rest)
        for path in (base / "__init__.py", base.with_suffix(".py")):
            if path.is_file():
                return path
    return None


def imported(imports: list[Import], package: str, within: tuple[str, ...]) -> set[str]:
    """Return the dotted names of the modules in `within` that the import statements of a module in `package` name.

    `from a import b` names the module `a.b` where there is one, and else `a`.
    """
    found: set[str] = set()
    for node in imports:
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
            continue
        base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
        for alias in node.names:
            inner = f"{base}.{alias.name}"
            found.add(inner if lies_within(inner, within) and source_of(inner) else base)
    return {name for name in found if lies_within(name, within)}


def lies_within(name: str, within: tuple[str, ...]) -> bool:
    """Tell whether a dotted name is one of the packages `within` or lies in one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in within)


def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a file."""
    return ast.parse(path.read_bytes(), str(path))


def serialised(tree: ast.Module) -> tuple[str, list[Import]]:
    """Return a tree as text, the same under each Python version, and the import statements in it.

    Each node is one line: its class, then each field with its value, or with a star for each node in it. Those nodes
    follow, level by level. Left out are docstrings, positions, and fields that are None or an empty list: which of
    these a node has differs between versions.
    """
    lines: list[str] = []
    imports: list[Import] = []
    nodes: list[ast.AST] = [tree]
    for node in nodes:  # grows on the way; no recursion, as trees can be deep
        if isinstance(node, ast.Constant):
            lines.append(f"Constant {node.value!a}")  # ascii, as what repr escapes differs between versions
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            imports.append(node)
        line = type(node).__name__
        for field in node._fields:
            value = getattr(node, field)
            if field == "body" and has_docstring(node):
                value = value[1:]
            elif isinstance(node, ast.JoinedStr):  # Python 3.12 puts empty texts between its parts
                value = [part for part in value if not (isinstance(part, ast.Constant) and part.value == "")]
            if value is None or value == [] or field == "ctx":  # a node's place says its `ctx`
                continue
            line += f" {field}="
            for item in value if isinstance(value, list) else [value]:
                if isinstance(item, ast.AST):
                    line += "*"
                    nodes.append(item)
                else:
                    line += ascii(item)
        lines.append(line)
    return "\n".join(lines), imports


def has_docstring(node: ast.AST) -> bool:
    """Tell whether a node is a module, class or function that starts with a docstring."""
    return isinstance(node, WITH_DOCSTRING) and ast.get_docstring(node, clean=False) is not None


def sha256(text: str) -> str:
    """Return the sha256 (hex) of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
