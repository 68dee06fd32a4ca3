"""Which of a model's parameters gradients are taken of: all, lora, head, last:N, or a regular expression."""

from __future__ import annotations

import re
from typing import Any

from torch import nn

from prune_cli.errors import PruneError

ALLOWED = "all, lora, head, last:N, or a regular expression"


def choose(model: nn.Module, which: str) -> None:
    """Make the parameters named by `which` need a gradient, and no others.

    `all`: those that are trained (of a model with LoRA: the adapters and the modules saved with them). `lora`: the
    adapters. `head`: all outside the base model. `last:N`: the last N transformer blocks and the head. Frozen
    parameters stay frozen under these four. Anything else is a regular expression that is searched for in the names,
    with or without what peft adds to them; it may choose any floating-point parameter. Raises PruneError where no
    parameter is chosen.
    """
    if which == "all":
        if not any(p.requires_grad for p in model.parameters()):
            raise PruneError("params: all; the model has no trainable parameters")
        return
    names = _names(model)
    if which == "lora":
        chosen = {id(p) for p, known in names if p.requires_grad and any("lora_" in name for name, _ in known)}
    elif which == "head" or which.startswith("last:"):
        base = f"{_without_adapters(model).base_model_prefix}."
        starts = tuple(f"{block}." for block in _last_blocks(model, which)) if which != "head" else ()
        # a head that is tied to the embeddings goes by their name too
        chosen = {
            id(p)
            for p, known in names
            if p.requires_grad
            and any(not plain.startswith(base) or (starts and name.startswith(starts)) for name, plain in known)
        }
    else:
        chosen = _matching(names, which)
    if not chosen:
        some = [known[0][1] for p, known in names if p.requires_grad] or [known[0][1] for _, known in names]
        shown = ", ".join([*some[:2], "…", *some[-2:]] if len(some) > 4 else some)
        raise PruneError(f"params: {which}; no trainable parameter is that; allowed: {ALLOWED}; there are {shown}")
    for parameter, _ in names:
        parameter.requires_grad_(id(parameter) in chosen)


def _names(model: nn.Module) -> list[tuple[nn.Parameter, list[tuple[str, str]]]]:
    """Each parameter with all its names, each as it is and without what peft adds."""
    by_id: dict[int, tuple[nn.Parameter, list[tuple[str, str]]]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        by_id.setdefault(id(parameter), (parameter, []))[1].append((name, _plain(name)))
    return list(by_id.values())


def _plain(name: str) -> str:
    """base_model.model.bert.….query.base_layer.weight -> bert.….query.weight."""
    return re.sub(r"^base_model\.model\.|\.base_layer(?=\.)|\.modules_to_save\.\w+(?=\.)", "", name)


def _without_adapters(model: Any) -> Any:
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _matching(names: list[tuple[nn.Parameter, list[tuple[str, str]]]], pattern: str) -> set[int]:
    try:
        wanted = re.compile(pattern)
    except re.error as failure:
        raise PruneError(f"params: {pattern}; not a regular expression: {failure}; allowed: {ALLOWED}") from None
    return {
        id(parameter)
        for parameter, known in names
        # peft keeps the first weights of a module that is trained beside the adapters; the model does not use them
        if parameter.is_floating_point() and not any(".original_module." in name for name, _ in known)
        if any(wanted.search(name) or wanted.search(plain) for name, plain in known)
    }


def _last_blocks(model: nn.Module, which: str) -> list[str]:
    """The names of the last N blocks: the longest list of modules of one class, lists within lists aside."""
    count = which.removeprefix("last:")
    lists: dict[str, nn.ModuleList] = {}
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and not any(name.startswith(f"{outer}.") for outer in lists):
            lists[name] = module
    stacks = {name: len(items) for name, items in lists.items() if len({type(item) for item in items}) == 1}
    if not stacks:
        raise PruneError(f"params: {which}; the model has no list of transformer blocks; allowed: {ALLOWED}")
    stack, blocks = max(stacks.items(), key=lambda item: item[1])
    if not (count.isdecimal() and len(count) < 6 and 1 <= int(count) <= blocks):
        raise PruneError(f"params: {which}; the model has {blocks} blocks; allowed: last:1 to last:{blocks}")
    return [f"{stack}.{i}" for i in range(blocks - int(count), blocks)]
