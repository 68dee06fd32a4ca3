"""Artifacts that were damaged, edited or mixed up: refused, or as good as before, and never read as something else."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from prune_cli.artifacts.drafts import stale_reason
from prune_cli.artifacts.manifest import MANIFEST, Recipe, open_artifact
from prune_cli.errors import PruneError
from tests.conftest import Prune, Ran
from tests.test_resume import digests

pytestmark = pytest.mark.slow
NAMES = ("warmup", "train", "validation", "score", "kept", "metrics")
SAMPLED = 400  # bytes of each file


def commands(folder: Path, data: Path) -> dict[str, list[object]]:
    """For each artifact in a folder a command that reads it, and makes `folder`/out."""
    options = ["--kind", "hidden,dynamics"]
    less = ["--method", "less", "--on", "gradient", "--target", folder / "validation"]
    return {
        "warmup": ["represent", data / "test.jsonl", "-o", folder / "out", "--model", folder / "warmup", *options],
        "train": ["score", folder / "train", "-o", folder / "out", *less],
        "validation": ["score", folder / "train", "-o", folder / "out", *less],
        "score": ["select", folder / "score", "-o", folder / "out", "--method", "top", "--keep", "0.5"],
        "kept": ["score", folder / "kept", "-o", folder / "out", "--method", "random"],
        "metrics": ["show", folder / "metrics"],
    }


def flips(data: bytes, positions: list[int], rng: random.Random) -> list[bytes]:
    """The data with one byte changed, once at each position: a bit of it flipped, or another byte in its place."""
    changed = []
    for at in positions:
        other = data[at] ^ 1 << rng.randrange(8) if rng.random() < 0.5 else (data[at] + rng.randrange(1, 256)) % 256
        changed.append(data[:at] + bytes([other]) + data[at + 1 :])
    return changed


@pytest.mark.parametrize("name", NAMES)
def test_every_byte_of_a_manifest(name: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Changed, it says what it said, or it is refused: neither opened nor up to date."""
    shutil.copytree(made / name, tmp_path / name)
    whole = open_artifact(tmp_path / name)
    recipe = Recipe(**whole.manifest["recipe"])
    path = tmp_path / name / MANIFEST
    before = path.read_bytes()
    tally: Counter[str] = Counter()
    for changed in flips(before, list(range(len(before))), random.Random(name)):
        path.write_bytes(changed)
        try:
            assert open_artifact(tmp_path / name).manifest == whole.manifest
        except PruneError:
            tally["refused"] += 1
            try:
                assert stale_reason(tmp_path / name, recipe) is not None
            except PruneError:  # not made by prune
                tally["not known as ours"] += 1
        else:
            tally["the same"] += 1
    with capsys.disabled():
        print(f"\nmanifest of {name}: {len(before)} bytes; {dict(tally)}")
    assert tally["refused"] > 0.6 * len(before)  # what is left is the space between its parts


@pytest.mark.parametrize("name", NAMES)
def test_sampled_bytes_of_every_file(name: str, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is found when the file is asked for; cut short and grown files as well."""
    shutil.copytree(made / name, tmp_path / name)
    rng, tried = random.Random(name), 0
    for file in open_artifact(tmp_path / name).files:
        path = tmp_path / name / file
        before = path.read_bytes()
        positions = sorted(rng.sample(range(len(before)), min(SAMPLED, len(before))))
        damaged = [*flips(before, positions, rng), before[:-1], before + b"\n", before[: len(before) // 2], b""]
        for changed in damaged:
            path.write_bytes(changed)
            with pytest.raises(PruneError, match="differs from what was written"):
                open_artifact(tmp_path / name).file(file)
        path.write_bytes(before)
        open_artifact(tmp_path / name).file(file)
        tried += len(damaged)
    with capsys.disabled():
        print(f"\nfiles of {name}: {tried} damaged")


def one_line(ran: Ran) -> None:
    """It was refused, in a line."""
    assert ran.code == 1, ran
    assert len(ran.errors) == 1, ran.err


@pytest.fixture
def copies(made: Path, tmp_path: Path) -> Path:
    """A folder with a copy of every artifact."""
    for name in NAMES:
        shutil.copytree(made / name, tmp_path / name)
    return tmp_path


@pytest.mark.parametrize("name", NAMES)
def test_every_file_removed_or_damaged(
    name: str, copies: Path, data: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    """The command that reads it says so, or reads nothing of it and makes what it makes of the whole artifact."""
    command = commands(copies, data)[name]
    assert prune(*command).code == 0
    wanted = digests(copies / "out") if name != "metrics" else {}
    tally: Counter[str] = Counter()
    for file in open_artifact(copies / name).files:
        path = copies / name / file
        before = path.read_bytes()
        changed = bytearray(before)
        changed[len(before) // 2] ^= 1
        for content in (None, bytes(changed), before[: len(before) // 2]):
            shutil.rmtree(copies / "out", ignore_errors=True)
            path.unlink() if content is None else path.write_bytes(content)
            ran = prune(*command)
            if ran.code == 0:
                assert digests(copies / "out") == wanted, (file, ran)
                tally["not read"] += 1
            else:
                one_line(ran)
                assert not (copies / "out").exists()
                tally["refused"] += 1
            path.write_bytes(before)
    with capsys.disabled():
        print(f"\n{name}: {dict(tally)}")
    assert tally["refused"]


ADDED = {
    "adapter_config.json": b'{"peft_type": "LORA", "base_model_name_or_path": "x", "r": 8}',
    "added_tokens.json": b'{"film": 0, "the": 1}',
    "special_tokens_map.json": b'{"unk_token": "the"}',
    "vocab.txt": b"the\nfilm\n",
    "chat_template.jinja": b"{{ raise_exception('no') }}",
    "model.safetensors.index.json": b'{"weight_map": {}}',
    "pytorch_model.bin": b"PK\x03\x04",
    "modeling_bert.py": b"raise SystemExit",
    "generation_config.json": b"{",
    "checkpoints/9/model.safetensors": b"",
    "gradient.safetensors.part": b"",
    "labels.jsonl": b"[]\n",
}


@pytest.mark.parametrize("name", NAMES)
def test_files_added(name: str, copies: Path, data: Path, prune: Prune) -> None:
    """What no manifest lists is not read: the same comes out."""
    command = commands(copies, data)[name]
    assert prune(*command).code == 0
    wanted = digests(copies / "out") if name != "metrics" else {}
    for file, content in ADDED.items():
        path = copies / name / file
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        shutil.rmtree(copies / "out", ignore_errors=True)
        ran = prune(*command)
        assert ran.code == 0, (file, ran.err)
        assert name == "metrics" or digests(copies / "out") == wanted, file
        path.unlink()


def test_files_swapped_between_artifacts(
    copies: Path, data: Path, prune: Prune, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file, whole in itself, in the place of another artifact's is refused or not read.

    With another's manifest the folder stands for that other artifact, and lacks its files: where the command needs none
    of them, it makes what it makes of the other.
    """
    tally: Counter[str] = Counter()
    for name, command in commands(copies, data).items():
        shutil.rmtree(copies / "out", ignore_errors=True)
        assert prune(*command).code == 0
        wanted = digests(copies / "out") if name != "metrics" else {}
        for other in NAMES:
            for file in (*open_artifact(copies / name).files, MANIFEST):
                theirs, path = copies / other / file, copies / name / file
                before = path.read_bytes()
                if other == name or not theirs.is_file() or theirs.read_bytes() == before:
                    continue
                path.write_bytes(theirs.read_bytes())
                one_line(prune("show", copies / name))
                shutil.rmtree(copies / "out", ignore_errors=True)
                ran = prune(*command)
                if ran.code == 0:
                    found = digests(copies / "out")
                    if file == MANIFEST:
                        shutil.rmtree(copies / "out")
                        theirs_too = [copies / other if word == copies / name else word for word in command]
                        assert prune(*theirs_too).code == 0
                        assert digests(copies / "out") == found, (name, other)
                    else:
                        assert found == wanted, (name, other, file)
                    tally["not read"] += 1
                else:
                    one_line(ran)
                    assert not (copies / "out").exists(), (name, other, file)
                    tally["refused"] += 1
                path.write_bytes(before)
    with capsys.disabled():
        print(f"\nfiles swapped: {dict(tally)}")
    assert tally["refused"]
