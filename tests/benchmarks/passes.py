"""What the benchmarks share: a model on a device, ways to run it over batches, and what a way costs."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from prune_cli.models import answers
from prune_cli.models.device import autocast
from prune_cli.models.find import Checkpoint
from prune_cli.represent.kinds import gradient, influence
from prune_cli.represent.observe import Batch, Observer, Target
from prune_cli.tasks import Task, generation

PLAIN = "plain forward + backward"
FLOOR = "the same with frozen parameters"
USUAL = "plain, with the logits of all tokens"
SOME = 4  # rows at a time whose gradients torch.func forms

# what enters a way's context, which is not timed, and the way itself
Way = tuple[Callable[[], AbstractContextManager[Any]], Callable[[], Any]]


@dataclass(frozen=True)
class Subject:
    """A model and its task on a device, in a number format."""

    model: Any
    task: Task
    device: torch.device
    precision: str

    def forward(self, inputs: dict[str, torch.Tensor], at: torch.Tensor | None = None) -> Any:
        """The model's outputs for a batch's inputs, its logits at the places `at` alone."""
        with autocast(self.device, self.precision):
            return self.exactly(inputs, at)

    def exactly(self, inputs: dict[str, torch.Tensor], at: torch.Tensor | None = None) -> Any:
        """The same in the precision of the model's weights."""
        return answers.forward(self.model, inputs, at)

    def backward(self, batch: Batch) -> None:
        """Forward and backward of the summed losses."""
        self.task.losses(self.forward(batch.inputs, batch.at).answers, batch.gold).sum().backward()

    def plain(self, batches: list[Batch]) -> None:
        """What a training step does before the optimizer's turn."""
        for batch in batches:
            self.model.zero_grad(set_to_none=True)
            self.backward(batch)
        self.model.zero_grad(set_to_none=True)

    def usual(self, batches: list[Batch]) -> None:
        """The same with the loss of transformers, which works out the logits of prompts and padding too."""
        for batch in batches:
            self.model.zero_grad(set_to_none=True)
            with autocast(self.device, self.precision):
                loss = self.model(**batch.inputs, labels=batch.labels).loss
            loss.backward()
        self.model.zero_grad(set_to_none=True)

    def observe(self, batch: Batch, observers: tuple[Observer, ...]) -> list[dict[str, torch.Tensor]]:
        """One batch of the represent pass, without its disk."""
        backward = any(isinstance(observer, gradient.Gradient | influence.Influence) for observer in observers)
        with torch.set_grad_enabled(backward):
            for observer in observers:
                observer.begin(batch)
            batch.outputs = self.forward(batch.inputs, batch.at)
            if backward:
                self.task.losses(batch.outputs.answers, batch.gold).sum().backward()
            return [observer.rows(batch) for observer in observers]

    def wait(self) -> None:
        """Wait until the device has finished."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()


def whole_batch(inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> Batch:
    """A batch of b rows, of which `alone` cuts one out without its padding. labels: [b], or [b, t] as the inputs."""

    def alone(i: int) -> Batch:
        length = int(inputs["attention_mask"][i].sum())
        label = labels[i : i + 1] if labels.dim() == 1 else labels[i : i + 1, :length]
        return whole_batch({name: value[i : i + 1, :length] for name, value in inputs.items()}, label)

    at, gold = generation.answers(labels) if labels.dim() == 2 else (None, labels)
    return Batch(inputs, labels, at, gold, alone)


@contextmanager
def frozen(model: Any) -> Iterator[None]:
    """No parameter takes a gradient; a backward still goes through the activations down to the embeddings."""
    trainable = [p for p in model.parameters() if p.requires_grad]
    model.requires_grad_(False)
    hook = model.get_input_embeddings().register_forward_hook(lambda *called: called[-1].requires_grad_())
    try:
        yield
    finally:
        hook.remove()
        for parameter in trainable:
            parameter.requires_grad_(True)


def singles(batches: list[Batch]) -> Iterator[Batch]:
    """The same rows one by one, without padding."""
    for batch in batches:
        for i in range(len(batch)):
            yield batch.alone(i)


def gradient_of(subject: Subject, **given: Any) -> gradient.Gradient:
    """The projected gradients, by the kind's options."""
    setup: Any = SimpleNamespace(model=subject.model, task=subject.task, exactly=subject.exactly)
    return gradient.Gradient(setup, gradient.Options(**given))


def influence_on(subject: Subject, targets: list[Batch], **given: Any) -> influence.Influence:
    """The influence on targets, one a batch."""
    lengths = np.array([batch.inputs["input_ids"].shape[1] for batch in targets])
    setup: Any = SimpleNamespace(
        model=subject.model,
        task=subject.task,
        device=subject.device,
        precision=subject.precision,
        batch_size=1,
        tokens_per_batch=512,
        forward=subject.forward,
        exactly=subject.exactly,
        encoded=SimpleNamespace(lengths=lengths),
        batch=lambda positions: targets[int(positions[0])],
    )
    group = np.zeros(len(targets), np.int64)
    return influence.Influence(Target(setup, group), influence.Options(**given))


def observed(subject: Subject, batches: list[Batch], kept: Checkpoint | None, *observers: Observer) -> Way:
    """The pass of represent with these observers. kept: the checkpoint that the model is at."""

    def attach() -> ExitStack:
        stack = ExitStack()
        for observer in observers:
            stack.enter_context(observer.attach(subject.model, kept))
        return stack

    def run() -> None:
        for batch in batches:
            subject.observe(batch, observers)

    return attach, run


def formed(subject: Subject, batches: list[Batch]) -> Iterator[dict[str, torch.Tensor]]:
    """Whole gradients by torch.func, a few rows at a time: of each parameter [4, …]."""
    model = subject.model
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(given: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        one = {name: value.unsqueeze(0) for name, value in inputs.items()}
        with autocast(subject.device, subject.precision):
            logits = functional_call(model, given, (), one).logits
        return subject.task.losses(logits, label.unsqueeze(0)).sum()

    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # vmap takes the rows of torch's own attention one by one
    for batch in batches:
        t = batch.inputs["input_ids"].shape[1]
        # a mask in its final form: vmap allows no look at its values
        mask = (~batch.inputs["attention_mask"].bool()[:, None, None, :]).expand(-1, 1, t, t) * -1e9
        inputs = {**batch.inputs, "attention_mask": mask}
        for start in range(0, len(batch), SOME):
            some = {name: value[start : start + SOME] for name, value in inputs.items()}
            yield vmap(grad(loss), in_dims=(None, 0, 0))(parameters, some, batch.labels[start : start + SOME])
    model.set_attn_implementation(before)


@dataclass(frozen=True)
class Cost:
    """What a way costs: the time of each repeat, and the floating-point operations of one run."""

    times: list[float]
    operations: int

    @property
    def seconds(self) -> float:
        """The median over the repeats."""
        return statistics.median(self.times)

    def over(self, other: Cost) -> float:
        """The median over the repeats of the ratio to another way in the same repeat."""
        return statistics.median(np.divide(self.times, other.times))


def _bmm(a: torch.Size, b: torch.Size, *_: Any, **__: Any) -> int:
    """Operations of a batched product; PyTorch's own count knows none whose output is of another type."""
    return 2 * a.numel() * b[-1]


def costs(subject: Subject, ways: Mapping[str, Way], repeats: int) -> dict[str, Cost]:
    """The cost of each way; all are timed in turn."""
    measured: dict[str, Cost] = {}
    for repeat in range(repeats + 1):
        for name, (attach, run) in ways.items():
            with attach():
                if repeat == 0:
                    run()  # warms caches, and has the model checked
                    with FlopCounterMode(display=False, custom_mapping={torch.ops.aten.bmm: _bmm}) as counter:
                        run()
                    measured[name] = Cost([], counter.get_total_flops())
                    continue
                subject.wait()
                began = time.perf_counter()
                run()
                subject.wait()
                measured[name].times.append(time.perf_counter() - began)
    return measured
