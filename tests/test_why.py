"""What a selection says of its rows: why.jsonl, `prune show`, and the kept rows as an input of other commands."""

from __future__ import annotations

import importlib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from prune_cli.artifacts import code
from prune_cli.artifacts.code import digest_of_module
from prune_cli.data.open import Reading, open_rows
from prune_cli.methods import method as methods
from tests.conftest import REPOSITORY, Prune, read_rows, sentences, write_rows


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def why(path: Path) -> list[dict[str, Any]]:
    return read_rows(path / "why.jsonl")


def test_ranks_are_those_of_the_scores(made: Path) -> None:
    """Every row given has a line in its order; the kept ones have the ranks 1 to n_keep; scores are the score's.

    The fixture keeps half of 24 rows by LESS.
    """
    lines, kept = why(made / "kept"), read_rows(made / "kept" / "select.jsonl")
    scores = read_rows(made / "score" / "score.jsonl")
    assert [line["id"] for line in lines] == [line["id"] for line in scores]
    assert [line["score"] for line in lines] == [line["score"] for line in scores]
    ranked = sorted((line for line in lines if line["kept"]), key=lambda line: line["rank"])
    assert [line["rank"] for line in ranked] == list(range(1, 13))
    assert [line["id"] for line in ranked] == [row["id"] for row in kept]
    assert all(line["rank"] is None for line in lines if not line["kept"])
    least = min(line["score"] for line in ranked)
    assert all(line["score"] <= least for line in lines if not line["kept"])
    assert list(lines[0]) == ["id", "kept", "rank", "score"]


def test_the_order_of_the_kept_rows(here: Path, prune: Prune, made: Path) -> None:
    """Highest score first, or as drawn, or as in the data; ids of rows without ones go with them; another order is
    another recipe.
    """
    rows = [{"text": row["text"], "label": row["label"]} for row in sentences(20)]
    lines = write_rows(here / "rows.jsonl", rows).read_text().splitlines()
    assert prune("score", "rows.jsonl", "-o", "score", "--method", "random").code == 0
    scores = [line["score"] for line in read_rows(here / "score/score.jsonl")]
    best = sorted(range(20), key=lambda i: -scores[i])[:7]
    select = ["select", "score", "-o", "kept", "--method", "top", "--keep", 7]
    for order, expected in (("best", best), ("data", sorted(best))):
        assert prune(*select, "--order", order, "--replace").code == 0
        assert (here / "kept/select.jsonl").read_text().splitlines() == [lines[i] for i in expected]
        assert open_rows("kept", Reading(), None).ids == [i + 1 for i in expected]
    assert 'options.order "data" -> "best"' in prune(*select).errors[0]
    kmeans = ["select", made / "train", "--on", "hidden", "--keep", 9, "--method", "kmeans", "--set", "k=3"]
    assert prune(*kmeans, "-o", "drawn", "--order", "best").code == 0
    clusters = {line["id"]: line["cluster"] for line in why(here / "drawn")}
    drawn = [clusters[row["id"]] for row in read_rows(here / "drawn/select.jsonl")]
    assert len([1 for a, b in pairwise(drawn) if a != b]) == 2  # a cluster after the other


def test_kmeans_tells_clusters_and_round_robin_targets(here: Path, prune: Prune, made: Path) -> None:
    """`cluster` stands with every row; `target`, a position in the target set, with the kept rows alone."""
    select = ["select", made / "train", "--on", "hidden", "--keep", 5, "--method"]
    assert prune(*select, "kmeans", "--set", "k=3", "-o", "clusters").code == 0
    assert {line["cluster"] for line in why(here / "clusters")} == {0, 1, 2}
    assert "score" not in why(here / "clusters")[0]
    assert prune(*select, "round_robin", "--target", made / "validation", "-o", "nearest").code == 0
    lines = why(here / "nearest")
    by_rank = sorted((line for line in lines if line["kept"]), key=lambda line: line["rank"])
    assert [line["target"] for line in by_rank] == [0, 1, 2, 3, 4]  # each target row has its turn
    assert all(line["target"] is None for line in lines if not line["kept"])


def test_show_prints_the_first_and_the_last_kept_rows(here: Path, prune: Prune, made: Path) -> None:
    """The three best and the three last, with rank and score, and a mark where rows are left out between them."""
    kept = sorted((line for line in why(made / "kept") if line["kept"]), key=lambda line: line["rank"])
    scores = {line["id"]: line["score"] for line in why(made / "kept")}
    facts = prune("show", made / "kept", "--json").json()["kept"]
    for end, ranks in (("first", (1, 2, 3)), ("last", (10, 11, 12))):
        expected = [{"id": kept[r - 1]["id"], "rank": r, "score": scores[kept[r - 1]["id"]]} for r in ranks]
        assert facts[end] == expected
    lines = [line.split() for line in prune("show", made / "kept").out.splitlines()]
    start = next(i for i, line in enumerate(lines) if line[:1] == ["kept"])
    assert lines[start] == ["kept", "id", "rank", "score"]
    shown = [line[:2] for line in lines[start + 1 : start + 8]]
    assert shown == [[kept[r - 1]["id"], str(r)] if r else ["…"] for r in (1, 2, 3, 0, 10, 11, 12)]
    assert prune("select", made / "score", "-o", "two", "--method", "top", "--keep", 2).code == 0
    two = prune("show", "two", "--json").json()["kept"]
    assert (two["first"], two["last"]) == (facts["first"][:2], [])


def test_kept_rows_without_ids_are_used_under_the_same_ids(here: Path, prune: Prune, tiny_model: Path) -> None:
    """Rows come out as they came, without an added id; score, select and training know them by their first line.

    They are known again as those rows, so that a score of all rows serves a selection from the kept ones.
    """
    rows = [{"text": row["text"], "label": row["label"]} for row in sentences(12)]
    write_rows(here / "rows.jsonl", rows)
    assert prune("score", "rows.jsonl", "-o", "score", "--method", "random").code == 0
    best_first = ["--method", "top", "--order", "best", "--keep"]
    assert prune("select", "score", "-o", "kept", *best_first, 6).code == 0
    lines = (here / "rows.jsonl").read_text().splitlines()
    order = [line["id"] for line in sorted(why(here / "kept"), key=lambda line: (line["rank"] is None, line["rank"]))]
    assert (here / "kept/select.jsonl").read_text().splitlines() == [lines[i - 1] for i in order[:6]]
    assert prune("select", "kept", "score", "-o", "best", *best_first, 2).code == 0
    assert (here / "best/select.jsonl").read_text().splitlines() == [lines[i - 1] for i in order[:2]]
    assert [line["id"] for line in why(here / "best")] == order[:6]
    assert prune("score", "kept", "-o", "again", "--method", "random").code == 0
    assert [line["id"] for line in read_rows(here / "again/score.jsonl")] == order[:6]
    trained = prune("finetune", "kept", "-o", "model", "--model", tiny_model, "--steps", 1)
    assert trained.code == 0, trained.err
    assert [line["id"] for line in read_rows(here / "model/ids.jsonl")] == order[:6]


# the digest of a method's code in its recipe


def patched(monkeypatch: pytest.MonkeyPatch, module: str, path: Path) -> None:
    """Have the digests see another file in place of a module's."""
    source_of = code.source_of
    monkeypatch.setattr(code, "source_of", lambda name: path if name == module else source_of(name))
    digest_of_module.cache_clear()


@pytest.fixture
def _fresh() -> Any:
    """Digests are computed anew, and forgotten after the test."""
    digest_of_module.cache_clear()
    yield
    digest_of_module.cache_clear()


def codes() -> dict[str, str]:
    """The digest of each method's code."""
    return {
        f"{stage} {name}": methods.load(stage, name).code for stage in methods.STAGES for name in methods.names(stage)
    }


CLUSTERING = {"score prototypicality", *(f"select {name}" for name in ("d4", "kmeans", "mig", "semdedup"))}


@pytest.mark.usefixtures("_fresh")
@pytest.mark.parametrize(
    ("module", "old", "new", "changed"),
    [
        ("score.less", "def score(", "EXTRA = 1\n\n\ndef score(", {"score less"}),
        ("select.top", "-score", "-1.0 * score", {"select top"}),
        ("numeric.kmeans", "def fit(", "EXTRA = 1\n\n\ndef fit(", CLUSTERING),
        ("numeric.kmeans", "def fit(", "# A comment.\ndef fit(", set()),
        ("score.less", '"""', '"""Another docstring.\n\n', set()),
    ],
)
def test_changed_code_counts_for_the_methods_that_use_it(
    module: str, old: str, new: str, changed: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A method's own file and the helpers that it imports count for it, and for no other; comments never do."""
    before = codes()
    text = (REPOSITORY / f"prune_cli/{module.replace('.', '/')}.py").read_text("utf-8")
    assert old in text
    (tmp_path / "changed.py").write_text(text.replace(old, new, 1), "utf-8")
    patched(monkeypatch, f"prune_cli.{module}", tmp_path / "changed.py")
    after = codes()
    assert {name for name in before if before[name] != after[name]} == changed


@pytest.mark.usefixtures("_fresh")
def test_a_changed_helper_makes_a_selection_stale(
    here: Path, prune: Prune, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another k-means, kmeans is stale and says why; top, which does not use it, is up to date."""
    kmeans = ["select", made / "train", "-o", "kmeans", "--on", "hidden", "--keep", 5, "--method", "kmeans"]
    top = ["select", made / "score", "-o", "top", "--keep", 5, "--method", "top"]
    for command in (kmeans, top):
        assert prune(*command).code == 0
        assert "up to date" in prune(*command).err
    text = Path(str(importlib.import_module("prune_cli.numeric.kmeans").__file__)).read_text("utf-8")
    (here / "changed.py").write_text(text + "\n\nEXTRA = 1\n", "utf-8")
    patched(monkeypatch, "prune_cli.numeric.kmeans", here / "changed.py")
    assert prune(*kmeans).errors == ["kmeans: holds another artifact: code of select kmeans changed"]
    assert "up to date" in prune(*top).err
