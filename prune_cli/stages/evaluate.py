"""`prune eval`: what a trained model makes of test sets."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.artifacts.jsonl import write_jsonl
from prune_cli.artifacts.manifest import Recipe
from prune_cli.data.open import Reading, check_of_use, open_rows
from prune_cli.data.rows import Rows
from prune_cli.models import find, harness
from prune_cli.runtime.progress import note
from prune_cli.stages import baseline
from prune_cli.stages.baseline import Baseline
from prune_cli.stages.common import (
    How,
    Outcome,
    done,
    making,
    model_code,
    settle,
    task_code,
    tell_bad_rows,
    template_digest,
)
from prune_cli.stages.counts import warn


def finite(value: Any, where: str) -> Any:
    """Metrics with null for what JSON has no number for, infinity and NaN, which a note on stderr names."""
    if isinstance(value, dict):
        return {name: finite(entry, f"{where}, {name}") for name, entry in value.items()}
    if isinstance(value, float) and not math.isfinite(value):
        note(f"{where}: {'not a number' if math.isnan(value) else 'infinite'}; metrics.json has null")
        return None
    return value


def evaluate(
    model: str, tests: Mapping[str, str], out: Path, opts: options.Eval, reading: Reading, how: How
) -> Outcome:
    """Evaluate a trained model on named test sets: `metrics.json`, and a line for each row in `predictions.jsonl`.

    tests: name -> data file, or a task of lm-eval as in `lm-eval:gsm8k`.
    """
    check_of_use(tests.values(), reading)
    named = find.find(model, trust_remote_code=opts.trust_remote_code)
    asked = harness.asked(tests)
    if len(asked) == len(tests) and not named.trained and opts.task == "auto":
        opts = replace(opts, task="generation")
    opts = replace(opts, task=find.task_of(named, opts.task), max_length=opts.max_length or find.max_length(named))
    options.raise_all(options.idle(opts, opts.task))
    followed = opts.loss_on == "auto"
    opts = replace(opts, loss_on=find.loss_on(named, opts.loss_on))
    if followed and opts.loss_on == "last":
        note(f"{model}: the loss is on the last turn of the assistant, as in its training")
    task = tasks.load(opts.task)
    template = tasks.chat_template(opts.task, opts.chat_template)
    reading = tasks.reading_of(opts.task, reading)
    sets = {name: open_rows(test, reading, task.check) for name, test in tests.items() if name not in asked}
    tell_bad_rows(reading, list(sets.values()), how)
    digests = {f"test {name}": rows.digest for name, rows in sets.items()}
    digests |= harness.digests(asked, opts, task.AUTO_MODEL)
    decided = {
        name: value
        for name, value in options.recipe(opts, opts.task).items()
        if asked or not name.startswith("lm_eval_")
    }
    read = {"model": named.digest, **template_digest(template), **digests}
    recipe = Recipe("eval", decided, read, {**task_code(opts.task), **model_code("load", "predict")})
    labels = find.head_labels(named, task.label_list(next(iter(sets.values()))) if sets else [])
    for rows in sets.values():
        gold = task.label_indices(rows, labels)  # before any work: a label that the model does not know
        tasks.check_gold(rows, gold, "eval")
    places = {"model": model, **{f"test {name}": test for name, test in tests.items()}}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places, loads=["prune_cli.models.load", "prune_cli.models.predict"]) as draft:
        from prune_cli.models import device as devices
        from prune_cli.models import load

        device = devices.use_device(opts.device)
        tokenizer = load.load_tokenizer(named, template)
        network, _ = load.load(named, task, labels, tokenizer, new_head=False)
        network = network.to(device).eval()
        metrics: dict[str, Any] = {}
        counts: dict[str, int] = {}
        lost: dict[str, dict[str, int]] = {}
        baselines: dict[str, Baseline] = {}

        def lines() -> Iterator[dict[str, Any]]:
            for name, rows in sets.items():
                predicted, metrics[name], lost[name] = _on_rows(network, tokenizer, rows, labels, opts, device, name)
                counts[name] = len(rows)
                if labels:
                    baselines[name] = baseline.compared(predicted)
                for key, prediction in zip(rows.ids, predicted, strict=True):
                    yield {"test": name, "id": key, **prediction}
            for name, found, answers in harness.judge(network, tokenizer, asked, opts, device) if asked else ():
                metrics[name], counts[name] = finite(found, name), found["n"]
                yield from ({"test": name, **answer} for answer in answers)

        write_jsonl(draft.path / "predictions.jsonl", lines())
        told = baseline.warnings(baselines)
        if how.warn:
            warn(out, told)
        metrics = {name: metrics[name] for name in tests}
        (draft.path / "metrics.json").write_text(json.dumps(metrics, indent=1, ensure_ascii=False) + "\n", "utf-8")
        draft.about = {
            "labels": labels,
            "tests": {name: counts[name] for name in tests},
            "cut": lost,
            "warnings": told,
        }
    return done(outcome, draft)


def _on_rows(
    network: Any, tokenizer: Any, rows: Rows, labels: list[Any], opts: options.Eval, device: Any, name: str
) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, int]]:
    """What the model makes of the rows of a test set: predictions, metrics, and what was cut."""
    from prune_cli.models import load
    from prune_cli.models.predict import predict
    from prune_cli.tasks.tokens import tell_cut

    task = tasks.load(opts.task)
    encoded = task.encode(rows, tokenizer, opts.max_length, labels, **tasks.how_encoded(task, opts))
    load.check_rows(network, encoded, rows)
    lost = tell_cut(encoded, rows, tokenizer.model_max_length)
    judging = tasks.Judging(network, tokenizer, rows, encoded, labels, device, opts.max_length, opts.max_new_tokens)
    predictions, losses = predict(
        judging,
        task,
        batch_size=opts.batch_size,
        tokens_per_batch=opts.tokens_per_batch,
        precision=opts.precision,
    )
    return predictions, finite(task.metrics(predictions, losses, labels), name), lost
