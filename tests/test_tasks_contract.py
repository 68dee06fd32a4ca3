"""What holds for every task, whatever it is; and how tasks are found and loaded."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import prune_cli
from prune_cli import tasks
from prune_cli.data.rows import Rows
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.tasks import Judging, Task
from prune_cli.tasks.tokens import Encoded
from tests.conftest import sentences, write_rows

PACKAGE = Path(prune_cli.__file__).parent
TASKS = tasks.names()
N, MOST, PAD = 5, 40, 7  # rows, most tokens of an example, an id that is neither 0 nor the tokenizer's own padding
CONSTANTS = {
    "AUTO_MODEL": str,
    "PEFT_TASK": (str, type(None)),
    "POOLING": str,
    "TABLE_METRICS": tuple,
    "OPTIONS": tuple,
    "OFFERS": frozenset,
    "EXAMPLE": dict,
}


def longer(value: Any, i: int) -> Any:
    """The value with i words more in each text but for roles and labels."""
    if isinstance(value, dict):
        return {key: value[key] if key in ("label", "role") else longer(value[key], i) for key in value}
    if isinstance(value, list):
        return [longer(entry, i + j) for j, entry in enumerate(value)]
    return " ".join([value, *["word"] * i]) if isinstance(value, str) else value


def opened(task: Task, folder: Path) -> Rows:
    """N rows of different lengths, made of the task's example; not in order of length."""
    return open_rows(
        write_rows(folder / "rows.jsonl", [longer(task.EXAMPLE, i * 3 % N) for i in range(N)]), check=task.check
    )


def labels_of(task: Task, rows: Rows) -> list[Any]:
    """The label list of the rows behind two other labels, for a task that has labels."""
    seen = task.label_list(rows)
    return [*([-1, -2] if type(seen[0]) is int else ["~", "~~"]), *seen] if seen else []


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """Splits at white space; texts and pairs have a first and a last token, and pairs token types."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    texts = [tasks.load(name).text(longer(tasks.load(name).EXAMPLE, 1)) for name in TASKS]
    words = ["<pad>", "<unk>", "<s>", "</s>", *sorted(set(" ".join(texts).split()))]
    split = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    split.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    split.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A </s> $B:1 </s>:1", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    fast: Any = PreTrainedTokenizerFast  # untyped
    return fast(
        tokenizer_object=split,
        model_max_length=64,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
        padding_side="left",  # a task's padding is on the right whatever this says
    )


def model_of(task: Task, labels: list[Any], vocabulary: int) -> Any:
    """A model of the task with random weights: 2 layers, 16 features."""
    import transformers
    from transformers import BertConfig, GPT2Config

    heads = {"num_labels": max(2, len(labels))}
    config: Any
    if "CausalLM" in task.AUTO_MODEL:
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        config = GPT2Config(
            vocab_size=vocabulary, n_embd=16, n_layer=2, n_head=2, n_positions=64, bos_token_id=2, eos_token_id=3, **off
        )
    else:
        config = BertConfig(
            vocab_size=vocabulary,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=64,
            **heads,
        )
    config.initializer_range = 0.5  # far from all answers being equally likely
    torch.manual_seed(0)
    return getattr(transformers, task.AUTO_MODEL).from_config(config).eval()


@pytest.fixture(params=TASKS)
def case(request: pytest.FixtureRequest, tokenizer: Any, tmp_path: Path) -> tuple[Task, Rows, list[Any], Encoded, Any]:
    """A task, its rows, their label list, the rows as tokens, and a model."""
    task = tasks.load(request.param)
    rows = opened(task, tmp_path)
    labels = labels_of(task, rows)
    return task, rows, labels, task.encode(rows, tokenizer, MOST, labels), model_of(task, labels, len(tokenizer))


def forward(task: Task, model: Any, encoded: Encoded, positions: Any, pad: int = PAD) -> tuple[Any, Any]:
    """Logits and labels of the rows at these positions, in one batch."""
    batch = task.collate(encoded, positions, pad, "cpu")
    labels = batch.pop("labels")
    with torch.no_grad():
        return model(**batch).logits, labels


def test_tasks_are_found_by_their_files() -> None:
    """Every file of tasks/ is a task, or a helper that declares nothing of a task."""
    assert {"classification", "choice", "generation"} <= set(TASKS)
    declared = {name for name in vars(Task) if not name.startswith("_")}
    helpers = {file.stem for file in (PACKAGE / "tasks").glob("*.py")} - {"__init__", *TASKS}
    assert "tokens" in helpers
    for name in helpers:
        text = (PACKAGE / "tasks" / f"{name}.py").read_text("utf-8")
        assert not declared & {line.split("(")[0].removeprefix("def ") for line in text.splitlines()}, name
        with pytest.raises(PruneError, match=f"task: {name}; allowed: {', '.join(TASKS)}"):
            tasks.load(name)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_declares_all_and_explains_it(name: str) -> None:
    """Constants are of their types, functions can be called and say what they give, and the file what a row is."""
    task: Any = tasks.load(name)
    for entry in (entry for entry in vars(Task) if not entry.startswith("_")):
        value = getattr(task, entry)
        if entry in CONSTANTS:
            assert isinstance(value, CONSTANTS[entry]), entry
        else:
            assert callable(value) and value.__doc__, entry
    assert all(isinstance(entry, str) for entry in (*task.TABLE_METRICS, *task.OPTIONS, *task.OFFERS))
    assert len(task.__doc__.splitlines()[0]) > 20


def pairs_file(folder: Path, text: str) -> Path:
    """A folder with the file of a task `pairs`."""
    (folder / "pairs.py").write_text(text, "utf-8")
    return folder


PAIRS = '''
"""Pairs of texts: {"first", "second", "label"} -> one label of c."""

from prune_cli.data.problems import keys_of
from prune_cli.tasks import classification, tokens
from prune_cli.tasks.classification import (
    AUTO_MODEL as _MODEL, PEFT_TASK, answers, collate, dynamics, flips, label_indices, label_list, losses,
    metrics, predictions, row_values, too_long,
)

AUTO_MODEL = _MODEL
POOLING, TABLE_METRICS, OPTIONS, OFFERS = "mean", ("macro_f1",), (), frozenset()
EXAMPLE = {"first": "It rains.", "second": "The street is wet.", "label": "follows"}


def check(row):
    for key in EXAMPLE:
        if not isinstance(row.get(key), str):
            return f'no "{key}"; the row has: {keys_of(row)}'
    return None


def text(row):
    return f"{row['first']} {row['second']}"


def response(row):
    return text(row)


def encode(rows, tokenizer, max_length, labels):
    blocks = (
        ([row["first"] for row in block], [row["second"] for row in block]) for block in tokens.blocks(rows, bool)
    )
    return tokens.tokenised(blocks, tokenizer, max_length).encoded(label_indices(rows, labels))
'''

RUN = """
import sys
import prune_cli.tasks as tasks
tasks.__path__.append(sys.argv[1])
from prune_cli.main import run
folder, model = sys.argv[2:]
for command in (
    f"finetune {folder}/rows.jsonl -o {folder}/model --model {model} --task pairs --epochs 1 --device cpu",
    f"represent {folder}/rows.jsonl -o {folder}/rep --model {folder}/model --kind hidden,dynamics --device cpu",
    f"eval {folder}/model {folder}/rows.jsonl -o {folder}/eval --device cpu",
):
    assert run(command.split()) == 0, command
"""


@pytest.mark.slow
def test_one_file_is_a_new_task(tmp_path: Path, tiny_model: Path) -> None:
    """finetune, represent and eval run with a task of which only its file was added."""
    folder = tmp_path / "tasks"
    folder.mkdir()
    pairs_file(folder, PAIRS)
    rows = [{"first": row["text"], "second": row["text"], "label": row["label"]} for row in sentences(12)]
    write_rows(tmp_path / "rows.jsonl", rows)
    done = subprocess.run(
        [sys.executable, "-c", RUN, folder, tmp_path, tiny_model], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text("utf-8"))["rows"]
    assert metrics["n"] == 12 and set(metrics["per_label"]) == {"positive", "negative"}


def test_a_half_declared_task_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading a task that lacks something names it; so does loading one without AUTO_MODEL, which is not listed."""
    pairs_file(tmp_path, PAIRS.replace(" losses,", "").replace(" OPTIONS, OFFERS =", " OFFERS =").replace(" (), ", " "))
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(tmp_path)])
    assert tasks.names() == sorted([*TASKS, "pairs"])
    with pytest.raises(PruneError, match=r"^task pairs: half declared; it lacks OPTIONS, losses$"):
        tasks.load("pairs")
    monkeypatch.delitem(sys.modules, "prune_cli.tasks.pairs")
    pairs_file(tmp_path, PAIRS.replace("\nAUTO_MODEL = _MODEL", "\n" + "# nothing" * 99))
    assert tasks.names() == TASKS
    with pytest.raises(PruneError, match=r"^task pairs: half declared; it lacks AUTO_MODEL$"):
        tasks.load("pairs")
    monkeypatch.delitem(sys.modules, "prune_cli.tasks.pairs")


@pytest.mark.parametrize("name", ["", "pairs", "__init__", "../options", "tokens"])
def test_a_name_without_a_task_is_refused(name: str) -> None:
    """The error lists the tasks there are."""
    with pytest.raises(PruneError) as caught:
        tasks.load(name)
    assert caught.value.message == f"task: {name}; allowed: {', '.join(TASKS)}"


def test_finding_and_loading_imports_no_heavy_library() -> None:
    """Listing and loading tasks, and checking a row, need neither torch nor transformers; listing needs no numpy."""
    code = (
        "import sys; from prune_cli import tasks; tasks.names(); listing = 'numpy' in sys.modules\n"
        "loaded = 'prune_cli.tasks.choice' in sys.modules\n"
        "for name in tasks.names(): task = tasks.load(name); task.check(task.EXAMPLE)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'sklearn', 'rouge_score'} & set(sys.modules)\n"
        "print(listing, loaded, heavy, 'prune_cli.models' in sys.modules, 'prune_cli.options' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False False set() False False\n"


@pytest.mark.parametrize("name", TASKS)
def test_a_bad_row_is_told_in_words(name: str) -> None:
    """The example is good; without one of its keys, or with null, [] or white space there, the problem is one line."""
    task = tasks.load(name)
    assert task.check(dict(task.EXAMPLE)) is None
    assert task.text(task.EXAMPLE).split()
    for key in task.EXAMPLE:
        without = {other: value for other, value in task.EXAMPLE.items() if other != key}
        missing = [without, {**task.EXAMPLE, key: None}]
        if (name, key) == ("classification", "label"):  # which only some commands need
            assert [task.check(row) for row in missing] == [None, None]
            missing = []
        for bad in (*missing, {**task.EXAMPLE, key: []}, {**task.EXAMPLE, key: " "}):
            problem = task.check(bad)
            assert problem and key in problem and "; allowed: " in problem and "\n" not in problem, bad
    assert task.check({})


def test_tokens_of_rows_are_counted(case: Any, tokenizer: Any) -> None:
    """Lengths are int64 [n]; none is above the limit, which is the tokenizer's own where that is lower."""
    task, rows, labels, encoded, _ = case
    assert encoded.lengths.dtype == encoded.longest.dtype == np.int64
    assert encoded.lengths.shape == encoded.longest.shape == (N,)
    assert (encoded.longest > 0).all() and (encoded.lengths >= encoded.longest).all()
    assert len(set(encoded.longest.tolist())) == N
    least = int(encoded.longest.max()) - 1
    cut = task.encode(rows, tokenizer, least, labels)
    assert cut.longest.max() == least
    assert np.array_equal(cut.longest, np.minimum(encoded.longest, least))


@pytest.mark.parametrize("pad", [0, PAD])
def test_padding_is_on_the_right_with_the_id_given(case: Any, pad: int) -> None:
    """Behind a sequence's tokens, which are those of the row alone, stand the given id and a mask of 0."""
    task, _, _, encoded, _ = case
    order = [3, 0, 4, 0]
    batch = task.collate(encoded, order, pad, "cpu")
    assert {str(values.dtype) for values in batch.values()} == {"torch.int64"}
    assert all(len(values) == len(order) for values in batch.values())
    ids, mask = batch["input_ids"], batch["attention_mask"]
    assert ids.shape == mask.shape and ids.shape[-1] == encoded.longest[order].max()
    assert (mask.diff(dim=-1) <= 0).all() and (mask == 0).any()  # ones, then zeros
    assert (ids[mask == 0] == pad).all()
    for i, row in enumerate(order):
        alone = task.collate(encoded, np.array([row]), pad, "cpu")
        width = alone["input_ids"].shape[-1]
        assert torch.equal(ids[i, ..., :width], alone["input_ids"][0])
        assert torch.equal(mask[i, ..., :width], alone["attention_mask"][0])
        assert not mask[i, ..., width:].any()


def test_each_row_has_its_own_loss_and_dynamics(case: Any) -> None:
    """float32 [b], finite, the loss minus `logprob`, and a gradient for each row by its own logits alone."""
    task, _, _, encoded, model = case
    logits, labels = forward(task, model, encoded, range(N))
    logits.requires_grad_(True)
    losses, dynamics = task.losses(logits, labels), task.dynamics(logits, labels)
    assert set(dynamics) == {"logprob", "correct", "margin", "el2n", "improbability", "entropy", "upd"}
    for values in (losses, *dynamics.values()):
        assert values.shape == (N,) and values.dtype == torch.float32 and values.isfinite().all()
    assert not any(values.requires_grad for values in dynamics.values())
    torch.testing.assert_close(losses.detach(), -dynamics["logprob"], rtol=1e-6, atol=1e-6)
    assert losses.detach().std() > 1e-3
    assert ((dynamics["correct"] >= 0) & (dynamics["correct"] <= 1)).all()
    assert ((dynamics["el2n"] > 0) & (dynamics["el2n"] <= math.sqrt(2))).all()
    assert (dynamics["entropy"] > 0).all() and ((dynamics["upd"] >= 0) & (dynamics["upd"] < 1)).all()
    losses[2].backward()
    moved = logits.grad.flatten(1).abs().sum(1) > 0
    assert moved.tolist() == [i == 2 for i in range(N)]


def test_padding_changes_no_row(case: Any) -> None:
    """Loss and dynamics of each row in a batch, whatever the padding's id, are those of the row alone."""
    task, _, _, encoded, model = case
    for pad in (0, PAD):
        logits, labels = forward(task, model, encoded, range(N), pad)
        together = {"loss": task.losses(logits, labels), **task.dynamics(logits, labels)}
        for i in range(N):
            logits, labels = forward(task, model, encoded, [i], pad)
            alone = {"loss": task.losses(logits, labels), **task.dynamics(logits, labels)}
            for name, values in alone.items():
                assert together[name][i].item() == pytest.approx(values[0].item(), abs=2e-5), name


def test_labels_are_positions_and_unknown_ones_are_named(case: Any, tmp_path: Path) -> None:
    """int64 [n] within the label list; a label that is not in it is an error with file and line."""
    task, rows, labels, _, _ = case
    indices = task.label_indices(rows, labels)
    assert indices.dtype == np.int64 and indices.shape == (N,)
    if labels:
        assert [labels[j] for j in indices] == [row["label"] for row in rows]
        with pytest.raises(PruneError, match=r"rows\.jsonl:1: label .* is not among those trained on; allowed: "):
            task.label_indices(rows, [label for label in labels if label != rows[0]["label"]])


def test_predictions_become_finite_metrics(case: Any, tokenizer: Any) -> None:
    """One prediction a row, in order; metrics are JSON without NaN, have n, loss, and those that tables show."""
    task, rows, labels, encoded, model = case
    judging = Judging(model, tokenizer, rows, encoded, labels, torch.device("cpu"), MOST, 3)
    positions = np.array([4, 1, 0, 2, 3])
    logits, gold = forward(task, model, encoded, positions)
    losses = task.losses(logits, gold).numpy()
    shuffled = task.predictions(judging, positions, logits, gold)
    predictions = [shuffled[i] for i in np.argsort(positions)]
    alone = forward(task, model, encoded, [4])
    again = task.predictions(judging, np.array([4]), *alone)[0]
    assert json.loads(json.dumps(predictions, allow_nan=False)) == predictions
    for key, value in predictions[4].items():
        assert again[key] == (pytest.approx(value, abs=1e-4) if isinstance(value, (float, list)) else value)
    metrics = task.metrics(predictions, losses, labels)
    assert json.loads(json.dumps(metrics, allow_nan=False)) == metrics
    assert {"n", "loss", *task.TABLE_METRICS} <= set(metrics)
    assert metrics["n"] == N
    assert metrics["loss"] == pytest.approx(float(losses.mean()))
