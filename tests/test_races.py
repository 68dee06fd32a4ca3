"""What is read is what the recipe names: inputs that are replaced while a command runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli import options
from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import Artifact
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.methods import call as calls
from tests.conftest import Prune, sentences, write_rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_rows_replaced_between_the_manifest_and_the_reading(here: Path, prune: Prune) -> None:
    """A selection that is made again with other rows is not read under the digest of the first ones."""
    write_rows(here / "data.jsonl", sentences(12))
    select = ["select", "data.jsonl", "-o", "kept", "--method", "random", "--keep", 6, "--seed"]
    assert prune(*select, 0).code == 0
    call = calls.prepare("select", ["kept"], options.Select(method="random", keep="2"), Reading())
    prepared = call.given.rows.digest
    assert prepared == call.given.digest
    second = calls.prepare("score", ["kept"], options.Score(method="random"), Reading())
    assert prune(*select, 1, "--replace").code == 0
    assert second.given.rows.digest == prepared  # opened once, and held
    assert calls.prepare("score", ["kept"], options.Score(method="random"), Reading()).given.digest != prepared


def test_represented_rows_replaced_before_they_are_read(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """Rows of a represent artifact are read late: replaced by then, the command stops."""
    shutil.copytree(made / "train", here / "rep")
    call = calls.prepare("select", ["rep"], options.Select(method="random", keep="2"), Reading())
    shutil.rmtree("rep")
    shutil.copytree(made / "validation", here / "rep")
    with pytest.raises(PruneError, match="rep: its rows changed while the command ran"):
        _ = call.given.rows


@pytest.mark.parametrize("method", ["el2n", "memorization"])
def test_tensors_replaced_while_they_are_read(
    method: str, here: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors that take the place of the hashed ones before they are opened are refused."""
    shutil.copytree(made / "train", here / "rep")
    call = calls.prepare("score", ["rep"], options.Score(method=method), Reading())
    load = tensors.load

    def replaced(path: Path) -> dict[str, Any]:
        other = {name: np.array(array) + 1 for name, array in load(path).items()}
        tensors.save(path.with_suffix(".new"), other, tensors.metadata(path))
        path.with_suffix(".new").replace(path)
        return load(path)

    monkeypatch.setattr(tensors, "load", replaced)
    with pytest.raises(PruneError, match="differs from what was written"):
        call.read()


def test_a_file_is_checked_after_it_was_read_too(made: Path, here: Path) -> None:
    """`Artifact.read` finds a change during the reading."""
    from prune_cli.artifacts.manifest import open_artifact

    shutil.copytree(made / "score", here / "score")
    artifact: Artifact = open_artifact(here / "score")

    def slow(path: Path) -> str:
        text = path.read_text()
        path.write_text(text.replace("score", "scare"))
        return text

    read: Callable[[Path], str] = Path.read_text
    assert artifact.read("score.jsonl", read).startswith("{")
    with pytest.raises(PruneError, match="differs from what was written"):
        artifact.read("score.jsonl", slow)


@pytest.mark.parametrize("part", ["tokenizer", "weights"])
def test_a_model_folder_replaced_after_it_was_hashed(
    part: str, here: Path, prune: Prune, tiny_model: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model folder whose files take others' places before they are loaded is refused, and nothing is made."""
    import transformers

    shutil.copytree(tiny_model, here / "model")
    loader = transformers.AutoTokenizer if part == "tokenizer" else transformers.AutoModelForSequenceClassification
    name = "tokenizer.json" if part == "tokenizer" else "model.safetensors"
    load = loader.from_pretrained

    def replaced(*arguments: Any, **keywords: Any) -> Any:
        shutil.copy(here / "model" / name, here / "other")
        (here / "other").replace(here / "model" / name)  # the same bytes: it is known by the file, not by its content
        return load(*arguments, **keywords)

    monkeypatch.setattr(loader, "from_pretrained", replaced)
    ran = prune("finetune", data / "train.jsonl", "-o", "out", "--model", "model", "--steps", 1)
    assert (ran.code, ran.errors) == (
        1,
        ["model: its files changed while the command ran; allowed: files that stay as they are"],
    )
    assert not (here / "out").exists()


def test_a_finetune_artifact_replaced_while_it_is_loaded(
    here: Path, prune: Prune, made: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights of a trained model that changed between its manifest and their loading are not believed."""
    import transformers

    shutil.copytree(made / "warmup", here / "warmup")
    loader = transformers.AutoModelForSequenceClassification
    load = loader.from_pretrained

    def replaced(*arguments: Any, **keywords: Any) -> Any:
        shutil.copy(made / "warmup" / "checkpoints" / "1" / "model.safetensors", here / "warmup" / "model.safetensors")
        return load(*arguments, **keywords)

    monkeypatch.setattr(loader, "from_pretrained", replaced)
    ran = prune("eval", "warmup", data / "test.jsonl", "-o", "metrics")
    assert ran.code == 1
    assert "differs from what was written" in ran.errors[0]


def test_an_artifact_made_again_while_it_is_read(made: Path, here: Path) -> None:
    """Files of another artifact behind a manifest that was read are told as what they are, not as damage."""
    from prune_cli.artifacts.manifest import open_artifact

    shutil.copytree(made / "train", here / "rep")
    artifact = open_artifact(here / "rep")
    shutil.rmtree("rep")
    shutil.copytree(made / "validation", here / "rep")
    with pytest.raises(PruneError, match="rep: was made again while it was read; run the command once more"):
        artifact.file("hidden.safetensors")
