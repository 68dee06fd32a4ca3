"""`prune finetune`: a model trained on rows, with the training dynamics recorded on the way."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.artifacts import code, manifest
from prune_cli.artifacts.manifest import Recipe, open_artifact
from prune_cli.data import fingerprints
from prune_cli.data.open import Reading, check_of_use, open_rows, task_name
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.models import device as devices
from prune_cli.models import find
from prune_cli.runtime import processes
from prune_cli.stages.common import How, Outcome, done, making, settle, task_code, tell_bad_rows, template_digest
from prune_cli.tasks import Task
from prune_cli.training import log

CODE = ("prune_cli.training", "prune_cli.models")  # beside the task's own code, what a trained model may depend on


def finetune(data: str, out: Path, opts: options.Finetune, reading: Reading, how: How) -> Outcome:
    """Fine-tune on rows, or on what a select artifact kept: weights, checkpoints, recorded dynamics, log.

    data: a data file, or a represent or select artifact.
    """
    check_of_use([data], reading)
    named = find.find(opts.model, trust_remote_code=opts.trust_remote_code)
    opts = replace(opts, task=_task_name(data, named, opts.task))
    options.raise_all(options.idle(opts, opts.task))
    task = tasks.load(opts.task)
    template = tasks.chat_template(opts.task, opts.chat_template)
    reading = tasks.reading_of(opts.task, reading)
    rows = open_rows(data, reading, task.check)
    tell_bad_rows(reading, [rows], how)
    labels = _labels(data, named, rows, task)
    precision: Any = devices.resolve_precision(opts.precision, opts.device)
    opts = replace(opts, precision=precision)
    _check_launch(opts)
    recipe = Recipe(
        "finetune",
        {**opts.recipe(), "labels": labels},
        {"rows": rows.digest, "model": named.digest, **template_digest(template)},
        {**task_code(opts.task), "training": code.digest_of_module("prune_cli.training.trainer", CODE)},
    )
    places = {"rows": data, "model": opts.model}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    device = devices.use_device(opts.device)  # before the draft is opened: a wrong one must not cost saved progress
    processes.share_device(device.type)
    if opts.load_in == "4bit" and device.type != "cuda":
        raise PruneError(f"load_in: 4bit; on the device {device}; allowed: a CUDA device")
    log.check(opts)
    with making(outcome, recipe, places, resumable=True, loads=["prune_cli.training.trainer"]) as draft:
        from transformers import set_seed

        from prune_cli.models import adapters, load
        from prune_cli.tasks.tokens import tell_cut
        from prune_cli.training.trainer import train

        tokenizer = load.load_tokenizer(named, template)
        encoded = task.encode(rows, tokenizer, opts.max_length, labels, **tasks.how_encoded(task, opts))
        set_seed(opts.seed)  # a new head is drawn from it
        model, drawn = load.load(named, task, labels, tokenizer, new_head=True, four_bit=opts.load_in == "4bit")
        model = adapters.merged(model)
        if opts.tune == "lora":
            model = adapters.with_adapters(model, drawn, opts, task)
        load.check_rows(model, encoded, rows)
        lost = tell_cut(encoded, rows, tokenizer.model_max_length)
        trained = train(draft.path, model, tokenizer, encoded, opts, task, device, log.folder_of(out, recipe.key))
        draft.cached(fingerprints.IDS, lambda path: fingerprints.write_ids(rows, path))
        draft.about = {
            "rows": len(rows),
            "labels": labels,
            "steps": trained.steps,
            "learning_rate": trained.learning_rate,
            "checkpoints": trained.checkpoints,
            "max_length": opts.max_length,
            "cut": {"rows": lost},
        }
    return done(outcome, draft)


def _check_launch(opts: options.Finetune) -> None:
    """Whether how the processes were started goes with the options, which alone decide what is trained."""
    count = processes.count()
    if opts.batch_size % count:
        raise PruneError(f"batch_size: {opts.batch_size}, for {count} processes; allowed: a multiple of {count}")
    given = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")  # of accelerate launch; the Trainer would follow it
    if given not in ("no", "bf16" if opts.precision == "bfloat16" else "no"):
        raise PruneError(f"precision: {opts.precision}; accelerate's settings say {given}, the same is needed")


def _task_name(data: str, named: find.NamedModel, wanted: str) -> str:
    """The task: that of the artifact that holds the rows, else the one wanted, else that of the model."""
    wanted = task_name(data, wanted)
    return find.task_of(named, wanted) if wanted == "auto" else wanted


def _labels(data: str, named: find.NamedModel, rows: Rows, task: Task) -> list[Any]:
    """The label list in class order: that of the artifact, else of the rows; in the head's order if it has the same."""
    labels = task.label_list(rows)
    tasks.check_gold(rows, task.label_indices(rows, labels), "finetune")
    if manifest.is_artifact(Path(data)):
        about = open_artifact(Path(data)).about
        if about["digest"] != rows.digest:
            raise PruneError(f"{data}: its rows changed while the command ran; run it again")
        labels = list(about["labels"])
    if len(labels) == 1:
        raise PruneError(f"{rows.where(0)}: all rows have the label {labels[0]!r}; at least two labels are needed")
    head = find.head_labels(named, labels)
    same = set(map(str, head)) == set(map(str, labels))  # as text, as label_indices compares them
    return head if same else labels
