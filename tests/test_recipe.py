"""What decides an artifact's content is in its recipe: seeds and defaults, for every method."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest

from prune_cli.artifacts import code, tensors
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.methods import method as methods
from prune_cli.stages import common, finetune, represent
from tests.conftest import Prune, read_rows

# What a user gets who sets nothing: a changed default changes results, and is to be decided, not to happen.
DEFAULTS = {
    "score": {
        "bm25": {"reduce": "max", "k1": 1.5, "b": 0.75},
        "combine": {"weights": "", "scale": "rank"},
        "datainf": {"damping": 0.1},
        "density": {"how": "neighbours", "k": 10, "bandwidth": 0.0, "checkpoints": "side", "normalize": False},
        "dsir": {"ngrams": 2, "buckets": 10_000, "noise": True},
        "gist_gradient": {"rank": 50},
        "ifd": {"unhelped_last": True},
        "influential": {"normalize": False},
        "knn_label": {"k": 10, "checkpoints": "side"},
        "less": {"normalize": True},
        "moderate": {"checkpoints": "side", "normalize": False},
        "prototypicality": {"k": 10, "checkpoints": "side", "normalize": False},
        "rds": {"checkpoints": "side"},
        "trak": {"damping": 0.01},
        "uot": {"epsilon": 0.01, "penalty": 0.0001},
    },
    "select": {
        "bids": {"checkpoints": "each"},
        "ccs": {"beta": 0.1, "k": 50, "hard": "high"},
        "d2": {"k": 10, "forward": 1.0, "reverse": 1.0, "checkpoints": "side", "normalize": True},
        "d4": {"dedup": 0.75, "k": 0, "checkpoints": "side"},
        "deita": {"threshold": 0.9, "checkpoints": "side"},
        "facility_location": {"metric": "euclidean", "how": "auto", "checkpoints": "side"},
        "gist": {"weight": 1.0, "epsilon": 0.1, "checkpoints": "side", "normalize": False},
        "graph_cut": {"penalty": 0.5, "checkpoints": "side"},
        "greats": {"step": 1.0},
        "herding": {"checkpoints": "side", "normalize": False},
        "k_center": {"checkpoints": "side", "normalize": False},
        "k_dpp": {"epsilon": 1e-4, "checkpoints": "side", "normalize": True},
        "kmeans": {"k": 100, "checkpoints": "side", "normalize": False},
        "mig": {"k": 100, "threshold": 0.9, "power": 0.8, "checkpoints": "side"},
        "near_duplicates": {"ngrams": 3, "threshold": 0.8},
        "novel": {"proximity": 1.0, "density": 0.5, "k": 10, "counted": 100, "checkpoints": "side"},
        "omp": {"penalty": 0.5, "checkpoints": "side", "normalize": False},
        "round_robin": {"checkpoints": "side"},
        "saturated_coverage": {"alpha": 0.0, "checkpoints": "side"},
        "semdedup": {"epsilon": 0.0, "k": 0, "keep": "hard", "checkpoints": "side"},
        "stratified": {"k": 10},
        "tarot": {"budget": "given", "folds": 10, "damping": 1e-5, "checkpoints": "mean"},
        "tsds": {"alpha": 0.5, "bandwidth": 0.75, "neighbours": 5000, "how": "draw"},
        "weighted": {"weight": "score", "temperature": 1.0},
    },
}


@pytest.mark.parametrize("stage", methods.STAGES)
def test_defaults_are_those_that_were_decided(stage: str) -> None:
    """Every option of every method has the default written here."""
    every = {name: methods.load(stage, name).defaults for name in methods.names(stage)}
    assert {name: defaults for name, defaults in every.items() if defaults} == DEFAULTS[stage]


@pytest.mark.parametrize(
    ("stage", "method"),
    [
        (stage, name)
        for stage in methods.STAGES
        for name in methods.names(stage)
        if "rng" in methods.load(stage, name).inputs
    ],
)
def test_the_seed_is_in_the_recipe_of_what_draws(
    stage: str, method: str, made: Path, tmp_path: Path, prune: Prune
) -> None:
    """Another seed is another artifact for each method that draws: told as such, and made with --replace."""
    command = [stage, made / "train", "-o", tmp_path / "out", "--method", method]
    command += ["--on", "hidden"] if methods.load(stage, method).wants_representation else []
    command += [made / "score"] if "score" in methods.load(stage, method).inputs else []
    command += ["--keep", 5] if stage == "select" else []
    command += ["--target", made / "validation"] if methods.load(stage, method).wants_target else []
    assert prune(*command).code == 0
    assert "up to date" in prune(*command, "--seed", 0).err
    ran = prune(*command, "--seed", 1)
    assert ran.code == 1 and "options.seed 0 -> 1" in ran.errors[0]
    assert prune(*command, "--seed", 1, "--replace").code == 0


def test_a_seed_of_what_draws_nothing_is_not(made: Path, tmp_path: Path, prune: Prune) -> None:
    """A method that draws nothing makes the same for any seed."""
    command = ["score", made / "train", "-o", tmp_path / "out", "--method", "el2n", "--seed"]
    assert prune(*command, 0).code == 0
    assert "up to date" in prune(*command, 1).err


@pytest.mark.parametrize("normalize", [True, False])
def test_less_on_one_number_a_checkpoint(normalize: bool, made: Path, tmp_path: Path, prune: Prune) -> None:
    """Dynamics are one vector over checkpoints, scaled as a whole, times the mean learning rate: worked out here."""
    command = ["score", made / "train", "-o", tmp_path / "out", "--method", "less", "--on", "dynamics"]
    ran = prune(*command, "--target", made / "validation", "--set", f"normalize={str(normalize).lower()}")
    assert ran.code == 0, ran.err
    rows, targets = (tensors.load(made / side / "dynamics.safetensors")["logprob"] for side in ("train", "validation"))
    rates = tensors.metadata(made / "train" / "dynamics.safetensors")["learning_rate"]
    assert len(set(rates)) == 2
    ours, theirs = (np.asarray(values, np.float64) for values in (rows, targets))
    if normalize:
        ours, theirs = (values / np.linalg.norm(values, axis=1, keepdims=True) for values in (ours, theirs))
    expected = sum(rates) / 2 * (ours @ theirs.T).mean(axis=1)
    found = [line["score"] for line in read_rows(tmp_path / "out" / "score.jsonl")]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("module", "within"),
    [
        ("prune_cli.training.trainer", finetune.CODE),
        ("prune_cli.represent.walk", represent.CODE_OF_WALK),
        ("prune_cli.models.load", (common.MODELS,)),
    ],
)
def test_what_loads_a_model_counts_as_code(
    module: str, within: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of it, or of how adapters are put on, makes what models made stale."""
    read: list[str] = []

    def parsed(path: Path) -> ast.Module:
        read.append(path.name)
        return ast.parse(path.read_bytes())

    monkeypatch.setattr(code, "parsed", parsed)
    code.digest_of_module.__wrapped__(module, within)
    assert {"load.py", "adapters.py", "tokenizer.py"} <= {*read}


def test_recipes_name_the_code_that_runs_models(made: Path) -> None:
    """Beside that of the kind, the task and the training."""
    of = {name: open_artifact(made / name).manifest["recipe"]["code"] for name in ("warmup", "train", "metrics")}
    assert "training" in of["warmup"] and "walk" in of["train"]
    assert {"models load", "models predict"} <= {*of["metrics"]}
