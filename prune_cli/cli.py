"""The command line: options -> one call, its result on stdout, the talk about it on stderr, an exit status.

Nothing heavy is imported here: each command imports what it needs when it runs, so that help is quick.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import inspect
import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.represent import kinds
from prune_cli.runtime import interrupt, processes
from prune_cli.version import __version__

if TYPE_CHECKING:
    from prune_cli.stages.common import Outcome

app = typer.Typer(
    help="Choose which fine-tuning examples are worth training on.",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)

PANEL = "Options of every stage"
# what the system refuses is no bug of ours: told in one line
NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_ACCESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG)
REFUSED = (*NO_SPACE, *NO_ACCESS, errno.EIO, errno.EMFILE)
# how safetensors and torch tell of a full disk, in exceptions of their own
NO_SPACE_IN_WORDS = rf"\(os error ({'|'.join(map(str, NO_SPACE))})\)|inline_container.*(unexpected pos|failed writing)"

INTERRUPTED = "interrupted: the same command again goes on from what is saved"


def main() -> None:
    """Run the command line and exit with its status."""
    hush()
    interrupt.listen()
    status = run(sys.argv[1:])
    processes.leave(status)
    sys.exit(status)


def hush() -> None:
    """Keep the libraries from talking on stderr, where no one has asked them to; before they are imported."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("DATASETS_VERBOSITY", "critical")  # its errors are raised as well
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    warnings.simplefilter("ignore", FutureWarning)  # from one library to another: nothing a user can act on


def run(arguments: Sequence[str]) -> int:
    """Run one command and return its exit status: 0 done, 1 expected error, 2 usage, 130 interrupted."""
    try:
        status = app(arguments, prog_name="prune", standalone_mode=False) or 0
        if status == 130 and processes.tells(INTERRUPTED):
            _tell(INTERRUPTED)
        sys.stdout.flush()
        return int(status)
    except PruneError as error:
        return _failed(error.message, error.hint, also=error.also)
    except typer.TyperException as error:  # wrong usage
        message = error.format_message().replace("Value error, ", "")
        if not message:  # no arguments at all: help was printed instead
            return error.exit_code
        context = getattr(error, "ctx", None)  # none where a command's own body complains
        command = context.command_path if context else f"prune {arguments[0]}"
        return _failed(message, f"{command} --help", error.exit_code)
    except processes.PeerLost:
        return _failed("another of the processes ended", "the same command again goes on from what is saved")
    except BrokenPipeError:  # whoever read our output has seen enough
        _drop_output()
        return 1
    except OSError as error:
        if error.errno not in REFUSED:
            raise
        _drop_output()
        return _failed(f"{error.filename or 'cannot write'}: {error.strerror}")
    except Exception as error:
        if not re.search(NO_SPACE_IN_WORDS, str(error)):
            raise
        return _failed("cannot write: no space left", "the same command again goes on from what is saved")


def _failed(message: str, hint: str | None = None, status: int = 1, also: Sequence[str] = ()) -> int:
    if not processes.tells(message):
        return status
    for problem in (message, *also):
        _tell(f"error: {' '.join(problem.splitlines())}")
    if hint:
        _tell(f"hint: {hint}")
    return status


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _drop_output() -> None:
    """Let what stdout could not take go nowhere: Python would try again at exit, and complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


def _report(outcome: Outcome, as_json: bool) -> None:
    """The result of a stage on stdout, what happened on stderr."""
    if not processes.first():
        return
    from prune_cli.report import outcome as report

    facts = report.facts(outcome)
    for line in report.lines(facts):
        _tell(line)
    print(json.dumps(facts, ensure_ascii=False) if as_json else outcome.out)


def _pairs(given: Sequence[str] | None, option: str) -> dict[str, str]:
    """`["k=3"]` -> {"k": "3"}."""
    pairs: dict[str, str] = {}
    for text in given or ():
        key, equals, value = (part.strip() for part in text.partition("="))
        if not (key and equals and value) or key in pairs:
            raise typer.BadParameter(f"{text}; allowed: KEY=VALUE, each key once", param_hint=option)
        pairs[key] = value
    return pairs


def _fields(given: list[str] | None) -> dict[str, str]:
    """`["text=sentence"]` -> {"text": "sentence"}."""
    from prune_cli.data.rows import parse_fields

    try:
        return parse_fields(given or ())
    except PruneError as error:
        raise typer.BadParameter(error.message.removeprefix("field: "), param_hint="--field") from error


def _version(wanted: bool) -> None:
    if wanted:
        print(f"prune-cli {__version__}")
        raise typer.Exit


Data = Annotated[
    str,
    typer.Argument(
        metavar="DATA",
        help="Rows: a .jsonl, .json, .csv, .tsv, .parquet or .arrow file, hf:NAME, - for JSONL on stdin, "
        "or an artifact that holds rows.",
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
Out = Annotated[Path, typer.Option("--out", "-o", help="The artifact to make: a folder.", show_default=False)]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="NAME=KEY",
        help="Read the rows' key KEY as NAME, as in text=sentence. Repeatable.",
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


COMMON = [
    _option("fields", Fields, None),
    _option("replace", Replace, False),
    _option("force", Force, False),
    _option("dry_run", DryRun, False),
    _option("as_json", AsJson, False),
]


def _stage(function: Callable[..., Outcome]) -> Callable[..., None]:
    """Make a stage's function a command that reports the outcome.

    In the command's signature its parameter `opts` becomes an option for each option of the record that it is
    annotated with, and `common` the options of every stage.
    """
    function.__annotations__.pop("return")  # the one name here that is not imported yet
    parameters: list[inspect.Parameter] = []
    record: type | None = None
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.name == "opts":
            record = parameter.annotation
            parameters += [_parameter(option) for option in _declared(record).values()]
        elif parameter.name == "common":
            parameters += COMMON
        else:
            parameters.append(_option(parameter.name, parameter.annotation, parameter.default))

    @functools.wraps(function)
    def command(fields: Any, replace: bool, force: bool, dry_run: bool, as_json: bool, **values: Any) -> None:
        from prune_cli.stages.common import How

        if record:
            given = {name: values.pop(name) for name in _declared(record)}
            values["opts"] = _build(record, given)
        how = How(force=force, replace=replace, dry_run=dry_run)
        _report(function(**values, fields=_fields(fields), how=how), as_json)

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
    text, default = option.help.text, option.default
    if option.choices:
        text = f"{text} One of {', '.join(option.choices)}."
        return _option(option.name, Annotated[option.type, typer.Option(help=text, show_choices=False)], default)
    if option.type is Mapping:
        hint = Annotated[list[str] | None, typer.Option(f"--{option.name}", metavar="KEY=VALUE", help=text)]
        return _option(option.name, hint, None)
    if default is None:
        return _option(option.name, Annotated[option.type | None, typer.Option(help=text)], None)
    missing = default is dataclasses.MISSING
    return _option(
        option.name,
        Annotated[option.type, typer.Option(help=text, show_default=not missing)],
        inspect.Parameter.empty if missing else default,
    )


@app.callback()
def _prune(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    processes.join(context.invoked_subcommand)


def _example(*commands: str) -> str:
    """The end of a command's help: commands that work beside sample_data."""
    return "Example:\n" + "\n".join(f"  {command}" for command in commands)


@app.command(
    epilog=_example(
        "prune represent sample_data/train.jsonl -o runs/train \\\n"
        "      --model runs/warmup --kind hidden,dynamics,gradient",
        "prune represent sample_data/validation.jsonl -o runs/validation \\\n      --model runs/warmup --kind gradient",
    )
)
@_stage
def represent(data: Data, out: Out, opts: options.Represent, **common: Any) -> Outcome:
    """Represent each row by a model's hidden states, training dynamics, projected gradients or influence."""
    from prune_cli.stages.represent import represent

    return represent(data, out, opts, **common)


@app.command(
    epilog=_example(
        "prune score runs/train -o runs/less \\\n      --method less --on gradient --target runs/validation"
    )
)
@_stage
def score(inputs: Inputs, out: Out, opts: options.Score, **common: Any) -> Outcome:
    """Give each row a number: how hard, how typical, how relevant it is."""
    from prune_cli.stages.score import score

    return score(inputs, out, opts, **common)


@app.command(epilog=_example("prune select runs/less -o runs/kept \\\n      --method top --keep 30% --balance keep"))
@_stage
def select(inputs: Inputs, out: Out, opts: options.Select, **common: Any) -> Outcome:
    """Keep the rows that a method chooses, best first, ready for any trainer."""
    from prune_cli.stages.select import select

    return select(inputs, out, opts, **common)


@app.command(
    epilog=_example(
        "prune finetune sample_data/train.jsonl -o runs/warmup \\\n"
        "      --model sample_data/model --learning-rate 1e-3 --keep-checkpoints epoch",
        "prune finetune runs/kept -o runs/model \\\n      --model sample_data/model --learning-rate 1e-3",
    )
)
@_stage
def finetune(data: Data, out: Out, opts: options.Finetune, **common: Any) -> Outcome:
    """Train a model on rows, or on those that a selection kept; records training dynamics on the way."""
    from prune_cli.stages.finetune import finetune

    return finetune(data, out, opts, **common)


@app.command(
    "eval",
    epilog=_example("prune eval runs/model sample_data/test.jsonl sample_data/ood.jsonl \\\n      -o runs/metrics"),
)
@_stage
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A finetune artifact, or a model with a trained head: hub name or folder.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="Test sets, named by their file stems or as in ood=data/test.jsonl.",
            show_default=False,
        ),
    ],
    out: Out,
    opts: options.Eval,
    **common: Any,
) -> Outcome:
    """Measure a trained model on test sets: loss, accuracy, F1, and every prediction."""
    from prune_cli.data.open import test_sets
    from prune_cli.stages.evaluate import evaluate

    return evaluate(model, test_sets(data), out, opts, **common)


@app.command(epilog=_example("prune methods", "prune methods less"))
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One method: what it does and its options.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the published methods, each a representation and a selection; and what each half can be."""
    from prune_cli.report import methods as report

    facts = report.one_method(name) if name else report.all_methods()
    text = report.one_method_text if name else report.all_methods_text
    print(json.dumps(facts, ensure_ascii=False) if as_json else text(facts))


@app.command("show", epilog=_example("prune show runs/kept"))
def show_artifact(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder made by prune.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an artifact is, how it was made, from what, and whether it is whole."""
    from prune_cli.report import artifact as report

    facts = report.facts(artifact)
    print(json.dumps(facts, ensure_ascii=False) if as_json else report.text(facts))
    if facts["damaged"]:
        raise PruneError(
            f"{artifact}: damaged: {', '.join(facts['damaged'])}",
            hint="make it again: the command above, with --force",
        )


@app.command(epilog=_example("prune guide", "prune guide methods"))
def guide(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", help="A page of the guide.")] = None,
) -> None:
    """Print a page of the guide; without a topic, the list of pages."""
    from prune_cli import guide as pages

    print(pages.page(topic) if topic else pages.contents())


@app.command(epilog=_example("prune pipeline sample_data/pipeline.toml -o runs/sample"))
def pipeline(
    file: Annotated[Path, typer.Argument(metavar="FILE.toml", help="What to run.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="Folder of all that is made; if left out, runs/ and the file's stem."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where to run, in place of the file's: auto, cpu, cuda or cuda:N.")
    ] = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Compare methods, budgets and seeds as a file says: each selection trained on and measured."""
    from prune_cli.pipeline import results, run
    from prune_cli.report.outcome import happened
    from prune_cli.report.table import table

    def tell(step: str, done: Outcome) -> None:
        _tell(f"{step}: {happened(done.state, done.reason, done.seconds)}")

    report = run.run(file, out or Path("runs", file.stem), device=device, dry_run=dry_run, tell=tell)
    ran = "would run" if dry_run else "made"
    count, current = report.count(ran), report.count("current")
    _tell(f"pipeline: {f'{count} {ran}' if count else 'nothing to do'}, {current} up to date")
    if as_json:
        print(json.dumps(report.facts, ensure_ascii=False))
    elif dry_run:
        print(report.out)
    else:
        print(*table(list(results.table(report))), sep="\n")
