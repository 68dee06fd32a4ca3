"""Influence on a target set: what a training step on each example does for the loss on the target set.

similarity: `cosine` the mean of cos(g_i, g_v) over the target rows v of a group (a checkpoint's term of LESS, Xia et
al. 2024, arXiv 2402.04333; the target's gradients are scaled to length one, as in its authors' code); `dot` the mean
of ⟨g_i, g_v⟩ (a checkpoint's term of TracInCP, Pruthi et al. 2020, arXiv 2002.08484). Higher: a training step on the
example lowers the target's loss more. A gradient of zero has influence zero. Computed without any projection
(gradients/influence.py).

by: `group`; or `row`: not the mean over the target rows of a group, but the influence on each target row by itself.

precondition: `none`; or `adam`: g_i is the step that Adam would take on the example (gradients/adam.py), as in LESS.
The target's gradients are plain in any case.

landmarks: of how many rows it is computed, and estimated for all others from these (represent/landmarks.py).

Memory: for each group, as much as the trainable parameters. By row, for each target row at most as much as that, and
for a short row on large matrices less, as its gradient is kept as factors (gradients/pairs.py): a target set that
takes more than half of the device's memory is refused. The kind gradient has the products of any number of rows with
any number of others, to within its projection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from prune_cli.errors import PruneError
from prune_cli.options import Help, Seed
from prune_cli.represent.kinds._shared import Params, Precondition
from prune_cli.represent.observe import Batch, Setup, Target, Tensor, Watcher

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from prune_cli.gradients.capture import Capture, Factors
    from prune_cli.gradients.influence import Directions
    from prune_cli.gradients.pairs import Held
    from prune_cli.models.find import Checkpoint
    from prune_cli.tasks import Task

TENSORS = {
    "influence": Tensor(
        ("g",), "float32", "influence on each group (or row) of the target set; higher: lowers its loss more"
    ),
    "exact": Tensor((), "float32", "1 where the influence was computed, 0 where it was estimated from other rows'"),
}
FEATURES = "influence"
NEEDS = frozenset({"backward", "gold", "gradients", "head", "target"})
NOT_IN_SPACE = ("landmarks", "seed")


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
    by: Annotated[
        Literal["group", "row"],
        Help("On each group of target rows, or all of them where they have no groups (group), or on each row (row)."),
    ] = "group"
    landmarks: Annotated[
        int,
        Meta(ge=0, le=10_000),  # three matrices of 10,000 × 10,000 take 2.4 GB
        Help("Compute it of so many rows, drawn at random, and estimate it of the others; 0: compute it of every row."),
    ] = 0
    seed: Seed = 0


def wants_moments(opts: Options) -> bool:
    """Whether steps of Adam are taken, which need its moments."""
    return opts.precondition == "adam"


def landmarks(opts: Options) -> tuple[int, int] | None:
    """Of how many rows it is computed, and the seed by which these are drawn."""
    return (opts.landmarks, opts.seed) if opts.landmarks else None


def resolved(opts: Options, _: Task) -> Options:
    """The options with a seed only where something is drawn by it."""
    return opts if opts.landmarks else replace(opts, seed=0)


def observe(setup: Setup, opts: Options) -> Influence:
    """Observe a pass; only the chosen parameters of the model need a gradient from now on."""
    from prune_cli.gradients import params

    assert setup.target is not None
    params.choose(setup.model, opts.params)
    return Influence(setup.target, opts)


class Influence(Watcher):
    """Observes `influence` [b, g] on a target set of g groups, or g rows, and `exact` [b]."""

    def __init__(self, target: Target, opts: Options) -> None:
        from prune_cli.gradients.per_example import PerExample

        setup = target.setup
        self._setup, self._group, self._by_row = setup, target.group, opts.by == "row"
        self._tokens = setup.tokens_per_batch  # of the target set; fewer once these did not fit the device's memory
        self._cosine, self._adam = opts.similarity == "cosine", opts.precondition == "adam"
        self._examples = PerExample(lambda b: setup.task.losses(setup.exactly(b.inputs, b.at).answers, b.gold))

    def sizes(self, model: torch.nn.Module) -> dict[str, int]:
        """g: the groups of the target set, or its rows."""
        return {"g": len(self._group) if self._by_row else int(self._group.max()) + 1}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """Walk the target set for its gradients, then capture those of the model's examples."""
        from prune_cli.gradients.influence import Influence as Products
        from prune_cli.models.answers import whole
        from prune_cli.represent.kinds._moments import adam_of

        with self._examples.attached(model) as capture, whole(model, capture.trainable):
            targets = self._targets(capture)
            adam = adam_of(checkpoint, capture.trainable) if self._adam else None
            self._products = Products(targets, cosine=self._cosine, adam=adam)
            yield
        del self._products

    def _targets(self, capture: Capture) -> Directions | Held:
        """The gradients of the target set, in smaller batches where these do not fit the device's memory."""
        import torch

        longest = int(self._setup.encoded.lengths.max())
        self._tokens = min(self._tokens, self._setup.batch_size * longest)
        while True:
            try:
                return self._rows() if self._by_row else self._directions(capture)
            except torch.OutOfMemoryError:
                pass  # the cache is emptied outside the handler, where what did not fit is freed
            if self._tokens <= longest:
                raise PruneError("the target set does not fit the device's memory", hint="fewer --params")
            self._tokens = max(longest, self._tokens // 2)
            torch.cuda.empty_cache()

    def _directions(self, capture: Capture) -> Directions:
        """The mean gradient of each group's rows."""
        import numpy as np
        import torch

        from prune_cli.gradients.influence import Directions

        norms = self._walk() if self._cosine else np.ones(len(self._group))
        means = []
        for group in range(int(self._group.max()) + 1):
            with capture.paused():
                self._descend(group, norms)
                grads = {name: (p, p.grad) for name, p in capture.trainable.items()}
                means.append({name: torch.zeros_like(p) if g is None else g for name, (p, g) in grads.items()})
        return Directions(means)

    def _rows(self) -> Held:
        """The gradient of each row."""
        import torch

        from prune_cli.gradients.pairs import Held

        held = Held(len(self._group))
        norms = torch.tensor(self._walk(held), device=self._setup.device)
        held.scale = torch.where(norms > 0, 1 / norms, 0) if self._cosine else torch.ones_like(norms)
        return held

    def _walk(self, held: Held | None = None) -> NDArray[np.float64]:
        """Norm of each target row's gradient [m]; held: keeps the gradients."""
        import numpy as np
        import torch

        from prune_cli.gradients.norms import Norms

        measured, norms = Norms(), np.empty(len(self._group))

        def add(name: str, gradient: Factors) -> None:
            measured.add(gradient)
            if held is not None:
                held.add(name, gradient)

        done = 0
        for positions in self._batches(np.arange(len(norms))):
            batch = self._setup.batch(positions)
            measured.begin(len(batch), batch.labels.device)
            if held is not None:
                held.begin(torch.tensor(positions, device=batch.labels.device))
            self._examples.begin(batch, add)
            self._backward(batch, torch.ones(len(batch), device=batch.labels.device))
            self._examples.finish()
            norms[positions] = measured.norms().cpu().numpy()
            done += len(positions)
            if held is not None:
                self._check_room(held.size, done)
        return norms

    def _check_room(self, size: int, done: int) -> None:
        """Raise PruneError where the gradients of the `done` target rows walked so far take too much memory."""
        from prune_cli.models.device import memory

        room = memory(self._setup.device) // 2
        if size > room:
            raise PruneError(
                f"by: row; the gradients of {done} of the {len(self._group)} target rows take {size / 2**30:.1f} GiB; "
                f"allowed: {room / 2**30:.1f} GiB, half of the device's memory",
                hint="fewer target rows, --by group, fewer --params (lora, last:2), or --kind gradient, which projects",
            )

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

        lengths = self._setup.encoded.lengths[members]
        return (members[batch] for batch in batches(lengths, self._setup.batch_size, self._tokens))

    def _backward(self, batch: Batch, weights: torch.Tensor) -> None:
        """Backward of the batch's weighted losses."""
        import torch

        with torch.enable_grad():
            answers = self._setup.forward(batch.inputs, batch.at).answers
            losses = self._setup.task.losses(answers, batch.gold)
            (losses * weights.to(losses.dtype)).sum().backward()

    def begin(self, batch: Batch) -> None:
        """Start the batch."""
        self._products.begin(len(batch), batch.labels.device)
        self._examples.begin(batch, self._products.add)

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch's influence on each group, or row."""
        self._examples.finish()
        influence = self._products.finish()
        return {"influence": influence, "exact": influence.new_ones(len(batch))}
