"""`prune report`: the page's numbers against outside truth, its text, and how a browser shows it."""

from __future__ import annotations

import json
import os
import re
import shutil
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.cluster.hierarchy import average, leaves_list
from scipy.spatial.distance import squareform
from scipy.stats import rankdata, spearmanr
from sklearn.decomposition import PCA
from sklearn.metrics import roc_auc_score

import prune_cli
from prune_cli.artifacts import tensors
from prune_cli.artifacts.manifest import digest_folder, open_artifact
from prune_cli.numeric.plane import plane
from prune_cli.pipeline import results
from prune_cli.pipeline.page import figures, html
from prune_cli.pipeline.page.alike import clustered, short
from prune_cli.runtime.drawing import named
from tests.browser import PROGRAM, browser
from tests.conftest import Prune, read_rows, sentences, write_rows
from tests.test_layout import modules_reached

HOSTILE = (
    "</style></bdi><script>alert(1)</script> \"double\" 'single' & &amp; {{ 7 * 7 }} $x_1$",
    "right \u202eto left\u202c, \u2066isolated\u2069, half \u0000 and \u001b[31m red",
    "<img src=x onerror=alert(2)> https://example.com/ 字",
)
FILE = """
train = "train.jsonl"
validation = "validation.jsonl"
model = "{model}"
methods = ["full", "random", "hard-to-learn", "memorization", "less", {rds}]
keep = [0.25, 0.5]
seeds = [0, 1]

[tests]
test = "test.jsonl"

[warmup]
epochs = 2
batch_size = 8

[represent]
dim = 64

[finetune]
steps = 1
batch_size = 8
"""
RDS = '{name = "near", representation = "hidden", score = "none", select = "round_robin"}'


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, prune: Prune, tiny_model: Path) -> Path:
    """A finished run over 24 rows; 4 are marked as mislabelled, some texts, ids and a label are hostile."""
    folder = tmp_path_factory.mktemp("report")
    rows: list[dict[str, Any]] = [{**row, "group": "ab"[i % 2]} for i, row in enumerate(sentences(24))]
    for i, text in enumerate(HOSTILE):
        rows[i] |= {"text": f"the film is {text}", "id": f"row-{i}-{text}"}
    for i in (0, 5, 9, 17):
        rows[i]["kind"] = "mislabelled"
    for row in rows:
        row["label"] = "<b>good</b> $" if row["label"] == "positive" else row["label"]
    write_rows(folder / "train.jsonl", rows)
    other = {"positive": "<b>good</b> $", "negative": "negative"}
    for name, n, start in (("validation", 8, 100), ("test", 12, 200)):
        write_rows(folder / f"{name}.jsonl", [{**row, "label": other[row["label"]]} for row in sentences(n, start)])
    (folder / "pipeline.toml").write_text(FILE.format(model=tiny_model, rds=RDS))
    done = prune("pipeline", folder / "pipeline.toml", "-o", folder / "run & <run>")
    assert done.code == 0, done.err
    assert f"beside all rows: prune advise '{folder / 'run & <run>'}'\n" in done.err
    return folder / "run & <run>"


@pytest.fixture(scope="module")
def page(run: Path, prune: Prune) -> Path:
    """The folder of its page."""
    done = prune("report", run)
    assert done.code == 0, done.err
    assert done.out == f"{run}/report\n" and f"a browser opens {run}/report/report.html" in done.err
    return run / "report"


@pytest.fixture(scope="module")
def facts(page: Path) -> Any:
    return json.loads((page / "facts.json").read_text("utf-8"))


def scores(run: Path, name: str) -> np.ndarray:
    return np.array([line["score"] for line in read_rows(run / "score" / name / "score.jsonl")])


class Parsed(HTMLParser):
    """Elements and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.within: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "link", "img", "br"):
            self.within.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.within.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.within and self.within[-1] != "style":
            self.texts.append(data)

    def all(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def test_the_table_has_the_results(run: Path, facts: Any) -> None:
    """Means and deviations are those of results.jsonl, differences those of comparisons.jsonl, warnings the run's."""
    lines_of = read_rows(run / "results.jsonl")
    columns = [(column["test"], column["metric"]) for column in facts["columns"]]
    assert columns == [("test", "accuracy"), ("test", "macro_f1")]
    assert facts["finished"] and facts["task"] == "classification" and facts["rows"] == 24
    compared = {(c["method"], c["keep"], c["metric"]): c for c in read_rows(run / "comparisons.jsonl")}
    told = 0
    for line in facts["lines"]:
        own = [r for r in lines_of if (r["method"], r["keep"]) == (line["method"], line["keep"])]
        assert (line["rows"], line["seeds"]) == (own[0]["kept"], len(own))
        assert line["marked"] == (line["method"] in ("full", "random"))
        for (_, metric), cell in zip(columns, line["cells"], strict=True):
            values = [r[metric] for r in own]
            assert cell["mean"] == pytest.approx(np.mean(values))
            assert cell["deviation"] == pytest.approx(np.std(values, ddof=1))
            for d in cell["differences"]:
                expected = compared[line["method"], d["keep"], metric]
                assert {name: d[name] for name in ("estimate", "low", "high", "p", "verdict")} == {
                    name: expected[name] for name in ("estimate", "low", "high", "p", "verdict")
                }
                told += 1
    assert told == len(compared)
    assert any(line.startswith("test accuracy, keep 0.25: ") for line in facts["said"][0]["lines"])
    of_lines = {(line["method"], line["keep"]): line["cells"][0]["mean"] for line in facts["lines"]}
    full = next(mean for (method, _), mean in of_lines.items() if method == "full")
    best = max(mean for (method, _), mean in of_lines.items() if method not in ("full", "none"))
    sentence = f" By test accuracy all rows come to {full:.3f}, and the best selection to {best:.3f} ("
    assert sentence in html.lead(facts) and columns[0] == ("test", "accuracy")
    assert facts["warnings"][0] == "seeds: 2; with fewer than 3 the table says little of how runs vary"


def test_how_alike_the_methods_are(run: Path, facts: Any) -> None:
    """Correlations are scipy's; the order is that of its average linkage; overlaps are those of the kept rows."""
    found = facts["correlations"]
    assert sorted(found["order"]) == ["hard-to-learn", "less", "memorization"]
    for pair in found["pairs"]:
        expected = spearmanr(scores(run, pair["a"]), scores(run, pair["b"])).statistic
        assert pair["spearman"] == pytest.approx(expected)
    assert [found["rows"] for found in facts["overlaps"]] == [6, 12]
    quarter = facts["overlaps"][0]
    kept = {
        name: {line["id"] for line in read_rows(run / "methods" / name / "select/why.jsonl") if line["kept"]}
        for name in quarter["order"]
    }
    for pair in quarter["pairs"]:
        assert pair["overlap"] == pytest.approx(len(kept[pair["a"]] & kept[pair["b"]]) / 6)
        assert pair["chance_overlap"] == pytest.approx(6 / 24)


def test_the_order_of_clusters() -> None:
    """As scipy orders a matrix of distances; two names, and pairs without a number, are no trouble."""
    rng = np.random.default_rng(0)
    names = list("abcdef")
    near = np.asarray(np.corrcoef(rng.normal(size=(6, 4))))
    pairs = [{"a": names[i], "b": names[j], "spearman": float(near[i, j])} for i in range(6) for j in range(i + 1, 6)]
    distances = 1 - near
    np.fill_diagonal(distances, 0)
    expected = leaves_list(average(squareform(distances, checks=False)))
    assert clustered(names, pairs, "spearman") == [names[i] for i in expected]
    assert clustered(["a", "b"], pairs[:1], "spearman") == ["a", "b"]
    none = [{**pair, "spearman": None} for pair in pairs]
    assert sorted(clustered(names, none, "spearman")) == names


def test_short_names() -> None:
    """The method alone, with the budget where that is needed, the whole where both are not enough."""
    assert short(["less/keep-0.1", "s2l/keep-0.1/seed-0"]) == {"less/keep-0.1": "less", "s2l/keep-0.1/seed-0": "s2l"}
    assert list(short(["less/keep-0.1", "less/keep-0.3"]).values()) == ["less, keep 0.1", "less, keep 0.3"]
    same = ["s2l/keep-0.1/seed-0", "s2l/keep-0.1/seed-1"]
    assert list(short(same).values()) == same


def test_the_data_map_and_the_histograms(run: Path, facts: Any) -> None:
    """Confidence, variability and correctness are those of the tensors; each row of a label is in one bin."""
    (path,) = (run / "represent/train").glob("*dynamics*")
    stored = tensors.load(path / "dynamics.safetensors")
    p = np.exp(stored["logprob"].astype(np.float64))
    found = facts["data_map"]
    np.testing.assert_allclose(found["confidence"], p.mean(axis=1), rtol=1e-4)
    np.testing.assert_allclose(found["variability"], p.std(axis=1), atol=1e-5)
    assert found["correct"] == stored["correct"].sum(axis=1).astype(int).tolist()
    sizes = {"<b>good</b> $": 16, "negative": 8}
    for one in facts["histograms"]:
        assert {name: sum(counts) for name, counts in one["counts"].items()} == sizes
        labels = np.array([row["label"] for row in read_rows(run.parent / "train.jsonl")])
        own = scores(run, one["score"])[labels == "negative"]
        np.testing.assert_array_equal(one["counts"]["negative"], np.histogram(own, one["edges"])[0])


@pytest.mark.parametrize(("m", "d"), [(60, 7), (20, 90), (30, 30)])
def test_the_plane_is_that_of_scikit_learn(m: int, d: int) -> None:
    """Places and shares of variance are PCA's, for more rows than features and for fewer; other rows too."""
    rng = np.random.default_rng(m)
    x = rng.normal(size=(m, d)) @ rng.normal(size=(d, d)) + 5
    peer = PCA(2, svd_solver="full").fit(x)
    found = plane(x)
    np.testing.assert_allclose(found.shares, peer.explained_variance_ratio_, rtol=1e-6)
    others = rng.normal(size=(5, d))
    for rows in (x, others):
        expected = peer.transform(rows)
        ours = found.place(rows)
        np.testing.assert_allclose(np.abs((ours * expected).sum(axis=0)), (expected**2).sum(axis=0), rtol=1e-6)
    assert (found.axes[np.abs(found.axes).argmax(axis=0), [0, 1]] > 0).all()


def test_rows_without_any_difference_are_one_point() -> None:
    """No variance, or along one direction alone: no number is lost to a division by zero."""
    same = plane(np.full((5, 3), 2.0))
    assert same.shares == (0.0, 0.0) and not same.axes.any()
    line = plane(np.outer(np.arange(5.0), [0.0, 3.0]))
    assert line.shares[0] == pytest.approx(1) and line.shares[1] == 0
    np.testing.assert_allclose(line.place(np.array([[0.0, 9.0]])), [[3.0, 0.0]])


def test_where_selections_lie(run: Path, facts: Any) -> None:
    """The rows are placed by the hidden states as PCA places them; each method's kept rows are among them."""
    (path,) = (run / "represent/train").glob("*hidden*")
    hidden = tensors.load(path / "hidden.safetensors")["hidden"].astype(np.float64).reshape(24, -1)
    expected = PCA(2, svd_solver="full").fit_transform(hidden)
    found = facts["plane"]
    assert found["kind"] == "hidden"
    places = np.array(found["places"])
    np.testing.assert_allclose(np.abs(places), np.abs(expected), atol=1e-3 * np.abs(expected).max())
    near = found["methods"]["near"]
    kept = [line["kept"] for line in read_rows(run / "methods/near/keep-0.25/select/why.jsonl")]
    assert near["kept"] == 6
    np.testing.assert_allclose(near["places"], places[kept], atol=1e-6)


def test_rows_at_both_ends(run: Path, facts: Any) -> None:
    """The most valued are the first ranks, the least the lowest scores, or those kept last; targets are shown."""
    ends = {own["method"]: own for own in facts["examples"]}
    assert list(ends) == ["hard-to-learn", "memorization", "less", "near"]
    why = read_rows(run / "methods/less/keep-0.25/select/why.jsonl")
    ranked = sorted((line for line in why if line["kept"]), key=lambda line: line["rank"])
    assert [row["id"] for row in ends["less"]["most"]] == [line["id"] for line in ranked[:5]]
    lowest = sorted(why, key=lambda line: line["score"])
    assert [row["id"] for row in ends["less"]["least"]] == [line["id"] for line in lowest[:5]]
    assert [row["rank"] for row in ends["near"]["most"]] == [1, 2, 3, 4, 5]
    assert [row["rank"] for row in ends["near"]["least"]] == [6] and not ends["near"]["ordered"]
    targets = read_rows(run.parent / "validation.jsonl")
    first = ends["near"]["most"][0]["why"]
    assert [(reason["name"], reason["row"]["id"]) for reason in first] == [("nearest target", targets[0]["id"])]
    texts = {row["id"]: row["text"] for row in read_rows(run.parent / "train.jsonl")}
    assert all(row["text"] == texts[row["id"]][:300] for own in ends.values() for row in own["most"])


def test_mislabelled_rows(run: Path, facts: Any) -> None:
    """The AUC is scikit-learn's; the list is in the order of the mean rank under the scores that tell wrong labels."""
    rows = read_rows(run.parent / "train.jsonl")
    by_id = {row["id"]: row for row in rows}
    known = np.array(["kind" in row for row in rows])
    found = facts["suspects"]
    assert found["scores"] == ["hard-to-learn", "memorization"] and found["known"] == 4
    for name, area in found["auc"].items():
        assert area["area"] == pytest.approx(roc_auc_score(known, scores(run, name)))
    mean = np.mean([(rankdata(scores(run, name)) - 0.5) / 24 for name in found["scores"]], axis=0)
    suspicion = {row["id"]: value for row, value in zip(rows, mean, strict=True)}
    listed = [row["suspicion"] for row in found["listed"]]
    assert listed == sorted(listed, reverse=True) and len(listed) == 24
    assert {row["id"]: row["suspicion"] for row in found["listed"]} == pytest.approx(suspicion)
    assert [row["known"] for row in found["listed"]] == ["kind" in by_id[row["id"]] for row in found["listed"]]
    assert found["auc_together"]["area"] == pytest.approx(roc_auc_score(known, mean.round(9)))
    assert found["first"] == sum(row["known"] for row in found["listed"][:4])


def test_the_price(run: Path, facts: Any) -> None:
    """Sums of what the manifests say: of all stages, and of what a method rests on."""

    def seconds(*paths: str) -> float:
        return sum(float(open_artifact(run / path).manifest["made"]["seconds"]) for path in paths)

    found = facts["price"]
    manifests = [path for path in run.rglob("manifest.json") if "report" not in path.relative_to(run).parts]
    stored = [json.loads(path.read_text("utf-8")) for path in manifests]
    assert found["total"]["artifacts"] == len(manifests) == sum(own["artifacts"] for own in found["stages"])
    assert found["total"]["seconds"] == pytest.approx(sum(own["made"]["seconds"] for own in stored))
    files = [path for path in run.rglob("*") if path.is_file() and "report" not in path.relative_to(run).parts]
    of_run = ("manifest.json", "results.jsonl", "comparisons.jsonl")
    assert found["total"]["bytes"] == sum(path.stat().st_size for path in files if path.name not in of_run)
    assert [own["stage"] for own in found["stages"]] == ["warm-up", "represent", "score", "select", "finetune", "eval"]
    costs = {(own["method"], own["keep"]): own for own in found["methods"]}
    (train,) = (f"represent/train/{path.name}" for path in (run / "represent/train").glob("*gradient*"))
    (target,) = (f"represent/validation/{path.name}" for path in (run / "represent/validation").glob("*gradient*"))
    own = ["score/less", "methods/less/keep-0.5/select"]
    less = costs["less", "0.5"]
    assert less["own"] == pytest.approx(seconds(*own))
    assert less["alone"] == pytest.approx(seconds("warmup", train, target, *own))
    trained = seconds(*(f"methods/less/keep-0.5/seed-{seed}/finetune" for seed in (0, 1))) / 2
    assert less["train"] == pytest.approx(trained)
    assert less["total"] == pytest.approx(less["alone"] + trained)
    assert costs["full", "100%"]["alone"] == pytest.approx(costs["full", "100%"]["own"])


CONTROL = r"[\0-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]"


def test_a_price_without_all_rows(page: Path, facts: Any) -> None:
    """Where no method is full, the page has no share of its total."""
    methods = [own for own in facts["price"]["methods"] if own["method"] != "full"]
    assert 0 < len(methods) < len(facts["price"]["methods"])
    without = html.page({**facts, "price": {**facts["price"], "methods": methods}}, {}, page)
    none = '<td class="n">–</td></tr>'
    assert without.count(none) == html.page(facts, {}, page).count(none) + len(methods)


def escaped(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


def test_hostile_text_stays_text(page: Path) -> None:
    """Whatever rows, labels and names hold is shown as it is, control characters as escapes; no element comes of it."""
    text = (page / "report.html").read_text("utf-8")
    parsed = Parsed(text)
    assert not parsed.within
    told = "".join(parsed.texts)
    for hostile in HOSTILE:
        assert f"the film is {re.sub(CONTROL, escaped, hostile)}" in told
    assert "<b>good</b> $" in told and "run & <run>" in told
    assert not re.search(CONTROL, text)
    assert {tag for tag, _ in parsed.elements}.isdisjoint({"script", "b", "iframe", "object", "svg"})
    assert len(parsed.all("style")) == 1
    assert all(not name.startswith("on") for _, attributes in parsed.elements for name in attributes)


def test_the_page_is_whole_and_accessible(page: Path, facts: Any) -> None:
    """Nothing is asked of elsewhere; pictures have texts, tables captions and heads; headings and ids are in order."""
    text = (page / "report.html").read_text("utf-8")
    parsed = Parsed(text)
    pictures = parsed.all("img")
    assert len(pictures) == len(list(page.glob("*.png"))) == 9
    assert all(str(one["src"]).startswith("data:image/png;base64,") and one["alt"] for one in pictures)
    assert all(str(one["href"]).startswith(("#", "data:,")) for one in parsed.all("a", "link"))
    assert "url(" not in text.partition("</style>")[0] and "@import" not in text
    ids = [str(attributes["id"]) for _, attributes in parsed.elements if "id" in attributes]
    assert len(set(ids)) == len(ids)
    links = {str(one["href"])[1:] for one in parsed.all("a")}
    labelled = {str(one["aria-labelledby"]) for one in parsed.all("section")}
    assert links | labelled <= set(ids)
    assert len(parsed.all("table")) == len(parsed.all("caption")) == len(parsed.all("thead"))
    assert all(one.get("scope") in ("col", "row") for one in parsed.all("th"))
    scrolled = [one for one in parsed.all("div") if one.get("class") == "scroll"]
    assert scrolled and all((one["tabindex"], one["role"]) == ("0", "region") for one in scrolled)
    assert all(one["aria-label"] for one in scrolled)
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    assert parsed.all("html") == [{"lang": "en"}] and len(parsed.all("main")) == 1
    for line in facts["lines"]:
        assert line["method"] in parsed.texts


def test_what_a_file_may_ask_for_besides(page: Path, facts: Any) -> None:
    """Trainings without a method's picks, on halves, and rows made worse have their tables, where there are any."""
    assert (facts["removed"], facts["lds"], facts["corruption"]) == ([], [], None)
    picks = [{**facts["lines"][-1], "method": "without less"}]
    lds = [{"score": "less", "test": "target set", "halves": 10, "lds": 0.25, "low": -0.1, "high": 0.5}]
    selected = {"method": "less", "keep": "0.25", "kept": 6, "precision": 0.5, "recall": 0.75, "chance": [0.0, 0.4]}
    area = {"score": "less", "area": 0.75, "low": None, "high": None}
    worse = {"rows": 24, "changed": 4, "copies": 1, "selections": [{**selected, "repeats": 1.0}], "scores": [area]}
    more = html.page({**facts, "removed": picks, "lds": lds, "corruption": worse}, {}, page)
    told = " ".join(" ".join(Parsed(more).texts).split())
    assert "without less" in told and "missed more than random rows" in told
    assert "less target set 10 +0.25 [−0.10, +0.50]" in told
    assert "Of 24 training rows 4 were changed and 1 are copies" in told
    assert "50.0% 0.0% to 40.0% 75.0% 1" in told
    assert more.count("<table>") == (page / "report.html").read_text("utf-8").count("<table>") + 4
    (page.parent.parent / "more.html").write_text(more, "utf-8")


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(run: Path, page: Path, prune: Prune, tmp_path: Path) -> None:
    """Byte for byte, figures too; the API makes what the command makes; a second time it is up to date."""
    made = prune_cli.report(run, tmp_path / "again")
    assert made.stage == "report"
    assert made.files == open_artifact(page).files
    ran = prune("report", run, "--json")
    assert ran.code == 0 and "up to date" in ran.err
    assert ran.json()["facts"] == json.loads((page / "facts.json").read_text("utf-8"))
    assert ran.json()["page"] == f"{page}/report.html"


def test_what_stands_elsewhere_is_not_lost(run: Path, page: Path, prune: Prune, tmp_path: Path) -> None:
    """A folder or a file of others, another artifact, and a stale page elsewhere are told and stay."""
    (tmp_path / "mine").mkdir()
    note = tmp_path / "mine/note.txt"
    note.write_text("mine")
    ran = prune("report", run, "-o", tmp_path / "mine")
    assert ran.errors == [f"{tmp_path}/mine: exists and was not made by prune; choose another name"]
    score = tmp_path / "score"
    shutil.copytree(run / "score/less", score)
    before = digest_folder(score)
    ran = prune("report", run, "-o", score, "--replace")
    assert ran.errors == [f"{score}: holds an artifact of prune score; choose another -o"]
    assert digest_folder(score) == before and note.read_text() == "mine"
    shutil.copytree(page, tmp_path / "page")
    ran = prune("report", run, "-o", tmp_path / "page", "--examples", 2)
    assert ran.errors == [f"{tmp_path}/page: holds another artifact: options.examples 5 -> 2"]
    (tmp_path / "page/extra.png").write_text("mine")
    ran = prune("report", run, "-o", tmp_path / "page", "--examples", 2, "--replace")
    assert ran.errors[0].startswith(f"{tmp_path}/page/extra.png: not made by prune")


def test_wrong_use(run: Path, prune: Prune, tmp_path: Path) -> None:
    """A folder that is no run, and known rows that are not there."""
    no_run = f"{tmp_path}: no results of a pipeline in it; allowed: the folder of a pipeline that has begun"
    assert prune("report", tmp_path).errors == [no_run]
    for known, told in {
        "kind": "known: kind; allowed: KEY=VALUE, as in kind=mislabelled",
        "kind=x": "known: kind=x; no row of the run has this value; allowed: one that some rows have",
    }.items():
        assert prune("report", run, "-o", tmp_path / "page", "--known", known).errors == [told]
    assert not (tmp_path / "page").exists()


@pytest.mark.slow
def test_a_run_that_is_half_done(run: Path, prune: Prune, tmp_path: Path) -> None:
    """What has ended is told, that it is not all too; when there is more, the page is made again."""
    half = tmp_path / "half"
    not_yet = ("report", "comparisons.jsonl", "results.jsonl", "memorization", "near", "hidden*", "eval")
    shutil.copytree(run, half, ignore=shutil.ignore_patterns(*not_yet))
    trials = {(line["method"], line["keep"], line["seed"]): None for line in read_rows(run / "results.jsonl")}
    places, planned = [], []
    for method, keep, seed in trials:
        (selected,), judged = results.of_trial(run, method, keep, seed)
        made = {"judged": str(judged.relative_to(run)), "selected": str(selected.relative_to(run))}
        planned.append({"method": method, "keep": keep, "seed": seed, **made})
        places.append((method, judged.relative_to(run)))
    under_way = write_rows(half / "results.jsonl.part", planned)
    os.utime(under_way, ns=(1, 1))  # all evaluations that are there have ended since
    assert prune("report", half).errors == [
        f"{half}: no evaluation has ended yet; run the pipeline again to go on",
    ]
    for method, path in places:
        if method in ("full", "random"):
            shutil.copytree(run / path, half / path)
    facts = prune("report", half, "--json").json()["facts"]
    assert not facts["finished"]
    assert {line["method"] for line in facts["lines"]} == {"full", "random"}
    assert facts["said"] == []
    text = (half / "report/report.html").read_text("utf-8")
    assert "The run is under way" in text and "Nothing is compared with random" in text
    for method, path in places:
        if method in ("less", "hard-to-learn"):
            shutil.copytree(run / path, half / path)
    ran = prune("report", half, "--json")
    assert ran.json()["state"] == "made" and "input results changed" in ran.json()["reason"]
    assert len(ran.json()["facts"]["lines"]) == 7
    for path in (half / "represent/train").glob("*/*.safetensors"):
        path.unlink()
    facts = prune("report", half, "--json", "--force").json()["facts"]
    assert facts["data_map"] == {} and "its files were removed" in facts["left_out"].values()


def test_names_in_figures() -> None:
    """One line, not too long, no formula, escapes for what the font has no letter for or a terminal would obey."""
    assert named("a\nb  c") == "a b c"
    assert named("$x$") == r"\$x\$"
    assert named("x" * 40) == "x" * 27 + "…"
    assert named("字é\u202e") == r"\u5b57é\u202e"
    assert named("") == "(empty)"


@pytest.mark.slow
def test_a_page_that_is_up_to_date_loads_no_heavy_library(run: Path, page: Path, tmp_path: Path) -> None:
    """Nothing is drawn: no matplotlib; and never torch, not for a page that is made either."""
    heavy = {"torch", "transformers", "datasets", "pandas"}
    assert not (heavy | {"matplotlib", "jinja2", "sklearn", "scipy"}) & modules_reached(tmp_path, "report", run)
    assert not heavy & modules_reached(tmp_path, "report", run, "-o", tmp_path / "page")


@pytest.mark.slow
@pytest.mark.skipif(PROGRAM is None, reason="no chromium here to open the page with")
def test_a_browser_shows_the_page(page: Path, facts: Any, tmp_path: Path) -> None:
    """Nothing runs, nothing is complained of, nothing is asked of elsewhere; the tables and pictures are there.

    It fits a narrow window, and is dark where that is preferred.
    """
    with browser(tmp_path / "user") as shown:
        shown.open(page / "report.html")
        asked = [event["request"]["url"] for event in shown.of("Network.requestWillBeSent")]
        assert [url for url in asked if not url.startswith("data:")] == [(page / "report.html").as_uri()]
        assert shown.of("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown") == []
        assert shown.value("document.querySelectorAll('#results ~ .scroll table tbody tr').length") == len(
            facts["lines"]
        )
        assert shown.value("[...document.images].every(i => i.complete && i.naturalWidth > 100)")
        assert shown.value("document.scripts.length") == 0
        told = shown.value("document.body.textContent")
        assert all(re.sub(CONTROL, escaped, hostile) in told for hostile in HOSTILE)
        shown.call("Emulation.setDeviceMetricsOverride", width=400, height=800, deviceScaleFactor=1, mobile=False)
        assert shown.value("document.documentElement.scrollWidth") <= 400
        light = shown.value("getComputedStyle(document.body).backgroundColor")
        scheme = [{"name": "prefers-color-scheme", "value": "dark"}]
        shown.call("Emulation.setEmulatedMedia", features=scheme)
        assert (light, shown.value("getComputedStyle(document.body).backgroundColor")) == (
            "rgb(255, 255, 255)",
            "rgb(22, 22, 22)",
        )


def test_what_all_rows_come_to() -> None:
    """Beside the best of methods and random draws, by the metric's direction; not of what methods leave out."""

    def line(method: str, keep: str, mean: float | None) -> dict[str, Any]:
        return {"method": method, "keep": keep, "marked": True, "cells": [{"mean": mean, "differences": []}]}

    lines = [line("none", "0%", 0.1), line("full", "100%", 1.5), line("random", "0.1", 2.0), line("less", "0.1", 1.75)]
    lines += [line("without less", "0.1", 0.5), line("rds", "0.1", None)]
    facts = {"lines": lines, "columns": [{"test": "t", "metric": "loss"}]}
    assert html.lead(facts).endswith(
        " By t loss all rows come to 1.500, and the best selection to 1.750 (less at 0.1)."
    )
    facts["columns"] = [{"test": "t", "metric": "accuracy"}]
    assert html.lead(facts).endswith("and the best selection to 2.000 (random at 0.1).")
    assert html.lead(facts | {"lines": lines[2:]}).endswith("on any test set.")


def test_rows_without_labels_have_figures_that_speak_of_none() -> None:
    """Of a language model's rows."""
    found = {"labels": ["all rows"], "label": [0, 0], "of": 2, "kind": "hidden", "shares": [0.6, 0.4], "others": []}
    for picture in (figures._histograms([]), figures._plane(found)):
        assert "label" not in f"{picture.title} {picture.alt} {picture.caption}"
    assert "label" in figures._plane(found | {"labels": ["a", "b"]}).alt
