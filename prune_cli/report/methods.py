"""`prune methods`: the published methods, and the scores and selections that there are."""

from __future__ import annotations

import dataclasses
from typing import Any

from prune_cli.errors import PruneError
from prune_cli.methods import method as methods
from prune_cli.methods.method import STAGES, Method
from prune_cli.methods.published import published
from prune_cli.report.table import plain, table

COLUMNS = ("name", "representation", "score", "select", "objective", "source")


def all_methods() -> dict[str, Any]:
    """The published methods; name -> summary of each score and selection, those of other packages too."""
    return {
        "published": [dataclasses.asdict(method) for method in published().values()],
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
    for stage in STAGES:
        lines += ["", f"{stage} methods:"]
        lines += table([(f"  {name}", summary) for name, summary in facts[stage].items()])
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
    if not facts:
        known = {stem.replace("_", "-") for stage in STAGES for stem in _names(stage)}
        raise PruneError(f"method: {name}; allowed: {', '.join(sorted(known | set(published())))}")
    return facts


def _names(stage: str) -> list[str]:
    return [*methods.names(stage), *methods.installed(stage)]


def _described(method: Method) -> dict[str, Any]:
    return {
        "name": method.name,
        "inputs": method.inputs,
        "options": {
            name: {"default": option.default, "allowed": option.allowed, "help": option.help.text}
            for name, option in method.options.items()
        },
        "about": method.doc,
    }


def one_method_text(facts: dict[str, Any]) -> str:
    """All that goes by one name, in words."""
    parts = []
    if "published" in facts:
        shown = {key: value for key, value in facts["published"].items() if value and key != "name"}
        lines = table([(f"  {key}", plain(value)) for key, value in shown.items()])
        parts.append("\n".join([f"{facts['published']['name']}, as published:", *lines]))
    for stage in STAGES:
        if stage in facts:
            parts.append(_text(stage, facts[stage]))
    return "\n\n".join(parts)


def _text(stage: str, facts: dict[str, Any]) -> str:
    options = [
        (f"  --set {name}={plain(option['default'])}", f"{option['help']} Allowed: {option['allowed']}.".strip())
        for name, option in facts["options"].items()
    ]
    return "\n".join(
        [
            f"{stage} {facts['name']}: {facts['about']}",
            "",
            f"Inputs: {', '.join(facts['inputs'])}.",
            "Options and their defaults:" + ("" if options else " none."),
            *(table(options) if options else []),
        ]
    )
