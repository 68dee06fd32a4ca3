"""What sample_data/make.py promises of the files beside it, checked on the shipped files."""

from __future__ import annotations

import json
import re
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
from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import make
import make_classification
import make_generation
from jsonl import write_rows
from prune_cli.artifacts import tensors
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.tasks import generation
from tests.conftest import REPOSITORY, Prune, read_rows
from world import GOODS, finish

FOLDER = REPOSITORY / "sample_data"
MODEL = FOLDER / "model"
LM = FOLDER / "lm"
SIZES = {"train": 1200, "validation": 150, "test": 400, "ood": 300}
MAJORITY = 0.6
OTHERS = {
    "choice": {"train": 630, "validation": 102, "test": 300},
    "generation": {"train": 630, "validation": 102, "test": 204},
}
GROUPS = {"choice": ["cloze", "verdict", "best"], "generation": ["verdict", "extract", "sum"]}
KEYS = {
    "choice": ("id", "question", "choices", "label", "kind", "group"),
    "generation": ("id", "prompt", "response", "kind", "group"),
}


@pytest.fixture(scope="module")
def rows() -> dict[str, list[dict[str, str]]]:
    return {name: read_rows(FOLDER / f"{name}.jsonl") for name in SIZES}


@pytest.fixture(scope="module")
def others() -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The rows of the other two tasks, by task and file."""
    return {
        task: {name: read_rows(FOLDER / task / f"{name}.jsonl") for name in sizes} for task, sizes in OTHERS.items()
    }


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


def test_files_are_what_the_script_writes(tmp_path: Path) -> None:
    """Made again, every JSONL file has the shipped bytes, and there is no other."""
    write_rows(make.make_rows(), tmp_path)
    names = {
        folder: sorted(path.relative_to(folder) for path in folder.rglob("*.jsonl")) for folder in (FOLDER, tmp_path)
    }
    assert names[tmp_path] == names[FOLDER]
    for name in names[FOLDER]:
        assert (tmp_path / name).read_bytes() == (FOLDER / name).read_bytes()


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
    """All files together take less than 6 MB, lm/ less than 1, and none is a pickle."""
    files = [path for path in FOLDER.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert sum(path.stat().st_size for path in files) < 6e6
    assert sum(path.stat().st_size for path in files if LM in path.parents) < 1e6
    assert {path.suffix for path in files} == {".py", ".toml", ".jsonl", ".json", ".safetensors", ".jinja"}


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


def test_reviews_leave_out_held_out_sentences(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reviews that the model is trained on hold no sentence of those to be left out."""
    monkeypatch.setattr(make_classification, "REVIEWS", 500)
    first = make_classification.make_reviews(set())
    held_out = {text for text, _ in first[::7]}
    again = make_classification.make_reviews(held_out)
    assert len(first) == len(again) == 500
    assert held_out.isdisjoint(text for text, _ in again)


@pytest.mark.slow
def test_model_has_the_same_bytes_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Trained twice, on few texts, each tokenizer and model has the same bytes."""
    monkeypatch.setattr(make_classification, "REVIEWS", 2000)
    monkeypatch.setattr(make_generation, "TEXTS", 2000)
    threads = torch.get_num_threads()
    for name in ("first", "second"):
        make_classification.make_model(make_classification.make_reviews(set()), ["a row"], tmp_path / name / "model")
        make_generation.make_lm(make_generation.make_texts(set()), ["a row"], tmp_path / name / "lm")
    torch.set_num_threads(threads)
    files = sorted(path.relative_to(tmp_path / "first") for path in (tmp_path / "first").rglob("*.*"))
    assert Path("model/model.safetensors") in files
    assert Path("lm/model.safetensors") in files
    for path in files:
        assert (tmp_path / "first" / path).read_bytes() == (tmp_path / "second" / path).read_bytes()


def words(text: str) -> set[str]:
    return set(re.findall("[a-z]+", text.lower()))


def meaning(text: str) -> str:
    """What a text without negations means, by the words that praise or blame in it."""
    praise = not words(text).isdisjoint([*GOODS.cue[True], *GOODS.rare[True], "happy", "well"])
    blame = not words(text).isdisjoint([*GOODS.cue[False], *GOODS.rare[False], "broke"])
    assert praise or blame
    return "mixed" if praise and blame else "positive" if praise else "negative"


def fitting(row: dict[str, Any]) -> list[bool]:
    """Which choices of a row fit its question."""
    asked = words(row["question"])
    if row["group"] == "verdict":
        said = [finish(verdict) for verdict in GOODS.verdicts[meaning(row["question"])]]
        return [choice in said for choice in row["choices"]]
    praised = not asked.isdisjoint(["buy", "use", "happy", "worth", "new"])
    wanted = "positive" if praised != ("though" in asked) else "negative"
    return [meaning(choice) == wanted for choice in row["choices"]]


def right(row: dict[str, Any]) -> str:
    """The right response to a row's prompt."""
    if row["group"] == "sum":
        a, b = (int(number) for number in re.findall("[0-9]+", row["prompt"]))
        return f"{a} less {b} is {a - b}." if row["kind"] == "hard" else f"{a} and {b} make {a + b}."
    review = re.split("[.?] ", row["prompt"], maxsplit=1)[1]
    if row["group"] == "verdict":
        verdicts = {"positive": "Yes, it is a good buy.", "negative": "No, it is a bad buy."}
        return verdicts.get(meaning(review), "It is hard to say.")
    named: dict[str, list[str]] = {"positive": [], "negative": []}
    for clause in re.split(", but |, yet |, though ", review):
        named[meaning(clause)] += [part for part in GOODS.parts if part in words(clause)]
    like, dislike = (
        [f"I {verb} the {part}." for part in named[sign]]
        for verb, sign in (("like", "positive"), ("dislike", "negative"))
    )
    return " ".join(like + dislike)


@pytest.mark.parametrize("task", list(OTHERS))
def test_other_rows(others: Any, task: str) -> None:
    """Each file has its number of rows, each kind as many of each group, train four kinds and the others two halves."""
    for name, size in OTHERS[task].items():
        rows = others[task][name]
        train = {"easy": 90, "hard": 60, "redundant": 40, "mislabelled": 20}
        each = train if name == "train" else {"easy": size // 6, "hard": size // 6}
        wanted = {(kind, group): count for kind, count in each.items() for group in GROUPS[task]}
        assert Counter((row["kind"], row["group"]) for row in rows) == wanted
        assert {tuple(row) for row in rows} == {KEYS[task]}
        assert len({row["id"] for row in rows}) == len(rows) == size


def test_no_question_stands_twice(others: Any) -> None:
    """No gap, no review and no prompt's review or sum stands twice, in one file or in two."""
    rows = {task: [row for name in OTHERS[task] for row in others[task][name]] for task in OTHERS}
    for group in GROUPS["choice"]:
        own = [
            row["choices"] if group == "best" else [row["question"]] for row in rows["choice"] if row["group"] == group
        ]
        texts = [text.casefold() for each in own for text in each]
        assert len(set(texts)) == len(texts)
    prompts = [
        row["prompt"] if row["group"] == "sum" else re.split("[.?] ", row["prompt"], maxsplit=1)[1]
        for row in rows["generation"]
    ]
    assert len(set(prompts)) == len(prompts)


def test_one_choice_is_right(others: Any) -> None:
    """Rows have two, three or four choices; one fits, and it is the label of all but mislabelled rows.

    Hard reviews are left out: it takes a grammar to read them.
    """
    rows = [row for name in OTHERS["choice"] for row in others["choice"][name]]
    assert {len(row["choices"]) for row in rows} == {2, 3, 4}
    for row in rows:
        if (row["group"], row["kind"]) != ("verdict", "hard"):
            assert sum(fitting(row)) == 1
            assert (fitting(row)[row["label"]]) == (row["kind"] != "mislabelled")


def test_responses_are_right(others: Any) -> None:
    """A response answers its prompt, but for mislabelled rows; hard reviews are left out here too."""
    for row in (row for name in OTHERS["generation"] for row in others["generation"][name]):
        if row["group"] == "sum" or row["kind"] != "hard":
            assert (row["response"] == right(row)) == (row["kind"] != "mislabelled")


def test_lm_has_a_chat_template(others: Any) -> None:
    """Through the template a row is the prompt between its marks, then the response and the end; none is cut."""
    tokenizer = AutoTokenizer.from_pretrained(LM)
    for name, size in OTHERS["generation"].items():
        rows = open_rows(FOLDER / f"generation/{name}.jsonl", check=generation.check)
        encoded = generation.encode(rows, tokenizer, 128, [])
        assert len(encoded.lengths) == size
        assert encoded.lengths.max() <= 64
        for i, row in enumerate(others["generation"][name]):
            ids = encoded.input_ids[encoded.offsets[i] : encoded.offsets[i + 1]]
            said = encoded.gold[encoded.offsets[i] : encoded.offsets[i + 1]]
            prompt, response = tokenizer.decode(ids[~said]), tokenizer.decode(ids[said])
            assert prompt == f"<s><|user|>{row['prompt']}<|assistant|>"
            assert response == f"{row['response']}</s>"


def test_lm_knows_sums_and_parts() -> None:
    """Untuned, the language model adds and takes away small numbers, and repeats the part that was praised."""
    tokenizer, model = AutoTokenizer.from_pretrained(LM), AutoModelForCausalLM.from_pretrained(LM).eval()

    def next_word(text: str) -> str:
        with torch.no_grad():
            logits = model(**tokenizer(text, return_tensors="pt", return_token_type_ids=False)).logits
        return str(tokenizer.decode(logits[0, -1].argmax())).strip()

    pairs = [(a, b) for a in range(2, 11) for b in range(2, 11)]
    sums = [next_word(f"The shop has {a} fans and my mother has {b}. {a} and {b} make") == str(a + b) for a, b in pairs]
    rests = [next_word(f"{a + b} fans came today and {a} went back. {a + b} less {a} is") == str(b) for a, b in pairs]
    parts = [next_word(f"The {part} is very sturdy. I like the") == part for part in GOODS.parts]
    assert min(np.mean(sums), np.mean(rests), np.mean(parts)) > 0.95


def test_texts_leave_out_held_out_reviews(monkeypatch: pytest.MonkeyPatch) -> None:
    """The texts that the language model is trained on begin with no review of those to be left out."""
    monkeypatch.setattr(make_generation, "TEXTS", 500)
    first = make_generation.make_texts(set())
    held_out = {re.split("(?<=[.]) ", text)[0] for text in first[::7]}
    again = make_generation.make_texts(held_out)
    assert len(first) == len(again) == 500
    assert held_out.isdisjoint(re.split("(?<=[.]) ", text)[0] for text in again)


def table(folder: Path) -> dict[str, dict[str, float]]:
    """A pipeline's results, each metric's mean over seeds by method."""
    rows = read_rows(folder / "results.jsonl")
    return {
        method: {
            metric: float(np.mean([row[metric] for row in rows if row["method"] == method]))
            for metric in ("loss", "accuracy", "exact_match", "rougeL")
            if metric in rows[0]
        }
        for method in {row["method"] for row in rows}
    }


@pytest.mark.slow
@pytest.mark.parametrize("task", list(OTHERS))
def test_cut_down_pipeline(prune: Prune, tmp_path: Path, task: str) -> None:
    """Two methods, one seed and one epoch of a task's pipeline file run to a table."""
    for path in FOLDER.iterdir():
        (tmp_path / path.name).symlink_to(path)
    text = (FOLDER / f"{task}.toml").read_text()
    for old, new in (
        (r"methods = \[[^]]*\]", 'methods = ["random", "less"]'),
        (r"seeds = \[0, 1\]", "seeds = [0]"),
        (r"epochs = [0-9]+", "epochs = 1"),
    ):
        text, changes = re.subn(old, new, text)
        assert changes
    (tmp_path / "short.toml").write_text(text)
    done = prune("pipeline", tmp_path / "short.toml", "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    assert set(table(tmp_path / "runs")) == {"random", "less"}
    assert [line.split()[0] for line in done.out.splitlines()] == ["method", "random", "less"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "metric", "least"), [("choice", "accuracy", 0.8), ("generation", "exact_match", 0.25)]
)
def test_whole_pipeline(prune: Prune, tmp_path: Path, task: str, metric: str, least: float) -> None:
    """A task's pipeline file: all rows teach much and a fifth drawn at random less; what is hard to learn is wrong."""
    done = prune("pipeline", FOLDER / f"{task}.toml", "-o", tmp_path / "runs", "--device", "cpu")
    assert done.code == 0, done.err
    found = table(tmp_path / "runs")
    assert found["full"][metric] > least
    assert found["full"][metric] > found["random"][metric] + 0.1
    assert found["full"]["loss"] < min(each["loss"] for method, each in found.items() if method != "full")

    def wrong(kept: Path) -> float:
        rows = [row for path in kept.rglob("select.jsonl") for row in read_rows(path)]
        return float(np.mean([row["kind"] == "mislabelled" for row in rows]))

    methods = tmp_path / "runs/methods"
    assert wrong(methods / "hard-to-learn") > 2 * wrong(methods / "random")
