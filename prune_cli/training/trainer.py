"""Fine-tune a model with transformers' Trainer, recording training dynamics as it goes.

The dynamics are those of the training forward itself (dropout on, weights moving within the epoch), as in
dataset cartography (Swayamdipta et al. 2020, arXiv 2009.10795), so they cost nothing extra.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from prune_cli import options
from prune_cli.artifacts import tensors
from prune_cli.errors import PruneError
from prune_cli.models import load as models
from prune_cli.runtime.progress import progress
from prune_cli.tasks import Task
from prune_cli.tasks.tokens import Encoded

WHOLE = "whole"  # marks a resume point as completely written
RECORD = "record.safetensors"
_SHORT = 60.0  # seconds: an epoch of less is sooner trained again than saved after each time
_CHECKPOINTED: dict[str, Any] = {
    "gradient_checkpointing": True,
    "gradient_checkpointing_kwargs": {"use_reentrant": False},
}


class Record:
    """Training dynamics of every row and epoch, and the learning rates of every epoch's steps."""

    def __init__(self, n: int, epochs: int) -> None:
        self.n, self.epochs = n, epochs
        self.arrays: dict[str, NDArray[np.float32]] = {}
        self.rates = np.zeros((epochs, 2))  # sum of learning rates, number of steps
        self._waiting: list[tuple[int, torch.Tensor, dict[str, torch.Tensor]]] = []

    def add(self, epoch: int, rows: torch.Tensor, values: dict[str, torch.Tensor]) -> None:
        """Note a batch's values; they stay on the device until the next `flush`, so that nothing waits."""
        self._waiting.append((epoch, rows, values))

    def add_rate(self, epoch: int, rate: float) -> None:
        """Note the learning rate of one optimizer step."""
        self.rates[epoch] += (rate, 1)

    def flush(self) -> None:
        """Move what was noted into the arrays [n, epochs]; NaN where a row was not seen."""
        for epoch, rows, values in self._waiting:
            at = rows.cpu().numpy()
            for name, value in values.items():
                if name not in self.arrays:
                    self.arrays[name] = np.full((self.n, self.epochs), np.nan, np.float32)
                self.arrays[name][at, epoch] = value.float().cpu().numpy()
                if not np.isfinite(self.arrays[name][at, epoch]).all():
                    raise PruneError(
                        f"training diverged: {name} is not a finite number in epoch {epoch + 1}",
                        hint="a lower --learning-rate, or --precision float32",
                    )
        self._waiting.clear()

    def mean_rate(self, epoch: int) -> float:
        """Mean learning rate over an epoch's steps."""
        total, steps = self.rates[epoch]
        return float(total / steps)

    def save(self, folder: Path) -> None:
        """Write everything noted so far beside a resume point."""
        self.flush()
        tensors.save(folder / RECORD, {**self.arrays, "rates": self.rates}, {})

    def load(self, folder: Path) -> None:
        """Take up what was noted up to a resume point."""
        found = {name: np.array(array) for name, array in tensors.load(folder / RECORD).items()}
        self.rates = found.pop("rates")
        self.arrays = found


@dataclass(frozen=True)
class Trained:
    """What a training run came to, for the artifact."""

    checkpoints: list[dict[str, Any]]  # name, epoch, learning_rate
    learning_rate: float  # mean over all steps
    steps: int
    recorded: bool


class _Trainer(Trainer):
    """The Trainer, with the task's per-example losses, each batch's dynamics noted on the way."""

    def __init__(self, *args: Any, task: Task, record: Record, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._task, self._record = task, record
        # our loss is the mean over a batch's examples; the Trainer then divides by the batches of a step
        self.model_accepts_loss_kwargs = False

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        rows, labels = inputs.pop("row"), inputs.pop("labels")
        outputs = model(**inputs)
        losses = self._task.losses(outputs.logits, labels)
        with torch.no_grad():
            values = self._task.dynamics(outputs.logits.detach(), labels)
        self._record.add(int(self.state.epoch), rows, values)
        return (losses.mean(), outputs) if return_outputs else losses.mean()


class _Keeper(TrainerCallback):
    """Keep checkpoints after epochs, make resume points whole, show progress."""

    def __init__(
        self,
        keep: Callable[[int], None] | None,
        record: Record,
        advance: Callable[[int], None],
        minutes: float,
    ):
        self._keep, self._record, self._advance = keep, record, advance
        self._seconds, self._saved = minutes * 60, time.monotonic()
        self.trainer: Any = None

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        assert self.trainer is not None
        self._record.add_rate(int(state.epoch), self.trainer.optimizer.param_groups[0]["lr"])

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._advance(1)
        if time.monotonic() - self._saved > self._seconds:
            control.should_save = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._record.flush()
        if self._keep:
            self._keep(math.ceil(state.epoch - 1e-9))  # the last may be part of an epoch
        if time.monotonic() - self._saved > _SHORT and state.global_step < state.max_steps:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self._record.save(folder)
        (folder / WHOLE).touch()
        self._saved = time.monotonic()


def train(
    out: Path,
    model: torch.nn.Module,
    tokenizer: Any,
    encoded: Encoded,
    opts: options.Finetune,
    task: Task,
    device: torch.device,
) -> Trained:
    """Train `model` on encoded rows [n] and write the finetune payload into the folder `out`.

    An interrupted run is taken up from its last whole resume point in `out/.resume`.
    """
    if opts.gradient_checkpointing == "yes" and not getattr(model, "supports_gradient_checkpointing", False):
        raise PruneError(f"gradient_checkpointing: yes; {type(model).__name__} does not have it; allowed: no")
    n = len(encoded.lengths)
    epochs = _epochs(n, opts)
    record = Record(n, int(np.ceil(epochs)))
    resume = out / ".resume"
    start = _last_whole(resume)
    if start:
        record.load(start)

    def collate(positions: list[int]) -> dict[str, torch.Tensor]:
        at = np.asarray(positions, np.int64)
        batch = task.collate(encoded, at, models.pad_token_id(tokenizer), "cpu")
        return {**batch, "row": torch.from_numpy(at)}

    total = _steps(n, opts)
    done = int(start.name.rsplit("-", 1)[1]) if start else 0
    with progress("finetune, steps", total, done) as advance:
        keep = _checkpoint_keeper(out, model, opts, lambda: trainer) if opts.checkpoints == "epoch" else None
        keeper = _Keeper(keep, record, advance, opts.save_minutes)
        trainer = _Trainer(
            model,
            _arguments(resume, opts, device),
            collate,
            range(n),
            callbacks=[keeper],
            task=task,
            record=record,
        )
        trainer.remove_callback(PrinterCallback)
        keeper.trainer = trainer
        trainer.train(resume_from_checkpoint=str(start) if start else None)
    record.flush()

    _save_weights(model, out)
    tokenizer.save_pretrained(out)
    whole = [e for e in range(record.epochs) if not np.isnan(record.arrays["logprob"][:, e]).any()]
    if whole:
        kept = {name: array[:, whole] for name, array in record.arrays.items()}
        rates = [record.mean_rate(e) for e in whole]
        tensors.save(out / "dynamics.safetensors", kept, {"learning_rate": rates, "recorded": True})
    _write_log(out / "log.jsonl", record)
    names = sorted(int(folder.name) for folder in out.glob("checkpoints/*"))
    return Trained(
        checkpoints=[{"name": str(e), "epoch": e, "learning_rate": record.mean_rate(e - 1)} for e in names],
        learning_rate=float(record.rates[:, 0].sum() / record.rates[:, 1].sum()),
        steps=total,
        recorded=bool(whole),
    )


def _per_epoch(n: int, opts: options.Finetune) -> int:
    batches = -(-n // opts.batch_size)
    return -(-batches // opts.accumulate)


def _epochs(n: int, opts: options.Finetune) -> float:
    return opts.steps / _per_epoch(n, opts) if opts.steps else opts.epochs


def _steps(n: int, opts: options.Finetune) -> int:
    return opts.steps or int(np.ceil(opts.epochs * _per_epoch(n, opts)))


def _arguments(folder: Path, opts: options.Finetune, device: torch.device) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(folder),
        per_device_train_batch_size=opts.batch_size,
        gradient_accumulation_steps=opts.accumulate,
        num_train_epochs=opts.epochs,
        max_steps=opts.steps or -1,
        learning_rate=opts.learning_rate,
        lr_scheduler_type=opts.schedule if opts.schedule != "constant" or not opts.warmup else "constant_with_warmup",
        warmup_steps=opts.warmup,
        weight_decay=opts.weight_decay,
        max_grad_norm=opts.clip,
        bf16=opts.precision == "bfloat16",
        **(_CHECKPOINTED if opts.gradient_checkpointing == "yes" else {}),
        use_cpu=device.type == "cpu",
        seed=opts.seed,
        data_seed=opts.seed,
        save_strategy="no",  # _Keeper says when
        save_total_limit=2,
        logging_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=device.type == "cuda",
    )


def _last_whole(resume: Path) -> Path | None:
    """The newest resume point that was written to its end; ones cut short are removed."""
    found = []
    for folder in resume.glob("checkpoint-*"):
        if (folder / WHOLE).exists():
            found.append(folder)
        else:
            shutil.rmtree(folder)
    return max(found, key=lambda folder: int(folder.name.rsplit("-", 1)[1]), default=None)


def with_adapters(model: torch.nn.Module, drawn: list[str], opts: options.Finetune, task: Task) -> torch.nn.Module:
    """Wrap a model in LoRA adapters (Hu et al. 2021, arXiv 2106.09685).

    Its head, and whatever else of it was `drawn` at random and so is in no file yet, is trained and saved whole.
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    whole = {name.rpartition(".")[0] for name in drawn}
    # as peft does for classification, which goes by the end of a name
    whole |= {name for name, _ in model.named_modules() if name.endswith(("classifier", "score"))}
    whole = {name for name in whole if not any(name.startswith(f"{other}.") for other in whole)}
    if opts.load_in == "4bit":
        prepared = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)  # _arguments says whether
        model = prepared
    targets = opts.lora_targets if opts.lora_targets == "all-linear" else opts.lora_targets.split(",")
    config = LoraConfig(
        task_type=task.PEFT_TASK,
        r=opts.lora_rank,
        lora_alpha=opts.lora_alpha,
        lora_dropout=opts.lora_dropout,
        target_modules=targets,
        exclude_modules=rf"({'|'.join(map(re.escape, sorted(whole)))})(\..*)?" if whole else None,
        modules_to_save=sorted(whole),
    )
    try:
        return get_peft_model(model, config)
    except ValueError as failure:
        raise PruneError(f"lora_targets: {opts.lora_targets}; {str(failure).splitlines()[0]}") from failure


def _checkpoint_keeper(
    out: Path, model: torch.nn.Module, opts: options.Finetune, trainer: Callable[[], Any]
) -> Callable[[int], None]:
    moments = opts.moments == "yes" or (opts.moments == "auto" and opts.method == "lora")

    def keep(epoch: int) -> None:
        folder = out / "checkpoints" / str(epoch)
        shutil.rmtree(folder, ignore_errors=True)
        _save_weights(model, folder)
        if moments:
            _save_moments(folder / "moments.safetensors", model, trainer().optimizer)

    return keep


def _save_weights(model: Any, folder: Path) -> None:
    """Write a model's weights, or its adapters, and their config: the same bytes each time."""
    model.save_pretrained(folder)
    adapters = folder / "adapter_config.json"
    if adapters.exists():
        (folder / "README.md").unlink(missing_ok=True)  # a model card without content
        config = json.loads(adapters.read_text("utf-8"))
        if Path(config["base_model_name_or_path"] or "").is_dir():
            config["base_model_name_or_path"] = None  # as it was typed; the manifest knows where it is from here
        for name in ("target_modules", "modules_to_save"):  # sets to peft: in another order each time
            if isinstance(config[name], list):
                config[name].sort()
        adapters.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")


def _save_moments(path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Adam's moments, as `exp_avg.NAME` and `exp_avg_sq.NAME` with the parameter's shape, and its step count."""
    state = optimizer.state
    saved: dict[str, NDArray[Any]] = {}
    step = 0
    for name, parameter in model.named_parameters():
        if parameter in state:
            for moment in ("exp_avg", "exp_avg_sq"):
                saved[f"{moment}.{name}"] = state[parameter][moment].float().cpu().numpy()
            step = int(state[parameter]["step"])
    group = optimizer.param_groups[0]
    tensors.save(path, saved, {"step": step, "betas": list(group["betas"]), "eps": group["eps"]})


def _write_log(path: Path, record: Record) -> None:
    """One line an epoch: mean loss and accuracy over the rows as they were trained on, mean learning rate."""
    with path.open("w", encoding="utf-8") as stream:
        for epoch in range(record.epochs):
            logprob = record.arrays["logprob"][:, epoch]
            seen = ~np.isnan(logprob)
            line = {
                "epoch": epoch + 1,
                "rows": int(seen.sum()),
                "loss": float(-logprob[seen].mean(dtype=np.float64)),
                "accuracy": float(record.arrays["correct"][seen, epoch].mean(dtype=np.float64)),
                "learning_rate": record.mean_rate(epoch),
            }
            stream.write(json.dumps(line) + "\n")
