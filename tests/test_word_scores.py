"""Scores of texts against bm25s and the package of DSIR's authors, as word_peers.py had them say it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.methods import method as methods
from tests.truth import truth

PEERS = json.loads((Path(__file__).parent / "word_peers.json").read_text("utf-8"))
ROWS, TARGET = PEERS["rows"], PEERS["target"]


def scored(name: str, *args: Any, **options: Any) -> Any:
    """What a score method returns."""
    return methods.load("score", name).function(*args, **options)


@truth("score/bm25", by="peer: bm25s 0.3.16")
@pytest.mark.parametrize("numbers", [1, 2**22])
def test_bm25_is_that_of_bm25s(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its best and its mean over the target texts, Lucene's form; a query of one word twice counts it twice."""
    monkeypatch.setitem(methods.load("score", "bm25").function.__globals__, "NUMBERS", numbers)
    table = np.array(PEERS["bm25s"])  # [m, n]
    np.testing.assert_allclose(scored("bm25", ROWS, TARGET), table.max(axis=0), rtol=1e-12)
    np.testing.assert_allclose(scored("bm25", ROWS, TARGET, reduce="mean"), table.mean(axis=0), rtol=1e-12)


@truth("score/bm25", by="worked example")
def test_bm25_by_hand() -> None:
    """Of two rows one has the word, once in two words: log(1 + 1.5 / 1.5) / (1 + 1.5 (¼ + ¾ 2 / 1.5))."""
    expected = np.log(2) / (1 + 1.5 * (0.25 + 0.75 * 2 / 1.5))
    np.testing.assert_allclose(scored("bm25", ["good film", "plot"], ["Good"]), [expected, 0], rtol=1e-12)
    short = np.log(1 + 3.5 / 1.5) / (1 + 1.5 * (0.25 + 0.75 * 4))  # of four rows one has a word: a mean of ¼
    np.testing.assert_allclose(scored("bm25", ["good", "", "?", ""], ["good"]), [short, 0, 0, 0], rtol=1e-12)
    with np.errstate(all="raise"):
        assert scored("bm25", ["...", "!"], ["good"]).tolist() == [0, 0]
    assert scored("bm25", ["good"], ["?"]).tolist() == [0]


@truth("score/dsir", by="published code: data-selection 1.0.3")
def test_dsir_weights_are_those_of_its_authors_package() -> None:
    """Log importance weights with so many buckets that neither hash lets n-grams meet."""
    rng = np.random.default_rng(0)
    made = scored("dsir", ROWS, TARGET, rng, buckets=2**20, noise=False)
    np.testing.assert_allclose(made, PEERS["dsir"], rtol=1e-10)


def test_dsir_adds_gumbel_noise_to_weights_by_hand() -> None:
    """p / q of three words is in the ratio 1 : 3 : 6; the noise has the mean and variance of Gumbel's distribution."""
    rows = ["a", "b", "b", "b", *["c"] * 6] * 300
    target = ["a", *["b"] * 9, *["c"] * 36]
    weights = scored("dsir", rows, target, np.random.default_rng(0), ngrams=1, noise=False)
    np.testing.assert_allclose(np.exp(weights - weights[0])[[0, 1, 4]], [1, 3, 6], rtol=1e-5)
    noise = scored("dsir", rows, target, np.random.default_rng(0), ngrams=1) - weights
    assert abs(noise.mean() - np.euler_gamma) < 4 * np.sqrt(np.pi**2 / 6 / 3000)
    assert abs(noise.var() - np.pi**2 / 6) < 4 * np.sqrt(4.4 / 3000) * np.pi**2 / 6  # of excess kurtosis 12 / 5


def test_dsir_counts_texts_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever number of texts is counted together, the weights are the same."""
    whole = scored("dsir", ROWS, TARGET, np.random.default_rng(0))
    function = methods.load("score", "dsir").function
    monkeypatch.setitem(function.__globals__, "AT_ONCE", 2)
    np.testing.assert_allclose(function(ROWS, TARGET, np.random.default_rng(0)), whole, rtol=1e-12)
