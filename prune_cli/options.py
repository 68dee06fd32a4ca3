"""The options of each stage: one frozen record a stage, each option declared once.

An option's annotation holds its type or `Literal` choices, its bounds (`Meta`) and its help text (`Help`). The command
line, pipeline files, the Python API and the recipe of an artifact all read these records. Options of score and select
methods (methods/method.py) and of kinds of representation (represent/kinds/) are declared in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from prune_cli import tasks
from prune_cli.export import names as exports
from prune_cli.option import Help, Option, build, checked, declared, option, raise_all, shown

__all__ = ["Help", "Option", "build", "checked", "declared", "option", "raise_all", "shown"]  # for those who read these

STAGES_ON_DEVICE = ("represent", "finetune", "eval")
LM_EVAL = "Tasks of lm-eval"
LORA = ("tune", ("lora",))  # what options of LoRA have a say with
LOGS = ("log", ("tensorboard", "wandb", "mlflow"))  # and those of a log
MOST = 2**31 - 1  # of anything that is counted: libraries count it in 32 bits


Device = Annotated[str, Help("Where to run: auto, cpu, cuda or cuda:N.", key=False)]
Task = Annotated[
    str,
    Help(f"What the rows are: {', '.join(tasks.names())}; auto: as the artifacts given say, else classification."),
]
LossOn = Annotated[
    Literal["all", "last"],
    Help("generation: the loss is on every turn of the assistant (all), or on the last alone.", by_task=True),
]
ChatTemplate = Annotated[str | None, Help("generation: a Jinja file in place of the chat template.", key=False)]
LossAsTrained = Annotated[
    Literal["auto", "all", "last"],
    Help("generation: the loss is on every turn of the assistant, or the last; auto: as in training.", by_task=True),
]
Precision = Annotated[Literal["float32", "bfloat16"], Help("Number format of the computation.")]
Seed = Annotated[int, Meta(ge=0, lt=2**32), Help("Seed of everything random.")]
MaxLength = Annotated[
    int, Meta(ge=0, le=MOST), Help("Cut an example to this many tokens; 0: as in training, else 512.")
]
BatchSize = Annotated[int, Meta(gt=0, le=MOST), Help("Most rows in a batch.", key=False)]
TokensPerBatch = Annotated[int, Meta(gt=0, le=MOST), Help("Most tokens in a batch, padding counted.", key=False)]
SaveMinutes = Annotated[float, Meta(ge=0), Help("Minutes between saves of progress.", key=False)]
TrustRemoteCode = Annotated[bool, Help("Run code that comes with the model. Read it first.")]
Set = Annotated[Mapping[str, Any], Help("An option of the method; `prune methods NAME` lists them.")]
On = Annotated[str | None, Help("Which representation, where the method runs on any of them.")]
Target = Annotated[
    str | None,
    Help(
        "Represent artifact of the target set, for methods that compare with one; or its data file, for bm25 and dsir."
    ),
]


@dataclass(frozen=True)
class Represent:
    """Options of `prune represent`, beside those of the kinds (represent/kinds/), which stand in `kind_options`."""

    model: Annotated[str | None, Help("Hub name, model folder, or finetune artifact; lexical needs none.")] = None
    kind: Annotated[str, Help("Kinds of representation, with commas.")] = "hidden"
    task: Task = "auto"
    checkpoints: Annotated[str, Help("Which checkpoints of a finetune artifact: all, last, or numbers as in 1,3.")] = (
        "all"
    )
    target_data: Annotated[
        str | None, Help("influence: rows of the target set; their groups stay apart.", key=False)
    ] = None
    max_length: MaxLength = 0
    loss_on: LossAsTrained = "auto"
    chat_template: ChatTemplate = None
    precision: Precision = "float32"
    batch_size: Annotated[
        int, Meta(ge=0, le=MOST), Help("Most rows in a batch; 0: 32 on a CPU, 1024 on a GPU.", key=False)
    ] = 0
    tokens_per_batch: Annotated[
        int,
        Meta(ge=0, le=MOST),
        Help("Most tokens in a batch, padding counted; 0: 8192 on a CPU, 65536 on a GPU.", key=False),
    ] = 0
    save_minutes: SaveMinutes = 1.0
    trust_remote_code: TrustRemoteCode = False
    device: Device = "auto"
    kind_options: Annotated[Mapping[str, Any], Help("Options of the kinds, by name.")] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """Options of `prune score`."""

    method: Annotated[str, Help("Name of a score method; `prune methods` lists them; or FILE.py:FUNCTION.")]
    on: On = None
    target: Target = None
    task: Task = "auto"
    set: Set = field(default_factory=dict)
    seed: Seed = 0


@dataclass(frozen=True)
class Select:
    """Options of `prune select`."""

    method: Annotated[str, Help("Name of a selection method; `prune methods` lists them; or FILE.py:FUNCTION.")]
    keep: Annotated[
        str, Help("How much to keep: a share (0.3 or 30%; 1.0 is all) or a number of rows (500; 1 is one).")
    ]
    within: Annotated[
        str | None,
        Help("Choose among the rows that this select artifact kept; a share is then one of these."),
    ] = None
    decontaminate: Annotated[
        tuple[str, ...],
        Help("Leave out rows that stand in this test set, word for word or mostly. Repeatable."),
    ] = ()
    fits: Annotated[
        str | None,
        Help("generation: leave out rows whose response is too long for this model and --max-length.", by_task=True),
    ] = None
    max_length: Annotated[
        int, Meta(ge=0, le=MOST), Help("--fits: most tokens of an example; 0: as in training, else 512.")
    ] = 0
    chat_template: Annotated[str | None, Help("--fits: a Jinja file in place of the chat template.")] = None
    loss_on: Annotated[
        Literal["auto", "all", "last"],
        Help("--fits: the loss is on every turn of the assistant, or the last; auto: as in training."),
    ] = "auto"
    balance: Annotated[
        Literal["none", "keep", "equal"],
        Help("Rows of each label or group: no balance (none), the data's ratio (keep), or equal shares (equal)."),
    ] = "none"
    balance_by: Annotated[Literal["label", "group"], Help("What to balance: labels, or groups.")] = "label"
    order: Annotated[
        Literal["best", "data"],
        Help("Order of the kept rows: as the method picked them, best first, or as in the data."),
    ] = "best"
    on: On = None
    target: Target = None
    task: Task = "auto"
    set: Set = field(default_factory=dict)
    seed: Seed = 0


@dataclass(frozen=True)
class Export:
    """Options of `prune export`."""

    for_: Annotated[str, Help(f"What is to read the rows: {', '.join(exports())}.")]
    why: Annotated[str | None, Help("Columns of why.jsonl to put behind each row's own keys: names with commas.")] = (
        None
    )
    nested: Annotated[
        Literal["refuse", "json"], Help("csv: lists and objects are an error (refuse), or become JSON text (json).")
    ] = "refuse"


@dataclass(frozen=True)
class Finetune:
    """Options of `prune finetune`."""

    model: Annotated[str, Help("Hub name or folder of the model to train, or a finetune artifact.")]
    task: Task = "auto"
    tune: Annotated[Literal["full", "lora"], Help("Train all weights, or LoRA adapters and the head.")] = "full"
    epochs: Annotated[float, Meta(gt=0, le=1_000_000), Help("Passes over the data.", only=("steps", (0,)))] = 3.0
    steps: Annotated[int, Meta(ge=0, le=MOST), Help("Train for this many optimizer steps instead; 0: by epochs.")] = 0
    learning_rate: Annotated[float, Meta(gt=0), Help("Peak learning rate.")] = 5e-5
    schedule: Annotated[Literal["linear", "cosine", "constant"], Help("Shape of the learning rate.")] = "linear"
    warmup_ratio: Annotated[float, Meta(ge=0, lt=1), Help("Share of the steps over which the learning rate rises.")] = (
        0.0
    )
    batch_size: Annotated[int, Meta(gt=0, le=MOST), Help("Rows in a batch, over all devices.")] = 32
    accumulate: Annotated[int, Meta(gt=0, le=MOST), Help("Batches whose gradients are added up for one step.")] = 1
    weight_decay: Annotated[float, Meta(ge=0), Help("Weight decay of AdamW.")] = 0.0
    clip: Annotated[float, Meta(ge=0), Help("Longest gradient of a step, longer ones are scaled down; 0: none.")] = 1.0
    max_length: Annotated[int, Meta(gt=0, le=MOST), Help("Cut an example to this many tokens.")] = 512
    loss_on: LossOn = "all"
    chat_template: ChatTemplate = None
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"], Help("auto: bfloat16 autocast where the device has it.")
    ] = "auto"
    lora_rank: Annotated[int, Meta(gt=0, le=2**16), Help("Rank of the LoRA adapters.", only=LORA)] = 16
    lora_alpha: Annotated[int, Meta(ge=0, le=MOST), Help("Scale of the LoRA adapters.", only=LORA)] = 32
    lora_dropout: Annotated[float, Meta(ge=0, lt=1), Help("Dropout in the LoRA adapters.", only=LORA)] = 0.0
    lora_targets: Annotated[str, Help("Modules to adapt: all-linear, or names with commas.", only=LORA)] = "all-linear"
    lora_save: Annotated[
        str | None, Help("Modules to train and save whole beside the adapters: names with commas.", only=LORA)
    ] = None
    lora_rslora: Annotated[bool, Help("Scale adapters by alpha / √rank (rsLoRA), not by alpha / rank.", only=LORA)] = (
        False
    )
    lora_dora: Annotated[
        bool, Help("Train the length of each weight row apart from its direction (DoRA).", only=LORA)
    ] = False
    load_in: Annotated[
        Literal["float32", "4bit"], Help("lora: base weights in 32 bits, or in 4 (CUDA and bitsandbytes).", only=LORA)
    ] = "float32"
    gradient_checkpointing: Annotated[
        bool, Help("Compute activations again in the backward: less memory, more time.", key=False)
    ] = False
    keep_checkpoints: Annotated[
        Literal["none", "epoch"],
        Help("Keep the weights after each epoch (the last may be part of one), or not.", panel="Checkpoints"),
    ] = "none"
    keep_moments: Annotated[
        bool | None,
        Help(
            "Keep Adam's moments with each checkpoint; if left out, with LoRA only.",
            only=("keep_checkpoints", ("epoch",)),
            panel="Checkpoints",
        ),
    ] = None
    log: Annotated[
        Literal["none", "tensorboard", "wandb", "mlflow"],
        Help("Log loss, learning rate and gradient norm for this package.", key=False, panel="Logging"),
    ] = "none"
    log_steps: Annotated[
        int, Meta(gt=0, le=MOST), Help("Steps between logs.", key=False, only=LOGS, panel="Logging")
    ] = 10
    save_minutes: SaveMinutes = 10.0
    seed: Seed = 0
    trust_remote_code: TrustRemoteCode = False
    device: Device = "auto"

    def per_epoch(self, n: int) -> int:
        """Optimizer steps of an epoch over n rows."""
        batches = -(-n // self.batch_size)
        return -(-batches // self.accumulate)

    def passes(self, n: int) -> float:
        """Epochs of the whole training on n rows, the last perhaps only in part."""
        return self.steps / self.per_epoch(n) if self.steps else self.epochs

    def optimizer_steps(self, n: int) -> int:
        """Optimizer steps of the whole training on n rows."""
        return self.steps or math.ceil(self.epochs * self.per_epoch(n))

    def recipe(self) -> dict[str, Any]:
        """The options that decide what is trained: those of LoRA only with LoRA, epochs only without steps."""
        unused = {"model", "epochs" if self.steps else "steps"}
        return {name: value for name, value in recipe(self, self.task).items() if name not in unused}


@dataclass(frozen=True)
class Eval:
    """Options of `prune eval`."""

    task: Task = "auto"
    max_new_tokens: Annotated[
        int,
        Meta(ge=0, le=MOST),
        Help("generation: most tokens of a generated text; 0: generate nothing.", by_task=True),
    ] = 64
    max_length: MaxLength = 0
    loss_on: LossAsTrained = "auto"
    chat_template: ChatTemplate = None
    precision: Precision = "float32"
    batch_size: BatchSize = 64
    tokens_per_batch: TokensPerBatch = 16384
    lm_eval_shots: Annotated[
        int, Meta(ge=-1, le=MOST), Help("Examples before each question; -1: as the task says.", panel=LM_EVAL)
    ] = -1
    lm_eval_limit: Annotated[
        int, Meta(ge=0, le=MOST), Help("Only the first so many questions of each task; 0: all.", panel=LM_EVAL)
    ] = 0
    lm_eval_chat: Annotated[bool, Help("Put questions into the chat template, where there is one.", panel=LM_EVAL)] = (
        True
    )
    lm_eval_tasks: Annotated[str | None, Help("Folder with more tasks, as YAML files.", key=False, panel=LM_EVAL)] = (
        None
    )
    trust_remote_code: TrustRemoteCode = False
    device: Device = "auto"


@dataclass(frozen=True)
class Merge:
    """Options of `prune merge`."""

    task: Task = "auto"
    trust_remote_code: TrustRemoteCode = False


@dataclass(frozen=True)
class Simulate:
    """Options of `prune simulate`."""

    methods: Annotated[str, Help("Published methods, with commas; paper: those of Du et al. 2025, Figure 2.")] = "paper"
    keep: Annotated[
        str, Help("How much of the 600 training points to keep: a share (0.3 or 30%) or a number (180).")
    ] = "0.3"
    noise: Annotated[float, Meta(ge=0, le=0.5), Help("Share of training points whose label is flipped.")] = 0.0
    imbalance: Annotated[
        float, Meta(ge=1, le=99), Help("Points of the larger class to one of the smaller; 1: as many.")
    ] = 1.0
    clusters: Annotated[
        int, Meta(ge=1, le=10), Help("Clusters that a class is drawn from; k-means looks for as many.")
    ] = 2
    seeds: Annotated[int, Meta(gt=0, le=10_000), Help("How often all is drawn and run, with seeds from --seed on.")] = (
        20
    )
    sweep: Annotated[
        str | None, Help("Run along values of noise, imbalance, clusters or keep too, as in noise=0,0.1,0.2.")
    ] = None
    seed: Seed = 0


@dataclass(frozen=True)
class Report:
    """Options of `prune report`."""

    known: Annotated[str, Help("KEY=VALUE: rows with this value are known to be mislabelled.")] = "kind=mislabelled"
    examples: Annotated[int, Meta(ge=1, le=100), Help("Rows shown at each end of a method.")] = 5
    seed: Seed = 0


def recipe(record: Any, task: str | None = None) -> dict[str, Any]:
    """The options of a record that are part of the recipe, without those that have no say, as far as the task tells.

    `trust_remote_code` is part of it where it is given: otherwise no code of a model runs, as ever.
    """
    trusts = getattr(record, "trust_remote_code", False)
    silent = _without_say(record, task)
    return {
        option.name: getattr(record, option.name)
        for option in declared(type(record)).values()
        if option.help.key and (trusts or option.name != "trust_remote_code") and option.name not in silent
    }


def idle(record: Any, task: str) -> list[str]:
    """The options of a record that were set and have no say, as problems."""
    known = declared(type(record))
    return [
        f"{name}: {shown(getattr(record, name))}; it has no say with {why}; leave it out"
        for name, why in _without_say(record, task).items()
        if getattr(record, name) != known[name].default
    ]


def _without_say(record: Any, task: str | None) -> dict[str, str]:
    """The options of a record that change nothing, each with what it is that leaves them no say."""
    named = tasks.load(task).OPTIONS if task else ()
    silent = {}
    for name, known in declared(type(record)).items():
        other, values = known.help.only or ("", ())
        if other and getattr(record, other) not in values:
            silent[name] = f"{other} {getattr(record, other)}, only with {', '.join(map(str, values))}"
        elif task and known.help.by_task and name not in named:
            others = " or ".join(other for other in tasks.names() if name in tasks.load(other).OPTIONS)
            silent[name] = f"the task {task}, only with --task {others}"
    return silent
