"""How faithful projected gradients are to whole ones, beside a count sketch of the whole gradient, on real rows.

    python -m tests.benchmarks.fidelity --data FOLDER [--language-model FOLDER]

A slice is a task, its rows and a model after a short training on others of them. Truth is the whole gradient of each
of 80 rows and 16 targets, by autograd from batches of one. Compared with it are, for each dim and seed, its projection
by prune and its count sketch (each entry to a random bucket with a random sign): root mean square error of the cosines
of rows with targets, Spearman correlation of LESS scores (mean cosines), and of the norms.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr

from prune_cli import options
from prune_cli.gradients.factors import Factors
from prune_cli.gradients.per_example import PerExample
from prune_cli.gradients.projected import Projected
from prune_cli.main import hush
from prune_cli.models.batching import batches
from prune_cli.represent.observe import Batch, Setup
from tests.benchmarks.trained import lengthened, packaged_encoder, trained

ROWS, TARGETS = 80, 16
FULL = {"steps": 20, "batch_size": 32}
LONG = {"steps": 40, "batch_size": 8}  # small batches: less padding
LORA = {"tune": "lora", "steps": 4, "batch_size": 8, "learning_rate": 1e-3}
ERROR, LESS = 1.15, 0.003  # the goal: most of the count sketch's error; most that rho may stay below its rho


@dataclass(frozen=True)
class Slice:
    """Rows of a task of at most `longest` tokens, and how the model is trained on some of them.

    tokens: of each row then, by joining its own; 0: as it is. language: with the language model; else the encoder.
    """

    name: str
    data: str
    task: str
    opts: Mapping[str, Any]
    longest: int = 512
    tokens: int = 0
    language: bool = False


SLICES = (
    Slice("sst2", "sst2", "classification", FULL),
    Slice("sst2, 64 tokens", "sst2", "classification", FULL, tokens=64),
    Slice("cad", "cad", "classification", LONG, longest=256),
    Slice("choice", "choice", "choice", LONG),
    Slice("dialogsum, LoRA", "dialogsum", "generation", LORA, language=True, longest=128),
)


@dataclass(frozen=True)
class Fidelity:
    """Of a projection to the truth: RMSE of cosines, Spearman of LESS scores and of norms."""

    error: float
    less: float
    norm: float


Pair = tuple[Fidelity, Fidelity]  # ours, and a count sketch's
Compared = dict[tuple[int, int], Pair]  # by dim and seed


def main() -> int:
    """Print a table for each dim; the exit status is 0 where all hold the goal."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=os.environ.get("PRUNE_DATA", ""), help="folder of real data; or PRUNE_DATA")
    parser.add_argument("--language-model", default=os.environ.get("PRUNE_MODEL", ""), help="folder; or PRUNE_MODEL")
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 2048, 8192], help="each divides the largest")
    parser.add_argument("--seeds", type=int, default=3)
    hush()
    given = parser.parse_args()
    if any(max(given.dims) % dim for dim in given.dims):
        parser.error(f"dims: {given.dims}; allowed: divisors of the largest")
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        for i, part in enumerate(SLICES):
            seeds = range(i * given.seeds, (i + 1) * given.seeds)  # apart: slices share a model, so draws would repeat
            data = Path(given.data, part.data, "train.jsonl")
            model = given.language_model if part.language else packaged_encoder()
            if not given.data or not data.is_file():
                print(f"{part.name}: left out; there is no {data} (--data)")
            elif not model:
                print(f"{part.name}: left out; it needs --language-model")
            else:
                print(f"{part.name}: {ROWS} rows, {TARGETS} targets of {data}, {Path(model).name}", flush=True)
                found[part.name] = measured(part, str(data), model, Path(folder), given.dims, seeds)
    held = []
    for dim in given.dims if found else ():
        lines, good = table({name: [pair for key, pair in by.items() if key[0] == dim] for name, by in found.items()})
        print(f"\ndim {dim}", *lines, sep="\n")
        held.append(good)
    return 0 if held and all(held) else 1


def measured(part: Slice, data: str, model: str, folder: Path, dims: Sequence[int], seeds: Sequence[int]) -> Compared:
    """Train, or find in `folder` what was trained on the same rows, then compare on fresh rows."""
    opts = options.Finetune(model=model, task=part.task, **part.opts)
    ready = trained(data, folder / part.data, opts, fresh=ROWS + TARGETS, longest=part.longest)
    setup = ready.setup
    if part.tokens:
        setup = replace(setup, encoded=lengthened(setup.encoded, part.tokens))
    return compared(setup, ready.fresh[:ROWS], ready.fresh[ROWS:], dims, seeds)


def compared(
    setup: Setup, rows: NDArray[np.int64], targets: NDArray[np.int64], dims: Sequence[int], seeds: Sequence[int]
) -> Compared:
    """Projections and count sketches of rows and targets, against their whole gradients."""
    both = np.concatenate([rows, targets])
    ours = projected(setup, both, dims, seeds)
    sketch = CountSketch(max(dims), seeds)
    cosines, norms = [], []
    counted: dict[tuple[int, int], list[torch.Tensor]] = {(dim, seed): [] for dim in dims for seed in seeds}

    def units(positions: NDArray[np.int64]) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for position in positions:
            gradient = whole(setup, position)
            for seed, sums in zip(seeds, sketch.of(gradient), strict=True):
                for dim in dims:
                    counted[dim, seed].append(folded(sums, dim).cpu())
            norm = gradient.norm()
            yield gradient / norm, norm.cpu()

    directions = torch.stack([unit for unit, _ in units(targets)])
    for unit, norm in units(rows):
        cosines.append((directions @ unit).cpu())
        norms.append(norm)
    judge = partial(fidelity, cosines=torch.stack(cosines), norms=torch.stack(norms))

    def pair(key: tuple[int, int]) -> Pair:
        theirs = torch.stack(counted[key])
        return judge(*ours[key].split([len(rows), len(targets)])), judge(theirs[len(targets) :], theirs[: len(targets)])

    return {key: pair(key) for key in counted}


def whole(setup: Setup, position: int) -> torch.Tensor:
    """The gradient [p] of a row's own loss by every trainable parameter, from a batch of one."""
    setup.model.zero_grad(set_to_none=True)
    backward(setup, setup.batch(np.array([position])))
    gradient = torch.cat([p.grad.flatten() for p in setup.model.parameters() if p.grad is not None])
    setup.model.zero_grad(set_to_none=True)
    return gradient


def backward(setup: Setup, batch: Batch) -> None:
    """Forward and backward of the summed losses."""
    setup.task.losses(setup.forward(batch.inputs, batch.at).logits, batch.gold).sum().backward()


def projected(
    setup: Setup, positions: NDArray[np.int64], dims: Sequence[int], seeds: Sequence[int]
) -> dict[tuple[int, int], torch.Tensor]:
    """The projections [n, k] of the rows' gradients for each dim and seed, from one walk over batches of them."""
    every = {(dim, seed): Projected(dim, seed, exact_norms=False) for dim in dims for seed in seeds}
    parts: dict[tuple[int, int], list[torch.Tensor]] = {key: [] for key in every}
    examples = PerExample(lambda b: setup.task.losses(setup.exactly(b.inputs, b.at).logits, b.gold))

    def add(name: str, gradient: Factors) -> None:
        for projection in every.values():
            projection.add(name, gradient)

    order = list(batches(setup.encoded.lengths[positions], 8, setup.tokens_per_batch))
    with examples.attached(setup.model):
        for some in order:
            batch = setup.batch(positions[some])
            for projection in every.values():
                projection.begin(len(batch), setup.device)
            examples.begin(batch, add)
            backward(setup, batch)
            examples.finish()
            for key, projection in every.items():
                parts[key].append(projection.finish()[0].cpu())
    back = np.argsort(np.concatenate(order))
    return {key: torch.cat(part)[back] for key, part in parts.items()}


class CountSketch:
    """Count sketches of vectors (Charikar et al. 2002): each entry goes to a random bucket with a random sign."""

    def __init__(self, dim: int, seeds: Sequence[int]) -> None:
        self._dim, self._seeds = dim, seeds
        self._places: list[torch.Tensor] = []  # by seed; of each entry below dim: its bucket; from dim on: and a minus

    def of(self, vector: torch.Tensor) -> list[torch.Tensor]:
        """The sketches [dim] of a vector [p] with each seed; all vectors are of one size."""
        if not self._places:
            for seed in self._seeds:
                drawn = torch.Generator().manual_seed(seed)
                places = torch.randint(2 * self._dim, vector.shape, generator=drawn, dtype=torch.int32)
                self._places.append(places.to(vector.device))
        sums = (vector.new_zeros(2 * self._dim).index_add_(0, places, vector) for places in self._places)
        return [both[: self._dim] - both[self._dim :] for both in sums]


def folded(sketch: torch.Tensor, dim: int) -> torch.Tensor:
    """A sketch to fewer buckets, as many as divide it: of entry f the bucket is the remainder of what it was."""
    return sketch.unflatten(0, (-1, dim)).sum(0)


def fidelity(rows: torch.Tensor, targets: torch.Tensor, cosines: torch.Tensor, norms: torch.Tensor) -> Fidelity:
    """Of projections [n, k] and [m, k] to the true cosines [n, m] and norms [n]."""
    lengths = rows.norm(dim=1)
    estimated = (rows / lengths[:, None]) @ (targets / targets.norm(dim=1, keepdim=True)).T
    return Fidelity(
        float((estimated - cosines).square().mean().sqrt()),
        float(spearmanr(estimated.mean(1), cosines.mean(1)).statistic),
        float(spearmanr(lengths, norms).statistic),
    )


def table(by_slice: Mapping[str, Sequence[Pair]]) -> tuple[list[str], bool]:
    """The lines of a dim's table, and whether the goal is held.

    by_slice: name -> pairs, one a seed. A slice's line has the medians over its seeds, each of ours with each count
    sketch, since they are drawn apart; then come the medians over all slices and seeds, and the range over the slices.
    """
    lines = [
        f"{'':18} {'RMSE of cosines':^26} {'Spearman of LESS scores':^26} {'of norms':^17}",
        f"{'':18} {'ours':>8} {'count':>8} {'ratio':>8} {'ours':>8} {'count':>8} {'lost':>8} {'ours':>8} {'count':>8}",
    ]
    values = {}
    for name, pairs in by_slice.items():
        values[name] = np.array([figures(*pair) for pair in product(*zip(*pairs, strict=True))])
    medians = {name: np.median(some, axis=0) for name, some in values.items()}
    overall = np.median(np.concatenate(list(values.values())), axis=0)
    several = np.stack(list(medians.values()))
    shown = {**medians, "median of all": overall, "least slice": several.min(0), "largest slice": several.max(0)}
    for name, numbers in shown.items():
        ratio = 2  # the only column with two decimals
        cells = [f"{number:8.2f}" if i == ratio else f"{number:8.4f}" for i, number in enumerate(numbers)]
        lines.append(" ".join([f"{name:18}", *cells]))
    ratio, lost = overall[2], overall[5]
    good = bool(ratio <= ERROR and lost <= LESS)
    said = f"RMSE {ratio:.2f} x a count sketch's, at most {ERROR}; LESS rho {lost:.4f} below its, at most {LESS}"
    lines.append(f"goal: {said}: {'held' if good else 'missed'}")
    return lines, good


def figures(ours: Fidelity, count: Fidelity) -> tuple[float, ...]:
    """The columns of the table."""
    error, less, norm = zip(astuple(ours), astuple(count), strict=True)
    return (*error, ours.error / count.error, *less, count.less - ours.less, *norm)


if __name__ == "__main__":
    sys.exit(main())
