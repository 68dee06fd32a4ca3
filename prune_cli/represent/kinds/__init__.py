"""The kinds of representation, one file each: kinds/NAME.py is the kind NAME. No table elsewhere names them.

A file declares TENSORS (name -> Tensor), FEATURES (which tensor is `features` for scores and selections), NEEDS (of the
pass: keys of NEEDED), a frozen dataclass Options, and `observe(setup, opts)`, which returns the Observer of a pass
(observe.py). In place of `observe`, or beside it, it may declare `write(path, given, opts)`, which fills the file of
its tensors without a pass; where it has both, `without_pass(opts)` says which it is. A file is importable without
torch, and a name that starts with `_` is no kind. Optional are

- `resolved(opts, task)`: the options with a task's own values for `auto`, and the default of what has no say;
- `wants_moments(opts)`: whether it needs the moments of Adam that training keeps with a checkpoint;
- `landmarks(opts)`: of how many rows it is computed, and the seed by which these are drawn, its features of the others
  being estimated (represent/landmarks.py); None: of all. Such a kind has a tensor `exact` [n, e], which says of which;
- NOT_IN_SPACE: options that two representations may differ in and still be compared.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from types import ModuleType
from typing import Any

from prune_cli.errors import PruneError, near
from prune_cli.options import Option, Represent, checked, declared, raise_all, shown
from prune_cli.options import build as build_record
from prune_cli.represent.observe import Observer, Setup, Tensor, scale_of
from prune_cli.runtime import plugins

NEEDED = {
    "backward": "the backward of the batch's summed losses",
    "gradients": "per-example gradients; at most one such kind in a pass",
    "head": "the model's trained head: its logits",
    "gold": "the gold answer of every row: its label, right choice or response",
    "prompt": "rows with a prompt",
    "classes": "logits [b, c] of the same c classes for every row",
    "target": "rows of a target set",
}
OF_TASK = frozenset({"prompt", "classes"})  # needs that a task lists among its OFFERS if it meets them
DTYPE = "dtype"  # the option that tensors without a type of their own are stored by


@dataclass(frozen=True)
class Kind:
    """A kind as its file declares it. about: one line; module: the name of its module."""

    name: str
    about: str
    tensors: Mapping[str, Tensor]
    features: str
    needs: frozenset[str]
    options: type
    module: str
    observe: Callable[[Setup, Any], Observer] | None = None
    write: Callable[..., None] | None = None
    without_pass: Callable[[Any], bool] | None = None
    resolved: Callable[[Any, Any], Any] | None = None
    wants_moments: Callable[[Any], bool] | None = None
    landmarks: Callable[[Any], tuple[int, int] | None] | None = None
    not_in_space: frozenset[str] = frozenset()

    def walks(self, opts: Any) -> bool:
        """Whether it is observed by a pass, with these options."""
        if self.observe is None:
            return False
        return not (self.write and self.without_pass and self.without_pass(opts))

    def specs(self, sizes: Mapping[str, int], opts: Any) -> dict[str, tuple[tuple[int, ...], str]]:
        """Tensor name -> shape of a row at a checkpoint, stored type. sizes: of the axis letters."""
        stored = {name: tensor.dtype or getattr(opts, DTYPE) for name, tensor in self.tensors.items()}
        if lacking := sorted({axis for tensor in self.tensors.values() for axis in tensor.axes} - set(sizes)):
            raise PruneError(f"kind {self.name}: sizes() does not say the size of axis {lacking[0]}")
        shapes = {name: tuple(sizes[axis] for axis in tensor.axes) for name, tensor in self.tensors.items()}
        specs = {name: (shapes[name], stored[name]) for name in self.tensors}
        scaled = [name for name, tensor in self.tensors.items() if tensor.scaled and stored[name] == "float16"]
        return specs | {scale_of(name): ((), "float32") for name in scaled}


def names() -> list[str]:
    """All kinds, in order of name; none is imported."""
    return plugins.names(__path__)


def load(name: str) -> Kind:
    """The kind `name`. Raises PruneError for an unknown one, and for a file that does not declare a kind in full."""
    if name not in names():
        raise PruneError(f"kind: {name}; allowed: {', '.join(names())}", hint=near(name, names()))
    return _declared_by(_module(name))


@functools.cache
def _declared_by(module: ModuleType) -> Kind:
    """The kind that a module declares, checked."""
    name = module.__name__.rpartition(".")[2]
    problems = _problems(name, module)
    raise_all([f"{module.__file__}: {problem}" for problem in problems])
    return Kind(
        name=name,
        about=(module.__doc__ or "").strip().partition("\n")[0],
        tensors=module.TENSORS,
        features=module.FEATURES,
        needs=frozenset(module.NEEDS),
        options=module.Options,
        module=module.__name__,
        observe=getattr(module, "observe", None),
        write=getattr(module, "write", None),
        without_pass=getattr(module, "without_pass", None),
        resolved=getattr(module, "resolved", None),
        wants_moments=getattr(module, "wants_moments", None),
        landmarks=getattr(module, "landmarks", None),
        not_in_space=frozenset(getattr(module, "NOT_IN_SPACE", ())),
    )


def parse(text: str) -> list[str]:
    """The kinds named in `hidden, dynamics`, in order of name, each once."""
    given = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for name in given:
        if name not in names():
            told = f"kind: {name}; allowed: {', '.join(names())}, or several with commas"
            raise PruneError(told, hint=near(name, names()))
    return sorted(given)


def kind_of(tensor_name: str) -> str | None:
    """The kind that has a tensor of this name; None where there is none."""
    return next((name for name in names() if tensor_name in load(name).tensors), None)


def tensor_names() -> list[str]:
    """The tensors of all kinds."""
    return [tensor for name in names() for tensor in load(name).tensors]


def is_free(name: str) -> bool:
    """Whether a kind needs no model."""
    return load(name).observe is None


def is_scalar(name: str) -> bool:
    """Whether the features of a kind are one number a checkpoint, [n, e]."""
    kind = load(name)
    return kind.tensors[kind.features].axes == ()


def options() -> dict[str, Option]:
    """The options of all kinds by name. Raises PruneError where two kinds declare the same option differently."""
    known: dict[str, Option] = {}
    for kind in names():
        for option in declared(load(kind).options).values():
            if known.setdefault(option.name, option) != option:
                first = users(option.name)[0]
                raise PruneError(f"option {option.name}: {first} and {kind} declare it differently; allowed: alike")
    return known


def users(option: str) -> list[str]:
    """The kinds that have an option."""
    return [name for name in names() if option in declared(load(name).options)]


def build(values: Mapping[str, Any]) -> Represent:
    """The options of `prune represent` from one flat mapping of its own and the kinds' options.

    Raises one PruneError that names every mistake.
    """
    own, of_kinds = declared(Represent), options()
    del own["kind_options"]
    fit, problems = checked({**own, **of_kinds}, values)
    kind_options = {name: value for name, value in fit.items() if name in of_kinds}
    try:
        asked = parse(fit.get("kind", own["kind"].default))
        told = of_others(kind_options, asked)
    except PruneError as problem:
        asked, told = [], [problem.message]
    if values.get("model") is None and not (asked and all(map(is_free, asked))):
        free = ", ".join(filter(is_free, names()))
        problems.append(f"model: missing; allowed: a hub name or a folder; none with kind {free}")
    raise_all(problems + told)
    return Represent(**{name: value for name, value in fit.items() if name in own}, kind_options=kind_options)


def of_others(values: Mapping[str, Any], asked: Sequence[str]) -> list[str]:
    """What is wrong with options of kinds, where none of theirs is asked for: they would change nothing."""
    known, these = options(), ", ".join(asked) or "what is asked for"
    return [
        f"{name}: {shown(value)}; an option of {', '.join(users(name))}, and not of {these}; leave it out"
        for name, value in values.items()
        if value != known[name].default and not set(users(name)) & set(asked)
    ]


def only(opts: Represent, asked: Iterable[str]) -> Represent:
    """The options for these kinds, without those of others."""
    ours = {name: value for name, value in opts.kind_options.items() if set(users(name)) & set(asked)}
    return replace(opts, kind=",".join(sorted(asked)), kind_options=ours)


def flat(opts: Represent) -> dict[str, Any]:
    """The options of `prune represent` as the flat mapping that `build` reads."""
    own = {entry.name: getattr(opts, entry.name) for entry in fields(opts) if entry.name != "kind_options"}
    return {**own, **opts.kind_options}


def options_of(name: str, opts: Represent) -> Any:
    """The options of one kind, an instance of its Options, with defaults for those that were not given."""
    record = load(name).options
    return build_record(record, {key: value for key, value in opts.kind_options.items() if key in declared(record)})


def depends_on(kind: Kind, kind_opts: Any, opts: Represent, task_options: tuple[str, ...]) -> dict[str, Any]:
    """The options that the values of a kind depend on, for its recipe.

    kind_opts: an instance of its Options. task_options: options that have a say for the task and not for every one.
    """
    known = declared(kind.options)
    values = {
        name: value
        for name, value in asdict(kind_opts).items()
        if known[name].help.key and (not known[name].help.by_task or name in task_options)
    }
    if kind.walks(kind_opts):
        values |= {"max_length": opts.max_length, "precision": opts.precision}
        values |= {"loss_on": opts.loss_on} if "loss_on" in task_options else {}
    return values


def space(kind: Kind, values: Mapping[str, Any]) -> dict[str, Any]:
    """Those of `depends_on` in which two representations must agree to be compared; stored types may differ."""
    return {name: value for name, value in values.items() if name != DTYPE and name not in kind.not_in_space}


def _module(name: str) -> ModuleType:
    return plugins.load(f"{__name__}.{name}")


def _problems(name: str, module: ModuleType) -> list[str]:
    """What a kind's file lacks or declares wrongly."""
    lacking = [part for part in ("TENSORS", "FEATURES", "NEEDS", "Options") if not hasattr(module, part)]
    if not (hasattr(module, "observe") or hasattr(module, "write")):
        lacking.append("observe")
    if hasattr(module, "observe") and hasattr(module, "write") and not hasattr(module, "without_pass"):
        lacking.append("without_pass")
    if not module.__doc__:
        lacking.append("a docstring")
    problems = [f"kind {name} lacks {part}" for part in lacking]
    if problems:
        return problems
    if module.FEATURES not in module.TENSORS:
        problems.append(f"FEATURES: {module.FEATURES}; allowed: {', '.join(module.TENSORS)}")
    problems += [f"NEEDS: {need}; allowed: {', '.join(NEEDED)}" for need in sorted(set(module.NEEDS) - set(NEEDED))]
    if not (isinstance(module.Options, type) and is_dataclass(module.Options)):
        problems.append("Options: not a dataclass; allowed: a frozen dataclass")
    elif DTYPE not in _names(module.Options) and any(tensor.dtype is None for tensor in module.TENSORS.values()):
        problems.append(f"a tensor has no dtype; allowed: a dtype, or an option {DTYPE}")
    for other in names():
        shared = sorted(set(module.TENSORS) & set(getattr(_module(other), "TENSORS", ()))) if other != name else []
        problems += [f"tensor {tensor}: the kind {other} has it too; allowed: another name" for tensor in shared]
    return problems


def _names(record: Any) -> list[str]:
    """The options of a record."""
    return [entry.name for entry in fields(record)]
