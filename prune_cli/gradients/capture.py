"""Every example's own gradient of every trainable parameter, from one forward and one backward of a batch.

The backward of a batch's summed loss keeps the examples apart up to the output of every layer; only the step from
there to the parameters adds them up. That step is left out here: parameters are frozen, and the functions that use
them (linear, embedding, normalisation, …) are intercepted in the forward. When the gradient of such a function's
output arrives, each example's gradient follows from it and the function's input, in the factored form that is
smallest (Goodfellow 2015, arXiv 1510.01799, for linear layers).

A function is recognised by the parameter it is given, whichever module calls it and however often. A tensor that is
computed from parameters alone counts as those parameters. A function without a rule in rules.py is an error that names
the parameter: no gradient is left out silently. In a batch of one example any function will do: there the example's
gradient is the batch's, which autograd gives.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from prune_cli.errors import PruneError
from prune_cli.gradients import architectures
from prune_cli.gradients.derived import Derived, derive, replaced, tensors
from prune_cli.gradients.factors import Dense, Factors, Input, Lookup, Outer, Part, Sum, merged, wide
from prune_cli.gradients.rules import CASTS, RULES, refusal

__all__ = ["Capture", "Dense", "Factors", "Lookup", "Outer", "Sink", "Sum"]

Sink = Callable[[str, Factors], None]  # called with a parameter's name and its gradients, once a batch


class Capture:
    """Pass the per-example gradients of each trainable parameter to a sink, as soon as they are complete."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.trainable = {name: p for name, p in model.named_parameters() if p.requires_grad}
        if not self.trainable:
            raise PruneError("the model has no trainable parameters; per-example gradients need some")
        self.b = self.sequences = 0
        self._names = {id(p): name for name, p in self.trainable.items()}
        self._parameters = {id(p) for p in model.parameters()}
        self._derived: dict[int, Derived] = {}
        self._on = False
        self._sink: Sink = _unset
        self._lengths: set[int] = set()  # of the axes of the model's inputs
        self._inputs: dict[Any, Input] = {}  # of the layers of this forward
        self._calls: Counter[str] = Counter()  # calls whose gradients are still to come
        self._parts: dict[str, list[Part]] = {}

    def begin(self, b: int, sink: Sink, sequences: int | None = None) -> None:
        """Start a batch of b examples.

        sequences: how many the model's layers see, a multiple of b (b by default): a multiple-choice model lays each
        example's choices one after another. An example's gradients are sums over its sequences, and its factors hold
        the tokens of all of them.
        """
        self.b, self.sequences, self._sink = b, sequences or b, sink
        if self.sequences % b:
            raise ValueError(f"sequences: {self.sequences}; allowed: a multiple of the {b} examples")
        self._clear()

    def finish(self) -> None:
        """End the batch, after the backward.

        A parameter is passed on when the gradients of all its calls have arrived. Where the loss does not depend on
        one of the calls, its gradient never arrives: such parameters are passed on here.
        """
        for name in list(self._parts):
            self._sink(name, merged(self._parts.pop(name)))
        self._clear()

    def _clear(self) -> None:
        self._calls.clear()
        self._parts.clear()
        self._derived.clear()
        self._inputs.clear()

    @contextmanager
    def attached(self, model: torch.nn.Module) -> Iterator[None]:
        """Freeze the parameters and intercept the model's forwards; not those under `torch.no_grad`."""
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
            with architectures.patched(model, self.table):
                self._switch(on=True)
                yield
        finally:
            self._switch(on=False)
            for hook in hooks:
                hook.remove()
            self._clear()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Inside, nothing is intercepted: a backward adds its gradients to the parameters, as usual."""
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
        """A parameter […] that the model reads as a tensor: a copy for each sequence, [sequences, …].

        The copies share the memory of the parameter.
        """
        if not (self._on and torch.is_grad_enabled()):
            return parameter.unsqueeze(0)
        copies = parameter.detach().expand(self.sequences, *parameter.shape)
        if not self.name(parameter):
            return copies
        return self._hook(
            copies.requires_grad_(), [parameter], lambda grad: [Dense(self.summed(wide(grad), parameter))]
        )

    def name(self, tensor: Any) -> str | None:
        """The name of a trainable parameter, or of one that a tensor is computed from; None for anything else."""
        derived = self._derived.get(id(tensor))
        return self._names.get(id(tensor)) if derived is None else self.name(derived.sources[0])

    def _is_constant(self, tensor: torch.Tensor) -> bool:
        """Whether a tensor is known to be the same for all examples."""
        return id(tensor) in self._parameters or id(tensor) in self._derived

    def split(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """Split the leading axis of a layer's input or output by example: [n, …] -> [b, n / b, …]."""
        n = tensor.shape[0] if tensor.dim() else 0
        # all tokens in a row, or all heads of all tokens
        flat = tensor.dim() == 2 and any(n % (self.sequences * t) == 0 for t in self._lengths)
        if not (flat or n in (self.b, self.sequences) or self.b == 1):
            raise refusal(name, f"on a tensor of shape {list(tensor.shape)}, without the batch's {self.b} examples")
        return tensor.reshape(self.b, -1, *tensor.shape[1:])

    def tokens(self, tensor: torch.Tensor, name: str | None) -> torch.Tensor:
        """Bring a layer's input or output […, d] to [b, t, d]."""
        return self.split(tensor, name).reshape(self.b, -1, tensor.shape[-1])

    def summed(self, tensor: torch.Tensor, parameter: torch.Tensor) -> torch.Tensor:
        """The gradient of a broadcast parameter […], summed within each example: [b, …]."""
        split = self.split(tensor, self.name(parameter))
        across = parameter.dim() == tensor.dim() and parameter.shape[0] != 1  # it has an entry for each example
        if across and self.b > 1:
            raise refusal(self.name(parameter), f"along the batch's axis, with shape {list(parameter.shape)}")
        alike = (1,) * (tensor.dim() - parameter.dim())
        return split.sum_to_size(self.b, *alike, *parameter.shape).reshape(self.b, *parameter.shape)

    def input(self, x: torch.Tensor, name: str | None) -> Input:
        """A layer's input, one object for all layers of a forward that are given the same tensor."""
        # tensors in the dictionary are alive, so no other tensor can have their address
        key = (x.data_ptr(), x.shape, x.stride(), x.dtype, x._version)
        if key not in self._inputs:
            self._inputs[key] = Input(self.tokens(x.detach(), name))
        return self._inputs[key]

    def expect(
        self,
        output: torch.Tensor,
        parameters: list[torch.Tensor],
        gradients: Callable[[torch.Tensor], list[Part]],
    ) -> torch.Tensor:
        """Record `gradients(grad)`, one part for each of the parameters, when the gradient of `output` arrives.

        Returns what the model is to use as the output.
        """
        if not output.requires_grad:
            output.requires_grad_(True)
        # a model may write into it: into a leaf it must not, and with a view the hook is lost. In larger batches, where
        # copies of views would cost, such a model is refused: no gradient arrives
        if output.is_leaf or (self.b == 1 and output._is_view()):
            output = output.clone()
        return self._hook(output, parameters, gradients)

    def _hook(
        self, output: torch.Tensor, parameters: list[torch.Tensor], gradients: Callable[[torch.Tensor], list[Part]]
    ) -> torch.Tensor:
        for parameter in parameters:
            self._calls.update(self._sources(parameter))
        held = [gradients]

        def arrived(grad: torch.Tensor) -> None:
            # popped: what it refers to is freed now, not when the graph is
            for parameter, part in zip(parameters, held.pop()(grad), strict=True):
                self._record(parameter, part)

        output.register_hook(arrived)
        return output

    def derive(self, func: Any, args: Any, kwargs: Any, names: list[str]) -> Any:
        """Call a function without a rule.

        Its result is recorded where it is computed from parameters alone. Raises PruneError where it mixes parameters
        with the examples.
        """
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
        try:
            again = func(*given[0], **given[1])
        except RuntimeError as failure:  # it writes into one of its arguments
            raise refusal(names[0], f"by {getattr(func, '__name__', func)}") from failure
        stand_ins = [leaf for _, leaf in leaves.values()]
        touched = [*tensors(again), *tensors([*given[0], *given[1].values()])]
        if not any(t.requires_grad and not any(t is leaf for leaf in stand_ins) for t in touched):
            return result  # depends on the shape or type of a parameter, not on its values; or is the parameter itself
        if not all(map(self._is_constant, tensors([*args, *kwargs.values()]))):
            raise refusal(names[0], f"by {getattr(func, '__name__', func)}")
        for derived in derive(result, again, list(leaves.values()), casts=func in CASTS):
            self._derived[id(derived.tensor)] = derived
        return result

    def alone(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Call a function without a rule in a batch of one example: its gradient is the batch's."""

        def own(tensor: torch.Tensor) -> torch.Tensor:
            if not self.name(tensor):
                return tensor
            return self._hook(tensor.detach().requires_grad_(), [tensor], lambda grad: [Dense(wide(grad).unsqueeze(0))])

        return func(*replaced(args, own), **{key: replaced(value, own) for key, value in kwargs.items()})

    def _sources(self, tensor: torch.Tensor) -> list[str]:
        """The trainable parameters that a tensor is, or is computed from."""
        derived = self._derived.get(id(tensor))
        if derived is None:
            return [self._names[id(tensor)]]
        return [name for source in derived.sources for name in self._sources(source)]

    def _record(self, tensor: torch.Tensor, part: Part) -> None:
        derived = self._derived.get(id(tensor))
        if derived is not None:
            for source, share in zip(derived.sources, derived.pull(part), strict=True):
                self._record(source, share)
            return
        name = self._names[id(tensor)]
        self._parts.setdefault(name, []).append(part)
        self._calls[name] -= 1
        if not self._calls[name]:
            self._sink(name, merged(self._parts.pop(name)))


class _Intercept(TorchFunctionMode):
    """Sees every torch function that the forward calls; acts on those that use a trainable parameter."""

    def __init__(self, capture: Capture) -> None:
        super().__init__()
        self._capture = capture

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        given = list(tensors([*args, *kwargs.values()]))
        names = [name for tensor in given if (name := self._capture.name(tensor))]
        if not names or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        rule, constant = RULES.get(func), all(map(self._capture._is_constant, given))
        if constant or (rule is None and self._capture.b > 1):
            return self._capture.derive(func, args, kwargs, names)
        try:
            if rule:
                return rule(self._capture, func, args, kwargs)
        except PruneError:
            if self._capture.b > 1:
                raise
        return self._capture.alone(func, args, kwargs)


def _unset(name: str, gradient: Factors) -> None:
    raise AssertionError("begin() comes before a batch")
