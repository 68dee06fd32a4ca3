"""Find a model by its name: what it is, which checkpoints it has, which labels it knows.

Nothing here imports torch or transformers: a command that only checks whether its artifact is up to date stays fast.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prune_cli.artifacts import manifest
from prune_cli.artifacts.manifest import Artifact, open_artifact
from prune_cli.errors import PruneError
from prune_cli.models.libraries import first_line, one_line

CONFIG = "config.json"
_NAMES = "a model folder, a finetune artifact, or a hub name"
# a name on the hub: an owner and a name, or an old name alone; anything else can be a path alone
_HUB_NAME = re.compile(r"(?:[A-Za-z0-9][\w.-]*/)?[A-Za-z0-9](?:[\w.-]*\w)?")


@dataclass(frozen=True)
class Checkpoint:
    """Weights kept after an epoch of training, in the artifact `kept_in`; None: the model's own weights.

    `learning_rate` is the mean over the steps of that epoch (1.0 for a model that was not trained here).
    """

    name: str
    kept_in: Artifact | None
    learning_rate: float

    def file(self, name: str) -> Path | None:
        """Path of a file that was kept with the weights, its hash checked; None where there is none."""
        kept = f"checkpoints/{self.name}/{name}"
        return self.kept_in.file(kept) if self.kept_in and kept in self.kept_in.files else None


@dataclass(frozen=True)
class NamedModel:
    """A model that was named: a hub name, a model folder, or a finetune artifact (`trained`).

    trust_remote_code: whether code that comes with the model may run. files: of a model folder, the state of each file
    when it was hashed.
    """

    name: str
    digest: str
    trained: Artifact | None
    checkpoints: tuple[Checkpoint, ...]
    trust_remote_code: bool = False
    files: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    @property
    def labels(self) -> list[Any] | None:
        """The label list it was trained on here; None for any other model."""
        return list(self.trained.about["labels"]) if self.trained else None


def find(name: str, checkpoints: str = "last", *, trust_remote_code: bool = False) -> NamedModel:
    """Find a model. Of a finetune artifact, `checkpoints` are: all, last, or numbers such as `1,3`.

    trust_remote_code: whether code that comes with it may run when it is loaded; nothing of it runs here. Raises
    PruneError where there is no such model, or no such checkpoint of it.
    """
    path = Path(name)
    if manifest.is_artifact(path):
        trained = open_artifact(path, "finetune")
        return NamedModel(name, trained.digest, trained, _chosen(trained, checkpoints), trust_remote_code)
    only = (Checkpoint("model", None, 1.0),)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise PruneError(f"not a model: {name}; a folder with config.json, or a finetune artifact, is needed")
        files = manifest.states(path)
        return NamedModel(name, manifest.digest_folder(path), None, only, trust_remote_code, files)
    if path.exists():
        raise PruneError(f"not a model: {name} is a file; allowed: {_NAMES}")
    if not _HUB_NAME.fullmatch(name):
        raise PruneError(f"no such folder: {name}; allowed: {_NAMES}")
    if "/" in name and path.parent.is_dir() and not _in_cache(name):  # likelier mistyped than meant for the hub
        raise PruneError(
            f"no such folder: {name}; allowed: {_NAMES}",
            hint=f"for a model of the hub, run prune where there is no folder {path.parent}",
        )
    commit = _hub_config(name).parent.name  # …/snapshots/<commit>/config.json
    return NamedModel(name, f"hub:{name}@{commit}", None, only, trust_remote_code)


def _chosen(trained: Artifact, which: str) -> tuple[Checkpoint, ...]:
    kept = [Checkpoint(entry["name"], trained, entry["learning_rate"]) for entry in trained.about["checkpoints"]]
    last = Checkpoint("last", None, trained.about["learning_rate"])
    if which == "last" or (which == "all" and not kept):
        return (last,)
    if which == "all":
        return tuple(kept)
    by_name = {checkpoint.name: checkpoint for checkpoint in kept}
    wanted = [number.strip() for number in which.split(",")]
    missing = [number for number in wanted if number not in by_name]
    if missing:
        raise PruneError(
            f"{trained.path}: no checkpoint {', '.join(missing)}; it keeps {', '.join(by_name) or 'none'}",
            hint="prune finetune --keep-checkpoints epoch keeps one after each epoch",
        )
    return tuple(by_name[number] for number in wanted)


def _in_cache(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, CONFIG), str)


def _hub_config(name: str) -> Path:
    """The config.json of a hub model, in the cache; downloaded where it is not there yet."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        if not _in_cache(name):
            get_hf_file_metadata(hf_hub_url(name, CONFIG))  # asks once: without a network a download retries for long
        return Path(hf_hub_download(name, CONFIG))
    except Exception as failure:  # the HTTP library raises errors of its own, of no type that the hub's share
        reason = first_line(failure)
        if isinstance(failure, RepositoryNotFoundError):
            reason = "the hub has no model of this name, or does not let you read it"
        raise PruneError(
            f"cannot load model {name}: there is no such folder, and from the hub: {reason}",
            hint="a folder that holds the model works without a network",
        ) from failure


def file_names(named: NamedModel) -> set[str]:
    """The names of the model's files: in its own folder, in the artifact, or in the hub model's folder in the cache."""
    if named.trained:
        return set(named.trained.files)
    folder = Path(named.name) if Path(named.name).is_dir() else _hub_config(named.name).parent
    return {path.name for path in folder.iterdir()}


@contextmanager
def place(named: NamedModel) -> Iterator[str]:
    """Where libraries load the model from while the block runs, a path or a hub name.

    Raises PruneError where its files are not, or after the block no longer, those that its digest names. A model of the
    hub is known by its commit, which the cache keeps.
    """
    if named.trained:
        with named.trained.alone() as folder:
            yield str(folder)
        return
    yield named.name
    if named.files and manifest.states(Path(named.name)) != named.files:
        raise PruneError(f"{named.name}: its files changed while the command ran; allowed: files that stay as they are")


def max_length(named: NamedModel) -> int:
    """The most tokens of an example that the model was trained on here; 512 for any other model."""
    return int(named.trained.about["max_length"]) if named.trained else 512


def positions(named: NamedModel) -> int | None:
    """How many tokens a model has positions for, by its config; None where that does not say."""
    if named.trained:
        return None
    with one_line(f"cannot load model {named.name}"):
        config = _config(named.name)
        return next((int(config[key]) for key in ("max_position_embeddings", "n_positions") if key in config), None)


def loss_on(named: NamedModel, wanted: str) -> Any:
    """The turns that `wanted` means; auto: those that the model was trained on here, all for any other model."""
    own = named.trained.options.get("loss_on") if named.trained else None
    return (own or "all") if wanted == "auto" else wanted


def task_of(named: NamedModel, wanted: str) -> str:
    """The task that `wanted` means; auto: the one that the model was trained for here, else classification."""
    own = named.trained.options["task"] if named.trained else None
    if wanted == "auto":
        return own or "classification"
    if own and wanted != own:
        raise PruneError(f"task: {wanted}; {named.name} was trained for {own}; leave it out")
    return wanted


def has_head(named: NamedModel, auto_model: str) -> bool:
    """Whether its config says that the model can be judged as it is, by the class of transformers that loads it.

    A language model always can; another only with a head of its own for the task.
    """
    if named.trained or auto_model == "AutoModelForCausalLM":
        return True
    with one_line(f"cannot load model {named.name}"):
        architectures = _config(named.name).get("architectures") or ()
    return any(str(name).endswith(auto_model.removeprefix("AutoModel")) for name in architectures)


def head_labels(named: NamedModel, seen: list[Any]) -> list[Any]:
    """Label list of a model's head: the one it was trained on here, or the names that its config.json has.

    Integer labels are these names where all are integers, else 0 to c - 1.
    seen: the labels of the data. They are returned where the model has no classification head of its own. Empty: a task
    without labels, whose list is empty.
    """
    if not seen or named.labels:
        return named.labels or []
    with one_line(f"cannot load model {named.name}"):
        config = _config(named.name)
        if not any("ForSequenceClassification" in name for name in config.get("architectures") or ()):
            return seen
        names = _class_names(config)
    if all(isinstance(label, str) for label in seen):
        return names
    return [int(name) for name in names] if all(map(str.isdecimal, names)) else list(range(len(names)))


def _config(name: str) -> dict[str, Any]:
    folder = Path(name)
    path = folder / CONFIG if folder.is_dir() else _hub_config(name)
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as failure:
        raise PruneError(f"cannot load model {name}: {path} is not JSON: {first_line(failure)}") from failure
    if not isinstance(config, dict):
        raise PruneError(f"cannot load model {name}: {path} is not a JSON object")
    return config


def _class_names(config: dict[str, Any]) -> list[str]:
    """Names of a head's classes, in order. As transformers does, a config that names none has LABEL_0, LABEL_1, …

    The default number of classes is 2; transformers does not write it.
    """
    named = config.get("id2label")
    if not isinstance(named, dict):
        return [f"LABEL_{i}" for i in range(int(config.get("num_labels") or 2))]
    by_number = {int(number): str(label) for number, label in named.items()}
    return [by_number[i] for i in range(len(by_number))]
