"""Load a model, its tokenizer and its checkpoints, and check that they are whole and fit."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.models import adapters
from prune_cli.models.find import Checkpoint, NamedModel, file_names, has_adapters, head_labels, place
from prune_cli.models.libraries import one_line, quiet
from prune_cli.models.tokenizer import check_fits, check_limit, check_there, check_tokens
from prune_cli.runtime.progress import note
from prune_cli.tasks import Task


def load_tokenizer(named: NamedModel, chat_template: str | None = None) -> Any:
    """The model's fast tokenizer, with a padding token (the end-of-sequence token where it has none).

    chat_template: in place of its own. Raises PruneError where the model comes without one.
    """
    from transformers import AutoTokenizer

    if named.base is not None and "tokenizer_config.json" not in file_names(named):
        return load_tokenizer(named.base, chat_template)  # adapters that did not change it
    try:
        with _loading("the tokenizer of", named) as where:
            tokenizer = AutoTokenizer.from_pretrained(where, trust_remote_code=named.trust_remote_code)
    except PruneError:
        check_there(named, None)
        raise
    check_there(named, tokenizer)
    check_limit(named, tokenizer)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if chat_template is not None:
        tokenizer.chat_template = chat_template
    return tokenizer


def load(
    named: NamedModel,
    task: Task,
    labels: list[Any],
    tokenizer: Any,
    *,
    new_head: bool,
    four_bit: bool = False,
    beneath: bool = False,
) -> tuple[torch.nn.Module, list[str]]:
    """Load a model for a task, on the CPU, in float32. Returns it with the names of its weights drawn at random.

    labels: the label list, one output each. new_head: a head (with its pooler) that the model does not bring, or that
    was trained on other labels, is drawn (seed torch first); otherwise a missing head is an error. Other missing
    weights are always an error, those of a language model's head included.
    four_bit: on the CUDA device, in 4 bits, to train adapters on (QLoRA, Dettmers et al. 2023, arXiv 2305.14314); the
    trained adapters are later loaded onto the original weights. beneath: adapters come on it, whose head takes its
    head's place.
    """
    import transformers

    if has_adapters(named):
        if four_bit:
            raise PruneError(f"load_in: 4bit; {named.name} has adapters, which cannot be merged into 4-bit weights")
        return _load_adapters(named, task, labels, tokenizer, new_head=new_head, beneath=beneath)
    auto = getattr(transformers, task.AUTO_MODEL)
    with _loading("model", named) as where:
        model, report = auto.from_pretrained(
            where,
            trust_remote_code=named.trust_remote_code,
            dtype=torch.float32,
            **(_outputs(labels) if labels else {}),
            **(_four_bit() if four_bit else {}),
            ignore_mismatched_sizes=new_head,
            output_loading_info=True,
        )
    model.name_or_path = model.config.name_or_path = named.name  # as given, not a place in the cache
    shapes = {name: (list(there), list(wanted)) for name, there, wanted in report["mismatched_keys"]}
    drawn = sorted({*report["missing_keys"], *shapes})
    _check_drawn(model, drawn, shapes, named, new_head=new_head)
    if new_head and not beneath:
        drawn = sorted({*drawn, *_new_head(model, named, labels)})
    check_fits(named, tokenizer, model)
    model.config.pad_token_id = tokenizer.pad_token_id
    return model, drawn


def _load_adapters(
    named: NamedModel, task: Task, labels: list[Any], tokenizer: Any, *, new_head: bool, beneath: bool
) -> tuple[torch.nn.Module, list[str]]:
    """Load the model beneath adapters, and put them on it; those of a head over other labels are merged and it is new.

    What was drawn for the base is mostly replaced by what was saved with the adapters.
    """
    base, drawn = load(adapters.base_of(named, labels), task, labels, tokenizer, new_head=True, beneath=True)
    model, saved = adapters.put_on(base, named)
    drawn = [name for name in drawn if name not in saved]
    _check_head(named, drawn, new_head=new_head)
    if new_head and not beneath and head_labels(named, labels) != labels:
        model = adapters.merged(model)
        drawn = sorted({*drawn, *_new_head(model, named, labels)})
    return model, drawn


def _new_head(model: Any, named: NamedModel, labels: list[Any]) -> list[str]:
    """Draw a head anew that was trained on other labels, and say so; returns the names of its weights."""
    own = head_labels(named, labels)
    if own == labels:
        return []
    note(f"{named.name}: a new head is drawn; its own knows the labels {', '.join(map(str, own))}")
    return _reset_head(model)


@contextmanager
def _loading(what: str, named: NamedModel) -> Iterator[str]:
    """Where a library loads the model from; what goes wrong in the block, in which nothing else is done, in one line.

    A model that needs its own code is refused: transformers, if it is not told no, asks on stdout and reads stdin.
    """
    try:
        with one_line(f"cannot load {what} {named.name}"), quiet(), place(named) as where:
            yield where
    except PruneError as failure:
        if "trust_remote_code" not in str(failure.__cause__):
            raise
        raise PruneError(
            f"{named.name}: the model comes with code of its own, which is not run; "
            "allowed: a model of a kind that transformers knows",
            hint="read that code; --trust-remote-code runs it",
        ) from failure


def _outputs(labels: list[Any]) -> dict[str, Any]:
    """The part of a model's config that says what its outputs are."""
    numbers = {str(label): i for i, label in enumerate(labels)}
    return {"num_labels": len(labels), "label2id": numbers, "id2label": {i: name for name, i in numbers.items()}}


def _check_drawn(model: Any, drawn: list[str], shapes: dict[str, Any], named: NamedModel, *, new_head: bool) -> None:
    """Refuse a model that lacks weights, but for a head where a new one is allowed.

    shapes: of the weights that are there in another shape, that shape and the one that the config asks for.
    """
    inner = [name for name in drawn if name.startswith(f"{model.base_model_prefix}.") and "pooler" not in name]
    if model.get_output_embeddings() is not None:
        inner = drawn  # a language model's head is as much of it as its layers
    if wrong := [name for name in inner if name in shapes]:
        there, wanted = shapes[wrong[0]]
        raise PruneError(
            f"{named.name}: {wrong[0]} has the shape {there} in its weights; allowed: {wanted}, as in its config.json"
        )
    if inner:
        raise PruneError(f"{named.name}: its weights lack {', '.join(inner[:3])}; all of a model are needed")
    _check_head(named, drawn, new_head=new_head)


def _check_head(named: NamedModel, drawn: list[str], *, new_head: bool) -> None:
    if drawn and not new_head:
        raise PruneError(
            f"{named.name}: its weights lack {', '.join(drawn[:3])}; a model with a trained head is needed",
            hint=f"train one first: prune finetune DATA -o OUT --model {named.name}",
        )


def _four_bit() -> dict[str, Any]:
    """The arguments by which transformers loads linear layers in 4 bits."""
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
    """Draw everything outside the encoder anew; returns the names of the weights."""
    names = []
    for name, module in model.named_modules():
        if name.split(".")[0] != model.base_model_prefix and hasattr(module, "reset_parameters"):
            module.reset_parameters()
            names += [f"{name}.{weight}" for weight, _ in module.named_parameters(recurse=False)]
    return names


def load_checkpoint(model: torch.nn.Module, named: NamedModel, checkpoint: Checkpoint) -> None:
    """Put the weights of a checkpoint into a model that `load` made, which has those of no checkpoint already."""
    if checkpoint.kept_in is None:
        return
    what = f"cannot load checkpoint {checkpoint.name} of {named.name}"
    with one_line(what), quiet(), checkpoint.kept_in.alone(f"checkpoints/{checkpoint.name}") as folder:
        amiss = adapters.put_in(model, folder) if adapters.are_on(model) else put_in(model, folder)
    if amiss:
        names = ", ".join(amiss[:3])
        raise PruneError(f"{named.name}: checkpoint {checkpoint.name} does not fit the model: {names}")


def put_in(model: Any, folder: Path) -> list[str]:
    """Put the weights that `save_pretrained` wrote into a folder into a model of the same config.

    Names and shapes in files are not always those of the model (mixtures of experts, GPT-NeoX): transformers knows how
    to go from the ones to the others, but only where it makes the model. Returns the names of the weights that lack,
    are of another shape, or are not the model's.
    """
    with quiet():
        made, report = type(model).from_pretrained(
            folder,
            config=model.config,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=False,  # the class is there, whoever wrote it
        )
    model.load_state_dict(made.state_dict())
    shapes = [name for name, *_ in report["mismatched_keys"]]
    return sorted({*report["missing_keys"], *report["unexpected_keys"], *shapes})


def check_rows(model: torch.nn.Module, encoded: Any, rows: Rows) -> None:
    """Refuse rows that the model cannot read: with tokens it has no embedding for, or too long for it."""
    check_tokens(model, encoded, rows)
    check_length(model, encoded, rows)


def check_length(model: torch.nn.Module, encoded: Any, rows: Rows) -> None:
    """Refuse rows of more tokens than the model has positions for: learnt positions are a table of fixed length.

    Some tables begin with entries that stand for no position: `offset` of them (OPT), or all up to the padding's
    (RoBERTa).
    """
    at = int(encoded.longest.argmax())
    for name, module in model.named_modules():
        last = name.rsplit(".", 1)[-1]
        if isinstance(module, torch.nn.Embedding) and ("position" in last or last == "wpe"):
            first = getattr(module, "offset", 0 if module.padding_idx is None else module.padding_idx + 1)
            positions = module.num_embeddings - first
            if encoded.longest[at] > positions:
                raise PruneError(
                    f"{rows.where(at)}: {encoded.longest[at]} tokens; the model has positions for {positions}",
                    hint=f"--max-length {positions}",
                )
