"""Benchmarks for language models: tasks of EleutherAI's lm-evaluation-harness, where that library is installed.

The model is in memory already. The library asks the questions, judges the answers and takes the means; its numbers are
those of its own command `lm_eval` with the same model, task and options. Tasks whose questions are on the hub are
downloaded by it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli.artifacts.manifest import digest_file, digest_value
from prune_cli.data.open import LM_EVAL
from prune_cli.errors import PruneError
from prune_cli.models.libraries import one_line, quiet

if TYPE_CHECKING:
    from prune_cli.options import Eval

LIBRARY = "lm_eval"


def asked(tests: Mapping[str, str]) -> dict[str, str]:
    """Of all test sets those that are tasks of lm-eval: name -> task. Raises PruneError for one without a name."""
    found = {name: test.removeprefix(LM_EVAL) for name, test in tests.items() if test.startswith(LM_EVAL)}
    if not all(found.values()):
        raise PruneError(f"{LM_EVAL} without a task; allowed: such as {LM_EVAL}gsm8k")
    return found


def digests(tasks: Mapping[str, str], opts: Eval, auto_model: str) -> dict[str, str]:
    """What the answers depend on beside the model: the library's version with each task, and the user's own tasks.

    tasks: name of the test set -> task. auto_model: the class of transformers that loads the model. Raises PruneError
    where the model is no language model, and where the library, or the folder of tasks, is not there.
    """
    if not tasks:
        return {}
    if auto_model != "AutoModelForCausalLM":
        raise PruneError(
            f"{LM_EVAL}{next(iter(tasks.values()))}: tasks of lm-eval are for language models",
            hint="--task generation, for a model that is one",
        )
    try:
        installed = version(LIBRARY)
    except PackageNotFoundError as failure:
        raise PruneError(
            f"{LM_EVAL}{next(iter(tasks.values()))}: the package lm-eval is not installed; it is needed",
            hint="pip install 'prune-cli[eval]'",
        ) from failure
    found = {f"test {name}": f"{LIBRARY} {installed}, {task}" for name, task in tasks.items()}
    if opts.lm_eval_tasks:
        folder = Path(opts.lm_eval_tasks)
        if not folder.is_dir():
            raise PruneError(f"lm_eval_tasks: {folder}; allowed: a folder of tasks (YAML files)")
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        found["lm-eval tasks"] = digest_value({str(path.relative_to(folder)): digest_file(path) for path in files})
    return found


def judge(
    model: Any, tokenizer: Any, tasks: Mapping[str, str], opts: Eval, device: Any
) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Of each task: the name of the test set, its metrics with the number of documents `n`, a line for each document.

    A metric behind a filter is called after both, such as `exact_match,strict-match`; `…_stderr` is its standard error.
    """
    with one_line(LIBRARY), quiet():
        from lm_eval import simple_evaluate
        from lm_eval.models.huggingface import HFLM
        from lm_eval.tasks import TaskManager

        logging.getLogger(LIBRARY).setLevel(logging.ERROR)
        known = TaskManager(include_path=opts.lm_eval_tasks)
        for name, task in tasks.items():
            if task not in known.all_tasks:
                raise PruneError(
                    f"{name}: {LM_EVAL}{task}; lm-eval has no such task", hint="lm_eval ls tasks lists them"
                )
        wrapped = HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            device=str(device),
            batch_size=opts.batch_size,
            mixed_precision_dtype="bfloat16" if opts.precision == "bfloat16" else None,
        )
        for name, task in tasks.items():
            found = simple_evaluate(
                wrapped,
                tasks=[task],
                num_fewshot=None if opts.lm_eval_shots < 0 else opts.lm_eval_shots,
                limit=opts.lm_eval_limit or None,
                apply_chat_template=opts.lm_eval_chat and bool(tokenizer.chat_template),
                task_manager=known,
            )
            counts = {part: count["effective"] for part, count in found["n-samples"].items()}
            yield name, _metrics(found["results"], task, counts), _lines(found["samples"])


def _metrics(results: Mapping[str, Mapping[str, Any]], task: str, counts: Mapping[str, int]) -> dict[str, Any]:
    """The numbers of a task, or of a group of them with those of its tasks under their names."""
    own = {"n": sum(counts.values()), **_numbers(results.get(task, {}))}
    for name, values in results.items():
        if name != task:
            own[name] = {**({"n": counts[name]} if name in counts else {}), **_numbers(values)}
    return own


def _numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics by name, without the filter `none`; what is no metric is text, or a count of `n`."""
    return {
        key.replace(",none", ""): value
        for key, value in values.items()
        if isinstance(value, (int, float)) and "," in key
    }


def _lines(samples: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """A line for each document: its number, what was wanted and answered, and each metric that is a number."""
    lines = []
    for task, documents in samples.items():
        for document in documents:
            line = {"task": task, "id": document["doc_id"], "filter": document["filter"]}
            line |= {"reference": document["target"], "prediction": document["filtered_resps"]}
            lines.append(line | {name: document[name] for name in document["metrics"]})
    return lines
