"""Classification: metrics by hand and against scikit-learn; tokenising and padding, which all tasks share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from prune_cli.data.rows import read_rows as open_rows
from prune_cli.tasks import classification, tokens
from tests.conftest import sentences, write_rows
from tests.truth import truth


def test_metrics_of_classes_by_hand() -> None:
    """Gold a a a b c, predicted a a b b b, d neither: each label's scores and their unweighted mean."""
    from sklearn.metrics import classification_report

    gold, said = list("aaabc"), list("aabbb")
    rows = [{"label": label, "prediction": guess} for label, guess in zip(gold, said, strict=True)]
    found = classification.metrics(rows, np.array([1.0, 2.0, 3.0, 4.0, 0.5]), list("abcd"))
    assert found["accuracy"] == pytest.approx(3 / 5)
    assert found["loss"] == pytest.approx(2.1)
    assert found["per_label"]["a"] == pytest.approx({"n": 3, "precision": 1, "recall": 2 / 3, "f1": 4 / 5})
    assert found["per_label"]["b"] == pytest.approx({"n": 1, "precision": 1 / 3, "recall": 1, "f1": 1 / 2})
    assert found["per_label"]["c"] == {"n": 1, "precision": 0, "recall": 0, "f1": 0}
    assert found["per_label"]["d"] == {"n": 0, "precision": 0, "recall": 0, "f1": 0}
    assert found["macro_f1"] == pytest.approx((4 / 5 + 1 / 2 + 0) / 3)  # by support: 0.58; with d: 0.325
    report = classification_report(gold, said, output_dict=True, zero_division=0)
    assert found["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    for label in "abc":
        for name, theirs in (("precision", "precision"), ("recall", "recall"), ("f1", "f1-score"), ("n", "support")):
            assert found["per_label"][label][name] == pytest.approx(report[label][theirs])


def test_padded_by_hand() -> None:
    """Two sequences, padded on the right and on the left."""
    values, mask = tokens.padded([[1, 2, 3], [4]], 9)
    assert values.tolist() == [[1, 2, 3], [4, 9, 9]] and mask.tolist() == [[True] * 3, [True, False, False]]
    values, mask = tokens.padded([[1, 2, 3], [4]], 9, left=True)
    assert values.tolist() == [[1, 2, 3], [9, 9, 4]] and mask.tolist() == [[True] * 3, [False, False, True]]


def test_rows_are_tokenised_block_by_block(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of two rows, texts and pairs mixed: the same tokens, in the same order, as each row by itself."""
    monkeypatch.setattr(tokens, "BLOCK", 2)
    names = ["input_ids", "token_type_ids", "attention_mask"]
    tokenizer = AutoTokenizer.from_pretrained(tiny_model, model_input_names=names)
    given: list[dict[str, Any]] = sentences(7)
    for i in (1, 2, 5):
        given[i]["text_pair"] = "very " * (7 - i)
    rows = open_rows(write_rows(tmp_path / "rows.jsonl", given), check=classification.check)
    encoded = classification.encode(rows, tokenizer, 32, classification.label_list(rows))
    assert encoded.token_type_ids is not None and encoded.offsets.shape == (8,)
    assert encoded.gold.tolist() == [0, 1, 1, 0, 1, 1, 0]  # negative, positive
    for i, row in enumerate(given):
        part = slice(encoded.offsets[i], encoded.offsets[i + 1])
        alone = tokenizer(row["text"], row.get("text_pair"))
        assert encoded.input_ids[part].tolist() == alone["input_ids"]
        assert encoded.token_type_ids[part].tolist() == alone["token_type_ids"]
    assert [len(block) for block in tokens.blocks(rows, lambda row: "text_pair" in row)] == [1, 1, 1, 1, 1, 1, 1]


@truth("score/entropy", "score/upd", by="worked example")
def test_entropy_and_upd_by_hand() -> None:
    """Of (½, ½) log 2 and 0; of (9⁄10, 1⁄10), the second gold, σ(log 10) = 10⁄11 times 1 − H / log 2; of (1, 0)."""
    logits = torch.log(torch.tensor([[0.5, 0.5], [0.9, 0.1], [1.0, 1e-30]]))
    logits[2, 1] = -math.inf  # a choice that a row does not have
    found = classification.dynamics(logits, torch.tensor([0, 1, 0]))
    entropy = -(0.9 * math.log(0.9) + 0.1 * math.log(0.1))
    np.testing.assert_allclose(found["entropy"], [math.log(2), entropy, 0], atol=1e-6)
    np.testing.assert_allclose(found["upd"], [0, 10 / 11 * (1 - entropy / math.log(2)), 0.5], atol=1e-6)
