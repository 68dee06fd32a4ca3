"""The table of published methods, held against the signatures of the methods it names."""

import pytest

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.methods import arguments as inputs
from prune_cli.methods import method as methods
from prune_cli.methods.budget import parse_keep
from prune_cli.pipeline.entries import check_represent_options

NAMES = [
    *("random", "full", "hard-to-learn", "ambiguous", "el2n", "perplexity", "ifd", "memorization"),
    *("prototypicality", "proto-dynamics", "proto-gradient"),
    *("s2l", "s2l-hidden", "s2l-gradient"),
    *("less", "less-adam", "less-exact", "less-hidden", "less-dynamics", "rds"),
]
each_recipe = pytest.mark.parametrize("recipe", methods.published().values(), ids=lambda recipe: recipe.name)


def test_the_table_has_the_published_methods_in_order():
    """The table holds the methods of the field by their names."""
    assert list(methods.published()) == NAMES


@each_recipe
def test_a_recipe_scores_where_its_selection_reads_a_score(recipe):
    """There is a score method if and only if the selection asks for a score."""
    assert (recipe.score != "none") == ("score" in methods.load("select", recipe.select).inputs)


@each_recipe
def test_a_recipe_has_the_representation_its_methods_read(recipe):
    """Every kind of the recipe's representation is read: by a tensor's name, or the first as features."""
    asked = {name.removeprefix("target_") for method in recipe.halves for name in method.inputs}
    kinds = {inputs.KIND_OF[name] for name in asked if name in inputs.KIND_OF}
    if any(method.wants_representation for method in recipe.halves):
        kinds.add(recipe.kinds[0])
    assert set(recipe.kinds) == kinds <= set(inputs.KINDS)
    assert recipe.representation == (",".join(recipe.kinds) or "none")


@each_recipe
def test_a_recipe_s_options_are_options_of_its_methods(recipe):
    """Options in the table, and a fixed budget, are ones that would be accepted on the command line."""
    for method in recipe.halves:
        given = recipe.select_options if method.function.__name__ == "select" else recipe.score_options
        methods.parse_options(method, given)
    assert recipe.score != "none" or not recipe.score_options
    assert recipe.keep is None or parse_keep(recipe.keep, 10) == 10


@each_recipe
def test_a_recipe_s_options_of_the_representation_have_a_say_in_it(recipe):
    """Options of `represent` in the table are ones that its kinds depend on, of values that the stage takes."""
    assert check_represent_options(recipe, recipe.represent_options) == []
    options.check(options.Represent("", **recipe.represent_options))
    assert recipe.model in (None, "reference")


def test_the_pooling_of_rds_is_weighted_by_position_and_its_model_is_as_it_was():
    """RDS+ pools a pretrained model's states with weights that grow with position; perplexity and IFD ask it too."""
    recipes = methods.published()
    assert recipes["rds"].represent_options == {"pooling": "position"}
    assert [name for name, recipe in recipes.items() if recipe.model == "reference"] == ["perplexity", "ifd", "rds"]


@each_recipe
def test_a_recipe_says_what_it_is_after_and_where_it_is_from(recipe):
    """The objective is one of four, and all but the baselines name a paper by its arXiv number."""
    assert recipe.objective in ("difficulty", "diversity", "relevance", "baseline")
    assert ("arXiv" in recipe.source) == (recipe.objective != "baseline")
    assert recipe.source


def test_relevance_alone_needs_a_target_set():
    """What a method compares with follows from its signature: LESS and RDS have a target, the others have none."""
    wanting = [r for r in methods.published().values() if r.wants_target]
    assert [r.name for r in wanting] == ["less", "less-adam", "less-exact", "less-hidden", "less-dynamics", "rds"]
    assert {r.objective for r in wanting} == {"relevance"}


def test_full_keeps_everything_whatever_the_budget():
    """`full` has its own budget; no other method has."""
    assert {r.name: r.keep for r in methods.published().values() if r.keep} == {"full": "100%"}


def test_a_recipe_is_found_by_its_name_with_dashes_or_underscores():
    """`hard_to_learn` is `hard-to-learn`."""
    assert methods.find_published("hard_to_learn") is methods.published()["hard-to-learn"]


def test_an_unknown_recipe_is_named_with_those_there_are():
    """A name that is not in the table is an error that lists the table, with the nearest one as a hint."""
    with pytest.raises(PruneError, match=r"^method: memorisation; allowed: random, full, ") as caught:
        methods.find_published("memorisation")
    assert caught.value.hint == "did you mean memorization?"
