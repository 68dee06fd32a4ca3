"""The options of each stage: one frozen dataclass a stage, each option declared once.

The command line takes names, types, defaults and help texts from here; the tables of a pipeline file are checked
against the same fields; and the values end up in the artifact's recipe. Options marked `key=False` change how a
stage runs but not, beyond rounding, what it makes: they stay out of the recipe.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_type_hints

from prune_cli import tasks
from prune_cli.errors import PruneError


@dataclass(frozen=True)
class Opt:
    """What an option means (`help`), its allowed values where they are few, and whether it is in the recipe."""

    help: str
    choices: tuple[str, ...] = ()
    key: bool = True


Device = Annotated[str, Opt("Where to run: auto, cpu, cuda or cuda:N.", key=False)]
MaxLength = Annotated[int, Opt("Cut an example to this many tokens.")]
Seed = Annotated[int, Opt("Seed of everything random.")]
Task = Annotated[
    str, Opt("What the rows are; auto: as the artifacts given say, else classification.", ("auto", *tasks.names()))
]
Precision = Annotated[str, Opt("Number format of the computation.", ("float32", "bfloat16"))]


@dataclass(frozen=True)
class Finetune:
    """Options of `prune finetune`."""

    model: Annotated[str, Opt("Hub name or folder of the model to train.")]
    task: Task = "auto"
    method: Annotated[str, Opt("Train all weights, or LoRA adapters and the head.", ("full", "lora"))] = "full"
    epochs: Annotated[float, Opt("Passes over the data.")] = 3.0
    steps: Annotated[int, Opt("Train for this many optimizer steps instead; 0: by epochs.")] = 0
    learning_rate: Annotated[float, Opt("Peak learning rate.")] = 5e-5
    schedule: Annotated[str, Opt("Shape of the learning rate.", ("linear", "cosine", "constant"))] = "linear"
    warmup: Annotated[float, Opt("Share of the steps over which the learning rate rises.")] = 0.0
    batch_size: Annotated[int, Opt("Rows in a batch on each device.")] = 32
    accumulate: Annotated[int, Opt("Batches whose gradients are added up for one step.")] = 1
    weight_decay: Annotated[float, Opt("AdamW's weight decay.")] = 0.0
    clip: Annotated[float, Opt("Longest gradient of a step, longer ones are scaled to it; 0: no limit.")] = 1.0
    max_length: MaxLength = 512
    precision: Annotated[
        str, Opt("auto: bfloat16 autocast where the device has it.", ("auto", "float32", "bfloat16"))
    ] = "auto"
    lora_rank: Annotated[int, Opt("Rank of the LoRA adapters.")] = 16
    lora_alpha: Annotated[int, Opt("Scale of the LoRA adapters.")] = 32
    lora_dropout: Annotated[float, Opt("Dropout in the LoRA adapters.")] = 0.0
    lora_targets: Annotated[str, Opt("Modules to adapt: all-linear, or names with commas.")] = "all-linear"
    load_in: Annotated[
        str, Opt("lora: hold the weights beneath in 32 or in 4 bits (CUDA and bitsandbytes).", ("float32", "4bit"))
    ] = "float32"
    gradient_checkpointing: Annotated[
        str, Opt("Less memory, more time: activations are computed again.", ("no", "yes"), key=False)
    ] = "no"
    checkpoints: Annotated[
        str, Opt("Keep the weights after each epoch (the last may be part of one), or not.", ("none", "epoch"))
    ] = "none"
    moments: Annotated[
        str, Opt("Keep Adam's moments with each checkpoint; auto: with LoRA only.", ("auto", "yes", "no"))
    ] = "auto"
    save_minutes: Annotated[
        float, Opt("Save progress this often besides after each epoch, to go on from when killed.", key=False)
    ] = 10.0
    seed: Seed = 0
    device: Device = "auto"


@dataclass(frozen=True)
class Represent:
    """Options of `prune represent`."""

    model: Annotated[str, Opt("Hub name, model folder, or finetune artifact.")]
    kind: Annotated[str, Opt("Any of hidden, dynamics, gradient or influence, unprompted, with commas.")] = "hidden"
    task: Task = "auto"
    checkpoints: Annotated[str, Opt("Of a finetune artifact: all, last, or numbers such as 1,3.")] = "all"
    layer: Annotated[int, Opt("hidden: which layer; -1 is the last, 0 the embeddings.")] = -1
    pooling: Annotated[
        str,
        Opt(
            "hidden: tokens to one vector; auto: the task's own way.",
            ("auto", "cls", "mean", "last", "position", "response"),
        ),
    ] = "auto"
    choices: Annotated[str, Opt("hidden: vectors of a row's choices to one vector.", ("mean", "gold"))] = "mean"
    dynamics: Annotated[
        str,
        Opt("dynamics: recompute at each checkpoint, or take those of training.", ("recompute", "recorded")),
    ] = "recompute"
    similarity: Annotated[
        str,
        Opt("influence: mean cosine with the target's gradients (LESS), or inner product (TracIn).", ("cosine", "dot")),
    ] = "cosine"
    params: Annotated[
        str,
        Opt("gradient, influence: which parameters: all, lora, head, last:N blocks, or a regular expression on names."),
    ] = "all"
    precondition: Annotated[
        str,
        Opt(
            "gradient, influence: as it is, or the step Adam would take on it (finetune --moments yes).",
            ("none", "adam"),
        ),
    ] = "none"
    projection: Annotated[
        str,
        Opt(
            "gradient: faithful, or fast and rough (on sst2, dim 8192: cosines off by 0.03 rather than 0.01).",
            ("faithful", "fast"),
        ),
    ] = "faithful"
    dim: Annotated[int, Opt("gradient: numbers a row and checkpoint is projected to.")] = 8192
    dtype: Annotated[str, Opt("Stored type of hidden and gradient.", ("float16", "float32"))] = "float16"
    max_length: Annotated[int, Opt("Cut an example to this many tokens; 0: as in training, else 512.")] = 0
    precision: Precision = "float32"
    batch_size: Annotated[int, Opt("Most rows in a batch.", key=False)] = 32
    tokens_per_batch: Annotated[int, Opt("Most tokens in a batch, padding counted.", key=False)] = 8192
    save_minutes: Annotated[float, Opt("Save progress this often, to go on from when killed.", key=False)] = 1.0
    seed: Seed = 0
    device: Device = "auto"


@dataclass(frozen=True)
class Eval:
    """Options of `prune eval`."""

    task: Task = "auto"
    max_new_tokens: Annotated[int, Opt("generation: most tokens of a generated text; 0: none is.")] = 64
    max_length: Annotated[int, Opt("Cut an example to this many tokens; 0: as in training, else 512.")] = 0
    precision: Precision = "float32"
    batch_size: Annotated[int, Opt("Most rows in a batch.", key=False)] = 64
    tokens_per_batch: Annotated[int, Opt("Most tokens in a batch, padding counted.", key=False)] = 16384
    device: Device = "auto"


def described(options: type) -> dict[str, tuple[type, Opt]]:
    """Type and description of each option of a stage, in order."""
    hints = get_type_hints(options, include_extras=True)
    found = {}
    for entry in fields(options):
        kind, opt = get_args(hints[entry.name])
        found[entry.name] = (kind, opt)
    return found


def recipe_options(options: Any) -> dict[str, Any]:
    """The options that stand in the recipe."""
    return {name: getattr(options, name) for name, (_, opt) in described(type(options)).items() if opt.key}


def of_training(opts: Finetune) -> dict[str, Any]:
    """The options that have a say in what is trained: those of LoRA only with LoRA, epochs only without steps."""
    idle = {"model"}
    if opts.method != "lora":
        idle |= {"load_in", *(name for name in described(Finetune) if name.startswith("lora_"))}
    if opts.checkpoints == "none":
        idle.add("moments")
    idle.add("epochs" if opts.steps else "steps")
    return {name: value for name, value in recipe_options(opts).items() if name not in idle}


def of_eval(opts: Eval) -> dict[str, Any]:
    """The options that have a say in what `eval` makes."""
    idle = set() if opts.task == "generation" else {"max_new_tokens"}
    return {name: value for name, value in recipe_options(opts).items() if name not in idle}


_OF_KIND = {
    "hidden": ("layer", "pooling", "choices"),
    "dynamics": ("dynamics",),
    "gradient": ("params", "precondition", "projection", "dim", "seed"),
    "influence": ("params", "precondition", "similarity"),
    "unprompted": (),
}


def of_kind(kind: str, opts: Represent) -> dict[str, Any]:
    """The options that a kind's values depend on, beside the model, its checkpoints and how values are stored."""
    if kind == "dynamics" and opts.dynamics == "recorded":
        return {"dynamics": opts.dynamics}
    names = ["max_length", "precision", *_OF_KIND[kind]]
    if opts.task != "choice":
        names = [name for name in names if name != "choices"]
    return {name: getattr(opts, name) for name in names}


def check(options: Any) -> None:
    """Refuse a value that is not among an option's choices, or that no stage can use."""
    for name, (kind, opt) in described(type(options)).items():
        value = getattr(options, name)
        if opt.choices and value not in opt.choices:
            raise PruneError(f"{name}: {value}; allowed: {', '.join(opt.choices)}")
        if kind is float and not math.isfinite(value):
            raise PruneError(f"{name}: {value}; a finite number is allowed")
        if kind in (int, float) and name in _POSITIVE and value <= 0:
            raise PruneError(f"{name}: {value}; a number above 0 is allowed")
        if kind in (int, float) and name not in _ANY_SIGN and value < 0:
            raise PruneError(f"{name}: {value}; 0 or more is allowed")
        if name == "dim" and value < 2:
            raise PruneError(f"{name}: {value}; 2 or more is allowed")
        if name in _SHARE and value >= 1:
            raise PruneError(f"{name}: {value}; a share below 1 is allowed")


_POSITIVE = {"epochs", "learning_rate", "batch_size", "accumulate", "lora_rank", "dim", "tokens_per_batch"}
_ANY_SIGN = {"layer"}
_SHARE = {"warmup", "lora_dropout"}


_NEEDED = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}


def typed(
    table: Mapping[str, Any], known: Mapping[str, type], also: tuple[str, ...] = ()
) -> tuple[dict[str, Any], list[str]]:
    """The values of a table of options that are of their type; and what is wrong with the others."""
    given: dict[str, Any] = {}
    problems = []
    for key, value in table.items():
        if key not in known:
            problems.append(f"{key}: unknown key; allowed: {', '.join([*known, *also]) or 'none'}")
        elif type(value) is not known[key] and not (known[key] is float and type(value) is int):
            problems.append(f"{key}: {shown(value)}; {_NEEDED[known[key]]} is needed")
        else:
            given[key] = known[key](value)
    return given, problems


def shown(value: Any) -> str:
    """A value of a TOML file as a message shows it."""
    return "missing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
