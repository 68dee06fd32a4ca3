"""Scores and selections against what their sources say: formulas by hand, published code, and what they are for.

Published code was read at princeton-nlp/LESS 8abf962, BigML-CS-UCLA/S2L 2bc84dd, tianyi-lab/Cherry_LLM 6c200ba,
hamishivi/automated-instruction-selection 0227547, and the code of Du et al. 2025 (arXiv 2507.03648).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from prune_cli import tasks
from prune_cli.artifacts import tensors
from prune_cli.methods import balance
from prune_cli.methods import method as methods
from prune_cli.methods.published import published
from prune_cli.numeric import blocks
from prune_cli.numeric.shares import equal_shares, proportional_shares, smallest_first
from prune_cli.numeric.vectors import vectors
from prune_cli.tasks import classification
from tests.conftest import REPOSITORY, Prune, read_rows, sentences, write_rows
from tests.truth import truth


def rng(seed: int = 0) -> np.random.Generator:
    """A generator."""
    return np.random.default_rng(seed)


def scored(name: str, *args: Any, **options: Any) -> Any:
    """What a score method returns."""
    return methods.load("score", name).function(*args, **options)


def selected(name: str, *args: Any, **options: Any) -> list[int]:
    """The positions that a selection returns."""
    returned = methods.load("select", name).function(*args, **options)
    positions: np.ndarray = returned[0] if isinstance(returned, tuple) else returned
    return positions.tolist()


def crowd_and_outliers(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """40 rows in random order, 20 within 0.2 of each other and 20 a hundred apart; which are of the crowd."""
    crowd = rng(seed).uniform(0, 0.1, (20, 2))
    apart = 100.0 * np.array([[i % 5 + 1, i // 5 + 1] for i in range(20)])
    order = rng(seed).permutation(40)
    return np.concatenate([crowd, apart]).astype(np.float32)[order], (np.arange(40) < 20)[order]


@pytest.mark.parametrize("k", [1, 5, 10, 20, 21, 39, 40, 100])
def test_kmeans_keeps_no_more_of_a_crowd_than_a_random_draw_does(k: int) -> None:
    """Of 40 rows, half of them alike, 20 kept: at most 10 are alike on average, 3 with a cluster a row."""
    kept = []
    for seed in range(30):
        features, crowd = crowd_and_outliers(seed)
        kept.append(int(crowd[selected("kmeans", features, 20, rng(seed), k=k)].sum()))
    assert np.mean(kept) < 10 + 4 * (20 * 0.25 * 20 / 39 / 30) ** 0.5  # the mean of a draw, and four standard errors
    if k >= 20:
        assert max(kept) <= 3


def test_kmeans_keeps_no_more_of_a_crowd_within_each_label() -> None:
    """The same with a balance of two labels, each with rows alike and rows apart."""
    kmeans = methods.load("select", "kmeans")
    for seed in range(10):
        (one, crowd), (other, more) = crowd_and_outliers(seed), crowd_and_outliers(seed + 50)
        features, alike = np.concatenate([one, other + 1000]), np.concatenate([crowd, more])
        label = np.repeat([0, 1], 40)
        for how in ("keep", "equal"):
            chosen = balance.select(kmeans, {"features": features, "rng": rng(seed), "k": 100}, label, 40, how, 80)
            for part in (0, 1):
                rows = chosen.positions[label[chosen.positions] == part]
                assert len(rows) == 20 and alike[rows].sum() <= 3


@pytest.mark.slow
def test_clusters_of_equal_size_have_equal_chances() -> None:
    """Four clusters of two rows, five kept: each gives two rows a quarter of the time, within four standard errors."""
    features = np.repeat(100.0 * np.eye(4), 2, axis=0).astype(np.float32) + np.tile([[0.0], [1.0]], (4, 1))
    double = np.zeros(4)
    for seed in range(600):
        double += np.bincount(np.array(selected("kmeans", features, 5, rng(seed), k=4)) // 2, minlength=4) == 2
    assert double.sum() == 600
    assert (np.abs(double - 150) < 4 * (600 * 0.25 * 0.75) ** 0.5).all()


@pytest.mark.parametrize("how", ["keep", "equal"])
def test_a_random_draw_balanced_over_many_groups_does_not_go_by_their_names(how: str) -> None:
    """Of 40 groups of one row, 20 kept at random: each group is kept about half the time, not the first or the last."""
    draw = methods.load("select", "random")
    kept = np.zeros(40)
    for seed in range(400):
        chosen = balance.select(draw, {"n": 40, "rng": rng(seed)}, np.arange(40), 20, how, 40)
        kept[chosen.positions] += 1
    assert (np.abs(kept - 200) < 4.5 * (400 * 0.25) ** 0.5).all()


def test_shares_in_random_order_are_still_exact() -> None:
    """In any order of equals shares add up to the budget, and none is above its size."""
    for seed in range(50):
        sizes = rng(seed).integers(0, 4, 30)
        total = int(rng(seed).integers(1, sizes.sum() + 1))
        for shares in (
            equal_shares(sizes, total, smallest_first(sizes, rng(seed))),
            proportional_shares(sizes, total, rng(seed)),
        ):
            assert shares.sum() == total and (shares <= sizes).all()


def test_a_step_of_adam_is_that_of_the_published_code_of_less() -> None:
    """Six entries of very different size through `obtain_gradients_with_adam` of princeton-nlp/LESS 8abf962, float64.

    Entries whose root of the second moment is below 1e-4, the third and on, tell ε within the root from ε beside it.
    """
    torch = pytest.importorskip("torch")
    from prune_cli.gradients.adam import Adam

    grads = [0.5, -2e-3, 3e-5, 0.0, 1e-6, -0.04]
    first, second = np.array([0.1, 1e-3, -2e-5, 4e-6, 0.0, -0.01]), np.array([0.02, 4e-6, 9e-10, 1e-12, 0.0, 1e-4])
    theirs = [0.98430567029, 0.34956331861, -0.14367394278, 0.03599820193, 0.00099999995, -1.29029477441]
    weight = torch.zeros(6, dtype=torch.float64)
    adam = Adam.of({"w": first}, {"w": second}, (0.9, 0.999), 1e-8, {"w": weight})
    ours = adam.step("w", torch.tensor([grads], dtype=torch.float64))[0]
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-9)
    assert adam.resting("w")[3].item() == pytest.approx(theirs[3], rel=1e-9)


@pytest.mark.parametrize("norm", [1e-12, 1e-6, 3e-6, 1e-5, 1.0, 1e6, 1e12])
def test_float16_keeps_the_direction_and_the_length_of_a_row_of_any_norm(norm: float, tmp_path: Path) -> None:
    """Of 8,191 normal numbers of any norm, stored as float16, cosine and length read back are right to 1e-6 and 1e-4.

    Without a scale the cosine is .9999 at a norm of 1e-4, .99 at 1e-5, .92 at 3e-6 and .67 at 1e-6.
    """
    values = rng(1).normal(size=(3, 8191)).astype(np.float32)
    values *= np.float32(norm) / np.linalg.norm(values, axis=1, keepdims=True)
    values[1] = 0
    specs = {"gradient": tensors.Spec((3, 1, 8191), "float16"), "gradient_scale": tensors.Spec((3, 1), "float32")}
    path = tmp_path / "gradient.safetensors"
    with tensors.RowWriter(path, specs, {}, {"gradient": "gradient_scale"}) as writer:
        writer.write("gradient", np.array([2, 0, 1]), 0, values)
    assert not writer.vanished["gradient"]
    read = tensors.load(path)
    back = blocks.scaled(read["gradient"], read["gradient_scale"])[[2, 0, 1], 0].astype(np.float64)
    assert not back[1].any()
    for i in (0, 2):
        true = values[i].astype(np.float64)
        assert back[i] @ true / np.linalg.norm(back[i]) / np.linalg.norm(true) > 1 - 1e-6
        assert np.linalg.norm(back[i]) == pytest.approx(np.linalg.norm(true), rel=1e-4)
    scale = read["gradient_scale"][:, 0]
    assert (np.frexp(scale)[0] == 0.5).all()  # powers of two: dividing by one rounds nothing
    assert np.abs(read["gradient"]).max() <= 1


def test_scaled_values_are_the_same_in_memory_and_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """A product that is too large for memory is read from a file, to the same bytes."""
    stored = rng(0).normal(size=(50, 2, 7)).astype(np.float16)
    scale = 2.0 ** rng(1).integers(-20, 20, (50, 2)).astype(np.float32)
    whole = blocks.scaled(stored, scale)
    assert np.array_equal(whole, stored.astype(np.float32) * scale[:, :, None])
    monkeypatch.setattr(blocks, "IN_MEMORY", 100)
    monkeypatch.setattr(blocks, "NUMBERS", 30)
    mapped = blocks.scaled(stored, scale)
    assert isinstance(mapped, np.memmap) and np.array_equal(mapped, whole)


def test_a_method_reads_gradients_times_their_scale(
    prune: Prune, tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a loss a millionth of what it is, LESS scores alike, and what a user's method reads is a millionth."""
    rows = write_rows(
        tmp_path / "rows.jsonl", [{k: v for k, v in row.items() if k != "group"} for row in sentences(24, 0)]
    )
    mine = tmp_path / "mine.py"
    mine.write_text(
        "import numpy as np\n\n\n"
        "def length(gradient):\n    return np.linalg.norm(gradient[:, -1].astype(float), axis=1)\n\n\n"
        "def total(features):\n    return np.abs(features.astype(float)).sum(axis=1)\n"
    )
    assert prune("finetune", rows, "-o", tmp_path / "warm", "--model", tiny_model, "--steps", 2).code == 0
    found: dict[str, list[np.ndarray]] = {}
    plain = classification.losses
    for name, factor in (("plain", 1.0), ("tiny", 1e-6)):
        monkeypatch.setattr(classification, "losses", lambda logits, labels, by=factor: plain(logits, labels) * by)
        made = [
            "represent",
            rows,
            "-o",
            tmp_path / name,
            "--model",
            tmp_path / "warm",
            "--kind",
            "gradient",
            "--dim",
            512,
        ]
        ran = prune(*made)
        assert ran.code == 0 and "too small" not in ran.err, ran.err
        for method in ("less", f"{mine}:length", f"{mine}:total", "self_influence", "influential"):
            out = tmp_path / f"{name}-{method.rpartition(':')[2]}"
            target = ["--target", tmp_path / name] if method == "less" else []
            ran = prune("score", tmp_path / name, "-o", out, "--method", method, *target)
            assert ran.code == 0, ran.err
            scores = np.array([row["score"] for row in read_rows(out / "score.jsonl")])
            found.setdefault(method.rpartition(":")[2], []).append(scores)
    for method, by in (
        ("less", 1.0),
        ("length", 1e-6),
        ("total", 1e-6),
        ("self_influence", 1e-12),
        ("influential", 1e-12),
    ):
        np.testing.assert_allclose(
            found[method][1] / by, found[method][0], rtol=2e-3, atol=1e-4 * found[method][0].max()
        )


def waves(n: int, e: int, d: int, step: float) -> np.ndarray:
    """Numbers that look like noise [n, e, d]: sin(i^1.3 × step), i = 1, 2, …"""
    values: np.ndarray = np.sin(np.arange(1, n * e * d + 1) ** 1.3 * step).reshape(n, e, d)
    return values


RATES = np.array([2e-5, 5e-6])


@truth("score/less", by="published code: its formula")
def test_less_is_that_of_the_published_code() -> None:
    """Five rows, three subtasks of two target rows, two checkpoints through matching.py of LESS 8abf962."""
    theirs = [0.22319974549, 0.17366316565, 0.15133845883, -0.01456741735, 0.04822087794]
    group = np.repeat([0, 1, 2], 2)
    ours = scored("less", waves(5, 2, 4, 0.7), waves(6, 2, 4, 0.3), RATES, group)
    np.testing.assert_allclose(ours / RATES.sum(), theirs, rtol=1e-9)


def test_less_on_dynamics_is_the_inner_product_of_losses() -> None:
    """Du et al. 2025: an example's losses by the sum of the target's, not scaled; ours by the mean, in that order."""
    ours, theirs = -rng(0).exponential(size=(30, 1, 4)), -rng(1).exponential(size=(9, 1, 4))
    scores = scored("less", ours, theirs, np.array([1e-5]), normalize=False)
    by_hand = np.array([sum(ours[i, 0, t] * theirs[v, 0, t] for v in range(9) for t in range(4)) for i in range(30)])
    np.testing.assert_allclose(scores, by_hand / 9 * 1e-5, rtol=1e-12)
    cosines = scored("less", ours, theirs, np.array([1e-5]))
    assert np.argsort(cosines).tolist() != np.argsort(by_hand).tolist()
    assert published()["less-dynamics"].score_options == {"normalize": False}


def test_less_without_scaling_multiplies_by_the_scale() -> None:
    """Stored values and their scale give what the values themselves give; with normalize the scale has no say."""
    rows, targets = waves(5, 2, 4, 0.7), waves(6, 2, 4, 0.3)
    scale, target_scale = 2.0 ** rng(0).integers(-9, 9, (5, 2)), 2.0 ** rng(1).integers(-9, 9, (6, 2))
    stored, target_stored = rows / scale[:, :, None], targets / target_scale[:, :, None]
    for normalize in (True, False):
        plain = scored("less", rows, targets, RATES, normalize=normalize)
        found = scored("less", stored, target_stored, RATES, None, scale, target_scale, normalize=normalize)
        np.testing.assert_allclose(found, plain, rtol=1e-12)


@truth("score/influential", "score/self_influence", by="brute force: sums over pairs")
def test_influential_and_self_influence_are_sums_over_pairs() -> None:
    """Du et al. 2025: Σ_e η_e ⟨x_i, Σ_j x_j⟩ / n and Σ_e η_e ‖x_i‖², worked pair by pair."""
    x = waves(6, 2, 3, 0.4)
    pairs = np.array([[sum(RATES[e] * (x[i, e] @ x[j, e]) for e in range(2)) for j in range(6)] for i in range(6)])
    np.testing.assert_allclose(scored("influential", x, RATES), pairs.mean(axis=1), rtol=1e-10)
    np.testing.assert_allclose(scored("self_influence", x, RATES), pairs.diagonal(), rtol=1e-10)
    scale = 2.0 ** rng(0).integers(-9, 9, (6, 2))
    for name in ("influential", "self_influence"):
        found = scored(name, x / scale[:, :, None], RATES, scale)
        np.testing.assert_allclose(found, scored(name, x, RATES), rtol=1e-10)


@pytest.mark.parametrize("numbers", [1, 20, 2**22])
def test_vectors_are_weighted_means_of_length_one(numbers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Du et al. 2025 on gradients: Σ_e η_e x_e, then divided by its length; whatever is read at a time, and by rows."""
    monkeypatch.setattr(blocks, "NUMBERS", numbers)
    x = waves(7, 2, 5, 0.6)
    scale = 2.0 ** rng(0).integers(-9, 9, (7, 2))
    total = RATES[0] * x[:, 0] + RATES[1] * x[:, 1]
    ways: list[tuple[dict[str, Any], np.ndarray]] = [
        ({"checkpoints": "mean", "normalize": True}, total / np.linalg.norm(total, axis=1, keepdims=True)),
        ({"checkpoints": "mean"}, total / RATES.sum()),
        ({"normalize": True}, x.reshape(7, -1) / np.linalg.norm(x.reshape(7, -1), axis=1, keepdims=True)),
        ({}, x.reshape(7, -1)),
    ]
    for options, true in ways:
        made = vectors((x / scale[:, :, None]).reshape(7, -1), RATES, scale, **options)
        assert made.shape == true.shape and len(made) == 7
        np.testing.assert_allclose(np.concatenate([block for _, block in blocks.row_blocks(made)]), true, rtol=1e-12)
        np.testing.assert_allclose(made[np.array([5, 0])], true[[5, 0]], rtol=1e-12)
    even = vectors(x.reshape(7, -1), np.zeros(2), checkpoints="mean")
    np.testing.assert_allclose(even[:], x.mean(axis=1), rtol=1e-12)
    assert vectors(x, RATES) is x


@pytest.mark.parametrize("name", ["proto-gradient", "s2l-gradient"])
def test_gradients_are_clustered_by_direction_and_not_by_norm(name: str) -> None:
    """Rows of four directions and norms from 1 to 1,000: the published method follows the directions alone.

    Read raw and side by side, distances follow the norm (rank correlation .77).
    """
    direction = np.repeat(np.arange(4), 25)
    norms = 10.0 ** rng(1).uniform(0, 3, (100, 1, 1))
    x = (np.eye(4)[direction][:, None] + 0.05 * rng(2).normal(size=(100, 2, 4))) * norms
    method, flat = published()[name], x.reshape(100, -1)
    assert {**method.score_options, **method.select_options} == {"checkpoints": "mean", "normalize": True}
    if name == "s2l-gradient":
        found = methods.load("select", "kmeans").function(flat, 8, rng(0), RATES, k=4, **method.select_options)
        assert len({(a, b) for a, b in zip(found[1]["cluster"], direction, strict=True)}) == 4
        return
    raw = scored("prototypicality", flat, rng(0), RATES, k=4)
    ours = scored("prototypicality", flat, rng(0), RATES, k=4, **method.score_options)
    by_norm = [np.corrcoef(s.argsort().argsort(), norms.ravel().argsort().argsort())[0, 1] for s in (raw, ours)]
    assert by_norm[0] > 0.7 and abs(by_norm[1]) < 0.3


@pytest.mark.parametrize("candidates", [1, 9, 2**22])
def test_round_robin_over_groups_takes_the_best_for_each_group_in_turn(
    candidates: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RDS+ over tasks, by the whole table: a row's score for a task is its highest cosine, and the tasks take turns."""
    module = sys.modules[methods.load("select", "round_robin").function.__module__]
    monkeypatch.setattr(module, "CANDIDATES", candidates)
    monkeypatch.setattr(blocks, "NUMBERS", 40)
    rows, targets, group = (
        rng(0).normal(size=(40, 3)),
        rng(1).normal(size=(9, 3)),
        np.array([2, 0, 0, 1, 2, 2, 0, 1, 1]),
    )
    cosines = (rows / np.linalg.norm(rows, axis=1, keepdims=True)) @ (
        targets / np.linalg.norm(targets, axis=1, keepdims=True)
    ).T
    best = np.array([cosines[:, group == j].max(axis=1) for j in range(3)])
    for n_keep in (1, 2, 3, 17, 40):
        taken: list[int] = []
        while len(taken) < n_keep:
            free = [i for i in range(40) if i not in taken]
            taken.append(max(free, key=lambda i: best[len(taken) % 3, i]))
        found, why = methods.load("select", "round_robin").function(rows, targets, n_keep, group)
        assert found.tolist() == taken
        assert why["target_group"][found].tolist() == [i % 3 for i in range(n_keep)]


def test_rds_max_keeps_the_highest_of_all_cosines() -> None:
    """RDS+'s code for one task: the largest cosines of the whole table, each row once."""
    method = published()["rds-max"]
    assert (method.score, method.select, method.model) == ("rds", "top", "reference")
    rows, targets = rng(0).normal(size=(40, 3)), rng(1).normal(size=(9, 3))
    unit_rows, unit_targets = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, targets))
    order = np.argsort(-(unit_rows @ unit_targets.T), axis=None) // 9
    assert selected("top", scored("rds", rows, targets), 12) == list(dict.fromkeys(order.tolist()))[:12]


@pytest.mark.parametrize(
    ("kind", "task", "how"),
    [
        ("bert", "classification", "cls"),
        ("roberta", "choice", "cls"),
        ("llama", "classification", "last"),
        ("gpt2", "generation", "last"),
        ("bert", "generation", "last"),
    ],
)
def test_the_summary_of_a_text_is_the_token_that_has_seen_all_others(kind: str, task: str, how: str) -> None:
    """As in Du et al. 2025: the first token of an encoder, the last of a language model, whose first has seen none."""
    from prune_cli.represent.kinds.hidden import summarising

    assert summarising(SimpleNamespace(model_type=kind), tasks.load(task)) == how


def test_hidden_methods_read_the_first_token_of_the_last_checkpoint(
    prune: Prune, tmp_path: Path, tiny_model: Path
) -> None:
    """What the published methods ask of `represent` is, for an encoder, cls pooling at the last checkpoint alone."""
    wanted = {"checkpoints": "last", "pooling": "summary"}
    assert [n for n, m in published().items() if m.represent_options == wanted] == [
        *("prototypicality", "s2l-hidden", "k-center", "moderate", "less-hidden")
    ]
    rows = write_rows(
        tmp_path / "rows.jsonl", [{k: v for k, v in row.items() if k != "group"} for row in sentences(9, 0)]
    )
    for pooling in ("summary", "cls", "last"):
        ran = prune("represent", rows, "-o", tmp_path / pooling, "--model", tiny_model, "--pooling", pooling)
        assert ran.code == 0, ran.err
    held = {how: tensors.load(tmp_path / how / "hidden.safetensors")["hidden"] for how in ("summary", "cls", "last")}
    assert np.array_equal(held["summary"], held["cls"]) and not np.array_equal(held["cls"], held["last"])


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory, prune: Prune) -> dict[str, Any]:
    """Short answers to prompts, represented with and without the end-of-sequence token by the sample model."""
    folder = tmp_path_factory.mktemp("answers")
    shutil.copytree(REPOSITORY / "sample_data/lm", folder / "lm", ignore=shutil.ignore_patterns("chat_template.jinja"))
    rows = [
        {"prompt": f"question {i} is {'long ' * (i % 3)}", "response": "yes no maybe".split()[i % 3]} for i in range(8)
    ]
    rows.append({"prompt": "say nothing", "response": "</s>"})
    data = write_rows(folder / "rows.jsonl", rows)
    for name, more in (("with", []), ("without", ["--no-count-eos"])):
        made: list[Any] = ["represent", data, "-o", folder / name, "--model", folder / "lm"]
        ran = prune(*made, "--task", "generation", "--kind", "dynamics,unprompted", *more)
        assert ran.code == 0, ran.err
    return {"folder": folder, "rows": rows, "data": data}


def script_losses(path: Path, rows: list[dict[str, str]], *, eos: bool) -> tuple[np.ndarray, np.ndarray]:
    """Each response's mean loss with its prompt and behind the first token, by transformers alone; eos: the end too."""
    import torch
    import transformers

    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    start = model.config.bos_token_id if model.config.bos_token_id is not None else model.config.eos_token_id
    end = [tokenizer.eos_token_id] if eos else []
    found: list[list[float]] = [[], []]
    for row in rows:
        answer = tokenizer(row["response"], add_special_tokens=False)["input_ids"] + end
        for side, before in enumerate((tokenizer(row["prompt"])["input_ids"], [start])):
            labels = torch.tensor([[-100] * len(before) + answer])
            found[side].append(model(input_ids=torch.tensor([before + answer]), labels=labels).loss.item())
    return np.array(found[0]), np.array(found[1])


@pytest.mark.parametrize(("name", "eos"), [("with", True), ("without", False)])
def test_ifd_counts_the_end_of_sequence_token_or_not(
    name: str, eos: bool, answers: dict[str, Any], prune: Prune
) -> None:
    """Both losses, and the score, are those of Cherry_LLM's script, whose responses have no end-of-sequence token."""
    folder = answers["folder"]
    prompted, alone = script_losses(folder / "lm", answers["rows"][:-1], eos=eos)
    held = {
        **tensors.load(folder / name / "dynamics.safetensors"),
        **tensors.load(folder / name / "unprompted.safetensors"),
    }
    np.testing.assert_allclose(-held["logprob"][:-1, 0], prompted, rtol=1e-4)
    np.testing.assert_allclose(-held["logprob_unprompted"][:-1, 0], alone, rtol=1e-4)
    ran = prune("score", folder / name, "-o", folder / f"ifd-{name}", "--method", "ifd", "--set", "unhelped_last=false")
    assert ran.code == 0, ran.err
    scores = [row["score"] for row in read_rows(folder / f"ifd-{name}/score.jsonl")]
    np.testing.assert_allclose(scores[:-1], prompted / alone, rtol=1e-4)


def test_a_response_of_the_end_of_sequence_token_alone_keeps_it(answers: dict[str, Any]) -> None:
    """No row is left without a token: its values are finite, and those with the token where there is no other."""
    from prune_cli.represent.kinds._ends import without_ends

    torch = pytest.importorskip("torch")
    for name in ("dynamics", "unprompted"):
        for array in tensors.load(answers["folder"] / "without" / f"{name}.safetensors").values():
            assert np.isfinite(array).all()
    labels = torch.tensor([[-100, 5, 2, 6, 2], [-100, -100, 2, -100, -100]])
    assert without_ends(labels, (2,)).tolist() == [[-100, 5, -100, 6, -100], [-100, -100, 2, -100, -100]]
    assert without_ends(labels, ()) is labels


def test_ifd_as_published_does_not_count_the_end_of_sequence_token() -> None:
    """The option stands in the table, and has a say for generation alone."""
    assert published()["ifd"].represent_options == {"count_eos": False}
    assert [name for name in tasks.names() if "count_eos" in tasks.load(name).OPTIONS] == ["generation"]


def test_a_response_s_probability_is_the_mean_of_its_tokens(answers: dict[str, Any]) -> None:
    """Cartography on responses, as the rule `prob` of Du et al. 2025: the mean of p over tokens, not of log p."""
    import torch
    import transformers

    path = answers["folder"] / "lm"
    model = transformers.AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(path)
    means = []
    for row in answers["rows"][:-1]:
        prompt = tokenizer(row["prompt"])["input_ids"]
        answer = [*tokenizer(row["response"], add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
        with torch.no_grad():
            p = model(torch.tensor([prompt + answer])).logits[0].softmax(1)
        means.append(np.mean([p[len(prompt) - 1 + t, token].item() for t, token in enumerate(answer)]))
    held = tensors.load(answers["folder"] / "with/dynamics.safetensors")
    doubt = np.asarray(held["improbability"])[:-1]
    np.testing.assert_allclose(1 - doubt[:, 0], means, rtol=1e-4, atol=1e-6)
    assert not np.allclose(np.exp(held["logprob"][:-1, 0]), means, rtol=0.05)
    np.testing.assert_allclose(scored("hard_to_learn", doubt), 1 - np.array(means), rtol=1e-5)
    assert methods.load("score", "ambiguous").inputs == ("improbability",)


def test_sure_rows_keep_their_order() -> None:
    """Probabilities that float32 cannot tell from one, as a logit apart of 20 or 30 gives, still have an order."""
    torch = pytest.importorskip("torch")
    logits = torch.tensor([[20.0, 0.0], [30.0, 0.0], [2.0, 0.0]])
    doubt = classification.dynamics(logits, torch.tensor([0, 0, 0]))["improbability"].numpy()
    assert np.argsort(-doubt).tolist() == [2, 0, 1] and (doubt > 0).all()
    np.testing.assert_allclose(doubt, 1 / (1 + np.exp([20.0, 30.0, 2.0])), rtol=1e-5)
