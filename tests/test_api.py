"""The Python API: the stages as functions that return artifacts."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import prune_cli
from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import Artifact
from prune_cli.errors import PruneError
from tests.conftest import REPOSITORY, Prune, read_rows, sentences, write_rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Rows to train on, a target set, a test set, and every stage run once by its function."""
    folder = tmp_path_factory.mktemp("api")
    for name, n, start in (("train", 12, 0), ("validation", 6, 100), ("test", 6, 200)):
        write_rows(folder / f"{name}.jsonl", sentences(n, start))
    stages(folder, tiny_model)
    return folder


def stages(folder: Path, model: Path) -> dict[str, Artifact]:
    """Every stage by its function, paths given as text or as Path."""
    warmup = prune_cli.finetune(
        folder / "train.jsonl", folder / "warmup", model=str(model), epochs=1, keep_checkpoints="epoch"
    )
    represented = {
        name: prune_cli.represent(
            str(folder / f"{name}.jsonl"), out=folder / name, model=str(warmup.path), kind="hidden,gradient", dim=64
        )
        for name in ("train", "validation")
    }
    score = prune_cli.score(
        represented["train"].path, folder / "score", method="less", on="gradient", target=str(folder / "validation")
    )
    kept = prune_cli.select([score.path], folder / "kept", method="top", keep=0.5, balance="keep")
    trained = prune_cli.finetune(kept.path, folder / "model", model=str(model), steps=1)
    metrics = prune_cli.evaluate(trained.path, {"near": folder / "test.jsonl"}, folder / "metrics", batch_size=4)
    made = {"warmup": warmup, **represented, "score": score, "kept": kept, "model": trained, "metrics": metrics}
    return made


def test_each_stage_returns_its_artifact(folder: Path, tiny_model: Path) -> None:
    """Each function returns what it made; called again, it is up to date: the same bytes, and nothing is written."""
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.name not in ("manifest.json", "")}
    made = stages(folder, tiny_model)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert {name: artifact.stage for name, artifact in made.items()} == {
        "warmup": "finetune",
        "train": "represent",
        "validation": "represent",
        "score": "score",
        "kept": "select",
        "model": "finetune",
        "metrics": "eval",
    }
    assert all(artifact.path == folder / name for name, artifact in made.items())
    assert made["warmup"].options["epochs"] == 1.0
    assert (made["kept"].about["kept"], made["kept"].about["rows"]) == (6, 12)
    assert len(read_rows(made["kept"].file("select.jsonl"))) == 6
    assert tensors.load(made["train"].file("hidden.safetensors"))["hidden"].shape == (12, 1, 16)
    assert json.loads(made["metrics"].file("metrics.json").read_text())["near"]["n"] == 6
    assert prune_cli.open_artifact(folder / "kept") == made["kept"]


def test_a_function_makes_what_its_command_makes(folder: Path, tmp_path: Path, prune: Prune) -> None:
    """The command finds the function's artifact up to date, and the other way round."""
    score = ["score", folder / "train", "-o", folder / "score", "--method", "less", "--on", "gradient"]
    assert "up to date" in prune(*score, "--target", folder / "validation").err
    assert "up to date" in prune("select", folder / "score", "-o", folder / "kept", *SELECT).err
    assert prune("select", folder / "score", "-o", tmp_path / "kept", *SELECT).code == 0
    manifest = tmp_path / "kept/manifest.json"
    text = manifest.read_text()
    again = prune_cli.select(folder / "score", tmp_path / "kept", method="top", keep="50%", balance="keep")
    assert again.path == tmp_path / "kept" and manifest.read_text() == text


SELECT = ["--method", "top", "--keep", "0.5", "--balance", "keep"]


def test_all_mistakes_are_told(tmp_path: Path, tiny_model: Path) -> None:
    """Wrong values, unknown options and missing ones are one PruneError that names each; nothing is made."""
    with pytest.raises(PruneError) as caught:
        prune_cli.finetune("train.jsonl", tmp_path / "out", model=str(tiny_model), epochs="many", step=3, tune="half")
    assert [line.partition(";")[0] for line in (caught.value.message, *caught.value.also)] == [
        'epochs: "many"',
        "step: unknown option",
        "tune: half",
    ]
    with pytest.raises(PruneError, match=r"^model: missing; allowed: a hub name or a folder; none with kind lexical$"):
        prune_cli.represent("train.jsonl", tmp_path / "out")
    with pytest.raises(PruneError) as caught:
        prune_cli.represent("train.jsonl", tmp_path / "out", model="m", pooling="max", layers=2)
    assert [caught.value.message, *caught.value.also][0].startswith("pooling: max; allowed: ")
    assert caught.value.also[0].startswith("layers: unknown option; did you mean layer? allowed: ")
    with pytest.raises(PruneError, match=r"^keep: 2.5; allowed: "):
        prune_cli.select(
            str(write_rows(tmp_path / "rows.jsonl", sentences(3))), tmp_path / "out", method="random", keep=2.5
        )
    with pytest.raises(PruneError, match="there is no such file"):
        prune_cli.score(tmp_path / "none.jsonl", tmp_path / "out", method="random")
    with pytest.raises(PruneError, match="no such artifact"):
        prune_cli.open_artifact(tmp_path / "none")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


def test_replace_and_force(tmp_path: Path) -> None:
    """Another option is refused unless replaced; force makes it again; fields rename the rows' keys."""
    rows = [{"words": row["text"], "label": row["label"]} for row in sentences(6)]
    data, out = write_rows(tmp_path / "rows.jsonl", rows), tmp_path / "kept"

    def select(keep: float | str, **how: bool) -> Artifact:
        return prune_cli.select(data, out, method="random", keep=keep, fields={"text": "words"}, **how)

    assert select(3).about["kept"] == 3
    with pytest.raises(PruneError, match=r"options\.n_keep 3 -> 2") as caught:
        select(2)
    assert caught.value.hint is not None
    assert select(2, replace=True).about["kept"] == 2
    first = (out / "manifest.json").stat().st_ino
    select(2, replace=True)
    assert (out / "manifest.json").stat().st_ino == first  # up to date
    select("2", force=True)
    assert (out / "manifest.json").stat().st_ino != first


def test_test_sets_are_named_by_their_files(folder: Path, tmp_path: Path) -> None:
    """One file, a list of files or names with files; two files of one name are refused."""
    one = prune_cli.evaluate(folder / "model", folder / "test.jsonl", tmp_path / "one")
    assert one.about["tests"] == {"test": 6}
    several = [folder / "test.jsonl", str(folder / "validation.jsonl")]
    assert list(prune_cli.evaluate(folder / "model", several, tmp_path / "two").about["tests"]) == [
        "test",
        "validation",
    ]
    with pytest.raises(PruneError, match="two test sets are called test"):
        prune_cli.evaluate(folder / "model", [folder / "test.jsonl"] * 2, tmp_path / "three")


def test_a_pipeline_returns_its_report(folder: Path, tiny_model: Path) -> None:
    """`pipeline` returns a result for each method, budget, seed and test set, which results.jsonl holds too."""
    (folder / "pipeline.toml").write_text(
        f'train = "train.jsonl"\nmodel = "{tiny_model}"\nmethods = ["random", "full"]\nkeep = [4]\nseeds = [0, 1]\n'
        'tests = {test = "test.jsonl"}\n[finetune]\nsteps = 1\n'
    )
    report = prune_cli.pipeline(folder / "pipeline.toml", folder / "runs", device="cpu")
    assert [(line["method"], line["kept"], line["seed"]) for line in report.results] == [
        ("random", 4, 0),
        ("random", 4, 1),
        ("full", 12, 0),
        ("full", 12, 1),
    ]
    assert report.results == read_rows(folder / "runs/results.jsonl")
    assert report.count("made") == 12
    assert prune_cli.pipeline(folder / "pipeline.toml", folder / "runs").count("made") == 0


def test_functions_stay_functions(folder: Path) -> None:
    """The functions that are called like packages stay, whatever is imported; the packages are found by their names."""
    for name in ("export", "pipeline", "represent", "score", "select"):
        package = importlib.import_module(f"prune_cli.{name}")
        assert package.__name__ == f"prune_cli.{name}" and hasattr(package, "__path__")
    from prune_cli.score import less
    from prune_cli.select import top

    assert less.__name__ == "prune_cli.score.less" and top.__name__ == "prune_cli.select.top"
    for name in prune_cli.__all__:
        assert name == "__version__" or type(getattr(prune_cli, name)).__name__ == "function", name


def test_importing_the_package_is_light() -> None:
    """`import prune_cli` loads neither numpy nor any larger library, and its names are there."""
    program = (
        "import sys, prune_cli; assert all(hasattr(prune_cli, name) for name in prune_cli.__all__);"
        "print({'numpy', 'torch', 'transformers', 'typer', 'msgspec', 'safetensors'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_errors_need_no_import_of_more(tmp_path: Path) -> None:
    """The functions work in a fresh process, one after the other, before and after modules of their name are loaded."""
    data = write_rows(tmp_path / "rows.jsonl", sentences(6))
    program = (
        "import prune_cli, prune_cli.score.loss, prune_cli.select.top\n"
        f"scored = prune_cli.score({str(data)!r}, {str(tmp_path / 'score')!r}, method='random')\n"
        f"kept = prune_cli.select(scored.path, {str(tmp_path / 'kept')!r}, method='top', keep=2)\n"
        "import prune_cli.pipeline.run, prune_cli.represent.kinds.hidden\n"
        "print(callable(prune_cli.pipeline), callable(prune_cli.represent), kept.about['kept'])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "True True 2\n"), done.stderr
