"""Influence on a target set against whole gradients, by autograd from batches of one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from prune_cli.artifacts import tensors
from prune_cli.gradients import pairs
from prune_cli.gradients.factors import BLOCK, Dense, Factors, Lookup, Outer, Sum
from prune_cli.gradients.influence import product
from prune_cli.models import device
from prune_cli.represent.observe import Setup
from tests.conftest import Prune, read_rows, sentences, write_rows
from tests.test_gradient import CONFIGS, batch, build, factors_of

GROUPS = ["b", "a", "b", "b", "a", "b", "c"]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven target rows of three groups."""
    rows = [{**row, "group": group} for row, group in zip(sentences(7, 500), GROUPS, strict=True)]
    return write_rows(tmp_path_factory.mktemp("aim") / "target.jsonl", rows)


def gradients(model: Any, tokenizer: Any, labels: list[Any], path: Path) -> np.ndarray:
    """Each row's whole gradient [n, p], float64, by autograd from a batch of one."""
    found = []
    for row in read_rows(path):
        model.zero_grad(set_to_none=True)
        logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
        cross_entropy(logits, torch.tensor([labels.index(row["label"])])).backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters()]).double().numpy())
    return np.array(found)


@pytest.fixture(scope="module")
def whole(made: Path, data: Path, target: Path) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """At each checkpoint: gradients of the training rows [n, p] and of the target rows [m, p], the learning rate."""
    about = json.loads((made / "warmup/manifest.json").read_text())["about"]
    tokenizer = AutoTokenizer.from_pretrained(made / "warmup")
    found = []
    for checkpoint in about["checkpoints"]:
        model = AutoModelForSequenceClassification.from_pretrained(made / "warmup/checkpoints" / checkpoint["name"])
        sides = (gradients(model.eval(), tokenizer, about["labels"], path) for path in (data / "train.jsonl", target))
        found.append((*sides, checkpoint["learning_rate"]))
    return found


def run(prune: Prune, made: Path, data: Path, target: Path, out: Path, *more: Any) -> np.ndarray:
    """The influence of the training rows [n, e, g]."""
    common = ["--model", made / "warmup", "--kind", "influence", "--target-data", target, "--batch-size", 7]
    ran = prune("represent", data / "train.jsonl", "-o", out, *common, *more)
    assert ran.code == 0, ran.err
    return tensors.load(out / "influence.safetensors")["influence"]


def test_less_is_that_of_whole_gradients(
    whole: Any, made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """The mean cosine with each group's gradients to 1e-4, and LESS: weighted by learning rates, the best group's."""
    found = run(prune, made, data, target, tmp_path / "rep", "--similarity", "cosine")
    total: Any = 0
    for e, (g, v, rate) in enumerate(whole):
        g, v = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (g, v))
        for at, name in enumerate("abc"):
            true = (g @ v[np.array(GROUPS) == name].T).mean(1)
            assert np.allclose(found[:, e, at], true, rtol=1e-4, atol=1e-6)
        total = total + rate * np.stack([(g @ v[np.array(GROUPS) == name].T).mean(1) for name in "abc"], 1)
    assert json.loads((tmp_path / "rep/manifest.json").read_text())["about"]["groups"] == ["a", "b", "c"]
    ran = prune("score", tmp_path / "rep", "-o", tmp_path / "score", "--method", "less")
    assert ran.code == 0, ran.err
    scores = [row["score"] for row in read_rows(tmp_path / "score/score.jsonl")]
    assert np.allclose(scores, total.max(1), rtol=1e-4)
    named = prune("score", tmp_path / "rep", "-o", tmp_path / "named", "--method", "less", "--on", "influence")
    assert named.code == 0, named.err
    assert read_rows(tmp_path / "named/score.jsonl") == read_rows(tmp_path / "score/score.jsonl")
    assert json.loads((tmp_path / "score/manifest.json").read_text())["about"]["target"] == target.name


def test_tracin_is_that_of_whole_gradients(
    whole: Any, made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """With --similarity dot: mean inner products with each group's gradients, to 1e-4 of the largest."""
    found = run(prune, made, data, target, tmp_path / "rep", "--similarity", "dot")
    for e, (g, v, _) in enumerate(whole):
        for at, name in enumerate("abc"):
            true = (g @ v[np.array(GROUPS) == name].T).mean(1)
            assert np.allclose(found[:, e, at], true, rtol=1e-4, atol=1e-5 * np.abs(true).max())


def test_a_part_of_the_parameters(
    whole: Any, made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """With --params head, gradients are of the head's weight and bias, the last of all parameters."""
    found = run(prune, made, data, target, tmp_path / "rep", "--params", "^classifier")
    model = AutoModelForSequenceClassification.from_pretrained(made / "warmup")
    p = sum(p.numel() for p in model.classifier.parameters())
    g, v = (side[:, -p:] / np.linalg.norm(side[:, -p:], axis=1, keepdims=True) for side in whole[-1][:2])
    true = (g @ v[np.array(GROUPS) == "b"].T).mean(1)
    assert np.allclose(found[:, -1, 1], true, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", CONFIGS)
def test_products_from_factors(name: str) -> None:
    """For every kind of layer the inner product from factors is that of the formed gradient with the direction."""
    model, rows = build(name), batch()
    generator = torch.Generator().manual_seed(0)
    for factors in factors_of(model, rows).values():
        dense = factors.dense()
        direction = torch.randn(dense.shape[1:], generator=generator, dtype=dense.dtype)
        true = (dense * direction).flatten(1).sum(1)
        assert torch.allclose(product(factors, direction), true, rtol=1e-9, atol=1e-12)


def by_func(model: Any, tokenizer: Any, labels: list[Any], path: Path) -> np.ndarray:
    """Each row's whole gradient [n, p], float64, by torch.func, which neither hooks nor backward() have a part in."""
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(values: Any, given: Any, label: int) -> torch.Tensor:
        return cross_entropy(torch.func.functional_call(model, values, (), given).logits, torch.tensor([label]))

    found = []
    for row in read_rows(path):
        given = dict(tokenizer(row["text"], return_tensors="pt"))
        grads = torch.func.grad(loss)(weights, given, labels.index(row["label"]))
        found.append(torch.cat([grads[name].flatten() for name in weights]).double().numpy())
    return np.array(found)


@pytest.mark.parametrize("similarity", ["cosine", "dot"])
def test_influence_by_row_is_that_of_each_pair_of_gradients(
    similarity: str, made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune
) -> None:
    """With --by row: ⟨g_i, g_v⟩ or its cosine, of each row and each target row in their order, at each checkpoint."""
    found = run(prune, made, data, target, tmp_path / "rep", "--similarity", similarity, "--by", "row")
    about = json.loads((made / "warmup/manifest.json").read_text())["about"]
    tokenizer = AutoTokenizer.from_pretrained(made / "warmup")
    for e, checkpoint in enumerate(about["checkpoints"]):
        folder = made / "warmup/checkpoints" / checkpoint["name"]
        model = AutoModelForSequenceClassification.from_pretrained(folder, attn_implementation="eager").eval()
        g, v = (by_func(model, tokenizer, about["labels"], path) for path in (data / "train.jsonl", target))
        if similarity == "cosine":
            g, v = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (g, v))
        true = g @ v.T
        assert found[:, e].shape == true.shape
        assert np.allclose(found[:, e], true, rtol=1e-4, atol=1e-5 * np.abs(true).max())


def random_factors(kind: str, b: int, t: int, r: int = 6, c: int = 5) -> Factors:
    """Gradients of a parameter [r, c] for b examples of t tokens, in one of their forms."""
    generator = torch.Generator().manual_seed(b * t)
    normal = lambda *shape: torch.randn(*shape, generator=generator, dtype=torch.float64)  # noqa: E731 - a short name
    outer = Outer(normal(b, t, r), normal(b, t, c))
    lookup = Lookup(torch.randint(0, r, (b, t), generator=generator), normal(b, t, c), r)
    dense = Dense(normal(b, r, c))
    forms: dict[str, Factors] = {"outer": outer, "lookup": lookup, "dense": dense, "sum": Sum((outer, lookup))}
    return forms[kind]


@pytest.mark.parametrize("block", [1, 40, 2**20])
@pytest.mark.parametrize("theirs", ["outer", "lookup", "dense", "sum"])
@pytest.mark.parametrize("ours", ["outer", "lookup", "dense", "sum"])
def test_products_of_pairs_from_factors(ours: str, theirs: str, block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the forms, in blocks or whole, by tokens (of few) or formed (of many): products of formed gradients."""
    monkeypatch.setitem(BLOCK, "cpu", block)
    for t, s in ((1, 1), (2, 3), (40, 30)):
        a, b = random_factors(ours, 4, t), random_factors(theirs, 7, s)
        true = a.dense().flatten(1) @ b.dense().flatten(1).T
        assert torch.allclose(pairs.pairs(a, b), true, rtol=1e-9, atol=1e-9)
        held = pairs.Held(7)
        for some in (slice(0, 3), slice(3, 7)):
            held.begin(torch.arange(7)[some])
            held.add("weight", b.of(some))
        held.scale = torch.arange(7).double()
        assert torch.allclose(held.products("weight", a), true * torch.arange(7), rtol=1e-9, atol=1e-9)
        assert held.products("another", a).count_nonzero() == 0


def test_gradients_of_many_tokens_are_formed_to_be_multiplied() -> None:
    """Of 1 token a comparison of tokens is less work than a gradient of 6 × 5 numbers, of 40 it is more."""
    few, many = (random_factors("outer", 4, t) for t in (1, 40))
    assert isinstance(few, Outer) and isinstance(many, Outer)
    assert (pairs._formed_is_less(few, few), pairs._formed_is_less(many, many)) == (False, True)


def test_what_is_held_takes_no_more_than_gradients_or_their_factors() -> None:
    """Of few tokens the factors are kept, of many the gradient; what two layers share is counted once."""
    for t, numbers in ((2, 2 * 2 * (6 + 5)), (40, 2 * 6 * 5)):
        held = pairs.Held(2)
        held.begin(torch.arange(2))
        held.add("weight", random_factors("outer", 2, t))
        assert held.size == numbers * 8
    given = random_factors("outer", 2, 2)
    assert isinstance(given, Outer)
    held = pairs.Held(2)
    held.begin(torch.arange(2))
    held.add("query", given)
    held.add("key", Outer(given.left.clone(), given.right))
    assert held.size == 2 * 2 * (6 + 6 + 5) * 8


def test_target_rows_that_take_too_much_memory_are_refused(
    made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is held is counted, and more than half of the memory is an error of one line that says what to do."""
    monkeypatch.setattr(device, "memory", lambda _: 2**10)
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", made / "warmup", "--batch-size", 2]
    ran = prune(*start, "--kind", "influence", "--target-data", target, "--by", "row")
    assert len(ran.errors) == 1
    assert re.match(
        r"by: row; the gradients of \d of the 7 target rows take 0\.0 GiB; allowed: 0\.0 GiB", ran.errors[0]
    )
    assert "hint: fewer target rows, --by group, fewer --params" in ran.err
    assert prune(*start, "--kind", "influence", "--target-data", target).code == 0


@pytest.mark.parametrize("by", ["group", "row"])
def test_a_target_set_that_does_not_fit_is_walked_in_smaller_batches(
    made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """Where the device's memory runs out above three rows, the numbers stay; where one row is too much, it is told."""
    forward, most, fitted = Setup.forward, 3, list[int]()

    def scarce(self: Setup, inputs: dict[str, torch.Tensor], at: torch.Tensor | None) -> Any:
        if len(inputs["input_ids"]) > most:
            raise torch.OutOfMemoryError
        fitted.append(len(inputs["input_ids"]))
        return forward(self, inputs, at)

    whole = run(prune, made, data, target, tmp_path / "whole", "--by", by)
    monkeypatch.setattr(Setup, "forward", scarce)
    assert np.allclose(run(prune, made, data, target, tmp_path / "halved", "--by", by), whole, atol=1e-5)
    assert next(size for size in fitted if size > 1) == 3  # of the target set, which comes first and has seven rows
    most = 0
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "none", "--model", made / "warmup", "--by", by]
    ran = prune(*start, "--kind", "influence", "--target-data", target)
    assert ran.errors == ["the target set does not fit the device's memory"]


def test_what_does_not_fit_is_refused(made: Path, data: Path, target: Path, tmp_path: Path, prune: Prune) -> None:
    """Influence needs a target set, other kinds have none, gradients take a pass of their own; bad labels are named."""
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", made / "warmup", "--kind"]
    ran = prune(*start, "influence")
    assert ran.errors == ["kind: influence; it needs a target set"]
    assert "hint: --target-data DATA" in ran.err
    assert "one of them at a time" in prune(*start, "gradient,influence", "--target-data", target).errors[0]
    assert "hidden needs no target set; leave it out" in prune(*start, "hidden", "--target-data", target).errors[0]
    odd = write_rows(tmp_path / "odd.jsonl", [*sentences(2), {"text": "the film", "label": "odd"}])
    assert "odd.jsonl:3: " in prune(*start, "influence", "--target-data", odd).errors[0]
    ran = prune(*start, "influence", "--target-data", target)
    assert ran.code == 0, ran.err
    assert "up to date" in prune(*start, "influence", "--target-data", target).err
    other = write_rows(tmp_path / "other.jsonl", sentences(3))
    assert "input target rows changed" in prune(*start, "influence", "--target-data", other).errors[0]
    assert (
        "influence has its target set in it; leave --target out"
        in prune(
            "score", tmp_path / "out", "-o", tmp_path / "score", "--method", "less", "--target", tmp_path / "out"
        ).errors[0]
    )


@pytest.mark.slow
def test_a_pipeline_beside_projected_gradients(tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """less-exact has a pass of its own beside less; run again, nothing is to do."""
    for name, n, start in (("train", 24, 0), ("validation", 8, 100), ("test", 12, 200)):
        write_rows(tmp_path / f"{name}.jsonl", sentences(n, start))
    (tmp_path / "pipeline.toml").write_text(
        f'train = "train.jsonl"\nvalidation = "validation.jsonl"\nmodel = "{tiny_model}"\n'
        'methods = ["less", "less-exact", '
        '{name = "both", representation = "gradient,influence", score = "less", select = "top"}]\n'
        'keep = [0.5]\nseeds = [0]\ntests = {test = "test.jsonl"}\n'
        "[warmup]\nepochs = 2\nbatch_size = 8\n[represent]\ndim = 4096\ndtype = 'float32'\n[finetune]\nsteps = 2\n"
    )
    command = ["pipeline", tmp_path / "pipeline.toml", "-o", tmp_path / "runs"]
    ran = prune(*command)
    assert ran.code == 0, ran.err
    assert {path.name for path in (tmp_path / "runs/represent/train").iterdir()} == {"gradient", "influence"}
    assert [path.name for path in (tmp_path / "runs/represent/validation").iterdir()] == ["gradient"]
    less, exact = (
        [row["score"] for row in read_rows(tmp_path / f"runs/score/{name}/score.jsonl")]
        for name in ("less", "less-exact")
    )
    assert np.corrcoef(less, exact)[0, 1] > 0.99
    assert "nothing to do" in prune(*command).err
