"""STUB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from prune_cli.errors import PruneError

_T = {
    "hidden": ("hidden",),
    "dynamics": ("logprob", "correct", "margin", "el2n"),
    "gradient": ("gradient", "grad_norm"),
    "influence": ("influence",),
    "unprompted": ("logprob_unprompted",),
}
_F = {
    "hidden": "hidden",
    "dynamics": "logprob",
    "gradient": "gradient",
    "influence": "influence",
    "unprompted": "logprob_unprompted",
}
_N = {"influence": {"backward", "gradients", "target"}, "gradient": {"backward", "gradients"}, "unprompted": {"prompt"}}


@dataclass(frozen=True)
class Kind:
    name: str
    tensors: dict[str, Any]
    features: str
    needs: frozenset[str]
    not_in_space: tuple[str, ...] = ()


def names() -> list[str]:
    return sorted(_T)


def load(n: str) -> Kind:
    if n not in _T:
        raise PruneError(f"kind: {n}; allowed: {', '.join(names())}")
    return Kind(n, dict.fromkeys(_T[n]), _F[n], frozenset(_N.get(n, ())), ("precondition",) if n == "gradient" else ())


def kind_of(t: str) -> str | None:
    return next((k for k, v in _T.items() if t in v), None)


def is_scalar(k: str) -> bool:
    return k in ("dynamics", "unprompted")


def tensor_names() -> list[str]:
    return [t for v in _T.values() for t in v]
