"""Artifacts on disk: whatever a kill, another process or the user left there, nothing of the user's is lost."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prune_cli.artifacts import drafts, files, removal
from prune_cli.artifacts import manifest as artifact
from prune_cli.artifacts.drafts import NEW, stale_reason
from prune_cli.artifacts.manifest import Recipe, open_artifact
from prune_cli.data.open import source_of
from prune_cli.errors import PruneError
from prune_cli.stages import common

ONE = Recipe("select", {"keep": 1}, {})
TWO = Recipe("select", {"keep": 2}, {})


def make(out: Path, recipe: Recipe = ONE, text: str = "0.5") -> None:
    with drafts.draft(out, recipe, {}, resumable=False) as draft:
        (draft.path / "metrics.json").write_text(text)


def as_killed_before_commit(out: Path, recipe: Recipe, text: str, patch: pytest.MonkeyPatch) -> Path:
    """Leave a whole draft, its manifest written, that has not been put in place."""

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with patch.context() as context:
        context.setattr(drafts, "_commit", killed)
        with pytest.raises(KeyboardInterrupt):
            make(out, recipe, text)
    return out.with_name(out.name + ".part")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_folder_of_the_user_is_no_draft(tmp_path: Path) -> None:
    """A folder that happens to be called `<out>.part` is refused as it stands, file or artifact alike."""
    part = tmp_path / "kept.part"
    part.mkdir()
    (part / "thesis.txt").write_text("years of work")
    with pytest.raises(PruneError, match=r"kept\.part: exists and was not made by prune"):
        make(tmp_path / "kept")
    assert (part / "thesis.txt").read_text() == "years of work"
    shutil.rmtree(part)
    make(tmp_path / "other")
    (tmp_path / "other").rename(part)
    assert stale_reason(tmp_path / "kept", ONE) == NEW
    with pytest.raises(PruneError, match="was not made by prune"):
        make(tmp_path / "kept")
    assert names(part) == ["manifest.json", "metrics.json"]
    shutil.rmtree(part)
    part.write_text("a file")
    with pytest.raises(PruneError, match="was not made by prune"):
        make(tmp_path / "kept")
    assert part.read_text() == "a file"


def test_names_of_drafts_are_not_for_artifacts(tmp_path: Path) -> None:
    """`-o x.part` is refused: it would be taken for the draft of x."""
    with pytest.raises(PruneError, match=r"x\.part: \.part is for artifacts in the making"):
        stale_reason(tmp_path / "x.part", ONE)
    assert names(tmp_path) == []


def test_a_draft_of_another_recipe_is_discarded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What a killed run of another recipe left does not get into the artifact, nor does a draft killed at birth."""
    part = tmp_path / "kept.part"
    part.mkdir()
    make(tmp_path / "kept")  # an empty folder is all that a kill right after its making leaves
    shutil.rmtree(tmp_path / "kept")
    part.mkdir()
    (part / ".recipe.json").write_text(artifact.canonical(TWO.content))
    (part / "score.jsonl").write_text("half")
    capsys.readouterr()
    make(tmp_path / "kept")
    assert "kept.part: begun otherwise (" in capsys.readouterr().err
    shutil.rmtree(tmp_path / "kept")
    part.mkdir()
    (part / ".recipe.json").write_bytes(b"")  # as it is while a draft is discarded
    (part / "score.jsonl").write_text("half")
    make(tmp_path / "kept")
    assert "begun" not in capsys.readouterr().err
    assert names(tmp_path / "kept") == ["manifest.json", "metrics.json"]
    assert names(tmp_path) == ["kept"]


@pytest.mark.parametrize("moved", [False, True])
def test_a_kill_within_the_commit_is_made_good(moved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed before or after the new folder took the name, the next look ends the move and clears up."""
    out = tmp_path / "kept"
    make(out)
    part = as_killed_before_commit(out, TWO, "0.7", monkeypatch)
    assert stale_reason(out, ONE) is None  # the old one stays as long as it is there
    out.rename(tmp_path / ".kept.replaced")
    if moved:
        part.rename(out)
    assert stale_reason(out, TWO) is None
    assert open_artifact(out).file("metrics.json").read_text() == "0.7"
    assert (names(tmp_path), names(out)) == (["kept"], ["manifest.json", "metrics.json"])


def test_a_whole_draft_taken_up_again_is_no_longer_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A manifest left in a draft goes before its files change: a second kill cannot pass them off as finished."""
    out = tmp_path / "kept"
    make(out)
    part = as_killed_before_commit(out, TWO, "0.7", monkeypatch)
    with pytest.raises(KeyboardInterrupt), drafts.draft(out, TWO, {}, resumable=True) as draft:
        (draft.path / "metrics.json").write_text("ha")
        raise KeyboardInterrupt
    shutil.rmtree(out)
    assert part.exists()
    assert stale_reason(out, TWO) == NEW


@pytest.mark.parametrize("swaps", [True, False])
def test_a_predecessor_is_removed(swaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill before or while the replaced artifact is removed does not stand in the way of the next look."""
    out = tmp_path / "kept"
    old = tmp_path / ("kept.part" if swaps else ".kept.replaced")
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda *_: False)  # as on a system that cannot
    make(out)
    for recipe, text in ((TWO, "0.7"), (ONE, "0.5")):
        with monkeypatch.context() as context:
            context.setattr(drafts, "remove_artifact", killed)
            with pytest.raises(KeyboardInterrupt):
                make(out, recipe, text)
        assert names(tmp_path) == sorted(["kept", old.name])
        (old / "metrics.json").unlink()  # it had begun
        assert stale_reason(out, recipe) is None
        assert open_artifact(out).file("metrics.json").read_text() == text
        assert (names(tmp_path), names(out)) == (["kept"], ["manifest.json", "metrics.json"])


def killed(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("swaps", [True, False])
def test_what_is_not_ours_stays(swaps: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only files that a manifest lists are removed: not a user's folder of that name, nor a file within an artifact."""
    if not swaps:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    out, theirs = tmp_path / "kept", tmp_path / ".kept.replaced"
    make(out)
    theirs.mkdir()
    (theirs / "thesis.txt").write_text("years of work")
    (out / "deep").mkdir()
    removal.check_removable(out)  # an empty folder holds nothing
    (out / "deep" / "notes.txt").write_text("mine")
    with pytest.raises(PruneError, match=r"kept/deep/notes\.txt: not made by prune"):
        removal.check_removable(out)
    removal.remove_artifact(out)
    assert names(out) == ["deep"] and (out / "deep" / "notes.txt").read_text() == "mine"
    (out / "deep" / "notes.txt").unlink()
    removal.remove_artifact(out)  # which is none any more
    assert out.exists()
    (out / "deep").rmdir()
    for recipe in (ONE, TWO):
        make(out, recipe)
    assert (names(tmp_path), names(theirs)) == ([".kept.replaced", "kept"], ["thesis.txt"])


def test_a_manifest_of_others_is_no_artifact(tmp_path: Path) -> None:
    """A folder with some other program's manifest.json is not ours: neither read nor replaced."""
    out = tmp_path / "extension"
    out.mkdir()
    (out / "manifest.json").write_text('{"manifest_version": 3, "name": "mine", "key": "x", "recipe": {}, "files": {}}')
    assert not artifact.is_artifact(out)
    with pytest.raises(PruneError, match="exists and was not made by prune"):
        stale_reason(out, ONE)


def test_nothing_in_a_manifest_can_be_changed(tmp_path: Path) -> None:
    """The seal covers recipe, facts, files and how it was made: any other value in any place is damage."""

    def changed(value: Any) -> list[Any]:
        """Each value made from this one by one change."""
        if isinstance(value, dict):
            changes = [{**value, key: other} for key in value for other in changed(value[key])]
            return [*changes, *({k: v for k, v in value.items() if k != key} for key in value), {**value, "new": 1}]
        return ["x"] if value != "x" else ["y"]

    out = tmp_path / "kept"
    with drafts.draft(out, ONE, {"rows": "rows.jsonl"}, resumable=False) as draft:
        (draft.path / "metrics.json").write_text("0.5")
        draft.about = {"labels": ["a", "b"], "max_length": 8}
    manifest = json.loads((out / "manifest.json").read_text())
    variants = changed(manifest)
    assert len(variants) > 30
    for variant in variants:
        (out / "manifest.json").write_text(json.dumps(variant))
        with pytest.raises(PruneError):
            open_artifact(out)
    (out / "manifest.json").write_text(json.dumps(manifest))
    assert open_artifact(out).about["max_length"] == 8


def test_an_older_format_is_not_misread(tmp_path: Path) -> None:
    """An artifact in the former format, without a seal, is refused by name, and stale to the command that makes it."""
    out = tmp_path / "kept"
    make(out)
    manifest = json.loads((out / "manifest.json").read_text())
    older = {key: value for key, value in manifest.items() if key not in ("prune", "seal")} | {"format": 1}
    (out / "manifest.json").write_text(json.dumps(older))
    with pytest.raises(PruneError, match="made by an older version") as caught:
        open_artifact(out)
    assert caught.value.hint == "make it again with --force"
    assert stale_reason(out, ONE) == "made by an older version"
    make(out)
    assert stale_reason(out, ONE) is None


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    """A manifest of a format that this version does not know is not read."""
    out = tmp_path / "kept"
    make(out)
    manifest = json.loads((out / "manifest.json").read_text())
    (out / "manifest.json").write_text(json.dumps(artifact.sealed({**manifest, "format": artifact.FORMAT + 1})))
    with pytest.raises(PruneError, match=rf"manifest format {artifact.FORMAT + 1}; allowed: {artifact.FORMAT},"):
        open_artifact(out)


def test_another_version_or_other_code_is_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version and the digests of code are part of the key, and told as the reason."""
    out = tmp_path / "kept"
    recipe = Recipe("score", {}, {}, {"score less": "a"})
    make(out, recipe)
    assert stale_reason(out, recipe) is None
    assert stale_reason(out, Recipe("score", {}, {}, {"score less": "b"})) == "code of score less changed"
    assert stale_reason(out, Recipe("score", {}, {}, {})) == "code of score less is no longer used"
    both = Recipe("score", {}, {}, {"score less": "a", "task x": "b"})
    assert stale_reason(out, both) == "code of task x is new"
    monkeypatch.setattr(artifact, "__version__", "99")
    assert (stale_reason(out, recipe) or "").startswith("code.prune ")


def test_a_link_is_followed(tmp_path: Path) -> None:
    """Where `out` is a link to a folder, the artifact is made and replaced there, and its inputs are found."""
    (tmp_path / "big disk").mkdir()
    place, link, rows = tmp_path / "big disk" / "kept", tmp_path / "link", tmp_path / "rows.jsonl"
    rows.write_text("")
    place.mkdir()
    link.symlink_to(place)
    for recipe in (ONE, TWO):
        with drafts.draft(link, recipe, {"rows": str(rows)}, resumable=False) as draft:
            (draft.path / "metrics.json").write_text("0.5")
        assert stale_reason(link, recipe) is None
        assert link.readlink() == place
        assert (names(tmp_path), names(place.parent)) == (["big disk", "link", "rows.jsonl"], ["kept"])
    assert open_artifact(link).origin("rows") == open_artifact(place).origin("rows") == rows
    shutil.rmtree(place)
    with pytest.raises(PruneError, match="leads nowhere"):
        stale_reason(link, ONE)


@pytest.mark.parametrize("progress", [".progress.0.json", ".resume/checkpoint-3"])
def test_an_error_costs_no_progress(progress: str, tmp_path: Path) -> None:
    """As where a device fails on the way: the next draft of the same goes on; without progress nothing stays."""
    out, part = tmp_path / "kept", tmp_path / "kept.part"
    for name in (".rows.jsonl.tmp", ".resume/"):
        with pytest.raises(PruneError), drafts.draft(out, ONE, {}, resumable=True) as draft:
            (draft.path / name).mkdir() if name.endswith("/") else (draft.path / name).write_text("half")
            raise PruneError("does not run on these rows (AcceleratorError: unspecified launch failure)")
        assert names(tmp_path) == []
    for resumable in (True, False):
        with pytest.raises(PruneError), drafts.draft(out, ONE, {}, resumable=resumable) as draft:
            (draft.path / progress).parent.mkdir(exist_ok=True)
            (draft.path / progress).write_text("hours of work")
            raise PruneError("one row of 500 tokens does not fit the device's memory")
        assert part.exists() == resumable
    with pytest.raises(PruneError), drafts.draft(out, ONE, {}, resumable=True) as draft:
        (draft.path / progress).parent.mkdir(exist_ok=True)
        (draft.path / progress).write_text("hours of work")
        raise PruneError("again")
    with drafts.draft(out, ONE, {}, resumable=True) as draft:
        assert (draft.path / progress).read_text() == "hours of work"


def test_scratch_files_stay_out(tmp_path: Path) -> None:
    """Files that a killed run had half written are no part of the artifact."""

    def killed(path: Path) -> None:
        path.write_text("half")
        raise KeyboardInterrupt

    out = tmp_path / "kept"
    with pytest.raises(KeyboardInterrupt), drafts.draft(out, ONE, {}, resumable=True) as draft:
        draft.cached("rows.jsonl", killed)
    part = tmp_path / "kept.part"
    (part / ".rows.jsonl.tmp").write_text("half")  # as after a kill that nothing could tidy up
    (part / ".manifest.json.tmp").write_text("{")
    with drafts.draft(out, ONE, {}, resumable=True) as draft:
        draft.cached("scores.jsonl", lambda path: path.write_text("[1]") and None)
    assert names(out) == ["manifest.json", "scores.jsonl"]
    assert list(open_artifact(out).files) == ["scores.jsonl"]


def test_one_digit_changed_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An edit that keeps the size is damage, so that --replace repairs it; older files are not read."""
    out = tmp_path / "kept"
    make(out)
    edited = out / "metrics.json"
    os.utime(out / "manifest.json")  # as a look at an up-to-date artifact does
    edited.write_text("0.6")
    assert stale_reason(out, ONE) == "metrics.json is damaged"
    make(out)
    assert stale_reason(out, ONE) is None
    shutil.copytree(out, tmp_path / "copy", copy_function=shutil.copyfile)  # times in any order
    os.utime(tmp_path / "copy" / "manifest.json", (1, 1))
    assert stale_reason(tmp_path / "copy", ONE) is None
    os.utime(out / "metrics.json", (1, 1))
    monkeypatch.setattr(artifact, "digest_file", lambda _: pytest.fail("read"))
    assert stale_reason(out, ONE) is None


def test_another_process_is_let_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft that someone holds is neither recovered nor worked on; nor is one that moved before the lock was had."""
    out = tmp_path / "kept"
    part = as_killed_before_commit(out, ONE, "0.5", monkeypatch)
    handle = os.open(part, os.O_RDONLY)  # a lock is the open file's: this one is as good as another process's
    fcntl.flock(handle, fcntl.LOCK_EX)
    assert stale_reason(out, ONE) == NEW
    with pytest.raises(PruneError, match="another process"):
        make(out)
    assert names(tmp_path) == ["kept.part"]
    os.close(handle)
    shutil.rmtree(part)

    def committed_meanwhile(*_: Any) -> None:
        (part / "manifest.json").write_text("{}")
        part.rename(out)

    monkeypatch.setattr(fcntl, "flock", committed_meanwhile)
    with pytest.raises(PruneError, match="or has just made it"):
        make(out)
    assert names(out) == ["manifest.json"]


@pytest.mark.parametrize("stuck", ["metrics.json", "checkpoints"])
def test_what_cannot_be_removed_stays_ours(stuck: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file or a folder of a replaced artifact cannot be removed, the next look knows it and tries again."""
    out = tmp_path / "kept"
    for recipe in (ONE, TWO):
        with monkeypatch.context() as context:
            if recipe is TWO:
                for name in ("unlink", "rmdir"):
                    context.setattr(Path, name, failing(getattr(Path, name), stuck))
            with drafts.draft(out, recipe, {}, resumable=False) as draft:
                (draft.path / "metrics.json").write_text("0.5")
                (draft.path / "checkpoints").mkdir()
                (draft.path / "checkpoints" / "1").write_text("weights")
    assert (tmp_path / "kept.part" / "manifest.json").exists()
    assert stale_reason(out, TWO) is None
    assert (names(tmp_path), names(out)) == (["kept"], ["checkpoints", "manifest.json", "metrics.json"])


def failing(remove: Callable[..., None], name: str) -> Callable[..., None]:
    """The same, but that the file or folder of that name cannot be removed."""

    def removed(path: Path, *arguments: Any, **keywords: Any) -> None:
        if path.name == name:
            raise OSError(errno.EIO, "no")
        remove(path, *arguments, **keywords)

    return removed


def test_the_files_of_a_folder_are_hashed_once_while_they_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change that leaves the size as it was is seen all the same; hidden files do not count."""
    read: list[str] = []

    def told(path: Path, digest: Callable[[Path], str] = artifact.digest_file) -> str:
        read.append(path.name)
        return digest(path)

    monkeypatch.setattr(artifact, "digest_file", told)
    for name in ("config.json", "weights", ".hidden"):
        (tmp_path / name).write_text("aaaa")
    first = artifact.digest_folder(tmp_path)
    assert artifact.digest_folder(tmp_path) == first and read == ["config.json", "weights"]
    before = (tmp_path / "weights").stat()
    (tmp_path / "weights").write_text("bbbb")
    os.utime(tmp_path / "weights", ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert artifact.digest_folder(tmp_path) != first and read == ["config.json", "weights", "weights"]


def test_what_a_stage_loads_is_not_in_its_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Libraries are loaded before the time is taken, so that the first stage of a process is no dearer than others."""
    loaded, clock = list[str](), [0.0]

    def slow(name: str) -> None:
        loaded.append(name)
        clock[0] += 100

    monkeypatch.setattr(common, "import_module", slow)
    monkeypatch.setattr(common, "monotonic", lambda: clock[0])
    outcome = common.Outcome(tmp_path / "out", "select", "make")
    with common.making(outcome, ONE, {}, loads=["heavy"]):
        clock[0] += 2
    assert open_artifact(tmp_path / "out").manifest["made"]["seconds"] == 2 and loaded == ["heavy"]


def test_rows_of_the_hub_keep_their_name(tmp_path: Path) -> None:
    """An input that is no file beside the artifact is called as it was given."""
    with drafts.draft(tmp_path / "out", ONE, {"rows": "hf:owner/name"}, resumable=False) as draft:
        (draft.path / "file").write_text("")
    assert source_of(str(tmp_path / "out")) == "hf:owner/name"
    (tmp_path / "out/manifest.json").write_text('{"prune": 1}')
    assert source_of(str(tmp_path / "out")) == "out"
