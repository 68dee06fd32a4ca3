"""What sample_data/make.py promises of the files beside it, checked on the shipped files."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer

from prune_cli import tensors
from tests.conftest import REPOSITORY, Prune, read_rows

FOLDER = REPOSITORY / "sample_data"
MODEL = FOLDER / "model"
SIZES = {"train": 1200, "validation": 150, "test": 400, "ood": 300}
MAJORITY = 0.6


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    return {name: read_rows(FOLDER / f"{name}.jsonl") for name in SIZES}


@pytest.fixture(scope="module")
def make() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("sample_data_make", FOLDER / "make.py")
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def states(rows: dict[str, list[dict[str, str]]]) -> dict[str, np.ndarray]:
    """Mean-pooled last hidden states [n, 64] of each file, by transformers alone."""
    tokenizer, model = AutoTokenizer.from_pretrained(MODEL), AutoModel.from_pretrained(MODEL).eval()
    found = {}
    for name in SIZES:
        batch = tokenizer([row["text"] for row in rows[name]], padding=True, return_tensors="pt")
        mask = batch["attention_mask"][:, :, None]
        with torch.no_grad():
            hidden = model(**batch).last_hidden_state
        found[name] = ((hidden * mask).sum(1) / mask.sum(1)).numpy()
    return found


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, prune: Prune) -> Path:
    """A fine-tune on all rows, represented (`dynamics`) and evaluated."""
    folder = tmp_path_factory.mktemp("tuned")
    train, test, ood = (FOLDER / f"{name}.jsonl" for name in ("train", "test", "ood"))
    for command in (
        ["finetune", train, "-o", folder / "model", "--model", MODEL, "--steps", 120, "--learning-rate", "1e-3"],
        ["represent", train, "-o", folder / "rows", "--model", folder / "model", "--kind", "dynamics"],
        ["eval", folder / "model", test, ood, "-o", folder / "eval"],
    ):
        done = prune(*command, "--device", "cpu")
        assert done.code == 0, done.err
    return folder


def column(rows: list[dict[str, str]], key: str) -> np.ndarray:
    return np.array([row[key] for row in rows])


def test_files_are_what_the_script_writes(make: Any, tmp_path: Path) -> None:
    """Made again, every JSONL file has the shipped bytes."""
    make.write_rows(make.make_rows(), tmp_path)
    for name in SIZES:
        assert (tmp_path / f"{name}.jsonl").read_bytes() == (FOLDER / f"{name}.jsonl").read_bytes()


def test_rows(rows: dict[str, list[dict[str, str]]]) -> None:
    """Each file has its number of rows, with the four keys and no other; no id and no text stands twice anywhere."""
    everything = [row for name in SIZES for row in rows[name]]
    assert {name: len(rows[name]) for name in SIZES} == SIZES
    assert {tuple(row) for row in everything} == {("id", "text", "label", "kind")}
    assert len({row["id"] for row in everything}) == len(everything)
    assert len({row["text"].casefold() for row in everything}) == len(everything)


def test_shares(rows: dict[str, list[dict[str, str]]]) -> None:
    """60, 28 and 12 % of each file are positive, negative and mixed; train has four kinds, the others two halves."""
    for name, n in SIZES.items():
        counts = Counter(column(rows[name], "label").tolist())
        assert {label: 100 * count / n for label, count in counts.items()} == {
            "positive": 60,
            "negative": 28,
            "mixed": 12,
        }
    kinds = {name: Counter(column(rows[name], "kind").tolist()) for name in SIZES}
    assert kinds["train"] == {"easy": 420, "hard": 300, "redundant": 360, "mislabelled": 120}
    for name in ("validation", "test", "ood"):
        assert kinds[name] == {"easy": SIZES[name] / 2, "hard": SIZES[name] / 2}


def test_redundant_rows_repeat_one_another(rows: dict[str, list[dict[str, str]]]) -> None:
    """A redundant row shares two thirds of its words with five other rows at least; an easy one mostly with none."""
    words = [set(row["text"].casefold().strip(".").split()) for row in rows["train"]]
    alike = np.array([[len(a & b) / len(a | b) > 2 / 3 for b in words] for a in words]).sum(1) - 1
    kind = column(rows["train"], "kind")
    assert alike[kind == "redundant"].min() >= 5
    assert np.median(alike[kind == "easy"]) == 0


def test_folder_is_small() -> None:
    """All files together take less than 3 MB, and none is a pickle."""
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 3e6
    assert {path.suffix for path in files} == {".py", ".toml", ".jsonl", ".json", ".safetensors"}


def test_model_is_an_encoder(rows: dict[str, list[dict[str, str]]]) -> None:
    """The model has no head, a classifier on it draws its own alone, and its tokenizer knows every word of the rows."""
    tokenizer = AutoTokenizer.from_pretrained(MODEL)
    assert AutoModel.from_pretrained(MODEL).config.architectures == ["BertModel"]
    _, info = AutoModelForSequenceClassification.from_pretrained(MODEL, num_labels=3, output_loading_info=True)
    assert set(info["missing_keys"]) == {"classifier.weight", "classifier.bias"}
    assert not info["unexpected_keys"]
    ids = tokenizer([row["text"] for name in SIZES for row in rows[name]])["input_ids"]
    assert not any(tokenizer.unk_token_id in row for row in ids)
    assert max(map(len, ids)) <= 40


def test_hidden_states_mean_something(rows: dict[str, list[dict[str, str]]], states: dict[str, np.ndarray]) -> None:
    """Untuned, a linear probe and 15 neighbours on mean-pooled states beat the majority on test by 0.15 at least."""
    label = {name: column(rows[name], "label") for name in SIZES}
    for probe in (LogisticRegression(max_iter=2000), KNeighborsClassifier(15)):
        probe.fit(states["train"], label["train"])
        assert probe.score(states["test"], label["test"]) > MAJORITY + 0.15
        assert probe.score(states["ood"], label["ood"]) < probe.score(states["test"], label["test"]) - 0.05


def test_mislabelled_rows_contradict_the_others(
    rows: dict[str, list[dict[str, str]]], states: dict[str, np.ndarray]
) -> None:
    """A probe that has not seen a row gives its label a low probability where, and mostly only where, it is wrong."""
    label = column(rows["train"], "label")
    probe = LogisticRegression(max_iter=2000)
    probabilities = cross_val_predict(probe, states["train"], label, cv=5, method="predict_proba")
    given = probabilities[np.arange(len(label)), np.searchsorted(np.unique(label), label)]
    assert roc_auc_score(column(rows["train"], "kind") == "mislabelled", -given) > 0.85


def test_fine_tuning_learns(tuned: Path) -> None:
    """A fine-tune on all rows gets 85 to 97 % of test right, in each label, and fewer of the other domain."""
    metrics = json.loads((tuned / "eval/metrics.json").read_text())
    assert 0.85 < metrics["test"]["accuracy"] < 0.97
    assert MAJORITY + 0.1 < metrics["ood"]["accuracy"] < metrics["test"]["accuracy"]
    assert min(each["f1"] for each in metrics["test"]["per_label"].values()) > 0.75


def test_loss_finds_mislabelled_rows(tuned: Path, rows: dict[str, list[dict[str, str]]]) -> None:
    """After fine-tuning, mislabelled rows have higher losses than the others; redundant rows have the lowest."""
    loss = -tensors.load(tuned / "rows/dynamics.safetensors")["logprob"][:, -1]
    kind = column(rows["train"], "kind")
    assert roc_auc_score(kind == "mislabelled", loss) > 0.95
    median = {name: np.median(loss[kind == name]) for name in ("redundant", "easy", "hard", "mislabelled")}
    assert median["redundant"] < median["hard"] < median["mislabelled"]
    assert median["easy"] < median["hard"]


def test_reviews_leave_out_held_out_sentences(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reviews that the model is trained on hold no sentence of those to be left out."""
    monkeypatch.setattr(make, "REVIEWS", 500)
    first = make.make_reviews(set())
    held_out = {text for text, _ in first[::7]}
    again = make.make_reviews(held_out)
    assert len(first) == len(again) == 500
    assert held_out.isdisjoint(text for text, _ in again)


@pytest.mark.slow
def test_model_has_the_same_bytes_again(make: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trained twice, on few reviews, tokenizer and encoder have the same bytes."""
    monkeypatch.setattr(make, "REVIEWS", 2000)
    threads = torch.get_num_threads()
    for name in ("first", "second"):
        make.make_model(make.make_reviews(set()), ["a row"], tmp_path / name)
    torch.set_num_threads(threads)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert "model.safetensors" in files
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
