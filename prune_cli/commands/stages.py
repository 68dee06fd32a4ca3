"""The commands that are one stage each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from prune_cli import options
from prune_cli.commands.app import app, example, stage
from prune_cli.parameters import Data, Inputs, Out

if TYPE_CHECKING:
    from prune_cli.stages.common import Outcome


@app.command(
    epilog=example(
        "prune represent sample_data/train.jsonl -o runs/train \\\n"
        "      --model runs/warmup --kind hidden,dynamics,gradient",
        "prune represent sample_data/validation.jsonl -o runs/validation \\\n      --model runs/warmup --kind gradient",
    )
)
@stage
def represent(data: Data, out: Out, opts: options.Represent, **common: Any) -> Outcome:
    """Represent each row by a model's hidden states, training dynamics, projected gradients or influence."""
    from prune_cli.stages.represent import represent

    return represent(data, out, opts, **common)


@app.command(
    epilog=example("prune score runs/train -o runs/less \\\n      --method less --on gradient --target runs/validation")
)
@stage
def score(inputs: Inputs, out: Out, opts: options.Score, **common: Any) -> Outcome:
    """Give each row a number: how hard, how typical, how relevant it is."""
    from prune_cli.stages.score import score

    return score(inputs, out, opts, **common)


@app.command(epilog=example("prune select runs/less -o runs/kept \\\n      --method top --keep 30% --balance keep"))
@stage
def select(inputs: Inputs, out: Out, opts: options.Select, **common: Any) -> Outcome:
    """Keep the rows that a method chooses, ready for any trainer."""
    from prune_cli.stages.select import select

    return select(inputs, out, opts, **common)


@app.command(epilog=example("prune export runs/kept -o runs/exported --for datasets"))
@stage
def export(
    selection: Annotated[str, typer.Argument(metavar="SELECTION", help="A select artifact.", show_default=False)],
    out: Out,
    opts: options.Export,
    how: Any,
) -> Outcome:
    """Write kept rows for a trainer or a library, as they came, with what it needs beside them."""
    from prune_cli.stages.export import export

    return export(selection, out, opts, how)


@app.command(
    epilog=example(
        "prune finetune sample_data/train.jsonl -o runs/warmup \\\n"
        "      --model sample_data/model --learning-rate 1e-3 --keep-checkpoints epoch",
        "prune finetune runs/kept -o runs/model \\\n      --model sample_data/model --learning-rate 1e-3",
    )
)
@stage
def finetune(data: Data, out: Out, opts: options.Finetune, **common: Any) -> Outcome:
    """Train a model on rows, or on those that a selection kept; records training dynamics on the way."""
    from prune_cli.stages.finetune import finetune

    return finetune(data, out, opts, **common)


@app.command(
    "eval",
    epilog=example("prune eval runs/model sample_data/test.jsonl sample_data/ood.jsonl \\\n      -o runs/metrics"),
)
@stage
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A finetune artifact, or a model with a trained head: hub name or folder.",
            show_default=False,
        ),
    ],
    data: Annotated[
        list[str],
        typer.Argument(
            metavar="DATA",
            help="Test sets, named by their file stems or as in ood=data/test.jsonl; lm-eval:TASK,TASK for benchmarks.",
            show_default=False,
        ),
    ],
    out: Out,
    opts: options.Eval,
    **common: Any,
) -> Outcome:
    """Measure a trained model on test sets: loss, accuracy, F1, and every prediction."""
    from prune_cli.data.open import test_sets
    from prune_cli.stages.evaluate import evaluate

    return evaluate(model, test_sets(data), out, opts, **common)


@app.command(
    epilog=example(
        "prune finetune sample_data/train.jsonl -o runs/lora \\\n"
        "      --model sample_data/model --tune lora --steps 20",
        "prune merge runs/lora -o runs/merged",
    )
)
@stage
def merge(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A finetune artifact of LoRA, or adapters: hub name or folder.", show_default=False
        ),
    ],
    out: Out,
    opts: options.Merge,
    how: Any,
) -> Outcome:
    """Add adapters into their model's weights: a plain folder that other trainers and servers load."""
    from prune_cli.stages.merge import merge

    return merge(model, out, opts, how)


@app.command(
    epilog=example(
        "prune simulate -o runs/simulation",
        "prune simulate -o runs/noise --sweep noise=0,0.1,0.2",
    )
)
@stage
def simulate(out: Out, opts: options.Simulate, how: Any) -> Outcome:
    """Prune points in the plane by every method: figures of what each keeps, and when it fails."""
    from prune_cli.stages.simulate import simulate

    return simulate(out, opts, how)
