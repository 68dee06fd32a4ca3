"""Per-example gradients, randomly projected: the direction in which each example would move the model, and how far.

`gradient` is the projection (gradients/projection.py) of the example's gradient of its own loss, with k the largest
prime up to `dim`; it keeps inner products in expectation. `grad_norm` is the norm of the whole gradient.
Source: LESS (Xia et al. 2024, arXiv 2402.04333) and TracIn (Pruthi et al. 2020, arXiv 2002.08484) are made of these.
Differs: LESS projects with a dense Rademacher matrix, from batches of one.

precondition: `none`; or `adam`, the step that Adam would take on the example (gradients/adam.py), which LESS compares
with the target's plain gradients. `grad_norm` is of the plain gradient in any case.

norms: `exact`; or `sketched`, those of the projections, whose squares are right in expectation, and which cost nothing.
Exact norms also tell a gradient that is rounding alone, whose projection is then zero.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from prune_cli.errors import PruneError
from prune_cli.options import Help, Seed
from prune_cli.represent.kinds._shared import DType, Params, Precondition
from prune_cli.represent.observe import Batch, Setup, Tensor, Watcher

if TYPE_CHECKING:
    import torch

    from prune_cli.models.find import Checkpoint

TENSORS = {
    "gradient": Tensor(("k",), None, "randomly projected gradient of the loss", scaled=True),
    "grad_norm": Tensor((), "float32", "norm of the whole gradient; higher: the example moves the model more"),
}
FEATURES = "gradient"
NEEDS = frozenset({"backward", "gold", "gradients", "head"})
NOT_IN_SPACE = ("norms", "precondition")  # LESS compares Adam's steps with plain gradients


@dataclass(frozen=True)
class Options:
    """Options of the kind."""

    params: Params = "all"
    precondition: Precondition = "none"
    norms: Annotated[
        Literal["exact", "sketched"],
        Help("Norms of the whole gradients (exact), or of their projections (sketched), which cost nothing."),
    ] = "exact"
    dim: Annotated[
        int,
        Meta(ge=2, le=2**24),  # 32 MiB a row as float16
        Help("Most numbers that a gradient is projected to: the largest prime up to it."),
    ] = 8192
    dtype: DType = "float16"
    seed: Seed = 0


def wants_moments(opts: Options) -> bool:
    """Whether steps of Adam are taken, which need its moments."""
    return opts.precondition == "adam"


def observe(setup: Setup, opts: Options) -> Gradient:
    """Observe a pass; only the chosen parameters of the model need a gradient from now on."""
    from prune_cli.gradients import params

    if opts.norms == "sketched" and wants_moments(opts):
        raise PruneError(
            "norms: sketched; the projections are of Adam's steps; allowed with --precondition adam: exact"
        )
    params.choose(setup.model, opts.params)
    return Gradient(setup, opts)


class Gradient(Watcher):
    """Observes `gradient` [b, k] and `grad_norm` [b]."""

    def __init__(self, setup: Setup, opts: Options) -> None:
        from prune_cli.gradients.per_example import PerExample
        from prune_cli.gradients.projected import Projected

        self._opts = opts
        self._examples = PerExample(lambda b: setup.task.losses(setup.exactly(b.inputs, b.at).answers, b.gold))
        self._projected = Projected(opts.dim, opts.seed, exact_norms=opts.norms == "exact")

    def sizes(self, model: torch.nn.Module) -> dict[str, int]:
        """k: the largest prime up to `dim`."""
        from prune_cli.gradients.projection import buckets

        return {"k": buckets(self._opts.dim)}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """Capture the gradients of the model's examples."""
        from prune_cli.models.answers import whole
        from prune_cli.represent.kinds._moments import adam_of

        with self._examples.attached(model) as capture, whole(model, capture.trainable):
            if self._opts.precondition == "adam":
                self._projected.precondition(adam_of(checkpoint, capture.trainable))
            yield
        self._projected.precondition(None)

    def begin(self, batch: Batch) -> None:
        """Start the batch."""
        self._projected.begin(len(batch), batch.labels.device)
        self._examples.begin(batch, self._projected.add)

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The batch's projected gradients and norms."""
        self._examples.finish()
        projected, norms = self._projected.finish()
        return {"gradient": projected, "grad_norm": norms}
