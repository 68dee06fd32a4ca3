"""The layout: imports point one way, no circles, no long files, and the README names every module."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import prune_cli
from prune_cli.artifacts.code import imported, parsed, serialised

PACKAGE = Path(prune_cli.__file__).parent
# from top to bottom: what stands above may import what stands below, and nothing else
LAYERS = (
    "__main__ main cli commands parameters __init__ pipeline report stages simulation training methods represent "
    "models options gradients export tasks data artifacts guide score select numeric runtime option errors version"
).split()
LONGEST = 400  # lines


def module_name(path: Path) -> str:
    parts = ["prune_cli", *path.relative_to(PACKAGE).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


FILES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports(module: str) -> set[str]:
    """The modules of prune_cli that a module imports, anywhere in it: in functions and for type checkers too."""
    path = FILES[module]
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    return imported(serialised(parsed(path))[1], package, ("prune_cli",))


def test_every_module_has_a_layer() -> None:
    """No file or folder stands outside the list of layers."""
    assert {layer(module) for module in FILES} == set(LAYERS)


@pytest.mark.parametrize("module", FILES)
def test_imports_point_downwards(module: str) -> None:
    """A module imports from its own package and from layers below it, lazy imports and those for types included."""
    own = LAYERS.index(layer(module))
    wrong = [name for name in imports(module) if LAYERS.index(layer(name)) < own]
    assert not wrong


def test_there_is_no_circle() -> None:
    """No module imports itself through others."""
    graph = {module: imports(module) - {module} for module in FILES}
    while leaves := [module for module, needs in graph.items() if not needs & set(graph)]:
        for module in leaves:
            del graph[module]
    assert not graph


@pytest.mark.parametrize("stage", ["score", "select"])
def test_methods_see_arrays_alone(stage: str) -> None:
    """A score or a selection imports numeric helpers and nothing else of prune."""
    for module in FILES:
        if module.startswith(f"prune_cli.{stage}."):
            assert all(layer(name) == "numeric" for name in imports(module)), module


def test_gradients_know_no_task_file_or_option() -> None:
    """The gradient library imports errors and its own files."""
    for module in FILES:
        if layer(module) == "gradients":
            assert {layer(name) for name in imports(module)} <= {"gradients", "errors"}, module


@pytest.mark.parametrize("module", FILES)
def test_no_file_is_long(module: str) -> None:
    """A file has at most 400 lines; a longer one says why in its docstring (`Long because ...`)."""
    text = FILES[module].read_text("utf-8")
    assert text.count("\n") <= LONGEST or "Long because" in text[:2000]


def test_the_readme_names_every_module() -> None:
    """The tree in the README has a line for each folder and file of the package."""
    tree = (PACKAGE.parent / "README.md").read_text("utf-8")
    lines = set(re.findall(r"^\s*([\w/]+(?:\.py)?)\s{2,}", tree, re.MULTILINE))
    for path in PACKAGE.iterdir():
        if path.suffix == ".py" and path.name != "__main__.py":
            assert path.name in lines
        elif path.is_dir() and path.name != "__pycache__":
            assert f"{path.name}/" in lines


HEAVY = {"torch", "transformers", "sklearn", "scipy", "datasets", "pandas", "matplotlib"}


def modules_reached(folder: Path, *arguments: object) -> set[str]:
    """The modules that a command has loaded when it ends."""
    code = (
        "import sys; from prune_cli.main import hush, run; hush(); status = run(sys.argv[1:]);"
        "print(*sorted(sys.modules), sep='\\n', file=sys.stderr); sys.exit(status)"
    )
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stderr.splitlines())


def light_commands(made: Path, data: Path, out: Path) -> dict[str, list[object]]:
    """Commands that compute little, as their arguments."""
    train, warmup = data / "train.jsonl", made / "warmup"
    on_target: list[object] = ["--on", "gradient", "--target", made / "validation"]
    kinds = ["--dim", 64, "--kind", "hidden,dynamics,gradient"]
    quick = ["--epochs", 2, "--learning-rate", "1e-2", "--batch-size", 8]
    return {
        "help": ["--help"],
        "represent help": ["represent", "--help"],
        "methods": ["methods"],
        "init": ["init", train],
        "method": ["methods", "less"],
        "guide": ["guide"],
        "show represent": ["show", made / "train"],
        "show finetune": ["show", warmup],
        "compare": ["compare", made / "score", made / "kept", made / "train", "--k", 3],
        "score less": ["score", made / "train", "-o", out / "less", "--method", "less", *on_target],
        "select top": ["select", made / "score", "-o", out / "top", "--method", "top", "--keep", "0.5"],
        "select random of data": ["select", train, "-o", out / "random", "--method", "random", "--keep", 3],
        "export": ["export", made / "kept", "-o", out / "export", "--for", "jsonl"],
        "represent up to date": ["represent", train, "-o", made / "train", "--model", warmup, *kinds],
        "finetune up to date": ["finetune", made / "kept", "-o", made / "again", *quick, "--model"],
        "eval up to date": ["eval", warmup, data / "test.jsonl", "-o", made / "metrics"],
    }


def test_commands_that_compute_little_load_no_heavy_library(
    made: Path, data: Path, tmp_path: Path, tiny_model: Path, prune: object
) -> None:
    """Help, methods, show, score, select and checks of what is up to date load no torch, transformers, scikit-learn."""
    commands = light_commands(made, data, tmp_path)
    commands["finetune up to date"].append(tiny_model)
    assert prune(*commands["finetune up to date"]).code == 0  # type: ignore[operator]
    for name, command in commands.items():
        assert not HEAVY & modules_reached(tmp_path, *command), name
