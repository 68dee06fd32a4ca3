"""A file system that is really full, at every size too small for a command: one line, and then the same bytes.

The file system is a small one in memory, mounted in a namespace of its own, which Linux allows any user to make unless
it is told not to; the tests skip where it is.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from prune_cli.main import run
from tests.harness.test_faults import COMMANDS, RESUMED, command, halves, inputs, left_over
from tests.test_resume import digests

__all__ = ["inputs"]  # a fixture
pytestmark = pytest.mark.slow
NEW_NAMESPACE, NEW_USER, REMOUNT = 0x20000, 0x10000000, 32
PAGE = 4096
LARGE = 2**28


def mount(folder: Path, size: int, flags: int = 0) -> None:
    """Mount a file system of `size` bytes on a folder, or with REMOUNT give the one there another size."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", os.fsencode(folder), b"tmpfs", flags, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "mount")


def enter_namespace() -> None:
    """Let this process, which must have one thread, mount what no other process sees."""
    libc: Any = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(NEW_NAMESPACE | NEW_USER):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")


def quietly(arguments: list[str]) -> tuple[int, str]:
    """Run a command in this process: its exit code, and what it said."""
    err = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(err):
        return run(arguments), err.getvalue()


def trial(arguments: list[str], folder: Path, size: int) -> dict[str, Any]:
    """Run a command with a disk of `size` bytes and, if it is too small, again with enough; in a fork."""
    reader, writer = os.pipe()
    if pid := os.fork():
        os.close(writer)
        with os.fdopen(reader) as report:
            text = report.read()
        os.waitpid(pid, 0)
        found: dict[str, Any] = json.loads(text)
        return found
    found = {}
    try:
        enter_namespace()
        mount(folder, size)
        found["code"], found["err"] = quietly(arguments)
        found["halves"] = halves(folder)
        mount(folder, LARGE, REMOUNT)
        found["code again"], found["err again"] = quietly(arguments)
        found["digests"], found["left over"] = digests(folder), left_over(folder)
    except BaseException as failure:
        found["failure"] = repr(failure)
    finally:
        os.write(writer, json.dumps(found).encode())
        os._exit(0)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_full_disk(name: str, inputs: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From one page to as many as the command needs."""
    arguments = list(command(name, inputs, tmp_path).arguments)
    whole = trial(arguments, tmp_path, LARGE)
    if "unshare" in whole.get("failure", "") or "mount" in whole.get("failure", ""):
        pytest.skip(f"no file system of one's own can be mounted here: {whole['failure']}")
    assert whole["code"] == 0, whole
    tally: Counter[str] = Counter()
    pages, step = 1, 1
    while True:
        found = trial(arguments, tmp_path, pages * PAGE)
        assert "failure" not in found, found
        assert "Traceback" not in found["err"] + found["err again"], found
        assert not found["halves"]
        assert found["code again"] == 0, found
        assert found["digests"] == whole["digests"], (pages, found["err"], found["err again"])
        assert not found["left over"], (pages, found["left over"])
        tally["runs"] += 1
        if found["code"] == 0:
            break
        errors = [line for line in found["err"].splitlines() if line.startswith("error: ")]
        assert (found["code"], len(errors)) == (1, 1), found
        tally["full"] += 1
        pages += step
        step = 1 + pages // (8 if name in RESUMED or name == "pipeline" else 16)
    with capsys.disabled():
        print(f"\n{name}: {dict(tally)}, up to {pages} pages")
