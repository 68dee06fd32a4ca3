"""Generated input of every kind: each command ends well, or in one line that says why not.

Seeded, so that every run tries the same inputs. With `-s` each test prints how many were tried and what came of them.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import re
import resource
import shutil
import signal
import struct
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from prune_cli import options
from prune_cli.represent import kinds
from tests.conftest import Prune, Ran
from tests.harness import strategies as made_up
from tests.harness.strategies import HEX, HUGE, NUMBERS, TEXTS, WRITERS, changed, damaged, numbers, odd

pytestmark = pytest.mark.slow

SECONDS = 20  # more than any of these commands takes
ROOM = 6 * 2**30  # bytes of memory that a command may ask for beyond what is in use

RECORDS: dict[str, Any] = {
    "represent": options.Represent,
    "score": options.Score,
    "select": options.Select,
    "finetune": options.Finetune,
    "eval": options.Eval,
}


class Hangs(BaseException):
    """A command took too long. No Exception: a command that turns those into an error must not catch it."""


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """What asks for too much memory fails at once, as on a machine that has no more."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    in_use = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (in_use + ROOM, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that commands run in; each example has a folder of its own in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


_number = itertools.count()


def fresh(folder: Path) -> Path:
    """A new folder of a name that no other had: what is known of a file must not be taken for another's."""
    made = folder / f"example-{next(_number)}"
    made.mkdir()
    return made


def tried(name: str, strategy: st.SearchStrategy[Any], n: int, check: Callable[[Any], str]) -> Counter[str]:
    """Check n drawn inputs, and print what came of them. check: returns that in a word."""
    counts: Counter[str] = Counter()

    @settings(
        derandomize=True,
        deadline=None,
        max_examples=n,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def each(drawn: Any) -> None:
        counts[check(drawn)] += 1

    each()
    print(f"\n{name}: {sum(counts.values())} inputs, {', '.join(f'{n} {what}' for what, n in counts.most_common())}")
    return counts


@contextmanager
def aside(handle: int) -> Iterator[IO[bytes]]:
    """Let what is written to an open file of the process, past Python, go into the one that is yielded."""
    ours = os.dup(handle)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), handle)
        try:
            yield file
        finally:
            os.dup2(ours, handle)
            os.close(ours)


def ended(prune: Prune, *arguments: object, several: bool = False) -> Ran:
    """Run a command that may end in status 0, 1 or 2, in the latter two with one error line and no more than a hint.

    several: more error lines than one are allowed. What a library writes past Python to stderr counts too.
    """

    def stop(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, SECONDS, 1.0)
    try:
        with aside(1), aside(2) as past:
            ran = prune(*arguments)
            past.seek(0)
            written = past.read()
    except Hangs as failure:
        raise AssertionError(f"no end after {SECONDS} s: {arguments}") from failure
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert ran.code in (0, 1, 2), ran
    assert not written, written
    assert "Traceback" not in ran.err and "Warning" not in ran.err, ran.err
    lines = ran.err.splitlines()
    if ran.code:
        assert len(ran.errors) == 1 or (several and ran.errors), ran.err
        assert lines[-1].startswith(("error: ", "hint: ")), ran.err
    else:
        assert not ran.errors, ran.err
    return ran


def told(ran: Ran) -> str:
    """What came of a command, in a word."""
    return ("accepted", "refused", "wrong usage")[ran.code]


TASKS = st.sampled_from(["classification", "choice", "generation"])


@st.composite
def row_files(draw: st.DrawFn, damage: bool) -> tuple[str, str, list[Any], bytes]:
    """Task, kind of file, its rows and its bytes."""
    task, kind = draw(TASKS), draw(st.sampled_from(list(WRITERS)))
    flat = kind in (".csv", ".tsv")
    if flat and task == "choice":  # whose choices are a list
        task = "classification"
    rows = draw(made_up.good_rows(task, flat=flat))
    if damage and draw(st.booleans()):
        rows = draw(changed(rows))
    data = WRITERS[kind](rows if isinstance(rows, list) else [rows])
    if damage:
        packed = kind == ".jsonl.gz" and draw(st.booleans())
        for _ in range(draw(st.integers(0, 2))):
            data = gzip.compress(draw(damaged(gzip.decompress(data))), mtime=0) if packed else draw(damaged(data))
            if not packed:
                break
    return task, kind, rows, data


def lines_of(data: bytes) -> list[bytes]:
    """The lines of JSONL that are rows, in order of their bytes, without their ends and a byte order mark."""
    lines = data.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return sorted(line.rstrip(b"\r") for line in lines if line.strip(b" \t\r\n"))


def check_all_kept(kind: str, data: bytes, kept: bytes, why: bytes) -> None:
    """Every row of the file is in the output, of JSONL byte for byte."""
    written = lines_of(kept)
    assert len(written) == len(why.splitlines())
    if kind in (".jsonl", ".jsonl.gz"):
        assert written == lines_of(data if kind == ".jsonl" else gzip.decompress(data))
    elif kind == ".json":
        text = data.removeprefix(b"\xef\xbb\xbf").decode()
        rows = json.loads(text) if text.lstrip().startswith("[") else [json.loads(line) for line in text.splitlines()]
        key = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731  # a name for a key twice used
        assert sorted(map(key, rows)) == sorted(key(json.loads(line)) for line in written)


@pytest.mark.parametrize("damage", [False, True], ids=["good", "damaged"])
def test_rows(damage: bool, prune: Prune, folder: Path) -> None:
    """Rows of every task and kind of file: all of them are kept as they came, or one line says what is wrong."""

    def check(drawn: tuple[str, str, list[Any], bytes]) -> str:
        task, kind, _, data = drawn
        here = fresh(folder)
        (here / f"rows{kind}").write_bytes(data)
        keep = ["--method", "random", "--keep", "1.0", "--task", task]
        ran = ended(prune, "select", here / f"rows{kind}", "-o", here / "out", *keep, several=True)
        assert ran.code == 0 or damage, ran.err
        assert (here / "out").exists() == (ran.code == 0)
        if ran.code == 0:
            out = here / "out"
            check_all_kept(kind, data, (out / "select.jsonl").read_bytes(), (out / "why.jsonl").read_bytes())
        return told(ran)

    name = f"rows, {'damaged' if damage else 'good'}"
    counts = tried(name, row_files(damage), 800 if damage else 150, check)
    assert counts["accepted"] and (counts["refused"] or not damage)


def test_parquet(prune: Prune, folder: Path) -> None:
    """Parquet, whole and damaged."""
    parquet = pytest.importorskip("pyarrow.parquet")
    arrow = pytest.importorskip("pyarrow")

    @st.composite
    def files(draw: st.DrawFn) -> tuple[str, int, bytes | None]:
        task = draw(TASKS)
        rows: Any = draw(made_up.good_rows(task))
        if draw(st.booleans()):
            rows = draw(changed(rows))
        if not isinstance(rows, list):
            return task, 0, None
        try:
            stream = arrow.BufferOutputStream()
            parquet.write_table(arrow.Table.from_pylist(rows), stream)
        except (arrow.ArrowException, AttributeError, TypeError, UnicodeError, OverflowError):
            return task, 0, None  # what no Parquet can hold
        data = stream.getvalue().to_pybytes()
        return task, len(rows), draw(damaged(data)) if draw(st.booleans()) else data

    def check(drawn: tuple[str, int, bytes | None]) -> str:
        task, n, data = drawn
        if data is None:
            return "not written"
        here = fresh(folder)
        (here / "rows.parquet").write_bytes(data)
        keep = ["--method", "random", "--keep", "1.0", "--task", task]
        ran = ended(prune, "select", here / "rows.parquet", "-o", here / "out", *keep, several=True)
        if ran.code == 0:
            assert len((here / "out" / "select.jsonl").read_bytes().splitlines()) == n
        return told(ran)

    tried("parquet", files(), 80, check)


PLAN: dict[str, Any] = {
    "task": "classification",
    "train": "train.jsonl",
    "validation": "validation.jsonl",
    "methods": [
        "random",
        {"method": "less", "balance": "keep"},
        {
            "name": "own",
            "representation": "hidden",
            "score": "prototypicality",
            "select": "top",
            "score_options": {"k": 3},
        },
    ],
    "keep": [0.5, "30%"],
    "seeds": [0, 1],
    "fields": {},
    "tests": {"test": "test.jsonl"},
    "warmup": {"epochs": 2, "learning_rate": 1e-3, "fraction": 0.5},
    "represent": {"dim": 64, "dtype": "float16"},
    "finetune": {"steps": 4, "warmup_ratio": 0.1, "batch_size": 8},
    "eval": {"batch_size": 64},
}


def test_pipeline_files(prune: Prune, folder: Path, data: Path, tiny_model: Path) -> None:
    """Pipeline files changed in their values and in their bytes: checked as a whole, with a line for each mistake."""
    plan = {**PLAN, "model": str(tiny_model)}
    shutil.copytree(data, folder, dirs_exist_ok=True)
    values = st.one_of(
        odd, st.sampled_from([HUGE, HEX, 2**31, -(2**31), 1e20, 1e-320, "1e-99999999999999999999", "less"])
    )

    @st.composite
    def files(draw: st.DrawFn) -> bytes:
        table = draw(changed(plan, values))
        if draw(st.integers(0, 3)) == 0:
            table = draw(changed(table, values))
        text = made_up.as_toml(table if isinstance(table, dict) else {"train": table})
        return draw(damaged(text)) if draw(st.integers(0, 2)) == 0 else text

    def check(text: bytes) -> str:
        file = folder / f"plan-{next(_number)}.toml"
        file.write_bytes(text)
        return told(ended(prune, "pipeline", file, "-o", fresh(folder) / "out", "--dry-run", several=True))

    counts = tried("pipeline files", files(), 350, check)
    assert counts["accepted"] and counts["refused"]


def declared(stage: str) -> dict[str, options.Option]:
    """The options of a command."""
    known = options.declared(RECORDS[stage])
    if stage == "represent":
        del known["kind_options"]
        known |= kinds.options()
    return known


def names(made: Path, data: Path, folder: Path) -> list[str]:
    """What may be named on a command line: methods, kinds, files, artifacts, links, and what is none of them."""
    (folder / "link").symlink_to(made / "train")
    (folder / "broken-link").symlink_to(folder / "nowhere")
    (folder / "empty").write_bytes(b"")
    known = [
        made / "train",
        made / "score",
        made / "kept",
        made / "warmup",
        made / "metrics",
        data / "train.jsonl",
        data,
    ]
    words = (
        "top random middle kmeans less el2n hidden dynamics gradient hidden,dynamics , classification choice".split()
    )
    return [*map(str, known), *words, "link", "broken-link", "empty", "logitz", *TEXTS, *NUMBERS]


@pytest.mark.parametrize("stage", RECORDS)
def test_options(stage: str, prune: Prune, folder: Path, made: Path, data: Path, tiny_model: Path) -> None:
    """Values of every size and kind for each option, and for what a command works on.

    What is right is run too, unless it would be much work.
    """
    known, word = declared(stage), st.sampled_from(names(made, data, folder))
    train = str(data / "train.jsonl")
    base: dict[str, tuple[list[str], dict[str, str]]] = {
        "represent": ([train], {"model": str(tiny_model)}),
        "finetune": ([train], {"model": str(tiny_model), "steps": "1"}),
        "score": ([str(made / "train")], {"method": "random"}),
        "select": ([str(made / "score")], {"method": "top", "keep": "3"}),
        "eval": ([str(made / "warmup"), str(data / "test.jsonl")], {}),
    }
    inputs, required = base[stage]
    heavy = {"epochs", "steps", "dim", "max_new_tokens", "accumulate", "lora_rank"}

    @st.composite
    def commands(draw: st.DrawFn) -> tuple[list[str], bool]:
        given, work = dict(required), False
        arguments = list(inputs)
        for _ in range(draw(st.integers(1, 2))):
            name = draw(st.sampled_from([*known, "", "field"]))
            if name == "":  # what the command works on
                arguments[draw(st.integers(0, len(arguments) - 1))] = draw(word)
                continue
            kind = known[name].type if name in known else str
            value = draw(numbers if kind in (int, float) else st.one_of(word, numbers))
            if name in known and known[name].choices and draw(st.booleans()):
                value = draw(st.sampled_from(known[name].choices))
            given[name] = value
            work |= name in heavy and not re.fullmatch(r"[0-3](\.\d*)?", value)
        flags = {name for name in given if name in known and known[name].type is bool}
        pairs = [f"--{name.replace('_', '-')}={value}" for name, value in given.items() if name not in flags]
        return [*arguments, *pairs, *(f"--{name.replace('_', '-')}" for name in sorted(flags))], work

    def check(drawn: tuple[list[str], bool]) -> str:
        arguments, work = drawn
        command = [stage, *arguments, "-o", str(fresh(folder) / "out")]
        ran = ended(prune, *command, "--dry-run", several=True)
        if ran.code == 0 and not work and "--trust-remote-code" not in arguments:
            return told(ended(prune, *command))
        return told(ran)

    counts = tried(f"options of {stage}", commands(), 80 if stage == "finetune" else 150, check)
    assert counts["accepted"] and counts["refused"] and counts["wrong usage"]


def test_other_commands(prune: Prune, folder: Path, made: Path, data: Path) -> None:
    """`show`, `methods`, `guide`, `pipeline`, no command at all, and places to write to."""
    word = st.sampled_from(
        [*names(made, data, folder), "--json", "--help", "-o", "-x", "rows", "less", "pipeline", "--out=a\x1b[2Jb"]
    )
    first = st.sampled_from(["show", "methods", "guide", "pipeline", "select", "score", "eval", "", "-", "shwo"])

    def check(arguments: tuple[str, list[str]]) -> str:
        ran = ended(prune, arguments[0], *arguments[1], several=True)
        assert "\x1b[2J" not in ran.err
        return told(ran)

    tried(
        "other commands",
        st.tuples(first, st.one_of(word.map(lambda one: [one]), st.lists(word, max_size=4))),
        300,
        check,
    )


READERS: dict[str, list[list[str]]] = {
    "train": [["score", "X", "--method", "random"], ["select", "X", "--method", "random", "--keep", "1.0"]],
    "score": [["select", "X", "--method", "top", "--keep", "1.0"]],
    "kept": [["select", "X", "--method", "random", "--keep", "1.0"]],
    "warmup": [["represent", "DATA", "--model", "X"], ["eval", "X", "DATA"]],
    "metrics": [["show", "X"]],
}


@pytest.mark.parametrize("name", READERS)
def test_manifests(name: str, prune: Prune, folder: Path, made: Path, data: Path) -> None:
    """A manifest that was edited or damaged is refused by whatever reads it; one that says the same is not."""
    whole = (made / name / "manifest.json").read_bytes()

    @st.composite
    def texts(draw: st.DrawFn) -> bytes:
        how = draw(st.integers(0, 4))
        if how == 0:
            return draw(damaged(whole))
        return made_up.as_json(draw(changed(json.loads(whole))), ascii_only=how == 1)

    def check(text: bytes) -> str:
        artifact = fresh(folder) / name
        shutil.copytree(made / name, artifact)
        if name != "train":
            (artifact.parent / "train").symlink_to(made / "train")  # where a score finds its rows
        (artifact / "manifest.json").write_bytes(text)
        try:
            same = json.loads(text.decode()) == json.loads(whole)
        except (ValueError, RecursionError):
            same = False
        ran = ended(prune, "show", artifact)
        assert (ran.code == 0) == same, ran
        for reader in READERS[name]:
            places = {"X": str(artifact), "DATA": str(data / "train.jsonl")}
            command = [places.get(part, part) for part in reader]
            out = [] if reader[0] == "show" else ["-o", str(artifact.parent / "out"), "--force"]
            ran = ended(prune, *command, *out)
            assert ran.code == 0 or not same, ran
        return told(ran)

    tried(f"manifests of {name}", texts(), 60, check)


@st.composite
def other_weights(draw: st.DrawFn, data: bytes) -> bytes:
    """Weights with another header."""
    size = struct.unpack("<Q", data[:8])[0]
    values = st.one_of(
        odd, st.sampled_from(["F16", "BF16", "F64", "I64", "F8_E4M3", "nothing", [1], [2, 2], [0, 10**6]])
    )
    header = made_up.as_json(draw(changed(json.loads(data[8 : 8 + size]), values)))
    return struct.pack("<Q", len(header)) + header + data[8 + size :]


def test_model_folders(prune: Prune, folder: Path, made: Path, data: Path, tiny_model: Path) -> None:
    """A model folder with one of its files changed, cut, swapped for another or missing."""
    files = ["config.json", "tokenizer.json", "tokenizer_config.json", "model.safetensors"]
    train, test = str(data / "train.jsonl"), str(data / "test.jsonl")
    commands = {
        "represent": (tiny_model, ["represent", train, "--model", "X"]),
        "finetune": (tiny_model, ["finetune", train, "--model", "X", "--steps", "1"]),
        "eval": (made / "warmup", ["eval", "X", test]),
    }

    @st.composite
    def models(draw: st.DrawFn) -> tuple[str, str, bytes | None]:
        stage, name = draw(st.sampled_from(list(commands))), draw(st.sampled_from(files))
        text = (commands[stage][0] / name).read_bytes()
        match draw(st.sampled_from(["change", "change", "change", "damage", "swap", "missing", "empty"])):
            case "missing":
                return stage, name, None
            case "empty":
                return stage, name, b""
            case "swap":
                return stage, name, (commands[stage][0] / draw(st.sampled_from(files))).read_bytes()
            case "damage":
                return stage, name, draw(damaged(text))
            case _ if name == "model.safetensors":
                return stage, name, draw(other_weights(text))
            case _:
                return stage, name, made_up.as_json(draw(changed(json.loads(text))))

    def check(drawn: tuple[str, str, bytes | None]) -> str:
        stage, name, text = drawn
        whole, command = commands[stage]
        model = fresh(folder) / "model"
        model.mkdir()
        for other in files:
            shutil.copy(whole / other, model)
        (model / name).unlink() if text is None else (model / name).write_bytes(text)
        return told(
            ended(prune, *(str(model) if part == "X" else part for part in command), "-o", model.parent / "out")
        )

    counts = tried("model folders", models(), 200, check)
    assert counts["accepted"] and counts["refused"]
