"""What trials stand on: the settings, the rows to draw from, the target set, the rows to measure on, the methods."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from prune_cli import tasks
from prune_cli.artifacts.files import replace_file
from prune_cli.data.open import LM_EVAL, SELECTED, Reading, open_rows, write_bad_rows
from prune_cli.data.sources import HUB
from prune_cli.data.split import REST, Parts
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.published import PublishedMethod, published
from prune_cli.models import find
from prune_cli.pipeline.advise.behind import short
from prune_cli.pipeline.advise.choice import FULL, NONE
from prune_cli.pipeline.checks import can_be_judged, read_plan, read_table
from prune_cli.pipeline.entries import read_entry
from prune_cli.pipeline.evidence import BASELINE
from prune_cli.pipeline.look import look
from prune_cli.pipeline.propose import propose
from prune_cli.pipeline.row_checks import rows_of
from prune_cli.pipeline.schema import MODELS, Plan
from prune_cli.represent import kinds
from prune_cli.runtime.progress import note
from prune_cli.stages.common import How
from prune_cli.stages.split import Part, split

QUIETLY = How(replace=True, warn=False)
MEASURED = "measured"  # the half of the target set that trials are measured on
# of the settings: what is done with, what each round says, and what is for other ends
LEFT_OUT = ("drop", "skip_bad", "split_seed", "random_seeds", "removal", "lds")
ALWAYS = (FULL, NONE, BASELINE)
SETTINGS = "settings.toml"
HEADER = "# Settings of the trials of prune advise, which choose methods, keep and seeds themselves."


@dataclass(frozen=True)
class Ground:
    """What trials stand on. Rows are files, as they came, but for keys that were dropped.

    table: the settings, its paths absolute. n, labels: of the training rows; rarest: rows of the rarest label.
    originals: what the user gave, in place of a file of rows. untrained: whether the model can be judged as it is.
    """

    table: dict[str, Any]
    train: str
    target: str | None
    test: tuple[str, str]  # name, rows
    task: str
    reading: Reading
    n: int
    rarest: int
    labelled: bool
    entries: dict[str, Any]  # name of a method -> how a pipeline file says it
    untrained: bool
    metrics: tuple[str, ...]
    originals: dict[Path, str]
    digests: dict[str, str]
    steps: bool  # whether all trainings take as many steps, however many rows there are

    def original(self, rows: str) -> str:
        """What the user gave, and a file of rows was made of."""
        given = self.originals.get(Path(rows), rows)
        return short(Path(given)) if Path(given).exists() else given

    def share(self, keep: str) -> str:
        """What --keep says as a share, which a sub-pool keeps too."""
        count = parse_keep(keep, self.n)
        return str(count / self.n) if keep.strip().isdecimal() else keep.strip()


def from_data(data: str, model: str, target: str, test: str | None, reading: Reading, out: Path) -> Path:
    """Write the settings that fit data, as `prune init` has them; returns their file."""
    seen = look([data], target, {MEASURED: test or target}, reading, model)
    proposal = propose(seen, model, out / SETTINGS)
    out.mkdir(parents=True, exist_ok=True)
    text = f"{HEADER}\n{proposal.text}"
    replace_file(out / SETTINGS, lambda path: path.write_text(text, "utf-8"))
    for line in proposal.told:
        note(f"advise: {line}")
    return out / SETTINGS


def ground(file: Path, names: str | None, out: Path, seed: int, *, halve: bool) -> Ground:
    """All that trials by a pipeline file stand on. names: methods with commas, in place of the file's.

    halve: whether one half of the target set is measured on, in place of the file's test sets.
    """
    plan = read_plan(file)
    if not plan.corruption.idle:
        raise PruneError(f"{file}: corrupt; trials are of the rows as they are; leave it out")
    if plan.decontaminate:
        raise PruneError(
            f"{file}: decontaminate; trials are of the rows as they are; leave it out",
            hint="prune select DATA --method random --keep 100% --decontaminate TEST makes rows to give instead",
        )
    if plan.bad_rows:
        write_bad_rows(plan.bad_rows, list(rows_of(plan).values()))
    parts = plan.parts.names if plan.parts.shares else []
    for part in parts:
        split(plan.train, out / "split" / part, Part(part, plan.parts, plan.task), plan.reading, QUIETLY)
    placed = plan.placed(out / "split")
    train, target = _file(placed.train), _file(placed.validation) if placed.validation else None
    originals = {Path(train): placed.train, **({Path(target): placed.validation or ""} if target else {})}
    name, test = next(((n, t) for n, t in placed.tests.items() if not t.startswith(LM_EVAL)), ("", ""))
    if halve and target:
        half = Parts({MEASURED: 0.5}, seed)
        for part in half.names:
            split(target, out / "target" / part, Part(part, half, plan.task), plan.reading, QUIETLY)
        note(f"advise: no --test given: one half of {short(Path(plan.validation or ''))} is the target set")
        note("advise: the other half, drawn at random, is what trials are measured on")
        name, test = MEASURED, str(out / "target" / MEASURED)
        target = _file(str(out / "target" / REST))
        originals[Path(target)] = placed.validation or ""
    elif not name:
        raise PruneError(f"{file}: tests: only tasks of lm-eval; allowed: rows to measure on")
    task = tasks.load(plan.task)
    own = tasks.reading_of(plan.task, plan.reading)
    rows = {role: open_rows(data, own, task.check) for role, data in (("train", train), ("test", _file(test)))}
    labels = task.label_list(rows["train"])
    counts = np.bincount(task.label_indices(rows["train"], labels)) if labels else np.array([len(rows["train"])])
    return Ground(
        table=_table(file, plan),
        train=train,
        target=target,
        test=(name, _file(test)),
        task=plan.task,
        reading=plan.reading,
        n=len(rows["train"]),
        rarest=int(counts.min()),
        labelled=bool(labels),
        entries=_entries(plan, file, names, has_target=target is not None, listed=file != out / SETTINGS),
        untrained=can_be_judged(find.find(plan.model), plan.task),
        metrics=task.TABLE_METRICS,
        originals=originals,
        digests={role: some.digest for role, some in rows.items()},
        steps=plan.finetune.steps > 0,
    )


def fitting(task: str, *, labelled: bool, has_target: bool) -> list[str]:
    """The published methods that fit a task: what its rows can be represented by, at no more than a pass of gradients.

    Relevance is in the ratio of the labels where there are any: it may keep no row of some otherwise.
    """
    names = []
    for name, method in published().items():
        if method.objective != "baseline" and _fits(method, task) and (has_target or not method.wants_target):
            names.append(f"{name}-keep" if method.objective == "relevance" and labelled else name)
    return names


def _fits(method: PublishedMethod, task: str) -> bool:
    needs = {need for kind in method.kinds for need in kinds.load(kind).needs & kinds.OF_TASK}
    return (
        needs <= tasks.load(task).OFFERS
        and "influence" not in method.kinds  # exact, at a price: LESS without its projection
        and "precondition" not in method.represent_options  # wants moments
        and method.select != "bottom"  # from the wrong end, to compare with
        and (method.model is None or task == "generation")  # a model without a head tells little before training
    )


def _file(data: str) -> str:
    """Data as any pipeline file may name it: an absolute path; of an artifact of ours the file with its rows."""
    path = Path(data)
    rows = path / SELECTED if (path / SELECTED).is_file() else path
    return data if data.startswith(HUB) else str(Path.cwd() / os.path.normpath(rows))


def _entries(plan: Plan, file: Path, names: str | None, *, has_target: bool, listed: bool) -> dict[str, Any]:
    """The methods to try by name: those named, else those of the user's file (listed), else all that fit."""
    if names is None and listed:
        given = [_placed_entry(entry, file.parent) for entry in read_table(file)["methods"]]
    else:
        labelled = plan.task == "classification"
        fits = fitting(plan.task, labelled=labelled, has_target=has_target)
        given = list(dict.fromkeys(name.strip() for name in names.split(","))) if names else fits
    found = {read_entry(entry, file.parent).name: entry for entry in given}
    found = {name: entry for name, entry in found.items() if name not in ALWAYS}
    lacking = [name for name, e in found.items() if read_entry(e, file.parent).method.wants_target and not has_target]
    if lacking:
        raise PruneError(f"methods: {lacking[0]} needs a target set; --target, or validation in the file")
    if not found:
        raise PruneError("methods: none to try; allowed: any but full, random and none, which are always in")
    return found


def _placed_entry(entry: Any, folder: Path) -> Any:
    """A method of the file, with paths of a user's own functions absolute."""
    if not isinstance(entry, dict):
        return entry
    own = {k: str((folder / v).resolve()) for k, v in entry.items() if k in methods.STAGES and methods.is_file(str(v))}
    return entry | own


def _table(file: Path, plan: Plan) -> dict[str, Any]:
    """The settings of a pipeline file for rounds elsewhere: paths absolute, without what rounds say."""
    table = {name: value for name, value in read_table(file).items() if name not in LEFT_OUT}
    for name in MODELS:
        if name in table and Path(getattr(plan, name)).exists():
            table[name] = str(Path(getattr(plan, name)).resolve())
    for name, option in (("warmup", "chat_template"), ("represent", "chat_template"), ("finetune", "chat_template")):
        _absolute(table, name, option, file.parent)
    for option in ("chat_template", "lm_eval_tasks"):
        _absolute(table, "eval", option, file.parent)
    return table


def _absolute(table: dict[str, Any], name: str, option: str, folder: Path) -> None:
    """Make a path of an option table absolute."""
    if option in table.get(name, {}):
        table[name] = {**table[name], option: str((folder / table[name][option]).resolve())}
