"""Adam's steps on single examples against the formula in numpy, on whole gradients from batches of one."""

from __future__ import annotations

import json
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from prune_cli.artifacts import tensors
from prune_cli.errors import PruneError
from prune_cli.gradients.adam import Adam
from prune_cli.gradients.factors import Dense, Fold, Lookup, Outer, Sum
from prune_cli.gradients.influence import Directions, Influence
from prune_cli.gradients.projected import Projected
from prune_cli.gradients.projection import Sketch
from prune_cli.models.find import Checkpoint
from prune_cli.represent.kinds.gradient import Gradient, Options
from prune_cli.tasks import classification
from tests.conftest import Prune, artifact_of, read_rows, sentences, write_rows
from tests.test_generation import made as language_model
from tests.test_generation import plain, talks
from tests.test_gradient import CONFIGS, alone, batch, build, setup_of


def step(g: Any, m: Any, v: Any) -> Any:
    """(β₁ m + (1 − β₁) g) / √(β₂ v + (1 − β₂) g² + ε), with the usual constants."""
    return (0.9 * m + 0.1 * g) / np.sqrt(0.999 * v + 0.001 * g**2 + 1e-8)


def moments(path: Path, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """First and second moments of all parameters, laid end to end; zero where there are none."""
    held = tensors.load(path / "moments.safetensors")
    first, second = (
        np.concatenate([np.asarray(held[f"{m}.{name}"], np.float64).ravel() for name in names])
        for m in ("exp_avg", "exp_avg_sq")
    )
    return first, second


@pytest.fixture(scope="module", params=["classification", "tied language model", "LoRA"])
def case(request: Any, tmp_path_factory: pytest.TempPathFactory, prune: Prune, tiny_model: Path) -> dict[str, Any]:
    """Rows and targets, a model trained on them with its moments kept, and whole gradients at its last checkpoint."""
    folder = tmp_path_factory.mktemp("adam")
    language = request.param == "tied language model"

    def make(n: int, start: int) -> list[dict[str, Any]]:
        rows = (talks if language else sentences)(n, start)
        return [{key: value for key, value in row.items() if key != "group"} for row in rows]

    train, target = (write_rows(folder / f"{name}.jsonl", make(n, at)) for name, n, at in (("a", 16, 0), ("b", 6, 50)))
    base = language_model(folder / "lm", "llama", None) if language else tiny_model
    options: list[Any] = ["--task", "generation"] if language else []
    options += ["--tune", "lora", "--lora-rank", 2] if request.param == "LoRA" else []
    options += ["--epochs", 2, "--batch-size", 4, "--learning-rate", "1e-2", "--keep-checkpoints", "epoch"]
    ran = prune("finetune", train, "-o", folder / "warmup", "--model", base, "--keep-moments", *options)
    assert ran.code == 0, ran.err
    model, losses = loaded(folder / "warmup", base, request.param)
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    first, second = moments(folder / "warmup/checkpoints/2", names)
    sides = []
    for path in (train, target):
        found = []
        for row in read_rows(path):
            model.zero_grad(set_to_none=True)
            losses(row).backward()
            grads = (p.grad for p in model.parameters() if p.requires_grad)
            found.append(torch.cat([g.flatten() for g in grads if g is not None]).double().numpy())
        sides.append(np.array(found))
    steps = step(sides[0], first, second)
    return {
        "name": request.param,
        "folder": folder,
        "train": train,
        "target": target,
        "g": sides[0],
        "v": sides[1],
        "steps": steps,
    }


def loaded(warmup: Path, base: Path, name: str) -> tuple[Any, Any]:
    """The model at its last checkpoint, and the loss of one row by transformers alone."""
    import transformers
    from peft import PeftModel

    tokenizer = transformers.AutoTokenizer.from_pretrained(warmup)
    at = warmup / "checkpoints/2"
    if name == "tied language model":
        model: Any = transformers.AutoModelForCausalLM.from_pretrained(at).eval()

        def spoken(row: dict[str, Any]) -> Any:
            prompt, answer = plain("gpt2", tokenizer, row)
            gold = torch.tensor([[-100] * len(prompt) + answer])
            return model(input_ids=torch.tensor([[*prompt, *answer]]), labels=gold).loss

        return model, spoken
    labels = json.loads((warmup / "manifest.json").read_text())["about"]["labels"]
    auto = transformers.AutoModelForSequenceClassification
    if name == "LoRA":
        model = PeftModel.from_pretrained(
            auto.from_pretrained(base, num_labels=len(labels)), str(at), is_trainable=True
        ).eval()
    else:
        model = auto.from_pretrained(at).eval()

    def told(row: dict[str, Any]) -> Any:
        logits = model(**tokenizer(row["text"], return_tensors="pt")).logits
        return torch.nn.functional.cross_entropy(logits, torch.tensor([labels.index(row["label"])]))

    return model, told


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of the rows of two matrices."""
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


def test_influence_is_that_of_whole_steps(case: dict[str, Any], prune: Prune) -> None:
    """The mean cosine of an example's step with the target's gradients, to 1e-4; not that of its plain gradient."""
    folder = case["folder"]
    start = ["represent", case["train"], "-o", folder / "rep", "--model", folder / "warmup", "--checkpoints", 2]
    ran = prune(*start, "--kind", "influence", "--target-data", case["target"], "--precondition", "adam")
    assert ran.code == 0, ran.err
    found = tensors.load(folder / "rep/influence.safetensors")["influence"][:, 0, 0]
    true = cosines(case["steps"], case["v"])
    assert np.allclose(found, true.mean(1), rtol=1e-4, atol=1e-5)
    start[3] = folder / "by-row"
    ran = prune(*start, "--kind", "influence", "--target-data", case["target"], "--precondition", "adam", "--by", "row")
    assert ran.code == 0, ran.err
    found = tensors.load(folder / "by-row/influence.safetensors")["influence"][:, 0]
    assert np.allclose(found, true, rtol=1e-4, atol=1e-5)
    assert not np.allclose(found, cosines(case["g"], case["v"]), rtol=0.1)


def test_projected_steps_keep_inner_products(case: dict[str, Any], prune: Prune) -> None:
    """Cosines of projected steps with the target's projected gradients are near the true ones; norms stay plain."""
    folder = case["folder"]
    common: list[Any] = ["--model", folder / "warmup", "--checkpoints", 2, "--kind", "gradient", "--dim", 16384]
    common += ["--dtype", "float32"]
    for name, side, more in (("train", "train", ["--precondition", "adam"]), ("aim", "target", [])):
        ran = prune("represent", case[side], "-o", folder / name, *common, *more)
        assert ran.code == 0, ran.err
    ours, aim = (tensors.load(folder / name / "gradient.safetensors") for name in ("train", "aim"))
    found = cosines(ours["gradient"][:, 0], aim["gradient"][:, 0])
    assert np.abs(found - cosines(case["steps"], case["v"])).max() < 0.05
    assert np.allclose(ours["grad_norm"][:, 0], np.linalg.norm(case["g"], axis=1), rtol=1e-4)
    ran = prune("score", folder / "train", "-o", folder / "score", "--method", "less", "--target", folder / "aim")
    assert ran.code == 0, ran.err
    ran = prune("score", folder / "aim", "-o", folder / "no", "--method", "less", "--target", folder / "train")
    assert ran.errors == [f"{folder / 'train'}: precondition: adam; allowed for a target set: none"]
    assert "hint: represent the target set with --precondition none" in ran.err


@pytest.mark.parametrize("name", CONFIGS)
def test_large_second_moments_leave_the_direction(name: str, tmp_path: Path) -> None:
    """With m = 0 and v = 1e4 everywhere, Γ is 0.001001 g to 1e-6: projected steps are projected gradients, scaled."""
    model, rows = build(name, torch.float32), batch()
    saved = {}
    for key, p in model.named_parameters():
        if p.requires_grad and alone(model, rows, 0)[key].count_nonzero():
            saved[f"exp_avg.{key}"] = np.zeros(p.shape, np.float32)
            saved[f"exp_avg_sq.{key}"] = np.full(p.shape, 1e4, np.float32)
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    tensors.save(
        tmp_path / "checkpoints" / "1" / "moments.safetensors", saved, {"step": 1, "betas": [0.9, 0.999], "eps": 1e-8}
    )
    model.requires_grad_(False)
    for key, p in model.named_parameters():
        p.requires_grad_(f"exp_avg.{key}" in saved)
    found = []
    for how in (Options(dim=997), Options(dim=997, precondition="adam")):
        observer = Gradient(setup_of(model), how)
        with observer.attach(model, Checkpoint("1", artifact_of(tmp_path), 1.0)):
            observer.begin(rows)
            classification.losses(model(**rows.inputs).logits, rows.labels).sum().backward()
            found.append(observer.rows(rows))
    plain_, steps = found
    scale = 0.1 / np.sqrt(0.999 * 1e4 + 1e-8)
    assert torch.allclose(steps["gradient"] / scale, plain_["gradient"], rtol=1e-3, atol=1e-5)
    assert torch.allclose(steps["grad_norm"], plain_["grad_norm"], rtol=1e-5)


@pytest.mark.parametrize("tied", [False, True])
def test_formed_matrices_fold_as_their_factors(tied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same projection of a matrix's gradient, formed or in factors."""
    monkeypatch.setattr("prune_cli.gradients.projection._OUTSIDE", 9)
    torch.manual_seed(0)
    outer = Outer(torch.randn(3, 4, 12, dtype=torch.float64), torch.randn(3, 4, 7, dtype=torch.float64))
    ids = torch.randint(0, 12, (3, 6))
    gradient = Sum((outer, Lookup(ids, torch.randn(3, 6, 7, dtype=torch.float64), 12))) if tied else outer
    found = []
    for way in ("factors", "formed"):
        sketch = Sketch(31, 0)
        sketch.begin(3, torch.device("cpu"))
        if way == "factors":
            sketch.add("w", gradient)
        else:
            sketch.spread("w", sketch.folded("w", gradient.dense()))
        found.append(sketch.projected)
    assert torch.allclose(found[0], found[1], atol=1e-5)


@pytest.mark.parametrize("pieces", [1, 40, 2**18])
def test_steps_formed_in_pieces_fold_as_whole_ones(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Γ by the published formula, entry by entry, then folded by signs and remainders; sides that do not divide."""
    monkeypatch.setattr("prune_cli.gradients.adam._PIECES", pieces)
    torch.manual_seed(0)
    left, right = torch.randn(5, 4, 13), torch.randn(5, 4, 9)
    m, v = 0.1 * torch.randn(13, 9), torch.rand(13, 9) + 1e-8  # as they enter a step
    rows, columns = torch.randn(13).sign(), torch.randn(9).sign()
    made = Adam({"w": m}, {"w": v}, (0.9, 0.99)).folded("w", Outer(left, right), Fold(rows, columns, (5, 4)))
    expected = torch.zeros(5, 5, 4)
    for example, i, j in product(range(5), range(13), range(9)):
        g = sum(left[example, t, i] * right[example, t, j] for t in range(4))
        step = (m[i, j] + 0.1 * g) / torch.sqrt(v[i, j] + 0.01 * g**2)
        expected[example, i % 5, j % 4] += rows[i] * columns[j] * step
    assert torch.allclose(made, expected, atol=1e-5)


def test_rows_looked_up_twice_take_one_step() -> None:
    """The step is on the sum of a row's gradients, in the first of its places."""
    first, second = torch.tensor([[0.0], [2.0]]), torch.tensor([[1.0], [4.0]])
    ids, grads = torch.tensor([[1, 0, 1]]), torch.tensor([[[1.0], [5.0], [2.0]]])
    found, once = Adam({"t": first}, {"t": second}, (0.9, 0.999)).looked_up("t", Lookup(ids, grads, 2))
    assert once.tolist() == [[True, True, False]]
    assert found.grads[0, 0, 0].item() == pytest.approx((2 + 0.1 * 3) / np.sqrt(4 + 0.001 * 9))
    assert found.grads[0, 1, 0].item() == pytest.approx(0.1 * 5 / np.sqrt(1 + 0.001 * 25))


def test_memory_that_runs_out_within_a_table(
    case: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, prune: Prune
) -> None:
    """A table whose resting steps were half added is added whole at the next attempt, and once."""
    start = ["represent", case["train"], "--model", case["folder"] / "warmup", "--checkpoints", 2]
    start += ["--kind", "gradient", "--precondition", "adam", "--dim", 64, "--dtype", "float32", "-o"]
    assert prune(*start, tmp_path / "whole").code == 0
    monkeypatch.setattr("prune_cli.gradients.projected._ROWS", 8)
    added, add = 0, Sketch.add

    def scarce(self: Sketch, name: str, gradient: Any) -> None:
        nonlocal added
        if isinstance(gradient, Lookup) and len(gradient) == 1 and gradient.ids.shape[1] <= 8:
            added += 1
            if added == 2:
                raise torch.OutOfMemoryError
        add(self, name, gradient)

    monkeypatch.setattr(Sketch, "add", scarce)
    ran = prune(*start, tmp_path / "again")
    assert ran.code == 0, ran.err
    assert (added > 2) == (case["name"] == "classification")  # the others look up no table, or a tied one
    one, other = (tensors.load(tmp_path / name / "gradient.safetensors")["gradient"] for name in ("whole", "again"))
    assert np.allclose(one, other, rtol=1e-4, atol=1e-5)


def test_moments_that_are_not_there_are_asked_for(
    made: Path, data: Path, tmp_path: Path, prune: Prune, tiny_model: Path
) -> None:
    """Without moments one line says how to keep them; a pipeline keeps them where a method needs them."""
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--kind", "gradient", "--precondition", "adam"]
    ran = prune(*start, "--model", made / "warmup")
    assert ran.errors == ["precondition: adam; no moments are kept with the model's weights"]
    assert "--keep-moments" in ran.err
    ran = prune(*start, "--model", made / "warmup", "--checkpoints", "last")
    assert "name those with --checkpoints all, or numbers" in ran.err
    for name, n, at in (("train", 24, 0), ("validation", 8, 100), ("test", 12, 200)):
        write_rows(tmp_path / f"{name}.jsonl", sentences(n, at))
    text = (
        f'train = "train.jsonl"\nvalidation = "validation.jsonl"\nmodel = "{tiny_model}"\n'
        'methods = ["less", "less-adam"]\nkeep = [0.5]\nseeds = [0]\ntests = {{test = "test.jsonl"}}\n'
        "[warmup]\nepochs = 2\nbatch_size = 8\n{}\n[represent]\ndim = 64\n[finetune]\nsteps = 2\n"
    )
    (tmp_path / "pipeline.toml").write_text(text.format(""))
    ran = prune("pipeline", tmp_path / "pipeline.toml", "-o", tmp_path / "runs")
    assert ran.code == 0, ran.err
    assert (tmp_path / "runs/warmup/checkpoints/1/moments.safetensors").exists()
    assert sorted(p.name for p in (tmp_path / "runs/represent/validation").iterdir()) == ["gradient"]
    for given, lacking in (
        ("keep_moments = false", "the warm-up keeps none; warmup.keep_moments: false"),
        ('keep_checkpoints = "none"', "the warm-up keeps none; warmup.keep_checkpoints: none"),
        ('[represent]\ncheckpoints = "last"', "represent.checkpoints: last has none; allowed: all, or numbers such as"),
    ):
        wrong = text.replace("[represent]\n", "" if "represent" in given else "[represent]\n").format(given)
        (tmp_path / "pipeline.toml").write_text(wrong)
        ran = prune("pipeline", tmp_path / "pipeline.toml", "-o", tmp_path / "runs")
        assert f"methods: less-adam: moments of Adam are needed, and {lacking}" in ran.errors[0]


@pytest.mark.parametrize("made_by", ["projected", "influence"])
def test_moments_of_a_parameter_that_a_batch_does_not_use(made_by: str) -> None:
    """A parameter that training moved but a batch does not use would be left out of the step: an error names it."""
    held = {name: torch.ones(2, 3) for name in ("used", "unused")}
    adam, cpu = Adam(held, held, (0.9, 0.999)), torch.device("cpu")
    collector: Any
    if made_by == "projected":
        collector = Projected(16, 0)
        collector.precondition(adam)
    else:
        collector = Influence(Directions([held]), cosine=True, adam=adam)
    gradient = Dense(torch.ones(1, 2, 3))
    collector.begin(1, cpu)
    collector.add("used", gradient)
    with pytest.raises(PruneError, match="precondition: adam; unused has moments, but a batch made no use of it"):
        collector.finish()
    collector.begin(1, cpu)
    for name in held:
        collector.add(name, gradient)
    assert collector.finish() is not None
