"""The checkpoints that fine-tuning keeps: weights or adapters after an epoch, with Adam's moments where asked for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from prune_cli.artifacts.files import sync, sync_folder
from prune_cli.models import moments

FOLDER = "checkpoints"
_SCRATCH = ".checkpoint"  # a dot name, so that it is gone when the artifact is committed


def keep(out: Path, epoch: int, model: torch.nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Keep the weights after an epoch in `out/checkpoints/<epoch>`, and with an optimizer its moments.

    The folder takes its name when all is on disk: it is whole or not there.
    """
    scratch, folder = out / _SCRATCH, out / FOLDER / str(epoch)
    shutil.rmtree(scratch, ignore_errors=True)
    save_weights(model, scratch)
    if optimizer is not None:
        moments.save_moments(scratch / moments.FILE, model, optimizer)
    sync_folder(scratch)
    folder.parent.mkdir(exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)  # of a run that was interrupted after it
    scratch.rename(folder)
    sync(folder.parent)


def kept_epochs(out: Path) -> list[int]:
    """The epochs whose weights were kept, in order."""
    return sorted(int(folder.name) for folder in (out / FOLDER).glob("*"))


def save_weights(model: Any, folder: Path) -> None:
    """Write a model's weights, or its adapters, and their config: the same bytes each time."""
    model.save_pretrained(folder)
    adapters = folder / "adapter_config.json"
    if adapters.exists():
        (folder / "README.md").unlink(missing_ok=True)  # a model card without content
        config = json.loads(adapters.read_text("utf-8"))
        config["base_model_name_or_path"] = config["base_model_name_or_path"] or None  # "": in no folder, it was merged
        for name in ("target_modules", "modules_to_save"):  # sets in peft: in another order each time
            if isinstance(config[name], list):
                config[name].sort()
        adapters.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
