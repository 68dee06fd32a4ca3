"""How a selection of many rows goes: how fast they are read and checked, and how much memory that takes.

    python -m tests.benchmarks.many [--rows 1000000]

Chat rows of about 2 KB each (a million are 2 GB) are written into a temporary folder, which is removed at the end; of
100 rows each differs, and the ids of all. Then `prune select --method random --keep 0.1` runs as a process of its own,
once on a few rows, which shows what the program itself takes, and once on all. Exit status 1 where all the rows take
more memory beyond that than a quarter of their file.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.benchmarks.rows import hash_bytes, text

SHARE = 0.25  # of the file: most memory that the rows may take
FEW = 100


def main() -> int:
    """Print the figures; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    n = parser.parse_args().rows
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder / "few.jsonl", FEW)
        write(folder / "many.jsonl", n)
        size = (folder / "many.jsonl").stat().st_size
        began = time.perf_counter()
        hash_bytes(folder / "many.jsonl")
        hashing = time.perf_counter() - began
        _, base = select(folder, "few")
        seconds, peak = select(folder, "many")
        kept = (folder / "many-kept" / "select.jsonl").stat().st_size
    print(f"{n:,} chat rows, {size / 1e6:,.0f} MB; hashing alone: {size / hashing / 1e6:,.0f} MB/s")
    print(f"select random, keep 0.1: {seconds:.1f} s, {size / seconds / 1e6:,.0f} MB/s, {kept / 1e6:,.0f} MB written")
    own = peak - base
    print(f"peak memory: {peak / 1e6:,.0f} MB; the rows take {own / 1e6:,.0f} MB of it, {own / n:,.0f} bytes a row")
    bounded = own < SHARE * size
    print(f"{own / size:.1%} of the file; bound {SHARE:.0%}: {'held' if bounded else 'exceeded'}")
    return 0 if bounded else 1


def write(path: Path, n: int) -> None:
    """n chat rows of four messages."""
    draw = random.Random(0)
    turns = [("user", 80), ("assistant", 110), ("user", 40), ("assistant", 110)]
    tails = []
    for _ in range(100):
        messages = [{"role": role, "content": text(draw, words)} for role, words in turns]
        tails.append(json.dumps({"messages": messages}, ensure_ascii=False)[1:])
    with path.open("w", encoding="utf-8") as stream:
        stream.writelines(f'{{"id": "chat-{i}", {tails[i % len(tails)]}\n' for i in range(n))


def select(folder: Path, name: str) -> tuple[float, int]:
    """Wall time and peak memory in bytes of a selection."""
    command = [
        sys.executable,
        "-m",
        "prune_cli",
        "select",
        f"{folder}/{name}.jsonl",
        "-o",
        f"{folder}/{name}-kept",
    ]
    began = time.perf_counter()
    process = subprocess.Popen(
        [*command, "--task", "generation", "--method", "random", "--keep", "0.1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return time.perf_counter() - began, usage.ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
