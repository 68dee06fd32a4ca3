"""Every example's own gradient of every trainable parameter, from one forward and one backward of a batch.

The backward of a batch's summed loss already holds each example's share at every layer's output; only the step
from there to the parameters adds the examples up. So that step is left out: parameters are frozen, the
functions that take them (linear, embedding, normalisation, …) are intercepted in the forward, and when the
gradient of such a function's output arrives, the example's own gradient follows from it and the input, in the
factored form in which it is smallest (Goodfellow 2015, arXiv 1510.01799, for linear layers).

A function is recognised by the parameter it is given, whichever module calls it and however often; a tensor that
is computed from parameters alone stands for them. A function without a rule in rules.py is an error that names the
parameter: nothing is left out in silence.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from prune_cli.errors import PruneError
from prune_cli.gradients.architectures import deberta
from prune_cli.gradients.derived import Derived, derive, replaced, tensors
from prune_cli.gradients.factors import Dense, Factors, Lookup, Outer, Part, Sum, merged, wide
from prune_cli.gradients.rules import CASTS, RULES, refusal

__all__ = ["Capture", "Dense", "Factors", "Lookup", "Outer", "Sink", "Sum"]

Sink = Callable[[str, Factors], None]  # takes a parameter's name and its gradients, once a batch


class Capture:
    """Hand each trainable parameter's per-example gradients of a backward to a sink, as soon as they are whole."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise PruneError("the model has no trainable parameters; the gradient kind needs some")
        self.b = self.sequences = 0
        self._names = {id(p): name for name, p in self.trainable.items()}
        self._parameters = {id(p) for p in model.parameters()}
        self._derived: dict[int, Derived] = {}
        self._on = False
        self._sink: Sink = _unset
        self._lengths: set[int] = set()  # of the axes of the model's inputs
        self._inputs: dict[Any, Input] = {}  # of the layers of this forward
        self._calls: Counter[str] = Counter()  # calls whose gradients are still to come
        self._found: dict[str, list[Part]] = {}

    def begin(self, b: int, sink: Sink, sequences: int | None = None) -> None:
        """Start a batch of b examples.

        sequences: how many the model's layers see, a multiple of b (b by default): a multiple-choice model lays each
        example's choices end to end. An example's gradients are sums over its sequences, its factors have the tokens
        of all of them.
        """
        self.b, self.sequences, self._sink = b, sequences or b, sink
        if self.sequences % b:
            raise ValueError(f"sequences: {self.sequences}; allowed: a multiple of the {b} examples")
        self._clear()

    def finish(self) -> None:
        """After the backward: hand over what had a call that the loss does not depend on."""
        for name in list(self._found):
            self._sink(name, merged(self._found.pop(name)))
        self._clear()

    def _clear(self) -> None:
        self._calls.clear()
        self._found.clear()
        self._derived.clear()
        self._inputs.clear()

    @contextmanager
    def attached(self, model: torch.nn.Module) -> Iterator[None]:
        """Freeze the parameters and intercept the model's forwards; those under `torch.no_grad` are let be."""
        mode = _Intercept(self)
        entered: list[_Intercept] = []

        def enter(_: torch.nn.Module, args: Any, kwargs: Any) -> None:
            if self._on and torch.is_grad_enabled():
                self._lengths = {size for given in tensors([*args, *kwargs.values()]) for size in given.shape[1:]}
                entered.append(mode.__enter__())

        def leave(*_: Any) -> None:
            if entered:
                entered.pop().__exit__(None, None, None)
                self._inputs.clear()

        hooks = [
            model.register_forward_pre_hook(enter, with_kwargs=True),
            model.register_forward_hook(leave, always_call=True),
        ]
        try:
            with deberta.batched_tables(model, self.table):
                self._switch(on=True)
                yield
        finally:
            self._switch(on=False)
            for hook in hooks:
                hook.remove()
            self._clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, the model is as it was: a backward leaves its gradients in the parameters."""
        self._switch(on=False)
        self._drop_grads()
        try:
            yield
        finally:
            self._drop_grads()
            self._switch(on=True)

    def _drop_grads(self) -> None:
        for parameter in self.trainable.values():
            parameter.grad = None

    def _switch(self, *, on: bool) -> None:
        self._on = on
        for parameter in self.trainable.values():
            parameter.requires_grad_(not on)

    def table(self, parameter: torch.Tensor) -> torch.Tensor:
        """A parameter [v, d] that the model reads as a tensor: a copy for each sequence, [sequences, v, d]."""
        if not (self._on and torch.is_grad_enabled()):
            return parameter.unsqueeze(0)
        copies = parameter.detach().expand(self.sequences, *parameter.shape)
        if not self.name(parameter):
            return copies
        copies = copies.clone()
        self.expect(copies, [parameter], lambda grad: [Dense(self.summed(grad, parameter))])
        return copies

    def name(self, tensor: Any) -> str | None:
        """The name of a trainable parameter, or of one that a tensor is computed from; None for anything else."""
        derived = self._derived.get(id(tensor))
        return self._names.get(id(tensor)) if derived is None else self.name(derived.sources[0])

    def _is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is known to be the same for all examples."""
        return id(tensor) in self._parameters or id(tensor) in self._derived

    def split(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """Part the leading axis of a layer's input or output by example: [n, …] -> [b, n / b, …]."""
        n = tensor.shape[0] if tensor.dim() else 0
        flat = tensor.dim() == 2 and n in {self.sequences * t for t in self._lengths}  # all tokens in a row
        if not (flat or n in (self.b, self.sequences) or self.b == 1):
            raise PruneError(
                f"{name}: used on a tensor of shape {list(tensor.shape)}, without the batch's {self.b} examples; "
                "per-example gradients are not known for that",
                hint="represent other kinds, or with --batch-size 1",
            )
        return tensor.reshape(self.b, -1, *tensor.shape[1:])

    def tokens(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """Bring a layer's input or output […, d] to [b, t, d]."""
        return self.split(tensor, name).reshape(self.b, -1, tensor.shape[-1])

    def summed(self, tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """Undo the broadcast of a parameter […] within each example: [b, …]."""
        split = self.split(tensor, self.name(parameter))
        across = parameter.dim() == tensor.dim() and parameter.shape[0] != 1  # it has an entry for each example
        if across and self.b > 1:
            raise refusal(self.name(parameter), f"along the batch's axis, with shape {list(parameter.shape)}")
        alike = (1,) * (tensor.dim() - parameter.dim())
        return split.sum_to_size(self.b, *alike, *parameter.shape).reshape(self.b, *parameter.shape)

    def input(self, x: torch.Tensor, name: str | None) -> Input:
        """A layer's input; the same one for all layers of a forward that are given the same tensor."""
        # what is in the dictionary is alive, so its address is its own
        key = (x.data_ptr(), x.shape, x.stride(), x.dtype, x._version)
        if key not in self._inputs:
            self._inputs[key] = Input(self.tokens(x.detach(), name))
        return self._inputs[key]

    def expect(
        self,
        output: torch.Tensor,
        parameters: list[torch.Tensor],
        gradients: Callable[[torch.Tensor], list[Part]],
    ) -> None:
        """When the gradient of `output` arrives, note what `gradients` makes of it for each of the parameters."""
        for parameter in parameters:
            self._calls.update(self._sources(parameter))
        held = [gradients]

        def arrived(grad: torch.Tensor) -> None:
            # taken out: what it holds is let go of now, not when the graph is
            for parameter, part in zip(parameters, held.pop()(wide(grad)), strict=True):
                self._note(parameter, part)

        if not output.requires_grad:
            output.requires_grad_(True)
        output.register_hook(arrived)

    def derive(self, func: Any, args: Any, kwargs: Any, names: list[str]) -> Any:
        """Call a function without a rule: note what it computes from parameters alone, refuse what it mixes."""
        result = func(*args, **kwargs)
        if result is not None and not any(True for _ in tensors(result)):
            return result  # a shape, a type, a device
        leaves: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}

        def stand_in(tensor: torch.Tensor) -> torch.Tensor:
            if not self.name(tensor):
                return tensor.detach()
            if id(tensor) not in leaves:
                leaves[id(tensor)] = tensor, tensor.detach().requires_grad_(True)
            return leaves[id(tensor)][1]

        given = replaced(args, stand_in), {key: replaced(value, stand_in) for key, value in kwargs.items()}
        again = func(*given[0], **given[1])
        stand_ins = [leaf for _, leaf in leaves.values()]
        touched = [*tensors(again), *tensors([*given[0], *given[1].values()])]
        if not any(t.requires_grad and not any(t is leaf for leaf in stand_ins) for t in touched):
            return result  # of a parameter's shape or type, not its values; or the parameter itself
        if not all(map(self._is_constant, tensors([*args, *kwargs.values()]))):
            raise refusal(names[0], f"by {getattr(func, '__name__', func)}")
        for derived in derive(result, again, list(leaves.values()), casts=func in CASTS):
            self._derived[id(derived.tensor)] = derived
        return result

    def _sources(self, tensor: torch.Tensor) -> list[str]:
        """The trainable parameters that a tensor is, or is computed from."""
        derived = self._derived.get(id(tensor))
        if derived is None:
            return [self._names[id(tensor)]]
        return [name for source in derived.sources for name in self._sources(source)]

    def _note(self, tensor: torch.Tensor, part: Part) -> None:
        derived = self._derived.get(id(tensor))
        if derived is not None:
            for source, share in zip(derived.sources, derived.pull(part), strict=True):
                self._note(source, share)
            return
        name = self._names[id(tensor)]
        self._found.setdefault(name, []).append(part)
        self._calls[name] -= 1
        if not self._calls[name]:
            self._sink(name, merged(self._found.pop(name)))


class Input:
    """A layer's input [b, t, d], widened when it is first needed and for all the layers that share it."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self._tensor = tensor

    def wide(self) -> torch.Tensor:
        """In float32 at least."""
        self._tensor = wide(self._tensor)
        return self._tensor


class _Intercept(TorchFunctionMode):
    """Sees every torch function that the forward calls; acts on those that are given a trainable parameter."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(tensors([*args, *kwargs.values()]))
        names = [name for tensor in given if (name := self._capture.name(tensor))]
        if not names or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        rule = RULES.get(func)
        if rule and not all(map(self._capture._is_constant, given)):
            return rule(self._capture, func, args, kwargs)
        return self._capture.derive(func, args, kwargs, names)


def _unset(name: str, gradient: Factors) -> None:
    raise AssertionError("begin() comes before a batch")
