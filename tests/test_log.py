"""What a training logs for packages that show it: outside of the artifact, which stays the same."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from prune_cli.artifacts.manifest import MANIFEST
from prune_cli.options import Finetune
from prune_cli.training import log
from tests.conftest import Prune


@pytest.fixture
def command(data: Path, tiny_model: Path, tmp_path: Path) -> list[object]:
    """A training of four steps."""
    options = ["--steps", 4, "--batch-size", 8, "--learning-rate", "1e-2"]
    return ["finetune", data / "train.jsonl", "-o", tmp_path / "out", "--model", tiny_model, *options]


def test_a_package_that_is_missing_is_told(
    command: list[object], tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line, before any work."""
    monkeypatch.setattr(log, "find_spec", lambda name: None)
    done = prune(*command, "--log", "wandb")
    assert done.code == 1 and done.errors == ["log: wandb; the package wandb is not installed"]
    assert "hint: pip install wandb" in done.err and not list(tmp_path.iterdir())


def watched(monkeypatch: pytest.MonkeyPatch, heard: list[dict[str, Any]], failure: Exception | None = None) -> None:
    """Have a callback in TensorBoard's place that hears what is logged, or fails."""
    from transformers import TrainerCallback

    class Recorder(TrainerCallback):
        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            if failure:
                raise failure
            heard.append({"step": state.global_step, **logs})

    monkeypatch.setattr(log, "find_spec", lambda name: ModuleSpec(name, None))
    monkeypatch.setattr(log, "callbacks", lambda opts, folder: [Recorder()] if opts.log != "none" else [])


def test_logs_change_nothing_of_the_artifact(
    command: list[object], tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loss, learning rate and gradient norm come each --log-steps; the model is that of a training without logs."""
    heard: list[dict[str, Any]] = []
    watched(monkeypatch, heard)
    assert prune(*command).code == 0
    assert not heard
    plain = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.name != MANIFEST}
    logged = [*command, "--log", "tensorboard", "--log-steps", 2]
    assert "up to date" in prune(*logged).err
    assert prune(*logged, "--force").code == 0
    assert {name: (tmp_path / "out" / name).read_bytes() for name in plain} == plain
    steps = [line for line in heard if "loss" in line]
    assert [line["step"] for line in steps] == [2, 4]
    assert all(line["grad_norm"] > 0 and line["learning_rate"] > 0 for line in steps)
    assert steps[0]["loss"] > steps[1]["loss"]


def test_what_the_package_raises_is_one_line(
    command: list[object], prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as that no one is logged in; what others raise is a bug, and stays one."""
    refusal = type("UsageError", (Exception,), {"__module__": "tensorboard.errors"})
    watched(monkeypatch, [], refusal("no one is logged in\nby the way"))
    done = prune(*command, "--log", "tensorboard")
    assert done.code == 1 and done.errors == ["log: tensorboard: no one is logged in"]
    watched(monkeypatch, [], RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        prune(*command, "--log", "tensorboard")


@pytest.mark.parametrize(("open_before", "ended"), [(None, 1), ("a run of the user's", 0)])
def test_a_run_of_wandb_ends_with_its_training(
    open_before: str | None, ended: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the next training in the process would go on with it; what a user has opened stays open."""
    calls: list[str] = []
    module = SimpleNamespace(run=open_before, finish=lambda: calls.append("finish"))
    monkeypatch.setitem(sys.modules, "wandb", module)
    with log.told(Finetune(model="", log="wandb")):
        module.run = module.run or "a run of the Trainer's"
    assert len(calls) == ended


def test_tensorboard_writes_beside_the_artifact(command: list[object], tmp_path: Path, prune: Prune) -> None:
    """A folder for each recipe, in OUT.logs."""
    pytest.importorskip("tensorboard")
    done = prune(*command, "--log", "tensorboard")
    assert done.code == 0, done.err
    assert len(list(tmp_path.glob("out.logs/*/events.out.tfevents.*"))) == 1
    assert "whole        yes" in prune("show", tmp_path / "out").out
