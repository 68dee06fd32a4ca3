"""`prune methods`: the published methods; the kinds, scores and selections that there are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from prune_cli.errors import PruneError, near
from prune_cli.methods import method as methods
from prune_cli.methods.method import STAGES, Method
from prune_cli.methods.published import published
from prune_cli.options import Option, declared
from prune_cli.report.table import plain, table
from prune_cli.represent import kinds
from prune_cli.represent.kinds import Kind

COLUMNS = ("name", "representation", "score", "select", "objective", "source")


def all_methods() -> dict[str, Any]:
    """The published methods; name -> summary of each kind, score and selection, those of other packages too."""
    return {
        "published": [dataclasses.asdict(method) for method in published().values()],
        "kinds": {name: kinds.load(name).about for name in kinds.names()},
        **{stage: {name: _summary(stage, name) for name in _names(stage)} for stage in STAGES},
    }


def _summary(stage: str, name: str) -> str:
    """What a method is; of one of another package that does not load, why it does not."""
    try:
        return methods.load(stage, name).summary
    except PruneError as problem:
        return problem.message


def all_methods_text(facts: dict[str, Any]) -> str:
    """All methods as a table and two lists."""
    lines = table([COLUMNS, *([method[key] for key in COLUMNS] for method in facts["published"])])
    for title in ("kinds", *STAGES):
        lines += ["", "kinds of representation:" if title == "kinds" else f"{title} methods:"]
        lines += table([(f"  {name}", summary) for name, summary in facts[title].items()])
    return "\n".join(lines)


def one_method(name: str) -> dict[str, Any]:
    """All that goes by one name: a published method, a score, a selection."""
    dashed, stem = name.replace("_", "-"), name.replace("-", "_")
    facts: dict[str, Any] = {}
    if dashed in published():
        facts["published"] = dataclasses.asdict(published()[dashed])
    for stage in STAGES:
        own = next((known for known in _names(stage) if known in (name, stem)), None)
        if own:
            facts[stage] = _described(methods.load(stage, own))
    if stem in kinds.names():
        facts["kind"] = _kind(kinds.load(stem))
    if not facts:
        known = {*kinds.names(), *published(), *(stem for stage in STAGES for stem in _names(stage))}
        raise PruneError(f"method: {name}; allowed: what prune methods lists", hint=near(name, sorted(known)))
    return facts


def _kind(kind: Kind) -> dict[str, Any]:
    return {
        "name": kind.name,
        "about": kind.about,
        "features": kind.features,
        "tensors": {
            name: {"shape": ["n", "e", *tensor.axes], "dtype": tensor.dtype, "about": tensor.about}
            for name, tensor in kind.tensors.items()
        },
        "needs": {need: kinds.NEEDED[need] for need in sorted(kind.needs)},
        "options": _options(declared(kind.options)),
    }


def _options(known: Mapping[str, Option]) -> dict[str, Any]:
    return {
        name: {"default": option.default, "allowed": option.allowed, "help": option.help.text}
        for name, option in known.items()
    }


def _names(stage: str) -> list[str]:
    return [*methods.names(stage), *methods.installed(stage)]


def _described(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "inputs": method.inputs,
        "options": _options(method.options),
        "about": method.doc,
    }


def one_method_text(facts: dict[str, Any]) -> str:
    """All that goes by one name, in words."""
    parts = []
    if "published" in facts:
        shown = {key: value for key, value in facts["published"].items() if value and key != "name"}
        lines = table([(f"  {key}", plain(value)) for key, value in shown.items()])
        parts.append("\n".join([f"{facts['published']['name']}, as published:", *lines]))
    if "kind" in facts:
        parts.append(_kind_text(facts["kind"]))
    for stage in STAGES:
        if stage in facts:
            parts.append(_text(stage, facts[stage]))
    return "\n\n".join(parts)


def _kind_text(facts: dict[str, Any]) -> str:
    tensors = [
        (f"  {name}", f"[{', '.join(tensor['shape'])}]", tensor["about"]) for name, tensor in facts["tensors"].items()
    ]
    return "\n".join(
        [
            f"kind {facts['name']}: {facts['about']}",
            "",
            f"Tensors, `{facts['features']}` being its features:",
            *table(tensors),
            "Needs:" + ("" if facts["needs"] else " nothing but the rows."),
            *(f"  {need}: {text}" for need, text in facts["needs"].items()),
            *_option_lines(facts["options"], "--"),
        ]
    )


def _option_lines(options: dict[str, Any], flag: str) -> list[str]:
    rows = []
    for name, option in options.items():
        shown = name.replace("_", "-") if flag == "--" else name
        value = f"{flag}{shown}{' ' if flag == '--' else '='}{plain(option['default'])}"
        rows.append((f"  {value}", f"{option['help']} Allowed: {option['allowed']}.".strip()))
    return ["Options and their defaults:" + ("" if rows else " none."), *(table(rows) if rows else [])]


def _text(stage: str, facts: dict[str, Any]) -> str:
    return "\n".join(
        [
            f"{stage} {facts['name']}: {facts['about']}",
            "",
            f"Inputs: {', '.join(facts['inputs'])}.",
            *_option_lines(facts["options"], "--set "),
        ]
    )
