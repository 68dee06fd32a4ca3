"""Models: find, load and place them; batches of a bounded size to feed them with."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from prune_cli.artifacts import manifest as artifact
from prune_cli.artifacts.manifest import Artifact, open_artifact
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.runtime import processes
from prune_cli.runtime.progress import note
from prune_cli.tasks import Task


@dataclass(frozen=True)
class Checkpoint:
    """Weights kept after an epoch of training: `path` holds them; None: the model's own.

    `learning_rate` is the mean over the steps of that epoch (1.0 for a model that was not trained here).
    """

    name: str
    path: Path | None
    learning_rate: float


@dataclass(frozen=True)
class Source:
    """A model that was named: a hub name, a model folder, or a finetune artifact (`trained`)."""

    name: str
    digest: str
    trained: Artifact | None
    checkpoints: tuple[Checkpoint, ...]

    @property
    def labels(self) -> list[Any] | None:
        """The label list it was trained on here."""
        return list(self.trained.about["labels"]) if self.trained else None


def find(name: str, which: str = "last") -> Source:
    """Find a model; of a finetune artifact, `which` checkpoints: all, last, or numbers such as `1,3`."""
    path = Path(name)
    if artifact.is_artifact(path):
        trained = open_artifact(path, "finetune")
        return Source(name, trained.digest, trained, _choose(trained, which))
    only = (Checkpoint("model", None, 1.0),)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise PruneError(f"not a model: {name}; a folder with config.json, or a finetune artifact, is needed")
        return Source(name, artifact.digest_folder(path), None, only)
    if path.is_absolute() or name.startswith((".", "~")) or path.exists():
        raise PruneError(f"no such model: {name}; a hub name, a model folder or a finetune artifact is needed")
    return Source(name, f"hub:{name}@{_hub_commit(name)}", None, only)


def _choose(trained: Artifact, which: str) -> tuple[Checkpoint, ...]:
    kept = [
        Checkpoint(entry["name"], trained.path / "checkpoints" / entry["name"], entry["learning_rate"])
        for entry in trained.about["checkpoints"]
    ]
    last = Checkpoint("last", None, trained.about["learning_rate"])
    if which == "last" or (which == "all" and not kept):
        return (last,)
    if which == "all":
        return tuple(kept)
    by_name = {checkpoint.name: checkpoint for checkpoint in kept}
    wanted = [number.strip() for number in which.split(",")]
    missing = [number for number in wanted if number not in by_name]
    if missing:
        raise PruneError(
            f"{trained.path}: no checkpoint {', '.join(missing)}; it keeps {', '.join(by_name) or 'none'}",
            hint="prune finetune --checkpoints epoch keeps one after each epoch",
        )
    return tuple(by_name[number] for number in wanted)


def _hub_commit(name: str) -> str:
    from transformers import AutoConfig

    try:
        return str(AutoConfig.from_pretrained(name)._commit_hash)
    except (OSError, ValueError) as failure:
        raise PruneError(
            f"cannot load model {name}: {str(failure).splitlines()[0]}",
            hint="a folder that holds the model works without a network",
        ) from failure


def max_length(source: Source) -> int:
    """The most tokens of an example that the model was trained on here; 512 for any other model."""
    return int(source.trained.about["max_length"]) if source.trained else 512


def task_name(source: Source, wanted: str) -> str:
    """The task meant by `wanted`; auto: the one that the model was trained for here, else classification."""
    own = source.trained.options["task"] if source.trained else None
    if wanted == "auto":
        return own or "classification"
    if own and wanted != own:
        raise PruneError(f"task: {wanted}; {source.name} was trained for {own}; leave it out")
    return wanted


def load_tokenizer(source: Source) -> Any:
    """The model's fast tokenizer, with a padding token (the end-of-sequence token where it has none)."""
    from transformers import AutoTokenizer

    with _one_line(f"cannot load the tokenizer of {source.name}"):
        tokenizer = AutoTokenizer.from_pretrained(source.trained.path if source.trained else source.name)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def pad_token_id(tokenizer: Any) -> int:
    """The id that fills short rows up; any will do where nothing attends to it."""
    return int(tokenizer.pad_token_id or 0)


def load(
    source: Source, task: Task, labels: list[Any], tokenizer: Any, *, new_head: bool, four_bit: bool = False
) -> tuple[torch.nn.Module, list[str]]:
    """Load a model for a task, on the CPU, in float32; and the names of its weights that were drawn at random.

    labels: the label list, one output each. new_head: a head (with its pooler) that the model does not bring, or that
    was trained on other labels, is drawn (seed torch first); otherwise its absence is an error, as that of any other
    weight is, those of a language model's head included.
    four_bit: on the CUDA device, in 4 bits, to train adapters on (QLoRA, Dettmers et al. 2023, arXiv 2305.14314); what
    is trained on it is later loaded onto the weights as they were.
    """
    import transformers

    if source.trained is not None:
        for name in source.trained.files:
            if "/" not in name:
                source.trained.file(name)  # weights that were cut short or edited are an error, not a model
        if source.trained.options["method"] == "lora":
            if four_bit:
                raise PruneError(f"load_in: 4bit; {source.name} has adapters, which weights of 4 bits cannot take in")
            return _load_adapted(source.trained, task, labels, tokenizer), []
    auto = getattr(transformers, task.AUTO_MODEL)
    names = {str(label): i for i, label in enumerate(labels)}
    outputs = {"num_labels": len(labels), "label2id": names, "id2label": {i: name for name, i in names.items()}}
    with _one_line(f"cannot load model {source.name}"), _quiet():
        model, report = auto.from_pretrained(
            source.trained.path if source.trained else source.name,
            dtype=torch.float32,
            **(outputs if labels else {}),
            **(_four_bit() if four_bit else {}),
            ignore_mismatched_sizes=new_head,
            output_loading_info=True,
        )
    drawn = sorted({*report["missing_keys"], *(name for name, *_ in report["mismatched_keys"])})
    inner = [n for n in drawn if n.startswith(f"{model.base_model_prefix}.") and "pooler" not in n]
    if model.get_output_embeddings() is not None:
        inner = drawn  # a language model's head is as much of it as its layers
    if inner:
        raise PruneError(f"{source.name}: its weights lack {', '.join(inner[:3])}; all of a model are needed")
    if drawn and not new_head:
        raise PruneError(
            f"{source.name}: its weights lack {', '.join(drawn[:3])}; a model with a trained head is needed",
            hint=f"train one first: prune finetune DATA -o OUT --model {source.name}",
        )
    if new_head and (own := head_labels(source, labels)) != labels:
        note(f"{source.name}: a new head is drawn; its own knows the labels {', '.join(map(str, own))}")
        drawn = sorted({*drawn, *_reset_head(model)})
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, drawn


def _four_bit() -> dict[str, Any]:
    """What makes transformers load linear layers in 4 bits."""
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if not find_spec("bitsandbytes"):
        raise PruneError("load_in: 4bit; the library bitsandbytes is not installed; it is needed")
    quantised = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32,
    )
    return {"quantization_config": quantised, "device_map": {"": 0}}


def _reset_head(model: Any) -> list[str]:
    """Draw all that stands outside the encoder anew; returns the names of the weights."""
    names = []
    for name, module in model.named_modules():
        if name.split(".")[0] != model.base_model_prefix and hasattr(module, "reset_parameters"):
            module.reset_parameters()
            names += [f"{name}.{weight}" for weight, _ in module.named_parameters(recurse=False)]
    return names


def head_labels(source: Source, seen: list[Any]) -> list[Any]:
    """Label list of a model's head: the one it was trained on here, or its own names for the labels.

    Integer labels are its names where those are integers, else 0 to c - 1.
    seen: the labels of the data. A model without a classification head of its own takes them as they are, and a task
    without labels has none.
    """
    from transformers import AutoConfig

    if not seen or source.labels:
        return source.labels or []
    with _one_line(f"cannot load model {source.name}"):
        config = AutoConfig.from_pretrained(source.name)
    if not any("ForSequenceClassification" in name for name in config.architectures or ()):
        return seen
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if all(isinstance(label, str) for label in seen):
        return names
    return [int(name) for name in names] if all(map(str.isdecimal, names)) else list(range(len(names)))


def _load_adapted(trained: Artifact, task: Task, labels: list[Any], tokenizer: Any) -> torch.nn.Module:
    """Load the model that LoRA adapters were trained on, with them in it."""
    from peft import PeftModel

    base, head = _adapted(trained), trained.about["labels"]
    if len(labels) != len(head):
        raise PruneError(
            f"{trained.path}: its adapters come with a head of {len(head)} labels; {len(labels)} are needed",
            hint=f"train on the model beneath them instead: {base.name}",
        )
    beneath, _ = load(base, task, labels, tokenizer, new_head=True)  # what is drawn comes with the adapters
    model = merged(beneath)
    with _one_line(f"cannot load the adapters in {trained.path}"), _quiet():
        return PeftModel.from_pretrained(model, str(trained.path), is_trainable=True)


def _adapted(trained: Artifact) -> Source:
    """The model that adapters were trained on, as it was then."""
    origin = trained.origin("model")
    base = find(str(origin) if origin.exists() else str(trained.manifest["made"]["inputs"]["model"]))
    if base.digest != trained.manifest["recipe"]["inputs"]["model"]:
        raise PruneError(f"{base.name}: changed since the adapters in {trained.path} were trained on it")
    return base


def merged(model: torch.nn.Module) -> torch.nn.Module:
    """The model with its adapters, where it has any, added into its weights."""
    from peft import PeftModel

    return model.merge_and_unload() if isinstance(model, PeftModel) else model


def load_checkpoint(model: torch.nn.Module, source: Source, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights into a model that `load` made; no-op for the model's own."""
    from safetensors.torch import load_file

    if source.trained is None:
        return
    folder = "" if checkpoint.path is None else f"checkpoints/{checkpoint.name}/"
    lora = source.trained.options["method"] == "lora"
    stem = "adapter_model" if lora else "model"
    weights: dict[str, torch.Tensor] = {}
    for name in source.trained.files:
        if name.startswith(f"{folder}{stem}") and name.endswith(".safetensors"):
            weights.update(load_file(source.trained.file(name)))
    if lora:
        from peft import set_peft_model_state_dict

        loaded: Any = set_peft_model_state_dict(model, weights)
        unexpected = loaded.unexpected_keys
        missing: list[str] = []
    else:
        missing, unexpected = model.load_state_dict(weights, strict=False)
        tied = set(getattr(model, "all_tied_weights_keys", None) or ())
        missing = [name for name in missing if name not in tied]
    if missing or unexpected:
        names = ", ".join([*missing, *unexpected][:3])
        raise PruneError(f"{source.name}: checkpoint {checkpoint.name} does not fit the model: {names}")


def check_length(model: torch.nn.Module, encoded: Any, rows: Rows) -> None:
    """Refuse rows of more tokens than the model has positions for: learnt ones are a table of fixed length."""
    at = int(encoded.longest.argmax())
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, torch.nn.Embedding) and ("position" in last or last == "wpe"):
            first = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            if encoded.longest[at] > module.num_embeddings - first:
                raise PruneError(
                    f"{rows.where(at)}: {encoded.longest[at]} tokens; the model has positions for "
                    f"{module.num_embeddings - first}",
                    hint=f"--max-length {module.num_embeddings - first}",
                )


@functools.cache  # the second look would see only what the first left visible
def use_device(name: str) -> torch.device:
    """The device of a `--device` value. One process uses one device, of several on a machine each its own.

    Restricting what CUDA shows is the one way that holds for every library in the process (the Trainer would
    otherwise spread a batch over all GPUs it sees).
    """
    allowed = "auto, cpu, cuda or cuda:N"
    if name not in ("auto", "cpu", "cuda") and not (name.startswith("cuda:") and name[5:].isdigit()):
        raise PruneError(f"device: {name}; allowed: {allowed}")
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 0:
        if name != "auto":
            raise PruneError(f"device: {name}; no CUDA device here", hint="--device cpu, or auto")
        return torch.device("cpu")
    index = int(name[5:]) if name.startswith("cuda:") else processes.local_rank()
    if processes.count() > 1 and (name.startswith("cuda:") or index >= count):
        raise PruneError(
            f"device: {name}; {processes.count()} processes take a CUDA device each, and there are {count}",
            hint=f"--device cuda, and at most {count} processes",
        )
    if index >= count:
        raise PruneError(f"device: cuda:{index}; there are {count} CUDA devices, from cuda:0 on")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[index] if visible != [""] else str(index)
    return torch.device("cuda", 0)


def precision(wanted: str, device: torch.device) -> str:
    """float32 or bfloat16; `auto` is bfloat16 on a device that computes in it."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that computes in bfloat16 where asked for."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def longest_first(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions [n], longest example first (input order among equals): little padding, memory trouble early."""
    return np.argsort(-lengths, kind="stable")


def take(order: NDArray[np.int64], lengths: NDArray[np.int64], rows: int, tokens: int) -> NDArray[np.int64]:
    """The next batch from `order` (longest first): at most `rows` rows and `tokens` tokens, padding counted."""
    longest = max(1, int(lengths[order[0]]))
    return order[: max(1, min(rows, tokens // longest))]


def batches(lengths: NDArray[np.int64], rows: int, tokens: int) -> Iterator[NDArray[np.int64]]:
    """All positions [n], longest example first, in batches as `take` forms them."""
    order = longest_first(lengths)
    while len(order):
        batch = take(order, lengths, rows, tokens)
        yield batch
        order = order[len(batch) :]


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn the loaders' own errors into ours."""
    try:
        yield
    except (OSError, ValueError, KeyError, SafetensorError) as failure:
        first = (str(failure).strip() or type(failure).__name__).splitlines()[0]
        raise PruneError(f"{what}: {first}") from failure


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the loaders' bars and tables of new and unused weights off stderr: what matters of them is checked."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
