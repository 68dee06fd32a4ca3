"""The functions that use parameters, and each example's gradient of a parameter in each of them.

A rule calls the function and tells the recorder (capture.py) how the gradient of its output becomes gradients of the
parameters. Until that gradient arrives, a rule keeps only what the factors need.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch.nn import functional
from torch.nn.grad import conv1d_weight, conv2d_weight

from prune_cli.errors import PruneError
from prune_cli.gradients.factors import Dense, Input, Lookup, Outer, Part, factor, wide


class Recorder(Protocol):
    """What a rule needs: the batch's examples, the names of parameters, and a way to record gradients."""

    b: int  # examples in the batch
    sequences: int  # sequences that the model's layers see: b, or a multiple of it

    def name(self, tensor: Any) -> str | None:
        """The name of a trainable parameter, or of one that a tensor is computed from; None for anything else."""

    def tokens(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """A layer's input or output […, d] as [b, t, d]."""

    def summed(self, tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """The gradient of a broadcast parameter […], summed within each example: [b, …]."""

    def input(self, x: torch.Tensor, name: str | None) -> Input:
        """A layer's input, one object for all layers that are given the same tensor."""

    def expect(
        self,
        output: torch.Tensor,
        parameters: list[torch.Tensor],
        gradients: Callable[[torch.Tensor], list[Part]],
    ) -> torch.Tensor:
        """Record `gradients(grad)`, one part for each of the parameters, when the gradient of `output` arrives.

        Returns what the model is to use as the output.
        """


CURES = "--batch-size 1 works with any model; so does --params with a regular expression without this name"

Rule = Callable[[Recorder, Any, Any, Any], torch.Tensor]


def refusal(name: str | None, how: str) -> PruneError:
    """The error for a use of a parameter that no rule covers."""
    return PruneError(f"{name}: used {how}; per-example gradients are not known for that", hint=CURES)


def _linear(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    x, weight, bias = _bind(("input", "weight", "bias"), args, kwargs)
    return _affine(recorder, func(x, weight, bias), x, weight, bias, transposed=False)


def _addmm(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """`Conv1D` of transformers (GPT-2): its weight is [in, out]."""
    bias, x, weight = _bind(("input", "mat1", "mat2"), args, kwargs)
    if {"alpha", "beta"} & set(kwargs):
        raise refusal(recorder.name(weight) or recorder.name(bias), "by addmm with alpha or beta")
    return _affine(recorder, func(bias, x, weight), x, weight, bias, transposed=True)


def _matmul(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    x, weight = (*args, *kwargs.values())[:2]
    if recorder.name(x) and x.dim() == 2 and weight.dim() == 3:  # weight [r, c] @ x [n, c, t], as Mamba has it
        return _linear(recorder, functional.linear, (weight.mT, x), {}).mT
    if weight.dim() != 2 or x.dim() < 2:
        name = recorder.name(weight) or recorder.name(x)
        raise refusal(name, f"by {func.__name__} of {x.dim()} by {weight.dim()} axes")
    return _affine(recorder, func(*args, **kwargs), x, weight, None, transposed=True)


def _affine(
    recorder: Recorder, output: torch.Tensor, x: torch.Tensor, weight: Any, bias: Any, *, transposed: bool
) -> torch.Tensor:
    _refuse_as_input(recorder, x)
    parameters = [p for p in (weight, bias) if recorder.name(p)]
    name = recorder.name(parameters[0])
    if bias is not None and recorder.name(bias) and bias.dim() != 1:
        raise refusal(recorder.name(bias), f"as a bias of {bias.dim()} axes")
    inputs = recorder.input(x, name) if recorder.name(weight) else None

    def gradients(grad: torch.Tensor) -> list[Part]:
        grad = factor(recorder.tokens(grad, name))
        parts: list[Part] = []
        if inputs is not None:
            given = inputs.beside(grad)
            parts.append(Outer(given, grad) if transposed else Outer(grad, given))
        if len(parts) < len(parameters):
            parts.append(Dense(grad.sum(1, dtype=torch.promote_types(grad.dtype, torch.float32))))
        return parts

    return recorder.expect(output, parameters, gradients)


def _embedding(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    ids, weight, padding, max_norm, _, by_frequency, sparse = _bind(
        ("input", "weight", "padding_idx", "max_norm", "norm_type", "scale_grad_by_freq", "sparse"),
        args,
        kwargs,
    )
    name = recorder.name(weight)
    if max_norm is not None or by_frequency or sparse:
        raise PruneError(f"{name}: an embedding with max_norm, scale_grad_by_freq or sparse; these are not covered")
    output: torch.Tensor = func(ids, weight, padding)
    b, sequences, rows = recorder.b, recorder.sequences, len(weight)
    if b > 1 and (ids.dim() < 2 or len(ids) not in (b, sequences)):
        # BERT looks positions up once for the whole batch: from here on each sequence has its own copy
        if ids.dim() > 2 or (ids.dim() == 2 and len(ids) != 1):
            raise refusal(name, f"for ids of shape {list(ids.shape)} where [b, t], [1, t] or [t] are expected")
        output = output.expand(sequences, ids.shape[-1], output.shape[-1]).clone()
        ids = ids.expand(sequences, ids.shape[-1])
    ids = ids.reshape(b, -1)

    def gradients(grad: torch.Tensor) -> list[Part]:
        grad = wide(grad).reshape(b, ids.shape[1], -1)
        if padding is not None:  # the table's padding row is not trained
            grad = grad.masked_fill((ids == padding % rows).unsqueeze(2), 0)
        return [Lookup(ids, grad, rows)]

    return recorder.expect(output, [weight], gradients)


def _conv(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """A convolution of x [n, c, …]: the gradient of its weight is a convolution too, an example at a time."""
    names = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")
    how = {"stride": 1, "padding": 0, "dilation": 1, "groups": 1} | dict(zip(names, args, strict=False)) | kwargs
    x, weight, bias = (how.pop(name, None) for name in names[:3])
    _refuse_as_input(recorder, x)
    of_weight = {functional.conv1d: conv1d_weight, functional.conv2d: conv2d_weight}[func]
    parameters = [p for p in (weight, bias) if recorder.name(p)]
    if x.dim() != weight.dim() or isinstance(how["padding"], str) or len(x) not in (recorder.b, recorder.sequences):
        raise refusal(recorder.name(parameters[0]), f"by {func.__name__} of a tensor of shape {list(x.shape)}")
    inner, b = x.detach(), recorder.b

    def gradients(grad: torch.Tensor) -> list[Part]:
        grad = wide(grad)
        each = zip(wide(inner).chunk(b), grad.chunk(b), strict=True)
        parts: list[Part] = []
        if parameters[0] is weight:
            parts.append(Dense(torch.stack([of_weight(own, weight.shape, g, **how) for own, g in each])))
        if parameters[-1] is bias:
            parts.append(Dense(grad.flatten(2).sum(2).unflatten(0, (b, -1)).sum(1)))
        return parts

    return recorder.expect(func(x, weight, bias, **how), parameters, gradients)


def _layer_norm(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    x, shape, weight, bias, eps = _bind(
        ("input", "normalized_shape", "weight", "bias", "eps"), args, {"eps": 1e-5, **kwargs}
    )
    inner = x.detach()
    normalised = lambda: func(wide(inner), shape, None, None, eps)  # noqa: E731 - computed when the gradient arrives
    return _scaled(recorder, func(x, shape, weight, bias, eps), x, normalised, weight, bias)


def _rms_norm(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    x, shape, weight, eps = _bind(("input", "normalized_shape", "weight", "eps"), args, kwargs)
    inner = x.detach()
    normalised = lambda: func(wide(inner), shape, None, eps)  # noqa: E731 - computed when the gradient arrives
    return _scaled(recorder, func(x, shape, weight, eps), x, normalised, weight, None)


def _scaled(
    recorder: Recorder, output: torch.Tensor, x: torch.Tensor, normalised: Callable[[], Any], weight: Any, bias: Any
) -> torch.Tensor:
    """weight · normalised + bias; the normalised input is computed again rather than kept."""
    _refuse_as_input(recorder, x)
    parameters = [p for p in (weight, bias) if recorder.name(p)]

    def gradients(grad: torch.Tensor) -> list[Part]:
        grad = wide(grad)
        return [Dense(recorder.summed(grad * normalised() if p is weight else grad, p)) for p in parameters]

    return recorder.expect(output, parameters, gradients)


def _mul(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """A weight times a tensor, entry by entry: the RMSNorm of transformers."""
    if kwargs:
        raise refusal(recorder.name(args[0]) or recorder.name(args[1]), f"by {func.__name__} with {', '.join(kwargs)}")
    weight, x = args if recorder.name(args[0]) else args[::-1]
    inner = x.detach()
    output: torch.Tensor = func(*args)
    return recorder.expect(output, [weight], lambda grad: [Dense(recorder.summed(wide(grad) * inner, weight))])


def _add(recorder: Recorder, func: Any, args: Any, kwargs: Any) -> torch.Tensor:
    """A bias that is added outside its layer."""
    term = args[0] if recorder.name(args[0]) else args[1]
    if kwargs or (func is torch.Tensor.add_ and term is args[0]):
        raise refusal(recorder.name(term), f"by {func.__name__}" + (f" with {', '.join(kwargs)}" if kwargs else ""))
    output: torch.Tensor = func(*args)
    return recorder.expect(output, [term], lambda grad: [Dense(recorder.summed(wide(grad), term))])


def _refuse_as_input(recorder: Recorder, x: Any) -> None:
    if recorder.name(x):
        raise refusal(recorder.name(x), "as a layer's input")


def _bind(names: tuple[str, ...], args: Any, kwargs: Any) -> tuple[Any, ...]:
    """A call's arguments in the order of `names`, None where not given."""
    given = dict(zip(names, args, strict=False)) | kwargs
    return tuple(given.get(name) for name in names)


RULES: dict[Any, Rule] = {
    functional.linear: _linear,
    functional.embedding: _embedding,
    functional.layer_norm: _layer_norm,
    **dict.fromkeys((functional.conv1d, functional.conv2d), _conv),
    functional.rms_norm: _rms_norm,
    **dict.fromkeys((torch.addmm, torch.Tensor.addmm), _addmm),
    **dict.fromkeys((torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.mm, torch.Tensor.mm), _matmul),
    **dict.fromkeys((torch.mul, torch.Tensor.mul, torch.Tensor.__mul__, torch.Tensor.__rmul__), _mul),
    **dict.fromkeys(
        (torch.add, torch.Tensor.add, torch.Tensor.__add__, torch.Tensor.__radd__, torch.Tensor.add_), _add
    ),
}
# functions that change only the type of a tensor, or where its entries lie in memory
CASTS = {
    torch.Tensor.to,
    torch.Tensor.float,
    torch.Tensor.double,
    torch.Tensor.half,
    torch.Tensor.bfloat16,
    torch.Tensor.type_as,
}
CASTS |= {torch.Tensor.contiguous, torch.Tensor.clone, torch.clone}
