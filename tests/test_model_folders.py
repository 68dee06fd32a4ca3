"""Model folders that lack files, hold damaged ones, or bring code: refused in one line, never half believed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from prune_cli.errors import PruneError
from prune_cli.models.find import find
from prune_cli.models.load import load_tokenizer
from tests.conftest import WORDS, Prune, sentences, write_rows

STAGES = ("finetune", "represent", "eval")


def command(stage: str, model: Path, rows: Path, out: Path) -> list[Any]:
    """A command of a stage that loads a model."""
    data = [model, rows] if stage == "eval" else [rows]
    return [stage, *data, "-o", out, *([] if stage == "eval" else ["--model", model])]


def refused(ran: Any, *parts: str) -> None:
    """One error line that holds the parts; notes and a hint may stand beside it."""
    assert ran.code == 1, ran.err
    assert len(ran.errors) == 1 and "Traceback" not in ran.err, ran.err
    assert all(part in ran.errors[0] for part in parts), ran.err
    assert ran.out == ""


@pytest.fixture
def copied(tiny_model: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model."""
    return Path(shutil.copytree(tiny_model, tmp_path / "model"))


@pytest.fixture(scope="module")
def classifier(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with a head for positive and negative, as a folder that is no artifact of ours."""
    folder = tmp_path_factory.mktemp("classifier") / "model"
    shutil.copytree(tiny_model, folder)
    labels = {0: "negative", 1: "positive"}
    config = transformers.BertConfig.from_pretrained(tiny_model, id2label=labels, num_labels=2)
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("config", [True, False])
def test_a_model_without_its_tokenizer_is_refused(
    stage: str, config: bool, prune: Prune, classifier: Path, data: Path, tmp_path: Path
) -> None:
    """Without tokenizer.json, with tokenizer_config.json or not: the library invents a tokenizer of five tokens."""
    model = Path(shutil.copytree(classifier, tmp_path / "model"))
    kind = transformers.AutoTokenizer.from_pretrained(model)
    assert len(kind) == len(WORDS) + 4
    bare = {"tokenizer_class": "BertTokenizer", "model_max_length": 32}
    (model / "tokenizer_config.json").write_text(json.dumps(bare))
    (model / "tokenizer.json").unlink()
    if not config:
        (model / "tokenizer_config.json").unlink()
    invented = transformers.AutoTokenizer.from_pretrained(model)
    assert len(invented) == 5 and set(invented("the film is good").input_ids[1:-1]) == {invented.unk_token_id}
    ran = prune(*command(stage, model, data / "train.jsonl", tmp_path / "out"))
    refused(ran, f"{model} holds no tokenizer", "tokenizer.json")
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_folder_of_an_artifact_holds_no_tokenizer(
    prune: Prune, made: Path, data: Path, tmp_path: Path
) -> None:
    """The checkpoints within a finetune artifact have weights and config alone."""
    folder = made / "warmup" / "checkpoints" / "1"
    ran = prune(*command("represent", folder, data / "train.jsonl", tmp_path / "out"))
    refused(ran, f"{folder} holds no tokenizer")


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("GPT2Tokenizer", ("vocab.json", "merges.txt")),
        ("BertTokenizer", ("vocab.txt",)),
        ("T5Tokenizer", ("tokenizer.json",)),
        ("RobertaTokenizer", ("vocab.json", "merges.txt")),
        ("XLMRobertaTokenizer", ("tokenizer.json",)),
    ],
)
def test_every_class_of_tokenizer_needs_its_files(name: str, files: tuple[str, ...], tmp_path: Path) -> None:
    """A folder with the config alone, or with all but one of the class's files, is refused."""
    kind = {"GPT2": "gpt2", "Bert": "bert", "T5": "t5", "Roberta": "roberta", "XLMRoberta": "xlm-roberta"}
    model_type = kind[name.removesuffix("Tokenizer")]
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": name}))
    content = {"vocab.json": '{"a": 0, "b": 1, "ab": 2}', "merges.txt": "a b\n", "vocab.txt": "[UNK]\n[PAD]\na\n"}
    for lacking in files:
        for other in files:
            if other != lacking:
                (tmp_path / other).write_text(content[other])
        with pytest.raises(PruneError, match=r"holds no tokenizer|cannot load the tokenizer"):
            load_tokenizer(find(str(tmp_path)))
        for other in files:
            (tmp_path / other).unlink(missing_ok=True)
    if "tokenizer.json" not in files:
        for other in files:
            (tmp_path / other).write_text(content[other])
        assert len(load_tokenizer(find(str(tmp_path)))) >= 3


def test_a_tokenizer_of_bytes_needs_no_file(tmp_path: Path) -> None:
    """ByT5's class has no vocabulary file: it is not taken for one that lacks it."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5"}))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "ByT5Tokenizer"}))
    assert load_tokenizer(find(str(tmp_path)))("é").input_ids == [0xC3 + 3, 0xA9 + 3, 1]


def with_embeddings(folder: Path, rows: int) -> None:
    """Give a BERT model of random weights so many input embeddings."""
    config = transformers.BertConfig.from_pretrained(folder)
    config.vocab_size, config.pad_token_id = rows, 0
    torch.manual_seed(0)
    transformers.BertModel(config).save_pretrained(folder)


@pytest.mark.parametrize("stage", ["finetune", "represent"])
def test_a_tokenizer_of_another_model_is_refused(
    stage: str, prune: Prune, copied: Path, data: Path, tmp_path: Path
) -> None:
    """A vocabulary larger than the model's embeddings is told at once, though no row uses its last token."""
    last = len(WORDS) + 3
    with_embeddings(copied, last)
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": t, "label": t} for t in ("good film", "bad plot")])
    ran = prune(*command(stage, copied, rows, tmp_path / "out"))
    refused(ran, f"tokens up to number {last}", f"allowed: up to {last - 1}")


def test_a_padding_token_without_an_embedding_does_no_harm(
    prune: Prune, copied: Path, data: Path, tmp_path: Path
) -> None:
    """A padding token added to the tokenizer alone is replaced: the hidden states are those that each row has alone."""
    from safetensors.numpy import load_file

    tokenizer = load_tokenizer(find(str(copied)))
    tokenizer.add_special_tokens({"pad_token": "<added>"})
    tokenizer.save_pretrained(copied)
    rows = sentences(6)
    out = tmp_path / "out"
    ran = prune(*command("represent", copied, write_rows(tmp_path / "rows.jsonl", rows), out))
    assert ran.code == 0, ran.err
    stored = load_file(out / "hidden.safetensors")
    hidden = next(array for name, array in stored.items() if name == "hidden")[:, 0]
    model = transformers.BertModel.from_pretrained(copied).eval()
    for row, vector in zip(rows, hidden, strict=True):
        with torch.no_grad():
            alone = model(**tokenizer(row["text"], return_tensors="pt")).last_hidden_state[0].mean(0)
        assert torch.allclose(torch.from_numpy(vector).float(), alone, atol=1e-2)


def test_an_added_token_without_an_embedding_is_refused_where_a_row_has_it(
    prune: Prune, copied: Path, tmp_path: Path
) -> None:
    """As in Gemma 3, whose tokenizer has a token for images that the text model has no embedding for."""
    tokenizer = load_tokenizer(find(str(copied)))
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(copied)
    rows = [{"text": "the film is good", "label": 0}, {"text": "the film is bad", "label": 1}]
    good = write_rows(tmp_path / "good.jsonl", rows)
    assert prune(*command("represent", copied, good, tmp_path / "good")).code == 0
    bad = write_rows(tmp_path / "bad.jsonl", [*rows, {"text": "the <image> is bad", "label": 1}])
    ran = prune(*command("represent", copied, bad, tmp_path / "bad"))
    refused(ran, f"{bad}:3: token number {len(WORDS) + 4}; allowed: up to {len(WORDS) + 3}")


PLANTED = """
import pathlib
pathlib.Path({marker!r}).write_text("ran")
from transformers import BertConfig, BertForSequenceClassification, BertTokenizer


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertForSequenceClassification):
    config_class = OwnConfig
"""


def planted(folder: Path, marker: Path, *, where: str) -> None:
    """Make a model folder ask for its own code, which leaves a file behind when it is imported.

    where: `model` for a type of model that transformers does not know, `tokenizer` for a tokenizer alone.
    """
    (folder / "own.py").write_text(PLANTED.format(marker=str(marker)))
    name = "config.json" if where == "model" else "tokenizer_config.json"
    content = json.loads((folder / name).read_text())
    if where == "model":
        content["model_type"], content["architectures"] = "own", ["OwnModel"]
        content["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForSequenceClassification": "own.OwnModel"}
        tokenizer = json.loads((folder / "tokenizer_config.json").read_text())
        tokenizer["tokenizer_class"] = "PreTrainedTokenizerFast"
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    else:
        content["tokenizer_class"] = "OwnTokenizer"
        content["auto_map"] = {"AutoTokenizer": [None, "own.OwnTokenizer"]}
    (folder / name).write_text(json.dumps(content))


class Yes:
    """Standard input that answers yes to everything, and remembers that it was asked."""

    asked = False

    def readline(self, *_: object) -> str:
        self.asked = True
        return "yes\n"

    read = readline


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("where", ["model", "tokenizer"])
def test_code_that_comes_with_a_model_does_not_run(
    where: str,
    stage: str,
    prune: Prune,
    classifier: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is asked on stdout, nothing is read from stdin, and what needs the code is refused with the option."""
    model = Path(shutil.copytree(classifier, tmp_path / "model"))
    marker = tmp_path / "marker"
    planted(model, marker, where=where)
    stdin = Yes()
    monkeypatch.setattr("sys.stdin", stdin)
    ran = prune(*command(stage, model, data / "train.jsonl", tmp_path / "out"))
    assert not stdin.asked and not marker.exists()
    assert "y/N" not in ran.out + ran.err
    if where == "model":
        refused(ran, f"{model}: the model comes with code of its own")
        assert "hint: read that code; --trust-remote-code runs it" in ran.err
        assert not (tmp_path / "out").exists()
    else:  # transformers knows the model, and so a tokenizer for it
        assert ran.code in (0, 1) and "Traceback" not in ran.err


@pytest.mark.parametrize("stage", STAGES)
def test_code_runs_where_it_is_trusted(
    stage: str, prune: Prune, classifier: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `--trust-remote-code` alone, which the recipe holds then."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    model = Path(shutil.copytree(classifier, tmp_path / "model"))
    planted(model, tmp_path / "marker", where="model")
    run = command(stage, model, data / "train.jsonl", tmp_path / "out")
    ran = prune(*run, "--trust-remote-code", *(["--steps", 1] if stage == "finetune" else []))
    assert ran.code == 0, ran.err
    assert (tmp_path / "marker").exists()
    assert prune("show", tmp_path / "out", "--json").json()["options"]["trust_remote_code"] is True
    again = command(stage, classifier, data / "train.jsonl", tmp_path / "other")
    ran = prune(*again, *(["--steps", 1] if stage == "finetune" else []))
    assert ran.code == 0, ran.err
    assert "trust_remote_code" not in prune("show", tmp_path / "other", "--json").json()["options"]


def test_every_call_that_loads_says_whether_code_may_run() -> None:
    """In the package no `from_pretrained` of transformers is left to its own default, which is to ask."""
    from tests.conftest import REPOSITORY

    for path in (REPOSITORY / "prune_cli").rglob("*.py"):
        for call in path.read_text("utf-8").split(".from_pretrained(")[1:]:
            assert "trust_remote_code" in call[:200] or "PeftModel" in path.read_text("utf-8"), path


def replaced(name: str, content: bytes) -> Any:
    """A change that writes a file of the model folder anew."""
    return lambda folder: (folder / name).write_bytes(content)


def edited(name: str, **values: Any) -> Any:
    """A change of some keys of a JSON file of the model folder."""

    def change(folder: Path) -> None:
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, **values}))

    return change


def as_bin(content: bytes) -> Any:
    """A change that puts a pytorch_model.bin in place of the weights."""

    def change(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / "pytorch_model.bin").write_bytes(content)

    return change


DAMAGE = {
    "config empty": replaced("config.json", b""),
    "config a list": replaced("config.json", b"[]"),
    "config cut": replaced("config.json", b'{"model_type": "be'),
    "config not UTF-8": replaced("config.json", b'{"model_type": "\xff"}'),
    "config deep": replaced("config.json", b'{"a":' * 50_000),
    "config unknown type": edited("config.json", model_type="nothing"),
    "config heads": edited("config.json", num_attention_heads=3),
    "config activation": edited("config.json", hidden_act="nothing"),
    "config size as text": edited("config.json", hidden_size="16"),
    "config negative": edited("config.json", num_hidden_layers=2, hidden_size=-16),
    "config shape": edited("config.json", intermediate_size=48),
    "config vocabulary": edited("config.json", vocab_size=1000),
    "config labels": edited("config.json", architectures=["BertForSequenceClassification"], id2label={"x": 1}),
    "config architectures": edited("config.json", architectures=7),
    "tokenizer empty": replaced("tokenizer.json", b""),
    "tokenizer cut": replaced("tokenizer.json", b'{"version": "1.0", "trunc'),
    "tokenizer another object": replaced("tokenizer.json", b'{"a": 1}'),
    "tokenizer not UTF-8": replaced("tokenizer.json", b"\x94\xff"),
    "tokenizer config empty": replaced("tokenizer_config.json", b""),
    "tokenizer config a list": replaced("tokenizer_config.json", b"[]"),
    "tokenizer config class": edited("tokenizer_config.json", tokenizer_class=3),
    "tokenizer config padding": edited("tokenizer_config.json", pad_token=3),
    "tokenizer config limit": edited("tokenizer_config.json", model_max_length=[32]),
    "tokenizer config limit as text": edited("tokenizer_config.json", model_max_length="32"),
    "tokenizer config limit not whole": edited("tokenizer_config.json", model_max_length=3.5),
    "tokenizer config limit negative": edited("tokenizer_config.json", model_max_length=-1),
    "weights empty": replaced("model.safetensors", b""),
    "weights text": replaced("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n"),
    "weights header": replaced("model.safetensors", b"\xff" * 100),
    "bin empty": as_bin(b""),
    "bin text": as_bin(b"version https://git-lfs.github.com/spec/v1\n"),
    "bin half": as_bin(b"PK\x03\x04" + b"\0" * 50),
    "bin code": as_bin(b"cos\nsystem\n(S'false'\ntR."),
}


@pytest.mark.parametrize("case", DAMAGE)
@pytest.mark.parametrize("stage", ["finetune", "eval"])
def test_a_damaged_model_folder_is_one_line(
    case: str, stage: str, prune: Prune, tiny_model: Path, classifier: Path, data: Path, tmp_path: Path
) -> None:
    """Whatever the libraries raise on a damaged file, it is one error line that names the model."""
    model = Path(shutil.copytree(tiny_model if stage == "finetune" else classifier, tmp_path / "model"))
    DAMAGE[case](model)
    ran = prune(*command(stage, model, data / "train.jsonl", tmp_path / "out"))
    refused(ran, str(model))


def test_weights_of_another_shape_are_told_by_both_shapes(
    prune: Prune, copied: Path, data: Path, tmp_path: Path
) -> None:
    """The weight's name, its own shape, and the one that the config asks for."""
    edited("config.json", intermediate_size=48)(copied)
    ran = prune(*command("finetune", copied, data / "train.jsonl", tmp_path / "out"))
    refused(ran, "intermediate.dense", "has the shape [32", "allowed: [48", "as in its config.json")


@pytest.mark.parametrize(
    "name", ["tiny/modle", "./modle", "modle/", "a/b/c", "/modle", "mo dle", "~/modle", "tiny/m.safe"]
)
def test_a_mistyped_folder_is_told_at_once(
    name: str, prune: Prune, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A path that is not there is no such folder; the hub is not asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    monkeypatch.setattr("prune_cli.models.find._hub_file", lambda name: pytest.fail("asked the hub"))
    train = data / "train.jsonl"
    for command in (["represent", train, "--model", name], ["eval", name, train]):
        ran = prune(*command, "-o", "out")
        refused(ran, f"no such folder: {name}; allowed: a model folder")
        assert ("where there is no folder tiny" in ran.err) == (name == "tiny/modle" or name == "tiny/m.safe")


@pytest.mark.parametrize("kind", ["hidden", "dynamics", "gradient", "influence"])
def test_weights_that_are_not_numbers_are_one_line(
    kind: str, prune: Prune, classifier: Path, data: Path, tmp_path: Path
) -> None:
    """A model whose weights hold NaN represents nothing, whatever the kind."""
    from safetensors.torch import load_file, save_file

    model = Path(shutil.copytree(classifier, tmp_path / "model"))
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if name.endswith("layer.0.output.dense.weight"))
    weights[name][0, 0] = float("nan")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    more = ["--target-data", data / "validation.jsonl"] if kind == "influence" else []
    run = command("represent", model, data / "train.jsonl", tmp_path / "out")
    ran = prune(*run, "--kind", kind, *more)
    refused(ran, "not a finite number")
    assert not (tmp_path / "out").exists()
