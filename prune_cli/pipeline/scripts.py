"""The steps of a pipeline for other engines: a Makefile, job arrays for Slurm, plain commands.

Each command is the pipeline's own with one step, `prune pipeline FILE -o OUT --only STEP`: that makes the very artifact
that the whole pipeline makes, options and all, so that the last command has nothing left to do but the table.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path

from prune_cli.artifacts.manifest import MANIFEST
from prune_cli.errors import PruneError
from prune_cli.pipeline.results import RESULTS
from prune_cli.pipeline.work import Step, Work, strings

PLAIN = re.compile(r"[\w./,+@%-]+", re.ASCII)  # what a target of make can be called without more ado

Command = Callable[..., Sequence[str]]  # arguments of prune, with or without one step


def commands(work: Work, command: Command, file: Path) -> str:
    """A command a line, in order; the last puts the table together."""
    lines = [_shell(command(only=work.name(step))) for step in work.steps]
    return "\n".join([*lines, _shell(command())])


def make(work: Work, command: Command, file: Path) -> str:
    """A Makefile, whose targets are the manifests: made again when the pipeline's file or a file of rows is newer."""
    rows = {step.out: row_files(step) for step in work.steps}
    for path in (file, *(path for own in rows.values() for path in own), *(step.out for step in work.steps)):
        if not PLAIN.fullmatch(str(path)):
            raise PruneError(
                f"{path}: a name that make would not take; allowed: letters, digits and . _ / , + @ % -",
                hint="other names, or --print commands",
            )
    table = work.out / RESULTS
    rules = [
        f"# {_shell(command())}, a step a rule; to be run where the paths lead on, as make -j2 -f FILE",
        "PRUNE ?= prune",
        ".PHONY: all",
        f"all: {table}",
        _rule(table, [file], [step.out for step in work.steps], command()),
    ]
    rules += [
        _rule(step.out / MANIFEST, [file, *rows[step.out]], step.needs, command(only=work.name(step)))
        for step in work.steps
    ]
    return "\n\n".join(rules)


def row_files(step: Step) -> list[Path]:
    """The files, not made by the pipeline, whose rows a step reads."""
    return [Path(name) for name in dict.fromkeys(strings(step.given)) if Path(name).is_file()]


def _rule(target: Path, files: Sequence[Path], needs: Sequence[Path], command: Sequence[str]) -> str:
    before = " ".join(map(str, (*files, *(need / MANIFEST for need in needs))))
    escaped = str(target).replace("%", r"\%")  # or it would be a pattern
    # touched, or what is up to date for all that would be looked at by every make
    return f"{escaped}: {before}\n\t$(PRUNE) {shlex.join(command).replace('$', '$$')}\n\t@touch -c $@"


def slurm(work: Work, command: Command, file: Path) -> str:
    """A script that submits arrays: what all share, selections, trials, and the table."""
    made = (*work.trials.values(), *work.halves)
    levels = {
        "shared": ["shared"],
        "selections": list(dict.fromkeys(_name(work, each.selected) for each in made if each.selected)),
        "trials": [_name(work, each.judged) for each in made],
    }
    lines = [
        "#!/bin/bash",
        "# job arrays, each after the one before; partition, time and GPUs by variables of sbatch, SBATCH_PARTITION…",
        "set -e",
    ]
    after = ""
    for level, names in levels.items():
        if names:
            words = "\n".join(f"  {shlex.quote(name)}" for name in names)
            lines += [
                "",
                f"{level}=$(sbatch --parsable --job-name=prune-{level} --array=0-{len(names) - 1}{after} <<'END'",
                "#!/bin/bash",
                f"steps=(\n{words}\n)",
                f'{_shell(command())} --only "${{steps[$SLURM_ARRAY_TASK_ID]}}"',
                "END",
                ")",
            ]
            after = f' --dependency=afterok:"${{{level}%%;*}}"'
    lines += ["", f"sbatch --job-name=prune-table{after} <<'END'", "#!/bin/bash", _shell(command()), "END"]
    return "\n".join(lines)


def _name(work: Work, path: Path) -> str:
    return path.relative_to(work.out).as_posix()


def _shell(command: Sequence[str]) -> str:
    return shlex.join(["prune", *command])


FORMS = {"make": make, "slurm": slurm, "commands": commands}
