"""The stages: open inputs, do the work, write the artifact. Each is one function that the command line calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import options, tasks
from prune_cli.artifacts import manifest as artifact
from prune_cli.artifacts.drafts import Draft
from prune_cli.artifacts.manifest import Recipe, open_artifact
from prune_cli.data import fingerprints
from prune_cli.data.groups import groups as groups_of
from prune_cli.data.open import open_rows, task_name
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.methods import arguments as inputs
from prune_cli.methods import method as methods
from prune_cli.methods.budget import parse_keep
from prune_cli.models import load as models
from prune_cli.stages.common import How, Outcome, done, making, settle
from prune_cli.tasks import Task


def represent(
    data: str, out: Path, opts: options.Represent, target: str | None, fields: Mapping[str, str], how: How
) -> Outcome:
    """Represent rows: `<kind>.safetensors` for each kind, and the rows in order.

    Tensors have the rows on the first axis and the checkpoints on the second. target: data of the target set, which
    the kind influence is about.
    """
    options.check(opts)
    kinds = _kinds(opts.kind)
    if "influence" in kinds and target is None:
        raise PruneError("kind: influence; on a target set: --target DATA is needed")
    if "influence" in kinds and "gradient" in kinds:
        raise PruneError("kind: gradient and influence; one of them at a time is allowed")
    if target is not None and "influence" not in kinds:
        raise PruneError(f"--target {target}: {opts.kind} is about no target set; leave --target out")
    source = models.find(opts.model, opts.checkpoints)
    opts = replace(opts, task=models.task_name(source, task_name(data, opts.task)))
    if "unprompted" in kinds and opts.task != "generation":
        raise PruneError(f"kind: unprompted; rows of the task {opts.task} have no prompt to leave out")
    task = tasks.load(opts.task)
    rows = open_rows(data, dict(fields), task.check)
    aim = open_rows(target, dict(fields), task.check) if target else None
    groups = groups_of(aim) if aim else None
    opts = replace(
        opts,
        max_length=opts.max_length or models.max_length(source),
        pooling=task.POOLING if opts.pooling == "auto" else opts.pooling,
    )
    recorded = "dynamics" in kinds and opts.dynamics == "recorded"
    checkpoints = opts.checkpoints if recorded else [checkpoint.name for checkpoint in source.checkpoints]
    recipe_options = {"task": opts.task, "kind": kinds, "checkpoints": checkpoints}
    if {"hidden", "gradient"} & set(kinds):
        recipe_options["dtype"] = opts.dtype
    for kind in kinds:
        recipe_options |= options.of_kind(kind, opts)
    made_of = {"rows": rows.digest, "model": source.digest, **({"target rows": aim.digest} if aim else {})}
    recipe = Recipe("represent", recipe_options, made_of)

    def work(draft: Draft) -> None:
        from prune_cli.represent.kinds import dynamics

        labels = models.head_labels(source, task.label_list(rows))
        for given in (rows, aim) if aim else (rows,):
            task.label_indices(given, labels)  # before any work: a label that the model does not know
        walked = [kind for kind in kinds if kind != "dynamics" or opts.dynamics == "recompute"]
        draft.cached("rows.jsonl", rows.write)
        draft.cached(fingerprints.IDS, partial(fingerprints.write_ids, rows))
        if recorded:
            draft.cached("dynamics.safetensors", partial(dynamics.write_recorded, source, opts.checkpoints, rows))
        if walked:
            target_rows = (aim, groups[1] if groups else np.zeros(len(aim), np.int64)) if aim else None
            _walk(draft.path, walked, rows, target_rows, labels, source, task, opts)
        draft.about = {
            "rows": len(rows),
            "fields": rows.fields,
            "labels": labels,
            "kinds": kinds,
            "space": {
                kind: artifact.digest_value([source.digest, checkpoints, _space(options.of_kind(kind, opts))])
                for kind in kinds
            },
            **({"groups": groups[0]} if groups else {}),
        }

    places = {"rows": data, "model": opts.model, **({"target": target} if target else {})}
    return _make(out, recipe, places, how, work, resumable=True)


def _space(of_kind: dict[str, Any]) -> dict[str, Any]:
    """What two representations must have in common to be compared: LESS compares Adam's steps with plain gradients."""
    return {name: value for name, value in of_kind.items() if name != "precondition"}


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
    target: tuple[Rows, NDArray[np.int64]] | None,
    labels: list[Any],
    source: models.Source,
    task: Task,
    opts: options.Represent,
) -> None:
    from prune_cli.represent import walk as engine
    from prune_cli.represent.kinds import observers

    device = models.use_device(opts.device)
    tokenizer = models.load_tokenizer(source)
    model, _ = models.load(source, task, labels, tokenizer, new_head=kinds == ["hidden"])

    def over(given: Rows) -> engine.Pass:
        encoded = task.encode(given, tokenizer, opts.max_length, labels)
        models.check_length(model, encoded, given)
        return engine.Pass(encoded, models.pad_token_id(tokenizer), model, source, task, device, opts.precision)

    job = over(rows)
    watched = observers(kinds, model, task, opts, (over(target[0]), target[1]) if target else None)
    engine.walk(
        folder,
        watched,
        job,
        batch_size=opts.batch_size,
        tokens_per_batch=opts.tokens_per_batch,
        save_minutes=opts.save_minutes,
    )


@dataclass(frozen=True)
class _Call:
    """A method and where all that it asks for is to be had."""

    method: methods.Method
    wanted: inputs.Wanted
    supplied: dict[str, Any]  # arguments that are not read: options, rng, n_keep
    options: dict[str, Any]  # those that stand in the recipe
    places: dict[str, str]  # role of each input -> where it is

    @property
    def given(self) -> inputs.Inputs:
        """The inputs."""
        return self.wanted.given

    def recipe(self, stage: str, **more: Any) -> Recipe:
        """The recipe, with more options and the digests of all that will be read, the method's code included."""
        return Recipe(
            stage, {**self.options, **more}, {**self.wanted.digests(), "code of the method": self.method.code}
        )

    def arguments(self) -> dict[str, Any]:
        """All arguments of the method, the inputs read."""
        return {**self.wanted.values(), **self.supplied}


def score(
    sources: Sequence[str],
    out: Path,
    method: str,
    *,
    on: str | None,
    target: str | None,
    task: str | None,
    set_options: Mapping[str, Any],
    seed: int,
    fields: Mapping[str, str],
    how: How,
) -> Outcome:
    """Score rows: `score.jsonl`, {"id", "score"} in row order, and `ids.jsonl`, by which the rows are known again.

    task: of a data file; artifacts know theirs.
    """
    call = _prepare("score", method, sources, fields, target, on, task, set_options, seed)

    def work(draft: Draft) -> None:
        rows = call.given.rows
        scores = call.method.function(**call.arguments())
        if scores.shape != (len(rows),) or not np.isfinite(scores).all():
            raise PruneError(f"{call.method.name}: gave scores that are not one finite number a row")
        with (draft.path / "score.jsonl").open("w", encoding="utf-8") as stream:
            for key, value in zip(rows.ids, scores.tolist(), strict=True):
                stream.write(json.dumps({"id": key, "score": value}, ensure_ascii=False) + "\n")
        fingerprints.write_ids(rows, draft.path / fingerprints.IDS)
        draft.about = {"rows": len(rows), "labels": call.given.labels, "meaning": call.method.summary}

    return _make(out, call.recipe("score"), call.places, how, work)


def select(
    sources: Sequence[str],
    out: Path,
    method: str,
    *,
    keep: str,
    balance: str,
    balance_by: str,
    on: str | None,
    target: str | None,
    task: str | None,
    set_options: Mapping[str, Any],
    seed: int,
    fields: Mapping[str, str],
    how: How,
) -> Outcome:
    """Select rows: `select.jsonl`, the kept rows themselves, best first.

    balance: of each label, or of each group (balance_by). task: of a data file; artifacts know theirs.
    """
    from prune_cli.methods.balance import select_balanced

    if balance == "none" and balance_by != "label":
        raise PruneError(
            f"balance_by: {balance_by}; without a balance there is nothing to go by", hint="--balance keep"
        )
    call = _prepare("select", method, sources, fields, target, on, task, set_options, seed, keep)
    n_keep = call.supplied["n_keep"]
    balanced = {"balance": balance, **({"balance_by": balance_by} if balance != "none" else {})}

    def work(draft: Draft) -> None:
        rows = call.given.rows
        part = call.given.parts(balance_by) if balance != "none" else None
        positions = select_balanced(call.method.function, call.arguments(), part, n_keep, balance, len(rows))
        digest = rows.write(draft.path / "select.jsonl", positions.tolist())
        draft.about = {"rows": len(rows), "kept": n_keep, "labels": call.given.labels}
        draft.about |= {"fields": rows.fields, "digest": digest}

    return _make(out, call.recipe("select", n_keep=n_keep, **balanced), call.places, how, work)


def _prepare(
    stage: str,
    method: str,
    sources: Sequence[str],
    fields: Mapping[str, str],
    target: str | None,
    on: str | None,
    task: str | None,
    set_options: Mapping[str, Any],
    seed: int,
    keep: str | None = None,
) -> _Call:
    """Load a method and find where what it asks for is to be had."""
    given = inputs.collect(sources, dict(fields), task=task)
    chosen = methods.load(stage, method, given.form(on))
    values = methods.parse_options(chosen, set_options)
    if target and not any(name.startswith("target_") for name in chosen.inputs):
        raise PruneError(f"--target {target}: {chosen.name} compares with no target set; leave --target out")
    aim = inputs.collect([target], dict(fields), role="target ", task=given.task_name) if target else None
    supplied: dict[str, Any] = dict(values)
    if keep is not None:
        supplied["n_keep"] = parse_keep(keep, given.n)
    random = "rng" in chosen.inputs
    if random:
        supplied["rng"] = np.random.default_rng(seed)
    read = [name for name in chosen.inputs if name not in supplied]
    wanted = inputs.want(read, chosen.optional, given, aim, on)
    places = {"rows": _rows_place(given, sources)}
    places |= {f"input {i + 1}": source for i, source in enumerate(sources)}
    if target:
        places["target"] = target
    recipe: dict[str, Any] = {
        "method": chosen.name,
        "on": wanted.kind,
        "set": values,
        **({"seed": seed} if random else {}),
    }
    recipe |= {"task": given.task_name, "labels": given.labels}
    return _Call(chosen, wanted, supplied, recipe, places)


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
    source = models.find(opts.model)
    wanted = task_name(data, opts.task)
    opts = replace(opts, task=models.task_name(source, wanted) if wanted == "auto" else wanted)
    task = tasks.load(opts.task)
    rows = open_rows(data, dict(fields), task.check)
    given = Path(data)
    labels = open_artifact(given).about["labels"] if artifact.is_artifact(given) else task.label_list(rows)
    head = models.head_labels(source, labels)
    if set(head) == set(labels):
        labels = head  # a head that goes on being trained keeps its order
    device = models.use_device(opts.device)
    opts = replace(opts, precision=models.precision(opts.precision, device))
    if len(labels) == 1:
        raise PruneError(f"{rows.where(0)}: all rows have the label {labels[0]!r}; at least two labels are needed")
    if opts.load_in == "4bit" and opts.method != "lora":
        raise PruneError("load_in: 4bit; weights of 4 bits cannot be trained", hint="--method lora")
    if opts.load_in == "4bit" and device.type != "cuda":
        raise PruneError(f"load_in: 4bit; on the device {device}; a CUDA device is needed")
    made_of = {"rows": rows.digest, "model": source.digest}
    recipe = Recipe("finetune", {**options.of_training(opts), "labels": labels}, made_of)

    def work(draft: Draft) -> None:
        from transformers import set_seed

        from prune_cli.training.trainer import train, with_adapters

        tokenizer = models.load_tokenizer(source)
        encoded = task.encode(rows, tokenizer, opts.max_length, labels)
        set_seed(opts.seed)  # the new head is drawn from it
        model, drawn = models.load(source, task, labels, tokenizer, new_head=True, four_bit=opts.load_in == "4bit")
        model = models.merged(model)
        if opts.method == "lora":
            model = with_adapters(model, drawn, opts, task)
        models.check_length(model, encoded, rows)
        trained = train(draft.path, model, tokenizer, encoded, opts, task, device)
        fingerprints.write_ids(rows, draft.path / fingerprints.IDS)
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


def evaluate(
    model: str, tests: Mapping[str, str], out: Path, opts: options.Eval, fields: Mapping[str, str], how: How
) -> Outcome:
    """Evaluate a trained model on named test files: `metrics.json` and `predictions.jsonl`."""
    options.check(opts)
    source = models.find(model)
    opts = replace(
        opts,
        task=models.task_name(source, opts.task),
        max_length=opts.max_length or models.max_length(source),
    )
    task = tasks.load(opts.task)
    rows = {name: open_rows(test, dict(fields), task.check) for name, test in tests.items()}
    opened = {f"test {name}": found.digest for name, found in rows.items()}
    recipe = Recipe("eval", options.of_eval(opts), {"model": source.digest, **opened})

    labels = {name: models.head_labels(source, task.label_list(found)) for name, found in rows.items()}
    for name, found in rows.items():
        task.label_indices(found, labels[name])

    def work(draft: Draft) -> None:
        from prune_cli.models.predict import predict

        device = models.use_device(opts.device)
        tokenizer = models.load_tokenizer(source)
        head = next(iter(labels.values()))
        network, _ = models.load(source, task, head, tokenizer, new_head=False)
        network = network.to(device).eval()
        metrics = {}
        with (draft.path / "predictions.jsonl").open("w", encoding="utf-8") as stream:
            for name, found in rows.items():
                encoded = task.encode(found, tokenizer, opts.max_length, head)
                models.check_length(network, encoded, found)
                judging = tasks.Judging(network, tokenizer, found, encoded, head, device, opts)
                predictions, losses = predict(judging, task)
                metrics[name] = task.metrics(predictions, losses, head)
                for key, prediction in zip(found.ids, predictions, strict=True):
                    line = {"test": name, "id": key, **prediction}
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
        (draft.path / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", "utf-8")
        draft.about = {"labels": head, "tests": {name: len(found) for name, found in rows.items()}}

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
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places, resumable=resumable) as draft:
        work(draft)
    return done(outcome, draft)
