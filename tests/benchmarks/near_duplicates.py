"""Time, memory and recall of near_duplicates beside those of rensa and datasketch, on the same short rows.

    python -m tests.benchmarks.near_duplicates [--rows 200000] [--only NAME,NAME]

A tenth of the rows repeats another one with a word changed, added or left out (seed 0). Recall is the share of such
rows whose pair, of a Jaccard similarity of 0.8 or more, is found, or is joined by other pairs; each figure is from a
process of its own. The peers have 18 bands of 7 hashes, and what they find is not compared further.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import numpy as np

from prune_cli.numeric import minhash
from prune_cli.numeric.words import words

N, THRESHOLD = 3, 0.8

Found = Callable[[Sequence[str]], Callable[[int, int], bool]]  # texts -> whether two are in one group


def main() -> None:
    """Print a line for each, prune first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--only", default=",".join(RUNS))
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.rows)))
        return
    for name in given.only.split(","):
        if name != "prune" and find_spec(name) is None:
            print(f"{name}: not installed")
            continue
        command = [sys.executable, "-m", __spec__.name, "--one", name, "--rows", str(given.rows)]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        said = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
        told = json.loads(said)
        print(
            f"{name:10} {given.rows:,} rows: {told['seconds']:.1f} s ({told['cpu']:.1f} s of processors), "
            f"{usage.ru_maxrss / 1e3:,.0f} MB; recall {told['recall']:.4f}; pairs below 0.8 joined: {told['wrong']}",
            flush=True,
        )


def one(name: str, n: int) -> dict[str, float]:
    """Time and recall of one of them."""
    given, pairs = drawn(n)
    began, used = time.perf_counter(), time.process_time()
    together = RUNS[name](given)
    seconds, cpu = time.perf_counter() - began, time.process_time() - used
    near = [jaccard(given[i], given[j]) >= THRESHOLD for i, j in pairs]
    found = [together(i, j) for i, j in pairs]
    return {
        "seconds": seconds,
        "cpu": cpu,
        "recall": sum(f for f, is_near in zip(found, near, strict=True) if is_near) / sum(near),
        "wrong": sum(f for f, is_near in zip(found, near, strict=True) if not is_near),
    }


def drawn(n: int) -> tuple[list[str], list[tuple[int, int]]]:
    """Rows of 8 to 30 words of a vocabulary of Zipf's kind, and the pairs of a row and its copy."""
    draw, rng = random.Random(0), np.random.default_rng(0)
    vocabulary = [f"word{i}" for i in range(20_000)]
    texts = [[vocabulary[i % 20_000] for i in rng.zipf(1.2, draw.randrange(8, 31)).tolist()] for _ in range(n)]
    pairs = []
    for i in range(0, n - 1, 10):
        said = list(texts[i])
        at = draw.randrange(len(said))
        said[at : at + draw.randrange(2)] = draw.choices(vocabulary, k=draw.randrange(2))
        texts[i + 1] = said
        pairs.append((i, i + 1))
    return [" ".join(said) for said in texts], pairs


def shingles(text: str) -> list[str]:
    """The 3-grams of its words."""
    said = words(text)
    return [" ".join(said[i : i + N]) for i in range(max(1, len(said) - N + 1))]


def jaccard(a: str, b: str) -> float:
    """The similarity of two texts."""
    one, other = set(shingles(a)), set(shingles(b))
    return len(one & other) / len(one | other)


def prune(texts: Sequence[str]) -> Callable[[int, int], bool]:
    """The groups of the selection."""
    first = minhash.groups(texts, N, THRESHOLD)
    return lambda i, j: bool(first[i] == first[j])


def rensa(texts: Sequence[str]) -> Callable[[int, int], bool]:
    """Its signatures and its index, a query for each row."""
    from rensa import RMinHash, RMinHashLSH  # type: ignore[import-not-found]  # in an environment of its own

    index = RMinHashLSH(threshold=THRESHOLD, num_perm=126, num_bands=18)
    hashes = []
    for i, text in enumerate(texts):
        own = RMinHash(num_perm=126, seed=0)
        own.update(shingles(text))
        index.insert(i, own)
        hashes.append(own)
    found = [set(index.query(own)) for own in hashes]
    return lambda i, j: j in found[i]


def datasketch(texts: Sequence[str]) -> Callable[[int, int], bool]:
    """Its signatures and its index, a query for each row."""
    from datasketch import MinHash, MinHashLSH  # type: ignore[import-not-found]  # in an environment of its own

    index = MinHashLSH(threshold=THRESHOLD, num_perm=126, params=(18, 7))
    hashes = []
    for i, text in enumerate(texts):
        own = MinHash(num_perm=126, seed=0)
        own.update_batch([said.encode() for said in shingles(text)])
        index.insert(i, own, check_duplication=False)
        hashes.append(own)
    found = [set(index.query(own)) for own in hashes]
    return lambda i, j: j in found[i]


RUNS: dict[str, Found] = {"prune": prune, "rensa": rensa, "datasketch": datasketch}


if __name__ == "__main__":
    main()
