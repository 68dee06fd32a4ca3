"""Every kind of model: its per-example gradients in a padded batch against autograd's of each example alone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torch.nn import functional

from prune_cli.errors import PruneError
from prune_cli.gradients.capture import Capture, Factors, Lookup, Outer, Sum
from tests.harness import families

PAD = 1
LENGTHS = [10, 7, 4, 6]
RESPONSE = 3  # tokens of each row's end that a language model is trained on
Rows = dict[str, torch.Tensor]
Loss = Callable[[Any, int, Rows], torch.Tensor]

TOKENS = {"vocab_size": 40, "pad_token_id": PAD}
SIZES = {
    **TOKENS,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 24,
}
LLAMA = {**SIZES, "num_key_value_heads": 1, "head_dim": 8, "bos_token_id": 2, "eos_token_id": 3}
V3 = {
    "relative_attention": True,
    "pos_att_type": ["p2c", "c2p"],
    "share_att_key": True,
    "position_buckets": 4,
    "norm_rel_ebd": "layer_norm",
    "position_biased_input": False,
    "type_vocab_size": 0,
}
OPT = {"word_embed_proj_dim": 16, "ffn_dim": 24}
GPT2 = {**TOKENS, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 24, "bos_token_id": 2, "eos_token_id": 3}
DISTIL = {**TOKENS, "dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 24, "max_position_embeddings": 24}
MODERN = {**SIZES, "global_attn_every_n_layers": 2, "local_attention": 4, "bos_token_id": 2, "eos_token_id": 3}

CONFIGS: dict[str, Callable[..., Any]] = {
    "bert": partial(transformers.BertConfig, **SIZES),
    "roberta": partial(transformers.RobertaConfig, **SIZES),
    "deberta-v3": partial(transformers.DebertaV2Config, **SIZES, **V3),
    # the tokens that are furthest apart are in a bucket of a number above their distance
    "deberta-v3-buckets": partial(
        transformers.DebertaV2Config, **SIZES, **{**V3, "position_buckets": 16}, max_relative_positions=10
    ),
    "deberta-v2": partial(
        transformers.DebertaV2Config, **SIZES, **{**V3, "share_att_key": False, "position_buckets": -1}
    ),
    "modernbert": partial(transformers.ModernBertConfig, **MODERN, cls_token_id=2, sep_token_id=3),
    "distilbert": partial(transformers.DistilBertConfig, **DISTIL),
    "albert": partial(transformers.AlbertConfig, **SIZES, embedding_size=8),  # one block for all layers
    "gpt2": partial(transformers.GPT2Config, **GPT2),
    "opt": partial(transformers.OPTConfig, **SIZES, **OPT),
    "gpt-neox": partial(transformers.GPTNeoXConfig, **SIZES),
    "llama": partial(transformers.LlamaConfig, **LLAMA, attention_bias=True),
    "qwen2": partial(transformers.Qwen2Config, **LLAMA),
    "qwen3": partial(transformers.Qwen3Config, **LLAMA),
    "mistral": partial(transformers.MistralConfig, **LLAMA),
    "gemma": partial(transformers.GemmaConfig, **LLAMA),
}
DECODERS = ["gpt2", "opt", "gpt-neox", "llama", "qwen2", "qwen3", "mistral", "gemma"]
CASES = [(name, a) for name in CONFIGS for a in (["eager"] if "deberta" in name else ["eager", "sdpa"])]


def build(auto: Any, name: str, attention: str = "eager", **more: Any) -> Any:
    """A small model with random weights in float64; norms and biases off their initial 1 and 0."""
    torch.manual_seed(0)
    # its attention is cast to float32, in which float64's mask of padding is infinite and the padding's share NaN
    dtype = torch.float32 if name == "modernbert" else torch.float64
    config = CONFIGS[name](**({} if auto is transformers.AutoModelForCausalLM else {"num_labels": 3}), **more)
    return shaken(auto.from_config(config, attn_implementation=attention).to(dtype).eval())


def shaken(model: Any) -> Any:
    """The model with all its weights moved a little: LoRA's B starts at zero, and A's gradient with it."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def tiny(auto_model: str, family: str) -> Any:
    """A tiny model of a family, in float64."""
    model = families.build(auto_model, family)
    model.config.pad_token_id = PAD
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # the only one that computes in float64
    return model.double().eval()


def rows(lengths: list[int] = LENGTHS) -> Rows:
    """Rows of mixed length, padded on the right; few distinct tokens, so that rows repeat them."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for i, length in enumerate(lengths):
        ids[i, :length] = torch.randint(4, 12, (length,), generator=generator)
        mask[i, :length] = 1
    return {"input_ids": ids, "attention_mask": mask}


def choices() -> Rows:
    """Three questions with two choices each, of mixed length: [3, 2, t]."""
    return {name: values.view(3, 2, -1) for name, values in rows([10, 4, 6, 6, 3, 5]).items()}


def one(batch: Rows, i: int) -> Rows:
    """Row i by itself, without padding."""
    longest = int(batch["attention_mask"][i].sum(-1).max())
    return {name: values[i : i + 1, ..., :longest] for name, values in batch.items()}


def classified(logits: torch.Tensor, i: int, batch: Rows) -> torch.Tensor:
    """Cross entropy of one row's class."""
    return functional.cross_entropy(logits, torch.tensor(i % logits.shape[0]))


def answered(logits: torch.Tensor, i: int, batch: Rows) -> torch.Tensor:
    """Mean cross entropy of the last tokens of one row."""
    end = int(batch["attention_mask"][i].sum())
    ids = batch["input_ids"][i, end - RESPONSE : end]
    return functional.cross_entropy(logits[end - RESPONSE - 1 : end - 1], ids)


def truth(model: Any, batch: Rows, loss: Loss) -> list[dict[str, torch.Tensor]]:
    """Autograd's gradient of each row alone: parameter name -> gradient."""
    found = []
    for i in range(len(batch["input_ids"])):
        model.zero_grad(set_to_none=True)
        loss(model(**one(batch, i)).logits[0], i, batch).backward()
        grads = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        found.append({name: g.clone() for name, g in grads.items() if g is not None})
    model.zero_grad(set_to_none=True)
    return found


def factors(model: Any, batch: Rows, loss: Loss, sequences: int | None = None) -> dict[str, Factors]:
    """Ours of all rows at once, as they are captured; each parameter is handed over once."""
    found: dict[str, Factors] = {}

    def sink(name: str, gradient: Factors) -> None:
        assert name not in found
        found[name] = gradient

    capture, b = Capture(model), len(batch["input_ids"])
    with capture.attached(model):
        capture.begin(b, sink, sequences)
        logits = model(**batch).logits
        torch.stack([loss(logits[i], i, batch) for i in range(b)]).sum().backward()
        capture.finish()
    return found


def compare(model: Any, batch: Rows, loss: Loss, sequences: int | None = None, tolerance: float = 1e-9) -> None:
    """Every trainable parameter's gradient is the one of the row by itself."""
    found = {name: gradient.dense() for name, gradient in factors(model, batch, loss, sequences).items()}
    expected = truth(model, batch, loss)
    for i, grads in enumerate(expected):
        whole = torch.stack([grad.norm() for grad in grads.values()]).norm()
        for name, grad in grads.items():
            ours = found[name][i] if name in found else torch.zeros_like(grad)
            # the floor is for gradients that are zero in theory, as those of key biases are
            assert float((ours - grad).norm()) <= tolerance * float(grad.norm() + 1e-2 * whole), name
        for name, gradient in found.items():
            if name not in grads:
                assert not gradient[i].any(), name


def tolerance(name: str) -> float:
    """RMSNorm and rotary positions are worked out in float32 whatever the model's type."""
    return 1e-5 if name in {"llama", "qwen2", "qwen3", "mistral", "gemma", "gpt-neox", "modernbert"} else 1e-9


@pytest.mark.parametrize(("name", "attention"), CASES)
def test_classifiers(name: str, attention: str) -> None:
    """A classifier's gradients in a padded batch are those of each row alone, for every parameter."""
    model = build(transformers.AutoModelForSequenceClassification, name, attention)
    compare(model, rows(), classified, tolerance=tolerance(name))


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", DECODERS)
def test_language_models(name: str, tied: bool) -> None:
    """A language model's gradients of a few response tokens, with embeddings that are its head too and without."""
    model = build(transformers.AutoModelForCausalLM, name, "sdpa", tie_word_embeddings=tied)
    assert (model.get_input_embeddings().weight is model.get_output_embeddings().weight) == tied
    compare(model, rows(), answered, tolerance=tolerance(name))


def test_tied_embeddings_are_one_sum() -> None:
    """A table that is also the head comes as a lookup and a product, handed over once."""
    model = build(transformers.AutoModelForCausalLM, "gpt2", tie_word_embeddings=True)
    found = factors(model, rows(), answered)["transformer.wte.weight"]
    assert isinstance(found, Sum)
    assert {type(part) for part in found.parts} == {Lookup, Outer}
    assert torch.allclose(found.of(slice(2, 3)).dense()[0], found.dense()[2], rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("name", ["bert", "deberta-v3", "roberta", "distilbert", "albert", "modernbert"])
@pytest.mark.parametrize("b", [3, 1])
def test_multiple_choice(name: str, b: int) -> None:
    """A question's gradients are sums over its choices, which the layers see as so many sequences."""
    model = build(transformers.AutoModelForMultipleChoice, name)
    batch = {key: values[:b] for key, values in choices().items()}
    compare(model, batch, classified, sequences=2 * b, tolerance=tolerance(name))


def test_a_choice_has_its_tokens_behind_the_other() -> None:
    """Factors of a question with c choices of t tokens have c · t tokens."""
    model, batch = build(transformers.AutoModelForMultipleChoice, "bert"), choices()
    query = factors(model, batch, classified, sequences=6)["bert.encoder.layer.0.attention.self.query.weight"]
    assert isinstance(query, Outer)
    assert query.left.shape == query.right.shape == (3, 2 * 10, 16)


def test_layers_share_their_input() -> None:
    """Query, key and value weights have the very same tensor on their right side, which is worked on once."""
    model = build(transformers.AutoModelForSequenceClassification, "bert")
    found = factors(model, rows(), classified)
    at = "bert.encoder.layer.1.attention.self.{}.weight"
    query, key, value = (found[at.format(part)] for part in ("query", "key", "value"))
    assert isinstance(query, Outer) and isinstance(key, Outer) and isinstance(value, Outer)
    assert query.right is key.right is value.right


LORA = [
    ("bert", transformers.AutoModelForSequenceClassification, "SEQ_CLS", ["classifier"]),
    ("gpt2", transformers.AutoModelForSequenceClassification, "SEQ_CLS", ["score"]),
    ("gpt2", transformers.AutoModelForCausalLM, "CAUSAL_LM", ["wte"]),
    ("llama", transformers.AutoModelForCausalLM, "CAUSAL_LM", ["lm_head"]),
    ("llama", transformers.AutoModelForSequenceClassification, "SEQ_CLS", ["score"]),
    ("deberta-v3", transformers.AutoModelForSequenceClassification, "SEQ_CLS", ["pooler", "classifier"]),
]


def adapted(auto: Any, name: str, **config: Any) -> Any:
    """A small model with LoRA adapters at every linear layer."""
    peft = pytest.importorskip("peft")
    given = {"r": 2, "target_modules": "all-linear", **config}
    return shaken(peft.get_peft_model(build(auto, name), peft.LoraConfig(**given)).double().eval())


@pytest.mark.parametrize(("name", "auto", "task", "head"), LORA, ids=lambda x: x if isinstance(x, str) else None)
@pytest.mark.parametrize("saved", [False, True], ids=["adapters", "with-head"])
def test_lora(name: str, auto: Any, task: str, head: list[str], saved: bool) -> None:
    """Adapters, and a head or table that is trained beside them, have autograd's gradients; nothing else has any."""
    # a task type of SEQ_CLS has peft train the head; without one it trains what it is told to
    model = adapted(auto, name, modules_to_save=head if saved else None)
    loss = classified if task == "SEQ_CLS" else answered
    compare(model, rows(), loss, tolerance=tolerance(name))
    trained = set(factors(model, rows(), loss))
    assert any("lora_A" in part for part in trained) and any("lora_B" in part for part in trained)
    assert any("modules_to_save" in part for part in trained) == saved
    assert all("lora_" in part or "modules_to_save" in part for part in trained)


@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_dora(name: str) -> None:
    """The lengths that DoRA trains are refused in batches; of a row alone, their gradients are autograd's."""
    model = adapted(transformers.AutoModelForSequenceClassification, name, task_type="SEQ_CLS", use_dora=True)
    with pytest.raises(PruneError, match="lora_"):
        factors(model, rows(), classified)
    compare(model, rows([10]), classified, tolerance=tolerance(name))
    assert any("magnitude" in part for part in factors(model, rows([10]), classified))


def test_lora_of_an_embedding() -> None:
    """Adapters of a table, which are used transposed, have autograd's gradients."""
    model = adapted(
        transformers.AutoModelForSequenceClassification, "bert", target_modules=["word_embeddings", "query"]
    )
    compare(model, rows(), classified)


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("name", ["bert", "gpt2", "llama"])
def test_gradient_checkpointing(name: str, train: bool) -> None:
    """Activations that are worked out again in the backward change nothing."""
    none = {
        "bert": {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0},
        "gpt2": {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        "llama": {},
    }
    model = build(transformers.AutoModelForSequenceClassification, name, **none[name])
    before = {key: found.dense() for key, found in factors(model, rows(), classified).items()}
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train(train)
    compare(model, rows(), classified, tolerance=tolerance(name))
    after = factors(model, rows(), classified)
    for key, grads in before.items():  # rounding may differ where a forward is run again in train mode
        assert torch.allclose(grads, after[key].dense(), rtol=1e-9, atol=1e-12), key


def test_gradient_checkpointing_with_lora() -> None:
    """Checkpointing and adapters go together."""
    model = adapted(transformers.AutoModelForCausalLM, "llama")
    model.enable_input_require_grads()
    model.base_model.gradient_checkpointing_enable({"use_reentrant": False})
    compare(model.train(), rows(), answered, tolerance=tolerance("llama"))


def test_forwards_without_gradients_are_let_be() -> None:
    """Forwards under no_grad and inference_mode, of other batch sizes, neither see rules nor disturb a batch."""
    for name in ("bert", "deberta-v3"):
        model, batch = build(transformers.AutoModelForSequenceClassification, name), rows()
        plain = model(**one(batch, 1)).logits.detach()
        expected = {key: found.dense() for key, found in factors(model, batch, classified).items()}
        found: dict[str, Factors] = {}
        capture = Capture(model)
        with capture.attached(model):
            capture.begin(4, found.__setitem__)
            with torch.no_grad():
                assert torch.allclose(model(**one(batch, 1)).logits, plain, rtol=1e-12)
            logits = model(**batch).logits
            with torch.inference_mode():
                assert torch.allclose(model(**one(batch, 1)).logits, plain, rtol=1e-12)
            torch.stack([classified(logits[i], i, batch) for i in range(4)]).sum().backward()
            capture.finish()
        assert set(found) == set(expected)
        for key, grads in expected.items():
            assert torch.allclose(found[key].dense(), grads, rtol=1e-9, atol=1e-12), key


class Output:
    """What a model returns."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits


class Small(nn.Module):
    """Tokens are looked up, `use` makes something of them and of a weight, and their mean is the row's logits."""

    def __init__(self, use: Callable[[torch.Tensor, nn.Parameter], torch.Tensor], *shape: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(40, 5).double())
        self.weight = nn.Parameter(torch.randn(shape).double())
        self.use = use

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Output:
        x = torch.tanh(self.use(functional.embedding(input_ids, self.table), self.weight))
        return Output((x * attention_mask.unsqueeze(-1)).sum(1))


def twice(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A layer called again on what it gave."""
    return functional.linear(torch.tanh(functional.linear(x, weight)), weight)


def many_ways(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """One weight as a matrix, transposed, and entry by entry."""
    return x @ weight + functional.linear(x, weight) * weight[0] + weight.sum(0)


def in_place(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A bias added to what another function returned."""
    x = x * 2
    x += weight
    return x


def causal(x: torch.Tensor) -> torch.Tensor:
    """Channels before tokens, and two tokens of zeros before the first."""
    return functional.pad(x.mT, (2, 0))


def tokens_first(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Tokens before rows; what the layer gave, a view, is written into."""
    y = functional.linear(x.transpose(0, 1), weight, weight[0])
    y /= 2.0
    return y.transpose(0, 1)


def heads(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A weight of one head for all heads, as the norms of Qwen3 have it, the heads before the tokens."""
    split = torch.cat([x, x], -1).unflatten(-1, (2, 5)).transpose(1, 2)  # [b, h, t, d]
    return (weight * split).sum(1)


USES: dict[str, tuple[Callable[[torch.Tensor, Any], torch.Tensor], tuple[int, ...]]] = {
    "linear": (functional.linear, (3, 5)),
    "twice": (twice, (5, 5)),
    "many ways": (many_ways, (5, 5)),
    "matmul": (lambda x, w: x @ w, (5, 3)),
    "matmul method": (lambda x, w: x.matmul(w), (5, 3)),
    "matmul of the transpose": (lambda x, w: torch.matmul(x, w.T), (3, 5)),
    "matmul of t()": (lambda x, w: x @ w.t(), (3, 5)),
    "matmul of transpose()": (lambda x, w: x @ w.transpose(0, 1), (3, 5)),
    "linear in another type": (lambda x, w: functional.linear(x.float(), w.float()).double(), (3, 5)),
    "a part of a matrix": (lambda x, w: functional.linear(x, w[1:, ::2]), (4, 9)),
    "split": (lambda x, w: functional.linear(x, w.chunk(2)[1]), (6, 5)),
    "product of two": (lambda x, w: functional.linear(x, w @ w.T), (5, 2)),
    "matmul from the left": (lambda x, w: (w @ x.mT).mT, (3, 5)),
    "conv1d": (lambda x, w: functional.conv1d(functional.pad(x.mT, (2, 0)), w).mT, (4, 5, 3)),
    "conv1d of each channel": (lambda x, w: functional.conv1d(causal(x), w, groups=5).mT, (5, 1, 3)),
    "conv1d with its bias": (lambda x, w: functional.conv1d(causal(x), w[:, None], w[:, 0], groups=5).mT, (5, 3)),
    "conv1d, dilated": (lambda x, w: functional.conv1d(causal(x), w, None, 1, 0, 2).mT, (4, 5, 2)),
    "conv2d": (lambda x, w: functional.conv2d(causal(x).mT.unsqueeze(1), w, stride=(1, 2)).sum(1), (2, 1, 3, 1)),
    "norm of heads": (
        lambda x, w: (
            functional.rms_norm(x.reshape(-1, 1, 5).repeat(1, 2, 1).view(-1, 5), (5,), w).view(len(x), -1, 2, 5).sum(2)
        ),
        (5,),
    ),
    "addmm": (lambda x, w: torch.addmm(w[0], x.reshape(-1, 5), w).view(*x.shape[:2], 5), (5, 5)),
    "mul": (lambda x, w: w * x, (5,)),
    "mul from the right": (lambda x, w: x * w, (5,)),
    "mul by one number": (lambda x, w: x * w, ()),
    "mul with axes of one": (lambda x, w: torch.mul(x, w), (1, 1, 5)),
    "mul by one plus": (lambda x, w: x * (1.0 + w.float()), (5,)),
    "mul per head": (heads, (5,)),
    "mul by exp": (lambda x, w: x * torch.exp(w), (5,)),
    "add": (lambda x, w: x + w, (5,)),
    "add in place": (in_place, (5,)),
    "layer norm": (lambda x, w: functional.layer_norm(x, (5,), w), (5,)),
    "rms norm": (lambda x, w: functional.rms_norm(x, (5,), w), (5,)),
    "type of a weight": (lambda x, w: functional.linear(x.type_as(w) + torch.zeros_like(w[0]), w), (3, 5)),
}


@pytest.mark.parametrize("name", USES)
def test_uses_of_a_weight(name: str) -> None:
    """Whatever way a weight is used in, its gradients and those of the layer before are autograd's."""
    use, shape = USES[name]
    compare(Small(use, *shape), rows(), classified, tolerance=1e-5 if "type" in name or "plus" in name else 1e-9)


REFUSED: dict[str, tuple[Callable[[torch.Tensor, Any], torch.Tensor], tuple[int, ...], str]] = {
    "maximum": (lambda x, w: torch.maximum(x, w), (5,), "weight: used by maximum"),
    "in a list": (lambda x, w: torch.cat([x, w.expand(len(x), 1, 5)], 1)[:, 1:], (5,), "weight: used by cat"),
    "assignment": (lambda x, w: x.clone().index_put_((torch.tensor(0),), w), (10, 5), "weight: used by index_put_"),
    "a set item": (lambda x, w: set_item(x, w), (10, 5), "weight: used by __setitem__"),
    "parts": (lambda x, w: torch.stack(torch.broadcast_tensors(x, w)).sum(0), (5,), "weight: used by broadcast"),
    "matrix by matrix": (lambda x, w: torch.baddbmm(x, x, w.expand(len(x), 5, 5)), (5, 5), "weight: used by baddbmm"),
    "left": (lambda x, w: (w @ x.unsqueeze(1)).squeeze(1), (10, 10), "weight: used by matmul"),
    "vector": (lambda x, w: (x @ w).unsqueeze(-1), (5,), "weight: used by matmul"),
    "alpha": (lambda x, w: torch.add(x, w, alpha=2), (5,), "weight: used by add with alpha"),
    "along the batch": (lambda x, w: x * w, (4, 1, 5), "weight: used along the batch's axis"),
    "no batch": (lambda x, w: x + functional.linear(torch.ones(3, 5).double(), w)[0], (5, 5), "without the batch's 4"),
    "tokens first": (tokens_first, (5, 5), "without the batch's 4"),
    "lookup": (lambda x, w: x + w[(x[..., 0] > 0).long()], (2, 5), "weight: used by __getitem__"),
}


def set_item(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Weights written over a row's tokens."""
    x = x.clone()
    x[0] = weight
    return x


@pytest.mark.parametrize("name", REFUSED)
def test_uses_that_are_refused(name: str) -> None:
    """A use that no rule covers is an error that names the weight and the function, not a gap in the gradient."""
    use, shape, message = REFUSED[name]
    with pytest.raises(PruneError, match=message):
        factors(Small(use, *shape), rows(), classified)


@pytest.mark.parametrize("name", REFUSED)
def test_uses_in_a_batch_of_one(name: str) -> None:
    """Whatever way a weight is used in, the gradients of a batch of one row are autograd's."""
    use, shape, _ = REFUSED[name]
    compare(Small(use, *shape), rows([10]), classified)


@pytest.mark.parametrize("name", ["mpnet", "squeezebert", "mixtral", "mamba", "t5"])
def test_more_architectures(name: str) -> None:
    """Tables of relative positions, convolutions and experts: each row's own, for one row and for several."""
    model = shaken(tiny("AutoModelForCausalLM" if name == "mamba" else "AutoModelForSequenceClassification", name))
    for lengths in (LENGTHS, LENGTHS[:1]):
        batch = rows(lengths)
        if name == "t5":  # it reads the row's class from the token that ends it
            batch["input_ids"][torch.arange(len(lengths)), batch["attention_mask"].sum(1) - 1] = 3
        compare(model, batch, answered if name == "mamba" else classified, tolerance=1e-8)


def test_half_precision_is_summed_in_float32() -> None:
    """In bfloat16, factors are float32, and the input of several layers is widened once."""
    model = build(transformers.AutoModelForSequenceClassification, "bert").bfloat16()
    found = factors(model, rows(), classified)
    at = "bert.encoder.layer.1.attention.self.{}.weight"
    query, key = found[at.format("query")], found[at.format("key")]
    assert isinstance(query, Outer) and isinstance(key, Outer)
    assert query.right is key.right
    assert all(gradient.dense().dtype == torch.float32 for gradient in found.values())
