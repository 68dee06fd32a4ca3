"""`prune simulate`: points in the plane, pruned by every method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.artifacts.code import digest_of_module
from prune_cli.artifacts.jsonl import write_jsonl
from prune_cli.artifacts.manifest import Recipe, digest_value
from prune_cli.runtime.progress import progress
from prune_cli.simulation import experiment, figures, settings
from prune_cli.simulation.experiment import Trial
from prune_cli.simulation.points import SIZES
from prune_cli.stages.common import How, Outcome, done, making, settle

CODE = ("prune_cli.simulation", "prune_cli.methods")


def simulate(out: Path, opts: options.Simulate, how: How) -> Outcome:
    """Simulate: `results.jsonl`, a line for each setting, seed and method; `summary.jsonl`, their means and deviations.

    `points.jsonl` has the points of the first seed and which methods keep them, `overlap.jsonl` how far each two
    methods agree; `selections.png` and `overlap.png` draw both. With a sweep, `sweep.png`.
    """
    methods = settings.methods(opts)
    base = settings.base(opts)
    swept, asked = settings.sweep(opts)
    decided = options.recipe(opts) | {"methods": [method.name for method in methods], "keep": base.keep}
    code = {"simulate": digest_of_module(figures.__name__, CODE)}
    code |= {f"method {half.name}": half.code for method in methods for half in method.halves}
    recipe = Recipe("simulate", decided, {"published": digest_value([asdict(method) for method in methods])}, code)
    outcome = settle(out, recipe, {}, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, {}) as draft:
        seeds = range(opts.seed, opts.seed + opts.seeds)
        with progress("simulate", len(asked) * len(seeds)) as advance:
            trials = {setting: experiment.run(setting, methods, seeds, advance) for setting in asked}
        lines = [line for setting in asked for line in experiment.results(setting, trials[setting])]
        means = experiment.summary(lines)
        shares = experiment.overlaps(trials[base])
        write_jsonl(draft.path / "points.jsonl", _points(trials[base][0]))
        write_jsonl(draft.path / "results.jsonl", lines)
        write_jsonl(draft.path / "summary.jsonl", means)
        write_jsonl(draft.path / "overlap.jsonl", shares)
        own = [line for line in means if base.columns.items() <= line.items()]
        measured = {line["method"]: (line["accuracy"], line["accuracy_sd"]) for line in own}
        figures.draw_selections(
            draft.path / "selections.png", trials[base][0], methods, measured, _about(base, opts.seeds)
        )
        figures.draw_overlap(draft.path / "overlap.png", shares, _about(base, opts.seeds))
        if swept:
            figures.draw_sweep(draft.path / "sweep.png", swept, means, methods, _about(base, opts.seeds, swept))
        draft.about = {"points": SIZES, "kept": base.keep, "seeds": opts.seeds, "swept": swept}
    return done(outcome, draft)


def _points(trial: Trial) -> Iterator[dict[str, Any]]:
    """A line for each point of a trial: where it is, its label, and which methods keep it."""
    keepers: Sequence[set[int]] = [set(kept.tolist()) for kept in trial.kept.values()]
    for split, points in trial.points.items():
        for i in range(len(points.y)):
            kept = [name for name, held in zip(trial.kept, keepers, strict=True) if split == "train" and i in held]
            yield {
                "id": f"{split}-{i}",
                "split": split,
                "x": points.x[i].tolist(),
                "label": int(points.y[i]),
                "flipped": bool(points.flipped[i]),
                "cluster": int(points.cluster[i]),
                "kept": kept,
            }


def _about(base: settings.Setting, seeds: int, swept: str | None = None) -> str:
    """The base setting as a caption says it, without what is swept."""
    parts = {
        "keep": f"{base.keep} of {SIZES['train']} points kept",
        "noise": f"labels flipped: {base.noise:g}",
        "imbalance": f"classes: {base.imbalance:g} to 1",
        "clusters": f"clusters a class: {base.clusters}",
        "seeds": f"{seeds} seed{'s' * (seeds > 1)}",
    }
    text = "; ".join(part for name, part in parts.items() if name != swept)
    return f"{text[0].upper()}{text[1:]}."
