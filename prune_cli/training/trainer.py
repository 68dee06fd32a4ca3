"""Fine-tune a model with transformers' Trainer, recording training dynamics on the way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.models import adapters, answers, load
from prune_cli.runtime import interrupt, processes
from prune_cli.runtime.progress import note, progress
from prune_cli.runtime.running import running
from prune_cli.tasks import Task
from prune_cli.tasks.tokens import Encoded, pad_token_id
from prune_cli.training import checkpoints, log, resume
from prune_cli.training.record import Record

_SHORT = 60.0  # seconds: an epoch that takes less is not saved after each time; training it again costs little
_CHECKPOINTED: dict[str, Any] = {
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}


@dataclass(frozen=True)
class Trained:
    """The facts of a training that the artifact's manifest holds."""

    checkpoints: list[dict[str, Any]]  # name, epoch, learning_rate
    learning_rate: float  # mean over all steps
    steps: int


class _Shuffled(Sampler[int]):
    """n positions, in an order of its own for each epoch: the same in all processes, and in a run that is resumed."""

    def __init__(self, n: int, seed: int, epoch: Callable[[], int]) -> None:
        self._n, self._seed, self._epoch = n, seed, epoch

    def __iter__(self) -> Iterator[int]:
        drawn = torch.Generator().manual_seed(self._seed + self._epoch())
        yield from torch.randperm(self._n, generator=drawn).tolist()

    def __len__(self) -> int:
        return self._n


class _Trainer(Trainer):
    """The Trainer with the task's per-example losses; the dynamics of each batch are recorded.

    Each process collates its part of a batch (`part_of`), so that a batch is the same however many they are.
    """

    def __init__(self, *args: Any, task: Task, record: Record, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task, self._record = task, record
        # our loss is the mean over a batch's examples; the Trainer then divides by the batches of a step
        self.model_accepts_loss_kwargs = False

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Whole batches, of which the collator takes this process's part; accelerate would fill up the last one."""
        positions: Any = self.train_dataset
        return DataLoader(
            positions,
            batch_size=self.args.per_device_train_batch_size,
            sampler=_Shuffled(len(positions), self.args.seed, lambda: int(self.state.epoch)),
            collate_fn=self.data_collator,
            pin_memory=self.args.dataloader_pin_memory,
        )

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """A forward and a backward."""
        with running(self.model):
            return super().training_step(*args, **kwargs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        rows, labels, of = inputs.pop("row"), inputs.pop("labels"), inputs.pop("of")
        at, labels = self._task.answers(labels)
        outputs = answers.forward(model, inputs, at)
        losses = self._task.losses(outputs.answers, labels)
        with torch.no_grad():
            values = self._task.dynamics(outputs.answers, labels)
        own = len(rows)  # a process without a row in the batch runs one that does not count
        self._record.add(int(self.state.epoch), rows, {name: value[:own] for name, value in values.items()})
        # the mean over the batch's rows, once the processes' gradients are averaged
        loss = losses[:own].sum() / of * processes.count()
        return (loss, outputs) if return_outputs else loss

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights of a resume state; the Trainer's way passes over those whose names in files differ."""
        if adapters.are_on(self.model):
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif amiss := load.put_in(self.model, Path(resume_from_checkpoint)):
            raise PruneError(f"the resume state does not fit the model: {', '.join(amiss[:3])}")


class _Keeper(TrainerCallback):
    """Keep checkpoints after epochs, save resume states, show progress.

    A resume state of an epoch's last step is saved after the epoch's checkpoint: a training that goes on from it never
    comes to the end of that epoch again. After the last step of all none is saved, there being nothing left to do.
    """

    def __init__(
        self,
        out: Path,
        record: Record,
        keep: Callable[[int], None] | None,
        advance: Callable[[int], None],
        interrupted: Callable[[], bool],
        minutes: float,
    ):
        self._out, self._record = out, record
        self._keep, self._advance, self._interrupted = keep, advance, interrupted
        self._seconds, self._saved = minutes * 60, time.monotonic()

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **objects: Any) -> None:
        self._record.add_rate(int(state.epoch), objects["optimizer"].param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance(1)
        ended = state.epoch.is_integer() or state.global_step >= state.max_steps
        if not ended and self._due(self._seconds):
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._record.flush()
        if self._keep:
            self._keep(math.ceil(state.epoch))  # the last may be part of an epoch
        if self._due(min(_SHORT, self._seconds)) and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = resume.state_of(self._out, state.global_step)
        self._record.flush()  # where the processes meet: each has written its part of the state
        if processes.first():
            self._record.save(folder)
            resume.seal(self._out, folder)
        self._saved = time.monotonic()
        if processes.anyone(self._interrupted()):
            raise KeyboardInterrupt

    def _due(self, seconds: float) -> bool:
        """Whether any of the processes wants the state saved: interrupted, or so long after the last time."""
        return processes.anyone(self._interrupted() or time.monotonic() - self._saved > seconds)


def train(
    out: Path,
    model: torch.nn.Module,
    tokenizer: Any,
    encoded: Encoded,
    opts: options.Finetune,
    task: Task,
    device: torch.device,
    logs: Path,
) -> Trained:
    """Train `model` on encoded rows [n] and write the files of a finetune artifact into the folder `out`.

    logs: where TensorBoard's files go, outside of the artifact.

    An interrupted run goes on from its last whole resume state in `out/.resume`. At Ctrl-C or SIGTERM the step is
    finished and its state saved, then KeyboardInterrupt is raised; a second Ctrl-C raises it at once.
    """
    if opts.gradient_checkpointing and not getattr(model, "supports_gradient_checkpointing", False):
        raise PruneError(f"gradient_checkpointing: true; {type(model).__name__} does not have it; allowed: false")
    n = len(encoded.lengths)
    record = Record(n, math.ceil(opts.passes(n)))
    start = processes.agreed(lambda: resume.last_whole(out))
    if start:
        record.load(start)
        if (before := resume.processes_of(start)) != processes.count():
            note(f"finetune: {before} processes began, {processes.count()} go on: dropout draws anew")
    collate = partial(part_of, task=task, encoded=encoded, pad=pad_token_id(tokenizer))

    def keep(epoch: int) -> None:
        if not processes.first():
            return
        with_moments = opts.tune == "lora" if opts.keep_moments is None else opts.keep_moments
        checkpoints.keep(out, epoch, model, trainer.optimizer if with_moments else None)

    total = opts.optimizer_steps(n)
    with (
        progress("finetune, steps", total, resume.step_of(start) if start else 0) as advance,
        interrupt.deferred() as interrupted,
        log.told(opts),
    ):
        keeper = _Keeper(
            out, record, keep if opts.keep_checkpoints == "epoch" else None, advance, interrupted, opts.save_minutes
        )
        arguments = _arguments(out / resume.FOLDER, opts, device, logs)
        watching = [keeper, *log.callbacks(opts, logs)]
        trainer = _Trainer(model, arguments, collate, range(n), callbacks=watching, task=task, record=record)
        trainer.remove_callback(PrinterCallback)
        with processes.together():
            trainer.train(resume_from_checkpoint=str(start) if start else None)

    record.flush()
    if processes.first():
        checkpoints.save_weights(model, out)
        tokenizer.save_pretrained(out)
        record.write_dynamics(out / "dynamics.safetensors")
        record.write_log(out / "log.jsonl")
    return Trained(
        checkpoints=[
            {"name": str(e), "epoch": e, "learning_rate": record.mean_rate(e - 1)} for e in checkpoints.kept_epochs(out)
        ],
        learning_rate=record.mean_rate(),
        steps=total,
    )


def part_of(batch: list[int], *, task: Task, encoded: Encoded, pad: int) -> dict[str, Any]:
    """The inputs of this process's part of a batch of rows; `row`: which they are; `of`: rows in the whole batch.

    A process to which none falls has the first of the batch in its inputs and none in `row`.
    """
    mine = batch[processes.rank() :: processes.count()]
    inputs = task.collate(encoded, np.asarray(mine or batch[:1], np.int64), pad, "cpu")
    return {**inputs, "row": torch.tensor(mine, dtype=torch.int64), "of": len(batch)}


def _arguments(folder: Path, opts: options.Finetune, device: torch.device, logs: Path) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=opts.batch_size,  # of all devices: `part_of` takes that of each
        gradient_accumulation_steps=opts.accumulate,
        num_train_epochs=opts.epochs,
        max_steps=opts.steps or -1,
        learning_rate=opts.learning_rate,
        lr_scheduler_type=opts.schedule
        if opts.schedule != "constant" or not opts.warmup_ratio
        else "constant_with_warmup",
        warmup_steps=opts.warmup_ratio,
        weight_decay=opts.weight_decay,
        max_grad_norm=opts.clip,
        bf16=opts.precision == "bfloat16",
        **(_CHECKPOINTED if opts.gradient_checkpointing else {}),
        use_cpu=device.type == "cpu",
        seed=opts.seed,
        data_seed=opts.seed,
        save_strategy="no",  # _Keeper says when
        save_total_limit=2,
        **log.arguments(opts, logs),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )
