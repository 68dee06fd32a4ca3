"""Choosing within an earlier selection: as if there were no other rows, which stay in `why.jsonl`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.methods import balance
from prune_cli.methods import method as methods
from tests.conftest import Prune, read_rows, sentences, write_rows


@pytest.fixture
def first(tmp_path: Path, prune: Prune, made: Path) -> Path:
    """A selection of 12 of the 24 rows, in the order of the data."""
    out = tmp_path / "first"
    command = ["select", made / "train", "-o", out, "--method", "random", "--keep", 12, "--order", "data"]
    assert prune(*command, "--seed", 3).code == 0
    return out


@pytest.mark.parametrize(
    ("method", "more"),
    [
        ("kmeans", ["--on", "hidden", "--set", "k=3"]),
        ("k_center", ["--on", "gradient"]),
        ("random", ["--balance", "equal"]),
    ],
)
def test_picks_are_those_among_the_kept_rows_alone(
    tmp_path: Path, prune: Prune, made: Path, first: Path, method: str, more: list[Any]
) -> None:
    """The same rows in the same order as where the selection itself is what is given, and half is half of it."""
    common = ["--method", method, "--keep", "50%", *more]
    within = prune("select", made / "train", "-o", tmp_path / "within", "--within", first, *common)
    assert within.code == 0 and "kept 6 of 12 that may be kept, of 24 rows" in within.err
    assert prune("select", first, made / "train", "-o", tmp_path / "alone", *common).code == 0
    kept = (tmp_path / "within/select.jsonl").read_bytes()
    assert kept == (tmp_path / "alone/select.jsonl").read_bytes()


def test_rows_outside_stay_in_why(tmp_path: Path, prune: Prune, made: Path, first: Path) -> None:
    """They have a line and their score, no rank, no cluster, and the option that left them out."""
    command = ["select", made / "score", made / "train", "-o", tmp_path / "out", "--within", first, "--keep", 4]
    assert prune(*command, "--method", "deita", "--on", "hidden").code == 0
    inside = {line["id"]: line["kept"] for line in read_rows(first / "why.jsonl")}
    lines = read_rows(tmp_path / "out/why.jsonl")
    assert [line["id"] for line in lines] == list(inside)
    for line in lines:
        assert line["left_out"] == (None if inside[line["id"]] else "within")
        assert isinstance(line["score"], float) and not (line["kept"] and line["left_out"])
    about = open_artifact(tmp_path / "out").about
    assert (about["rows"], about["candidates"], about["kept"]) == (24, 12, 4)
    shown = prune("show", tmp_path / "out").out
    assert "4 of 12 that may be kept, of 24 rows" in shown and f"within: {first}" in shown


def test_it_follows_the_earlier_selection(tmp_path: Path, prune: Prune, made: Path, first: Path) -> None:
    """Up to date while that is the same; stale after it; an edited file of it is refused."""
    command = ["select", made / "train", "-o", tmp_path / "out", "--within", first, "--method", "random", "--keep", 4]
    assert prune(*command).code == 0
    assert "up to date" in prune(*command).err
    again = ["select", made / "train", "-o", first, "--method", "random", "--keep", 11, "--replace"]
    assert prune(*again).code == 0
    assert "input within changed" in prune(*command).err
    with (first / "why.jsonl").open("a") as file:
        file.write("\n")
    assert "differs from what was written" in prune(*command, "--replace").err


def test_what_cannot_be_chosen_within(tmp_path: Path, prune: Prune, data: Path, made: Path, first: Path) -> None:
    """More rows than are within; a selection of other rows; what is no selection."""
    command = ["select", made / "train", "-o", tmp_path / "out", "--method", "random", "--keep"]
    assert "allowed: a number of rows from 1 to 12" in prune(*command, 13, "--within", first).err
    others = write_rows(tmp_path / "others.jsonl", sentences(24, start=1))
    assert prune("select", others, "-o", tmp_path / "other", "--method", "random", "--keep", 3).code == 0
    assert "chosen from other rows than" in prune(*command, 3, "--within", tmp_path / "other").err
    assert "made by prune score" in prune(*command, 3, "--within", made / "score").err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("how", ["none", "keep", "equal"])
def test_columns_of_rows_that_may_not_be_kept_are_empty(how: str) -> None:
    """A label that none of the rows within has takes no share."""
    chosen = methods.load("select", "kmeans")
    features = np.random.default_rng(0).normal(size=(30, 4))
    among, part = np.arange(0, 30, 2), np.repeat([0, 1, 2], 10)
    part[among[:3]] = 1
    part[[0, 2, 4, 6, 8]] = 1  # of label 0 none is within
    arguments = {"features": features, "rng": np.random.default_rng(1), "k": 3}
    found = balance.select(chosen, arguments, None if how == "none" else part, 6, how, 30, among)
    assert set(found.positions.tolist()) <= set(among.tolist()) and len(set(found.positions.tolist())) == 6
    assert (found.columns["cluster"][1::2] == -1).all() and (found.columns["cluster"][found.positions] >= 0).all()
