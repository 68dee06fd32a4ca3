"""What is simulated: the base setting, those along a sweep, and the methods."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.published import PublishedMethod, find_published, published
from prune_cli.simulation.arguments import GIVEN, KINDS
from prune_cli.simulation.points import SIZES

SWEPT = ("noise", "imbalance", "clusters", "keep")
RANDOM = "random"
PAPER = (
    "hard-to-learn proto-dynamics prototypicality proto-gradient s2l s2l-hidden s2l-gradient "
    "less-dynamics less-hidden less"
).split()


@dataclass(frozen=True)
class Setting:
    """How the points are drawn, and how many of the training points are kept."""

    noise: float
    imbalance: float
    clusters: int
    keep: int

    @property
    def columns(self) -> dict[str, Any]:
        """The setting as a line of results has it."""
        return asdict(self)


def base(opts: options.Simulate) -> Setting:
    """The setting that the options name."""
    return Setting(opts.noise, opts.imbalance, opts.clusters, parse_keep(opts.keep, SIZES["train"]))


def sweep(opts: options.Simulate) -> tuple[str | None, list[Setting]]:
    """The option that is swept, and its settings by its value, the base among them; None and the base without one."""
    if opts.sweep is None:
        return None, [base(opts)]
    name, equals, text = (part.strip() for part in opts.sweep.partition("="))
    if name not in SWEPT or not equals:
        allowed = f"{', '.join(SWEPT)}, then = and values with commas"
        raise PruneError(f"sweep: {opts.sweep}; allowed: {allowed}", hint="--sweep noise=0,0.1,0.2")
    known = options.declared(options.Simulate)[name]
    problems, found = [], []
    for entry in text.split(","):
        try:
            value = known.value(entry.strip(), as_text=True)
            found.append(parse_keep(value, SIZES["train"]) if name == "keep" else value)
        except PruneError as problem:
            problems.append(f"sweep: {problem.message}")
    options.raise_all(problems)
    found.append(getattr(base(opts), name))
    return name, [replace(base(opts), **{name: value}) for value in sorted(set(found))]


def methods(opts: options.Simulate) -> list[PublishedMethod]:
    """The methods to compare, the random draw first. Raises PruneError for one that points in the plane are not for."""
    named = PAPER if opts.methods == "paper" else [name.strip() for name in opts.methods.split(",")]
    found = {method.name: method for method in map(find_published, [RANDOM, *named])}
    for method in found.values():
        if not suits(method):
            allowed = ", ".join(known.name for known in published().values() if suits(known))
            raise PruneError(f"methods: {method.name}; allowed with simulate: {allowed}")
    if list(found) == [RANDOM]:
        raise PruneError(f"methods: {opts.methods}; allowed: at least one beside {RANDOM}", hint="prune methods")
    return list(found.values())


def suits(method: PublishedMethod) -> bool:
    """Whether all that a method needs is there: no pretrained model, no text, no Adam, and a budget."""
    of_a_model = method.model or method.represent_options.get("precondition")
    if method.keep or of_a_model or not set(method.kinds) <= set(KINDS):
        return False
    if len(method.kinds) > 1:  # gradients are of the last epoch alone, dynamics of all
        return False
    return all(set(half.inputs) - set(half.optional) <= GIVEN for half in method.halves)
