"""What scores and selections read: joins by id, labels, groups, kinds, the task, and what makes them stale."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli import tasks
from prune_cli.artifacts import manifest as artifact
from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data import open as opening
from prune_cli.data import rows
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.methods import call, inputs
from prune_cli.methods import method as methods
from prune_cli.methods.balance import select as balanced
from prune_cli.numeric import blocks as _blocks
from prune_cli.options import Score
from tests.conftest import Prune, Ran, read_rows, sentences, write_rows

DYNAMICS = ["--kind", "dynamics", "--dynamics", "recorded"]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(ran: Ran, *parts: str) -> None:
    """One error line that holds all the parts, and no output left."""
    assert (ran.code, len(ran.errors)) == (1, 1), ran.err
    for part in parts:
        assert part in ran.errors[0]
    assert not Path("out").exists() and not Path("out.part").exists()


def without_ids(n: int, start: int = 0) -> list[dict[str, Any]]:
    """Rows whose ids are their line numbers."""
    return [{"text": row["text"], "label": row["label"]} for row in sentences(n, start)]


def scores(path: Path) -> dict[Any, float]:
    """Id -> score."""
    return {line["id"]: line["score"] for line in read_rows(path / "score.jsonl")}


@pytest.fixture
def trained(here: Path, prune: Prune, tiny_model: Path) -> Path:
    """A model trained for two epochs on rows without ids, its last weights alone kept."""
    write_rows(here / "train.jsonl", without_ids(12))
    quick = ["--epochs", 2, "--batch-size", 6, "--learning-rate", "1e-2"]
    done = prune("finetune", "train.jsonl", "-o", "warmup", "--model", tiny_model, *quick)
    assert done.code == 0, done.err
    return here / "warmup"


def test_recorded_dynamics_are_for_the_rows_trained_on(trained: Path, here: Path, prune: Prune) -> None:
    """A line number that is another row's in training is an error; the same rows in part, with their ids, are not."""
    write_rows(here / "validation.jsonl", without_ids(6, start=100))
    check(
        prune("represent", "validation.jsonl", "-o", "out", "--model", trained, *DYNAMICS),
        "validation.jsonl:1: id 1 is that of another row in ",
        "warmup; allowed: the same row under the same id",
    )
    part = [{**row, "id": i + 1} for i, row in enumerate(without_ids(12))][::-2]
    write_rows(here / "part.jsonl", part)
    done = prune("represent", "part.jsonl", "-o", "rep", "--model", trained, *DYNAMICS)
    assert done.code == 0, done.err
    recorded = tensors.load(trained / "dynamics.safetensors")["logprob"]
    order = [row["id"] - 1 for row in part]
    np.testing.assert_array_equal(tensors.load(here / "rep" / "dynamics.safetensors")["logprob"], recorded[order])


def test_recorded_dynamics_show_their_own_checkpoints(trained: Path, prune: Prune) -> None:
    """Two recorded epochs have two rates, though one checkpoint was kept: 2 steps an epoch fall linearly from 1e-2."""
    done = prune(
        "represent", "train.jsonl", "-o", "rep", "--model", trained, *DYNAMICS[2:], "--kind", "hidden,dynamics"
    )
    assert done.code == 0, done.err
    shown = prune("show", "rep", "--json").json()
    assert shown["tensors"]["logprob"]["shape"] == [12, 2]
    steps = [1e-2 * left / 4 for left in (4, 3, 2, 1)]
    assert shown["checkpoints"]["dynamics"] == pytest.approx({"1": np.mean(steps[:2]), "2": np.mean(steps[2:])})
    assert shown["checkpoints"]["hidden"] == pytest.approx({"last": np.mean(steps)})
    text = prune("show", "rep").out
    assert "dynamics 1: mean learning rate 0.00875" in text and "hidden last: mean learning rate 0.00625" in text


def test_kinds_of_the_same_checkpoints_share_their_lines(prune: Prune, made: Path) -> None:
    """Where all kinds rest on the same checkpoints each is told once."""
    lines = prune("show", made / "train").out.splitlines()
    assert len([line for line in lines if "mean learning rate" in line]) == 2


def test_a_score_is_of_rows_not_of_lines(here: Path, prune: Prune) -> None:
    """Scores of rows that have no ids are of no use for the lines of an edited file, from whichever side."""
    write_rows(here / "data.jsonl", without_ids(6))
    write_rows(here / "edited.jsonl", without_ids(6)[::-1])
    assert prune("score", "data.jsonl", "-o", "score", "--method", "random").code == 0
    select = ["-o", "out", "--method", "top", "--keep", 3]
    check(prune("select", "edited.jsonl", "score", *select), "edited.jsonl:1: id 1 is that of another row in score")
    kept = prune("select", "data.jsonl", "score", *select)
    assert kept.code == 0, kept.err


def test_a_row_with_an_id_is_found_wherever_it_stands(here: Path, prune: Prune) -> None:
    """Rows in another order, or fewer of them, keep their scores by id; one whose text was edited has none."""
    write_rows(here / "data.jsonl", sentences(8))
    assert prune("score", "data.jsonl", "-o", "score", "--method", "random").code == 0
    (here / "data.jsonl").unlink()
    given = scores(here / "score")
    write_rows(here / "part.jsonl", sentences(8)[::-1][:5])
    assert (
        prune("select", "part.jsonl", "score", "-o", "kept", "--method", "top", "--keep", 2, "--order", "best").code
        == 0
    )
    best = sorted((f"row-{i}" for i in range(3, 8)), key=lambda key: -given[key])[:2]
    assert [row["id"] for row in read_rows(here / "kept" / "select.jsonl")] == best
    edited = [{**row, "text": "good"} if row["id"] == "row-4" else row for row in sentences(8)]
    write_rows(here / "edited.jsonl", edited)
    check(
        prune("select", "edited.jsonl", "score", "-o", "out", "--method", "top", "--keep", 2),
        "edited.jsonl:5: id row-4 is that of another row in score",
    )


def test_a_representation_is_of_rows_not_of_lines(here: Path, prune: Prune, tiny_model: Path) -> None:
    """A tensor's row is used for the same row alone; in another order each row keeps its own."""
    write_rows(here / "data.jsonl", without_ids(6))
    represent = ["--model", tiny_model, "--kind", "hidden"]
    assert prune("represent", "data.jsonl", "-o", "rep", *represent).code == 0
    write_rows(here / "edited.jsonl", without_ids(6)[::-1])
    score = ["--method", "prototypicality", "--set", "k=2"]
    check(
        prune("score", "edited.jsonl", "rep", "-o", "out", *score), "edited.jsonl:1: id 1 is that of another row in rep"
    )
    turned = [{"id": 6 - i, **row} for i, row in enumerate(without_ids(6)[::-1])]
    write_rows(here / "turned.jsonl", turned)
    prepared = call.prepare("score", ["turned.jsonl", "rep"], Score("prototypicality"), Reading())
    stored = tensors.load(here / "rep" / "hidden.safetensors")["hidden"]
    np.testing.assert_array_equal(prepared.read()["features"], stored[::-1].reshape(6, -1))


def test_labels_outlive_a_selection(here: Path, prune: Prune, made: Path) -> None:
    """A selection from a selection, and one by a score of a representation, has all labels of the data."""
    negative = [row for row in sentences(12) if row["label"] == "negative"]
    write_rows(here / "data.jsonl", [*negative, *(row for row in sentences(12) if row["label"] == "positive")])
    for source, out, keep in (("data.jsonl", "k1", 9), ("k1", "k2", 1)):
        assert prune("select", source, "-o", out, "--method", "random", "--keep", keep).code == 0
    assert open_artifact(here / "k2").about["labels"] == ["negative", "positive"]
    assert len({row["label"] for row in read_rows(here / "k2" / "select.jsonl")}) == 1

    assert prune("score", made / "train", "-o", "score", "--method", "loss").code == 0
    assert prune("select", "score", "-o", "k3", "--method", "top", "--keep", 1).code == 0
    assert prune("select", "k3", "score", "-o", "k4", "--method", "top", "--keep", 1).code == 0
    for out in ("k3", "k4"):
        assert open_artifact(here / out).about["labels"] == ["negative", "positive"]


def test_groups_in_all_rows_or_in_none(here: Path, prune: Prune, made: Path) -> None:
    """A target set with a group in some rows is an error that names the first without; with all it is used."""
    validation = sentences(6, start=100)
    represent = ["--model", made / "warmup", "--kind", "gradient", "--dim", 64]
    score = ["score", made / "train", "--method", "less", "--on", "gradient", "--target", "target"]
    write_rows(here / "some.jsonl", [{**row, **({"group": "a"} if i != 2 else {})} for i, row in enumerate(validation)])
    assert prune("represent", "some.jsonl", "-o", "target", *represent).code == 0
    check(prune(*score, "-o", "out"), "target/rows.jsonl:3: key group is missing, which other rows have")
    write_rows(here / "all.jsonl", [{**row, "group": i} for i, row in enumerate(validation)])
    assert prune("represent", "all.jsonl", "-o", "target", *represent, "--replace").code == 0
    done = prune(*score, "-o", "out")
    assert done.code == 0, done.err


def test_less_takes_the_best_of_the_groups_of_its_target_set(here: Path, prune: Prune, made: Path) -> None:
    """With groups, a row's score is the largest of those that it has by each group alone as the target set."""
    represent = ["--model", made / "warmup", "--kind", "gradient", "--dim", 64]
    rows = sentences(7, start=100)
    parts = {"both": rows, "a": rows[:3], "b": rows[3:]}
    for name, part in parts.items():
        write_rows(here / f"{name}.jsonl", [{**row, "group": "a" if row in rows[:3] else "b"} for row in part])
        assert prune("represent", f"{name}.jsonl", "-o", f"rep-{name}", *represent).code == 0
        score = ["--method", "less", "--on", "gradient", "--target", f"rep-{name}"]
        assert prune("score", made / "train", "-o", name, *score).code == 0
    by_a, by_b, both = (scores(here / name) for name in ("a", "b", "both"))
    assert both == pytest.approx({key: max(by_a[key], by_b[key]) for key in by_a})
    assert any(by_a[key] > by_b[key] for key in by_a) and any(by_a[key] < by_b[key] for key in by_a)


def test_a_selection_can_be_balanced_by_group(here: Path, prune: Prune) -> None:
    """Of groups of 16, 6 and 2 rows a budget of 12 is 8, 3, 1 by the data's ratio and 5, 5, 2 by equal shares."""
    names = ["web"] * 16 + ["book"] * 6 + ["chat"] * 2
    grouped = [{**row, "group": name} for row, name in zip(sentences(24), names, strict=True)]
    write_rows(here / "data.jsonl", grouped)
    for balance, counts in (("keep", [8, 3, 1]), ("equal", [5, 5, 2])):
        select = ["--method", "random", "--keep", 12, "--balance", balance, "--balance-by", "group"]
        done = prune("select", "data.jsonl", "-o", balance, *select)
        assert done.code == 0, done.err
        kept = [row["group"] for row in read_rows(here / balance / "select.jsonl")]
        assert [kept.count(name) for name in ("web", "book", "chat")] == counts
        few = "1 of 3 groups has fewer rows than an equal share, 4: chat (2 rows); all of its rows that may be kept are"
        assert (few in done.err) == (balance == "equal")
    done = prune("select", "data.jsonl", "-o", "six", *select[:2], "--keep", 6, *select[4:])
    assert done.code == 0 and "equal share" not in done.err
    again = prune("select", "data.jsonl", "-o", "keep", *select[:4], "--balance", "keep")
    assert again.code == 1 and 'options.balance_by "group" -> "label"' in again.errors[0]


def test_what_cannot_be_balanced_is_told(here: Path, prune: Prune) -> None:
    """Rows without groups, a task without labels, and a balance by something without a balance: one line each."""
    write_rows(here / "data.jsonl", sentences(6))
    select = ["select", "data.jsonl", "-o", "out", "--method", "random", "--keep", 3]
    by_group = ["--balance-by", "group"]
    check(prune(*select, "--balance", "keep", *by_group), "data.jsonl:1: key group is missing; --balance-by group")
    check(prune(*select, *by_group), "balance_by: group; allowed only with a balance")
    write_rows(here / "data.jsonl", [{"prompt": "a", "response": "b"}] * 3)
    told = prune(*select, "--balance", "equal", "--task", "generation")
    check(told, "rows of the task generation have no labels to balance by")
    assert "hint: --balance-by group" in told.err
    write_rows(here / "data.jsonl", [*sentences(3), {"text": "fine"}])
    told = prune(*select, "--balance", "equal")
    check(
        told,
        'data.jsonl:4: no "label"; the row has: "text"; --balance needs one in every row',
    )


def test_the_task_of_a_data_file_is_said(here: Path, prune: Prune, made: Path) -> None:
    """A task that there is none of is an error that names those there are, and one that an artifact denies too."""
    write_rows(here / "data.jsonl", sentences(6))
    select = ["-o", "out", "--method", "random", "--keep", 3, "--task"]
    check(prune("select", "data.jsonl", *select, "sorting"), "task: sorting; allowed: ", "classification")
    check(prune("select", made / "train", *select, "sorting"), "is of the task classification; leave --task out")
    done = prune("select", "data.jsonl", *select, "classification")
    assert done.code == 0, done.err


def test_rows_are_read_once_while_their_file_stays_the_same(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a file twice reads it once; another check, other fields, or a changed file are read anew."""
    read: list[str] = []

    def counted(data: str, fields: dict[str, str], **options: Any) -> rows.Rows:
        read.append(data)
        return rows.read_rows(data, fields, **options)

    monkeypatch.setattr(opening, "read_rows", counted)
    plain = Reading(format=None)  # rows of this task have no format
    path, check = write_rows(here / "data.jsonl", sentences(6)), tasks.load("classification").check
    first = opening.open_rows("data.jsonl", plain, check)
    assert opening.open_rows("data.jsonl", plain, check) is first
    assert len(read) == 1
    opening.open_rows("data.jsonl", plain, None)
    opening.open_rows("data.jsonl", Reading({"words": "text"}, format=None), None)
    assert len(read) == 3
    write_rows(path, sentences(6)[::-1])  # as long as before
    second = opening.open_rows("data.jsonl", plain, check)
    assert [row["id"] for row in second] == [row["id"] for row in sentences(6)[::-1]]
    with pytest.raises(PruneError, match="was changed while in use"):
        first[0]


def test_on_is_for_methods_that_run_on_any_representation(here: Path, prune: Prune, made: Path) -> None:
    """A method that names its tensors has no choice, whether or not it also reads the learning rate."""
    for method, on in (("memorization", "hidden"), ("memorization", "gradient"), ("el2n", "dynamics")):
        check(
            prune("score", made / "train", "-o", "out", "--method", method, "--on", on),
            f"--on {on}: this method runs on no representation",
        )
    assert prune("score", made / "train", "-o", "out", "--method", "memorization").code == 0
    assert open_artifact(here / "out").options["on"] == "gradient"


def test_one_representation_of_a_kind(here: Path, prune: Prune, made: Path) -> None:
    """Of two represent artifacts that both hold what is read none is preferred: both are named."""
    both = [made / "train", made / "validation"]
    check(prune("score", *both, "-o", "out", "--method", "el2n"), f"{both[0]} and {both[1]}: each holds dynamics")


def test_an_up_to_date_stage_reads_no_input(
    here: Path, prune: Prune, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is up to date is known by the manifests: no file of the inputs is hashed, parsed or mapped."""
    score = [
        "score",
        made / "train",
        "-o",
        "out",
        "--method",
        "less",
        "--on",
        "gradient",
        "--target",
        made / "validation",
    ]
    select = ["select", "out", made / "train", "-o", "kept", "--method", "top", "--keep", 5, "--balance", "equal"]
    for command in (score, select):
        done = prune(*command)
        assert done.code == 0, done.err

    def unread(*_: object, **__: object) -> Any:
        raise AssertionError("read")

    monkeypatch.setattr(artifact.Artifact, "file", unread)
    monkeypatch.setattr(opening, "read_rows", unread)
    monkeypatch.setattr(tensors, "load", unread)
    for command in (score, select):
        again = prune(*command)
        assert again.code == 0 and "up to date" in again.err, again.err


def test_a_large_reordering_is_a_map_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the limit the rows at given positions, some twice, are a read-only map, written in blocks."""
    array = np.random.default_rng(0).normal(size=(50, 3, 4)).astype(np.float16)
    positions = np.random.default_rng(1).integers(0, 50, 70)
    for limit, numbers in ((2**28, 2**22), (0, 2**22), (0, 9), (0, 1)):
        monkeypatch.setattr(_blocks, "IN_MEMORY", limit)
        monkeypatch.setattr(_blocks, "NUMBERS", numbers)
        taken = _blocks.rows_at(array, positions)
        assert isinstance(taken, np.memmap) == (limit == 0)
        np.testing.assert_array_equal(taken, array[positions])
        np.testing.assert_array_equal(taken.reshape(70, -1)[:, None, :][::2], array[positions].reshape(70, 1, -1)[::2])


@pytest.mark.parametrize("name", ["kmeans", "top"])
def test_methods_run_on_maps_as_on_copies(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A balanced selection is the same whether a label's share lies in memory or on disk."""
    method = methods.load("select", name)
    draw = np.random.default_rng(0)
    every = {"features": draw.normal(size=(40, 5)).astype(np.float32), "score": draw.normal(size=40)}
    label = np.arange(40) % 3
    found = []
    for limit in (2**28, 0):
        monkeypatch.setattr(_blocks, "IN_MEMORY", limit)
        given: dict[str, Any] = {"n_keep": 13, "rng": np.random.default_rng(1), "k": 4, **every}
        arguments = {key: given[key] for key in [*method.inputs, *method.options] if key in given}
        found.append(balanced(method, arguments, label, 13, "equal", 40).positions.tolist())
    assert found[0] == found[1]


def test_the_task_is_that_of_the_artifacts(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The task travels from a representation to its scores and selections; two tasks do not go together."""
    for found in ("train", "score", "kept"):
        given = inputs.collect([str(made / found)], Reading())
        assert given.task_name == "classification" and given.task is tasks.load("classification")

    def opened(path: Path, *stages: str) -> artifact.Artifact:
        found = open_artifact(path, *stages)
        if path.name == "score":
            found.manifest["recipe"]["options"]["task"] = "other"
        return found

    monkeypatch.setattr(inputs, "open_artifact", opened)
    with pytest.raises(PruneError, match="inputs of different tasks"):
        inputs.collect([str(made / "train"), str(made / "score")], Reading())


def test_a_selection_is_no_other_kind_of_input(made: Path) -> None:
    """Each artifact is kept under what it is, and the rows are those of the selection."""
    found = inputs.collect([str(made / name) for name in ("kept", "train", "score")], Reading())
    assert [len(each) for each in (found.selected, found.represented, found.scored)] == [1, 1, 1]
    assert found.n == len(found.rows) == 12
    assert found.digest == found.rows.digest == rows.read_rows(made / "kept" / "select.jsonl", check=None).digest


@pytest.mark.parametrize(
    ("option", "told"),
    [
        (["--field", "text=sentence"], "field: text=sentence"),
        (["--drop", "id"], "drop: id"),
        (["--format", "alpaca"], "format: alpaca"),
    ],
)
def test_how_rows_are_read_is_not_said_again_of_artifacts(
    option: list[str], told: str, made: Path, data: Path, tiny_model: Path, tmp_path: Path, prune: Prune
) -> None:
    """An option for data files is refused where artifacts alone are given, not passed over."""
    out = ["-o", tmp_path / "out", *option]
    allowed = "; allowed for data files; leave it out, artifacts know it"
    for command in (
        ["score", made / "train", "--method", "memorization"],
        ["select", made / "score", "--method", "top", "--keep", 3],
        ["finetune", made / "kept", "--model", tiny_model],
        ["represent", made / "kept", "--model", made / "warmup"],
    ):
        done = prune(*command, *out)
        assert done.code == 1 and done.errors == [told + allowed], command
