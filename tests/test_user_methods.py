"""A user's own score or selection: a function in a file, or an entry point of an installed package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Prune, Ran, read_rows, sentences, write_rows

MINE = '''
"""Mine."""

from typing import Annotated, Literal

import numpy as np
from msgspec import Meta


def spread(logprob, *, order: Annotated[Literal["up", "down"], "Which rows score high."] = "up"):
    """Range of the gold answer's log-probability over checkpoints."""
    values = np.ptp(logprob.astype(np.float64), axis=1)
    return values if order == "up" else -values


def length(text, *, times: Annotated[int, Meta(ge=1, le=9)] = 1, power: float = 1.0):
    return np.array([len(words) for words in text], float) ** power * times


def every_other(score, n_keep):
    """The best row, the third best, and so on."""
    order = np.argsort(-score, kind="stable")
    return np.concatenate([order[::2], order[1::2]])[:n_keep]


def explained(label, n_keep):
    """The first rows, with a column of each type."""
    place = np.arange(len(label))
    half = np.where(place % 2, np.nan, place / 2)
    return place[:n_keep], {"half": half, "label": label, "nearest": place - 1, "early": place < 2}
'''


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with six rows and a file of methods."""
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "rows.jsonl", sentences(6))
    (tmp_path / "mine.py").write_text(MINE)
    return tmp_path


def lengths(**more: Any) -> list[float]:
    """What `length` gives the six rows."""
    return [float(len(row["text"]) ** more.get("power", 1) * more.get("times", 1)) for row in sentences(6)]


def refused(ran: Ran, *parts: str) -> None:
    """One error line that holds all the parts, status 1, and nothing left behind."""
    assert (ran.code, len(ran.errors)) == (1, 1), ran.err
    for part in parts:
        assert part in ran.errors[0]
    assert ran.out == "" and len(ran.err.splitlines()) <= 2
    assert not Path("out").exists() and not Path("out.part").exists()


def scored(path: str) -> list[float]:
    return [line["score"] for line in read_rows(Path(path) / "score.jsonl")]


def test_a_score_of_a_tensor(here: Path, prune: Prune, made: Path) -> None:
    """The example of the guide gives the range of the stored log-probabilities, or its negative as an option says."""
    from prune_cli.artifacts import tensors

    logprob = tensors.load(made / "train" / "dynamics.safetensors")["logprob"].astype(float)
    wanted = logprob.max(1) - logprob.min(1)
    for order, sign in (("up", 1), ("down", -1)):
        ran = prune("score", made / "train", "-o", order, "--method", "./mine.py:spread", "--set", f"order={order}")
        assert ran.code == 0, ran.err
        assert scored(order) == pytest.approx(sign * wanted)


def test_a_score_and_a_selection(here: Path, prune: Prune) -> None:
    """A score of texts with options, and a selection by it: first, third and fifth best."""
    score = ["score", "rows.jsonl", "-o", "score", "--method", "./mine.py:length", "--set", "times=2"]
    ran = prune(*score, "--set", "power=0.5")
    assert ran.code == 0, ran.err
    assert scored("score") == pytest.approx(lengths(times=2, power=0.5))
    select = ["select", "score", "-o", "kept", "--method", "mine.py:every_other", "--keep", 3, "--order", "best"]
    assert prune(*select).code == 0
    order = sorted(range(6), key=lambda i: -lengths()[i])
    assert [row["id"] for row in read_rows(here / "kept/select.jsonl")] == [f"row-{i}" for i in order[::2]]
    facts = prune("show", "score", "--json").json()
    assert facts["options"]["method"] == "mine.py:length"
    assert facts["options"]["set"] == {"times": 2, "power": 0.5}
    assert facts["about"]["meaning"] == "Mine."


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ("spread --set order=sideways", "mine.py:spread: order: sideways; allowed: up, down"),
        ("spread --set size=3", "mine.py:spread: size: unknown option; allowed: order"),
        ("length --set times=0", "mine.py:length: times: 0; allowed: a whole number, 1 or more, at most 9"),
        ("length --set times=10", "mine.py:length: times: 10; allowed: a whole number, 1 or more, at most 9"),
        ("length --set times=two", "mine.py:length: times: two; allowed: a whole number"),
        ("length --set power=0", "mine.py:length: power: 0; allowed: a number above 0"),
    ],
)
def test_options_by_annotation(given: str, problem: str, here: Path, prune: Prune, made: Path) -> None:
    """Choices and bounds come from the annotation, else from the sign of the default."""
    function, *options = given.split()
    refused(prune("score", made / "train", "-o", "out", "--method", f"mine.py:{function}", *options), problem)


def test_changed_code_is_stale_and_a_comment_is_not(here: Path, prune: Prune) -> None:
    """Another constant makes the score stale, with a reason; a comment, or the file's place, does not."""
    file, score = here / "mine.py", ["score", "rows.jsonl", "-o", "score", "--method"]
    assert prune(*score, "./mine.py:length").code == 0
    file.write_text("# A comment.\n" + MINE.replace('"""Mine."""', '"""My own methods."""'))
    assert "up to date" in prune(*score, "./mine.py:length").err
    (here / "methods").mkdir()
    file.rename(here / "methods/mine.py")
    assert "up to date" in prune(*score, "methods/mine.py:length").err
    assert "up to date" in prune(*score, here / "methods/mine.py:length").err
    (here / "methods/mine.py").write_text(MINE.replace("* times", "* times + 1"))
    ran = prune(*score, "methods/mine.py:length")
    assert ran.errors == ["score: holds another artifact: code of score mine.py:length changed"]
    assert prune(*score, "methods/mine.py:length", "--replace").code == 0
    assert scored("score") == [value + 1 for value in lengths()]


BODY = "import numpy as np\ndef f({}):\n    return {}\n"
SCORES = "gave scores that are not one finite number for each row"
POSITIONS = "gave positions that are not 2 different ones of 6 rows"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "method: bad.py:f; there is no such file"),
        ("def g(n):\n    return n\n", "method: bad.py:f; the file has no function f"),
        ("f = 3\n", "method: bad.py:f; the file has no function f"),
        ("x = 1\ndef f(n)\n    return n\n", "bad.py:2: not valid Python: expected ':'"),
        ("import no_such_module\n", "bad.py; it cannot be loaded: ModuleNotFoundError: No module named 'no_such"),
        ("raise SystemExit\n", "bad.py; it cannot be loaded: SystemExit"),
        ("import sys\ndef f(n):\n    sys.exit(0)\n", "bad.py:f: SystemExit: 0"),
        ("1 / 0\n", "bad.py; it cannot be loaded: ZeroDivisionError: division by zero"),
        ("def f(n, *, k):\n    return n\n", "bad.py:f: option k has no default; every option needs one"),
        (BODY.format("weight", "weight"), "bad.py:f: asks for weight; allowed: "),
        (BODY.format("n", "np.arange(n - 1.0)"), SCORES),
        (BODY.format("n", "np.zeros((n, 2))"), SCORES),
        (BODY.format("n", "np.where(np.arange(n) == 3, np.nan, 1.0)"), SCORES),
        (BODY.format("n", "np.where(np.arange(n) == 3, np.inf, 1.0)"), SCORES),
        (BODY.format("n", "['a'] * n"), SCORES),
        (BODY.format("n", "[[1.0], [1.0, 2.0]]"), SCORES),
        (BODY.format("n", "None"), SCORES),
    ],
)
def test_a_bad_score_is_one_line(text: str | None, problem: str, here: Path, prune: Prune) -> None:
    """A file that is not there, cannot be run or lacks the function, and scores that are none, are errors."""
    if text is not None:
        (here / "bad.py").write_text(text)
    refused(prune("score", "rows.jsonl", "-o", "out", "--method", "bad.py:f"), problem)


@pytest.mark.parametrize(
    ("returned", "problem"),
    [
        ("[0, 0]", POSITIONS),
        ("[0, 6]", POSITIONS),
        ("[-1, 0]", POSITIONS),
        ("[0, 1, 2]", POSITIONS),
        ("[0.0, 1.0]", POSITIONS),
        ("[[0], [1]]", POSITIONS),
        ("[[0], [1, 2]]", POSITIONS),
        ("None", POSITIONS),
        ("([0, 1], {}, 3)", POSITIONS),
        ("([0, 1], None)", "gave columns that are not a dict"),
        ("([0, 1], {'why': np.arange(5)})", "column why is not one number for each of 6 rows"),
        ("([0, 1], {'why': list('abcdef')})", "column why is not one number for each of 6 rows"),
        ("([0, 1], {'why': np.full(6, np.inf)})", "column why is not one number for each of 6 rows"),
        ("([0, 1], {'rank': np.arange(6)})", "column rank; allowed: a name other than id, kept, rank, score"),
        ("([0, 1], {3: np.arange(6)})", "column 3; allowed: a name"),
    ],
)
def test_a_bad_selection_is_one_line(returned: str, problem: str, here: Path, prune: Prune) -> None:
    """Positions twice, out of range, too many or no whole numbers, and columns that are none, are errors."""
    (here / "bad.py").write_text(BODY.format("n, n_keep", returned))
    ran = prune("select", "rows.jsonl", "-o", "out", "--method", "bad.py:f", "--keep", 2)
    refused(ran, f"bad.py:f: {problem}")


def test_columns_say_why(here: Path, prune: Prune) -> None:
    """Columns reach why.jsonl: NaN of a float and -1 of a whole number are null, true and false stay."""
    select = ["select", "rows.jsonl", "-o", "kept", "--method", "mine.py:explained", "--keep"]
    assert prune(*select, 3).code == 0
    assert read_rows(here / "kept/why.jsonl") == [
        {
            "id": f"row-{i}",
            "kept": i < 3,
            "rank": i + 1 if i < 3 else None,
            "half": None if i % 2 else i / 2,
            "label": int(i % 3 != 0),
            "nearest": i - 1 if i else None,
            "early": i < 2,
        }
        for i in range(6)
    ]
    assert '"half": 1.0, "label": 1, "nearest": 1, "early": false' in (here / "kept/why.jsonl").read_text()


def test_a_balance_puts_columns_together(here: Path, prune: Prune) -> None:
    """Within each label the method runs by itself; each row has the entry of its own label's run."""
    select = ["select", "rows.jsonl", "-o", "kept", "--method", "mine.py:explained", "--keep", 3, "--balance", "keep"]
    assert prune(*select, "--order", "best").code == 0
    why = read_rows(here / "kept/why.jsonl")
    # rows 0 and 3 are negative, 1, 2, 4 and 5 positive; one of two and two of four are kept
    assert [line["nearest"] for line in why] == [None, None, 0, 0, 1, 2]
    assert [line["kept"] for line in why] == [True, True, True, False, False, False]
    assert [line["id"] for line in sorted(why[:3], key=lambda line: line["rank"])] == [
        row["id"] for row in read_rows(here / "kept/select.jsonl")
    ]


def test_an_installed_package_brings_methods(here: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point is a method by its name: it is listed, described and run; a broken one is told when it is used."""
    about = here / "site/my_methods-1.0.dist-info"
    about.mkdir(parents=True)
    (here / "site/my_methods.py").write_text(MINE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: my-methods\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(
        "[prune_cli.score]\nword_length = my_methods:length\nlost = my_methods:gone\n"
        "[prune_cli.select]\nalternate = my_methods:every_other\n"
    )
    monkeypatch.syspath_prepend(here / "site")
    score = ["score", "rows.jsonl", "--method"]
    assert prune(*score, "word_length", "-o", "score", "--set", "times=3").code == 0
    assert scored("score") == lengths(times=3)
    ran = prune("select", "score", "-o", "kept", "--method", "alternate", "--keep", 2)
    assert ran.code == 0, ran.err
    refused(prune(*score, "lost", "-o", "out"), "score method: lost; my_methods:gone cannot be loaded")
    refused(prune(*score, "alternate", "-o", "out"), "score method: alternate; ")
    refused(prune(*score, "word_lenght", "-o", "out"), "score method: word_lenght; allowed: ", "word_length")
    listed = prune("methods", "--json").json()
    assert listed["score"]["word_length"] == "Mine." and "alternate" in listed["select"]
    assert "my_methods:gone cannot be loaded" in listed["score"]["lost"]
    described = prune("methods", "word_length", "--json").json()["score"]
    assert described["inputs"] == ["text"]
    assert described["options"]["times"]["allowed"] == "a whole number, 1 or more, at most 9"


def test_a_pipeline_runs_the_functions_beside_it(
    here: Path, prune: Prune, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths of own functions are relative to the pipeline file, wherever it is run from; mistakes are told first."""
    (here / "empty").mkdir()
    monkeypatch.chdir(here / "empty")
    write_rows(here / "test.jsonl", sentences(4, 50))
    own = '{name = "mine", score = "./mine.py:length", score_options = {times = 2}, select = "./mine.py:every_other"}'
    text = (
        f'train = "rows.jsonl"\nmodel = "{tiny_model}"\nmethods = [{own}]\nkeep = [4]\nseeds = [0]\n'
        'tests = {test = "test.jsonl"}\n[finetune]\nsteps = 1\n'
    )
    (here / "pipeline.toml").write_text(text)
    command = ["pipeline", here / "pipeline.toml", "-o", here / "runs"]
    ran = prune(*command)
    assert ran.code == 0, ran.err
    assert [line["score"] for line in read_rows(here / "runs/score/mine/score.jsonl")] == lengths(times=2)
    assert json.loads((here / "runs/results.jsonl").read_text())["method"] == "mine"
    assert "nothing to do" in prune(*command).err
    (here / "pipeline.toml").write_text(text.replace("times = 2", "times = 20"))
    assert "mine.py:length: times: 20; allowed: a whole number, 1 or more, at most 9" in prune(*command).errors[0]
    (here / "pipeline.toml").write_text(text.replace("./mine.py:length", "./yours.py:length"))
    assert "yours.py:length; there is no such file" in prune(*command).errors[0]


OPTIONAL = """
import numpy as np


def count(n, target_features=None, hidden=None, features=None, score=None, scores=None, target_text=None, text=None):
    given = {k: v for k, v in locals().items() if v is not None and k not in ("n", "text")}
    print("given:", *sorted(given))
    return np.full(n, float(len(given)))
"""


def test_an_input_whose_default_is_none_may_be_missing(here: Path, prune: Prune, made: Path) -> None:
    """Whatever it is; given, it is read. What a method prints goes to stderr."""
    (here / "mine.py").write_text(OPTIONAL)
    command = ["--method", "./mine.py:count", "--json"]
    alone = prune("score", "rows.jsonl", "-o", "alone", *command)
    assert alone.code == 0 and "given:\n" in alone.err and alone.json()["state"] == "made", alone.err
    assert {line["score"] for line in read_rows(here / "alone/score.jsonl")} == {0.0}
    some = prune("score", made / "train", "-o", "some", "--on", "gradient", "--target", made / "validation", *command)
    assert some.code == 0 and "given: features hidden target_features target_text\n" in some.err, some.err
    scored = prune("score", made / "score", "-o", "scored", *command)
    assert scored.code == 0 and "given: score scores\n" in scored.err, scored.err


def test_what_is_given_is_about_the_same_rows(here: Path, prune: Prune, made: Path) -> None:
    """Also where the method reads nothing of it."""
    write_rows(here / "rows.jsonl", sentences(6, start=300))
    ran = prune("select", "rows.jsonl", made / "train", "-o", "out", "--method", "random", "--keep", 2)
    assert ran.code == 1 and f"is not in {made / 'train'}; allowed: inputs about the same rows" in ran.errors[0]
