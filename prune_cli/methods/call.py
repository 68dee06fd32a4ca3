"""A method with all that it needs: its arguments, each with the files that it is read from, its options, its seed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import options
from prune_cli.artifacts import tensors
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact, Recipe, is_artifact
from prune_cli.data import fingerprints
from prune_cli.data.open import Reading, source_behind, source_of
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.methods import method
from prune_cli.methods.inputs import Absent, Inputs, collect
from prune_cli.methods.method import Method
from prune_cli.methods.published import published
from prune_cli.numeric.blocks import rows_at, scaled
from prune_cli.represent import kinds
from prune_cli.represent.observe import scale_of

OF_CHOICE = ("features", "trajectory")  # of the representation that --on names
SCALE = "scale"  # [n, e]: what a stored representation is to be multiplied by
OF_ROWS = ("n", "score", "scores", "label", "group", "text", "response")
FROM_STAGE = ("rng", "n_keep")  # not read from any input
TARGET = "target_"


@dataclass(frozen=True)
class Argument:
    """One argument of a method: role -> digest of what it is read from, and how it is read."""

    digests: dict[str, str]
    read: Callable[[], Any]


@dataclass(frozen=True)
class Call:
    """A method, its inputs and its options; nothing is read yet."""

    method: Method
    given: Inputs
    target: Inputs | None
    kind: str | None  # the representation that it runs on
    arguments: dict[str, Argument]
    options: dict[str, Any]
    seed: int
    places: dict[str, str]  # role of each input -> the path it was given by

    @property
    def all_rows(self) -> list[Rows]:
        """The rows, and those of the target set."""
        return [inputs.rows for inputs in (self.given, self.target) if inputs]

    @property
    def target_data(self) -> Rows | None:
        """The target rows, where they are a data file."""
        return self.target.rows if self.target and not is_artifact(Path(self.places["target"])) else None

    @property
    def target_source(self) -> dict[str, str]:
        """{"target"}: what the target set is from, the method's or that of its representation; nothing without one."""
        if self.target:
            return {"target": source_of(self.places["target"])}
        held = self.given.holder(self.kind) if self.kind and self.given.represented else None
        known = held is not None and "target" in held.manifest["made"]["inputs"]
        return {"target": source_behind(held, "target")} if held and known else {}

    def recipe(self, stage: str, **more: Any) -> Recipe:
        """The recipe of what the method makes; `more` are options of the stage."""
        decided: dict[str, Any] = {"method": self.method.name, "on": self.kind, "set": self.options}
        if "rng" in self.method.inputs:
            decided["seed"] = self.seed
        decided |= {"task": self.given.task_name, "labels": self.given.labels, **more}
        inputs = {"rows": self.given.digest}
        if self.target:
            inputs["target rows"] = self.target.digest
        for argument in self.arguments.values():
            inputs |= argument.digests
        return Recipe(stage, decided, inputs, {f"{stage} {self.method.name}": self.method.code})

    def read(self) -> dict[str, Any]:
        """All arguments and options of the method but n_keep; optional ones only where they are given."""
        for artifact in (*self.given.represented, *self.given.scored):  # those that the method does not read too
            own = artifact.about["digest"] if artifact.stage == "represent" else artifact.inputs["rows"]
            if own != self.given.digest:
                _positions(self.given, artifact)
        values = {name: argument.read() for name, argument in self.arguments.items()}
        for name, value in values.items():
            if value is None and name not in self.method.optional:
                _refuse_without(name, self.target if name.startswith(TARGET) and self.target else self.given)
        if "rng" in self.method.inputs:
            values["rng"] = np.random.default_rng(self.seed)
        return {name: value for name, value in values.items() if value is not None} | self.options


def prepare(stage: str, names: Sequence[str], opts: options.Score | options.Select, reading: Reading) -> Call:
    """Load a method and find where its arguments are.

    Raises PruneError for what is missing or cannot be compared. Of artifacts only manifests are read.
    """
    given = collect(names, reading, task=opts.task)
    held = given.kinds
    chosen = _load(stage, opts.method, opts.on or (held[0] if len(held) == 1 else None))
    values = method.parse_options(chosen, opts.set)
    compares = any(name.startswith(TARGET) for name in chosen.inputs)
    with_target = opts.target if compares else None
    target = collect([with_target], reading, task=given.task_name, role="target ") if with_target else None
    read = [name for name in chosen.inputs if name not in FROM_STAGE]
    if not held and opts.on is None and "text" in chosen.forms and chosen.wants_representation:
        raise PruneError("--on: missing; allowed: text, or a representation where its artifact is given")
    kind = _kind(read, given, opts.on, chosen)
    arguments = {name: _given(name, kind, given, target, chosen) for name in read}
    if opts.target and not compares:
        holding = [name for name in read if (of := kinds.kind_of(name)) and "target" in kinds.load(of).needs]
        why = f"{holding[0]} has its target set in it" if holding else f"{chosen.name} compares with no target set"
        raise PruneError(f"--target {opts.target}: {why}; leave --target out")
    if kind:
        for inputs in (given, target):
            if inputs:
                _check_checkpoints(read, inputs, kind)
    if target and kind:
        _check_comparable(given, target, kind)
    places = {"rows": given.place, **{f"input {i + 1}": name for i, name in enumerate(names)}}
    if opts.target:
        places["target"] = opts.target
    return Call(chosen, given, target, kind, arguments, values, opts.seed, places)


def _load(stage: str, name: str, kind: str | None) -> Method:
    """The method; the error where it is the name of a published one says so."""
    try:
        return method.load(stage, name, kind)
    except PruneError as mistake:
        whole = name.replace("_", "-")
        if whole not in published() or name.replace("-", "_") in method.names(stage):
            raise
        hint = f"a published method; prune methods {whole} says which score and selection it is"
        raise PruneError(mistake.message, hint=hint) from None


def as_array(returned: Any) -> NDArray[Any]:
    """What a method returned as an array; of no axis and no number type where it cannot be one."""
    try:
        return np.asarray(returned)
    except ValueError:  # lists of different lengths
        return np.asarray(None)


def _kind(names: Sequence[str], given: Inputs, on: str | None, chosen: Method) -> str | None:
    """The representation that the arguments are of, if they are of one."""
    of_choice = [name for name in names if name.removeprefix(TARGET) in OF_CHOICE]
    if on is None and not given.kinds and {*of_choice} <= {*chosen.optional}:
        return None
    bare = [name.removeprefix(TARGET) for name in names]
    if on in bare:  # a form of the method that reads the tensor of this kind alone
        on = None
    if set(OF_CHOICE) & set(bare):
        return given.kind(on)
    if on is not None:
        raise PruneError(f"--on {on}: this method runs on no representation of your choice; leave --on out")
    if "learning_rate" in bare:
        return next((kind for name in bare if (kind := kinds.kind_of(name))), None)
    return None


def _given(name: str, kind: str | None, given: Inputs, target: Inputs | None, chosen: Method) -> Argument:
    """Where an argument is and how it is read; an optional one that is not given is None."""
    try:
        return _argument(name, kind, given, target, chosen)
    except Absent:
        if name not in chosen.optional:
            raise
        return Argument({}, lambda: None)


def _argument(name: str, kind: str | None, given: Inputs, target: Inputs | None, chosen: Method) -> Argument:
    """Where an argument is and how it is read."""
    inputs, bare = given, name
    if name.startswith(TARGET):
        if target is None:
            raise Absent(f"{chosen.name}: compares with a target set; --target ARTIFACT is needed")
        inputs, bare = target, name.removeprefix(TARGET)
    if bare in OF_ROWS and bare not in ("score", "scores"):
        return Argument({}, lambda: inputs.n if bare == "n" else getattr(inputs, bare)())
    if bare == "score":
        scored = inputs.score_artifact()
        return Argument({f"{inputs.role}score": scored.files["score.jsonl"]}, lambda: _score(inputs, scored))
    if bare == "scores":
        several = inputs.score_artifacts()
        digests = {f"{inputs.role}score {i + 1}": one.files["score.jsonl"] for i, one in enumerate(several)}
        return Argument(digests, lambda: np.stack([_score(inputs, one) for one in several], axis=1))
    if bare not in (*OF_CHOICE, SCALE, "learning_rate") and kinds.kind_of(bare) is None:
        known = [*kinds.tensor_names(), *OF_CHOICE, SCALE, "learning_rate", *OF_ROWS, *FROM_STAGE]
        raise PruneError(f"{chosen.name}: asks for {name}; allowed: {', '.join(known)}, or {TARGET} and one of them")
    kind = kinds.kind_of(bare) or kind
    if kind is None:
        raise Absent(f"{chosen.name}: asks for {name}; a represent artifact is needed")
    held = inputs.holder(kind)
    file = f"{kind}.safetensors"
    digests = {f"{inputs.role}{kind}": held.files[file], f"{inputs.role}{kind} rows": held.about["digest"]}
    if bare == "learning_rate":
        mean = kinds.is_scalar(kind) and "trajectory" in chosen.inputs  # which then has one step, of all checkpoints
        return Argument(digests, lambda: held.read(file, partial(_learning_rate, mean=mean)))
    if bare == SCALE:
        return Argument(digests, lambda: _asked_scale(inputs, held, kind, optional=name in chosen.optional))
    tensor = kinds.load(kind).features if bare in OF_CHOICE else bare
    if bare in OF_CHOICE and name.replace(bare, SCALE) in chosen.inputs:
        return Argument(digests, lambda: shaped(_stored(inputs, held, kind, tensor), bare, kind))
    return Argument(digests, lambda: shaped(_multiplied(inputs, held, kind, tensor), bare, kind))


def _refuse_without(name: str, inputs: Inputs) -> None:
    """Raise PruneError for groups or labels that rows do not have and a method needs."""
    if name.removeprefix(TARGET) == "label":
        raise PruneError(f"rows of the task {inputs.task_name} have no labels; this method needs one in every row")
    raise PruneError(f"{inputs.rows.where(0)}: key group is missing; this method needs it in every row")


def _multiplied(inputs: Inputs, held: Artifact, kind: str, name: str) -> NDArray[Any]:
    """A tensor [n, e, …] in the rows' order: what is stored, times its scale where it has one."""
    scale = _scale(inputs, held, kind, name)
    stored = _stored(inputs, held, kind, name)
    return stored if scale is None else scaled(stored, scale)


def _scale(inputs: Inputs, held: Artifact, kind: str, name: str) -> NDArray[Any] | None:
    """What a stored tensor is to be multiplied by [n, e]; None where it is stored as it is."""
    scale = scale_of(name)
    return _stored(inputs, held, kind, scale) if scale in held.about["kinds"][kind]["tensors"] else None


def _asked_scale(inputs: Inputs, held: Artifact, kind: str, *, optional: bool) -> NDArray[Any] | None:
    """The scale of a kind's features; where they have none, ones [n, e] for a method that cannot do without."""
    scale = _scale(inputs, held, kind, kinds.load(kind).features)
    if scale is not None or optional:
        return scale
    return np.ones((inputs.n, len(held.read(f"{kind}.safetensors", partial(_learning_rate, mean=False)))), np.float32)


def _stored(inputs: Inputs, held: Artifact, kind: str, name: str) -> NDArray[Any]:
    """A stored tensor [n, e, …] in the rows' order, memory-mapped where it is large."""
    if name not in held.about["kinds"][kind]["tensors"]:
        raise PruneError(
            f"{held.path}: {kind} has no {name}; an older version made it", hint="represent the rows again"
        )
    array = held.read(f"{kind}.safetensors", tensors.load)[name]
    if held.about["digest"] == inputs.digest:
        return array
    return rows_at(array, _positions(inputs, held))


def shaped(array: NDArray[Any], name: str, kind: str) -> NDArray[Any]:
    """`features` [n, d] with all checkpoints side by side, `trajectory` [n, e, d]; a tensor by its name as stored.

    A kind of one number a checkpoint has its checkpoints for features, and a trajectory of one step [n, 1, e].
    """
    if name == "features":
        return array.reshape(len(array), -1)
    if name == "trajectory" and kinds.is_scalar(kind):
        return array[:, None, :]
    return array


def _learning_rate(path: Path, *, mean: bool) -> NDArray[np.float64]:
    """Learning rate of each checkpoint [e], or their mean [1]."""
    rates = np.asarray(tensors.metadata(path)["learning_rate"], np.float64)
    return rates.mean(keepdims=True) if mean else rates


def _score(inputs: Inputs, scored: Artifact) -> NDArray[np.float64]:
    """The score of each row [n]."""
    values = scored.read("score.jsonl", _values)
    if scored.inputs["rows"] == inputs.digest:
        return values
    ordered: NDArray[np.float64] = values[_positions(inputs, scored)]
    return ordered


def _values(path: Path) -> NDArray[np.float64]:
    """The scores in a file, in its order."""
    return np.fromiter((line["score"] for line in read_jsonl(path)), np.float64)


def _positions(inputs: Inputs, artifact: Artifact) -> NDArray[np.int64]:
    """Where each of the rows stands in an artifact."""
    lacking = f"is not in {artifact.path}; allowed: inputs about the same rows"
    return artifact.read(fingerprints.IDS, lambda file: fingerprints.positions(inputs.rows, file, lacking))


def _check_checkpoints(names: Sequence[str], inputs: Inputs, kind: str) -> None:
    """A method that reads a representation by checkpoint, and tensors of other kinds, reads the same checkpoints."""
    bare = [name.removeprefix(TARGET) for name in names if name.startswith(TARGET) == bool(inputs.role)]
    others = {other for name in bare if (other := kinds.kind_of(name)) not in (None, kind)}
    if "trajectory" not in bare or not others:
        return
    main = inputs.holder(kind)
    for other in sorted(filter(None, others)):
        held = inputs.holder(other)
        if _checkpoints(held, other) != _checkpoints(main, kind):
            raise PruneError(
                f"{held.path}: its {other} is not of the checkpoints that {kind} in {main.path} is of",
                hint="represent both with the same model and checkpoints",
            )


def _checkpoints(held: Artifact, kind: str) -> tuple[str | None, int]:
    """The model that a kind was represented with, and at how many checkpoints."""
    shape = next(iter(held.about["kinds"][kind]["tensors"].values()))["shape"]
    return held.inputs.get("model"), shape[1]


def _check_comparable(given: Inputs, target: Inputs, kind: str) -> None:
    """Rows and target set must have been represented alike: same model, checkpoints and options."""
    ours, theirs = given.holder(kind), target.holder(kind)
    for name in sorted(kinds.load(kind).not_in_space):
        default = kinds.options()[name].default
        if theirs.options[name] != default:
            raise PruneError(
                f"{theirs.path}: {name}: {theirs.options[name]}; allowed for a target set: {default}",
                hint=f"represent the target set with --{name.replace('_', '-')} {default}",
            )
    if ours.about["space"][kind] != theirs.about["space"][kind]:
        raise PruneError(
            f"{theirs.path}: its {kind} is not comparable with that of {ours.path}",
            hint="represent both with the same model, checkpoints and options",
        )
