"""Artifacts: folders of results with a manifest that says what they are, from what, and that they are whole.

An artifact is made in `<out>.part` and renamed into place (drafts.py), its `manifest.json` written last: a folder with
a manifest is complete. The manifest's `recipe` (stage, options, input digests, code) is hashed into its `key`: the same
key means the same work, so it is not done again. `about` holds facts that later stages rely on. `files` holds the
sha256 of each file, checked on reading. `made` (arguments, versions, seconds) says how it was made. `seal` is a hash
of all of it: an edited manifest is not believed.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

from prune_cli.errors import PruneError
from prune_cli.version import __version__

T = TypeVar("T")

MANIFEST = "manifest.json"
PART = ".part"  # ends the name of a draft
RECIPE = ".recipe.json"  # in a draft: what is being made, and that the folder is ours
FORMAT = 2
OLDER = "made by an older version"


def canonical(value: Any) -> str:
    """Write JSON in the one form that is hashed: sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest_value(value: Any) -> str:
    """sha256 (hex) of a JSON value."""
    return hashlib.sha256(canonical(value).encode()).hexdigest()


def digest_file(path: Path) -> str:
    """sha256 (hex) of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


_digests: dict[tuple[str, int, int, int], str] = {}


def digest_once(path: Path, status: os.stat_result) -> str:
    """`digest_file`, once in a process as long as the file stays the same: a pipeline asks for large ones often."""
    key = (str(path), status.st_ino, status.st_size, status.st_mtime_ns)
    if key not in _digests:
        _digests[key] = digest_file(path)
    return _digests[key]


def digest_folder(folder: Path) -> str:
    """sha256 (hex) over the names and bytes of the files directly in a folder, hidden ones left out."""
    paths = [folder / name for name in states(folder)]
    return digest_value({path.name: digest_once(path, path.stat()) for path in paths})


def states(folder: Path) -> dict[str, tuple[int, ...]]:
    """The files that `digest_folder` reads, by name: inode, size, time of change. A change shows in these."""
    files = sorted(p for p in folder.iterdir() if p.is_file() and not p.name.startswith("."))
    return {p.name: (s.st_ino, s.st_size, s.st_mtime_ns) for p in files for s in [p.stat()]}


@dataclass(frozen=True)
class Recipe:
    """What decides an artifact's content: two equal recipes give the same artifact.

    inputs: role -> digest of what is read. code: name -> digest of the modules that make the content (code.py).
    """

    stage: str
    options: dict[str, Any]
    inputs: dict[str, str]
    code: dict[str, str] = field(default_factory=dict)

    @property
    def content(self) -> dict[str, Any]:
        """The recipe as it stands in a manifest."""
        code = {"prune": __version__, **self.code}
        return {"stage": self.stage, "options": self.options, "inputs": self.inputs, "code": code}

    @property
    def key(self) -> str:
        """sha256 (hex) of the recipe."""
        return digest_value(self.content)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact on disk."""

    path: Path
    manifest: dict[str, Any]

    @property
    def stage(self) -> str:
        """The subcommand that made it."""
        return str(self.manifest["recipe"]["stage"])

    @property
    def options(self) -> dict[str, Any]:
        """All options it was made with, defaults included."""
        return dict(self.manifest["recipe"]["options"])

    @property
    def inputs(self) -> dict[str, str]:
        """Role -> digest of what it was made from."""
        return dict(self.manifest["recipe"]["inputs"])

    @property
    def about(self) -> dict[str, Any]:
        """Facts that travel with it: rows, labels, checkpoints and their learning rates…"""
        return dict(self.manifest["about"])

    @property
    def files(self) -> dict[str, str]:
        """Relative path -> sha256."""
        return {name: entry["sha256"] for name, entry in self.manifest["files"].items()}

    @property
    def removed(self) -> list[str]:
        """The files that were removed after their use."""
        return list(self.manifest.get("removed", ()))

    @property
    def digest(self) -> str:
        """sha256 (hex) over all its files: what it holds, however it was made."""
        return digest_value(self.files)

    def file(self, name: str) -> Path:
        """Path of one of its files, its hash checked once per process."""
        if name not in self.files:
            raise PruneError(f"{self.path}: no {name} in it; it holds {', '.join(sorted(self.files))}")
        path = self.path / name
        if name in self.removed:
            raise PruneError(
                f"{path}: was removed after its use", hint=f"make it again: prune show {self.path} says how"
            )
        gone = not path.is_file()
        if gone or digest_once(path, path.stat()) != self.files[name]:
            self.check_same()
            problem = "is missing" if gone else "differs from what was written (truncated or edited)"
            raise PruneError(
                f"{path}: {problem}; allowed: the file as the manifest has it",
                hint=f"make it again: the command is in {self.path / MANIFEST}, with --force",
            )
        return path

    def check_same(self) -> None:
        """Raise PruneError where another artifact has taken this one's place since it was opened."""
        try:
            same = json.loads((self.path / MANIFEST).read_text("utf-8")) == self.manifest
        except (OSError, ValueError, RecursionError):
            same = True  # gone or damaged: what is told of the files then is right
        if not same:
            raise PruneError(f"{self.path}: was made again while it was read; run the command once more")

    def read(self, name: str, read: Callable[[Path], T]) -> T:
        """What `read` makes of a file. Its hash is checked before, and after it that the file is still the same one."""
        value = read(self.file(name))
        self.file(name)
        return value

    @contextmanager
    def alone(self, within: str = ".") -> Iterator[Path]:
        """A folder with its own files directly in the folder `within` and no others: libraries read all that is there.

        Each is checked before and after the block, as in `read`.
        """
        names = [name for name in self.files if PurePosixPath(name).parent == PurePosixPath(within)]
        with TemporaryDirectory() as folder:
            for name in names:
                Path(folder, PurePosixPath(name).name).symlink_to(self.file(name).resolve())
            yield Path(folder)
        for name in names:
            self.file(name)

    def origin(self, role: str) -> Path:
        """Where the input of that role was when this was made (kept relative, so that a tree can move)."""
        return Path(os.path.normpath(followed(self.path) / self.manifest["made"]["inputs"][role]))


def followed(path: Path) -> Path:
    """What a link leads to: neighbours of an artifact, and paths relative to it, are seen from there."""
    return path.resolve() if path.is_symlink() else path


def is_artifact(path: Path) -> bool:
    """Whether the folder holds a finished artifact: a manifest of ours, whole or damaged."""
    try:
        with (path / MANIFEST).open("rb") as stream:
            return b'"prune"' in stream.read(100) or is_older(path)
    except OSError:
        return False


def is_older(path: Path) -> bool:
    """Whether the folder holds an artifact in a format of an older version."""
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        return manifest["format"] < FORMAT and manifest["key"] == digest_value(manifest["recipe"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return False


def sealed(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with its seal, which covers all of it."""
    content = {name: value for name, value in manifest.items() if name != "seal"}
    return {**content, "seal": digest_value(content)}


def begun(path: Path) -> str | None:
    """What to do where the artifact is not there, but its draft is; None without one."""
    if not path.with_name(path.name + PART).is_dir():
        return None
    return f"{path.name}{PART} beside it is under way or was interrupted; the same command again goes on with it"


def open_artifact(path: Path, *stages: str) -> Artifact:
    """Open a finished artifact, of one of the given stages where any are named."""
    allowed = f"prune {' or '.join(stages)}" if stages else "one of prune's commands"
    if not path.exists():
        raise PruneError(f"no such artifact: {path}; allowed: a folder made by {allowed}", hint=begun(path))
    if not is_artifact(path):
        raise PruneError(f"not an artifact: {path}; allowed: a folder made by {allowed}")
    if is_older(path):
        raise PruneError(f"{path}: {OLDER}", hint="make it again with --force")
    try:
        manifest = json.loads((path / MANIFEST).read_text("utf-8"))
        intact = manifest == sealed(manifest) and manifest["key"] == digest_value(manifest["recipe"])
        newer = intact and manifest["format"] != FORMAT
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        intact = newer = False
    if not intact:
        raise PruneError(f"{path / MANIFEST}: damaged or edited", hint="make the artifact again with --force")
    if newer:
        raise PruneError(f"{path}: manifest format {manifest['format']}; allowed: {FORMAT}, which this version reads")
    artifact = Artifact(path, manifest)
    if stages and artifact.stage not in stages:
        raise PruneError(f"{path}: made by prune {artifact.stage}; allowed: one made by prune {' or '.join(stages)}")
    return artifact


def difference(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Name what differs between two recipes, such as `options.k 3 -> 5` or `code of score less changed`."""
    changes: list[str] = []
    for name in sorted({*old, *new}):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            changes += difference(before, after, f"{prefix}{name}.")
        elif before != after and prefix == "code." and name != "prune":
            change = "is new" if name not in old else "is no longer used" if name not in new else "changed"
            changes.append(f"code of {name} {change}")
        elif before != after and prefix == "inputs.":
            change = "is new" if name not in old else "is no longer read" if name not in new else "changed"
            changes.append(f"input {name} {change}")
        elif before != after:
            changes.append(f"{prefix}{name} {canonical(before)} -> {canonical(after)}")
    return changes
