"""Near duplicates by MinHash: the groups that comparing all pairs gives, whatever their sizes."""

from __future__ import annotations

import random
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from prune_cli.methods import method as methods
from prune_cli.numeric import minhash
from prune_cli.numeric.words import words
from tests.conftest import Prune, write_rows
from tests.truth import truth


def texts(n: int, seed: int, kinds: int) -> list[str]:
    """n texts of 1 to 40 words, each one of a few with some of its words changed."""
    draw = random.Random(seed)
    plain = [draw.choices([f"w{i}" for i in range(300)], k=draw.randrange(1, 40)) for _ in range(kinds)]
    made = []
    for _ in range(n):
        said = list(draw.choice(plain))
        for _ in range(draw.randrange(4)):
            said[draw.randrange(len(said))] = f"w{draw.randrange(300)}"
        made.append(" ".join(said).title() + draw.choice(["", ".", "!"]))
    return made


def by_all_pairs(given: list[str], n: int, threshold: float) -> list[int]:
    """The first of the group of each text: groups joined by all pairs whose similarity is high."""
    sets = []
    for said in map(words, given):
        sets.append({tuple(said[i : i + n]) for i in range(len(said) - n + 1)} or {tuple(said)})
    first = list(range(len(given)))
    for i in range(len(given)):
        for j in range(i):
            if len(sets[i] & sets[j]) / len(sets[i] | sets[j]) >= threshold:
                low, high = sorted((first[i], first[j]))
                first = [low if group == high else group for group in first]
    return first


@truth("select/near_duplicates", by="brute force: the Jaccard similarity of all pairs, and the groups they join")
@pytest.mark.parametrize(("n", "threshold"), [(3, 0.8), (1, 0.8), (3, 0.5), (2, 1.0)])
def test_groups_are_those_of_all_pairs(n: int, threshold: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """No pair too many; of 400 rows at most 4 duplicates are not found, in small blocks as in one."""
    given = texts(400, 0, 60)
    expected = by_all_pairs(given, n, threshold)
    found = minhash.groups(given, n, threshold).tolist()
    pairs = {(e, f) for e, f in zip(expected, found, strict=True)}
    assert len(pairs) == len(set(found)) and len(set(expected)) < 380  # each group lies in one of the truth
    assert len(set(found)) - len(set(expected)) <= 4
    monkeypatch.setattr(minhash, "SETS", 7)
    monkeypatch.setattr(minhash, "PAIRS", 5)
    assert minhash.groups(given, n, threshold).tolist() == found


def test_words_of_one_checksum_are_different() -> None:
    """Of two words with the same CRC-32 neither is a duplicate of the other."""
    checked = {said: crc32(said.encode()) for said in ("plumless", "buckeroo", "d3f504638284", "c50963c80102")}
    assert len(set(checked.values())) == 2
    assert minhash.groups([*checked], 1, 1.0).tolist() == [0, 1, 2, 3]
    long = ["a" + "c" * 60 + "g" + "t" * 20, "g" + "c" * 60 + "a" + "t" * 20]  # bytes 61 places apart
    assert minhash.groups([*long, "", "\0", "\0\0"], 1, 1.0).tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9])
def test_few_pairs_at_the_threshold_are_missed(threshold: float) -> None:
    """Sets of exactly that similarity are candidates as often as said, and less similar ones never joined."""
    shared = round(200 * threshold / (1 + threshold))
    given = []
    for i in range(500):
        common = [f"c{i}x{j}" for j in range(shared)]
        given += [" ".join([*common, *(f"{side}{i}x{j}" for j in range(100 - shared))]) for side in "ab"]
    similar = shared / (200 - shared)
    found = minhash.groups(given, 1, similar)
    missed = int((found[1::2] != found[::2]).sum())
    assert missed <= 500 * minhash.MISSED + 3 * np.sqrt(500 * minhash.MISSED)
    assert (minhash.groups(given, 1, similar + 0.01) == np.arange(1000)).all()


def test_one_row_of_each_group_comes_first() -> None:
    """The first of each, at random; then the others. A bucket of many rows is joined through pairs of its own."""
    given = texts(300, 1, 20)
    select = methods.load("select", "near_duplicates").function
    first = minhash.groups(given, 3, 0.8)
    stands = np.flatnonzero(first == np.arange(300))
    order, columns = select(given, 300, np.random.default_rng(0))
    assert sorted(order[: len(stands)].tolist()) == stands.tolist() != order[: len(stands)].tolist()
    sizes = np.bincount(first, minlength=300)
    assert ((columns["cluster"] == -1) == (sizes[first] == 1)).all()
    for cluster in range(columns["cluster"].max() + 1):
        assert len(set(first[columns["cluster"] == cluster].tolist())) == 1


def test_how_many_that_repeat_another_are_kept_is_told(tmp_path: Path, prune: Prune) -> None:
    """Where a large budget keeps some of them."""
    text = "the film has a long and slow middle but a fine end"
    rows = [{"text": t, "label": 0} for t in [text, "a short one", text + " too", "something else", text]]
    file = write_rows(tmp_path / "rows.jsonl", rows)
    command = ["select", file, "--method", "near_duplicates", "--keep"]
    assert "repeat another" not in prune(*command, 3, "-o", tmp_path / "few").err
    ran = prune(*command, "80%", "-o", tmp_path / "more")
    assert "1 of 2 rows that repeat another are kept; a budget of 3 of these 5 rows keeps none" in ran.err
