"""`prune compare`, the warnings of select and eval, and what `prune show` tells of them."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

import prune_cli
from prune_cli.artifacts import tensors
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.artifacts.removal import remove_files
from prune_cli.report.compare import representations
from prune_cli.stages import baseline, counts
from tests.conftest import Prune, read_rows, sentences, write_rows
from tests.test_similarity import brute_cka

N = 40


@pytest.fixture(scope="module")
def chosen(tmp_path_factory: pytest.TempPathFactory, prune: Prune) -> Path:
    """40 rows (14 negative, 26 positive; groups a, b, c), two scores, selections of 8 and of 4 rows."""
    folder = tmp_path_factory.mktemp("compare")
    rows = [{**row, "group": "abc"[i % 3]} for i, row in enumerate(sentences(N))]
    data = write_rows(folder / "train.jsonl", rows)
    length, drawn = folder / "length", folder / "drawn"
    for command in (
        ["score", data, "-o", length, "--method", "length"],
        ["score", data, "-o", drawn, "--method", "random"],
        ["select", length, "-o", folder / "long", "--method", "top", "--keep", 8],
        ["select", drawn, "-o", folder / "some", "--method", "top", "--keep", 8],
        ["select", drawn, "-o", folder / "few", "--method", "top", "--keep", 4],
    ):
        ran = prune(*command)
        assert ran.code == 0, ran.err
    return folder


@pytest.fixture
def here(chosen: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of all that was chosen, to work in."""
    monkeypatch.chdir(chosen)
    return chosen


def kept(path: Path) -> set[str]:
    return {line["id"] for line in read_jsonl(path / "why.jsonl") if line["kept"]}


def test_what_selections_and_scores_have_in_common(here: Path, prune: Prune) -> None:
    """Counts, quantiles and shares are those of the files; the API gives what the command prints and writes."""
    names = ["length", "drawn", "long", "some", "few"]
    facts = prune("compare", *names, "--json", "-o", "all.json").json()
    assert facts == prune_cli.compare(names) == json.loads((here / "all.json").read_text())
    assert (facts["rows"], facts["scores"]) == (N, ["length", "drawn"])
    assert facts["selections"] == {"long": 8, "some": 8, "few": 4}
    pairs = {(pair["a"], pair["b"]): pair for pair in facts["overlaps"]}
    common = len(kept(here / "long") & kept(here / "some"))
    assert (pairs["long", "some"]["common"], pairs["long", "some"]["overlap"]) == (common, common / 8)
    assert pairs["long", "some"]["jaccard"] == common / (16 - common)
    assert pairs["some", "few"]["overlap"] == 1 and pairs["some", "few"]["p_at_least"] < 0.01
    (pair,) = facts["correlations"]
    assert pair["spearman_interval"][0] < pair["spearman"] < pair["spearman_interval"][1]
    assert facts["quantiles"]["some"]["drawn"] == pytest.approx(1 - 4 / N)
    labels = {row["id"]: row["label"] for row in read_rows(here / "train.jsonl")}
    positive = sum(labels[key] == "positive" for key in kept(here / "some")) / 8
    assert facts["shares"]["label"]["all"] == {"negative": 14 / N, "positive": 26 / N}
    assert facts["shares"]["label"]["selections"]["some"]["shares"]["positive"] == positive
    assert set(facts["shares"]["group"]["all"]) == {"a", "b", "c"}
    ran = prune("compare", *names)
    assert ran.code == 0 and "Selections of 8 rows" in ran.out and "Selections of different sizes: 2 pairs" in ran.out
    ran = prune("compare", *names, "-o", "all.json")
    assert (ran.code, ran.errors) == (1, ["all.json: exists; choose another -o"])


def test_rows_in_another_order_are_the_same_rows(here: Path, prune: Prune) -> None:
    """Artifacts of a file with the rows turned round give what those of the first file give."""
    write_rows(here / "turned.jsonl", read_rows(here / "train.jsonl")[::-1])
    assert prune("score", "turned.jsonl", "-o", "length-2", "--method", "length").code == 0
    assert prune("select", "length-2", "-o", "long-2", "--method", "top", "--keep", 8).code == 0
    facts = prune("compare", "length", "length-2", "some", "long-2", "--json").json()
    assert facts["correlations"][0]["pearson"] == pytest.approx(1)
    assert facts["overlaps"][0]["common"] == len(kept(here / "some") & kept(here / "long-2"))


def test_other_rows_are_an_error(here: Path, prune: Prune) -> None:
    """Fewer rows, another row under an id, an id that is not there, one artifact alone, one given twice."""
    rows = read_rows(here / "train.jsonl")
    others = {
        "fewer": (rows[:30], "fewer: about 30 rows; length about 40"),
        "changed": ([{**rows[0], "text": "the film"}, *rows[1:]], "changed: id row-0 of length is that of another row"),
        "renamed": ([{**rows[0], "id": "new"}, *rows[1:]], "renamed: id row-0 of length is not in it"),
    }
    for name, (given, told) in others.items():
        write_rows(here / f"{name}.jsonl", given)
        assert prune("score", f"{name}.jsonl", "-o", name, "--method", "length").code == 0
        assert prune("compare", "length", name).errors == [f"{told}; allowed: artifacts about the same rows"]
    assert prune("compare", "length").errors == ["length: 1 artifact to compare; allowed: two or more"]
    assert prune("compare", "length", "length").errors == ["length: given twice; allowed: each artifact once"]


def test_representations_beside_each_other(made: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """CKA is Kornblith's, debiased, of the tensors as they are multiplied; rows are drawn where features are many."""
    command = ["compare", made / "train", made / "score", made / "kept", "--k", 3, "--json"]
    found = prune(*command).json()["representations"]
    assert [own["name"] for own in found["each"]] == ["dynamics", "gradient", "hidden"]
    assert (found["cka_rows"], found["rows"], found["chance_in_common"]) == (24, 24, 3 / 23)
    held = {kind: tensors.load(made / f"train/{kind}.safetensors") for kind in ("hidden", "gradient")}
    hidden = held["hidden"]["hidden"].astype(np.float64).reshape(24, -1)
    scale = held["gradient"]["gradient_scale"].astype(np.float64)
    gradient = (held["gradient"]["gradient"].astype(np.float64) * scale[:, :, None]).reshape(24, -1)
    (pair,) = [pair for pair in found["pairs"] if {pair["a"], pair["b"]} == {"hidden", "gradient"}]
    assert pair["cka"] == pytest.approx(brute_cka(hidden, gradient), rel=1e-6)
    monkeypatch.setattr(representations, "WORK", 100)
    drawn = prune(*command, "--sample", 12).json()["representations"]
    assert (drawn["cka_rows"], drawn["rows"]) == (12, 12)
    assert prune(*command[:-3], "--k", 24).errors == [
        "k: 24; allowed: from 1 to 23, of 24 rows, which must be 4 or more"
    ]


def test_a_selection_warns_of_what_it_loses(here: Path, prune: Prune) -> None:
    """A label or group without a kept row, or with less than half of its share, is told, kept, and shown again."""
    rows = [{"text": "very " * i + "good", "label": "abc"[i // 10], "group": f"g{i // 2:02}"} for i in range(30)]
    write_rows(here / "parts.jsonl", rows)  # c is the longest, a the shortest
    assert prune("score", "parts.jsonl", "-o", "by", "--method", "length").code == 0
    ran = prune("select", "by", "-o", "top", "--method", "top", "--keep", 11)
    told = [
        "1 of 3 labels has no row kept: a (10 rows)",
        "1 of 3 labels has less than half of its share: b 33.3% -> 9.1% (1 of 10 rows)",
        "9 of 15 groups have no row kept: g00 (2 rows), g01 (2 rows), g02 (2 rows), g03 (2 rows), g04 (2 rows); 4 more",
    ]
    assert ran.err.splitlines()[:3] == [f"warning: top: {line}" for line in told]
    about = open_artifact(here / "top").about
    assert about["warnings"] == told
    assert about["counts"]["label"] == [
        {"name": "a", "rows": 10, "kept": 0},
        {"name": "b", "rows": 10, "kept": 1},
        {"name": "c", "rows": 10, "kept": 10},
    ]
    shown = prune("show", "top").out
    assert all(line in shown for line in [*told, "b  10 (33.3%)  1 (9.1%)", "… 5 more in --json"])
    assert prune("select", "by", "-o", "all", "--method", "top", "--keep", 30).err.count("warning") == 0
    text = prune("compare", "top", "all").out
    assert "  top       none !  0.091 !  0.909\n" in text
    assert "  top: 9 with no row: g00 (0.067), g01 (0.067), g02 (0.067), …\n" in text


def test_exactly_half_of_a_share_is_no_warning() -> None:
    """10% where it was 20% is not told; one row fewer is."""

    def warned(kept: int) -> int:
        parts = {"a": (20, kept), "b": (80, 100 - kept)}
        found = [{"name": name, "rows": rows, "kept": n} for name, (rows, n) in parts.items()]
        return len(counts.warnings({"label": found}))

    assert (warned(10), warned(9)) == (0, 1)


def test_rows_without_labels_have_none_of_it(here: Path, prune: Prune) -> None:
    """Neither rows to generate nor rows without a label have counts, and a row without a label is in no count."""
    write_rows(here / "lm.jsonl", [{"prompt": f"say {i}", "response": str(i)} for i in range(6)])
    lines = [{"text": f"good {i}", **({"label": "ab"[i % 2]} if i < 4 else {})} for i in range(8)]
    write_rows(here / "none.jsonl", [{"text": line["text"]} for line in lines])
    write_rows(here / "part.jsonl", lines)
    for name, task in (("lm", "generation"), ("none", "classification"), ("part", "classification")):
        command = ["select", f"{name}.jsonl", "-o", name, "--method", "random", "--keep", "100%", "--task", task]
        ran = prune(*command)
        assert ran.code == 0 and "warning" not in ran.err, ran.err
    assert [open_artifact(here / name).about["counts"] for name in ("lm", "none")] == [{}, {}]
    assert [part["rows"] for part in open_artifact(here / "part").about["counts"]["label"]] == [2, 2]


def test_too_many_groups_are_not_counted(here: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """Their counts would swell the manifest: None stands for them, and both show and compare say so."""
    monkeypatch.setattr("prune_cli.stages.counts.MOST", 2)
    assert prune("select", "drawn", "-o", "one", "--method", "top", "--keep", 9).code == 0
    assert open_artifact(here / "one").about["counts"]["group"] is None
    assert "which are not counted" in prune("show", "one").out
    assert "  one: not counted (" in prune("compare", "one", "some").out


def test_a_pipelines_folder(here: Path, prune: Prune) -> None:
    """Its scores, its selections and what they are called; the first seed or all; one that keeps all is left out."""
    places = {
        "score/length": "length",
        "score/drawn-seed-0": "drawn",
        "score/drawn-seed-10": "drawn",
        "methods/long/keep-0.2/select": "long",
        "methods/drawn/keep-0.2/seed-2/select": "some",
        "methods/drawn/keep-0.2/seed-10/select": "few",
        "methods/full/keep-100%/seed-0/select": "whole",
        "score/other.part": "drawn",
    }
    assert prune("select", "drawn", "-o", "whole", "--method", "top", "--keep", "100%").code == 0
    for place, name in places.items():
        (here / "run" / place).parent.mkdir(parents=True, exist_ok=True)
        (here / "run" / place).symlink_to(here / name)
    facts = prune("compare", "run", "--json").json()
    assert facts["scores"] == ["drawn-seed-0", "length"]
    assert facts["selections"] == {"drawn/keep-0.2/seed-2": 8, "long/keep-0.2": 8}
    assert facts["left_out"] == {"full/keep-100%/seed-0": "it keeps every row"}
    facts = prune("compare", "run", "--json", "--all-seeds").json()
    assert (len(facts["scores"]), len(facts["selections"])) == (3, 3)
    assert "full/keep-100%/seed-0 is left out: it keeps every row" in prune("compare", "run").out


def test_a_pipelines_folder_whose_representations_were_removed(made: Path, prune: Prune, tmp_path: Path) -> None:
    """They are left out, and the others compared."""
    for name in ("whole", "second", "gone"):
        shutil.copytree(made / "train", tmp_path / "run/represent/train" / name)
    (tmp_path / "run/methods").mkdir()
    remove_files(tmp_path / "run/represent/train/gone", ".safetensors")
    done = prune("compare", tmp_path / "run", "--json")
    assert done.code == 0 and done.json()["left_out"] == {"gone": "its files were removed"}, done.err
    assert all("gone" not in name for name in done.json()["representations"])


def test_answers_that_know_one_label() -> None:
    """One label for every row, or no more right than the most frequent one; not where rows have one label."""

    def compared(gold: str, said: str) -> baseline.Baseline:
        return baseline.compared([{"label": a, "prediction": b} for a, b in zip(gold, said, strict=True)])

    sets = {
        "one": ("aab", "aaa"),
        "poor": ("aab", "aba"),
        "as": ("aab", "bab"),
        "good": ("aab", "aab"),
        "same": ("aa", "aa"),
    }
    assert baseline.warnings({name: compared(*pair) for name, pair in sets.items()}) == [
        "one label is predicted for every row: one (a, accuracy 0.667)",
        "no better than always the most frequent label: poor (accuracy 0.333, a 0.667), as (accuracy 0.667, a 0.667)",
    ]
    assert baseline.warnings({"even": compared("aabb", "abab"), "better": compared("aabb", "aaba")}) == [
        "no better than always the most frequent label: even (accuracy 0.500, a 0.500)"
    ]


def test_eval_warns_of_a_model_that_knows_little(
    made: Path, data: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the test rows and the same with their labels exchanged one is no better than a label: told, kept, shown."""
    monkeypatch.chdir(tmp_path)
    rows = read_rows(data / "test.jsonl")
    other = {"positive": "negative", "negative": "positive"}
    write_rows(tmp_path / "exchanged.jsonl", [{**row, "label": other[row["label"]]} for row in rows])
    ran = prune("eval", made / "warmup", data / "test.jsonl", "exchanged.jsonl", "-o", "metrics")
    about = open_artifact(tmp_path / "metrics").about
    assert about["warnings"]
    assert [line for line in ran.err.splitlines() if line.startswith("warning")] == [
        f"warning: metrics: {line}" for line in about["warnings"]
    ]
    shown = prune("show", "metrics").out
    assert all(line in shown for line in about["warnings"])
    assert re.search(r"^  metrics +n +loss +accuracy +macro_f1\n +test +12 ", shown, re.MULTILINE)


def test_show_tells_of_scores(here: Path, prune: Prune) -> None:
    """The quantiles of a score are numpy's; the rows at both ends; of a selection those of all and of kept rows."""
    values = {line["id"]: line["score"] for line in read_jsonl(here / "drawn/score.jsonl")}
    found = prune("show", "drawn", "--json").json()["scores"]
    assert found["quantiles"]["10%"] == pytest.approx(np.quantile(list(values.values()), 0.1))
    assert [line["score"] for line in found["highest"]] == sorted(values.values(), reverse=True)[:3]
    assert [line["score"] for line in found["lowest"]] == sorted(values.values(), reverse=True)[-3:]
    scores = prune("show", "some", "--json").json()["kept"]["scores"]
    assert scores["kept"]["lowest"] == sorted(values.values())[-8] and scores["all"]["highest"] == max(values.values())
    assert "median" in prune("show", "drawn").out
