"""Models: found without torch, loaded whole, with positions enough; devices, moments, adapters."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from prune_cli import tasks
from prune_cli.errors import PruneError
from prune_cli.models import device
from prune_cli.models.adapters import with_adapters
from prune_cli.models.find import Checkpoint, find, head_labels
from prune_cli.models.load import check_length
from prune_cli.models.moments import FILE, load_moments, save_moments
from prune_cli.options import Finetune
from tests.conftest import REPOSITORY, WORDS, Prune, artifact_of, read_rows, sentences, write_rows

HEAVY = {"torch", "transformers", "datasets", "sklearn", "scipy", "peft"}
COMMIT = "0123456789abcdef0123456789abcdef01234567"


def in_process(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a new Python, which exits with what large libraries it has imported."""
    program = f"import sys\n{program}\nsys.exit(' '.join({HEAVY} & set(sys.modules)) or 0)"
    variables = {**os.environ, "HF_HUB_OFFLINE": "1", **environment, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.run([sys.executable, "-c", program], env=variables, capture_output=True, text=True, check=False)


def test_finding_a_model_needs_no_heavy_library(tiny_model: Path, made: Path, tmp_path: Path) -> None:
    """A folder, an artifact and a hub model in the cache are found, with their labels, without torch."""
    repository = tmp_path / "models--someone--tiny"
    snapshot = repository / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(COMMIT)
    names = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}}
    (snapshot / "config.json").write_text(json.dumps(names))
    done = in_process(
        "from prune_cli.models import batching, device, moments\n"
        "from prune_cli.models.find import find, head_labels\n"
        f"assert head_labels(find({str(tiny_model)!r}), ['a', 'b']) == ['a', 'b']\n"
        f"assert head_labels(find({str(made / 'warmup')!r}), ['a', 'b']) == ['negative', 'positive']\n"
        "hub = find('someone/tiny')\n"
        f"assert hub.digest == 'hub:someone/tiny@{COMMIT}'\n"
        "assert head_labels(hub, ['yes', 'no']) == ['no', 'yes']\n"
        "assert device.resolve_precision('auto', 'cpu') == 'float32'",
        HF_HUB_CACHE=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr


def test_an_up_to_date_training_needs_no_heavy_library(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    """A training that is up to date is skipped without torch and transformers, where the device is the CPU."""
    command = ["finetune", str(data / "train.jsonl"), "-o", str(tmp_path / "out"), "--model", str(tiny_model)]
    command += ["--steps", "1", "--device", "cpu"]
    program = f"from prune_cli.main import hush, run; hush()\nassert run({command}) == 0"
    first, again = in_process(program), in_process(program)
    assert "torch" in first.stderr and "up to date" in again.stderr
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("offline", ["0", "1"])
def test_a_hub_model_out_of_reach_is_one_line_at_once(offline: str, tmp_path: Path) -> None:
    """Not in the cache, and no network to ask: one line after seconds, not after retries, on the way to nothing."""
    began = time.monotonic()
    done = in_process(
        "from prune_cli.main import hush, run; hush()\n"
        f"assert run(['represent', {str(write_rows(tmp_path / 'a.jsonl', sentences(2)))!r}, '-o', 'out', "
        "'--model', 'someone/absent']) == 1",
        HF_HUB_CACHE=str(tmp_path),
        HF_HUB_OFFLINE=offline,
        HF_ENDPOINT="http://127.0.0.1:9",  # nobody listens there
    )
    assert done.stderr.count("\n") == 2, done.stderr
    assert done.stderr.startswith("error: cannot load model someone/absent: ")
    assert time.monotonic() - began < 15


CONFIGS: dict[str, dict[str, Any]] = {
    "two unnamed": {},
    "three unnamed": {"num_labels": 3},
    "named": {"id2label": {0: "low", 1: "mid", 2: "high"}},
    "out of order": {"id2label": {1: "b", 0: "a"}},
    "numbers": {"id2label": {0: "3", 1: "7"}},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_heads_labels_are_those_of_transformers(case: str, tmp_path: Path) -> None:
    """The class names in a config.json are read as AutoConfig reads them; integer labels go by them or by position."""
    config = transformers.BertConfig(architectures=["BertForSequenceClassification"], **CONFIGS[case])
    config.save_pretrained(tmp_path)
    read = transformers.AutoConfig.from_pretrained(tmp_path)
    names = [read.id2label[i] for i in range(read.num_labels)]
    assert head_labels(find(str(tmp_path)), ["a", "b"]) == names
    assert head_labels(find(str(tmp_path)), [1, 2]) == ([3, 7] if case == "numbers" else list(range(len(names))))
    read.architectures = ["BertModel"]
    read.save_pretrained(tmp_path)
    assert head_labels(find(str(tmp_path)), ["a", "b"]) == ["a", "b"]
    assert head_labels(find(str(tmp_path)), []) == []


def test_precision_goes_by_the_device() -> None:
    """What is asked for stays; auto is float32 on the CPU; a device that no machine has is an error."""
    assert device.resolve_precision("bfloat16", "cpu") == "bfloat16"
    assert device.resolve_precision("auto", "cpu") == "float32"
    with pytest.raises(PruneError, match="device: tpu; allowed: auto, cpu, cuda or cuda:N"):
        device.resolve_precision("auto", "tpu")


@pytest.mark.parametrize("gpu", [False, True])
def test_batches_go_by_the_device(gpu: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is asked for stays; a GPU is given more rows at a time."""
    monkeypatch.setattr(device, "_may_have_cuda", lambda: gpu)
    monkeypatch.setattr(device, "use_device", lambda name: torch.device("cuda" if gpu else "cpu"))
    assert device.batch_limits(5, 70, "auto") == (5, 70)
    assert device.batch_limits(0, 0, "cpu") == (32, 8192)
    assert device.batch_limits(0, 0, "auto") == ((1024, 65_536) if gpu else (32, 8192))
    assert device.batch_limits(5, 0, "auto") == (5, 65_536 if gpu else 8192)


@pytest.mark.parametrize(("file", "expected"), [("nvidia0", True), ("dxg", True), ("kfd", True), ("null", False)])
def test_a_machine_without_a_driver_has_no_cuda_device(file: str, expected: bool, tmp_path: Path) -> None:
    """On Linux the files of the drivers say whether torch is worth asking."""
    (tmp_path / file).touch()
    assert device._may_have_cuda(tmp_path) is (expected or sys.platform != "linux")


SMALL = {"vocab_size": 40, "pad_token_id": 1}
SIZES = {**SMALL, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24}
POSITIONS: dict[str, Any] = {
    "bert": transformers.BertConfig(**SIZES, max_position_embeddings=12),
    "roberta": transformers.RobertaConfig(**SIZES, max_position_embeddings=12),
    "distilbert": transformers.DistilBertConfig(
        **SMALL, dim=16, n_layers=1, n_heads=2, hidden_dim=24, max_position_embeddings=12
    ),
    "gpt2": transformers.GPT2Config(**SMALL, n_embd=16, n_layer=1, n_head=2, n_positions=12),
    "opt": transformers.OPTConfig(**SIZES, max_position_embeddings=12, word_embed_proj_dim=16, ffn_dim=24),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_rows_may_be_as_long_as_the_model_has_positions(name: str) -> None:
    """The longest row allowed is the longest that the model itself runs on."""
    model = transformers.AutoModel.from_config(POSITIONS[name]).eval()
    rows: Any = SimpleNamespace(where=lambda i: f"rows.jsonl:{i + 1}")

    def runs(tokens: int) -> bool:
        try:
            model(input_ids=torch.full((1, tokens), 5), attention_mask=torch.ones(1, tokens, dtype=torch.long))
        except (IndexError, RuntimeError):
            return False
        return True

    longest = max(tokens for tokens in range(5, 20) if runs(tokens))
    assert longest == (10 if name == "roberta" else 12)
    check_length(model, SimpleNamespace(longest=np.array([3, longest])), rows)
    message = f"rows.jsonl:2: {longest + 1} tokens; the model has positions for {longest}"
    with pytest.raises(PruneError, match=message) as failure:
        check_length(model, SimpleNamespace(longest=np.array([3, longest + 1])), rows)
    assert failure.value.hint == f"--max-length {longest}"


def test_a_decoders_head_reads_the_last_token_of_each_row(prune: Prune, tmp_path: Path) -> None:
    """A classifier that finds a row's end by the padding gives in batches what it gives alone; its pad id is not 0."""
    from tokenizers import Tokenizer, pre_tokenizers
    from tokenizers import models as token_models

    vocabulary = {word: i for i, word in enumerate([*WORDS, "[UNK]", "[PAD]"])}
    words = Tokenizer(token_models.WordLevel(vocabulary, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    fast: Any = transformers.PreTrainedTokenizerFast  # untyped
    tokenizer = fast(tokenizer_object=words, unk_token="[UNK]", pad_token="[PAD]", model_max_length=32)
    tokenizer.save_pretrained(tmp_path / "model")
    assert tokenizer.pad_token_id == len(vocabulary) - 1
    config = transformers.GPT2Config(
        vocab_size=len(vocabulary), n_embd=16, n_layer=2, n_head=2, n_positions=32, initializer_range=0.5
    )
    config.id2label = {0: "negative", 1: "positive"}
    torch.manual_seed(0)
    model = transformers.GPT2ForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path / "model")
    rows = sentences(10)
    ran = prune("eval", tmp_path / "model", write_rows(tmp_path / "rows.jsonl", rows), "-o", tmp_path / "out")
    assert ran.code == 0, ran.err
    for row, line in zip(rows, read_rows(tmp_path / "out" / "predictions.jsonl"), strict=True):
        with torch.no_grad():
            alone = model(**tokenizer(row["text"], return_tensors="pt")).logits.softmax(1)[0]
        np.testing.assert_allclose(line["probabilities"], alone.numpy(), atol=1e-5)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("name", ["gpt2", "opt"])
def test_new_adapters_are_put_on_without_a_word(name: str, recwarn: pytest.WarningsRecorder) -> None:
    """What peft sets right of its own accord, such as the layout of GPT-2's weights, reaches no one's stderr."""
    model = transformers.AutoModelForCausalLM.from_config(POSITIONS[name])
    adapted = with_adapters(model, [], Finetune(model="", tune="lora", lora_rank=2), tasks.load("generation"))
    assert any("lora_" in weight for weight, _ in adapted.named_parameters())
    assert [str(w.message) for w in recwarn if w.category is not FutureWarning] == []  # which the command line hushes


def test_modules_are_saved_whole_and_variants_reach_peft() -> None:
    """What is named is trained whole beside the adapters; rsLoRA's scale is alpha / √rank; DoRA has lengths."""

    def put_on(**options: Any) -> Any:
        model = transformers.AutoModelForCausalLM.from_config(POSITIONS["bert"].__class__(**SIZES, is_decoder=True))
        opts = Finetune(model="", tune="lora", lora_rank=4, lora_alpha=8, **options)
        return with_adapters(model, [], opts, tasks.load("generation"))

    names = [name for name, p in put_on(lora_save="word_embeddings").named_parameters() if p.requires_grad]
    assert any("word_embeddings.modules_to_save" in name for name in names)
    assert put_on().base_model.model.bert.encoder.layer[0].attention.self.query.scaling == {"default": 2.0}
    adapted = put_on(lora_rslora=True, lora_dora=True)
    assert adapted.base_model.model.bert.encoder.layer[0].attention.self.query.scaling == {"default": 4.0}
    assert any("lora_magnitude" in name for name, _ in adapted.named_parameters())
    with pytest.raises(PruneError, match="lora_save: nowhere; the model has no module of that name"):
        put_on(lora_save="nowhere")


def test_adapters_are_not_put_on_a_changed_model(
    prune: Prune, tiny_model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Adapters say that the model beneath them was changed since; unchanged, and moved with them, it is found."""
    shutil.copytree(tiny_model, tmp_path / "a" / "base")
    train = ["finetune", data / "train.jsonl", "-o", tmp_path / "a" / "lora", "--model", tmp_path / "a" / "base"]
    ran = prune(*train, "--tune", "lora", "--steps", 1)
    assert ran.code == 0, ran.err
    (tmp_path / "a").rename(tmp_path / "b")
    eval_ = ["eval", tmp_path / "b" / "lora", data / "test.jsonl", "-o"]
    ran = prune(*eval_, tmp_path / "metrics")
    assert ran.code == 0, ran.err
    weights = tmp_path / "b" / "base" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    ran = prune(*eval_, tmp_path / "again")
    assert ran.errors == [
        f"{tmp_path / 'b' / 'base'}: changed since the adapters in {tmp_path / 'b' / 'lora'} were trained on it"
    ]
    shutil.rmtree(tmp_path / "b" / "base")
    monkeypatch.chdir(tmp_path / "b")  # whose parent has no folder of that name
    told = f"{tmp_path / 'b' / 'lora'}: the model beneath its adapters: no such folder: ../base; "
    assert prune(*eval_, tmp_path / "again").errors[0].startswith(told)


def test_moments_come_back_as_they_were(tmp_path: Path) -> None:
    """Of the parameters asked for, those that were trained; a checkpoint without moments is an error."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(2, 2))
    model[1].requires_grad_(False)
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.8, 0.99), eps=1e-6)
    for _ in range(2):
        model(torch.randn(4, 3)).square().sum().backward()
        optimizer.step()
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    file = tmp_path / "checkpoints" / "1" / FILE
    save_moments(file, model, optimizer)
    kept = artifact_of(tmp_path)
    moments = load_moments(Checkpoint("1", kept, 1.0), ["0.weight", "1.weight"])
    assert (moments.betas, moments.eps) == ((0.8, 0.99), 1e-6)
    state = next(iter(optimizer.state.values()))
    for found, name in ((moments.first, "exp_avg"), (moments.second, "exp_avg_sq")):
        assert list(found) == ["0.weight"]
        np.testing.assert_array_equal(found["0.weight"], state[name].numpy())
    for checkpoint in (None, Checkpoint("last", None, 1.0), Checkpoint("2", kept, 1.0)):
        with pytest.raises(PruneError, match="no moments are kept with the model's weights") as failure:
            load_moments(checkpoint, ["0.weight"])
        assert ("--checkpoints all" in str(failure.value.hint)) == bool(checkpoint and checkpoint.name == "last")
    file.write_bytes(file.read_bytes()[:-1] + b"1")
    with pytest.raises(PruneError, match="differs from what was written"):
        load_moments(Checkpoint("1", kept, 1.0), ["0.weight"])
