"""The Trainer's own reporters, for those who watch a training: TensorBoard, Weights & Biases, MLflow.

They change nothing of what is trained. TensorBoard's files stand beside the artifact; the others keep their own ways:
where they write, whether a network is used (WANDB_MODE, MLFLOW_TRACKING_URI), whom they ask.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from prune_cli import options
from prune_cli.errors import PruneError
from prune_cli.runtime.progress import note
from prune_cli.runtime.running import first_line

FOLDER = ".logs"  # ends the name of the folder beside an artifact


def check(opts: options.Finetune) -> None:
    """Raise PruneError where the package that is to log is not installed."""
    if opts.log != "none" and find_spec(opts.log) is None:
        raise PruneError(f"log: {opts.log}; the package {opts.log} is not installed", hint=f"pip install {opts.log}")


def folder_of(out: Path, key: str) -> Path:
    """Where TensorBoard's files of an artifact go: another recipe is another run."""
    return out.with_name(out.name + FOLDER) / key[:8]


def arguments(opts: options.Finetune, name: Path) -> dict[str, Any]:
    """The arguments of the Trainer that say what is logged, and under which name."""
    if opts.log == "none":
        return {"logging_strategy": "no", "report_to": "none"}
    report_to = "none" if opts.log == "tensorboard" else opts.log  # which is told its folder below
    return {
        "logging_strategy": "steps",
        "logging_steps": opts.log_steps,
        "report_to": report_to,
        "run_name": str(name),
    }


def callbacks(opts: options.Finetune, folder: Path) -> list[Any]:
    """The callback that logs for TensorBoard."""
    if opts.log != "tensorboard":
        return []
    from transformers.integrations.integration_utils import TensorBoardCallback

    board = TensorBoardCallback()
    board.logging_dir = board.logging_dir or str(folder)  # the user's TENSORBOARD_LOGGING_DIR comes first
    note(f"finetune: logs for tensorboard in {board.logging_dir}")
    return [board]


@contextmanager
def told(opts: options.Finetune) -> Iterator[None]:
    """Turn what the package that logs raises into a PruneError, such as that no one is logged in.

    A run of Weights & Biases ends with the block, or the next training of a pipeline would go on with it; one that was
    open before stays so.
    """
    wandb = import_module("wandb") if opts.log == "wandb" else None
    opens = wandb is not None and wandb.run is None
    try:
        yield
    except Exception as failure:
        if opts.log == "none" or type(failure).__module__.partition(".")[0] != opts.log:
            raise
        raise PruneError(f"log: {opts.log}: {first_line(failure)}") from failure
    finally:
        if wandb and opens:
            wandb.finish()
