"""Adapters that peft made without prune, as MODEL; and models with adapters merged, which other programs load."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, IA3Config, LoraConfig, PeftModel, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

import prune_cli
from prune_cli import tasks
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.errors import PruneError
from prune_cli.models import load
from prune_cli.models.find import find, task_of
from tests.conftest import REPOSITORY, Prune, sentences, write_rows

COMMIT = "0123456789abcdef0123456789abcdef01234567"
PATTERNS = {"rank_pattern": {"query": 4}, "alpha_pattern": {"key": 3}}
CONFIGS: dict[str, Any] = {
    "rsLoRA": LoraConfig(r=2, lora_alpha=8, use_rslora=True, target_modules=["query", "key"], **PATTERNS),
    "DoRA": LoraConfig(
        r=2, lora_alpha=8, use_dora=True, target_modules=["query", "dense"], modules_to_save=["LayerNorm"]
    ),
    "IA3": IA3Config(target_modules=["query", "output.dense"], feedforward_modules=["output.dense"]),
    "prompt": PromptTuningConfig(num_virtual_tokens=2),
}


def adapters(base: Path, folder: Path, config: Any, auto: Any = AutoModelForSequenceClassification) -> Path:
    """Adapters that are far from doing nothing, and a head over two labels, as peft saves them."""
    torch.manual_seed(3)
    config.task_type = "SEQ_CLS" if auto is AutoModelForSequenceClassification else "CAUSAL_LM"
    model = get_peft_model(auto.from_pretrained(base), config)
    for parameter in model.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    return folder


def numbered(path: Path) -> Path:
    """Rows with 0 and 1 for labels, as a head without names has them."""
    return write_rows(path, ({**row, "label": int(row["label"] == "positive")} for row in sentences(12)))


def logits(model: Any, tokenizer: Any) -> torch.Tensor:
    batch = tokenizer([row["text"] for row in sentences(6)], padding=True, return_tensors="pt")
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**batch).logits
    return found


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rsLoRA", "DoRA", "IA3"])
def test_adapters_from_elsewhere(kind: str, tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """They are what peft makes of them; merged, transformers loads them alone; `eval` measures the same of both."""
    folder = adapters(tiny_model, tmp_path / "adapters", CONFIGS[kind])
    torch.manual_seed(7)
    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    theirs = PeftModel.from_pretrained(AutoModelForSequenceClassification.from_pretrained(tiny_model), str(folder))
    expected = logits(theirs, tokenizer)

    named = find(str(folder))
    ours, drawn = load.load(named, tasks.load("classification"), [0, 1], load.load_tokenizer(named), new_head=False)
    assert drawn == []
    torch.testing.assert_close(logits(ours, tokenizer), expected)

    merge = ["merge", folder, "-o", tmp_path / "merged"]
    assert (ran := prune(*merge)).code == 0, ran.err
    assert "up to date" in prune(*merge).err
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged")
    found = logits(plain, AutoTokenizer.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)

    rows = numbered(tmp_path / "rows.jsonl")
    for model in (folder, tmp_path / "merged"):
        assert (ran := prune("eval", model, rows, "-o", tmp_path / f"of-{model.name}")).code == 0, ran.err
    first, second = (
        json.loads((tmp_path / f"of-{name}" / "metrics.json").read_text())["rows"] for name in ("adapters", "merged")
    )
    assert first.pop("loss") == pytest.approx(second.pop("loss"), rel=1e-5)
    assert first == second

    # trained on from where they are: a step of no size changes nothing
    still = ["--steps", 1, "--learning-rate", "1e-30", "--model", folder]
    assert (ran := prune("finetune", rows, "-o", tmp_path / "tuned", *still)).code == 0, ran.err
    tuned = AutoModelForSequenceClassification.from_pretrained(tmp_path / "tuned")
    torch.testing.assert_close(logits(tuned, tokenizer), expected, rtol=1e-4, atol=1e-5)


def test_a_head_of_other_labels_is_drawn_anew(tiny_model: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """Told when it is drawn, and not where the trained one is loaded over it."""
    folder = adapters(tiny_model, tmp_path / "adapters", CONFIGS["rsLoRA"])
    train = ["--tune", "lora", "--steps", 1, "--model", folder]
    ran = prune("finetune", data / "train.jsonl", "-o", tmp_path / "lora", *train)
    assert ran.code == 0, ran.err
    assert ran.err.count("a new head is drawn; its own knows the labels LABEL_0, LABEL_1") == 1
    ran = prune("eval", tmp_path / "lora", data / "test.jsonl", "-o", tmp_path / "metrics")
    assert ran.code == 0, ran.err
    assert "new head" not in ran.err


@pytest.mark.slow
def test_gradients_of_adapters_from_elsewhere(tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """In batches those of rows by themselves, where the type has a rule; DoRA is refused, and its hidden states not."""
    rows = numbered(tmp_path / "rows.jsonl")
    gradient = ["represent", rows, "--kind", "gradient", "--dim", 16, "--model"]
    for kind in ("rsLoRA", "IA3"):
        folder = adapters(tiny_model, tmp_path / kind, CONFIGS[kind])
        for size in (1, 12):
            ran = prune(*gradient, folder, "-o", tmp_path / f"{kind}-{size}", "--batch-size", size)
            assert ran.code == 0, ran.err
        alone, together = (load_file(tmp_path / f"{kind}-{size}" / "gradient.safetensors") for size in (1, 12))
        torch.testing.assert_close(together["gradient"].float(), alone["gradient"].float(), rtol=1e-2, atol=1e-3)
    folder = adapters(tiny_model, tmp_path / "DoRA", CONFIGS["DoRA"])
    assert "per-example gradients are not known" in prune(*gradient, folder, "-o", tmp_path / "no").errors[0]
    assert prune("represent", rows, "-o", tmp_path / "hidden", "--model", folder).code == 0


def test_a_merged_training(tiny_model: Path, data: Path, tmp_path: Path, prune: Prune) -> None:
    """Of our own training with LoRA: the labels, the length and the metrics; in the number format of the base."""
    base = tmp_path / "base"
    shutil.copytree(tiny_model, base)
    halves = AutoModelForSequenceClassification.from_pretrained(tiny_model).bfloat16()
    halves.save_pretrained(base)
    train = ["--tune", "lora", "--steps", 4, "--learning-rate", "1e-2", "--max-length", 9, "--lora-rslora"]
    assert prune("finetune", data / "train.jsonl", "-o", tmp_path / "lora", "--model", base, *train).code == 0
    assert (ran := prune("merge", tmp_path / "lora", "-o", tmp_path / "merged")).code == 0, ran.err
    merged = load_file(tmp_path / "merged" / "model.safetensors")
    assert {tensor.dtype for tensor in merged.values()} == {torch.bfloat16}
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert (config["dtype"], config["label2id"]) == ("bfloat16", {"negative": 0, "positive": 1})
    metrics = {}
    for model in ("lora", "merged"):
        ran = prune("eval", tmp_path / model, data / "test.jsonl", "-o", tmp_path / f"of-{model}")
        assert ran.code == 0, ran.err
        metrics[model] = json.loads((tmp_path / f"of-{model}" / "metrics.json").read_text())["test"]
        assert open_artifact(tmp_path / f"of-{model}").about["cut"]["test"]["max_length"] == 9
    assert metrics["lora"]["accuracy"] == metrics["merged"]["accuracy"]
    assert metrics["lora"]["loss"] == pytest.approx(metrics["merged"]["loss"], abs=0.02)
    told = prune("merge", tmp_path / "merged", "-o", tmp_path / "again").errors[0]
    assert (
        told == f"{tmp_path / 'merged'}: a whole model, which other programs load as it is; allowed: one with adapters"
    )
    told = prune("merge", tmp_path / "lora", "-o", tmp_path / "of-lora").errors[0]
    assert "holds another artifact" in told


def test_a_language_models_adapters(tmp_path: Path) -> None:
    """Their type says the task; merged, the language model has its generation config and chat template."""
    base = REPOSITORY / "sample_data" / "lm"
    config = LoraConfig(r=2, target_modules="all-linear")
    folder = adapters(base, tmp_path / "adapters", config, AutoModelForCausalLM)
    assert task_of(find(str(folder)), "auto") == "generation"
    made = prune_cli.merge(folder, tmp_path / "merged")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "merged")
    expected = logits(PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(folder)), tokenizer)
    found = logits(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"), tokenizer)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-3)
    assert {"generation_config.json", "chat_template.jinja"} <= set(made.files)


def in_the_hubs_cache(folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put folders into the cache of the hub as someone/NAME; it is all that the hub has."""
    for name, files in folders.items():
        repository = tmp_path / "hub" / f"models--someone--{name}"
        shutil.copytree(files, repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for module in ("huggingface_hub.file_download", "huggingface_hub._snapshot_download"):
        monkeypatch.setattr(f"{module}.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def test_adapters_of_the_hub(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the cache, with their base there: known by the commits of both."""
    folder = adapters(tiny_model, tmp_path / "adapters", CONFIGS["rsLoRA"])
    config = json.loads((folder / "adapter_config.json").read_text())
    (folder / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": "someone/base"}))
    in_the_hubs_cache({"adapters": folder, "base": tiny_model}, tmp_path, monkeypatch)
    named = find("someone/adapters")
    assert named.base is not None and named.base.digest == f"hub:someone/base@{COMMIT}"
    assert named.digest != find(str(folder)).digest
    model, _ = load.load(named, tasks.load("classification"), [0, 1], load.load_tokenizer(named), new_head=False)
    assert any("lora_A" in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("source", ["folder", "hub"])
def test_peft_finds_the_model_beneath_ours(
    source: str, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name that it was given as; adapters on merged ones have no such model, and name none."""
    base = REPOSITORY / "sample_data" / "lm"
    if source == "hub":
        in_the_hubs_cache({"base": base}, tmp_path, monkeypatch)
    name = {"folder": str(base), "hub": "someone/base"}[source]
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "Hi", "response": "Hello"}])
    train = ["finetune", rows, "--task", "generation", "--tune", "lora", "--steps", 2, "--learning-rate", "1e-1"]
    ran = prune(*train, "-o", tmp_path / "lora", "--model", name)
    assert ran.code == 0, ran.err
    named = find(str(tmp_path / "lora"))
    tokenizer = load.load_tokenizer(named)
    ours, _ = load.load(named, tasks.load("generation"), [], tokenizer, new_head=False)
    theirs = AutoPeftModelForCausalLM.from_pretrained(str(tmp_path / "lora"))
    assert theirs.peft_config["default"].base_model_name_or_path == name
    found = logits(theirs, tokenizer)
    torch.testing.assert_close(found, logits(ours, tokenizer))
    assert (found - logits(AutoModelForCausalLM.from_pretrained(base), tokenizer)).abs().max() > 0.1
    if source == "hub":
        assert prune(*train, "-o", tmp_path / "more", "--model", tmp_path / "lora").code == 0
        assert json.loads((tmp_path / "more/adapter_config.json").read_text())["base_model_name_or_path"] is None


def changed(folder: Path, **values: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def rewritten(folder: Path, **new: torch.Tensor) -> None:
    path = folder / "adapter_model.safetensors"
    kept = {name: tensor for name, tensor in load_file(path).items() if "layer.1" not in name}
    save_file({**kept, **new}, path)


AMISS: dict[str, tuple[Any, str]] = {
    "no base": (lambda f: changed(f, base_model_name_or_path=None), "adapter_config.json names no model beneath"),
    "lost base": (
        lambda f: changed(f, base_model_name_or_path="/nowhere/model"),
        "the model beneath its adapters: no such folder: /nowhere/model",
    ),
    "revision": (lambda f: changed(f, revision="v2"), "its adapters are for the revision v2 of"),
    "other base": (
        lambda f: changed(f, base_model_name_or_path=str(REPOSITORY / "sample_data/model")),
        "size mismatch",
    ),
    "weights lack": (rewritten, "its adapters do not fit BertForSequenceClassification: "),
    "of another model": (
        lambda f: save_file(
            {**load_file(f / "adapter_model.safetensors"), "base_model.model.x.lora_A.weight": torch.ones(1)},
            f / "adapter_model.safetensors",
        ),
        "its adapters do not fit BertForSequenceClassification: ",
    ),
    "pickle": (
        lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"),
        "no adapter_model.safetensors beside adapter_config.json; it is needed",
    ),
    "not JSON": (lambda f: (f / "adapter_config.json").write_text("{"), "is not JSON"),
}


@pytest.mark.parametrize("case", AMISS)
def test_what_is_amiss_is_one_line(case: str, tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """A base that is missing or does not fit, weights that lack or have no place."""
    spoil, told = AMISS[case]
    folder = adapters(tiny_model, tmp_path / "adapters", CONFIGS["rsLoRA"])
    spoil(folder)
    ran = prune("eval", folder, numbered(tmp_path / "rows.jsonl"), "-o", tmp_path / "out")
    assert (ran.code, len(ran.errors)) == (1, 1), ran.err
    assert told in ran.errors[0]


def test_prompts_and_stacks_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    """Adapters that add tokens, for which no row has a place; adapters upon adapters."""
    named = find(str(adapters(tiny_model, tmp_path / "prompt", CONFIGS["prompt"])))
    with pytest.raises(PruneError, match="adapters of the type PROMPT_TUNING, which add tokens to every row"):
        load.load(named, tasks.load("classification"), [0, 1], load.load_tokenizer(named), new_head=False)
    changed(tmp_path / "prompt", base_model_name_or_path=str(tmp_path / "prompt"))
    with pytest.raises(PruneError, match="has adapters of its own; allowed: a whole model"):
        find(str(tmp_path / "prompt"))
