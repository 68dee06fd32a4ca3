"""How quick the light commands are, as multiples of importing what all of them need.

    python -m tests.benchmarks.start [--rows 100000] [--repeats 7]

The commands that compute nothing heavy run as processes of their own, in turn, beside a bare `import numpy, typer`, and
beside reading the bytes of what `prune select` reads. Each figure is the median over the repeats of its ratio to the
bare import in the same repeat. The rows are of about 150 bytes, the scores random; prune makes them in a temporary
folder. All start from compiled modules, as an installed package does. Exit status 1 where `prune select --method top`
takes more than BOUND times a bare import and the reading.
At the end, how fast rows are parsed (rows.py).
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from tests.benchmarks import rows

SAMPLE = Path(__file__).parents[2] / "sample_data"
BOUND = 3.0
PRUNE = [sys.executable, "-m", "prune_cli"]
IMPORT, READ, SELECT = "import numpy, typer", "read the bytes of rows and scores", "select top"


def main() -> int:
    """Print the table; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--parsed", type=int, default=1_000_000, help="rows to parse")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["PYTHONPYCACHEPREFIX"] = str(Path(folder) / "compiled")  # of the processes started from here
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        make(Path(folder), given.rows)
        seconds = measured(ways(Path(folder)), given.repeats)
    print(f"{given.rows:,} rows of about 150 bytes, medians of {given.repeats} repeats")
    print(f"{'':36} {'x import':>8} {'s':>7}")
    for name, times in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(times, seconds[IMPORT], strict=True))
        print(f"{name:36} {ratio:8.2f} {statistics.median(times):7.3f}")
    each = zip(seconds[SELECT], seconds[IMPORT], seconds[READ], strict=True)
    ratio = statistics.median(select / (imported + read) for select, imported, read in each)
    print(f"select top / (import + read): {ratio:.2f}; bound {BOUND:g}: {'held' if ratio <= BOUND else 'exceeded'}")
    print_parsing(given.parsed)
    return 0 if ratio <= BOUND else 1


def make(folder: Path, n: int) -> None:
    """What the commands read: scores of n rows, and gradients of a few rows for a LESS score."""
    rows.write(folder / "rows.jsonl", rows.label_row, n)
    run("score", folder / "rows.jsonl", "-o", folder / "random", "--method", "random")
    run("select", folder / "random", "-o", folder / "kept", "--method", "top", "--keep", 0.3)
    brief = ["--steps", 2, "--device", "cpu"]
    run("finetune", SAMPLE / "validation.jsonl", "-o", folder / "model", "--model", SAMPLE / "model", *brief)
    model = ["--model", folder / "model", "--kind", "gradient", "--dim", 64, "--device", "cpu"]
    run("represent", SAMPLE / "validation.jsonl", "-o", folder / "gradients", *model)
    run(*less(folder))


def less(folder: Path) -> list[object]:
    """The command that makes a LESS score."""
    represented = folder / "gradients"
    return [
        "score",
        represented,
        "-o",
        folder / "less",
        "--method",
        "less",
        "--on",
        "gradient",
        "--target",
        represented,
    ]


def ways(folder: Path) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    select: list[object] = ["select", folder / "random", "--method", "top", "--keep", 0.3, "-o"]

    def anew() -> None:
        shutil.rmtree(folder / "new", ignore_errors=True)
        run(*select, folder / "new")

    return {
        IMPORT: partial(subprocess.run, [sys.executable, "-c", "import numpy, typer"], check=True),
        READ: lambda: [path.read_bytes() for path in (folder / "rows.jsonl", folder / "random" / "score.jsonl")],
        SELECT: anew,
        "select top, up to date": partial(run, *select, folder / "kept"),
        "--help": partial(run, "--help"),
        "score less, up to date": partial(run, *less(folder)),
        "show a selection": partial(run, "show", folder / "kept"),
    }


def measured(ways: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
    """Wall time of each way in each repeat, the ways in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, work in ways.items():
            began = time.perf_counter()
            work()
            if repeat:  # the first fills the caches
                seconds[name].append(time.perf_counter() - began)
    return seconds


def run(*arguments: object) -> None:
    """Run a command of prune as a process of its own."""
    subprocess.run([*PRUNE, *map(str, arguments)], check=True, capture_output=True)


def print_parsing(n: int) -> None:
    """How fast n rows are parsed and checked."""
    with tempfile.TemporaryDirectory() as folder:
        size, best = rows.measure("label", n, 1, Path(folder))
    for way in (rows.CHECKED, rows.BARE):
        rate = f"{n / best[way]:,.0f} rows/s, {size / best[way] / 1e6:,.0f} MB/s"
        print(f"{way}, {n:,} rows: {rate} of one core")


if __name__ == "__main__":
    sys.exit(main())
