"""`prune merge`: a model with its adapters added into its weights, as a plain folder that other programs load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from prune_cli import options, tasks
from prune_cli.artifacts.manifest import Recipe
from prune_cli.errors import PruneError
from prune_cli.models import find
from prune_cli.stages.common import How, Outcome, done, making, model_code, settle, task_code


def merge(model: str, out: Path, opts: options.Merge, how: How) -> Outcome:
    """Merge adapters, of a finetune artifact or not: config, weights and tokenizer as transformers has them.

    The weights are in the number format of the model beneath. The manifest beside them lets it be used as the finetune
    artifact was; no other program needs it.
    """
    named = find.find(model, trust_remote_code=opts.trust_remote_code)
    opts = replace(opts, task=find.task_of(named, opts.task))
    task = tasks.load(opts.task)
    if not find.has_adapters(named):
        raise PruneError(f"{model}: a whole model, which other programs load as it is; allowed: one with adapters")
    made_by = {**task_code(opts.task), **model_code("load", "adapters")}
    recipe = Recipe("merge", {**options.recipe(opts), "tune": "full"}, {"model": named.digest}, made_by)
    places = {"model": model}
    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    with making(outcome, recipe, places) as draft:
        import torch

        from prune_cli.models import adapters, load
        from prune_cli.models.libraries import one_line
        from prune_cli.training.checkpoints import save_weights

        classes = find.class_names(named) if named.labels is None else named.labels
        tokenizer = load.load_tokenizer(named)
        network, _ = load.load(named, task, classes or [], tokenizer, new_head=False)
        with one_line(f"cannot merge the adapters in {model}"):
            network = adapters.merged(network)
        save_weights(network.to(getattr(torch, adapters.dtype_beneath(named))), draft.path)
        tokenizer.save_pretrained(draft.path)
        trained = named.trained.about if named.trained else {"learning_rate": 1.0}
        draft.about = {
            "labels": named.labels,  # of adapters from elsewhere the config has the names, if there are any
            "learning_rate": trained["learning_rate"],
            "checkpoints": [],
            "max_length": find.max_length(named),
        }
    return done(outcome, draft)
