"""Advice by trials beside an exhaustive grid of the same data and settings: is it right, at what share of the time.

    python -m tests.studies.advice GRID ADVICE

GRID is the folder of a pipeline, ADVICE that of `prune advise FILE.toml --keep K` with the grid's file and one of its
budgets. Prints the grid's best line at that budget, the lines that the advice picked and recommended, and how far they
are from it in the grid, with 95% intervals: the advice is right where that reaches 0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from prune_cli.artifacts.manifest import MANIFEST
from prune_cli.methods.budget import parse_keep
from prune_cli.pipeline.advise.choice import FULL, NONE
from prune_cli.pipeline.advise.finished import measured_in
from prune_cli.pipeline.advise.text import interval


def main() -> None:
    """Read both folders and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("grid", type=Path)
    parser.add_argument("advice", type=Path)
    given = parser.parse_args()
    answer = json.loads((given.advice / "advice.json").read_text("utf-8"))
    (advice,) = answer["advice"]
    (pick,) = advice["picks"]
    grid = next(m for m in measured_in(given.grid, advice["metric"]) if m.test == advice["test"])
    n = answer["trials"]["rows"]
    budget = parse_keep(pick["keep"], n)
    here = [key for key in grid.means if key[0] not in (FULL, NONE) and grid.kept[key] == budget]
    best = max(here, key=lambda key: grid.sign * grid.means[key])
    print(f"the grid's best of {len(here)}: {best[0]} {grid.means[best]:.3f}")
    for role, name in (("pick", pick["method"]), ("recommendation", advice["recommended"]["method"])):
        line = next(key for key in (*here, *grid.means) if key[0] == name)
        told = f"the {role}: {name} {grid.means[line]:.3f}"
        if line != best and (apart := grid.against(best, 0.0)[line]):
            right = max(apart.low * grid.sign, apart.high * grid.sign) >= 0
            told += f", {interval(apart)} to the best: {'within' if right else 'outside'} its interval"
        print(told)
    spent = sum(json.loads(path.read_text("utf-8"))["made"]["seconds"] for path in given.grid.rglob(MANIFEST))
    used = answer["trials"]["seconds"]
    print(f"{answer['trials']['rounds']} rounds, {used:.0f} s of the grid's {spent:.0f} s: {used / spent:.0%}")


if __name__ == "__main__":
    main()
