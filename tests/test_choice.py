"""Multiple choice against a plain forward of each row alone, by hand, and through every command."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForMultipleChoice, AutoTokenizer

from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.gradients.capture import Capture
from prune_cli.models.find import find
from prune_cli.models.load import load, load_tokenizer
from prune_cli.tasks import choice
from tests.conftest import NEGATIVE, NOUNS, POSITIVE, Prune, read_rows, write_rows


def questions(n: int, start: int = 0) -> list[dict[str, Any]]:
    """n rows of two to four choices, with a blank and without one: the good word is gold."""
    rows = []
    for i in range(start, start + n):
        count = 2 + i % 3
        choices = [" ".join(["very"] * (j % 3) + [NEGATIVE[(i + j) % 4]]) for j in range(count)]
        choices[i % count] = POSITIVE[i % 4]
        noun = NOUNS[i % 4]
        question = f"the {noun} is ___ very {noun}" if i % 2 else f"the {noun} is"
        rows.append({"id": f"q-{i}", "question": question, "choices": choices, "label": i % count, "group": str(i % 2)})
    return rows


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl (18 rows), validation.jsonl (6) and test.jsonl (9)."""
    folder = tmp_path_factory.mktemp("asked")
    for name, n, start in (("train", 18, 0), ("validation", 6, 100), ("test", 9, 200)):
        write_rows(folder / f"{name}.jsonl", questions(n, start))
    return folder


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory, prune: Prune, tiny_model: Path, asked: Path) -> Path:
    """Artifacts of all six commands; each says that it is up to date when run again."""
    folder = tmp_path_factory.mktemp("done")
    train, validation, test = (asked / f"{name}.jsonl" for name in ("train", "validation", "test"))
    warmup, represented, target, score, kept = (folder / n for n in ("warmup", "train", "target", "score", "kept"))
    quick = ["--task", "choice", "--epochs", 2, "--learning-rate", "1e-2", "--batch-size", 6]
    kinds = ["--kind", "hidden,dynamics,gradient", "--dim", 64, "--dtype", "float32"]
    for command in (
        ["finetune", train, "-o", warmup, "--model", tiny_model, "--keep-checkpoints", "epoch", *quick],
        ["represent", train, "-o", represented, "--model", warmup, *kinds],
        ["represent", validation, "-o", target, "--model", warmup, "--task", "choice", *kinds],
        ["score", represented, "-o", score, "--method", "less", "--on", "gradient", "--target", target],
        ["select", score, "-o", kept, "--method", "top", "--keep", "0.5", "--balance", "keep", "--balance-by", "group"],
        ["finetune", kept, "-o", folder / "model", "--model", tiny_model, *quick[2:]],  # the task is known
        ["eval", folder / "model", test, "-o", folder / "metrics"],
    ):
        made = prune(*command)
        assert made.code == 0, made.err
        assert "up to date" in prune(*command).err
    return folder


def alone(folder: Path, tokens: Path, rows: list[dict[str, Any]]) -> list[Any]:
    """Each row's own forward with gradients, by transformers alone; its pairs and filled blanks made here."""
    tokenizer = AutoTokenizer.from_pretrained(tokens)
    model = AutoModelForMultipleChoice.from_pretrained(folder).eval()
    found = []
    for row in rows:
        if "___" in row["question"]:
            texts = [row["question"].replace("___", option) for option in row["choices"]]
            batch = tokenizer(texts, padding=True, return_tensors="pt")
        else:
            pairs = [(row["question"], option) for option in row["choices"]]
            batch = tokenizer(pairs, padding=True, return_tensors="pt")
        one = {key: value.unsqueeze(0) for key, value in batch.items()}
        output = model(**one, labels=torch.tensor([row["label"]]), output_hidden_states=True)
        model.zero_grad()
        output.loss.backward(retain_graph=True)
        output["grads"] = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append(output)
    return found


def stored(folder: Path, kind: str) -> dict[str, Any]:
    return tensors.load(folder / f"{kind}.safetensors")


def test_representations_are_those_of_each_row_alone(done: Path, asked: Path) -> None:
    """Hidden states, dynamics and gradient norms in mixed batches equal a plain forward and backward of one row."""
    rows = read_rows(asked / "train.jsonl")
    hidden, dynamics, gradient = (stored(done / "train", kind) for kind in ("hidden", "dynamics", "gradient"))
    assert hidden["hidden"].shape == (18, 2, 16)
    for e, epoch in enumerate("12"):
        for i, output in enumerate(alone(done / "warmup/checkpoints" / epoch, done / "warmup", rows)):
            first = output.hidden_states[-1][:, 0].mean(0).detach().numpy()
            assert np.allclose(hidden["hidden"][i, e], first, atol=1e-5)
            assert dynamics["logprob"][i, e] == pytest.approx(-output.loss.item(), abs=1e-5)
            assert dynamics["correct"][i, e] == float(output.logits.argmax() == rows[i]["label"])
            norm = math.sqrt(sum(float(grad.double().square().sum()) for grad in output["grads"].values()))
            assert gradient["grad_norm"][i, e] == pytest.approx(norm, rel=1e-3, abs=1e-6)


def test_per_example_gradients_are_those_of_autograd(done: Path, asked: Path) -> None:
    """Every parameter's gradient of every row in one mixed batch equals that of a batch of one."""
    source = find(str(done / "warmup"))
    tokenizer = load_tokenizer(source)
    model, _ = load(source, choice, [], tokenizer, new_head=False)
    model.eval()
    rows = open_rows(asked / "train.jsonl", check=choice.check)
    encoded = choice.encode(rows, tokenizer, 32, [])
    batch = choice.collate(encoded, range(len(rows)), 0, "cpu")
    labels = batch.pop("labels")
    found: dict[str, torch.Tensor] = {}
    capture = Capture(model)
    with capture.attached(model):
        capture.begin(18, lambda name, factors: found.update({name: factors.dense()}), labels.numel())
        choice.losses(model(**batch).logits, labels).sum().backward()
        capture.finish()
    for i, output in enumerate(alone(done / "warmup", done / "warmup", read_rows(asked / "train.jsonl"))):
        whole = torch.stack([grad.norm() for grad in output["grads"].values()]).norm()
        for name, grad in output["grads"].items():
            assert float((found[name][i] - grad).norm()) <= 1e-4 * float(whole) + 1e-7, name


def test_predictions_are_those_of_each_row_alone(done: Path, asked: Path) -> None:
    """Probabilities over the row's own choices, the loss and the accuracy equal plain forwards."""
    rows = read_rows(asked / "test.jsonl")
    outputs = alone(done / "model", done / "model", rows)
    told = read_rows(done / "metrics/predictions.jsonl")
    for row, output, line in zip(rows, outputs, told, strict=True):
        assert (line["id"], line["label"]) == (row["id"], row["label"])
        assert line["probabilities"] == pytest.approx(output.logits[0].softmax(0).tolist(), abs=1e-5)
        assert line["prediction"] == int(output.logits.argmax())
    metrics = json.loads((done / "metrics/metrics.json").read_text())["test"]
    assert set(metrics) == {"n", "loss", "accuracy"} and metrics["n"] == 9
    assert metrics["loss"] == pytest.approx(np.mean([output.loss.item() for output in outputs]), abs=1e-5)
    right = [int(output.logits.argmax()) == row["label"] for row, output in zip(rows, outputs, strict=True)]
    assert metrics["accuracy"] == pytest.approx(np.mean(right))


@pytest.mark.parametrize("tokens", ["64", "512"])
def test_identical_choices_have_no_gradient(tokens: str, done: Path, asked: Path, tmp_path: Path, prune: Prune) -> None:
    """What cancels is nothing, in any batch: norm, projection and influence are zero, and no model is refused."""
    ordinary = questions(10)
    same = [{**row, "choices": [row["choices"][0]] * 3, "label": 1, "id": f"same-{row['id']}"} for row in ordinary]
    for name, rows in (("mixed", [*ordinary, *same]), ("same", same)):
        data = write_rows(tmp_path / f"{name}.jsonl", rows)
        start = ["represent", data, "--model", done / "warmup", "--tokens-per-batch", tokens, "--checkpoints", "last"]
        kinds = {"gradient": ["--dim", 64], "influence": ["--target-data", asked / "validation.jsonl"]}
        for kind, more in kinds.items():
            ran = prune(*start, "--kind", kind, "-o", tmp_path / f"{name}-{kind}", *more)
            assert ran.code == 0, ran.err
        gradient = stored(tmp_path / f"{name}-gradient", "gradient")
        influence = stored(tmp_path / f"{name}-influence", "influence")["influence"]
        assert not gradient["grad_norm"][-10:].any() and not gradient["gradient"][-10:].any()
        assert not influence[-10:].any()
        if name == "mixed":
            assert (gradient["grad_norm"][:10] > 1e-4).all() and influence[:10].all()


def test_dynamics_by_hand() -> None:
    """Three rows of 3, 2 and 3 choices; what stands where a choice is missing has no say and gets no gradient."""
    logits = torch.tensor([[0.0, math.log(2), 0.0], [0.0, math.log(3), 50.0], [math.log(3), math.log(6), 0.0]])
    labels = torch.tensor([[0, 1, 0], [1, 0, -100], [1, 0, 0]])
    logits.requires_grad_(True)
    losses = choice.losses(logits, labels)
    # p(gold) = 2/4, 1/4, 3/10
    assert losses.tolist() == pytest.approx([math.log(2), math.log(4), math.log(10 / 3)], abs=1e-6)
    losses.sum().backward()
    assert logits.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([0.25, -0.5, 0.25], abs=1e-6)
    assert logits.grad[1].tolist() == pytest.approx([-0.75, 0.75, 0.0], abs=1e-6)
    found = choice.dynamics(logits, labels)
    assert found["correct"].tolist() == [1, 0, 0]
    assert found["margin"].tolist() == pytest.approx([math.log(2), -math.log(3), -math.log(2)], abs=1e-6)
    errors = [(0.25, -0.5, 0.25), (-0.75, 0.75), (-0.7, 0.6, 0.1)]
    assert found["el2n"].tolist() == pytest.approx([math.hypot(*error) for error in errors], abs=1e-6)


def test_a_batch_is_laid_out_by_row_and_choice(tiny_model: Path, tmp_path: Path) -> None:
    """[b, c, t]: a missing choice is the row's first, marked in the labels; limits count the choices."""
    rows = [
        {"question": "the film is _", "choices": ["good", "bad"], "label": 1},
        {"question": "the plot", "choices": ["good", "very very bad", "dull"], "label": 0},
    ]
    opened = open_rows(write_rows(tmp_path / "rows.jsonl", rows), check=choice.check)
    encoded = choice.encode(opened, AutoTokenizer.from_pretrained(tiny_model), 32, [])
    assert encoded.longest.tolist() == [6, 8]  # [CLS] the film is good [SEP]; [CLS] the plot [SEP] very very bad [SEP]
    assert encoded.lengths.tolist() == [18, 24]
    batch = choice.collate(encoded, [0, 1], 0, "cpu")
    assert batch["labels"].tolist() == [[0, 1, -100], [1, 0, 0]]
    assert batch["input_ids"].shape == (2, 3, 8)
    assert batch["input_ids"][0, 2].tolist() == batch["input_ids"][0, 0].tolist()
    assert batch["attention_mask"].sum(2).tolist() == [[6, 6, 6], [6, 8, 6]]
    assert choice.collate(encoded, [0], 0, "cpu")["input_ids"].shape == (1, 2, 6)


def test_long_pairs_lose_the_longer_text_first(tiny_model: Path, tmp_path: Path) -> None:
    """Cut to 8 tokens, the question of five words loses two and the choice of two words none."""
    row = {"question": "the very very good film", "choices": ["very bad", "dull"], "label": 0}
    opened = open_rows(write_rows(tmp_path / "rows.jsonl", [row]), check=choice.check)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    encoded = choice.encode(opened, tokenizer, 8, [])
    tokens = tokenizer.convert_ids_to_tokens(encoded.input_ids[: encoded.offsets[1]].tolist())
    assert tokens == ["[CLS]", "the", "very", "very", "[SEP]", "very", "bad", "[SEP]"]


@pytest.mark.parametrize(
    ("question", "filled"),
    [
        ("so _ always won", "so Ann\\1 always won"),
        ("___ is what _ is", "Ann\\1 is what Ann\\1 is"),
    ],
)
def test_blanks_are_filled(question: str, filled: str) -> None:
    """Each blank, and each run of underscores as one, is filled with the choice as it is."""
    assert choice.filled(question, "Ann\\1") == filled


def test_hidden_of_the_gold_choice(done: Path, asked: Path, tmp_path: Path, prune: Prune) -> None:
    """`--choices gold` is the gold choice's first token; the recipe says so, and which pooling `auto` meant."""
    common = ["represent", asked / "train.jsonl", "--model", done / "warmup", "--checkpoints", "last"]
    told = prune(*common, "-o", tmp_path / "gold", "--choices", "gold", "--dtype", "float32")
    assert told.code == 0, told.err
    rows = read_rows(asked / "train.jsonl")
    hidden = stored(tmp_path / "gold", "hidden")["hidden"]
    for i, output in enumerate(alone(done / "warmup", done / "warmup", rows)):
        gold = output.hidden_states[-1][rows[i]["label"], 0].detach().numpy()
        assert np.allclose(hidden[i, 0], gold, atol=1e-5)
    made = open_artifact(tmp_path / "gold").options
    assert (made["task"], made["pooling"], made["choices"]) == ("choice", "cls", "gold")


def test_adapters_come_with_the_head(done: Path, asked: Path, tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """LoRA trains the new head and saves it whole, adapters elsewhere; every kind and `eval` read the same model."""
    out = tmp_path / "lora"
    quick = [
        "--task",
        "choice",
        "--tune",
        "lora",
        "--epochs",
        2,
        "--learning-rate",
        "1e-2",
        "--keep-checkpoints",
        "epoch",
    ]
    told = prune("finetune", asked / "train.jsonl", "-o", out, "--model", tiny_model, *quick)
    assert told.code == 0, told.err
    from safetensors import safe_open

    with safe_open(out / "adapter_model.safetensors", "np") as file:
        names = set(file.keys())
    heads = {name for name in names if "lora_" not in name}
    assert heads == {"base_model.model.classifier.weight", "base_model.model.classifier.bias"}
    for name in ("dynamics", "hidden", "gradient"):
        command = ["represent", asked / "train.jsonl", "-o", tmp_path / name, "--model", out, "--kind", name]
        told = prune(*command, *(["--dim", 64] if name == "gradient" else []))
        assert told.code == 0, told.err
    told = prune("eval", out, asked / "train.jsonl", "-o", tmp_path / "metrics")
    assert told.code == 0, told.err
    loss = json.loads((tmp_path / "metrics/metrics.json").read_text())["train"]["loss"]
    assert loss == pytest.approx(-float(stored(tmp_path / "dynamics", "dynamics")["logprob"][:, -1].mean()), abs=1e-5)


GOOD = {"question": "the film is", "choices": ["good", "bad"], "label": 0}


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"question": ...}, 'no "question"; the row has: "choices", "label"'),
        ({"choices": ...}, 'no "choices"; the row has: "question", "label"'),
        ({"label": ...}, 'no "label"; the row has: "question", "choices"'),
        ({"question": " "}, "question is blank; allowed: a string that is not blank"),
        ({"question": 3}, "question 3 is an integer; allowed: a string that is not blank"),
        ({"choices": "good"}, 'choices "good" is a string; allowed: a list of two strings or more'),
        ({"choices": ["good"]}, "choices has 1; allowed: two strings or more"),
        ({"choices": []}, "choices has 0; allowed: two strings or more"),
        ({"choices": ["good", ""]}, "choice 1 is blank; allowed: a string that is not blank"),
        ({"choices": ["good", None]}, "choice 1 is null; allowed: a string that is not blank"),
        ({"label": "0"}, 'label "0" is a string; allowed: the position of a choice, 0 to 1'),
        ({"label": True}, "label true is a boolean; allowed: the position of a choice, 0 to 1"),
        ({"label": 2}, "label 2 is not the position of a choice; allowed: 0 to 1"),
        ({"label": -1}, "label -1 is not the position of a choice; allowed: 0 to 1"),
    ],
)
def test_bad_rows(change: dict[str, Any], problem: str, tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """Each bad row is one line with its place."""
    bad = {key: value for key, value in {**GOOD, **change}.items() if value is not ...}
    data = write_rows(tmp_path / "rows.jsonl", [GOOD, bad])
    told = prune("finetune", data, "-o", tmp_path / "out", "--model", tiny_model, "--task", "choice")
    assert told.code == 1
    assert len(told.errors) == 1 and told.errors[0].startswith(f"{data}:2: {problem}")


def test_the_task_of_a_trained_model_is_its_own(
    done: Path, made: Path, asked: Path, tiny_model: Path, tmp_path: Path, prune: Prune
) -> None:
    """Another task than the model's, an encoder without a head, and no room for text are errors of one line."""
    train, out = asked / "train.jsonl", ("-o", tmp_path / "out")
    for command, problem in (
        (["represent", train, *out, "--model", made / "warmup", "--task", "choice"], "was trained for classification"),
        (["eval", done / "model", train, *out, "--task", "classification"], "was trained for choice"),
        (["eval", tiny_model, train, *out, "--task", "choice"], "a model with a trained head is needed"),
        (
            ["finetune", done / "kept", *out, "--model", tiny_model, "--task", "classification"],
            f"task: classification; {done / 'kept'} is of the task choice; leave it out",
        ),
        (["eval", done / "model", train, *out, "--max-length", 2], "is allowed, the number of special tokens"),
    ):
        told = prune(*command)
        assert told.code == 1 and len(told.errors) == 1 and problem in told.errors[0], told.err


def test_labels_do_not_balance_choices(done: Path, tmp_path: Path, prune: Prune) -> None:
    """Positions of choices are no classes: balancing by label is an error that names the other way."""
    told = prune(
        *("select", done / "score", "-o", tmp_path / "out"), "--method", "top", "--keep", "0.5", "--balance", "equal"
    )
    assert told.code == 1 and "rows of the task choice have no labels to balance by" in told.err


PLAN = """\
task = "choice"
train = "train.jsonl"
validation = "validation.jsonl"
tests = {test = "test.jsonl"}
model = "MODEL"
methods = ["random", "less", "memorization"]
keep = [0.5]
seeds = [0]
[warmup]
epochs = 1
learning_rate = 1e-2
[represent]
dim = 64
[finetune]
epochs = 1
learning_rate = 1e-2
"""


def test_a_pipeline_of_choices(asked: Path, tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """A pipeline file with `task = "choice"` runs, its table shows accuracy, and a rerun has nothing to do."""
    file = asked / "plan.toml"
    file.write_text(PLAN.replace("MODEL", str(tiny_model)), "utf-8")
    told = prune("pipeline", file, "-o", tmp_path / "runs")
    assert told.code == 0, told.err
    assert "test accuracy" in told.out and "macro_f1" not in told.out
    assert "pipeline: nothing to do" in prune("pipeline", file, "-o", tmp_path / "runs").err
    file.write_text(file.read_text().replace('["random",', '["knn-label", "moderate",'), "utf-8")
    told = prune("pipeline", file, "-o", tmp_path / "other")
    lacks = "it reads labels; rows of the task choice have none; leave it out"
    assert told.errors == [f"{file}: methods: {name}: {lacks}" for name in ("knn-label", "moderate")]


FORMS: dict[str, dict[str, Any]] = {
    "own": {"question": "The lid is _.", "choices": ["loose", "tight"], "label": 1},
    "ARC": {
        "question": "The lid is _.",
        "choices": {"text": ["loose", "tight"], "label": ["A", "B"]},
        "answerKey": "B",
    },
    "ARC, numbers": {
        "question": "The lid is _.",
        "choices": {"text": ["loose", "tight"], "label": ["1", "2"]},
        "answerKey": 2,
    },
    "WinoGrande": {"sentence": "The lid is _.", "option1": "loose", "option2": "tight", "answer": "2"},
}


@pytest.mark.parametrize("form", FORMS)
def test_rows_as_other_data_sets_publish_them(form: str, tmp_path: Path, prune: Prune) -> None:
    """Each is the same question, choices and answer; rows of several forms may be mixed, and come out as they came."""
    path = write_rows(tmp_path / "rows.jsonl", [FORMS["own"], FORMS[form]])
    rows = open_rows(path, check=choice.check)
    assert choice.label_indices(rows, []).tolist() == [1, 1]
    assert choice.text(rows[0]) == choice.text(rows[1])
    assert choice._texts([rows[1]]) == (["The lid is loose.", "The lid is tight."], None)
    out = tmp_path / "out"
    assert prune("select", path, "-o", out, "--method", "random", "--keep", 2, "--task", "choice").code == 0
    kept = read_rows(out / "select.jsonl")
    assert FORMS[form] in kept and FORMS["own"] in kept


@pytest.mark.parametrize(
    ("form", "change", "problem"),
    [
        ("ARC", {"answerKey": "C"}, 'answerKey "C" is a string; allowed: A, B, a name in choices.label'),
        ("ARC", {"answerKey": None}, "answerKey is null; allowed: A, B"),
        ("ARC", {"choices": {"text": ["a", "b"], "label": ["A"]}}, 'choices.label ["A"] is a list; allowed: a list of'),
        ("ARC", {"choices": {"text": ["a"], "label": ["A"]}}, "choices.text has 1; allowed: two strings or more"),
        ("ARC", {"choices": {"label": ["A"]}}, "choices.text is null; allowed: a list of two strings"),
        ("ARC", {"choices": {"text": ["a", " "], "label": ["A", "B"]}}, "choice 1 is blank"),
        ("WinoGrande", {"answer": "3"}, 'answer "3" is a string; allowed: 1 or 2, the number of an option'),
        ("WinoGrande", {"answer": ""}, 'answer "" is a string; allowed: 1 or 2'),
        ("WinoGrande", {"option2": " "}, "option2 is blank; allowed: a string that is not blank"),
        ("WinoGrande", {"sentence": 3}, "sentence 3 is an integer; allowed: a string"),
    ],
)
def test_bad_rows_of_other_forms_are_told_in_their_own_keys(form: str, change: dict[str, Any], problem: str) -> None:
    """The problem names the key that the row has, and a key that is missing one of that form."""
    assert str(choice.check({**FORMS[form], **change})).startswith(problem)
    for key in FORMS[form].keys() - {"choices"}:
        without = {name: value for name, value in FORMS[form].items() if name != key}
        assert f'no "{key}"; the row has: ' in str(choice.check(without))
