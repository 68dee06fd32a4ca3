"""What every kind of representation must be: declared whole, importable without torch, the same in any batch."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from prune_cli.artifacts import code, tensors
from prune_cli.artifacts.code import digest_of_module
from prune_cli.data.open import Reading
from prune_cli.errors import PruneError
from prune_cli.options import Represent
from prune_cli.represent import kinds
from prune_cli.runtime import plugins
from prune_cli.stages.common import How
from prune_cli.stages.represent import CODE_OF_KINDS, represent
from tests.conftest import REPOSITORY, Prune, sentences, write_rows
from tests.test_generation import made as language_model
from tests.test_generation import talks

LIBRARIES = ("torch", "transformers", "datasets", "sklearn")
ENTROPY = '''
"""Entropy of the model's prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from prune_cli.options import Help
from prune_cli.represent.observe import Tensor, Watcher

TENSORS = {"doubt": Tensor((), "float32", "doubt of the predicted probabilities (nats); higher: less sure")}
FEATURES = "doubt"
NEEDS = frozenset({"head"})


@dataclass(frozen=True)
class Options:
    """Options of the kind."""

    softness: Annotated[float, Help("Divides the logits.")] = 1.0


def observe(setup, opts):
    """Observe a pass."""
    return Entropy(opts)


class Entropy(Watcher):
    """Observes `doubt` [b]."""

    def __init__(self, opts):
        self._opts = opts

    def rows(self, batch):
        """The batch's entropies."""
        logits = (batch.outputs.logits.detach().float() / self._opts.softness).log_softmax(1)
        return {"doubt": -(logits.exp() * logits).sum(1)}
'''


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, made: Path) -> Path:
    """A language model with dropout of a half, rows that have a prompt, and a target set of two groups.

    For kinds that need classes a trained classifier, and rows with labels.
    """
    folder = tmp_path_factory.mktemp("kinds")
    language_model(folder / "model", "gpt2", None)
    config = folder / "model" / "config.json"
    dropout = dict.fromkeys(("resid_pdrop", "embd_pdrop", "attn_pdrop"), 0.5)
    config.write_text(json.dumps({**json.loads(config.read_text()), **dropout}))
    write_rows(folder / "train.jsonl", talks(11))
    write_rows(folder / "target.jsonl", talks(5, 50))
    write_rows(folder / "labelled.jsonl", sentences(11))
    (folder / "classifier").symlink_to(made / "warmup")
    return folder


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder whose files are kinds too."""
    folder = tmp_path / "kinds"
    folder.mkdir()
    monkeypatch.setattr(kinds, "__path__", [*kinds.__path__, str(folder)])
    before = set(sys.modules)
    yield folder
    for name in {name for name in sys.modules if name.startswith("prune_cli.represent.kinds.")} - before:
        del sys.modules[name]
        if hasattr(kinds, name.rpartition(".")[2]):
            delattr(kinds, name.rpartition(".")[2])


def values_of(name: str, folder: Path) -> dict[str, Any]:
    """Options to represent by one kind, as flat as `build` reads them; stored in full precision."""
    kind = kinds.load(name)
    given = {"model": str(folder / "model"), "kind": name, "task": "generation"}
    if "classes" in kind.needs:
        given = {"model": str(folder / "classifier"), "checkpoints": "last", "kind": name, "task": "classification"}
    if "target" in kind.needs:
        given["target_data"] = str(folder / "target.jsonl")
    small = {"dim": 64, "buckets": 61, "dtype": "float32"}
    return {**given, **{key: value for key, value in small.items() if name in kinds.users(key)}}


def represented(folder: Path, out: Path, **values: Any) -> dict[str, Any]:
    """Represent the rows; the tensors."""
    name = values["kind"]
    rows = folder / ("labelled.jsonl" if values.get("task") == "classification" else "train.jsonl")
    represent(str(rows), out, kinds.build(values), Reading(), How())
    return tensors.load(out / f"{name}.safetensors")


@pytest.mark.parametrize("name", kinds.names())
def test_a_kind_is_declared_whole(name: str) -> None:
    """A kind's file says what it is, its tensors, features, needs and options, each with a text in plain words."""
    kind = kinds.load(name)
    assert kind.about.endswith((".", ":"))
    assert kind.features in kind.tensors
    assert kind.needs <= set(kinds.NEEDED)
    assert is_dataclass(kind.options)
    assert kind.observe or kind.write
    for tensor in kind.tensors.values():
        assert tensor.about
        assert tensor.dtype in (None, "float16", "float32")
    for option in fields(kind.options):
        declared = kinds.options()[option.name]
        assert declared.help.text[0].isupper() or declared.help.text.startswith(declared.choices)
        assert declared.help.text.endswith(".")
        assert not declared.help.text.startswith(name)
        assert name in kinds.users(option.name)
    assert kinds.options_of(name, Represent(model="m")) == kind.options()
    assert all(kinds.kind_of(tensor) == name for tensor in kind.tensors)
    assert kinds.is_scalar(name) == (not kind.tensors[kind.features].axes)


def test_declarations_are_read_without_torch() -> None:
    """All that other stages ask of the kinds imports no heavy library."""
    asked = "import sys; from prune_cli.represent import kinds; kinds.options(); kinds.kind_of('hidden');"
    asked += (
        "kinds.build({'model': 'm', 'kind': ', '.join(kinds.names())}); [kinds.is_scalar(n) for n in kinds.names()];"
    )
    asked += f"print([name for name in {LIBRARIES} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", kinds.names())
def test_what_a_kind_gives(name: str, world: Path, tmp_path: Path) -> None:
    """Names, shapes and types are those declared, all is finite; a row's values depend on neither batch nor dropout."""
    kind, values = kinds.load(name), values_of(name, world)
    whole = represented(world, tmp_path / "whole", **values)
    assert set(whole) == set(kind.tensors)
    sizes = {"d": 16, "k": 61, "g": 2}  # width of the model, largest prime up to 64, groups of the target set
    for key, tensor in kind.tensors.items():
        assert whole[key].shape == (11, 1, *(sizes[axis] for axis in tensor.axes))
        assert whole[key].dtype == (tensor.dtype or "float32")
        assert np.isfinite(whole[key]).all()
    about = json.loads((tmp_path / "whole/manifest.json").read_text())["about"]
    assert about["kinds"][name]["features"] == kind.features
    assert about["kinds"][name]["tensors"] == {
        key: {"shape": list(array.shape), "dtype": str(array.dtype)} for key, array in whole.items()
    }
    alone = represented(world, tmp_path / "alone", **values, batch_size=1)
    for key, array in whole.items():
        assert np.allclose(array, alone[key], rtol=1e-4, atol=1e-5), key
        assert len(np.unique(array, axis=0)) > 1 or key in ("correct", "exact")
    again = represented(world, tmp_path / "again", **values)
    assert all(np.array_equal(array, again[key]) for key, array in whole.items())


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({'FEATURES = "doubt"\n': ""}, "kind doubt lacks FEATURES"),
        ({"def observe": "def watch"}, "kind doubt lacks observe"),
        ({"class Options": "class Choices"}, "kind doubt lacks Options"),
        ({'"""Entropy of the model\'s prediction."""': ""}, "kind doubt lacks a docstring"),
        ({'FEATURES = "doubt"': 'FEATURES = "logits"'}, "FEATURES: logits; allowed: doubt"),
        ({'{"head"}': '{"luck"}'}, "NEEDS: luck; allowed: backward, gradients, head, gold, prompt, classes, target"),
        ({'"float32"': "None"}, "a tensor has no dtype; allowed: a dtype, or an option dtype"),
        ({'{"doubt": Tensor': '{"doubt": Tensor((), "float32", ""), "margin": Tensor'}, "tensor margin: the kind"),
        ({"@dataclass(frozen=True)\n": ""}, "Options: not a dataclass"),
    ],
)
def test_half_a_kind_is_an_error(change: dict[str, str], problem: str, own: Path) -> None:
    """A file that lacks a part, or declares it wrongly, is an error with its path and what is allowed."""
    text = ENTROPY
    for old, new in change.items():
        assert old in text
        text = text.replace(old, new)
    (own / "doubt.py").write_text(text)
    with pytest.raises(PruneError) as caught:
        kinds.load("doubt")
    assert caught.value.message.startswith(f"{own / 'doubt.py'}: ")
    assert problem in caught.value.message


def test_an_option_of_two_kinds_is_declared_alike(own: Path) -> None:
    """Where two kinds have an option of one name with different defaults, the command cannot offer it."""
    (own / "doubt.py").write_text(ENTROPY)
    (own / "warmth.py").write_text(ENTROPY.replace('"doubt"', '"warmth"'))
    assert kinds.users("softness") == ["doubt", "warmth"]
    assert kinds.options()["softness"].default == 1.0
    (own / "warmth.py").unlink()
    plugins._names.cache_clear()  # a process looks through a folder once
    (own / "heat.py").write_text(ENTROPY.replace('"doubt"', '"heat"').replace("= 1.0", "= 2.0"))
    with pytest.raises(PruneError, match="option softness: doubt and heat declare it differently"):
        kinds.options()


def test_kinds_named_together() -> None:
    """Several kinds are named with commas, each counted once; an unknown one is told with what is allowed."""
    assert kinds.parse("hidden, dynamics,hidden") == ["dynamics", "hidden"]
    with pytest.raises(PruneError, match=r"kind: foo; allowed: .*hidden.*, or several with commas"):
        kinds.parse("hidden,foo")
    for name in ("foo", "_shared", "hidden.x", ""):
        with pytest.raises(PruneError, match="kind: "):
            kinds.load(name)


def test_every_mistake_is_told_at_once() -> None:
    """Options of the command and of its kinds are checked together."""
    with pytest.raises(PruneError) as caught:
        kinds.build({"kind": "foo", "dim": 1, "batch_size": -1, "layers": 2, "pooling": "max"})
    told = [caught.value.message, *caught.value.also]
    assert [line.partition(":")[0] for line in told] == ["dim", "batch_size", "layers", "pooling", "model", "kind"]
    opts = kinds.build({"model": "m", "layer": 3, "batch_size": 4})
    assert (opts.batch_size, opts.kind_options) == (4, {"layer": 3})
    assert kinds.build(kinds.flat(opts)) == opts


@pytest.fixture
def doubt(own: Path, made: Path, data: Path, prune: Prune, tmp_path: Path) -> Path:
    """Rows represented by a new kind, added as one file."""
    (own / "doubt.py").write_text(ENTROPY)
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", made / "warmup"]
    ran = prune(*start, "--kind", "doubt,hidden")
    assert ran.code == 0, ran.err
    return tmp_path / "out"


def test_a_new_kind_is_one_file(doubt: Path, own: Path, made: Path, data: Path, prune: Prune) -> None:
    """A file alone makes a kind that is represented and shown; a change of its code makes the artifact stale."""
    values = tensors.load(doubt / "doubt.safetensors")["doubt"]
    assert values.shape == (24, 2)
    assert ((values > 0) & (values <= np.log(2) + 1e-6)).all()
    assert "doubt" in prune("show", doubt).out
    (own / "doubt.py").write_text(ENTROPY.replace(".sum(1)", ".mean(1)"))
    start = ["represent", data / "train.jsonl", "-o", doubt, "--model", made / "warmup", "--kind", "doubt,hidden"]
    ran = prune(*start)
    assert "code of kind doubt changed" in ran.errors[0]
    assert "kind hidden" not in ran.errors[0]


def test_a_new_kind_is_scored(doubt: Path, own: Path, prune: Prune, tmp_path: Path) -> None:
    """A new kind is what a score runs on, by --on."""
    ran = prune("score", doubt, "-o", tmp_path / "score", "--method", "prototypicality", "--on", "doubt")
    assert ran.code == 0, ran.err


def digests(monkeypatch: pytest.MonkeyPatch, path: Path | None = None) -> dict[str, str]:
    """The digest of each kind's code, with another file for the projection's."""
    source_of = code.source_of
    with monkeypatch.context() as patch:
        if path:
            changed = "prune_cli.gradients.projection"
            patch.setattr(code, "source_of", lambda name: path if name == changed else source_of(name))
        digest_of_module.cache_clear()
        found = {name: digest_of_module(kinds.load(name).module, CODE_OF_KINDS) for name in kinds.names()}
    digest_of_module.cache_clear()
    return found


def test_changed_code_counts_for_the_kinds_that_use_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A constant of the projection changes the digest of `gradient` and of no other kind; a comment changes none."""
    source, changed = REPOSITORY / "prune_cli/gradients/projection.py", tmp_path / "projection.py"
    before, text = digests(monkeypatch), source.read_text("utf-8")
    changed.write_text("# A comment.\n" + text, "utf-8")
    assert digests(monkeypatch, changed) == before
    assert "_AREA = 2**14" in text
    changed.write_text(text.replace("_AREA = 2**14", "_AREA = 2**15"), "utf-8")
    after = digests(monkeypatch, changed)
    assert {name for name in before if before[name] != after[name]} == {"gradient"}


def test_changed_code_makes_an_artifact_stale(
    made: Path, data: Path, tmp_path: Path, prune: Prune, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another constant in the projection, the reason names the code of the kind `gradient`, and of no other."""
    start = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", made / "warmup", "--dim", 64]
    start += ["--kind", "hidden,gradient"]
    assert prune(*start).code == 0
    text = (REPOSITORY / "prune_cli/gradients/projection.py").read_text("utf-8")
    (tmp_path / "projection.py").write_text(text.replace("_AREA = 2**14", "_AREA = 2**15"), "utf-8")
    source_of = code.source_of
    with monkeypatch.context() as patch:
        changed = "prune_cli.gradients.projection"
        patch.setattr(
            code, "source_of", lambda name: tmp_path / "projection.py" if name == changed else source_of(name)
        )
        digest_of_module.cache_clear()
        ran = prune(*start)
    digest_of_module.cache_clear()
    assert ran.code == 1
    assert "code of kind gradient changed" in ran.errors[0]
    assert "kind hidden" not in ran.errors[0]
    assert "up to date" in prune(*start).err


def test_a_kind_that_needs_no_pass(own: Path, world: Path, tmp_path: Path) -> None:
    """A kind may fill its file itself: no model is loaded for it."""
    (own / "words.py").write_text(
        textwrap.dedent('''
        """Number of words in a row."""
        from dataclasses import dataclass
        import numpy as np
        from prune_cli.artifacts import tensors
        from prune_cli.represent.observe import Tensor

        TENSORS = {"words": Tensor((), "float32", "words in the row")}
        FEATURES = "words"
        NEEDS = frozenset()


        @dataclass(frozen=True)
        class Options:
            """It has none."""


        def write(path, given, opts):
            """Count the words."""
            counts = [len(given.task.text(row).split()) for row in given.rows]
            about = {"checkpoints": ["none"], "learning_rate": [1.0]}
            tensors.save(path, {"words": np.array(counts, np.float32)[:, None]}, about)
        ''')
    )
    (tmp_path / "model").mkdir()
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / "model" / name).write_bytes((world / "model" / name).read_bytes())
    values = {"model": str(tmp_path / "model"), "kind": "words", "task": "generation"}
    assert represented(world, tmp_path / "out", **values)["words"].shape == (11, 1)
    recipe = json.loads((tmp_path / "out/manifest.json").read_text())["recipe"]["options"]
    assert "max_length" not in recipe
    assert "precision" not in recipe
