"""The stages: open inputs, do the work, write the artifact. Each is one function that the command line calls."""

from __future__ import annotations

import json
import platform
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np

from prune_cli import artifact, inputs, methods, models, options, tasks, tensors
from prune_cli.artifact import Draft, Recipe, open_artifact
from prune_cli.errors import PruneError
from prune_cli.rows import Rows
from prune_cli.tasks import Task


@dataclass(frozen=True)
class How:
    """How a stage treats what is there: make it anew (`force`), replace what is stale (`replace`), or only look."""

    force: bool = False
    replace: bool = False
    dry_run: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a stage did: `state` is made, current or would run; `reason` says why it was not current."""

    out: Path
    stage: str
    state: str
    reason: str = ""
    seconds: float = 0.0


def represent(data: str, out: Path, opts: options.Represent, fields: Mapping[str, str], how: How) -> Outcome:
    """Represent rows: `<kind>.safetensors` for each kind, and the rows in order.

    Tensors have the rows on the first axis and the checkpoints on the second.
    """
    options.check(opts)
    kinds = _kinds(opts.kind)
    task = tasks.load(opts.task)
    rows = inputs.open_rows(data, dict(fields), task.check)
    source = models.find(opts.model, opts.checkpoints)
    recipe_options = {"task": opts.task, "kind": kinds}
    for kind in kinds:
        recipe_options |= _options_of(kind, opts)
    recipe = Recipe("represent", recipe_options, {"rows": rows.digest, "model": source.digest})

    def work(draft: Draft) -> None:
        labels = source.labels or models.head_labels(source, task.label_list(rows))
        indices = task.label_indices(rows, labels)
        draft.cached("rows.jsonl", rows.write)
        walked = [kind for kind in kinds if kind != "dynamics" or opts.dynamics == "recompute"]
        if "dynamics" in kinds and opts.dynamics == "recorded":
            draft.cached("dynamics.safetensors", lambda path: _write_recorded(path, source, rows, opts))
        if walked:
            _walk(draft.path, walked, rows, indices, labels, source, task, opts)
        draft.about = {
            "rows": len(rows),
            "labels": labels,
            "kinds": kinds,
            "checkpoints": [c.name for c in source.checkpoints],
            "space": {kind: artifact.digest_value([source.digest, _options_of(kind, opts)]) for kind in kinds},
        }

    places = {"rows": data, "model": opts.model}
    return _make(out, recipe, places, how, work, resumable=True)


_OPTIONS_OF = {
    "hidden": ("layer", "pooling"),
    "dynamics": ("dynamics",),
    "gradient": ("dim", "seed"),
}


def _options_of(kind: str, opts: options.Represent) -> dict[str, Any]:
    """The options that a kind depends on: those of its recipe, and of the sets that it can be compared with."""
    common = ("checkpoints", "max_length", "precision") + (() if kind == "dynamics" else ("dtype",))
    return {name: getattr(opts, name) for name in (*common, *_OPTIONS_OF[kind])}


def _kinds(text: str) -> list[str]:
    kinds = list(dict.fromkeys(part.strip() for part in text.split(",")))
    for kind in kinds:
        if kind not in inputs.KINDS:
            raise PruneError(f"kind: {kind}; allowed: {', '.join(inputs.KINDS)}, or several with commas")
    return sorted(kinds)


def _walk(
    folder: Path,
    kinds: list[str],
    rows: Rows,
    indices: Any,
    labels: list[Any],
    source: models.Source,
    task: Task,
    opts: options.Represent,
) -> None:
    from prune_cli.represent import dynamics, engine, gradient, hidden

    device = models.use_device(opts.device)
    tokenizer = models.load_tokenizer(source)
    model, _ = models.load(source, task, labels, tokenizer, new_head=kinds == ["hidden"])
    observers: dict[str, engine.Observer] = {}
    for kind in kinds:
        if kind == "hidden":
            observers[kind] = hidden.Hidden(opts.layer, opts.pooling, opts.dtype)
        elif kind == "dynamics":
            observers[kind] = dynamics.Dynamics(task)
        else:
            observers[kind] = gradient.Gradient(opts.dim, opts.seed, opts.dtype, task)
    encoded = task.encode(rows, tokenizer, opts.max_length)
    models.check_length(model, encoded, rows)
    todo = engine.Pass(encoded, indices, tokenizer.pad_token_id, model, source, task, device, opts.precision)
    engine.walk(
        folder,
        observers,
        todo,
        batch_size=opts.batch_size,
        tokens_per_batch=opts.tokens_per_batch,
        save_minutes=opts.save_minutes,
    )


def _write_recorded(path: Path, source: models.Source, rows: Rows, opts: options.Represent) -> None:
    """Copy the dynamics recorded in training, for these rows, at the chosen epochs."""
    trained = source.trained
    if trained is None or "dynamics.safetensors" not in trained.files:
        raise PruneError(
            f"{source.name}: no dynamics were recorded with it; a finetune artifact of at least one epoch has them",
            hint="--dynamics recompute",
        )
    recorded = trained.file("dynamics.safetensors")
    rates = tensors.metadata(recorded)["learning_rate"]
    if opts.checkpoints == "all":
        epochs = list(range(len(rates)))
    elif opts.checkpoints == "last":
        epochs = [len(rates) - 1]
    else:
        epochs = [int(checkpoint.name) - 1 for checkpoint in source.checkpoints]
    seen = [json.loads(line)["id"] for line in trained.file("ids.jsonl").open(encoding="utf-8")]
    at = {str(key): i for i, key in enumerate(seen)}
    for i, key in enumerate(rows.ids):
        if str(key) not in at:
            raise PruneError(
                f"{rows.where(i)}: id {key} was not trained on by {source.name}; only its own rows are recorded",
                hint="--dynamics recompute",
            )
    order = [at[str(key)] for key in rows.ids]
    found = {name: array[order][:, epochs] for name, array in tensors.load(recorded).items()}
    tensors.save(path, found, {"learning_rate": [rates[e] for e in epochs], "recorded": True})


def score(
    sources: Sequence[str],
    out: Path,
    method: str,
    *,
    on: str | None,
    target: str | None,
    set_options: Mapping[str, Any],
    seed: int,
    fields: Mapping[str, str],
    how: How,
) -> Outcome:
    """Score rows: `score.jsonl`, {"id", "score"} in row order."""
    chosen = methods.load("score", method)
    values = methods.parse_options(chosen, set_options)
    task = tasks.load("classification")
    given = inputs.collect(sources, dict(fields), task)
    aim = inputs.collect([target], dict(fields), task, role="target ") if target else None
    random = "rng" in chosen.inputs
    supplied = {"rng": np.random.default_rng(seed)} if random else {}
    found, kind = inputs.arguments(chosen.inputs, chosen.optional, given, aim, on, supplied)
    given.rows_digest()
    recipe = Recipe(
        "score",
        {"method": chosen.name, "on": kind, "set": values, **({"seed": seed} if random else {})},
        {**given.used, **(aim.used if aim else {})},
    )

    def work(draft: Draft) -> None:
        scores = chosen.function(**found, **values)
        if scores.shape != (len(given.rows),) or not np.isfinite(scores).all():
            raise PruneError(f"{chosen.name}: gave scores that are not one finite number a row")
        with (draft.path / "score.jsonl").open("w", encoding="utf-8") as stream:
            for key, value in zip(given.rows.ids, scores.tolist(), strict=True):
                stream.write(json.dumps({"id": key, "score": value}, ensure_ascii=False) + "\n")
        draft.about = {"rows": len(given.rows), "meaning": chosen.summary}

    places = {"rows": _rows_place(given, sources)}
    places |= {f"input {i + 1}": source for i, source in enumerate(sources)}
    if target:
        places["target"] = target
    return _make(out, recipe, places, how, work)


def select(
    sources: Sequence[str],
    out: Path,
    method: str,
    *,
    keep: str,
    balance: str,
    on: str | None,
    target: str | None,
    set_options: Mapping[str, Any],
    seed: int,
    fields: Mapping[str, str],
    how: How,
) -> Outcome:
    """Select rows: `select.jsonl`, the kept rows themselves, best first."""
    from prune_cli.select._balance import select_balanced
    from prune_cli.select._budget import parse_keep

    chosen = methods.load("select", method)
    values = methods.parse_options(chosen, set_options)
    task = tasks.load("classification")
    given = inputs.collect(sources, dict(fields), task)
    aim = inputs.collect([target], dict(fields), task, role="target ") if target else None
    n_keep = parse_keep(keep, len(given.rows))
    random = "rng" in chosen.inputs
    supplied: dict[str, Any] = {"n_keep": n_keep}
    if random:
        supplied["rng"] = np.random.default_rng(seed)
    found, kind = inputs.arguments(chosen.inputs, chosen.optional, given, aim, on, supplied)
    label = given.label() if balance != "none" else None
    given.rows_digest()
    recipe = Recipe(
        "select",
        {
            "method": chosen.name,
            "on": kind,
            "set": values,
            "n_keep": n_keep,
            "balance": balance,
            **({"seed": seed} if random else {}),
        },
        {**given.used, **(aim.used if aim else {})},
    )

    def work(draft: Draft) -> None:
        positions = select_balanced(chosen.function, {**found, **values}, label, n_keep, balance, len(given.rows))
        with (draft.path / "select.jsonl").open("w", encoding="utf-8") as stream:
            for position in positions.tolist():
                stream.write(json.dumps(given.rows[position], ensure_ascii=False) + "\n")
        draft.about = {"rows": len(given.rows), "kept": n_keep, "labels": given.labels}

    places = {"rows": _rows_place(given, sources)}
    places |= {f"input {i + 1}": source for i, source in enumerate(sources)}
    if target:
        places["target"] = target
    return _make(out, recipe, places, how, work)


def _rows_place(given: inputs.Inputs, sources: Sequence[str]) -> str:
    """Where the rows are to be found again: the data file named, or the represent artifact."""
    for source in sources:
        if not artifact.is_artifact(Path(source)) or open_artifact(Path(source)).stage == "select":
            return source
    if given.represented:
        return str(given.represented[0].path)
    return str(given.scored[0].origin("rows"))


def finetune(data: str, out: Path, opts: options.Finetune, fields: Mapping[str, str], how: How) -> Outcome:
    """Fine-tune on rows, or on what a select artifact kept: weights, checkpoints, recorded dynamics, log."""
    options.check(opts)
    task = tasks.load(opts.task)
    rows = inputs.open_rows(data, dict(fields), task.check)
    source = models.find(opts.model)
    given = Path(data)
    labels = open_artifact(given).about["labels"] if artifact.is_artifact(given) else task.label_list(rows)
    if len(labels) < 2:
        raise PruneError(f"{rows.where(0)}: all rows have the label {labels[0]!r}; at least two labels are needed")
    recipe = Recipe("finetune", {**_finetune_options(opts), "labels": labels}, {"rows": rows.digest, "model": source.digest})

    def work(draft: Draft) -> None:
        from transformers import set_seed

        from prune_cli.finetune import train, with_adapters

        device = models.use_device(opts.device)
        tokenizer = models.load_tokenizer(source)
        encoded = task.encode(rows, tokenizer, opts.max_length)
        set_seed(opts.seed)  # the new head is drawn from it
        model, drawn = models.load(source, task, labels, tokenizer, new_head=True)
        model = models.merged(model)
        if opts.method == "lora":
            model = with_adapters(model, drawn, opts, task)
        models.check_length(model, encoded, rows)
        indices = task.label_indices(rows, labels)
        trained = train(draft.path, model, tokenizer, encoded, indices, opts, task, device)
        with (draft.path / "ids.jsonl").open("w", encoding="utf-8") as stream:
            stream.writelines(json.dumps({"id": key}, ensure_ascii=False) + "\n" for key in rows.ids)
        draft.about = {
            "rows": len(rows),
            "labels": labels,
            "steps": trained.steps,
            "learning_rate": trained.learning_rate,
            "checkpoints": trained.checkpoints,
            "max_length": opts.max_length,
        }

    places = {"rows": data, "model": opts.model}
    return _make(out, recipe, places, how, work, resumable=True)


def _finetune_options(opts: options.Finetune) -> dict[str, Any]:
    """The options that have a say in what is trained: those of LoRA only with LoRA, epochs only without steps."""
    idle = {"model"}
    if opts.method != "lora":
        idle |= {name for name in options.described(options.Finetune) if name.startswith("lora_")}
    if opts.checkpoints == "none":
        idle.add("moments")
    idle.add("epochs" if opts.steps else "steps")
    return {name: value for name, value in options.recipe_options(opts).items() if name not in idle}


def evaluate(
    model: str, tests: Mapping[str, str], out: Path, opts: options.Eval, fields: Mapping[str, str], how: How
) -> Outcome:
    """Evaluate a trained model on named test files: `metrics.json` and `predictions.jsonl`."""
    options.check(opts)
    source = models.find(model)
    task = tasks.load(source.trained.options["task"] if source.trained else "classification")
    rows = {name: inputs.open_rows(test, dict(fields), task.check) for name, test in tests.items()}
    opened = {f"test {name}": found.digest for name, found in rows.items()}
    recipe = Recipe("eval", options.recipe_options(opts), {"model": source.digest, **opened})

    def known(name: str) -> list[Any]:
        return source.labels or models.head_labels(source, task.label_list(rows[name]))

    indices = {name: task.label_indices(found, known(name)) for name, found in rows.items()}

    def work(draft: Draft) -> None:
        from prune_cli.evaluate import predict

        device = models.use_device(opts.device)
        tokenizer = models.load_tokenizer(source)
        labels = known(next(iter(rows)))
        network, _ = models.load(source, task, labels, tokenizer, new_head=False)
        network = network.to(device).eval()
        longest = opts.max_length or (source.trained.about["max_length"] if source.trained else 512)
        metrics = {}
        with (draft.path / "predictions.jsonl").open("w", encoding="utf-8") as stream:
            for name, found in rows.items():
                encoded = task.encode(found, tokenizer, longest)
                models.check_length(network, encoded, found)
                probabilities, losses = predict(
                    network, encoded, indices[name], tokenizer.pad_token_id, task, device, opts
                )
                metrics[name] = task.metrics(indices[name], probabilities, losses, labels)
                best = probabilities.argmax(1)
                for i, key in enumerate(found.ids):
                    line = {
                        "test": name,
                        "id": key,
                        "label": labels[indices[name][i]],
                        "prediction": labels[best[i]],
                        "probabilities": [round(float(p), 6) for p in probabilities[i]],
                    }
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        (draft.path / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", "utf-8")
        draft.about = {"labels": labels, "tests": {name: len(found) for name, found in rows.items()}}

    places = {"model": model, **{f"test {name}": test for name, test in tests.items()}}
    return _make(out, recipe, places, how, work)


def _make(
    out: Path,
    recipe: Recipe,
    places: Mapping[str, str],
    how: How,
    work: Callable[[Draft], None],
    *,
    resumable: bool = False,
) -> Outcome:
    """Run a stage's work unless its artifact is up to date; commit the result."""
    reason = artifact.stale_reason(out, recipe)
    if reason is None and not how.force:
        if not how.dry_run:
            with suppress(OSError):  # an artifact of someone else's may be read-only
                (out / artifact.MANIFEST).touch()  # make compares times: this one has been looked at
        return Outcome(out, recipe.stage, "current")
    if artifact.is_artifact(out):
        if not (how.force or how.replace):
            raise PruneError(
                f"{out}: holds an artifact made otherwise: {reason}",
                hint="--replace to make it again, or another -o",
            )
        if any(Path(place).resolve() == out.resolve() for place in places.values()):
            raise PruneError(f"{out}: is among the inputs; another -o is needed")
    if how.dry_run:
        return Outcome(out, recipe.stage, "would run", reason or "forced")
    began = monotonic()
    with artifact.draft(out, recipe, places, resumable=resumable) as draft:
        work(draft)
        draft.made = _made(monotonic() - began)
    return Outcome(out, recipe.stage, "made", reason or "forced", monotonic() - began)


def _made(seconds: float) -> dict[str, Any]:
    """How it came about, for the manifest: outside every hash."""
    made: dict[str, Any] = {
        "argv": sys.argv,
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers", "numpy", "safetensors")},
        "seconds": round(seconds, 2),
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        made["device"] = torch.cuda.get_device_name()
        made["peak_device_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
    return made
