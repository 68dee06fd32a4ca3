"""What README.md and the pages of the guide show works as it stands."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import typer

from prune_cli import cli, guide
from prune_cli.data.corrupt import Corruption
from prune_cli.methods.published import published
from prune_cli.pipeline.checks import read_plan
from prune_cli.report.methods import COLUMNS
from tests.conftest import REPOSITORY, Prune, sentences, write_rows

README = (REPOSITORY / "README.md").read_text("utf-8")
PAGES = {"README": README, **{topic: guide.page(topic) for topic in guide.topics()}}
# of all commands, of torchrun, and of the kind that the page on extending adds
OTHERS_OPTIONS = {"--help", "--standalone", "--nproc-per-node", "--temperature"}


def blocks(page: str, language: str) -> list[str]:
    """The fenced blocks of a page in a language."""
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


def commands(page: str) -> list[str]:
    """The indented command lines of a page."""
    return re.findall(r"^    (prune .*)$", PAGES[page], re.MULTILINE)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with the sample data, as a clone has them, and `.venv/bin/prune`."""
    (tmp_path / "sample_data").symlink_to(REPOSITORY / "sample_data")
    command = tmp_path / ".venv/bin/prune"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m prune_cli "$@"\n')
    command.chmod(0o755)
    return tmp_path


def run(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), **more}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


def in_shell(text: str, folder: Path) -> str:
    """What a block of commands says on standard error."""
    return run(["sh", "-e", "-c", text], folder).stderr


def test_the_readme(here: Path) -> None:
    """The worked example runs as it stands, and the pipeline after it would."""
    worked, whole_file = blocks("README", "sh")
    told = in_shell(worked, here)
    assert told.count("made in") == 7
    assert (here / "runs/metrics/metrics.json").is_file()
    planned = in_shell(whole_file.rstrip() + " --dry-run", here)
    assert re.search(r"^pipeline: \d+ would run, 0 up to date$", planned, re.MULTILINE)


@pytest.mark.slow
def test_the_page_on_extending(here: Path) -> None:
    """The user's own methods run in the folder of the README's worked example, and need no training of their own."""
    in_shell(blocks("README", "sh")[0], here)
    (mine, kind), (own, with_kind) = blocks("extending", "python"), blocks("extending", "sh")
    assert mine.startswith("# mine.py\n")
    (here / "mine.py").write_text(mine)
    told = in_shell(own, here)
    assert "finetune: up to date" in told and told.count("made in") == 3
    assert len((here / "runs/every-other/select.jsonl").read_text().splitlines()) == 240
    assert in_shell(own, here).count("up to date") == 4
    shutil.copytree(REPOSITORY / "prune_cli", here / "copy" / "prune_cli")
    first, _ = kind.split("\n", 1)
    (here / "copy" / first.removeprefix("# ")).write_text(kind)
    assert run(["sh", "-e", "-c", with_kind], here, PYTHONPATH=str(here / "copy")).stderr.count("made in") == 2


@pytest.mark.slow
def test_the_readmes_pipeline(here: Path) -> None:
    """The pipeline of the README runs as it stands, and ends with a table of its nine methods."""
    done = run(["sh", "-e", "-c", blocks("README", "sh")[1]], here)
    lines, _, said = done.stdout.partition("\n\n")
    assert len({line.split()[0] for line in lines.splitlines()[1:]}) == 9
    assert said.startswith("Against random")


@pytest.mark.slow
def test_the_page_on_python(here: Path) -> None:
    """The example of the Python API runs as it stands, and prints what it says: 360 of 1,200 rows are kept."""
    (example,) = blocks("python", "python")
    done = run([sys.executable, "-c", example], here)
    first, rest = done.stdout.split("\n", 1)
    assert first == "360 rows in runs/kept/select.jsonl"
    assert '"accuracy"' in rest


def test_the_page_on_pipelines(tmp_path: Path, tiny_model: Path) -> None:
    """Each key of the example is accepted, and the plan is what its comments say."""
    example, *_ = blocks("pipeline", "toml")
    for name, n, start in (("train", 24, 0), ("validation", 6, 100), ("test", 6, 200), ("ood", 6, 300)):
        rows = [{"sentence": row["text"], "label": row["label"]} for row in sentences(n, start)]
        write_rows(tmp_path / f"{name}.jsonl", rows)
    (tmp_path / "mine.py").write_text(blocks("extending", "python")[0])
    for name in ("model", "a/smaller-model", "another/model"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).symlink_to(tiny_model)
    (tmp_path / "pipeline.toml").write_text(example)
    plan = read_plan(tmp_path / "pipeline.toml")
    assert [entry.name for entry in plan.entries] == ["full", "random", "less", "less-keep", "s2l-50", "mine"]
    assert (plan.proxy, plan.reference) == (str(tmp_path / "a/smaller-model"), str(tmp_path / "another/model"))
    assert (plan.removal, plan.lds, plan.corruption) == (True, 50, Corruption(0.1, 0.5, 0.1))
    assert (plan.warmup.epochs, plan.fraction, plan.finetune.epochs, plan.eval.batch_size) == (3, 0.05, 4, 64)


def test_the_entry_points_on_the_page_on_extending() -> None:
    """The example names the group that is looked at."""
    (example,) = blocks("extending", "toml")
    assert tomllib.loads(example)["project"]["entry-points"] == {
        "prune_cli.score": {"spread": "my_package.mine:spread"}
    }


@pytest.mark.parametrize("page", PAGES)
def test_commands_on_the_pages_are_commands(page: str) -> None:
    """Indented command lines have arguments and options that their commands accept."""
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]  # a group
    for line in commands(page):
        _, name, *arguments = shlex.split(line.split("  # ")[0])
        known[name].make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES)
def test_options_on_the_pages_are_options(page: str) -> None:
    """Whatever looks like an option is one of some command."""
    known = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]
    options = {text for command in known.values() for p in command.params for text in (*p.opts, *p.secondary_opts)}
    shown = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", PAGES[page]))
    assert shown <= options | OTHERS_OPTIONS


@pytest.mark.parametrize("page", PAGES)
def test_make_targets_on_the_pages_are_targets(page: str) -> None:
    """Whatever `make` is told to do, the Makefile can."""
    targets = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"(?:^    |`)make ([a-z-]+)", PAGES[page], re.MULTILINE)) <= targets


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")
def test_the_page_on_make(here: Path, tiny_model: Path) -> None:
    """The rules make everything once; a touched file costs a look; a changed option or row what depends on it."""
    (rules,) = blocks("make", "make")
    (here / "Makefile").write_text(rules)
    write_rows(here / "train.jsonl", sentences(24))
    path = f"{here / '.venv/bin'}:{os.environ['PATH']}"

    def make() -> tuple[int, int]:
        """How many artifacts were made, and how many were found up to date."""
        told = run(["make", "runs/model/manifest.json", f"MODEL={tiny_model}"], here, PATH=path).stderr
        return told.count("made in"), told.count("up to date")

    assert make() == (5, 0)
    assert make() == (0, 0)
    os.utime(here / "train.jsonl")
    assert make() == (0, 5)
    assert make() == (0, 0)
    assert "--keep 30%" in rules
    (here / "Makefile").write_text(rules.replace("--keep 30%", "--keep 20%"))
    assert make() == (2, 3)
    assert make() == (0, 0)
    write_rows(here / "train.jsonl", sentences(30))
    assert make() == (5, 0)


def test_the_table_of_methods() -> None:
    """The page on methods has the table of published.toml, no line more or less."""
    lines = [line for line in PAGES["methods"].splitlines() if line.startswith("|")]
    rows = [[str(getattr(method, column)) for column in COLUMNS] for method in published().values()]
    head = ["| name | representation | score | selection | objective | source |", "| --- " * 6 + "|"]
    assert lines == [*head, *(f"| {' | '.join(row)} |" for row in rows)]


def test_the_error_on_the_page_on_rows(tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """The example of an error is the one that its mistake gives."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "train.jsonl", [*sentences(6), {"text": " ", "label": "positive"}])
    ran = prune("select", "train.jsonl", "-o", "out", "--method", "random", "--keep", 1)
    assert f"    {ran.err.splitlines()[0]}\n" in PAGES["rows"]


def test_the_example_on_the_page_on_comparing(here: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """The commands give the table that stands below them."""
    monkeypatch.chdir(here)
    *first, last, _ = (shlex.split(line)[1:] for line in commands("compare"))
    assert [prune(*command).code for command in first] == [0] * 4
    assert prune(*last).out == blocks("compare", "text")[0]


def test_the_guide_prints_its_pages(prune: Prune) -> None:
    """`prune guide` lists every page, with a topic it prints one; the README has a line for each."""
    listed = prune("guide").out
    files = sorted(path.stem for path in Path(guide.__file__).parent.glob("*.md"))
    assert guide.topics() == files
    for topic in files:
        assert re.search(rf"^  {topic}  ", listed, re.MULTILINE)
        assert prune("guide", topic).out == (Path(guide.__file__).parent / f"{topic}.md").read_text("utf-8")
        assert f"| [{topic}](prune_cli/guide/{topic}.md) | " in README
    ran = prune("guide", "nothing")
    assert (ran.code, ran.errors) == (1, [f"topic: nothing; allowed: {', '.join(files)}"])


def test_the_readme_is_short() -> None:
    """The README has at most 140 lines; the rest is in the guide."""
    assert len(README.splitlines()) <= 140


def test_links_lead_somewhere() -> None:
    """Relative links of the README and of the pages are files."""
    for page, text in PAGES.items():
        folder = REPOSITORY if page == "README" else Path(guide.__file__).parent
        for link in re.findall(r"\]\(([^)#:]+)\)", text):
            assert (folder / link).exists(), (page, link)
