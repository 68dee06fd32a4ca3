"""How fast rows are read and checked, beside reading the bytes alone and parsing them with the standard library.

    python -m tests.benchmarks.rows [--rows 1000000] [--repeats 3]

Files of classification rows of about 150 bytes and of instruction rows of about 700 bytes, as prompt and response and
as messages, are written into a temporary folder. Each way is timed on one core (CPU time), the ways in turn; the best
of the repeats is shown, in rows and megabytes a second, and as a multiple of a bare loop over `json.loads`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from prune_cli.data import fingerprints
from prune_cli.data.rows import Rows, read_rows
from prune_cli.tasks import classification, generation

WORDS = (
    'the a of film plot scene, is very good bad: awful "lovely" and then they went home (again). It\'s café\n'.split(
        " "
    )
)


def text(draw: random.Random, words: int) -> str:
    """Words with the quotes, colons, line breaks and accents of real texts."""
    return " ".join(draw.choices(WORDS, k=words))


def label_row(draw: random.Random, i: int) -> dict[str, Any]:
    """About 150 bytes."""
    return {"id": f"row-{i}", "text": text(draw, 17), "label": draw.choice(["positive", "negative"])}


def response_row(draw: random.Random, i: int) -> dict[str, Any]:
    """About 700 bytes."""
    return {"id": f"row-{i}", "prompt": text(draw, 50), "response": text(draw, 66)}


def messages_row(draw: random.Random, i: int) -> dict[str, Any]:
    """About 700 bytes."""
    turns = [("user", 30), ("assistant", 25), ("user", 15), ("assistant", 25)]
    return {"id": f"row-{i}", "messages": [{"role": role, "content": text(draw, n)} for role, n in turns]}


CASES = {
    "label": (label_row, classification.check),
    "response": (response_row, generation.check),
    "messages": (messages_row, generation.check),
}

BARE, CHECKED = "json.loads loop", "read_rows"  # ways that other benchmarks show


def write(path: Path, make: Callable[[random.Random, int], dict[str, Any]], n: int) -> None:
    """n rows, of which at most 20,000 differ by more than their id."""
    draw = random.Random(0)
    tails = [json.dumps(make(draw, i), ensure_ascii=False).split(",", 1)[1] for i in range(min(n, 20_000))]
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(f'{{"id": "row-{i}",{tails[i % len(tails)]}\n' for i in range(n))


def read_bytes(path: Path) -> None:
    """Read the file, a block at a time."""
    with path.open("rb") as stream:
        while stream.read(2**18):
            pass


def hash_bytes(path: Path) -> None:
    """Read the file and hash it."""
    with path.open("rb") as stream:
        hashlib.file_digest(stream, "sha256")


def loads(path: Path) -> None:
    """Parse each line, and check nothing."""
    with path.open("rb") as stream:
        for line in stream:
            json.loads(line)


def iterate(rows: Rows) -> None:
    """Look at every row."""
    for _ in rows:
        pass


def seconds(work: Callable[[], object]) -> float:
    """CPU time of a call."""
    start = time.process_time()
    work()
    return time.process_time() - start


def measure(name: str, n: int, repeats: int, folder: Path) -> tuple[int, dict[str, float]]:
    """Bytes of a case's file of n rows, and the best CPU time of each way to read or write it."""
    make, check = CASES[name]
    path = folder / f"{name}.jsonl"
    write(path, make, n)
    rows = read_rows(path, check=check)
    ways: dict[str, Callable[[], object]] = {
        "read the bytes": partial(read_bytes, path),
        "read and hash the bytes": partial(hash_bytes, path),
        BARE: partial(loads, path),
        "read_rows, no task check": partial(read_rows, path, check=None),
        CHECKED: partial(read_rows, path, check=check),
        "iterate over the rows": partial(iterate, rows),
        "write all rows": partial(rows.write, folder / "out"),
        "write_ids": partial(fingerprints.write_ids, rows, folder / "ids.jsonl"),
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for way, work in ways.items():
            best[way] = min(best[way], seconds(work))
    size = path.stat().st_size
    path.unlink()
    return size, best


def main() -> None:
    """Time all ways on all files and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        for name in CASES:
            size, best = measure(name, given.rows, given.repeats, Path(folder))
            print(f"{name}: {given.rows:,} rows of {size / given.rows:.0f} bytes")
            for way, spent in best.items():
                rate, times = size / spent / 1e6, best[BARE] / spent
                print(f"  {way:26} {given.rows / spent:12,.0f} rows/s {rate:8,.0f} MB/s {times:7.2f} x json.loads")


if __name__ == "__main__":
    main()
