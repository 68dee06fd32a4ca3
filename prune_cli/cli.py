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
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from prune_cli import __version__, options
from prune_cli.errors import PruneError
from prune_cli.runtime import interrupt, processes

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
    from prune_cli.report import show

    facts = show.outcome(outcome)
    for line in show.outcome_lines(facts):
        _tell(line)
    print(json.dumps(facts, ensure_ascii=False) if as_json else outcome.out)


def _settings(given: list[str] | None) -> dict[str, str]:
    """`["k=3"]` -> {"k": "3"}."""
    found: dict[str, str] = {}
    for pair in given or ():
        key, equals, value = pair.partition("=")
        if not (key and equals) or key in found:
            raise typer.BadParameter(f"{pair}; allowed: KEY=VALUE, each key once", param_hint="--set")
        found[key] = value
    return found


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
Method = Annotated[str, typer.Option(help="Name of the method; `prune methods` lists them.")]
On = Annotated[str | None, typer.Option(help="Which representation, where the method runs on any of them.")]
Target = Annotated[
    str | None,
    typer.Option(help="Represent artifact of the rows to be good at, where the method asks for it."),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="An option of the method; `prune methods NAME` lists them. Repeatable.",
    ),
]
Balance = Annotated[
    Literal["none", "keep", "equal"],
    typer.Option(
        help="Of each label or group: as it comes (none), in the data's ratio (keep), or the same share (equal).",
        show_choices=False,
    ),
]
BalanceBy = Annotated[
    Literal["label", "group"],
    typer.Option(help="What is balanced: the labels, or the groups (subtasks, sources).", show_choices=False),
]
Task = Annotated[
    str | None,
    typer.Option(help="What the rows of a data file are, classification if left out; artifacts know theirs."),
]
Seed = Annotated[int, typer.Option(help="Seed of everything random.")]
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
    typer.Option("--replace", help="Make it again where what is there was made otherwise.", rich_help_panel=PANEL),
]
Force = Annotated[bool, typer.Option("--force", help="Make it again in any case.", rich_help_panel=PANEL)]
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

    In the command's signature its parameter `opts` becomes an option for each field of the record that it is
    annotated with, and `common` the options of every stage.
    """
    function.__annotations__.pop("return")  # the one name here that is not imported yet
    parameters: list[inspect.Parameter] = []
    record = None
    for parameter in inspect.signature(function, eval_str=True).parameters.values():
        if parameter.name == "opts":
            record = parameter.annotation
            parameters += _options_of(record)
        elif parameter.name == "common":
            parameters += COMMON
        else:
            parameters.append(_option(parameter.name, parameter.annotation, parameter.default))

    @functools.wraps(function)
    def command(fields: Any, replace: bool, force: bool, dry_run: bool, as_json: bool, **values: Any) -> None:
        from prune_cli.stages import common

        if record:
            values["opts"] = record(**{entry.name: values.pop(entry.name) for entry in dataclasses.fields(record)})
        how = common.How(force=force, replace=replace, dry_run=dry_run)
        _report(function(**values, fields=_fields(fields), how=how), as_json)

    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # Typer reads it
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _options_of(record: type) -> list[inspect.Parameter]:
    found = []
    described = options.described(record)
    for entry in dataclasses.fields(record):
        kind, opt = described[entry.name]
        hint = _choice(opt.help, *opt.choices) if opt.choices else Annotated[kind, typer.Option(help=opt.help)]
        missing = entry.default is dataclasses.MISSING
        found.append(_option(entry.name, hint, inspect.Parameter.empty if missing else entry.default))
    return found


def _choice(text: str, *allowed: str) -> Any:
    """An option with few values: its help names them, any other is wrong usage."""
    text = f"{text} One of {', '.join(allowed)}."
    return Annotated[Literal[allowed], typer.Option(help=text, show_choices=False)]


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
def represent(
    data: Data,
    out: Out,
    opts: options.Represent,
    target: Annotated[
        str | None, typer.Option(help="influence: data of the rows to be good at; their groups stay apart.")
    ] = None,
    **common: Any,
) -> Outcome:
    """Represent each row by a model's hidden states, training dynamics, projected gradients or influence."""
    from prune_cli.stages import all as stages

    return stages.represent(data, out, opts, target, **common)


@app.command(
    epilog=_example(
        "prune score runs/train -o runs/less \\\n      --method less --on gradient --target runs/validation"
    )
)
@_stage
def score(
    inputs: Inputs,
    out: Out,
    method: Method,
    on: On = None,
    target: Target = None,
    task: Task = None,
    set_: Set = None,
    seed: Seed = 0,
    **common: Any,
) -> Outcome:
    """Give each row a number: how hard, how typical, how relevant it is."""
    from prune_cli.stages import all as stages

    return stages.score(
        inputs,
        out,
        method,
        on=on,
        target=target,
        task=task,
        set_options=_settings(set_),
        seed=seed,
        **common,
    )


@app.command(epilog=_example("prune select runs/less -o runs/kept \\\n      --method top --keep 30% --balance keep"))
@_stage
def select(
    inputs: Inputs,
    out: Out,
    method: Method,
    keep: Annotated[str, typer.Option(help="How much is kept: a share (0.3 or 30%) or a number of rows (500).")],
    balance: Balance = "none",
    balance_by: BalanceBy = "label",
    on: On = None,
    target: Target = None,
    task: Task = None,
    set_: Set = None,
    seed: Seed = 0,
    **common: Any,
) -> Outcome:
    """Keep the rows that a method chooses, best first, ready for any trainer."""
    from prune_cli.stages import all as stages

    return stages.select(
        inputs,
        out,
        method,
        keep=keep,
        balance=balance,
        balance_by=balance_by,
        on=on,
        target=target,
        task=task,
        set_options=_settings(set_),
        seed=seed,
        **common,
    )


@app.command(
    epilog=_example(
        "prune finetune sample_data/train.jsonl -o runs/warmup \\\n"
        "      --model sample_data/model --learning-rate 1e-3 --checkpoints epoch",
        "prune finetune runs/kept -o runs/model \\\n      --model sample_data/model --learning-rate 1e-3",
    )
)
@_stage
def finetune(data: Data, out: Out, opts: options.Finetune, **common: Any) -> Outcome:
    """Train a model on rows, or on what was kept of them; records training dynamics on the way."""
    from prune_cli.stages import all as stages

    return stages.finetune(data, out, opts, **common)


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
    from prune_cli.stages import all as stages

    return stages.evaluate(model, test_sets(data), out, opts, **common)


@app.command(epilog=_example("prune methods", "prune methods less"))
def methods(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="One method: what it does and its options.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the published methods, each a representation and a selection; and what each half can be."""
    from prune_cli.report import show

    facts = show.method(name) if name else show.all_methods()
    text = show.method_text if name else show.all_methods_text
    print(json.dumps(facts, ensure_ascii=False) if as_json else text(facts))


@app.command("show", epilog=_example("prune show runs/kept"))
def show_artifact(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="A folder made by prune.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what an artifact is, how it was made, from what, and whether it is whole."""
    from prune_cli.report import show

    facts = show.artifact(artifact)
    print(json.dumps(facts, ensure_ascii=False) if as_json else show.artifact_text(facts))
    if facts["damaged"]:
        raise PruneError(
            f"{artifact}: damaged: {', '.join(facts['damaged'])}",
            hint="make it again: the command above, with --force",
        )


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
    from prune_cli.pipeline import run as runner
    from prune_cli.report import show

    def tell(step: str, done: Outcome) -> None:
        _tell(f"{step}: {show.happened(done.state, done.reason, done.seconds)}")

    report = runner.run(file, out or Path("runs", file.stem), device=device, dry_run=dry_run, tell=tell)
    ran = "would run" if dry_run else "made"
    count, current = report.count(ran), report.count("current")
    _tell(f"pipeline: {f'{count} {ran}' if count else 'nothing to do'}, {current} up to date")
    if as_json:
        print(json.dumps(show.pipeline(report), ensure_ascii=False))
    elif dry_run:
        print(report.out)
    else:
        print(*show.table(list(runner.describe(report))), sep="\n")
