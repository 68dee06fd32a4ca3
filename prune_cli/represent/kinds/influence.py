"""Influence on a target set: what a training step on each example does for the loss on the target set.

similarity: `cosine` the mean of cos(g_i, g_v) over the target rows v of a group (a checkpoint's term of LESS, Xia et
al. 2024, arXiv 2402.04333; the target's gradients are scaled to length one, as in its authors' code); `dot` the mean
of ⟨g_i, g_v⟩ (a checkpoint's term of TracInCP, Pruthi et al. 2020, arXiv 2002.08484). Higher: a training step on the
example lowers the target's loss more. A gradient of zero has influence zero. Computed without any projection
(gradients/influence.py).

precondition: `none`; or `adam`: g_i is the step that Adam would take on the example (gradients/adam.py), as in LESS.
The target's gradients are plain in any case. Memory: for each group, as much as the trainable parameters.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from prune_cli.errors import PruneError
from prune_cli.options import Help
from prune_cli.represent.kinds._shared import Params, Precondition
from prune_cli.represent.observe import Batch, Setup, Target, Tensor, Watcher

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from prune_cli.gradients.influence import Direction
    from prune_cli.models.find import Checkpoint

TENSORS = {
    "influence": Tensor(("g",), "float32", "influence on each group of the target set; higher: lowers its loss more")
}
FEATURES = "influence"
NEEDS = frozenset({"backward", "gold", "gradients", "head", "target"})


@dataclass(frozen=True)
class Options:
    """Options of the kind."""

    params: Params = "all"
    precondition: Precondition = "none"
    similarity: Annotated[
        Literal["cosine", "dot"],
        Help(
            "Mean cosine with the target's gradients (cosine, as in LESS), or mean inner product (dot, as in TracIn)."
        ),
    ] = "cosine"


def wants_moments(opts: Options) -> bool:
    """Whether steps of Adam are taken, which need its moments."""
    return opts.precondition == "adam"


def observe(setup: Setup, opts: Options) -> Influence:
    """Observe a pass; only the chosen parameters of the model need a gradient from now on."""
    from prune_cli.gradients import params

    assert setup.target is not None
    params.choose(setup.model, opts.params)
    return Influence(setup.target, opts)


class Influence(Watcher):
    """Observes `influence` [b, g] on a target set of g groups."""

    def __init__(self, target: Target, opts: Options) -> None:
        from prune_cli.gradients.per_example import PerExample

        setup = target.setup
        self._setup, self._group, self._groups = setup, target.group, int(target.group.max()) + 1
        self._cosine, self._adam = opts.similarity == "cosine", opts.precondition == "adam"
        self._examples = PerExample(lambda b: setup.task.losses(setup.exactly(b.inputs, b.at).logits, b.gold))

    def sizes(self, model: torch.nn.Module) -> dict[str, int]:
        """g: the groups of the target set."""
        return {"g": self._groups}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """Walk the target set for its directions, then capture the gradients of the model's examples."""
        import numpy as np
        import torch

        from prune_cli.gradients.influence import Influence as Products
        from prune_cli.represent.kinds._moments import adam_of

        with self._examples.attached(model) as capture:
            try:
                norms = self._target_norms() if self._cosine else np.ones(len(self._group))
                directions: list[Direction] = []
                for group in range(self._groups):
                    with capture.paused():
                        self._descend(group, norms)
                        directions.append({name: p.grad for name, p in capture.trainable.items() if p.grad is not None})
            except torch.OutOfMemoryError as failure:
                raise PruneError(
                    "the target set does not fit the device's memory",
                    hint="a smaller --tokens-per-batch, or fewer --params",
                ) from failure
            adam = adam_of(checkpoint, capture.trainable) if self._adam else None
            self._products = Products(directions, cosine=self._cosine, adam=adam)
            yield
        del self._products

    def _target_norms(self) -> NDArray[np.float64]:
        """Norm of each target row's gradient [m]."""
        import numpy as np
        import torch

        from prune_cli.gradients.norms import Norms

        measured, norms = Norms(), np.empty(len(self._group))
        for positions in self._batches(np.arange(len(norms))):
            batch = self._setup.batch(positions)
            measured.begin(len(batch), batch.labels.device)
            self._examples.begin(batch, lambda _, gradient: measured.add(gradient))
            self._backward(batch, torch.ones(len(batch), device=batch.labels.device))
            self._examples.finish()
            norms[positions] = measured.norms().cpu().numpy()
        return norms

    def _descend(self, group: int, norms: NDArray[np.float64]) -> None:
        """Leave the mean of a group's gradients, each divided by its norm, in the parameters."""
        import numpy as np
        import torch

        members = np.flatnonzero(self._group == group)
        shares = np.divide(1 / len(members), norms, out=np.zeros(len(norms)), where=norms > 0)
        for positions in self._batches(members):
            batch = self._setup.batch(positions)
            self._backward(batch, torch.tensor(shares[positions], device=batch.labels.device))

    def _batches(self, members: NDArray[np.int64]) -> Iterator[NDArray[np.int64]]:
        from prune_cli.models.batching import batches

        limits = self._setup.batch_size, self._setup.tokens_per_batch
        return (members[batch] for batch in batches(self._setup.encoded.lengths[members], *limits))

    def _backward(self, batch: Batch, weights: torch.Tensor) -> None:
        """Backward of the batch's weighted losses."""
        import torch

        with torch.enable_grad():
            logits = self._setup.forward(batch.inputs, batch.at).logits
            losses = self._setup.task.losses(logits, batch.gold)
            (losses * weights.to(losses.dtype)).sum().backward()

    def begin(self, batch: Batch) -> None:
        """Start the batch."""
        self._products.begin(len(batch), batch.labels.device)
        self._examples.begin(batch, self._products.add)

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch's influence on each group."""
        self._examples.finish()
        return {"influence": self._products.finish()}
