"""Training dynamics: how sure, and how right, the model is of each example at each checkpoint.

Sources: dataset cartography (Swayamdipta et al. 2020, arXiv 2009.10795) for the gold probability; EL2N (Paul et al.
2021, arXiv 2107.07075, section 2). Differs: both record them during training; here they are recomputed at the
checkpoints, without dropout, unless the recorded ones are asked for. UPD, prediction difficulty less uncertainty: D3
(Zhang et al. 2025, arXiv 2503.11441).

Of a row for generation they are means over its tokens that are trained on, in every turn of the assistant. count_eos:
whether end-of-sequence tokens are among them, as they are in training; recorded ones always count them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from prune_cli.errors import PruneError
from prune_cli.options import Help
from prune_cli.represent.kinds._ends import ends_of, without_ends
from prune_cli.represent.kinds._shared import CountEos
from prune_cli.represent.observe import Batch, Given, Setup, Tensor, Watcher

if TYPE_CHECKING:
    import torch

    from prune_cli.tasks import Task

TENSORS = {
    "logprob": Tensor((), "float32", "log-probability of the gold answer (nats); higher: easier"),
    "correct": Tensor((), "float32", "1 where the gold answer is the most probable one, else 0"),
    "margin": Tensor((), "float32", "gold logit minus the largest other logit; higher: easier"),
    "improbability": Tensor((), "float32", "one minus the probability of the gold answer; higher: harder"),
    "el2n": Tensor((), "float32", "distance of the predicted probabilities from the gold answer; higher: harder"),
    "entropy": Tensor((), "float32", "entropy of the predicted probabilities (nats); higher: less sure"),
    "upd": Tensor((), "float32", "prediction difficulty where the model is sure of another answer; higher: harder"),
}
FEATURES = "logprob"
NEEDS = frozenset({"gold", "head"})


@dataclass(frozen=True)
class Options:
    """Options of the kind."""

    dynamics: Annotated[
        Literal["recompute", "recorded"],
        Help("Compute them at each checkpoint (recompute), or copy what training recorded at each epoch (recorded)."),
    ] = "recompute"
    count_eos: CountEos = True


def observe(setup: Setup, opts: Options) -> Dynamics:
    """Observe a pass."""
    return Dynamics(setup.task, ends_of(setup, count_eos=opts.count_eos))


class Dynamics(Watcher):
    """Observes `logprob`, `correct`, `margin`, `el2n`, `improbability`, `entropy` and `upd`, each [b]."""

    def __init__(self, task: Task, ends: tuple[int, ...] = ()) -> None:
        self._task, self._ends = task, ends

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The task's dynamics of the batch."""
        return self._task.dynamics(batch.outputs.answers, without_ends(batch.gold, self._ends))


def without_pass(opts: Options) -> bool:
    """Whether they are copied rather than computed."""
    return opts.dynamics == "recorded"


def write(path: Path, given: Given, opts: Options) -> None:
    """Copy the dynamics that training recorded of these rows, at the epochs of the checkpoints asked for."""
    import numpy as np  # here, as help for the options of this kind needs none of it

    from prune_cli.artifacts import tensors
    from prune_cli.data import fingerprints

    named, rows = given.named, given.rows
    if not opts.count_eos and "count_eos" in given.task.OPTIONS:
        raise PruneError(
            "count_eos: false; allowed with --dynamics recorded: true, as training counted it",
            hint="--dynamics recompute",
        )
    trained = named.trained
    if trained is None or "dynamics.safetensors" not in trained.files:
        raise PruneError(
            f"{named.name}: no dynamics were recorded with it; a finetune artifact of at least one epoch has them",
            hint="--dynamics recompute",
        )
    recorded = trained.file("dynamics.safetensors")
    rates = tensors.metadata(recorded)["learning_rate"]
    if given.which == "all":
        epochs = list(range(len(rates)))
    elif given.which == "last":
        epochs = [len(rates) - 1]
    else:
        epochs = [int(checkpoint.name) - 1 for checkpoint in named.checkpoints]
    if trained.manifest["recipe"]["inputs"]["rows"] == rows.digest:
        order = np.arange(len(rows))
    else:
        lacking = f"was not trained on by {named.name}; only its own rows are recorded"
        order = fingerprints.positions(rows, trained.file(fingerprints.IDS), lacking, hint="--dynamics recompute")
    values = {name: array[order][:, epochs] for name, array in tensors.load(recorded).items()}
    names = [str(epoch + 1) for epoch in epochs]
    about = {"checkpoints": names, "learning_rate": [rates[epoch] for epoch in epochs], "recorded": True}
    tensors.save(path, values, about)
