"""Studies of a real language model: instructions pruned for another task, and dialogues to be summed up.

    python -m tests.studies.language instructions --data FOLDER --model MODEL [--out runs/instructions]
    python -m tests.studies.language dialogues --data FOLDER --model MODEL [--out runs/dialogues]

`instructions` prunes rows of FOLDER/alpaca for FOLDER/gsm8k, `dialogues` rows of FOLDER/dialogsum, the third task of Du
et al. 2025 (arXiv 2507.03648). MODEL is trained with LoRA; meant is one of some hundred million parameters. Slices of
the files are drawn at random, so that each study takes about an hour or two on one core. Prints the pipeline's table.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

from prune_cli.pipeline import results
from prune_cli.pipeline.run import run
from prune_cli.report.table import table

SLICES = {
    "instructions": {
        "train": ("alpaca/train", 400),
        "validation": ("gsm8k/validation", 32),
        "gsm8k": ("gsm8k/test", 100),
        "alpaca": ("alpaca/validation", 100),
    },
    "dialogues": {
        "train": ("dialogsum/train", 100),
        "validation": ("dialogsum/validation", 24),
        "dialogsum": ("dialogsum/test", 30),
    },
}
ADAM = (
    '{name = "less-exact-adam", representation = "influence", represent_options = {precondition = "adam"}, '
    'score = "less", select = "top"}'
)
METHODS = {
    "instructions": ['"longest"', '"rds"', '"ifd"', ADAM],
    "dialogues": [f'"{name}"' for name in "rds memorization s2l less".split()],
}
SETTINGS = """
[warmup]
max_length = 1024
tune = "lora"
epochs = 2
fraction = 0.25
learning_rate = 2e-4
batch_size = 1
accumulate = 4
precision = "{precision}"

[represent]
max_length = 1024
batch_size = 8
precision = "{precision}"

[finetune]
max_length = 1024
tune = "lora"
epochs = 3
learning_rate = 2e-4
batch_size = {batch_size}
accumulate = {accumulate}
precision = "{precision}"

[eval]
batch_size = 8
max_new_tokens = {max_new_tokens}
precision = "{precision}"
"""
PIPELINE = (
    """
task = "generation"
skip_bad = "bad.jsonl"
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = [
    "none",
    "full",
    "random",
    {methods},
]
keep = [{keep}]
seeds = [0, 1]

[tests]
{tests}
"""
    + SETTINGS
)


def main() -> None:
    """Cut the slices, run the pipeline, print its results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(SLICES))
    parser.add_argument("--data", type=Path, required=True, help="folder of alpaca/ and gsm8k/, or of dialogsum/")
    parser.add_argument("--model", type=Path, required=True, help="folder of a causal language model")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    out: Path = given.out or Path("runs") / given.study
    out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)
    slices = SLICES[given.study]
    for name, (part, n) in slices.items():
        with (given.data / f"{part}.jsonl").open(encoding="utf-8") as stream:
            rows = [renamed(json.loads(line)) for line in rng.sample(list(stream), n)]
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    file = out / "pipeline.toml"
    tests = [f'{name} = "{name}.jsonl"' for name in slices if name not in ("train", "validation")]
    file.write_text(
        PIPELINE.format(
            model=given.model.resolve(),
            methods=",\n    ".join(METHODS[given.study]),
            tests="\n".join(tests),
            keep="0.1" if given.study == "instructions" else "0.25",
            max_new_tokens=0 if given.study == "instructions" else 48,
            batch_size=1,
            accumulate=4,
            precision="float32",
        ),
        "utf-8",
    )
    report = run(file, out / "run", device="cpu", dry_run=False, tell=told)
    print(*table(list(results.table(report))), sep="\n")


def renamed(row: dict[str, Any]) -> dict[str, Any]:
    """A row with the keys of a format: questions and answers are prompts and responses."""
    names = {"question": "prompt", "answer": "response"}
    return {names.get(key, key): value for key, value in row.items()}


def told(_: str, line: str) -> None:
    """Print a step when it ends."""
    print(line, flush=True)


if __name__ == "__main__":
    main()
