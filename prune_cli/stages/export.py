"""`prune export`: the kept rows of a selection, in the form that a trainer or a library reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.artifacts.code import digest_of_plugin
from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import Artifact, Recipe, digest_value, open_artifact
from prune_cli.data.open import SELECTED, WHY
from prune_cli.errors import PruneError
from prune_cli.export import load
from prune_cli.export._kept import Kept
from prune_cli.stages.common import How, Outcome, done, making, settle

CODE = ("prune_cli.export", "prune_cli.data.formats")  # what the files depend on


def export(selection: str, out: Path, opts: options.Export, how: How) -> Outcome:
    """Write the rows that a select artifact kept, with what `--for` needs beside them."""
    form = load(opts.for_)
    if opts.nested != "refuse" and opts.for_ != "csv":
        raise PruneError(f"nested: {opts.nested}; {opts.for_} holds lists and objects as they are; leave it out")
    artifact = open_artifact(Path(selection), "select")
    about = _about(artifact)
    wanted = [name.strip() for name in (opts.why or "").split(",") if name.strip()]
    decided: dict[str, Any] = {"for": opts.for_, "why": ",".join(wanted) or None, "nested": opts.nested}
    inputs = {"kept rows": artifact.digest, "selection": digest_value(about)}
    recipe = Recipe("export", decided, inputs, {f"export {opts.for_}": digest_of_plugin(form, CODE)})
    places = {"selection": selection}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places) as draft:
        kept = Kept(
            artifact.file(SELECTED),
            artifact.about["kept"],
            artifact.options["task"],
            artifact.about.get("format"),
            artifact.about["fields"],
            _columns(artifact, wanted),
            opts.nested,
            about,
        )
        form.write(kept, draft.path)
        artifact.file(SELECTED)  # still the one that was read
        draft.about = {"rows": kept.n, "for": opts.for_}
    return done(outcome, draft)


def _columns(artifact: Artifact, wanted: Sequence[str]) -> Mapping[str, Sequence[Any]]:
    """The columns of why.jsonl that are asked for, with the entries of the kept rows in their order."""
    if not wanted:
        return {}
    lines = [line for line in read_jsonl(artifact.file(WHY)) if line["kept"]]
    if artifact.options.get("order", "best") == "best":
        lines.sort(key=lambda line: int(line["rank"]))
    known = [name for name in lines[0] if name != "kept"]
    for name in wanted:
        if name not in known or wanted.count(name) > 1:
            raise PruneError(f"why: {name}; allowed: columns of {artifact.path / WHY}, each once: {', '.join(known)}")
    return {name: [line[name] for line in lines] for name in wanted}


def _about(artifact: Artifact) -> dict[str, str]:
    """How the rows were chosen, in words."""
    about, opts = artifact.about, artifact.options
    scored = f" of the scores of {about['score']}" if about.get("score") else ""
    options = ", ".join(f"{name} {value}" for name, value in opts["set"].items())
    may = f", of {about['candidates']:,} that may be kept" if "candidates" in about else ""
    told = {
        "rows": f"{about['kept']:,} of {about['rows']:,} ({about['kept'] / about['rows']:.1%}){may}",
        "from": about.get("source"),
        "within": about.get("within"),
        "decontaminated by": ", ".join(about.get("tests", ())),
        "not too long for": about.get("fits"),
        "method": f"{opts['method']}{scored}",
        "target set": about.get("target"),
        "representation": opts["on"],
        "options": options,
        "seed": opts.get("seed"),
        "balance": opts["balance"] if opts["balance"] == "none" else f"{opts['balance']} by {opts['balance_by']}",
        "order": opts.get("order"),
        "task": opts["task"],
        "format": about.get("format"),
        "made by": f"prune-cli {artifact.manifest['recipe']['code']['prune']}",
        "recipe": artifact.manifest["key"],
    }
    return {name: str(value) for name, value in told.items() if value not in (None, "")}
