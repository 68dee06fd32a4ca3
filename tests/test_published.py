"""The table of published methods, held against the signatures of the methods it names."""

from pathlib import Path

import pytest

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.published import find_published, published
from prune_cli.pipeline.entries import kinds_read, represent_options
from prune_cli.represent import kinds
from tests.conftest import Prune, sentences, write_rows

NAMES = [
    *("random", "full", "none", "longest", "hard-to-learn", "ambiguous", "el2n"),
    *("easy-to-learn", "forgetting", "threshold-closeness", "aum", "grand", "tailsft", "entropy", "upd"),
    *("knn-label", "ccs", "d2", "perplexity", "ifd", "memorization"),
    *("memorization-adam", "influential", "prototypicality", "proto-dynamics", "proto-gradient"),
    *("s2l", "s2l-hidden", "s2l-gradient"),
    *("k-center", "craig", "gradmatch", "moderate", "semdedup", "near-duplicates", "d4", "novelselect"),
    *("less", "less-adam", "reverse-less", "less-exact", "less-round-robin", "less-hidden", "less-dynamics"),
    *("rds", "rds-max", "tracin", "greats", "bids", "trak", "datainf", "gist-gradient", "uot", "tsds", "tarot"),
    *("bm25", "dsir"),
]
each_method = pytest.mark.parametrize("method", published().values(), ids=lambda method: method.name)


def test_the_table_has_the_published_methods_in_order():
    """The table holds the methods of the field by their names."""
    assert list(published()) == NAMES


@each_method
def test_a_method_scores_where_its_selection_reads_a_score(method):
    """There is a score if and only if the selection asks for one."""
    if method.name == "none":
        assert not method.halves and not method.kinds
        return
    assert (method.score != "none") == ("score" in methods.load("select", method.select).inputs)


@each_method
def test_a_method_has_the_representation_its_halves_read(method):
    """Every kind of the method's representation is read: by a tensor's name, or the first as features."""
    read = {kind for half in method.halves for kind in kinds_read(half)}
    if any(half.wants_representation for half in method.halves):
        read.add(method.main)
    assert set(method.kinds) == read <= set(kinds.names())
    assert method.representation == (",".join(method.kinds) or "none")


@each_method
def test_a_method_s_options_are_options_of_its_halves(method):
    """Options in the table, and a fixed budget, are ones that would be accepted on the command line."""
    for half in method.halves:
        given = method.select_options if half.function.__name__ == "select" else method.score_options
        methods.parse_options(half, given)
    assert method.score != "none" or not method.score_options
    assert method.keep is None or method.name == "none" or parse_keep(method.keep, 10) == 10


@each_method
def test_a_method_s_options_of_the_representation_have_a_say_in_it(method):
    """Options of `represent` in the table are ones that its kinds have, of values that the stage accepts."""
    values, problems = options.checked(represent_options(method), method.represent_options)
    assert (values, problems) == (method.represent_options, [])
    assert method.model in (None, "reference")


def test_the_pooling_of_rds_is_weighted_by_position_and_its_model_is_as_it_was():
    """RDS+ pools a pretrained model's states with weights that grow with position; perplexity and IFD ask it too."""
    assert published()["rds"].represent_options == {"pooling": "position"}
    asking = [name for name, method in published().items() if method.model == "reference"]
    assert asking == ["knn-label", "perplexity", "ifd", "semdedup", "d4", "novelselect", "rds", "rds-max"]


@each_method
def test_a_method_says_what_it_is_after_and_where_it_is_from(method):
    """The objective is one of four, and all but the baselines name a paper by its number."""
    assert method.objective in ("difficulty", "diversity", "relevance", "baseline")
    assert ("arXiv" in method.source or "OpenReview" in method.source) == (
        method.name not in ("random", "full", "none")
    )
    assert method.source


def test_relevance_alone_needs_a_target_set():
    """What a method compares with follows from its signature: LESS and RDS have a target, the others have none."""
    wanting = [m for m in published().values() if m.wants_target]
    names = ["less", "less-adam", "reverse-less", "less-exact", "less-round-robin", "less-hidden", "less-dynamics"]
    names += ["rds", "rds-max", "tracin", "greats", "bids", "trak", "datainf", "gist-gradient", "uot", "tsds", "tarot"]
    names += ["bm25", "dsir"]
    assert [m.name for m in wanting] == names
    assert {m.objective for m in wanting} == {"relevance"}


def test_full_keeps_everything_whatever_the_budget():
    """`full` has its own budget, and `none`; no other method has."""
    assert {m.name: m.keep for m in published().values() if m.keep} == {"full": "100%", "none": "0%"}


def test_a_method_is_found_by_its_name_with_dashes_or_underscores():
    """`hard_to_learn` is `hard-to-learn`."""
    assert find_published("hard_to_learn") is published()["hard-to-learn"]


def test_an_unknown_method_is_named_with_those_there_are():
    """A name that is not in the table is an error that lists the table, with the nearest one as a hint."""
    with pytest.raises(PruneError, match=r"^method: memorisation; allowed: random, full, ") as caught:
        find_published("memorisation")
    assert caught.value.hint == "did you mean memorization?"
    with pytest.raises(PruneError, match=r"^method: round-robin; allowed: random, full, ") as caught:
        find_published("round-robin")
    assert caught.value.hint == "round_robin is a select method: {name, representation, score, select}"


def test_the_name_of_a_published_method_is_told_as_one(tmp_path: Path, prune: Prune) -> None:
    """GradMatch is no selection of that name."""
    rows = write_rows(tmp_path / "rows.jsonl", sentences(4))
    ran = prune("select", rows, "-o", tmp_path / "out", "--method", "gradmatch", "--keep", 2)
    hint = "hint: a published method; prune methods gradmatch says which score and selection it is"
    assert ran.code == 1 and hint in ran.err
