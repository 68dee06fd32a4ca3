"""Per-example gradients against autograd's gradient of one row alone, and their projection against the truth."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from torch.nn.functional import cross_entropy

from prune_cli.errors import PruneError
from prune_cli.gradients import capture, factors, projection
from prune_cli.gradients.norms import Norms
from prune_cli.represent.kinds import gradient as gradient_kind
from prune_cli.represent.kinds import load, space
from prune_cli.represent.kinds.gradient import Gradient, Options
from prune_cli.represent.observe import Batch, Setup
from prune_cli.tasks import classification
from tests.conftest import REPOSITORY

LENGTHS = [12, 9, 5, 9, 3]
PAD = 1
SIZES = {
    "vocab_size": 60,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "num_labels": 3,
    "pad_token_id": PAD,
}
DEBERTA = {"relative_attention": True, "pos_att_type": ["p2c", "c2p"]}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertConfig(**SIZES),
    "roberta": lambda: transformers.RobertaConfig(**SIZES),
    # shared projections, log buckets, a normalised table, no absolute positions: as in the released v3 models
    "deberta-v3": lambda: transformers.DebertaV2Config(
        **SIZES,
        **DEBERTA,
        share_att_key=True,
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        position_biased_input=False,
        type_vocab_size=0,
    ),
    "deberta-v2": lambda: transformers.DebertaV2Config(**SIZES, **DEBERTA, share_att_key=False),
    "opt": lambda: transformers.OPTConfig(
        vocab_size=60,
        hidden_size=32,
        word_embed_proj_dim=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=40,
        num_labels=3,
        pad_token_id=PAD,
    ),
    "gpt2": lambda: transformers.GPT2Config(
        vocab_size=60,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=40,
        num_labels=3,
        pad_token_id=PAD,
        bos_token_id=0,
        eos_token_id=0,
    ),
    # one block for all layers: every function of it is called twice in a forward
    "albert": lambda: transformers.AlbertConfig(**SIZES, embedding_size=16),
}


def build(name: str, dtype: torch.dtype = torch.float64) -> Any:
    """A small classifier with random weights; norms and biases off their initial 1 and 0."""
    torch.manual_seed(0)
    model = transformers.AutoModelForSequenceClassification.from_config(CONFIGS[name]()).to(dtype).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def batch(lengths: list[int] = LENGTHS) -> Batch:
    """Rows of mixed length, padded on the right; few distinct tokens, so that rows repeat them."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.full((len(lengths), max(lengths)), PAD)
    mask = torch.zeros_like(ids)
    for i, length in enumerate(lengths):
        ids[i, :length] = torch.randint(2, 9, (length,), generator=generator)
        mask[i, :length] = 1
    labels = torch.arange(len(lengths)) % 3

    def alone(i: int) -> Batch:
        inputs = {"input_ids": ids[i : i + 1, : lengths[i]], "attention_mask": mask[i : i + 1, : lengths[i]]}
        own = labels[i : i + 1]
        return Batch(inputs, own, None, own, lambda _: alone(i))

    return Batch({"input_ids": ids, "attention_mask": mask}, labels, None, labels, alone)


def alone(model: Any, rows: Batch, i: int) -> dict[str, torch.Tensor]:
    """Autograd's gradient of row i by itself, without padding: parameter name -> gradient."""
    model.zero_grad(set_to_none=True)
    length = int(rows.inputs["attention_mask"][i].sum())
    inputs = {name: values[i : i + 1, :length] for name, values in rows.inputs.items()}
    cross_entropy(model(**inputs).logits, rows.labels[i : i + 1]).backward()
    found = {
        name: torch.zeros_like(p) if p.grad is None else p.grad.clone()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    model.zero_grad(set_to_none=True)
    return found


def factors_of(model: Any, rows: Batch) -> dict[str, capture.Factors]:
    """Our gradients of all rows at once, in the form they are captured in: parameter name -> factors."""
    found: dict[str, capture.Factors] = {}
    hooks = capture.Capture(model)
    with hooks.attached(model):
        hooks.begin(len(rows), found.__setitem__)
        cross_entropy(model(**rows.inputs).logits, rows.labels, reduction="sum").backward()
        hooks.finish()
    return found


def captured(model: Any, rows: Batch) -> dict[str, torch.Tensor]:
    """Our gradients of all rows at once: parameter name -> [b, …]."""
    return {name: factors.dense() for name, factors in factors_of(model, rows).items()}


def sketched(factors: dict[str, capture.Factors], dim: int, seed: int) -> torch.Tensor:
    """Projected gradients [b, k] in float64."""
    sketch = projection.Sketch(dim, seed)
    sketch.begin(len(LENGTHS), torch.device("cpu"))
    for name, found in factors.items():
        sketch.add(name, found)
    return sketch.projected.double()


def setup_of(model: Any, task: Any = classification) -> Setup:
    """What a pass over batches of the tests' own works with."""
    none: Any = None
    return Setup(none, PAD, model, none, task, torch.device("cpu"), "float32", batch_size=32, tokens_per_batch=8192)


def observe(model: Any, rows: Batch, dim: int, seed: int) -> dict[str, torch.Tensor]:
    """The gradient kind's rows for a batch."""
    observer = Gradient(setup_of(model), Options(dim=dim, seed=seed))
    with observer.attach(model):
        observer.begin(rows)
        classification.losses(model(**rows.inputs).logits, rows.labels).sum().backward()
        return observer.rows(rows)


def flat(gradients: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    """Whole gradients [b, p] in float64."""
    return torch.stack([torch.cat([g.flatten() for g in row.values()]) for row in gradients]).double()


@pytest.mark.parametrize("name", CONFIGS)
def test_each_row_has_the_gradient_it_has_alone(name: str) -> None:
    """In a padded batch of mixed lengths, every parameter's gradient is the one of the row by itself, to 1e-5."""
    model, rows = build(name), batch()
    found = captured(model, rows)
    for i in range(len(rows)):
        for parameter, expected in alone(model, rows, i).items():
            # the floor is for gradients that are zero in theory: key biases, tokens that a row lacks
            ours = found[parameter][i] if parameter in found else torch.zeros_like(expected)
            assert torch.linalg.norm(ours - expected) <= 1e-5 * torch.linalg.norm(expected) + 1e-12, parameter


@pytest.mark.parametrize("name", CONFIGS)
def test_grad_norm_is_exact(name: str) -> None:
    """`grad_norm`, computed in float32 without the gradient ever being whole, is its norm to 1e-4."""
    model, rows = build(name, torch.float32), batch()
    expected = flat([alone(model, rows, i) for i in range(len(rows))]).norm(dim=1)
    ours = observe(model, rows, 64, 0)["grad_norm"].double()
    assert torch.allclose(ours, expected, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_inner_products_are_kept_in_expectation(name: str) -> None:
    """Over 200 projections, the mean of every inner product is within 3 standard errors of the true one."""
    model, rows = build(name, torch.float32), batch()
    whole = flat([alone(model, rows, i) for i in range(len(rows))])
    true = whole @ whole.T
    factors = factors_of(model, rows)
    ours = observe(model, rows, 256, 0)["gradient"].double()
    assert torch.allclose(ours, sketched(factors, 256, 0), rtol=1e-5, atol=1e-6 * float(ours.abs().max()))
    products = torch.stack([(g := sketched(factors, 256, seed)) @ g.T for seed in range(200)])
    errors = (products.mean(0) - true) / (products.std(0) / 200**0.5)
    assert errors.abs().max() < 3


def layer_kinds(seed: int) -> dict[str, capture.Factors]:
    """Random gradients of three examples for each kind of use of a parameter."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    outer = capture.Outer(normal(3, 4, 9), normal(3, 4, 7))
    lookup = capture.Lookup(torch.randint(0, 9, (3, 6), generator=generator), normal(3, 6, 7), rows=9)
    return {
        "outer": outer,
        "lookup": lookup,
        "dense": capture.Dense(normal(3, 40)),
        "tied": capture.Sum((lookup, outer)),
        "tied and read": capture.Sum((lookup, outer, capture.Dense(normal(3, 9, 7)))),
    }


def norms_of(gradient: Any) -> torch.Tensor:
    """The norms of the gradients of one parameter."""
    found = Norms()
    found.begin(len(gradient), torch.device("cpu"))
    found.add(gradient)
    return found.norms()


@pytest.mark.parametrize("side", [3, 256])
@pytest.mark.parametrize("kind", layer_kinds(0))
def test_each_layer_kind_is_projected_without_bias(kind: str, side: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each use of a parameter keeps its inner products in expectation, its sides folded or not; norms are exact."""
    monkeypatch.setattr(projection, "_OUTSIDE", side**2)
    factors = layer_kinds(2)[kind]
    dense = factors.dense().flatten(1).double()
    assert torch.allclose(norms_of(factors), dense.norm(dim=1), rtol=1e-5)
    products = []
    for seed in range(500):
        sketch = projection.Sketch(31, seed)
        sketch.begin(3, torch.device("cpu"))
        sketch.add("weight", factors)
        products.append(sketch.projected.double() @ sketch.projected.double().T)
    found = torch.stack(products)
    errors = (found.mean(0) - dense @ dense.T) / (found.std(0) / 500**0.5 + 1e-12)
    assert errors.abs().max() < 4


def test_a_fold_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """A vector of 7 entries in 3 buckets from bucket 2, all signs plus: entry f goes to bucket (2 + f) mod 3."""
    monkeypatch.setattr(projection.Sketch, "_signs_for", lambda self, name, size, like: torch.ones(size))
    sketch = projection.Sketch(3, seed=0)
    sketch._starts["weight"] = 2
    sketch.begin(1, torch.device("cpu"))
    sketch.add("weight", capture.Dense(torch.tensor([[1.0, 2, 3, 4, 5, 6, 7]])))
    # bucket 2: 1 + 4 + 7; bucket 0: 2 + 5; bucket 1: 3 + 6
    assert sketch.projected.tolist() == [[7.0, 9.0, 12.0]]


@pytest.mark.parametrize("ranks", [0, 64], ids=["factors", "formed"])
@pytest.mark.parametrize("kind", ["outer", "lookup", "tied", "tied and read"])
def test_every_kind_folds_alike(kind: str, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Factors fold to the very sketch that their dense gradients, signed and folded entry by entry, come to."""
    monkeypatch.setattr(factors, "_RANKS", ranks)
    given = layer_kinds(3)[kind]
    monkeypatch.setattr(projection, "_OUTSIDE", 4 * 6)  # of 9 × 7 entries
    high, broad = (9, 7) if kind == "lookup" else (4, 4)
    sketch = projection.Sketch(5, seed=1)
    sketch.begin(3, torch.device("cpu"))
    sketch.add("weight", given)
    like = torch.empty(0)
    rows, columns = sketch._signs_for("weight", 9, like), sketch._signs_for("columns of ", 7, like)
    dense, expected = given.dense(), torch.zeros(3, 5)
    for i in range(9):
        for j in range(7):
            place = (i % high) * broad + j % broad
            expected[:, (sketch._starts["weight"] + place) % 5] += dense[:, i, j] * rows[i] * columns[j]
    assert torch.allclose(sketch.projected, expected, atol=1e-5)


@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("size", [1, 3, 7, 12, 40, 200])
def test_entries_go_round_the_buckets(size: int, signed: bool) -> None:
    """However many there are and wherever they start, entry f is added to bucket (start + f) mod k."""
    entries = torch.arange(1.0, 2 * size + 1).reshape(2, size)
    signs = torch.arange(size) % 3 - 1.0 if signed else torch.ones(size)
    for start in range(13):
        sketch = projection.Sketch(13, seed=0)
        sketch._starts["bias"] = start
        sketch.begin(2, torch.device("cpu"))
        sketch.spread("bias", entries, signs if signed else None)
        expected = torch.zeros(2, 13).index_add_(1, (torch.arange(size) + start) % 13, entries * signs)
        assert torch.equal(sketch.projected, expected)


@pytest.mark.parametrize("ranks", [0, 64], ids=["factors", "formed"])
@pytest.mark.parametrize("tokens", [2, 40])
def test_norms_of_short_and_long_examples(tokens: int, ranks: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By Gram matrices, by blocks of the formed gradient, or by all of it, a norm is the norm."""
    monkeypatch.setitem(factors.BLOCK, "cpu", 30)
    monkeypatch.setattr(factors, "_RANKS", ranks)
    generator = torch.Generator().manual_seed(4)
    left, right = (torch.randn(3, tokens, size, generator=generator) for size in (9, 7))
    dense = (left.transpose(1, 2) @ right).flatten(1).double()
    assert torch.allclose(norms_of(capture.Outer(left, right)), dense.norm(dim=1), rtol=1e-5)


def test_buckets_are_prime() -> None:
    """The number of buckets is the largest prime up to the one asked for."""
    assert [projection.buckets(dim) for dim in (2, 3, 4, 64, 8192)] == [2, 3, 3, 61, 8191]


def test_lora_adapters_and_head_are_what_is_trained() -> None:
    """With LoRA, the gradients are those of the adapters and the head, and no others."""
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(task_type="SEQ_CLS", r=2, target_modules="all-linear")
    model = peft.get_peft_model(build("bert"), config).double().eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter += 0.1 * torch.randn_like(parameter)  # B starts at zero, and A's gradient with it
    rows = batch()
    found = captured(model, rows)
    expected = alone(model, rows, 1)
    assert set(found) == set(expected)
    assert all("lora_" in name or "classifier" in name for name in found)
    for name, gradient in expected.items():
        assert torch.allclose(found[name][1], gradient, rtol=1e-5, atol=1e-12), name


def test_the_model_is_left_as_it_was() -> None:
    """After the hooks are gone, parameters train again and an ordinary backward fills their gradients."""
    model, rows = build("deberta-v3"), batch()
    before = alone(model, rows, 0)
    captured(model, rows)
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = alone(model, rows, 0)
    assert all(torch.allclose(before[name], after[name], rtol=1e-12, atol=1e-14) for name in before)


class Scaled(torch.nn.Module):
    """A classifier around another that uses a parameter in a way that no rule knows."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.temperature = torch.nn.Parameter(torch.ones(3))

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = torch.maximum(output.logits, self.temperature)
        return output


def test_a_parameter_without_a_rule_is_named() -> None:
    """A parameter used in a way that is not covered is an error with its name, not a gap in the gradient."""
    with pytest.raises(PruneError, match="temperature: used by maximum"):
        captured(Scaled(build("bert")), batch())


class Stacked(torch.nn.Module):
    """A classifier around another that hands a parameter to a function within a list."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner = inner
        self.shift = torch.nn.Parameter(torch.ones(1, 3))

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = torch.cat([output.logits, self.shift])[:-1]
        return output


def test_a_parameter_within_a_list_is_seen() -> None:
    """A parameter that reaches a function in a list is an error too, whatever its gradient."""
    with pytest.raises(PruneError, match="shift: used by cat"):
        captured(Stacked(build("bert")), batch())


class Mixing(torch.nn.Module):
    """A classifier whose rows see each other: logits less a share of their mean over the batch."""

    def __init__(self, inner: Any, share: float) -> None:
        super().__init__()
        self.inner = inner
        self.share = share

    def forward(self, **inputs: Any) -> Any:
        output = self.inner(**inputs)
        output.logits = output.logits - output.logits.mean(0) * self.share
        return output


@pytest.mark.parametrize("share", [0.5, 0.05])
def test_a_model_whose_rows_depend_on_each_other_is_refused(share: float) -> None:
    """Where a row's gradient changes with its batch, even by a few per cent, an error says so."""
    with pytest.raises(PruneError, match="depend on each other"):
        observe(Mixing(build("bert", torch.float32), share), batch(), 64, 0)
    assert observe(Mixing(build("bert", torch.float32), 0.0), batch(), 64, 0)


def test_a_matrix_outside_the_blocks_is_projected_more_precisely() -> None:
    """For gradients of rank one, a side of 128 brings an error of its own, beside that of the buckets, ∝ 1 / √side."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(2, 1, 700, generator=generator) for _ in range(2))
    gradient = factors.Outer(left[:1].expand(2, -1, -1), right)
    dense = gradient.dense().flatten(1).double()
    true = float(dense[0] @ dense[1]), float(dense[0].norm() * dense[1].norm())

    def error(name: str) -> float:
        squared = 0.0
        for seed in range(60):
            sketch = projection.Sketch(8191, seed)
            sketch.begin(2, torch.device("cpu"))
            sketch.add(name, gradient)
            one, other = sketch.projected.double()
            squared += ((float(one @ other) - true[0]) / true[1]) ** 2
        return float((squared / 60) ** 0.5)

    assert error("encoder.layer.3.output.dense.weight") == pytest.approx((1 / 8191 + 1 / 128) ** 0.5, rel=0.3)
    assert error("pooler.dense.weight") == pytest.approx((1 / 8191) ** 0.5, rel=0.3)


@pytest.mark.parametrize(
    ("name", "shape", "folded"),
    [
        ("encoder.layer.0.attention.self.query.weight", (768, 768), (128, 128)),
        ("model.layers.11.self_attn.k_proj.weight", (64, 576), (64, 256)),
        ("layers.0.self_attn.q_proj.lora_A.default.weight", (16, 4096), (16, 1024)),
        ("layers.0.mlp.up_proj.lora_B.default.weight", (512, 16), (512, 16)),
        ("pooler.dense.weight", (1024, 1024), (1024, 1024)),
        ("score.weight", (2, 4096), (2, 4096)),
        ("lm_head.weight", (49152, 576), (1820, 576)),
        ("lm_head.weight", (128256, 4096), (1024, 1024)),
        ("3.weight", (768, 768), (128, 128)),
    ],
)
def test_how_far_matrices_are_folded(name: str, shape: tuple[int, int], folded: tuple[int, int]) -> None:
    """To 2^14 entries in a block and 2^20 outside, by hand; a shorter side is kept whole where it can be."""
    assert projection.widths(name, *shape) == folded


def test_an_input_that_blocks_share_is_folded_for_each() -> None:
    """As of a decoder's cross-attention: the projection is the sum of those of each matrix alone."""
    generator = torch.Generator().manual_seed(0)
    right = torch.randn(2, 3, 300, generator=generator)
    left = torch.randn(2, 3, 200, generator=generator)

    def projected(*names: str) -> torch.Tensor:
        sketch = projection.Sketch(509, 0)
        sketch.begin(2, torch.device("cpu"))
        for name in names:
            sketch.add(name, factors.Outer(left, right))
        return sketch.projected

    names = ("layers.0.key.weight", "layers.0.value.weight", "layers.1.key.weight")
    assert torch.allclose(projected(*names), sum(projected(name) for name in names), atol=1e-4)


def test_norms_are_those_asked_for() -> None:
    """--norms sketched: those of the projections, which stay the same; of Adam's steps there are none."""
    model, rows = build("bert", torch.float32), batch()
    found = []
    for options in (Options(dim=64), Options(dim=64, norms="sketched")):
        observer = Gradient(setup_of(model), options)
        with observer.attach(model):
            observer.begin(rows)
            classification.losses(model(**rows.inputs).logits, rows.labels).sum().backward()
            found.append(observer.rows(rows))
    exact, rough = found
    assert torch.equal(exact["gradient"], rough["gradient"])
    assert torch.allclose(rough["grad_norm"].float(), rough["gradient"].norm(dim=1))
    assert not torch.allclose(exact["grad_norm"], rough["grad_norm"], rtol=1e-3)
    assert space(load("gradient"), {"dim": 64, "norms": "exact"}) == {"dim": 64}  # so both can be compared
    with pytest.raises(PruneError, match="norms: sketched"):
        gradient_kind.observe(setup_of(model), Options(norms="sketched", precondition="adam"))


def test_deberta_is_not_imported_for_other_models() -> None:
    """Capturing the gradients of a BERT does not load transformers' DeBERTa, which takes time."""
    asked = """
import sys, torch
from prune_cli.gradients import architectures
from prune_cli.gradients.capture import Capture
assert "deberta" in architectures.names()
model = torch.nn.Sequential(torch.nn.Linear(2, 2))
with Capture(model).attached(model):
    print([name for name in sys.modules if name.startswith("transformers")])
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "[]\n"


def test_gradients_are_a_library_of_their_own() -> None:
    """Nothing in gradients/ imports anything of ours but errors and itself, lazily or not."""
    for path in (REPOSITORY / "prune_cli/gradients").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            given = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            given += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = [name for name in given if name.startswith("prune_cli")]
            allowed = ("prune_cli.gradients", "prune_cli.errors")
            assert all(name.startswith(allowed) for name in ours), path
