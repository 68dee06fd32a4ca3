"""Words as a representation, made without a model."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from prune_cli.artifacts import tensors
from tests.conftest import Prune, sentences, write_rows

COMMAND = ["represent", "rows.jsonl", "-o", "out", "--kind"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with rows to work in."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", [*sentences(20), {"id": "x", "text": "A film, a FILM!", "label": "positive"}])
    return tmp_path


def vectors(path: str) -> np.ndarray:
    """The vectors of an artifact."""
    return tensors.load(Path(path) / "lexical.safetensors")["lexical"][:, 0].astype(np.float64)


def test_inner_products_are_the_cosines_of_exact_counts(
    here: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted one by one: words, signs and pairs of them, in lower case; with so many buckets that none meet."""
    from prune_cli.represent.kinds import lexical

    monkeypatch.setattr(lexical, "AT_ONCE", 8)
    ran = prune(*COMMAND, "lexical", "--buckets", 2**18, "--dtype", "float32")
    assert ran.code == 0, ran.err
    texts = [row["text"].lower() for row in sentences(20)]
    said = [*map(str.split, texts), ["a", "film", ",", "a", "film", "!"]]
    counts = [Counter([*words, *pairwise(words)]) for words in said]
    exact = np.array([[sum(a[g] * b[g] for g in a) for b in counts] for a in counts], np.float64)
    exact /= np.sqrt(np.outer(exact.diagonal(), exact.diagonal()))
    made = vectors("out")
    np.testing.assert_allclose(made @ made.T, exact, atol=1e-6)


def test_of_scripts_without_spaces_each_letter_is_a_word(here: Path, prune: Prune) -> None:
    """Sentences of Chinese that share letters are alike; a vowel sign does not cut a Hindi word in two."""
    texts = ["\u8fd9\u90e8\u7535\u5f71\u597d", "\u8fd9\u90e8\u7535\u5f71\u574f", "\u0939\u093f\u0928\u094d\u0926\u0940"]
    write_rows(here / "rows.jsonl", [{"id": i, "text": text, "label": "x"} for i, text in enumerate(texts)])
    assert prune(*COMMAND, "lexical", "--buckets", 2**18, "--dtype", "float32", "--ngrams", 1).code == 0
    made = vectors("out")
    assert made[0] @ made[1] == pytest.approx(4 / 5) and made[0] @ made[2] == 0
    assert np.count_nonzero(made[2]) == 1


def test_a_score_and_a_target_need_no_model_either(here: Path, prune: Prune) -> None:
    """The rows as their own target are most like themselves; the same buckets and n-grams are needed to compare."""
    assert prune(*COMMAND, "lexical").code == 0
    assert "up to date" in prune(*COMMAND, "lexical").err
    assert prune("score", "out", "-o", "score", "--method", "rds", "--target", "out").code == 0
    other = prune(*COMMAND[:3], "other", "--kind", "lexical", "--ngrams", 1)
    assert other.code == 0
    ran = prune("score", "out", "-o", "more", "--method", "rds", "--target", "other")
    assert "its lexical is not comparable with that of out" in ran.errors[0]


def test_other_kinds_need_one(here: Path, prune: Prune) -> None:
    """Without --model a kind that looks at one is refused, also beside lexical."""
    for kind in ("hidden", "lexical,hidden", "dynamics"):
        ran = prune(*COMMAND, kind)
        assert (ran.code, ran.errors) == (
            1,
            ["model: missing; allowed: a hub name or a folder; none with kind lexical"],
        )


def test_a_pipeline_warms_no_model_up_for_words(here: Path, prune: Prune, tiny_model: Path) -> None:
    """Rows and target set are represented first, without a model; only what else is read waits for the warm-up."""
    entry = '{{name = "words-{0}", representation = "lexical", score = "{0}", select = "top"}}'
    text = f"""
        train = "rows.jsonl"
        validation = "rows.jsonl"
        model = "{tiny_model}"
        methods = [{entry.format("uot")}, {entry.format("density")}]
        keep = [5]
        seeds = [0]
        tests = {{test = "rows.jsonl"}}
    """
    (here / "words.toml").write_text(text)
    (here / "both.toml").write_text(text.replace("[{name", '["hard-to-learn", {name'))
    told = prune("pipeline", "words.toml", "-o", "runs", "--dry-run")
    assert told.code == 0 and "warmup" not in told.err
    first = ["represent train lexical", "represent validation lexical"]
    for file in ("words.toml", "both.toml"):
        done = prune("pipeline", file, "-o", "runs", "--only", "shared", "--json")
        assert done.code == 0, done.err
        assert [step["step"] for step in done.json()["steps"]][:2] == first
    assert [step["step"] for step in done.json()["steps"]][2:] == ["warmup", "represent train dynamics"]
