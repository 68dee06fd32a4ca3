"""What every stage does before and after its work: is there anything to do, and how the result is put in place."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from time import monotonic
from types import ModuleType
from typing import Any, cast

from prune_cli import tasks
from prune_cli.artifacts import drafts, manifest, removal
from prune_cli.artifacts.code import digest_of_module, digest_of_plugin
from prune_cli.artifacts.drafts import Draft
from prune_cli.artifacts.manifest import Recipe
from prune_cli.data.open import Reading, write_bad_rows
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.runtime import memory, processes

# named in a manifest if they were used
LIBRARIES = ("torch", "transformers", "peft", "numpy", "scipy", "sklearn", "matplotlib")
MODELS = "prune_cli.models"
TASK_CODE = ("prune_cli.tasks", "prune_cli.data.formats", "prune_cli.numeric")  # what a task's results may depend on

FORCED = "forced"


@dataclass(frozen=True)
class How:
    """What to do about an artifact that is there.

    force: make it again in any case. replace: only if it is not up to date. dry_run: make nothing. warn: tell what a
    selection or an evaluation warns of, which a pipeline does for all of them together.
    """

    force: bool = False
    replace: bool = False
    dry_run: bool = False
    warn: bool = True


@dataclass(frozen=True)
class Outcome:
    """What a stage did. state: `current`, `would run`, `make` (about to), `made`. reason: why it was not current."""

    out: Path
    stage: str
    state: str
    reason: str = ""
    seconds: float = 0.0

    @property
    def settled(self) -> bool:
        """Whether there is nothing more to do."""
        return self.state != "make"


def tell_bad_rows(reading: Reading, given: Sequence[Rows], how: How) -> None:
    """Write the bad rows that were left out of all the rows given, where that was asked for."""
    if reading.bad_rows and not how.dry_run:
        write_bad_rows(reading.bad_rows, given)


def settle(out: Path, recipe: Recipe, places: Mapping[str, str], how: How) -> Outcome:
    """Decide what is to be done about an artifact. Raises PruneError where it must not be replaced.

    places: role of each input -> the path or name it was given by.
    """
    key, outcome = processes.agreed(lambda: (recipe.key, _look(out, recipe, places, how)))
    if key != recipe.key:
        raise PruneError("the processes read different rows or models; all must read the same")
    return outcome


def _look(out: Path, recipe: Recipe, places: Mapping[str, str], how: How) -> Outcome:
    reason = drafts.stale_reason(out, recipe)
    if reason is None and not how.force:
        if not how.dry_run:
            touch(out)
        return Outcome(out, recipe.stage, "current")
    if manifest.is_artifact(out) and not (how.force or how.replace):
        raise PruneError(f"{out}: holds another artifact: {reason}", hint="--replace to make it again, or another -o")
    if manifest.is_artifact(out):
        removal.check_removable(out)
    for place in places.values():
        _check_apart(out, Path(place))
    return Outcome(out, recipe.stage, "would run" if how.dry_run else "make", reason or FORCED)


def touch(out: Path) -> None:
    """Say that an artifact has been checked now: make compares times."""
    with suppress(OSError):  # another user's artifact may be read-only
        (out / manifest.MANIFEST).touch()


def _check_apart(out: Path, place: Path) -> None:
    """Raise PruneError where an artifact would be made in place of one of its inputs, around it or within it."""
    if not place.exists():  # a hub name, standard input
        return
    here, there = out.resolve(), place.resolve()
    if here == there:
        raise PruneError(f"{out}: is one of the inputs; choose another -o")
    if here in there.parents or there in here.parents:
        raise PruneError(
            f"{out}: {'holds' if here in there.parents else 'lies in'} the input {place}; choose another -o"
        )


@contextmanager
def making(
    outcome: Outcome, recipe: Recipe, places: Mapping[str, str], *, resumable: bool = False, loads: Sequence[str] = ()
) -> Iterator[Draft]:
    """Make an artifact: yields its draft, and commits it when the block ends well.

    loads: modules that are loaded before the time is taken, so that a process's first stage is no dearer than others.
    """
    for name in loads:
        import_module(name)
    _forget_peaks()
    began = monotonic()
    with drafts.draft(outcome.out, recipe, places, resumable=resumable, again=outcome.reason == FORCED) as draft:
        yield draft
        draft.made = _made(monotonic() - began)


def task_code(name: str) -> dict[str, str]:
    """The digest of a task's code, as a recipe holds it."""
    return {f"task {name}": digest_of_plugin(cast(ModuleType, tasks.load(name)), TASK_CODE)}


def model_code(*modules: str) -> dict[str, str]:
    """The digests of the code that loads a model and runs it, by modules of `models`, as a recipe holds them."""
    return {f"models {name}": digest_of_module(f"{MODELS}.{name}", (MODELS,)) for name in modules}


def template_digest(template: str | None) -> dict[str, str]:
    """The digest of a chat template that was given, as an input of a recipe."""
    return {} if template is None else {"chat template": hashlib.sha256(template.encode()).hexdigest()}


def done(outcome: Outcome, draft: Draft) -> Outcome:
    """The outcome after the work."""
    return replace(outcome, state="made", seconds=draft.made["seconds"])


def _forget_peaks() -> None:
    """Have the peaks of memory be those of the stage that begins, of several in one process."""
    memory.forget_peak()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.reset_peak_memory_stats()


def _made(seconds: float) -> dict[str, Any]:
    """How the artifact was made, for its manifest; not part of the recipe."""
    made: dict[str, Any] = {
        "argv": sys.argv,
        "python": platform.python_version(),
        "versions": {name: sys.modules[name].__version__ for name in LIBRARIES if name in sys.modules},
        "seconds": round(seconds, 2),
        "peak_memory_mb": memory.peak_kib() // 1024,
    }
    if processes.count() > 1:
        made["processes"] = processes.count()  # the figures are those of the first
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        made["device"] = torch.cuda.get_device_name()
        made["peak_device_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
    return made
