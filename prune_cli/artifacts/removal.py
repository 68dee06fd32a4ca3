"""Removing artifacts: the files that a manifest lists, and nothing that is not ours."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from prune_cli.artifacts.files import replace_file
from prune_cli.artifacts.manifest import MANIFEST, RECIPE, is_artifact, open_artifact, sealed
from prune_cli.errors import PruneError


def check_removable(out: Path) -> None:
    """Raise PruneError if an artifact holds a file that its manifest does not list: it must not be lost."""
    listed = _listed(out)
    if listed is None:
        raise PruneError(
            f"{out / MANIFEST}: damaged, so prune does not know which files are its own",
            hint=f"remove the folder {out}",
        )
    for path in sorted(out.rglob("*")):
        name = path.relative_to(out).as_posix()
        if name not in (MANIFEST, RECIPE, *listed) and (path.is_symlink() or not path.is_dir()):
            raise PruneError(f"{path}: not made by prune; move it away, then {out} can be made again")


def remove_artifact(out: Path) -> None:
    """Remove an artifact: the files that its manifest lists, the manifest last; what is not ours stays.

    Where a file or an empty folder of it cannot be removed, the manifest stays too: it can still be told to be ours.
    """
    if not is_artifact(out):
        return
    listed = _listed(out) or ()
    for name in listed:
        with suppress(OSError):
            (out / name).unlink()
    if any((out / name).exists() for name in listed):
        return
    for folder in sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):
            folder.rmdir()
        if folder.exists() and not any(folder.iterdir()):
            return
    with suppress(OSError):
        (out / RECIPE).unlink(missing_ok=True)
        (out / MANIFEST).unlink()
        out.rmdir()


def remove_files(out: Path, ending: str = "") -> None:
    """Remove the files of an artifact whose names end so, and keep its manifest, which still says what they were.

    What was made from them stays up to date.
    """
    manifest = open_artifact(out).manifest
    names = [name for name in manifest["files"] if name.endswith(ending)]
    text = json.dumps(sealed({**manifest, "removed": names}), indent=1, ensure_ascii=False, allow_nan=False)
    replace_file(out / MANIFEST, lambda path: path.write_text(text + "\n", "utf-8"))  # first: a kill leaves no lie
    for name in names:
        (out / name).unlink(missing_ok=True)
    for folder in sorted((path for path in out.rglob("*") if path.is_dir()), reverse=True):
        with suppress(OSError):  # not empty
            folder.rmdir()


def _listed(out: Path) -> list[str] | None:
    """The files that a manifest lists, intact or not, of names within the folder; None if it cannot be read."""
    try:
        names = list(json.loads((out / MANIFEST).read_text("utf-8"))["files"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return [name for name in names if not Path(name).is_absolute() and ".." not in Path(name).parts]
