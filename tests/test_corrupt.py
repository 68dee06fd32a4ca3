"""Training rows that a pipeline makes worse: which, how, on record, and what is said of them."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import hypergeom
from sklearn.metrics import roc_auc_score

from prune_cli import tasks
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.corrupt import Corruption, copy_names
from prune_cli.data.open import Reading, open_rows
from prune_cli.data.rows import read_rows as opened
from prune_cli.errors import PruneError
from prune_cli.options import Score, Select
from prune_cli.pipeline.checks import read_plan
from prune_cli.report.corruption import facts, lines
from prune_cli.stages.common import How
from prune_cli.stages.corrupt import Corrupt, corrupt
from prune_cli.stages.score import score
from prune_cli.stages.select import select
from tests.conftest import Prune, read_rows, sentences, write_rows

LABELS = np.repeat([1, 0, 2], [100, 50, 40])


def test_imbalance_is_the_exponential_profile() -> None:
    """Of labels of 100, 50 and 40 rows the first keeps all, the second √0.04 = 0.2 of its own, the last 0.04."""
    drawn = Corruption(imbalance=0.04).draw(LABELS)
    assert Counter(LABELS[drawn.kept].tolist()) == {1: 100, 0: 10, 2: 2}
    assert Counter(LABELS[Corruption(imbalance=0.001).draw(LABELS).kept].tolist()) == {1: 100, 0: 2, 2: 1}
    assert len(Corruption(flip=0.1).draw(LABELS).kept) == len(LABELS)
    with pytest.raises(PruneError, match="imbalance: the rows have one label"):
        Corruption(imbalance=0.5).draw(LABELS * 0)


def test_shares_are_of_what_is_left() -> None:
    """112 rows are left: 11 are flipped, 22 repeated, all among them; each change is drawn for itself."""
    drawn = Corruption(flip=0.1, imbalance=0.04, duplicate=0.2).draw(LABELS)
    assert (len(drawn.flipped), len(drawn.copied), len(drawn)) == (11, 22, 134)
    assert set(drawn.flipped) | set(drawn.copied) <= set(drawn.kept)
    other = Corruption(flip=0.3, imbalance=0.04, duplicate=0.2).draw(LABELS)
    assert drawn.kept.tolist() == other.kept.tolist() and drawn.copied.tolist() == other.copied.tolist()
    assert set(drawn.flipped) <= set(other.flipped)
    assert (
        Corruption(flip=0.1, seed=1).draw(LABELS).flipped.tolist() != Corruption(flip=0.1).draw(LABELS).flipped.tolist()
    )


def test_a_flip_leaves_a_row_of_each_label() -> None:
    """However many are flipped; and which rows are is uniform: each about as often."""
    labels = np.array([0] * 7 + [1] * 2 + [2])
    times = np.zeros(10)
    for seed in range(400):
        flipped = Corruption(flip=0.7, seed=seed).draw(labels).flipped
        assert len(flipped) == 7 and len(set(np.delete(labels, flipped))) == 3
        times[Corruption(flip=0.2, seed=seed).draw(labels).flipped] += 1
    assert times[9] == 0 and (abs(times[:7] - times[:7].mean()) < 4 * np.sqrt(times[:7].mean())).all()
    with pytest.raises(PruneError, match=r"flip: 0\.8 of 10 rows; allowed: at most 7 rows"):
        Corruption(flip=0.8).draw(labels)


def test_copies_have_names_of_their_own() -> None:
    """Whatever the others are called."""
    assert copy_names([1, "1-copy", 3], np.array([0, 1, 2])) == ["1-copy-copy", "1-copy-copy-copy", "3-copy"]
    assert copy_names([1, "1-copy", "1-copy-copy"], np.array([0])) == ["1-copy-copy-copy"]


def flipped(task_name: str, rows: list[dict[str, Any]], folder: Path, n: int) -> list[dict[str, Any]]:
    """The rows with what a task changes of the first n."""
    task = tasks.load(task_name)
    read = opened(write_rows(folder / "rows.jsonl", rows), check=task.check, format=tasks.format_of(task_name, "auto"))
    changes = task.flips(read, np.arange(n), np.random.default_rng(0))
    return [{**row, **change} for row, change in zip(rows, changes, strict=False)]


def test_labels_flip_to_every_other_label(tmp_path: Path) -> None:
    """Never to their own, to each of the others about as often."""
    rows = [{"text": f"t {i}", "label": "abcd"[i % 4]} for i in range(1200)]
    pairs = Counter(
        (a["label"], b["label"]) for a, b in zip(rows, flipped("classification", rows, tmp_path, 1200), strict=True)
    )
    assert len(pairs) == 12 and all(a != b for a, b in pairs)
    assert all(70 < count < 130 for count in pairs.values())  # 100 expected, deviation 8
    with pytest.raises(PruneError, match="all rows have one label"):
        flipped("classification", [{"text": "t", "label": 1}, {"text": "u", "label": 1}], tmp_path, 1)


def test_a_choice_flips_to_another_choice_in_its_own_form(tmp_path: Path) -> None:
    """The three forms of a row."""
    own = {"question": "q", "choices": ["a", "b", "c"], "label": 1}
    arc = {"question": "q", "choices": {"text": ["a", "b"], "label": ["A", "B"]}, "answerKey": "B"}
    winogrande = {"sentence": "s _", "option1": "a", "option2": "b", "answer": "1"}
    changed = flipped("choice", [*[own] * 40, arc, winogrande, {**winogrande, "answer": 2}], tmp_path, 43)
    assert {row["label"] for row in changed[:40]} == {0, 2}
    assert changed[40:] == [{**arc, "answerKey": "A"}, {**winogrande, "answer": "2"}, {**winogrande, "answer": 1}]


def test_a_response_is_another_rows(tmp_path: Path) -> None:
    """In each format that has one; never one that says the same; a text by itself has none."""
    said = ["yes", "yes", "no", "maybe"]
    forms: list[Any] = [
        lambda s: {"prompt": "p", "response": s},
        lambda s: {"prompt": "p", "completion": s},
        lambda s: {"instruction": "p", "output": s},
        lambda s: {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": s}]},
        lambda s: {"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": s}]},
    ]
    for form in forms:
        changed = flipped("generation", [form(s) for s in said], tmp_path, 2)
        assert all(row in (form("no"), form("maybe")) for row in changed), changed
        with pytest.raises(PruneError, match="of 1000 rows none has another response than row 1"):
            flipped("generation", [form("a"), form("a")], tmp_path, 1)
    with pytest.raises(PruneError, match="rows of the format text have no response to exchange; allowed: alpaca, mess"):
        flipped("generation", [{"text": "a"}, {"text": "b"}], tmp_path, 1)


@pytest.mark.parametrize("own_ids", [True, False])
def test_rows_stay_as_they_came(own_ids: bool, tmp_path: Path) -> None:
    """Byte for byte but for the label, and the id of a copy; `why.jsonl` tells all that was done."""
    key = {"key": "r"} if own_ids else {}
    rows = [{**({"key": f"r{i}"} if key else {}), "t": f"text {i}", "y": "no" if i % 3 else "yes"} for i in range(60)]
    came = [json.dumps(row, separators=(" ,", ":  ")) for row in rows]
    (tmp_path / "rows.jsonl").write_text("\n".join(came) + "\n")
    fields = {"text": "t", "label": "y", **({"id": "key"} if own_ids else {})}
    opts = Corrupt(Corruption(flip=0.2, imbalance=0.5, duplicate=0.3, seed=4), "classification")
    for name in ("a", "b"):
        corrupt(str(tmp_path / "rows.jsonl"), tmp_path / name, opts, Reading(fields), How())
    for file in ("rows.jsonl", "why.jsonl", "ids.jsonl"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()

    why, written = read_rows(tmp_path / "a/why.jsonl"), (tmp_path / "a/rows.jsonl").read_text().splitlines()
    made = open_artifact(tmp_path / "a")
    assert made.about | {"changed": 10, "left_out": 10, "copies": 15, "rows": 65} == made.about
    ids: list[Any] = [f"r{i}" for i in range(60)] if own_ids else list(range(1, 61))
    assert [line["id"] for line in why[:60]] == ids
    assert [line["copy_of"] for line in why[:60]] == [None] * 60
    kept = [(i, line) for i, line in enumerate(why) if line["kept"]]
    assert len(kept) == len(written) == 65 and Counter(line["was"] is not None for line in why[:60])[True] == 10
    for (i, line), text in zip(kept, written, strict=True):
        source = i if i < 60 else ids.index(line["copy_of"])
        row = json.loads(text)
        if line["was"]:
            assert line["was"] == {"label": rows[source]["y"]} and row["y"] != rows[source]["y"]
        if i >= 60:
            assert line["id"] == f"{line['copy_of']}-copy" and line["was"] == why[source]["was"]
        if not line["was"] and (i < 60 or not own_ids):
            assert text == came[source]
        assert row == {**rows[source], "y": row["y"], **({"key": line["id"]} if own_ids else {})}

    reread = open_rows(str(tmp_path / "a"), Reading(), None)
    assert reread.ids == [line["id"] for _, line in kept]
    assert [row["label"] for row in reread] == [json.loads(line)["y"] for line in written]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A pipeline's folder by hand: corrupted rows, a score of them, two random selections and one of the longest."""
    rows = [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(sentences(60))]
    data, out = str(write_rows(tmp_path / "train.jsonl", rows)), tmp_path / "run"
    corrupt(data, out / "corrupt", Corrupt(Corruption(0.25, 0.5, 0.5), "classification"), Reading(), How())
    score([str(out / "corrupt")], out / "score/longest", Score("length"), Reading(), How())
    for name, opts, source in (
        ("random/keep-30/seed-0", Select("random", "30"), "corrupt"),
        ("random/keep-30/seed-1", Select("random", "30", seed=1), "corrupt"),
        ("longest/keep-12", Select("top", "12"), "score/longest"),
    ):
        select([str(out / source)], out / "methods" / name / "select", opts, Reading(), How(warn=False))
    return out


TRIALS = [("random", "30", 0), ("random", "30", 1), ("longest", "12", 0), ("longest", "12", 1), ("gone", "12", 0)]


def test_what_selections_and_scores_make_of_corrupted_rows(run: Path) -> None:
    """The figures are those counted by hand, chance is scipy's, the area is scikit-learn's."""
    clean, rows = read_rows(run.parent / "train.jsonl"), read_rows(run / "corrupt/rows.jsonl")
    label = {row["id"]: row["label"] for row in clean}
    wrong = [label[row["id"].removesuffix("-copy")] != row["label"] for row in rows]
    at = {row["id"]: i for i, row in enumerate(rows)}
    pairs = [(i, at[row["id"].removesuffix("-copy")]) for i, row in enumerate(rows) if row["id"].endswith("-copy")]
    found = facts(run, TRIALS)
    assert found is not None
    counted = (len(rows), sum(wrong), len(pairs), 10)
    assert (found["rows"], found["changed"], found["copies"], found["left_out"]) == counted
    assert [(own["method"], own["keep"], own["seeds"], own["kept"]) for own in found["selections"]] == [
        ("random", "30", 2, 30),
        ("longest", "12", 1, 12),
    ]
    for own in found["selections"]:
        files = sorted((run / "methods" / own["method"]).glob("**/select/why.jsonl"))
        kept = [[line["kept"] for line in read_rows(file)] for file in files]
        inside = np.mean([sum(k and w for k, w in zip(one, wrong, strict=True)) for one in kept])
        assert own["precision"] == pytest.approx(inside / own["kept"])
        assert own["recall"] == pytest.approx(inside / sum(wrong))
        assert own["precision_left_out"] == pytest.approx((sum(wrong) - inside) / (len(rows) - own["kept"]))
        assert own["recall_left_out"] == pytest.approx(1 - inside / sum(wrong))
        assert own["repeats"] == np.mean([sum(one[i] and one[j] for i, j in pairs) for one in kept]) > 0
        low, high = (int(hypergeom(len(rows), sum(wrong), own["kept"]).ppf(tail)) for tail in (0.025, 0.975))
        assert own["chance"] == [low / own["kept"], high / own["kept"]]
    lengths = [line["score"] for line in read_rows(run / "score/longest/score.jsonl")]
    [area] = found["scores"]
    assert area["score"] == "longest" and area["area"] == pytest.approx(roc_auc_score(wrong, lengths))
    head, _, *told = [line for line in lines(found) if line]
    assert head.startswith(f"Of {len(rows)} training rows {sum(wrong)} (")
    assert head.endswith(f"{len(pairs)} are copies, 10 more, of rarer labels, were left out.")
    assert [line.split()[0] for line in told] == ["random", "longest", "Probability", "longest"]


def test_selections_of_other_rows_are_not_told_of(run: Path) -> None:
    """Those that an earlier run left are about rows that were not corrupted, or otherwise."""
    data = str(run.parent / "train.jsonl")
    corrupt(data, run / "corrupt", Corrupt(Corruption(0.1), "classification"), Reading(), How(replace=True))
    assert facts(run, TRIALS) is None
    assert list(lines(None)) == []


FILE = """
train = "train.jsonl"
validation = {validation}
model = "{model}"
methods = ["random", "less"]
keep = [{keep}]
seeds = [0, 1]

[corrupt]
{corrupt}

[tests]
test = "test.jsonl"

[warmup]
epochs = 1

[represent]
dim = 16

[finetune]
steps = 1
"""


@pytest.fixture
def folder(tmp_path: Path, data: Path, tiny_model: Path) -> Path:
    """train.jsonl, 60 rows of different texts, and pipeline.toml, which corrupts them."""
    rows = [{**row, "text": f"{row['text']} {i}"} for i, row in enumerate(sentences(60))]
    write_rows(tmp_path / "train.jsonl", rows)
    (tmp_path / "test.jsonl").write_bytes((data / "test.jsonl").read_bytes())
    given = {"validation": 0.2, "model": tiny_model, "keep": 12, "corrupt": "flip = 0.25\nduplicate = 0.1\nseed = 3"}
    (tmp_path / "pipeline.toml").write_text(FILE.format(**given))
    return tmp_path


@pytest.mark.slow  # trains eight models
def test_a_pipeline_on_corrupted_rows(folder: Path, prune: Prune) -> None:
    """What is split off stays clean, all else rests on the corrupted rows."""
    command = ["pipeline", folder / "pipeline.toml", "-o", folder / "runs"]
    planned = prune(*command, "--dry-run", "--json")
    assert planned.code == 0, planned.err
    done = prune(*command, "--json")
    assert done.code == 0, done.err
    assert [step["step"] for step in done.json()["steps"]] == [step["step"] for step in planned.json()["steps"]]
    runs = folder / "runs"
    clean = {row["id"]: row for row in read_rows(folder / "train.jsonl")}
    assert all(clean[row["id"]] == row for row in read_rows(runs / "split/validation/select.jsonl"))
    rows, why = read_rows(runs / "corrupt/rows.jsonl"), read_rows(runs / "corrupt/why.jsonl")
    assert len(rows) == len(why) == 48 + 5
    wrong = [clean[row["id"].removesuffix("-copy")]["label"] != row["label"] for row in rows]
    assert wrong == [line["was"] is not None for line in why] and sum(wrong[:48]) == 12
    assert open_artifact(runs / "warmup").about["rows"] == 53

    found = done.json()["corruption"]
    assert found == facts(runs, [(line["method"], line["keep"], line["seed"]) for line in done.json()["results"]])
    assert [own["score"] for own in found["scores"]] == ["less"]

    told = prune(*command)
    assert "pipeline: nothing to do" in told.err and told.out == prune("show", runs).out
    assert f"\nOf 53 training rows {sum(wrong)} (" in told.out and "5 are copies." in told.out
    assert re.search(r"\n  less +12 +\d", told.out) and re.search(r"\n  less +0\.\d{3} \[", told.out)
    assert prune("show", runs / "corrupt").out.startswith(f"{runs / 'corrupt'}: 53 rows: 12 with another answer, 5 cop")
    file = folder / "pipeline.toml"
    file.write_text(file.read_text().replace("seed = 3", "seed = 4"))
    changed = {step["step"]: step for step in prune(*command, "--json", "--dry-run").json()["steps"]}
    assert changed["split train"]["state"] == "current" and changed["corrupt"]["reason"] == "options.seed 3 -> 4"
    assert {step["state"] for name, step in changed.items() if "split" not in name} == {"would run"}
    file.write_text(file.read_text().replace("flip = 0.25\nduplicate = 0.1", ""))
    assert prune(*command).code == 0 and "training rows" not in prune("show", runs).out  # rests on clean rows again


@pytest.mark.parametrize(
    ("table", "told"),
    [
        ("flip = 1", "corrupt.flip: 1; allowed: a number, 0 or more, below 1"),
        ("flop = 0.1", "corrupt.flop: unknown option; did you mean flip? allowed: flip, imbalance, duplicate, seed"),
        ("imbalance = 0", "corrupt.imbalance: 0; allowed: a number above 0, at most 1"),
        ("flip = 0.99", "corrupt: flip: 0.99 of 48 rows; allowed: at most 46 rows"),
        ("imbalance = 0.01", "keep: 40; allowed: a number of rows from 1 to 33"),
    ],
)
def test_the_table_is_checked_with_the_file(table: str, told: str, folder: Path) -> None:
    """A wrong share, more labels than can change, a budget that is more than the rows that are left."""
    file = folder / "pipeline.toml"
    text = file.read_text().replace("keep = [12]", "keep = [40]")
    file.write_text(text.replace("flip = 0.25\nduplicate = 0.1\nseed = 3", table))
    with pytest.raises(PruneError) as raised:
        read_plan(file)
    assert any(f"{file}: {told}" in line for line in (raised.value.message, *raised.value.also)), raised.value
