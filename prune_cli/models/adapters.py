"""LoRA adapters (Hu et al. 2021, arXiv 2106.09685): new ones on a model, kept ones on the model beneath, merging."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.models.find import NamedModel, dtype_of, find, has_adapters, head_labels, place
from prune_cli.models.libraries import one_line, quiet
from prune_cli.runtime.running import first_line
from prune_cli.tasks import Task

if TYPE_CHECKING:
    import torch

_WRAPPED = "base_model.model."  # begins the names of a model's weights once it has adapters


def with_adapters(model: torch.nn.Module, drawn: list[str], opts: options.Finetune, task: Task) -> torch.nn.Module:
    """Wrap a model in new LoRA adapters.

    Its head, every other part whose weights were `drawn` at random and so are in no file yet, and what `lora_save`
    names are trained and saved whole. Variants: rsLoRA (Kalajdzievski 2023, arXiv 2312.03732) and DoRA (Liu et al.
    2024, arXiv 2402.09353).
    """
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    whole = {name.rpartition(".")[0] for name in drawn}
    # as peft does for classification, which goes by the end of a name
    whole |= {name for name, _ in model.named_modules() if name.endswith(("classifier", "score"))}
    whole |= _named(model, opts.lora_save or "")
    whole = {name for name in whole if not any(name.startswith(f"{other}.") for other in whole)}
    if opts.load_in == "4bit":
        # without gradient checkpointing: the Trainer's arguments say whether there is any
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    targets = opts.lora_targets if opts.lora_targets == "all-linear" else opts.lora_targets.split(",")
    config = LoraConfig(
        task_type=task.PEFT_TASK,
        r=opts.lora_rank,
        lora_alpha=opts.lora_alpha,
        lora_dropout=opts.lora_dropout,
        use_rslora=opts.lora_rslora,
        use_dora=opts.lora_dora,
        target_modules=targets,
        exclude_modules=rf"({'|'.join(map(re.escape, sorted(whole)))})(\..*)?" if whole else None,
        modules_to_save=sorted(whole),
    )
    try:
        with quiet():
            return get_peft_model(model, config)
    except ValueError as failure:
        raise PruneError(f"lora_targets: {opts.lora_targets}; {first_line(failure)}") from failure


def _named(model: torch.nn.Module, names: str) -> set[str]:
    """The modules whose whole name, or its end, is one of these."""
    found: set[str] = set()
    for name in filter(None, names.split(",")):
        some = {module for module, _ in model.named_modules() if f".{module}".endswith(f".{name}")}
        if not some:
            raise PruneError(f"lora_save: {name}; the model has no module of that name")
        found |= some
    return found


def base_of(named: NamedModel, labels: list[Any]) -> NamedModel:
    """The model beneath adapters, for a head over `labels`.

    Raises PruneError where the adapters' head has another number of labels, or that model has changed since.
    """
    base = named.base or _trained_on(named)
    head = head_labels(named, labels)
    if len(labels) != len(head):
        raise PruneError(
            f"{named.name}: its adapters come with a head of {len(head)} labels; {len(labels)} are needed",
            hint=f"train on the model beneath them instead: {base.name}",
        )
    return base


def _trained_on(named: NamedModel) -> NamedModel:
    """The model that the adapters of a finetune artifact were trained on."""
    trained = named.trained
    assert trained is not None  # `has_adapters` says so
    origin = trained.origin("model")
    place = str(origin) if origin.exists() else str(trained.manifest["made"]["inputs"]["model"])
    try:
        base = find(place, trust_remote_code=named.trust_remote_code)
    except PruneError as problem:
        told = f"{trained.path}: the model beneath its adapters: {problem.message}"
        raise PruneError(told, hint=problem.hint) from problem
    if base.digest != trained.manifest["recipe"]["inputs"]["model"]:
        raise PruneError(f"{base.name}: changed since the adapters in {trained.path} were trained on it")
    return base


def dtype_beneath(named: NamedModel) -> str:
    """The number format of the weights of a model, or of the one beneath its adapters."""
    while has_adapters(named):
        named = named.base or _trained_on(named)
    return dtype_of(named)


def put_on(base: torch.nn.Module, named: NamedModel) -> tuple[torch.nn.Module, set[str]]:
    """The loaded base model with the adapters on it, trainable. Adapters of its own are merged first.

    Returns it with the names of the base's weights that were saved with the adapters. Raises PruneError where weights
    lack or have no place in the model.
    """
    from peft import PeftConfig, PeftModel, PeftType, get_peft_model_state_dict, load_peft_weights

    model = merged(base)
    with one_line(f"cannot load the adapters in {named.name}"), quiet(), place(named) as folder:
        config = PeftConfig.from_pretrained(folder)
        if config.is_prompt_learning:
            kind = PeftType(config.peft_type).value
            raise PruneError(
                f"{named.name}: adapters of the type {kind}, which add tokens to every row; "
                "allowed: those that change weights or layers, such as LORA"
            )
        adapted = PeftModel.from_pretrained(model, folder, is_trainable=True)
        saved = set(load_peft_weights(folder, device="cpu"))
        lacking = set(get_peft_model_state_dict(adapted, save_embedding_layers=False)) - saved
        amiss = sorted({*lacking, *put_in(adapted, Path(folder))})
    if amiss:
        raise PruneError(f"{named.name}: its adapters do not fit {model.__class__.__name__}: {', '.join(amiss[:3])}")
    return adapted, {name.removeprefix(_WRAPPED) for name in saved}


def put_in(model: torch.nn.Module, folder: Path) -> list[str]:
    """Put the adapters that `save_pretrained` wrote into a folder into a model with adapters of the same config.

    Returns the names of the weights in the folder that are not the model's.
    """
    from peft import load_peft_weights, set_peft_model_state_dict

    loaded: Any = set_peft_model_state_dict(model, load_peft_weights(str(folder), device="cpu"))
    return list(loaded.unexpected_keys)


def merged(model: Any) -> torch.nn.Module:
    """The model with its adapters, where it has any, added into its weights; it has no name then to load it by."""
    if not are_on(model):
        return model
    whole: Any = model.merge_and_unload()
    whole.name_or_path = whole.config.name_or_path = ""
    return whole


def are_on(model: Any) -> bool:
    """Whether the model has adapters."""
    from peft import PeftModel

    return isinstance(model, PeftModel)
