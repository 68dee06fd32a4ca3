"""What holds for every score and selection, whatever it computes; and how methods are found and loaded."""

import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import prune_cli
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.options import option

E, D, M = 3, 4, 5  # checkpoints, features, target rows
PACKAGE = Path(prune_cli.__file__).parent
SCORES = methods.names("score")
SELECTS = methods.names("select")
METHODS = [("score", name) for name in SCORES] + [("select", name) for name in SELECTS]
NOT_BY_ROW = {"n", "n_keep", "rng", "learning_rate"}


def make_inputs(names: tuple[str, ...], n: int, n_keep: int, seed: int = 0) -> dict[str, Any]:
    """Inputs of n rows by name, with the types and shapes of artifacts; read-only, as memory maps are."""
    rng = np.random.default_rng(seed)
    every: dict[str, Any] = {"n": n, "n_keep": n_keep, "rng": np.random.default_rng(seed + 1)}
    every["learning_rate"] = np.linspace(2e-5, 1e-6, E)
    for prefix, rows in (("", n), ("target_", M)):
        probability = rng.uniform(0.01, 0.99, (rows, E))
        arrays: dict[str, np.ndarray] = {
            "features": rng.normal(size=(rows, E * D)).astype(np.float16),
            "trajectory": rng.normal(size=(rows, E, D)).astype(np.float16),
            "scale": 2.0 ** rng.integers(-9, 9, (rows, E)).astype(np.float32),
            "logprob": np.log(probability).astype(np.float32),
            "logprob_unprompted": np.log(probability**2).astype(np.float32) - 0.1,
            "improbability": (1 - probability).astype(np.float32),
            "correct": (probability > 0.5).astype(np.float32),
            "margin": rng.normal(size=(rows, E)).astype(np.float32),
            "el2n": rng.uniform(0, 1.4, (rows, E)).astype(np.float32),
            "entropy": rng.uniform(0, 1, (rows, E)).astype(np.float32),
            "upd": rng.uniform(0, 0.9, (rows, E)).astype(np.float32),
            "grad_norm": rng.uniform(0.1, 9, (rows, E)).astype(np.float32),
            "score": rng.permutation(rows) / 7 - 1,  # all different
            "scores": rng.normal(size=(rows, 3)),
            "label": rng.integers(0, 3, rows),
            "group": rng.integers(0, 2, rows),
        }
        for name, array in arrays.items():
            array.flags.writeable = False
            every[prefix + name] = array
        every[prefix + "text"] = [f"row {i}" for i in range(rows)]
        every[prefix + "response"] = every[prefix + "text"]
    return {name: every[name] for name in names}


def take(inputs: dict[str, Any], rows: Any) -> dict[str, Any]:
    """The same inputs for other rows: a permutation of them, or some of them several times."""
    taken = dict(inputs)
    for name, value in inputs.items():
        if name not in NOT_BY_ROW and not name.startswith("target_"):
            taken[name] = [value[i] for i in rows] if isinstance(value, list) else value[rows]
    if "n" in inputs:
        taken["n"] = len(rows)
    return taken


def run(method: methods.Method, inputs: dict[str, Any]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The scores, or the positions of a selection; and the columns that say why, where there are any."""
    returned = method.function(**inputs)
    return returned if isinstance(returned, tuple) else (returned, {})


def is_selection(method: methods.Method, inputs: dict[str, Any], n_keep: int, n: int) -> bool:
    """Whether positions are n_keep different ones of n, as int64, and each column has a number for each row."""
    positions, columns = run(method, inputs)
    assert all(column.shape == (n,) and column.dtype.kind in "iufb" for column in columns.values())
    return (
        positions.dtype == np.int64
        and positions.shape == (n_keep,)
        and len(set(positions.tolist())) == n_keep
        and set(positions.tolist()) <= set(range(n))
    )


CLAIM = "beginning of a larger one"
CLAIMED_WITH: dict[str, dict[str, Any]] = {
    "facility_location": {"how": "exact"},
    "saturated_coverage": {"alpha": 0.3},
}  # as their files say


@pytest.fixture(autouse=True)
def quiet(capfd):
    """Fail on any warning, and on anything printed but how many repeated rows are kept."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield
    out, err = capfd.readouterr()
    assert out == "" and all("rows that repeat another are kept" in line for line in err.splitlines())


def test_the_methods_of_the_table_are_found_by_their_files():
    """Each file of score/ and select/ is a method, except those that start with an underscore."""
    assert {"random", "loss", "hard_to_learn", "ambiguous", "el2n", "memorization"} < set(SCORES)
    assert {"prototypicality", "less", "perplexity", "ifd", "rds"} < set(SCORES)
    assert {"top", "bottom", "middle", "random", "kmeans", "round_robin"} <= set(SELECTS)
    for stage, names in (("score", SCORES), ("select", SELECTS)):
        assert names == sorted(p.stem for p in (PACKAGE / stage).glob("[!_]*.py"))


@pytest.mark.parametrize(("stage", "name"), METHODS)
def test_docstring_says_what_it_is_where_from_and_what_higher_means(stage, name):
    """A method's docstring has a first line, a line `Source:` and, for a score, a line `Higher:`."""
    lines = methods.load(stage, name).doc.splitlines()
    assert len(lines[0]) > 20 and lines[1] == ""
    assert sum(line.startswith("Source: ") for line in lines) == 1
    assert sum(line.startswith("Higher: ") for line in lines) == (stage == "score")


@pytest.mark.parametrize(("stage", "name"), METHODS)
def test_options_have_defaults_of_a_type_that_strings_can_become(stage, name):
    """Options are numbers, text, true or false, and each default is a value that the option accepts."""
    method = methods.load(stage, name)
    assert methods.parse_options(method, {}) == method.defaults
    as_text = {key: str(value).lower() for key, value in method.defaults.items()}
    assert methods.parse_options(method, as_text) == method.defaults
    assert all(option.help.text.endswith(".") for option in method.options.values())


@pytest.mark.parametrize("n", [1, 2, 40])
@pytest.mark.parametrize("name", SCORES)
def test_score_gives_a_finite_float64_for_each_row(name, n):
    """A score is float64 [n] without NaN or infinity, from one row on."""
    method = methods.load("score", name)
    scores = method.function(**make_inputs(method.inputs, n, n))
    assert scores.dtype == np.float64 and scores.shape == (n,) and np.isfinite(scores).all()


@pytest.mark.parametrize(("n", "n_keep"), [(1, 1), (2, 1), (2, 2), (40, 1), (40, 13), (40, 39), (40, 40)])
@pytest.mark.parametrize("name", SELECTS)
def test_selection_is_exactly_n_keep_different_rows(name, n, n_keep):
    """A selection is int64 [n_keep] of different positions, from one row to all of them."""
    method = methods.load("select", name)
    assert is_selection(method, make_inputs(method.inputs, n, n_keep), n_keep, n)


@pytest.mark.parametrize(("stage", "name"), METHODS)
def test_same_seed_same_answer(stage, name):
    """Two calls with equal inputs and generators of one seed give the same bytes."""
    method = methods.load(stage, name)
    (first, ours), (second, theirs) = (run(method, make_inputs(method.inputs, 40, 13)) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert {name: c.tobytes() for name, c in ours.items()} == {name: c.tobytes() for name, c in theirs.items()}


@pytest.mark.parametrize(("stage", "name"), METHODS)
def test_optional_inputs_can_be_left_out(stage, name):
    """Without its optional inputs a method still answers for all rows."""
    method = methods.load(stage, name)
    needed = tuple(i for i in method.inputs if i not in method.optional)
    assert len(run(method, make_inputs(needed, 40, 13))[0]) == (40 if stage == "score" else 13)


@pytest.mark.parametrize(("stage", "name"), [m for m in METHODS if "rng" not in methods.load(*m).inputs])
def test_permuting_rows_permutes_the_answer(stage, name):
    """A method that draws nothing gives a row what it gave it before, wherever the row stands."""
    method = methods.load(stage, name)
    inputs = make_inputs(method.inputs, 40, 13)
    order = np.random.default_rng(5).permutation(40)
    before, after = run(method, inputs)[0], run(method, take(inputs, order))[0]
    if stage == "score":
        np.testing.assert_allclose(after, before[order], rtol=1e-12)
    else:
        assert order[after].tolist() == before.tolist()


@pytest.mark.parametrize("name", [name for name in SCORES if name not in ("random", "dsir")])  # these add noise
def test_equal_rows_get_equal_scores(name):
    """Rows that are copies of each other, some or all of them, get the same score."""
    method = methods.load("score", name)
    inputs = make_inputs(method.inputs, 40, 40)
    for rows in (np.zeros(12, int), np.repeat(np.arange(4), 5)):
        scores = method.function(**take(inputs, rows))
        for row in set(rows):
            np.testing.assert_allclose(scores[rows == row], scores[rows == row][0], rtol=1e-12)


@pytest.mark.parametrize("name", SELECTS)
def test_a_smaller_budget_is_what_the_file_says(name):
    """Each file says whether a smaller budget is the beginning of a larger one; where it says so, it is."""
    method = methods.load("select", name)
    said = " ".join(method.doc.split())
    assert CLAIM in said or name == "round_robin"
    if "not the beginning" in said:
        return
    picks = []
    for n_keep in (1, 3, 8, 15):
        inputs = make_inputs(method.inputs, 40, n_keep, seed=4)
        picks.append(run(method, inputs | CLAIMED_WITH.get(name, {}))[0].tolist())
    assert all(fewer == picks[-1][: len(fewer)] for fewer in picks)


@pytest.mark.parametrize("name", SELECTS)
def test_selection_of_equal_rows_is_still_exact(name):
    """Copies of rows, some or all of them, are different rows to a selection."""
    method = methods.load("select", name)
    for rows in (np.zeros(12, int), np.repeat(np.arange(4), 3)):
        for n_keep in (1, 5, 12):
            inputs = take(make_inputs(method.inputs, 40, n_keep), rows)
            assert is_selection(method, inputs, n_keep, 12)


@pytest.mark.parametrize("name", SELECTS)
def test_every_choice_of_an_option_works_on_a_row_or_two(name):
    """A label may have one row, whatever the method is told to do with it."""
    method = methods.load("select", name)
    for option_name, known in method.options.items():
        for value in known.choices:
            for n in (1, 2):
                inputs = make_inputs(method.inputs, n, n)
                assert is_selection(method, inputs | {option_name: value}, n, n), (option_name, value)


@pytest.mark.parametrize(("stage", "name"), METHODS)
def test_what_single_precision_cannot_hold_is_an_error(stage, name):
    """Vectors of 10³⁰ have an answer, or an error of one line: no warning, and no number made of an overflow."""
    method = methods.load(stage, name)
    inputs = make_inputs(method.inputs, 40, 13)
    for vectors in {"features", "trajectory"} & {given.removeprefix("target_") for given in inputs}:
        for given in {vectors, f"target_{vectors}"} & set(inputs):
            inputs[given] = inputs[given].astype(np.float32) * np.float32(1e30)
    try:
        returned = method.call(**inputs)
    except PruneError as failure:
        assert failure.message.startswith(f"{name}: ")
    else:  # the stage refuses a score that is not finite
        columns = returned[1] if isinstance(returned, tuple) else {}
        assert not any(np.isinf(column).any() for column in columns.values())


def test_finding_and_loading_methods_imports_no_heavy_library():
    """Listing the methods and reading every signature needs neither torch nor scikit-learn."""
    code = (
        "import sys; from prune_cli.methods import method as methods, published; published.published()\n"
        "for stage in ('score', 'select'):\n    for name in methods.names(stage): methods.load(stage, name)\n"
        "print({'torch', 'sklearn', 'scipy', 'transformers', 'datasets', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_listing_methods_imports_none_of_them():
    """The names come from the files alone."""
    code = (
        "import sys; from prune_cli.methods import method as methods; methods.names('score')\n"
        "print('prune_cli.score.less' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_load_reads_a_signature():
    """Arguments before `*` are inputs, those with None optional; arguments after it are options."""
    less = methods.load("score", "less")
    assert less.name == "less"
    assert less.inputs[:4] == ("trajectory", "target_trajectory", "learning_rate", "target_group")
    assert less.optional == ("target_group", "scale", "target_scale") and less.defaults == {"normalize": True}
    assert less.wants_target and less.wants_representation
    kmeans = methods.load("select", "kmeans")
    assert kmeans.inputs == ("features", "n_keep", "rng", "learning_rate", "scale")
    assert kmeans.optional == ("learning_rate", "scale")
    assert kmeans.defaults == {"k": 100, "checkpoints": "side", "normalize": False}
    assert kmeans.options["k"].help.text.startswith("Number of clusters")
    assert not kmeans.wants_target and kmeans.wants_representation
    top = methods.load("select", "top")
    assert not top.wants_target and not top.wants_representation


def test_names_may_have_dashes():
    """`hard-to-learn` and `hard_to_learn` are one method."""
    assert methods.load("score", "hard-to-learn") == methods.load("score", "hard_to_learn")


def test_summary_says_what_higher_means():
    """The summary of a score is its first line and its direction, in one line."""
    summary = methods.load("score", "loss").summary
    assert summary.startswith("Loss at the last checkpoint, in nats. Higher: ") and "\n" not in summary


@pytest.mark.parametrize("name", ["lesss", "_kmeans", "", "../less"])
def test_unknown_method_is_named_with_those_there_are(name):
    """A name that is no method is an error that lists the methods, with the nearest one as a hint."""
    with pytest.raises(PruneError) as caught:
        methods.load("score", name)
    assert caught.value.message.startswith(f"score method: {name}; allowed: ambiguous, ")
    assert caught.value.message.endswith(", ".join(SCORES))
    assert caught.value.hint == ("did you mean less?" if "less" in name else None)


@pytest.mark.parametrize(("stage", "name"), [("select", "greats"), ("select", "tsds"), ("score", "rds")])
def test_influence_is_not_compared_with_target_rows_again(stage: str, name: str) -> None:
    """A method that compares with target rows and has no form for influence says so, and which have."""
    assert methods.load(stage, name, "gradient").wants_target
    with pytest.raises(PruneError, match=f"^{name}: compares rows with target rows, and influence compares them") as e:
        methods.load(stage, name, "influence")
    readers = {"select": "bids, round_robin", "score": "less, tracin, uot"}
    assert e.value.hint == f"{stage} methods that read influence: {readers[stage]}"


def test_a_selection_is_no_score():
    """A selection that is asked of `prune score`, or the other way round, is told where it belongs."""
    with pytest.raises(PruneError, match=r"^score method: top; that is a method of prune select$"):
        methods.load("score", "top")
    with pytest.raises(PruneError, match=r"^select method: less; that is a method of prune score$") as caught:
        methods.load("select", "less")
    assert caught.value.hint == "prune methods less"


def method_with(**defaults: Any) -> methods.Method:
    options = {name: option(name, None, default) for name, default in defaults.items()}
    return methods.Method("shape", lambda: None, (), (), options, doc="", code="")


def test_options_take_the_type_of_their_default():
    """Strings from a command line and values from a file take the default's type; the rest keep theirs."""
    method = method_with(k=5, share=0.5, metric="cosine", whiten=False, shift=0.0)
    given = {"k": "7", "share": 1, "metric": "12", "whiten": "True", "shift": "0"}
    values = methods.parse_options(method, given)
    assert values == {"k": 7, "share": 1.0, "metric": "12", "whiten": True, "shift": 0.0}
    assert [type(value) for value in values.values()] == [int, float, str, bool, float]
    assert methods.parse_options(method, {"whiten": True})["k"] == 5


def test_option_names_may_have_dashes():
    """`--set max-steps=3` sets max_steps."""
    assert methods.parse_options(method_with(max_steps=1), {"max-steps": "3"}) == {"max_steps": 3}


@pytest.mark.parametrize(
    ("default", "value", "allowed"),
    [
        (5, "five", "a whole number above 0"),
        (5, "5.5", "a whole number above 0"),
        (5, 5.0, "a whole number above 0"),
        (5, True, "a whole number above 0"),
        (5, "0", "a whole number above 0"),
        (5, -3, "a whole number above 0"),
        (0, "-1", "a whole number, 0 or more"),
        (0.5, "nan", "a number above 0"),
        (0.5, "inf", "a number above 0"),
        (0.5, None, "a number above 0"),
        (0.5, "0", "a number above 0"),
        (0.0, "nan", "a number, 0 or more"),
        (False, "maybe", "true or false"),
        (False, 1, "true or false"),
        ("cosine", 3, "text"),
    ],
)
def test_bad_option_value_is_refused(default, value, allowed):
    """A value of another type, or a number of the wrong sign, is an error that says what is allowed."""
    with pytest.raises(PruneError) as caught:
        methods.parse_options(method_with(k=default), {"k": value})
    shown = {"None": "missing", "True": "true"}.get(str(value), value)
    assert caught.value.message == f"shape: k: {shown}; allowed: {allowed}"


def test_unknown_option_is_refused():
    """An option that a method lacks is an error that names those it has."""
    with pytest.raises(PruneError, match=r"^kmeans: clusters: unknown option; allowed: k, checkpoints, normalize$"):
        methods.parse_options(methods.load("select", "kmeans"), {"clusters": "3"})
    with pytest.raises(PruneError, match=r"^top: k: unknown option; allowed: none$"):
        methods.parse_options(methods.load("select", "top"), {"k": "3"})
