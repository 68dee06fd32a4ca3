"""Scores that read texts, several scores or several kinds, as the command gives them these."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.methods import method as methods
from tests.conftest import Prune, Ran, read_rows, sentences, write_rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def scores(path: str) -> np.ndarray:
    """The scores of an artifact, in its order."""
    return np.array([line["score"] for line in read_rows(Path(path) / "score.jsonl")])


def refused(ran: Ran, *parts: str) -> None:
    """One error line that holds all the parts, and no output."""
    assert (ran.code, len(ran.errors)) == (1, 1), ran.err
    assert all(part in ran.errors[0] for part in parts), ran.errors
    assert not Path("out").exists()


def test_several_scores_are_combined_by_rows_and_in_their_order(here: Path, prune: Prune, made: Path) -> None:
    """A score of the same rows in another order is joined by id; weights follow the order of the artifacts."""
    write_rows(here / "turned.jsonl", read_rows(made / "train" / "rows.jsonl")[::-1])
    assert prune("score", made / "train", "-o", "loss", "--method", "loss").code == 0
    assert prune("score", "turned.jsonl", "-o", "length", "--method", "length").code == 0
    combine = ["--method", "combine", "--set", "scale=z", "--set"]
    for order, weights in ((["loss", "length"], "3,-1"), (["length", "loss"], "-1,3")):
        ran = prune("score", *order, "-o", "-".join(order), *combine, f"weights={weights}")
        assert ran.code == 0, ran.err
    both = np.stack([scores("loss"), scores("length")[::-1]], axis=1)
    expected = (both - both.mean(axis=0)) / both.std(axis=0) @ [3, -1]
    np.testing.assert_allclose(scores("loss-length"), expected, rtol=1e-9)
    np.testing.assert_allclose(scores("length-loss"), expected[::-1], rtol=1e-9)
    again = prune("score", "loss", "length", "-o", "loss-length", *combine, "weights=3,-1")
    assert "up to date" in again.err
    turned = prune("score", "length", "loss", "-o", "loss-length", *combine, "weights=3,-1")
    assert turned.code == 1 and "holds another artifact" in turned.errors[0]
    assert {"score 1", "score 2"} <= set(open_artifact(here / "loss-length").inputs)


def test_wrong_weights_and_no_scores_are_told(here: Path, prune: Prune, made: Path, tiny_model: Path) -> None:
    """As many weights as scores, and a score at least; in a pipeline no method is given several."""
    refused(
        prune("score", made / "score", "-o", "out", "--method", "combine", "--set", "weights=1,2"),
        "weights: 1,2; allowed: 1 numbers with commas",
    )
    refused(prune("score", made / "train", "-o", "out", "--method", "combine"), "no score artifact is given")
    write_rows(here / "rows.jsonl", sentences(6))
    own = '{name = "mine", score = "combine", select = "top"}'
    text = f'train = "rows.jsonl"\nmodel = "{tiny_model}"\nmethods = [{own}]\nkeep = [4]\nseeds = [0]\n'
    text += 'tests = {t = "rows.jsonl"}\n'
    (here / "pipeline.toml").write_text(text)
    refused(prune("pipeline", "pipeline.toml", "-o", "out"), "score combine reads several scores")


@pytest.mark.parametrize("method", ["bm25", "dsir"])
def test_texts_of_a_data_file_are_a_target(here: Path, prune: Prune, method: str) -> None:
    """Rows and target rows from files, no model: what the function says of their texts."""
    rows, target = sentences(9), sentences(3, 50)
    write_rows(here / "rows.jsonl", rows)
    write_rows(here / "target.jsonl", target)
    ran = prune("score", "rows.jsonl", "-o", "score", "--method", method, "--target", "target.jsonl")
    assert ran.code == 0, ran.err
    function = methods.load("score", method).function
    drawn = [np.random.default_rng(0)] if method == "dsir" else []
    expected = function([row["text"] for row in rows], [row["text"] for row in target], *drawn)
    np.testing.assert_allclose(scores("score"), expected, rtol=1e-12)
    refused(prune("score", "rows.jsonl", "-o", "out", "--method", method), f"{method}: compares with a target set")


def test_labels_are_needed_where_neighbours_are_asked_for_them(here: Path, prune: Prune) -> None:
    """Rows of generation have no labels: one line, and no score of zeros."""
    (here / "mine.py").write_text("def same(label):\n    return (label == label[0]).astype(float)\n")
    write_rows(here / "rows.jsonl", [{"prompt": "a", "response": "b"}] * 3)
    score = ["score", "rows.jsonl", "-o", "out", "--task", "generation", "--method", "./mine.py:same"]
    refused(prune(*score), "rows of the task generation have no labels; this method needs one in every row")
    optional = "import numpy as np\n\n\ndef same(n, label=None):\n    return np.full(n, float(label is None))\n"
    (here / "mine.py").write_text(optional)
    assert prune(*score[:3], "score", *score[4:]).code == 0
    assert scores("score").tolist() == [1, 1, 1]


def test_trak_reads_gradients_and_dynamics_of_the_same_checkpoints(here: Path, prune: Prune, made: Path) -> None:
    """What the function says of the stored tensors; dynamics of fewer checkpoints are refused by name."""
    trak = ["--method", "trak", "--on", "gradient", "--target", made / "validation"]
    ran = prune("score", made / "train", "-o", "score", *trak)
    assert ran.code == 0, ran.err
    assert len(scores("score")) == 24 and scores("score").std() > 0
    write_rows(here / "train.jsonl", read_rows(made / "train" / "rows.jsonl"))
    apart = ["--model", made / "warmup", "--checkpoints", "last", "--kind"]
    assert prune("represent", "train.jsonl", "-o", "last", *apart, "dynamics").code == 0
    assert prune("represent", "train.jsonl", "-o", "gradients", *apart[:2], "--kind", "gradient", "--dim", 64).code == 0
    refused(
        prune("score", "gradients", "last", "-o", "out", *trak),
        "last: its dynamics is not of the checkpoints that gradient in gradients is of",
    )
