"""The digest of code: what changes it, what does not, and which modules it takes in."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from prune_cli.artifacts.code import digest_of_file, digest_of_module
from prune_cli.errors import PruneError
from prune_cli.methods.method import CODE
from prune_cli.stages.common import TASK_CODE
from prune_cli.stages.finetune import CODE as TRAINING_CODE
from prune_cli.stages.represent import CODE_OF_KINDS

Write = Callable[[str, str], None]

PLAIN = """
def area(width: int, height: int = 2) -> int:
    return width * height
"""


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Write a module of the package `boxes`, with the `__init__.py` of each package it lies in."""
    monkeypatch.syspath_prepend(tmp_path)

    def written(path: str, text: str) -> None:
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        for folder in list(file.relative_to(tmp_path).parents)[:-1]:
            (tmp_path / folder / "__init__.py").touch()
        file.write_text(text)
        importlib.invalidate_caches()

    return written


def digest(name: str, *within: str) -> str:
    """The digest of a module as its files are now; the default for `within` is the package `boxes`."""
    digest_of_module.cache_clear()
    return digest_of_module(name, within or ("boxes",))


def of_text(tmp_path: Path, text: str) -> str:
    """The digest of a file with this text."""
    (tmp_path / "own.py").write_text(text, encoding="utf-8")
    return digest_of_file(tmp_path / "own.py")


def follows(write: Write, module: str, *within: str, root: str = "boxes.root") -> bool:
    """Whether the digest of `root` changes with the module written at this path."""
    write(module, "SIZE = 1\n")
    before = digest(root, *within)
    write(module, "SIZE = 2\n")
    return before != digest(root, *within)


@pytest.mark.parametrize(
    "text",
    [
        PLAIN.replace("2", "3"),
        PLAIN.replace("*", "+"),
        PLAIN.replace(" -> int", ""),
        PLAIN.replace("width: int", "width: float"),
        PLAIN.replace("width", "breadth"),
        "import os\n" + PLAIN,
        PLAIN + "\nglobal_size = 1\n",
        PLAIN.replace("    return", "    'doc'\n    'a second text'\n    return"),
    ],
)
def test_changed_code_changes_the_digest(tmp_path: Path, text: str) -> None:
    """A constant, an operator, an annotation, a name, an import or a statement counts."""
    assert of_text(tmp_path, text) != of_text(tmp_path, PLAIN)


@pytest.mark.parametrize(
    "text",
    [
        "# a comment\n" + PLAIN.replace("    return", "    # another\n    return"),
        PLAIN.replace("    return", "\n\n    return"),
        "def area(\n    width: int,\n    height: int=(2),\n) -> int:\n  return (width\n    * height)  # type: int\n",
        '"""About boxes."""\n' + PLAIN,
        PLAIN.replace("    return", "    '''The area.'''\n    return"),
        PLAIN.replace("    return", "    '''The area, in other words.'''\n    return"),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path, text: str) -> None:
    """The same code, described or laid out otherwise, has the same digest."""
    assert of_text(tmp_path, text) == of_text(tmp_path, PLAIN)


@pytest.mark.parametrize("head", ["class Box:", "def area():", "async def area():"])
def test_a_docstring_may_be_the_whole_body(tmp_path: Path, head: str) -> None:
    """The docstring of each kind of block is left out, also where nothing else stands in it."""
    assert of_text(tmp_path, f"{head}\n    'a'\n") == of_text(tmp_path, f"{head}\n    'b'\n")
    assert of_text(tmp_path, f"{head}\n    'a'\n") != of_text(tmp_path, f"{head}\n    'a'\n    run()\n")
    assert of_text(tmp_path, f"{head}\n    b'a'\n") != of_text(tmp_path, f"{head}\n    b'b'\n")


def test_only_a_docstring_in_a_file_is_an_empty_file(tmp_path: Path) -> None:
    """A module of one docstring has the digest of an empty one."""
    assert of_text(tmp_path, "'''Nothing here.'''\n") == of_text(tmp_path, "")


def test_constants_of_different_types_differ(tmp_path: Path) -> None:
    """Values that compare equal or print alike are told apart, and None is told from nothing."""
    values = ["1", "1.0", "1j", "True", '"1"', 'b"1"', '"True"', "None", '"None"', "...", "0.0", "-0.0", "a", '"a"', ""]
    assert len({of_text(tmp_path, f"f({value})\n") for value in values}) == len(values)
    assert of_text(tmp_path, 'f(u"a")') == of_text(tmp_path, 'f("a")')


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("f([a], b)", "f([a, b])"),
        ("f(a, b)", "f(a)(b)"),
        ("f(g(a), b)", "f(g(a, b))"),
        ("f(x=a)", "f(**a)"),
        ("{**a}", "{a: a}"),
        ("x[a:]", "x[:a]"),
        ("def f(a, *, b=1): ...", "def f(a=1, *, b): ..."),
        ("def f(*, a, b=1): ...", "def f(*, a=1, b): ..."),
        ("if a:\n    b\nc", "if a:\n    b\n    c"),
        ("if a:\n    b\nelse:\n    c", "if a:\n    b\n    c"),
        ("def f():\n    global a, b", "def f():\n    global ab"),
        ("from . import a", "from .. import a"),
        ("import a.b", "import a as b"),
        ("f'{a}'", "f'{a!r}'"),
        ("a and b or c", "a and (b or c)"),
        ("class A(b):\n    'doc'", "class A(c):\n    'doc'"),
        ("@a\ndef f():\n    'doc'", "@b\ndef f():\n    'doc'"),
    ],
)
def test_trees_of_the_same_parts_differ(tmp_path: Path, one: str, other: str) -> None:
    """Where a part stands counts, not only which parts there are."""
    assert of_text(tmp_path, one) != of_text(tmp_path, other)


def test_the_digest_of_a_file_is_the_same_everywhere(tmp_path: Path) -> None:
    """A fixed text has a fixed digest: a Python version with other trees or another `repr` shows here."""
    text = PLAIN + "print(f'{area(1):>{2}} \U0001fae8 \U0001fa75', *'é', ñ, sep='')\n"
    assert of_text(tmp_path, text) == "0d8932de82ece365651a754126d027666b71357218c607d9a3a0b20af9e6e42d"


def test_the_digest_of_modules_is_the_same_everywhere(write: Write) -> None:
    """The order in which modules are met does not count: that of a set differs from process to process."""
    for name in "abcdef":
        write(f"boxes/{name}.py", PLAIN)
    write("boxes/root.py", "from boxes import a, b, c, d, e, f\n")
    assert digest("boxes.root") == "37d39d1cd4f441664156491a436a1cb8b9d8d107aafb70a84259ea34a92d92fb"


@pytest.mark.parametrize(
    "statement",
    [
        "from boxes import size",
        "from boxes.size import SIZE",
        "import boxes.size",
        "import boxes.size as other",
        "from . import size",
        "from .size import SIZE",
        "from .size import *",
        "def later():\n    from boxes.size import SIZE",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from boxes import size",
        "from boxes.way import WAY",
        "import boxes.way",
    ],
)
def test_imports_are_followed(write: Write, statement: str) -> None:
    """A change in an imported module counts, whatever the form of the import, also two steps away."""
    write("boxes/way.py", "def later():\n    from .size import SIZE\n")
    write("boxes/root.py", statement + "\n")
    assert follows(write, "boxes/size.py")


def test_relative_imports_go_up_and_down(write: Write) -> None:
    """Dots count from the package of a module, and from a package itself in its `__init__.py`."""
    write("boxes/inner/root.py", "from ..size import SIZE\nfrom . import deep\n")
    assert follows(write, "boxes/size.py", root="boxes.inner.root")
    write("boxes/inner/deep/__init__.py", "from .part import SIZE\n")
    assert follows(write, "boxes/inner/deep/part.py", root="boxes.inner.root")


def test_a_package_counts_where_it_is_imported(write: Write) -> None:
    """The `__init__.py` counts for `from package import name`, and not for `from package import module`."""
    write("boxes/inner/module.py", "")
    write("boxes/root.py", "from boxes.inner import SIZE\n")
    assert follows(write, "boxes/inner/__init__.py")
    write("boxes/root.py", "from boxes.inner import module\n")
    assert not follows(write, "boxes/inner/__init__.py")
    assert follows(write, "boxes/inner/__init__.py", root="boxes.inner")


def test_modules_outside_are_not_followed(write: Write) -> None:
    """An import outside `within` changes nothing, and a name that only starts alike lies outside."""
    write("boxes/score/inner.py", "")
    write("boxes/score/root.py", "from boxes.scorex import SIZE\nimport boxes.score.inner\nimport boxes.other.part\n")
    for module in ("boxes/scorex.py", "boxes/other/part.py"):
        assert not follows(write, module, "boxes.score", root="boxes.score.root")
    assert follows(write, "boxes/score/inner.py", "boxes.score", root="boxes.score.root")
    assert follows(write, "boxes/other/part.py", "boxes.score", "boxes.other", root="boxes.score.root")
    assert follows(write, "boxes/scorex.py", "boxes.score", root="boxes.scorex")


def test_modules_outside_are_not_looked_for(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    """An outside module that Python cannot even look up does no harm."""
    monkeypatch.setitem(sys.modules, "boxes_odd", ModuleType("boxes_odd"))  # has no `__spec__`
    write("boxes/root.py", "from boxes_odd import SIZE\nfrom boxes_absent import SIZE\n")
    assert digest("boxes.root")


def test_a_module_is_found_by_its_prefix_alone(write: Write) -> None:
    """A prefix may be a module itself, imported from a package outside `within`."""
    write("boxes/root.py", "from boxes import size\n")
    assert follows(write, "boxes/size.py", "boxes.size")


def test_import_cycles_end(write: Write) -> None:
    """Modules that import one another are each taken once."""
    write("boxes/root.py", "from boxes import size, root\n")
    write("boxes/size.py", "from boxes import root\nSIZE = 1\n")
    before = digest("boxes.root")
    write("boxes/size.py", "from boxes import root\nSIZE = 2\n")
    assert digest("boxes.root") != before


def test_moved_code_counts(write: Write) -> None:
    """The same code under another module's name has another digest."""
    write("boxes/a.py", "SIZE = 1\n")
    write("boxes/b.py", "SIZE = 2\n")
    write("boxes/root.py", "import boxes.a\nimport boxes.b\n")
    before = digest("boxes.root")
    write("boxes/a.py", "SIZE = 2\n")
    write("boxes/b.py", "SIZE = 1\n")
    assert digest("boxes.root") != before
    assert digest("boxes.a") != digest("boxes.b")
    write("boxes/b.py", "SIZE = 2\n")
    assert digest("boxes.a") != digest("boxes.b")


def test_nothing_is_run(write: Write) -> None:
    """A module that fails on import, in a package that does too, has a digest, and none of them is imported."""
    write("boxes/root.py", "from boxes.size import SIZE\nraise RuntimeError\n")
    write("boxes/__init__.py", "raise RuntimeError\n")
    assert follows(write, "boxes/size.py")
    assert not [name for name in sys.modules if name.split(".")[0] == "boxes"]


def test_a_module_at_the_top(write: Write, tmp_path: Path) -> None:
    """A top name, a module or a package, is found on the path; a module without Python source is said to be missing."""
    (tmp_path / "boxes_alone.py").write_text("SIZE = 1\n")
    write("boxes/__init__.py", "from .size import SIZE\n")
    assert follows(write, "boxes/size.py", root="boxes")
    assert digest("boxes_alone")
    for name in ("boxes.absent", "boxes_absent", "sys"):
        with pytest.raises(ModuleNotFoundError, match=name):
            digest(name)


def test_a_second_call_reads_nothing(write: Write) -> None:
    """Within a process, a digest is computed once."""
    write("boxes/root.py", "SIZE = 1\n")
    before = digest("boxes.root")
    write("boxes/root.py", "SIZE = 2\n")
    assert digest_of_module("boxes.root", ("boxes",)) == before


def test_a_broken_module_raises(write: Write) -> None:
    """A syntax error in the package is ours, and comes through."""
    write("boxes/root.py", "import boxes.size\n")
    write("boxes/size.py", "SIZE =\n")
    with pytest.raises(SyntaxError):
        digest("boxes.root")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"a = 1\nb = (\n", ":2: not valid Python: '(' was never closed"),
        (b"# coding: nope\n", "nope"),
        (b"a\0b", "null bytes"),
    ],
)
def test_a_broken_file_is_told_in_one_line(tmp_path: Path, text: bytes, said: str) -> None:
    """A user's file that is not Python gives an error with its path, its line and what is wrong."""
    path = tmp_path / "own.py"
    path.write_bytes(text)
    with pytest.raises(PruneError) as caught:
        digest_of_file(path)
    assert caught.value.message.startswith(f"{path}:")
    assert caught.value.message.endswith(said)
    assert "\n" not in caught.value.message


def test_a_deep_tree_is_no_trouble(tmp_path: Path) -> None:
    """A chain of a thousand branches, nested in its tree, is taken."""
    text = "if a:\n    b\n" + "elif a:\n    b\n" * 1000
    assert of_text(tmp_path, text) != of_text(tmp_path, text + "else:\n    b\n")


def test_a_strange_escape_is_not_warned_of(tmp_path: Path) -> None:
    """A user's file with a text like "\\d" gives no warning here: Python gave it on running the file."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_text(tmp_path, r'a = "\d"')


@pytest.mark.parametrize(
    ("folder", "within"),
    [
        ("tasks", TASK_CODE),
        ("represent", CODE_OF_KINDS),
        ("gradients", CODE_OF_KINDS),
        ("score", CODE),
        ("select", CODE),
        ("training", TRAINING_CODE),
    ],
)
def test_shared_numerics_count_wherever_results_depend_on_them(folder: str, within: tuple[str, ...]) -> None:
    """A module that makes results and imports from prune_cli.numeric has it among the code that is followed."""
    package = Path(importlib.import_module("prune_cli").__file__ or "").parent
    texts = [path.read_text("utf-8") for path in (package / folder).rglob("*.py")]
    if any("from prune_cli.numeric" in text for text in texts):
        assert "prune_cli.numeric" in within
