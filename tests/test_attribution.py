"""Scores against trainings on halves: which scores, what is predicted, what is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import spearmanr

from prune_cli.artifacts.jsonl import write_columns
from prune_cli.artifacts.manifest import Recipe
from prune_cli.methods.published import published
from prune_cli.pipeline.attribution import facts, lines, predicts
from prune_cli.pipeline.results import Made
from prune_cli.stages.common import How, making, settle

N, HALVES = 20, 15


def artifact(out: Path, stage: str, file: str, content: dict[str, Any] | str) -> Path:
    """An artifact of one file: columns, or text."""
    recipe = Recipe(stage, {"name": out.name}, {})
    with making(settle(out, recipe, {}, How()), recipe, {}) as draft:
        if isinstance(content, str):
            (draft.path / file).write_text(content)
        else:
            write_columns(draft.path / file, content)
    return out


def test_scores_that_speak_of_the_target_set() -> None:
    """All of the score less, on whatever representation, and no other that prune brings."""
    assert {name for name, method in published().items() if predicts(method)} == {
        *("less", "less-adam", "less-dynamics", "less-exact", "less-hidden", "reverse-less")
    }


@pytest.fixture
def halves(tmp_path: Path) -> tuple[list[Made], np.ndarray, np.ndarray]:
    """Halves of 20 rows, and a loss on two sets of rows for each; one set's is infinite once."""
    rng = np.random.default_rng(0)
    kept = rng.permuted(np.tile(np.arange(N) < N // 2, (HALVES, 1)), axis=1)
    losses = rng.normal(size=(HALVES, 2))
    found = []
    for j in range(HALVES):
        why = {"id": list(range(N)), "kept": kept[j].tolist()}
        metrics = {"target set": {"loss": losses[j, 0]}, "test": {"loss": losses[j, 1] if j else None}}
        selected = artifact(tmp_path / f"half-{j}", "select", "why.jsonl", why)
        found.append(
            Made(artifact(tmp_path / f"eval-{j}", "eval", "metrics.json", json.dumps(metrics)), selected=selected)
        )
    losses[0, 1] = 1e9
    return found, kept, losses


def test_predicted_and_real(halves: tuple[list[Made], np.ndarray, np.ndarray], tmp_path: Path) -> None:
    """The correlation is scipy's, of the sums of scores with the negative loss; an infinite loss is the largest."""
    judged, kept, losses = halves
    rng = np.random.default_rng(1)
    values = {"a": rng.normal(size=N), "flat": np.ones(N)}
    scores = {
        name: artifact(tmp_path / name, "score", "score.jsonl", {"id": list(range(N)), "score": own.tolist()})
        for name, own in values.items()
    }
    found = facts(judged, scores)
    assert [(own["score"], own["test"], own["halves"]) for own in found] == [
        (name, test, HALVES) for name in scores for test in ("target set", "test")
    ]
    for j in range(2):
        expected = spearmanr([values["a"][half].sum() for half in kept], -losses[:, j]).statistic
        assert found[j]["lds"] == pytest.approx(expected)
        assert found[j]["low"] < found[j]["lds"] < found[j]["high"]
    assert found[2] == {"score": "flat", "test": "target set", "halves": 15, "lds": None, "low": None, "high": None}
    _, head, columns, a, flat = lines(json.loads(json.dumps(found)))
    assert "models trained on 15 random halves" in head and columns.split() == ["score", "target", "set", "test"]
    assert a.split()[1] == f"{found[0]['lds']:+.2f}" and flat.count("none: nothing varies") == 2
    assert list(lines([])) == []
