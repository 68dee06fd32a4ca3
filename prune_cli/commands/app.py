"""The app that every command is registered with, and how commands tell their results."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prune_cli.parameters import stage_command
from prune_cli.runtime import processes
from prune_cli.runtime.terminal import clean
from prune_cli.version import __version__

if TYPE_CHECKING:
    from prune_cli.stages.common import Outcome

app = typer.Typer(
    help="Choose which fine-tuning examples are worth training on.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)


def tell(line: str) -> None:
    """A line on stderr."""
    print(clean(line), file=sys.stderr, flush=True)


def show(facts: Any, text: str, as_json: bool) -> None:
    """The result on stdout: as one JSON object, or in words."""
    print(json.dumps(facts, ensure_ascii=False) if as_json else clean(text))


def _report(outcome: Outcome, as_json: bool) -> None:
    """The result of a stage on stdout, what happened on stderr."""
    if not processes.first():
        return
    from prune_cli.report import outcome as report

    facts = report.facts(outcome)
    for line in report.lines(facts):
        tell(line)
    show(facts, str(outcome.out), as_json)


def stage(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Make a stage's function its command."""
    return stage_command(function, _report)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"prune-cli {__version__}")
        raise typer.Exit


@app.callback()
def _prune(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    processes.join(context.invoked_subcommand)


def example(*commands: str) -> str:
    """The end of a command's help: commands that work beside sample_data."""
    return "Example:\n" + "\n".join(f"  {command}" for command in commands)
