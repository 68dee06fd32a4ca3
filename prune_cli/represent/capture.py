"""Every example's own gradient of every trainable parameter, from one forward and one backward of a batch.

The backward of a batch's summed loss already holds each example's share at every layer's output; only the step
from there to the parameters adds the examples up. So that step is left out: parameters are frozen, the
functions that take them (linear, embedding, normalisation, …) are intercepted in the forward, and when the
gradient of such a function's output arrives, the example's own gradient follows from it and the input, in the
factored form in which it is smallest (Goodfellow 2015, arXiv 1510.01799, for linear layers).

A function is recognised by the parameter it is given, whichever module calls it and however often. One without a
rule here is an error that names the parameter: nothing is left out in silence.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from prune_cli.errors import PruneError
from prune_cli.represent import deberta


@dataclass(frozen=True)
class Outer:
    """Gradients of a matrix parameter [r, c]: Σ_t left[:, t] ⊗ right[:, t], left [b, t, r], right [b, t, c]."""

    left: torch.Tensor
    right: torch.Tensor

    def dense(self) -> torch.Tensor:
        """The gradients [b, r, c]."""
        return self.left.transpose(1, 2) @ self.right

    def alone(self, i: int) -> Outer:
        """Those of example i, b = 1."""
        return Outer(self.left[i : i + 1], self.right[i : i + 1])

    def plus(self, other: Outer) -> Outer:
        """The sum with another call's: its tokens behind these."""
        return Outer(torch.cat([self.left, other.left], 1), torch.cat([self.right, other.right], 1))


@dataclass(frozen=True)
class Lookup:
    """Gradients of a table [v, d]: row ids[:, t] gets grads[:, t]; ids [b, t], grads [b, t, d]."""

    ids: torch.Tensor
    grads: torch.Tensor
    rows: int

    def dense(self) -> torch.Tensor:
        """The gradients [b, v, d]."""
        table = self.grads.new_zeros(len(self.ids), self.rows, self.grads.shape[2])
        return table.scatter_add_(1, self.ids.unsqueeze(2).expand_as(self.grads), self.grads)

    def alone(self, i: int) -> Lookup:
        """Those of example i, b = 1."""
        return Lookup(self.ids[i : i + 1], self.grads[i : i + 1], self.rows)

    def plus(self, other: Lookup) -> Lookup:
        """The sum with another call's: its tokens behind these."""
        return Lookup(torch.cat([self.ids, other.ids], 1), torch.cat([self.grads, other.grads], 1), self.rows)


@dataclass(frozen=True)
class Dense:
    """Gradients [b, …] of a parameter of that shape […]."""

    grads: torch.Tensor

    def dense(self) -> torch.Tensor:
        """The gradients [b, …]."""
        return self.grads

    def alone(self, i: int) -> Dense:
        """Those of example i, b = 1."""
        return Dense(self.grads[i : i + 1])

    def plus(self, other: Dense) -> Dense:
        """The sum with another call's."""
        return Dense(self.grads + other.grads)


Factors = Outer | Lookup | Dense
Sink = Callable[[str, Factors], None]  # takes a parameter's name and its gradients, once a batch


class Capture:
    """Hand each trainable parameter's per-example gradients of a backward to a sink, as soon as they are whole."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise PruneError("the model has no trainable parameters; the gradient kind needs some")
        self._names = {id(p): name for name, p in self.trainable.items()}
        self._on = False
        self._sink: Sink = _unset
        self._b = 0
        self._calls: dict[str, int] = {}  # calls whose gradients are still to come
        self._found: dict[str, Factors] = {}

    def begin(self, b: int, sink: Sink) -> None:
        """Start a batch of b examples."""
        self._b, self._sink = b, sink
        self._calls.clear()
        self._found.clear()

    def finish(self) -> None:
        """After the backward: hand over what had a call that the loss does not depend on."""
        for name in list(self._found):
            self._sink(name, self._found.pop(name))

    @contextmanager
    def attached(self, model: torch.nn.Module) -> Iterator[None]:
        """Freeze the parameters and intercept the model's forwards."""
        mode = _Intercept(self)
        entered: list[_Intercept] = []

        def enter(*_: Any) -> None:
            if self._on:
                entered.append(mode.__enter__())

        def leave(*_: Any) -> None:
            if entered:
                entered.pop().__exit__(None, None, None)

        hooks = [model.register_forward_pre_hook(enter), model.register_forward_hook(leave, always_call=True)]
        try:
            with deberta.batched_tables(model, self.table):
                self._switch(on=True)
                yield
        finally:
            self._switch(on=False)
            for hook in hooks:
                hook.remove()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the model is as it was: a backward leaves its gradients in the parameters."""
        self._switch(on=False)
        self._clear()
        try:
            yield
        finally:
            self._clear()
            self._switch(on=True)

    def _clear(self) -> None:
        for parameter in self.trainable.values():
            parameter.grad = None

    def _switch(self, *, on: bool) -> None:
        self._on = on
        for parameter in self.trainable.values():
            parameter.requires_grad_(not on)

    def table(self, parameter: torch.Tensor) -> torch.Tensor:
        """A parameter [v, d] that the model reads as a tensor: a copy for each example, [b, v, d]."""
        if not self._on:
            return parameter.unsqueeze(0)
        copies = parameter.detach().expand(self._b, *parameter.shape)
        if not self.name(parameter):
            return copies
        copies = copies.clone().requires_grad_(True)
        self.expect(copies, [parameter], lambda grad: [Dense(grad)])
        return copies

    def name(self, parameter: Any) -> str | None:
        """The name of a trainable parameter; None for anything else."""
        return self._names.get(id(parameter))

    def tokens(self, tensor: torch.Tensor, name: str) -> torch.Tensor:
        """Bring a layer's input or output […, d] to [b, t, d]."""
        flat = tensor.reshape(-1, tensor.shape[-1])
        if tensor.dim() == 2 and len(flat) % self._b == 0:
            return flat.reshape(self._b, -1, tensor.shape[-1])  # [b, d], or all tokens of the batch in a row
        if tensor.dim() < 2 or tensor.shape[0] != self._b:
            raise PruneError(
                f"{name}: used on a tensor of shape {list(tensor.shape)}, without the batch's {self._b} examples; "
                "per-example gradients are not known for that",
                hint="represent other kinds, or with --batch-size 1",
            )
        return flat.reshape(self._b, -1, tensor.shape[-1])

    def expect(
        self,
        output: torch.Tensor,
        parameters: list[torch.Tensor],
        gradients: Callable[[torch.Tensor], list[Factors]],
    ) -> None:
        """When the gradient of `output` arrives, note what `gradients` makes of it for each of the parameters."""
        names = [self._names[id(parameter)] for parameter in parameters]
        for name in names:
            self._calls[name] = self._calls.get(name, 0) + 1

        def arrived(grad: torch.Tensor) -> None:
            for name, gradient in zip(names, gradients(_wide(grad)), strict=True):
                self._note(name, gradient)

        if not output.requires_grad:
            output.requires_grad_(True)
        output.register_hook(arrived)

    def _note(self, name: str, gradient: Factors) -> None:
        before = self._found.get(name)
        if before is not None:
            if type(before) is not type(gradient):
                raise PruneError(
                    f"{name}: shared by layers of different kinds; per-example gradients do not cover that"
                )
            gradient = before.plus(gradient)  # type: ignore[arg-type]  # of the same class, as was just checked
        self._calls[name] -= 1
        if self._calls[name]:
            self._found[name] = gradient
        else:
            self._found.pop(name, None)
            self._sink(name, gradient)


class _Intercept(TorchFunctionMode):
    """Sees every torch function that the forward calls; acts on those that are given a trainable parameter."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        names = self._names([*args, *kwargs.values()])
        if not names:
            return func(*args, **kwargs)
        if func in _RULES:
            return _RULES[func](self._capture, func, args, kwargs)
        result = func(*args, **kwargs)
        if isinstance(result, torch.Tensor) and func is not torch.Tensor.detach and torch.is_grad_enabled():
            kind = getattr(func, "__name__", str(func))
            raise PruneError(f"{names[0]}: used by {kind}; per-example gradients are not known for that")
        return result  # a shape, a type, a device

    def _names(self, values: Iterable[Any]) -> list[str]:
        """The trainable parameters among values, and within lists of them."""
        found: list[str] = []
        for value in values:
            if isinstance(value, list | tuple):
                found += self._names(value)
            elif name := self._capture.name(value):
                found.append(name)
        return found


def _linear(capture: Capture, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    x, weight, bias = _bind(("input", "weight", "bias"), args, kwargs)
    return _affine(capture, func(x, weight, bias), x, weight, bias, transposed=False)


def _addmm(capture: Capture, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """`Conv1D` of transformers (GPT-2): its weight is [in, out]."""
    bias, x, weight = _bind(("input", "mat1", "mat2"), args, kwargs)
    if {"alpha", "beta"} & set(kwargs):
        name = capture.name(weight) or capture.name(bias)
        raise PruneError(f"{name}: used by addmm with alpha or beta; per-example gradients are not known for that")
    return _affine(capture, func(bias, x, weight), x, weight, bias, transposed=True)


def _affine(
    capture: Capture, output: torch.Tensor, x: torch.Tensor, weight: Any, bias: Any, *, transposed: bool
) -> torch.Tensor:
    _refuse_as_input(capture, x)
    parameters = [p for p in (weight, bias) if capture.name(p)]
    name = capture.name(parameters[0]) or ""
    inputs = capture.tokens(x.detach(), name)

    def gradients(grad: torch.Tensor) -> list[Factors]:
        grad = capture.tokens(grad, name)
        found: list[Factors] = []
        for parameter in parameters:
            if parameter is bias:
                found.append(Dense(grad.sum(1)))
            else:
                found.append(Outer(_wide(inputs), grad) if transposed else Outer(grad, _wide(inputs)))
        return found

    capture.expect(output, parameters, gradients)
    return output


def _embedding(capture: Capture, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    ids, weight, padding, max_norm, _, by_frequency, sparse = _bind(
        ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
        args,
        kwargs,
    )
    name = capture.name(weight) or ""
    if max_norm is not None or by_frequency or sparse:
        raise PruneError(f"{name}: an embedding with max_norm, scale_grad_by_freq or sparse; these are not covered")
    output: torch.Tensor = func(ids, weight, padding)
    b = capture._b
    if ids.dim() < 2 or len(ids) != b:
        # BERT looks positions up once for the whole batch: from here on each example has its own copy
        if ids.dim() > 2 or (ids.dim() == 2 and len(ids) != 1):
            raise PruneError(f"{name}: looked up with ids of shape {list(ids.shape)}; allowed: [b, t], [1, t] or [t]")
        output = output.expand(b, ids.shape[-1], output.shape[-1]).clone()
        ids = ids.expand(b, ids.shape[-1])
    ids = ids.reshape(b, -1)

    def gradients(grad: torch.Tensor) -> list[Factors]:
        grad = grad.reshape(b, ids.shape[1], -1)
        if padding is not None:  # the table's padding row is not trained
            grad = grad.masked_fill((ids == padding % len(weight)).unsqueeze(2), 0)
        return [Lookup(ids, grad, len(weight))]

    capture.expect(output, [weight], gradients)
    return output


def _layer_norm(capture: Capture, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    x, shape, weight, bias, eps = _bind(
        ("input", "normalized_shape", "weight", "bias", "eps"), args, {"eps": 1e-5, **kwargs}
    )
    _refuse_as_input(capture, x)
    output: torch.Tensor = func(x, shape, weight, bias, eps)
    normalised = func(x.detach(), shape, None, None, eps)
    parameters = [p for p in (weight, bias) if capture.name(p)]
    name = capture.name(parameters[0]) or ""

    def gradients(grad: torch.Tensor) -> list[Factors]:
        scaled = (grad, grad * normalised)
        return [Dense(capture.tokens(scaled[p is weight], name).sum(1)) for p in parameters]

    capture.expect(output, parameters, gradients)
    return output


_RULES: dict[Any, Callable[[Capture, Any, Any, Any], torch.Tensor]] = {
    functional.linear: _linear,
    torch.addmm: _addmm,
    functional.embedding: _embedding,
    functional.layer_norm: _layer_norm,
}


def _refuse_as_input(capture: Capture, x: Any) -> None:
    if capture.name(x):
        raise PruneError(f"{capture.name(x)}: used as a layer's input; per-example gradients are not known for that")


def _bind(names: tuple[str, ...], args: Any, kwargs: Any) -> tuple[Any, ...]:
    """A call's arguments in the order of `names`, None where not given."""
    given = dict(zip(names, args, strict=False)) | kwargs
    return tuple(given.get(name) for name in names)


def _wide(tensor: torch.Tensor) -> torch.Tensor:
    """In float32 at least: sums over tokens in half precision would lose the small examples."""
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _unset(name: str, gradient: Factors) -> None:
    raise AssertionError("begin() comes before a batch")
