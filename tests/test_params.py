"""Which parameters `--params` chooses, for models with and without adapters."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import transformers

from prune_cli.errors import PruneError
from prune_cli.gradients.params import choose
from tests.test_coverage import adapted, build, classified, compare, rows

CLASSIFIER = transformers.AutoModelForSequenceClassification
LANGUAGE = transformers.AutoModelForCausalLM


def chosen(model: Any) -> set[str]:
    """The names of the parameters that need a gradient."""
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def every(model: Any) -> set[str]:
    """The names of all parameters."""
    return {name for name, _ in model.named_parameters()}


@pytest.mark.parametrize(
    ("name", "auto", "which", "pattern"),
    [
        ("bert", CLASSIFIER, "all", r""),
        ("bert", CLASSIFIER, "head", r"^classifier"),
        ("bert", CLASSIFIER, "last:1", r"^classifier|layer\.1\."),
        ("bert", CLASSIFIER, "last:2", r"^classifier|layer\."),
        ("bert", CLASSIFIER, "query", r"query"),
        ("bert", CLASSIFIER, r"layer\.0\.attention|pooler", r"layer\.0\.attention|pooler"),
        ("deberta-v3", CLASSIFIER, "head", r"^classifier|^pooler"),
        ("deberta-v3", CLASSIFIER, "last:1", r"^classifier|^pooler|layer\.1\."),
        ("roberta", CLASSIFIER, "head", r"^classifier"),
        ("distilbert", CLASSIFIER, "last:1", r"classifier|layer\.1\."),
        ("modernbert", CLASSIFIER, "last:1", r"^(classifier|head)\.|layers\.1\."),
        ("gpt2", CLASSIFIER, "head", r"^score"),
        ("gpt2", CLASSIFIER, "last:1", r"^score|\.h\.1\."),
        ("gpt2", LANGUAGE, "head", r"wte"),  # which the head is tied to
        ("llama", CLASSIFIER, "head", r"^score"),
        ("llama", LANGUAGE, "head", r"^lm_head"),
        ("llama", LANGUAGE, "last:1", r"^lm_head|layers\.1\."),
        ("llama", LANGUAGE, r"norm\.weight$", r"norm\.weight$"),
        ("gpt-neox", LANGUAGE, "last:1", r"^embed_out|^lm_head|layers\.1\."),
        ("opt", LANGUAGE, "last:1", r"lm_head|embed_tokens|layers\.1\."),  # tied
    ],
)
def test_a_model_of_its_own(name: str, auto: Any, which: str, pattern: str) -> None:
    """The parameters whose names match a pattern, and no others."""
    model = build(auto, name)
    choose(model, which)
    expected = {known for known in every(model) if re.search(pattern, known)}
    assert expected
    assert chosen(model) == expected


@pytest.mark.parametrize(("name", "head"), [("bert", "classifier"), ("gpt2", "score"), ("llama", "score")])
def test_a_model_with_adapters(name: str, head: str) -> None:
    """Behind peft's wrapper the same words choose the same parts; what is frozen stays so but for an expression."""

    def after(which: str) -> set[str]:
        model = adapted(CLASSIFIER, name, modules_to_save=[head])
        choose(model, which)
        return chosen(model)

    whole = after("all")
    assert whole == after("lora") | after("head")
    assert all("lora_" in part for part in after("lora"))
    assert all(f"{head}.modules_to_save" in part for part in after("head"))
    blocks = [part for part in whole if re.search(r"\.(layer|h|layers)\.1\.", part)]
    assert blocks
    assert after("last:1") == {*blocks, *after("head")}
    # names without what peft adds to them, of weights that it froze
    weight = {
        "bert": r"^bert\..*query\.weight",
        "gpt2": r"^transformer\..*c_attn\.weight",
        "llama": r"^model\..*q_proj\.w",
    }
    assert len(after(weight[name])) == 2
    assert after(rf"^{head}\.weight$") == {part for part in after("head") if part.endswith("weight")}
    assert after(r"lora_A") == {part for part in whole if "lora_A" in part}


def test_adapters_without_a_head() -> None:
    """Where the head is frozen, there is no trained head to choose."""
    model = adapted(CLASSIFIER, "bert", target_modules=["query"])
    with pytest.raises(PruneError, match="params: head; no trainable parameter is that"):
        choose(model, "head")


@pytest.mark.parametrize("which", ["head", "last:1", "attention", "LayerNorm.bias"])
def test_gradients_of_what_is_chosen(which: str) -> None:
    """The gradients of the chosen parameters are autograd's, whatever is frozen around them."""
    for name in ("bert", "gpt2"):
        if which != "LayerNorm.bias" or name == "bert":
            model = build(CLASSIFIER, name)
            choose(model, "attn" if (name, which) == ("gpt2", "attention") else which)
            compare(model, rows(), classified)


@pytest.mark.parametrize(
    ("which", "message"),
    [
        ("last:3", "params: last:3; the model has 2 blocks; allowed: last:1 to last:2"),
        ("last:0", "allowed: last:1 to last:2"),
        ("last:x", "allowed: last:1 to last:2"),
        ("lora", "params: lora; no trainable parameter is that; allowed: all, lora, head, last:N, or a regular"),
        ("nothing", "there are bert.embeddings.word_embeddings.weight, "),
        ("(", "not a regular expression"),
    ],
)
def test_what_chooses_nothing(which: str, message: str) -> None:
    """A word that no parameter answers to is an error that says what is allowed, and changes nothing."""
    model = build(CLASSIFIER, "bert")
    with pytest.raises(PruneError, match=re.escape(message)) as caught:
        choose(model, which)
    assert "\n" not in caught.value.message
    assert chosen(model) == every(model)


def test_a_model_without_blocks() -> None:
    """A model that is no stack of blocks has no last ones."""
    model: Any = torch.nn.Sequential(torch.nn.Linear(2, 2))
    model.base_model_prefix = "base"
    with pytest.raises(PruneError, match="no list of transformer blocks"):
        choose(model, "last:1")
    model.requires_grad_(False)
    with pytest.raises(PruneError, match="no trainable parameters"):
        choose(model, "all")
