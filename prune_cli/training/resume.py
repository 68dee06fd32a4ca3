"""Resume states: what an interrupted training goes on from.

A state is the folder `checkpoint-<step>` that the Trainer writes, with our record of the training dynamics. The file
`whole` is written last. It holds the sha256 of every file of the state and of the checkpoints kept before it, so that a
state is used only where all of it is as it was written.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from prune_cli.artifacts.files import sync, sync_folder
from prune_cli.artifacts.manifest import digest_file, digest_once
from prune_cli.runtime.progress import note
from prune_cli.training.checkpoints import FOLDER as CHECKPOINTS

FOLDER = ".resume"  # in the draft of a finetune artifact
WHOLE = "whole"


def state_of(out: Path, step: int) -> Path:
    """Where the state of a step is."""
    return out / FOLDER / f"checkpoint-{step}"


def step_of(state: Path) -> int:
    """The step that a state is of: so many optimizer steps were done."""
    return int(state.name.rsplit("-", 1)[1])


def processes_of(state: Path) -> int:
    """How many processes made a state: each has left how far its random numbers are."""
    return len(list(state.glob("rng_state*.pth")))


def seal(out: Path, state: Path) -> None:
    """Make a state that was written whole: bring it to disk, then write the hashes by which it is known to be so."""
    sync_folder(state)
    files = [*_files(state), *_files(out / CHECKPOINTS)]
    hashes = {path.relative_to(out).as_posix(): digest_once(path, path.stat()) for path in files}
    scratch = state / f".{WHOLE}.tmp"
    scratch.write_text(json.dumps(hashes, indent=1), "utf-8")
    sync(scratch)
    scratch.replace(state / WHOLE)
    sync(state)
    sync(state.parent)


def last_whole(out: Path) -> Path | None:
    """The newest state that is as it was written; None: there is none, the training starts anew.

    States that are not are removed. One that was sealed and is damaged now is told of on stderr.
    """
    states = sorted((out / FOLDER).glob("checkpoint-*"), key=step_of)
    damaged: list[Path] = []
    while states and not _is_whole(out, states[-1]):
        state = states.pop()
        if (state / WHOLE).exists():
            damaged.append(state)
        else:
            shutil.rmtree(state)  # the run was killed while it wrote the state
    for state in damaged:
        start = f"going on from step {step_of(states[-1])}" if states else "starting from the first step"
        note(f"resume state of step {step_of(state)} is damaged; {start}")
        shutil.rmtree(state)
    return states[-1] if states else None


def _is_whole(out: Path, state: Path) -> bool:
    try:
        hashes = json.loads((state / WHOLE).read_text("utf-8"))
        return bool(hashes) and all(digest_file(out / name) == sha256 for name, sha256 in hashes.items())
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return False


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
