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

from prune_cli import tasks
from prune_cli.artifacts import manifest
from prune_cli.artifacts.manifest import Artifact, begun, digest_value, open_artifact
from prune_cli.errors import PruneError
from prune_cli.models.libraries import one_line
from prune_cli.options import shown
from prune_cli.runtime.running import first_line

CONFIG = "config.json"
ADAPTERS = "adapter_config.json"  # of a folder that peft wrote, which holds adapters and no model
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_NAMES = "a model folder, a folder of adapters, a finetune artifact, or a hub name"
_HEAD = re.compile(r"\.(score|classifier|classification_head)(\.out_proj)?\.weight$")  # its last layer, in adapters
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
    """A model that was named: a hub name, a model folder, or an artifact of finetune or merge (`trained`).

    base: the model beneath, of adapters that peft wrote without prune.
    trust_remote_code: whether code that comes with the model may run. files: of a model folder, the state of each file
    when it was hashed.
    """

    name: str
    digest: str
    trained: Artifact | None
    checkpoints: tuple[Checkpoint, ...]
    trust_remote_code: bool = False
    files: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    base: NamedModel | None = None

    @property
    def labels(self) -> list[Any] | None:
        """The label list it was trained on here; None for any other model."""
        labels = self.trained.about["labels"] if self.trained else None
        return None if labels is None else list(labels)


NO_MODEL = NamedModel("no model", "", None, (Checkpoint("text", None, 1.0),))  # for kinds that need none


def find(name: str, checkpoints: str = "last", *, trust_remote_code: bool = False) -> NamedModel:
    """Find a model. Of a finetune artifact, `checkpoints` are: all, last, or numbers such as `1,3`.

    trust_remote_code: whether code that comes with it may run when it is loaded; nothing of it runs here. Raises
    PruneError where there is no such model, or no such checkpoint of it.
    """
    path = Path(name)
    if manifest.is_artifact(path):
        trained = open_artifact(path, "finetune", "merge")
        return NamedModel(name, trained.digest, trained, _chosen(trained, checkpoints), trust_remote_code)
    only = (Checkpoint("model", None, 1.0),)
    if (path / ADAPTERS).is_file():
        files = manifest.states(path)
        return _adapters(name, path, manifest.digest_folder(path), trust_remote_code=trust_remote_code, files=files)
    if path.is_dir():
        if not (path / CONFIG).is_file():
            raise PruneError(f"not a model: {name}; a folder with config.json, or a finetune artifact, is needed")
        files = manifest.states(path)
        return NamedModel(name, manifest.digest_folder(path), None, only, trust_remote_code, files)
    if path.exists():
        raise PruneError(f"not a model: {name} is a file; allowed: {_NAMES}")
    if (hint := begun(path)) or not _HUB_NAME.fullmatch(name):
        raise PruneError(f"no such folder: {name}; allowed: {_NAMES}", hint=hint)
    if "/" in name and path.parent.is_dir() and not _in_cache(name):  # likelier mistyped than meant for the hub
        raise PruneError(
            f"no such folder: {name}; allowed: {_NAMES}",
            hint=f"for a model of the hub, run prune where there is no folder {path.parent}",
        )
    found = _hub_file(name)  # …/snapshots/<commit>/config.json
    digest = f"hub:{name}@{found.parent.name}"
    if found.name == ADAPTERS:
        return _adapters(name, found.parent, digest, trust_remote_code=trust_remote_code)
    return NamedModel(name, digest, None, only, trust_remote_code)


def _adapters(name: str, folder: Path, digest: str, **known: Any) -> NamedModel:
    """Adapters without a manifest, in a folder, and the model beneath that their config names."""
    config = _read(name, folder / ADAPTERS)
    beneath = config.get("base_model_name_or_path")
    if not isinstance(beneath, str) or not beneath:
        raise PruneError(
            f"{name}: {ADAPTERS} names no model beneath the adapters; "
            "allowed: a folder or hub name as base_model_name_or_path"
        )
    if config.get("revision") not in (None, "main"):
        raise PruneError(
            f"{name}: its adapters are for the revision {shown(config['revision'])} of {beneath}; allowed: main",
            hint="download that revision, and name its folder as base_model_name_or_path",
        )
    if not (folder / ADAPTER_WEIGHTS).is_file():
        raise PruneError(f"{name}: no {ADAPTER_WEIGHTS} beside {ADAPTERS}; it is needed")
    try:
        base = _base(beneath, known["trust_remote_code"])
    except PruneError as problem:
        raise PruneError(f"{name}: the model beneath its adapters: {problem.message}", hint=problem.hint) from problem
    digest = digest_value({"adapters": digest, "base": base.digest})
    return NamedModel(name, digest, None, (Checkpoint("model", None, 1.0),), base=base, **known)


def _base(name: str, trust_remote_code: bool) -> NamedModel:
    if (Path(name) / ADAPTERS).is_file() and not manifest.is_artifact(Path(name)):
        raise PruneError(f"{name} has adapters of its own; allowed: a whole model", hint=f"prune merge {name} -o DIR")
    return find(name, trust_remote_code=trust_remote_code)


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


def _in_cache(name: str, file: str = CONFIG) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, file), str)


def _hub_file(name: str) -> Path:
    """The config.json of a hub model, or of adapters theirs, in the cache; downloaded where it is not there yet."""
    from huggingface_hub import hf_hub_download, snapshot_download
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        if _in_cache(name, ADAPTERS) or not (_in_cache(name) or _on_hub(name, CONFIG)):
            known = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]  # no pickles
            return Path(snapshot_download(name, allow_patterns=known), ADAPTERS)
        return Path(hf_hub_download(name, CONFIG))
    except Exception as failure:  # the HTTP library raises errors of its own, of no type that the hub's share
        reason = first_line(failure)
        if isinstance(failure, RepositoryNotFoundError):
            reason = "the hub has no model of this name, or does not let you read it"
        raise PruneError(
            f"cannot load model {name}: there is no such folder, and from the hub: {reason}",
            hint="a folder that holds the model works without a network",
        ) from failure


def _on_hub(name: str, file: str) -> bool:
    """Whether a model of the hub has a file. Asks once: without a network a download retries for long."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    try:
        get_hf_file_metadata(hf_hub_url(name, file))
    except LocalEntryNotFoundError:
        raise
    except EntryNotFoundError:
        return False
    return True


def file_names(named: NamedModel) -> set[str]:
    """The names of the model's files: in its own folder, in the artifact, or in the hub model's folder in the cache."""
    if named.trained:
        return set(named.trained.files)
    return {path.name for path in _folder(named.name).iterdir()}


def _folder(name: str) -> Path:
    return Path(name) if Path(name).is_dir() else _hub_file(name).parent


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
    yield str(_folder(named.name)) if named.base else named.name
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
    """The task that `wanted` means; auto: the one that the model was trained for, as far as is known.

    That is one trained here, or adapters that name a type of task; of any other model classification.
    """
    own = named.trained.options["task"] if named.trained else None
    if wanted == "auto":
        return own or _task_of_adapters(named) or "classification"
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
    names = class_names(named)
    if names is None:
        return seen
    if all(isinstance(label, str) for label in seen):
        return names
    return [int(name) for name in names] if all(map(str.isdecimal, names)) else list(range(len(names)))


def class_names(named: NamedModel) -> list[str] | None:
    """Names of the classes of a model's head, in order; None where it has no classification head of its own.

    A head that was saved with adapters has the names of the base's classes where it has as many, else LABEL_0, …
    """
    if named.labels is not None:
        return list(map(str, named.labels)) or None
    with one_line(f"cannot load model {named.name}"):
        if named.base is not None:
            beneath, n = class_names(named.base), _outputs_of_adapters(named)
            return beneath if n in (None, len(beneath or ())) else _class_names({"num_labels": n})
        config = _config(named.name)
        if not any("ForSequenceClassification" in name for name in config.get("architectures") or ()):
            return None
        return _class_names(config)


def has_adapters(named: NamedModel) -> bool:
    """Whether it is adapters, of a finetune artifact or without a manifest, and not a whole model."""
    return named.base is not None or (named.trained is not None and named.trained.options["tune"] == "lora")


def dtype_of(named: NamedModel) -> str:
    """The number format of a model's weights, as its config.json says: float32 where it does not."""
    config = _config(named.name)
    return str(config.get("dtype") or config.get("torch_dtype") or "float32")


def _task_of_adapters(named: NamedModel) -> str | None:
    """The task whose type, as peft calls it, adapters name."""
    if named.base is None:
        return None
    kind = _read(named.name, _folder(named.name) / ADAPTERS).get("task_type")
    return next((task for task in tasks.names() if kind and kind == tasks.load(task).PEFT_TASK), None)


def _outputs_of_adapters(named: NamedModel) -> int | None:
    """How many classes the head has that was saved with adapters; None where there is none."""
    from safetensors import safe_open

    with safe_open(_folder(named.name) / ADAPTER_WEIGHTS, framework="numpy") as weights:
        heads = [name for name in weights.keys() if _HEAD.search(name)]  # noqa: SIM118 (it is no dict)
        return int(weights.get_slice(heads[0]).get_shape()[0]) if heads else None


def _config(name: str) -> dict[str, Any]:
    return _read(name, _folder(name) / CONFIG)


def _read(name: str, path: Path) -> dict[str, Any]:
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
