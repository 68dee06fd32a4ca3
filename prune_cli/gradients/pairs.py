"""Inner products of every example's gradient in one batch with every one's in another, from their factors.

⟨Σ_t l_t ⊗ r_t, Σ_s l'_s ⊗ r'_s⟩ = Σ_{t,s} ⟨l_t, l'_s⟩ ⟨r_t, r'_s⟩: two products of matrices over all pairs of tokens
(the ghost dot product of Wang et al. 2024, arXiv 2406.11011). Where that is more work than to form the gradients, they
are formed, some of their rows at a time, multiplied and dropped. Nothing is drawn at random.
"""

from __future__ import annotations

import torch

from prune_cli.gradients.factors import BLOCK, Dense, Factors, Lookup, Outer, Part, Sum, times, wide


class Held:
    """The gradients of m target rows, batch by batch, each parameter's as factors, or formed where that is smaller.

    scale [m]: what the gradients are to be multiplied by, set when all are held.
    """

    scale: torch.Tensor

    def __init__(self, m: int) -> None:
        self._m = m
        self._of: dict[str, list[tuple[torch.Tensor, Factors]]] = {}  # parameter -> positions of rows, their gradients
        self._storages: dict[int, int] = {}  # address -> bytes; layers that share an input share its storage

    def __len__(self) -> int:
        """Target rows: m."""
        return self._m

    @property
    def size(self) -> int:
        """Bytes held."""
        return sum(self._storages.values())

    def begin(self, positions: torch.Tensor) -> None:
        """Start a batch of the target rows at positions [b]."""
        self._positions = positions

    def add(self, name: str, gradient: Factors) -> None:
        """Keep the gradients of a parameter."""
        kept = _smallest(gradient)
        self._of.setdefault(name, []).append((self._positions, kept))
        for part in _parts(kept):
            for tensor in vars(part).values():
                if isinstance(tensor, torch.Tensor):
                    storage = tensor.untyped_storage()
                    self._storages[storage.data_ptr()] = storage.nbytes()

    def products(self, name: str, gradient: Factors) -> torch.Tensor:
        """⟨g_i, g_v⟩ of each example's gradient of a parameter with each target row's, scaled: float64 [b, m]."""
        found = torch.zeros(len(gradient), self._m, dtype=torch.float64, device=self._positions.device)
        for positions, theirs in self._of.get(name, []):
            found[:, positions] = pairs(gradient, theirs)
        return found * self.scale


def pairs(ours: Factors, theirs: Factors) -> torch.Tensor:
    """⟨g_i, g_v⟩ of each example of ours [b] with each of theirs [m], gradients of one parameter: float64 [b, m]."""
    terms = [_pairs(a, b) for a in _parts(ours) for b in _parts(theirs)]
    return torch.stack(terms).sum(0)


def _pairs(a: Part, b: Part) -> torch.Tensor:
    if isinstance(a, Dense) and not isinstance(b, Dense):
        return _pairs(b, a).T
    if isinstance(a, Lookup) and isinstance(b, Dense):
        tables = b.grads.to(a.grads.dtype)
        rows = [tables[:, ids].flatten(1) @ grads.flatten() for ids, grads in zip(a.ids, a.grads, strict=True)]
        return torch.stack(rows).double()
    if isinstance(b, Dense) or (isinstance(a, Outer) and isinstance(b, Outer) and _formed_is_less(a, b)):
        assert not isinstance(a, Lookup)
        return _by_forming(a, b)
    assert not isinstance(a, Dense)
    return _by_token(a, b)


def _formed_is_less(a: Outer, b: Outer) -> bool:
    """Whether to form the gradients is less work than to compare all tokens."""
    (n, t, r), (m, s, c) = a.left.shape, b.right.shape
    return r * c * (n * t + m * s + n * m) < n * t * m * s * (r + c)


def _by_forming(a: Outer | Dense, b: Part) -> torch.Tensor:
    """By the gradients themselves, of as many rows of the parameter at a time as fit a block."""
    assert not isinstance(b, Lookup)
    rows, width = _shape(a)
    device = (a.left if isinstance(a, Outer) else a.grads).device
    step = max(1, BLOCK[device.type] // ((len(a) + len(b)) * width))
    found = torch.zeros(len(a), len(b), dtype=torch.float64, device=device)
    for start in range(0, rows, step):
        some = slice(start, start + step)
        ours = _rows(a, some)
        found += ours @ _rows(b, some).to(ours.dtype).T
    return found


def _shape(part: Outer | Dense) -> tuple[int, int]:
    """Rows of the parameter, and entries in each."""
    if isinstance(part, Outer):
        return part.left.shape[2], part.right.shape[2]
    flat = part.grads.reshape(len(part.grads), -1)
    rows = part.grads.shape[1] if part.grads.dim() > 1 else 1
    return rows, flat.shape[1] // rows


def _rows(part: Outer | Dense, some: slice) -> torch.Tensor:
    """Some rows of each example's gradient, [b, rows × entries]."""
    if isinstance(part, Outer) and part.small:
        return part.formed[:, some].flatten(1)
    if isinstance(part, Outer):
        return times(part.left[:, :, some].transpose(1, 2), part.right).flatten(1)
    grads = part.grads if part.grads.dim() > 1 else part.grads.unsqueeze(1)
    return grads[:, some].flatten(1)


def _by_token(a: Outer | Lookup, b: Part) -> torch.Tensor:
    """By what all pairs of tokens have in common, for as many of our examples at a time as fit a block."""
    assert not isinstance(b, Dense)
    theirs = _vectors(b)
    t, (m, s, _) = _vectors(a).shape[1], theirs.shape
    found = theirs.new_zeros(len(a), m, dtype=torch.float64)
    step = max(1, BLOCK[theirs.device.type] // (t * m * s))
    for start in range(0, len(a), step):
        some = a.of(slice(start, start + step))
        products = _vectors(some).flatten(0, 1) @ theirs.flatten(0, 1).T  # [b × t, m × s]
        products *= _weights(some, b)
        found[start : start + step] = products.view(len(some), t, m, s).sum((1, 3), dtype=torch.float64)
    return found


def _vectors(part: Outer | Lookup) -> torch.Tensor:
    """The vectors of tokens [b, t, d] that stand in rows of the parameter."""
    return wide(part.right if isinstance(part, Outer) else part.grads)


def _weights(a: Outer | Lookup, b: Outer | Lookup) -> torch.Tensor:
    """What the rows of the parameter that two tokens' vectors stand in have in common: [b × t, m × s]."""
    if isinstance(a, Outer) and isinstance(b, Outer):
        return wide(a.left).flatten(0, 1) @ wide(b.left).flatten(0, 1).T
    if isinstance(a, Outer) and isinstance(b, Lookup):
        return wide(a.left).flatten(0, 1)[:, b.ids.flatten()]
    if isinstance(b, Outer):
        return _weights(b, a).T
    assert isinstance(a, Lookup) and isinstance(b, Lookup)
    return a.ids.flatten().unsqueeze(1) == b.ids.flatten()


def _smallest(gradient: Factors) -> Factors:
    """The gradients as factors, or formed where that takes less memory."""
    if isinstance(gradient, Sum):
        return Sum(tuple(_smallest_part(part) for part in gradient.parts))
    return _smallest_part(gradient)


def _smallest_part(part: Part) -> Part:
    if isinstance(part, Outer):
        (_, t, r), c = part.left.shape, part.right.shape[2]
        if t * (r + c) > r * c:
            return Dense(part.dense())
    return part


def _parts(gradient: Factors) -> tuple[Part, ...]:
    return gradient.parts if isinstance(gradient, Sum) else (gradient,)
