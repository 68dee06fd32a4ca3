"""The options of the stages as Typer takes them: declared in their records, put into signatures of commands here."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prune_cli import options
from prune_cli.data import formats
from prune_cli.errors import PruneError
from prune_cli.represent import kinds

if TYPE_CHECKING:
    from prune_cli.data.open import Reading
    from prune_cli.stages.common import Outcome

PANEL = "Options of every stage"
Report = Callable[["Outcome", bool], None]

Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Rows: a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, a pattern such as 'part-*.jsonl', hf:NAME, "
        "- for JSONL on stdin, or an artifact that holds rows.",
        show_default=False,
    ),
]
Inputs = Annotated[
    list[str],
    typer.Argument(
        metavar="ARTIFACT",
        help="What to work on: represent and score artifacts, or a data file.",
        show_default=False,
    ),
]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA",
        help="Training rows; of several files those called validation or test are taken for such.",
        show_default=False,
    ),
]
Written = Annotated[Path | None, typer.Option("--out", "-o", help="The file to write; if left out, it is printed.")]
SomeModel = Annotated[
    str | None, typer.Option(help="The model to train; if left out, a small one of the hub that fits the task.")
]
ValidationRows = Annotated[str | None, typer.Option(help="Validation rows; if left out, a part of the training rows.")]
TestRows = Annotated[
    list[str] | None, typer.Option(help="Test rows, or NAME=FILE. Repeatable; if none, a part of the training rows.")
]
SomeTemplate = Annotated[
    str | None,
    typer.Option("--chat-template", metavar="FILE", help="generation: a Jinja file in place of the chat template."),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="The artifact to make: a folder.", show_default=False)]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="NAME=KEY",
        help="Read the rows' key KEY as NAME, as in text=sentence. Repeatable; of several keys for one name the first "
        "that a file has.",
        rich_help_panel=PANEL,
    ),
]
Format = Annotated[
    str,
    typer.Option(
        "--format",
        help=f"generation: how the rows are written: {', '.join(formats.names())}; auto: as they look.",
        rich_help_panel=PANEL,
    ),
]
Drop = Annotated[
    list[str] | None,
    typer.Option("--drop", metavar="KEY", help="Leave the rows' key KEY out. Repeatable.", rich_help_panel=PANEL),
]
SkipBad = Annotated[
    Path | None,
    typer.Option(
        "--skip-bad",
        metavar="FILE",
        help="Leave bad rows out, and write them with their reasons into FILE.",
        rich_help_panel=PANEL,
    ),
]
Replace = Annotated[
    bool,
    typer.Option("--replace", help="Make the artifact again if it is not up to date.", rich_help_panel=PANEL),
]
Force = Annotated[bool, typer.Option("--force", help="Make the artifact again in any case.", rich_help_panel=PANEL)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would run, and why.", rich_help_panel=PANEL)]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.", rich_help_panel=PANEL)]


def _option(name: str, hint: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hint)


READING = [
    _option("fields", Fields, None),
    _option("format", Format, formats.AUTO),
    _option("drop", Drop, None),
    _option("skip_bad", SkipBad, None),
]
MAKING = [
    _option("replace", Replace, False),
    _option("force", Force, False),
    _option("dry_run", DryRun, False),
    _option("as_json", AsJson, False),
]


def stage_command(function: Callable[..., Outcome], report: Report) -> Callable[..., None]:
    """Make a stage's function a command that reports the outcome, as JSON if asked to.

    In the command's signature its parameter `opts` becomes an option for each option of the record that it is
    annotated with, `common` the options of every stage that reads rows, and `how` those of one that does not.
    """
    function.__annotations__.pop("return")  # the one name here that is not imported yet
    parameters: list[inspect.Parameter] = []
    record: type | None = None
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.name == "opts":
            record = parameter.annotation
            parameters += [_parameter(option) for option in _declared(record).values()]
        elif parameter.name == "common":
            parameters += [*READING, *MAKING]
        elif parameter.name == "how":
            parameters += MAKING
        else:
            parameters.append(_option(parameter.name, parameter.annotation, parameter.default))

    @functools.wraps(function)
    def command(replace: bool, force: bool, dry_run: bool, as_json: bool, **values: Any) -> None:
        from prune_cli.stages.common import How

        if record:
            given = {name: values.pop(name) for name in _declared(record) if name in values}
            values["opts"] = _build(record, given)
        if "skip_bad" in values:
            values["reading"] = reading_asked(**{option.name: values.pop(option.name) for option in READING})
        values["how"] = How(force=force, replace=replace, dry_run=dry_run)
        report(function(**values), as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _declared(record: type) -> dict[str, options.Option]:
    """The options of a stage's record as the command line has them: `represent` has those of its kinds too."""
    declared = options.declared(record)
    if record is not options.Represent:
        return declared
    del declared["kind_options"]
    for name, option in kinds.options().items():
        text = f"{', '.join(kinds.users(name))}: {option.help.text}"
        declared[name] = dataclasses.replace(option, help=dataclasses.replace(option.help, text=text))
    return declared


def _build(record: type, given: dict[str, Any]) -> Any:
    """The record of the values given; what was left out is left to the record."""
    values = {name: value for name, value in given.items() if value is not None}
    if "set" in values:
        values["set"] = _pairs(values["set"], "--set")
    return kinds.build(values) if record is options.Represent else options.build(record, values)


def _parameter(option: options.Option) -> inspect.Parameter:
    """An option as Typer takes it: its help names few choices, any other value is wrong usage."""
    name, default = option.name, option.default
    shown: dict[str, Any] = {"help": option.help.text, "rich_help_panel": option.help.panel}
    if option.choices:
        shown["help"] = f"{option.help.text} One of {', '.join(option.choices)}."
        return _option(name, Annotated[option.type, typer.Option(**shown, show_choices=False)], default)
    if option.type is Mapping:
        return _option(name, Annotated[list[str] | None, typer.Option(f"--{name}", metavar="KEY=VALUE", **shown)], None)
    if option.type is tuple:
        flag = typer.Option(f"--{name}", metavar="DATA", **shown)
        return _option(name, Annotated[list[str] | None, flag], None)
    if default is False:  # a flag: nothing is gained by its opposite, and the help has no room for both
        return _option(name, Annotated[bool, typer.Option(f"--{name.replace('_', '-')}", **shown)], False)
    if default is None:
        return _option(name, Annotated[option.type | None, typer.Option(**shown)], None)
    missing = default is dataclasses.MISSING
    flags = [f"--{name.removesuffix('_')}"] if name.endswith("_") else []  # a word of Python's
    return _option(
        name,
        Annotated[option.type, typer.Option(*flags, **shown, show_default=not missing)],
        inspect.Parameter.empty if missing else default,
    )


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """`["k=3"]` -> {"k": "3"}."""
    pairs: dict[str, str] = {}
    for text in given or ():
        key, equals, value = (part.strip() for part in text.partition("="))
        if key in pairs:
            raise typer.BadParameter(f"{text}; {key} is given twice; allowed: each key once", param_hint=option)
        if not (key and equals and value):
            raise typer.BadParameter(f"{text}; allowed: KEY=VALUE", param_hint=option)
        pairs[key] = value
    return pairs


def reading_asked(fields: list[str] | None, format: str, drop: list[str] | None, skip_bad: Path | None) -> Reading:
    """How rows are read, as options say it."""
    from prune_cli.data.open import Reading

    return Reading(_fields(fields), tuple(drop or ()), skip_bad is not None, skip_bad, format)


def _fields(given: list[str] | None) -> dict[str, str | tuple[str, ...]]:
    """`["text=sentence"]` -> {"text": "sentence"}."""
    from prune_cli.data.fields import parse_fields

    try:
        return parse_fields(given or ())
    except PruneError as error:
        raise typer.BadParameter(error.message.removeprefix("field: "), param_hint="--field") from error
