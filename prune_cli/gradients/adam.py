"""The step that Adam would take on one example alone: its gradient, preconditioned by the moments training had.

Γ(g) = (β₁ m + (1 − β₁) g) / (√(β₂ v + (1 − β₂) g²) + ε), entry by entry, m and v the moments kept with a checkpoint.
Source: LESS, Xia et al. 2024, arXiv 2402.04333, sections 2 and 3 (for training examples alone). Without Adam's
corrections for the first steps, which scale every entry alike but for ε. Γ is not linear in g, nor zero where g is: it
takes each example's formed gradient, of a matrix a few examples at a time, of a table the rows that were looked up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from prune_cli.artifacts import tensors
from prune_cli.errors import PruneError
from prune_cli.gradients.factors import BLOCK, Lookup, Outer, Sum
from prune_cli.models.find import Checkpoint


@dataclass(frozen=True)
class Adam:
    """Moments of parameters by name, as they enter a step: β₁ m and β₂ v."""

    first: dict[str, torch.Tensor]
    second: dict[str, torch.Tensor]
    betas: tuple[float, float]
    eps: float
    _resting: dict[str, torch.Tensor] = field(default_factory=dict)

    def step(self, name: str, grads: torch.Tensor) -> torch.Tensor:
        """Γ of gradients [b, …] of a parameter […]."""
        return self._step(self._moment(self.first, name), self.second[name], grads)

    def resting(self, name: str) -> torch.Tensor:
        """Γ of a gradient of zero […]."""
        if name not in self._resting:
            first = self._moment(self.first, name)
            self._resting[name] = first / (self.second[name].sqrt() + self.eps)
        return self._resting[name]

    def check(self, seen: set[str]) -> None:
        """Raise PruneError if a parameter that has moments was not among those seen in a batch."""
        if unseen := set(self.first) - seen:
            raise PruneError(f"precondition: adam; {min(unseen)} has moments, but a batch made no use of it")

    def formed(self, name: str, gradient: Outer | Sum) -> Iterator[tuple[slice, torch.Tensor]]:
        """Γ of a matrix parameter [r, c], some examples at a time: which they are, [those, r, c]."""
        moment = self._moment(self.first, name)
        some = max(1, BLOCK[moment.device.type] // moment.numel())
        for start in range(0, len(gradient), some):
            chosen = slice(start, start + some)
            yield chosen, self.step(name, gradient.of(chosen).dense())

    def looked_up(self, name: str, gradient: Lookup) -> tuple[Lookup, torch.Tensor]:
        """Γ of the rows of a table that were looked up, each once in an example, and which places [b, t] hold them."""
        sums, once = gradient.summed()
        first, second = self._moment(self.first, name)[sums.ids], self.second[name][sums.ids]
        return Lookup(sums.ids, self._step(first, second, sums.grads), sums.rows), once

    def _step(self, first: torch.Tensor, second: torch.Tensor, grads: torch.Tensor) -> torch.Tensor:
        beta1, beta2 = self.betas
        size = torch.addcmul(second, grads, grads, value=1 - beta2).sqrt_().add_(self.eps)
        return torch.add(first, grads, alpha=1 - beta1).div_(size)

    def _moment(self, moments: dict[str, torch.Tensor], name: str) -> torch.Tensor:
        if name not in moments:
            raise PruneError(
                f"precondition: adam; {name} has no moments: it was not trained", hint="--params with what was trained"
            )
        return moments[name]


def load(checkpoint: Checkpoint | None, trainable: Mapping[str, torch.Tensor]) -> Adam:
    """The moments kept with a checkpoint, of the parameters that gradients are of."""
    path = checkpoint.path / "moments.safetensors" if checkpoint and checkpoint.path else None
    if path is None or not path.is_file():
        hint = "prune finetune --checkpoints epoch --moments yes keeps them with each checkpoint"
        if checkpoint and checkpoint.name == "last":
            hint += "; name those with --checkpoints all, or numbers"
        raise PruneError("precondition: adam; no moments are kept with the model's weights", hint=hint)
    about = tensors.metadata(path)
    (beta1, beta2), held = about["betas"], tensors.load(path)

    def scaled(moment: str, by: float) -> dict[str, torch.Tensor]:
        start = f"{moment}."
        return {
            name: torch.tensor(held[start + name]).to(p.device).mul_(by)
            for name, p in trainable.items()
            if start + name in held
        }

    return Adam(scaled("exp_avg", beta1), scaled("exp_avg_sq", beta2), (beta1, beta2), about["eps"])
