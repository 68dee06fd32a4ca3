"""The points as methods ask for them: the tensors of three kinds, under the names that artifacts have them by.

dynamics: the model after each epoch. hidden: the inputs themselves, which is what a linear model sees. gradient: that
of logistic.py at the last epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.methods.call import OF_CHOICE, TARGET, shaped
from prune_cli.methods.method import Method
from prune_cli.represent import kinds
from prune_cli.simulation import logistic
from prune_cli.simulation.points import Points

Tensors = dict[str, NDArray[Any]]

KINDS = ("dynamics", "hidden", "gradient")
TENSORS = ("logprob", "correct", "margin", "improbability", "el2n", "entropy", "upd", "hidden", "gradient", "grad_norm")
OF_ROWS = (*TENSORS, *OF_CHOICE, "label")
GIVEN = frozenset(["n", "rng", "n_keep", "score", "learning_rate", *OF_ROWS, *(TARGET + name for name in OF_ROWS)])


def represent(points: Points, path: NDArray[np.float64]) -> Tensors:
    """All tensors of n points by a model whose weights are path [e, 3]: name -> [n, e], or [n, 1, 2]."""
    margin = logistic.margins(points.x, points.y, path)
    improbability = logistic.sigmoid(-margin)
    loss = np.logaddexp(0, -margin)
    entropy = (1 - improbability) * loss + improbability * np.logaddexp(0, margin)
    gradient = logistic.gradients(points.x, points.y, path[-1])
    return {
        "logprob": -loss,
        "correct": (margin > 0).astype(np.float64),
        "margin": margin,
        "improbability": improbability,
        "el2n": np.sqrt(2) * improbability,  # of two classes: the one lacks what the other has too much
        "entropy": entropy,
        "upd": logistic.sigmoid(loss) * (1 - entropy / np.log(2)),
        "hidden": points.x[:, None],
        "gradient": gradient[:, None],
        "grad_norm": np.linalg.norm(gradient, axis=1, keepdims=True),
        "label": points.y,
    }


def arguments(
    method: Method, kind: str | None, own: Tensors, target: Tensors, rng: np.random.Generator
) -> dict[str, Any]:
    """What a method asks for of the points, but for score and n_keep; what it can do without is left out."""
    values: dict[str, Any] = {"n": len(own["label"]), "rng": rng}
    if kind:
        values["learning_rate"] = np.ones(_steps(method, kind, own))
    for name in method.inputs:
        bare = name.removeprefix(TARGET)
        if bare in OF_ROWS:
            side = target if name.startswith(TARGET) else own
            tensor = kinds.load(kind).features if kind and bare in OF_CHOICE else bare
            values[name] = shaped(side[tensor], bare, kind or "")
    return {name: value for name, value in values.items() if name in method.inputs}


def _steps(method: Method, kind: str, own: Tensors) -> int:
    """How many checkpoints a method sees: of losses as a trajectory one, that holds them all."""
    features = own[kinds.load(kind).features]
    return 1 if "trajectory" in method.inputs else features.shape[1]
