"""The check of a GPU without one: its steps on the CPU, what it makes of failures, and where tensors are placed."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from prune_cli.gradients import factors, norms, projection
from prune_cli.gradients.adam import Adam
from prune_cli.gradients.capture import Capture, Outer
from prune_cli.gradients.influence import Directions, Influence
from prune_cli.gradients.projected import Projected
from prune_cli.represent.kinds.hidden import pool
from prune_cli.tasks import classification, generation
from tests.benchmarks import gpu, gpu_steps, passes, wheels
from tests.benchmarks.gpu import Step

META = torch.device("meta")


@pytest.mark.parametrize("step", ["encoder", pytest.param("llama", marks=pytest.mark.slow)])
def test_costs_are_measured(step: str) -> None:
    """The benchmark of a model runs in bfloat16 on a CPU too, and gives a rate of each kind."""
    figures = gpu_steps.STEPS[step](torch.device("cpu"))
    assert figures["shape"]["precision"] == "bfloat16"
    names = {name.split(",")[0] for name in figures["ways"]}
    kinds = {"hidden", "dynamics", "gradient", "influence"}
    assert names == {passes.PLAIN, passes.FLOOR, "hidden + dynamics + gradient", *kinds}
    assert all(way["rows_per_s"] > 0 for way in figures["ways"].values())


def test_memory_that_runs_out_is_noticed() -> None:
    """The step finds that batches were halved, to the same numbers."""
    figures = gpu_steps.memory(torch.device("cpu"))
    assert figures["halved"] > 0
    assert max(figures["largest_relative_difference"].values()) < gpu_steps.TOLERANCE


@pytest.mark.slow
def test_the_pipeline_runs_where_it_is_told() -> None:
    """The step runs a pipeline on the device and finds its accuracies."""
    assert set(gpu_steps.pipeline(torch.device("cpu"))["accuracy"]) == {"random 0.5", "less 0.5"}


def test_the_whole_check_takes_less_than_eight_minutes() -> None:
    """The time limits of the steps, and their names."""
    assert sum(step.limit for step in gpu.STEPS) < 8 * 60
    assert {step.name for step in gpu.STEPS} == {*gpu_steps.STEPS, "tests"}


def test_a_failed_step_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """The report has every step, the last lines of what a failed one printed, and what was not run."""

    def limited(command: list[str], seconds: int, stream: Any, environ: dict[str, str]) -> int | None:
        stream.write(b"first\nlast\n")
        if command[3] == "slow":
            return None
        if command[3] == "good":
            Path(command[command.index("--figures") + 1]).write_text('{"figure": 1}')
        return 1 if command[3] == "bad" else 0

    monkeypatch.setattr(gpu, "limited", limited)
    monkeypatch.setattr(gpu, "has_cuda", lambda: False)
    monkeypatch.setattr(wheels, "install", list)
    report = gpu.checked(tuple(Step(name, 9) for name in ("bad", "slow", "silent", "tests", "good")))
    outcomes = report["steps"]
    assert not report["ok"]
    assert report["not_run"][0] == "tests"
    assert outcomes["bad"]["error"] == ["exit status 1", "first", "last"]
    assert outcomes["slow"]["error"][0] == "took more than 9 s"
    assert not outcomes["silent"]["ok"]  # it wrote no figures
    assert outcomes["good"]["ok"]
    assert outcomes["good"]["figures"] == {"figure": 1}


def test_a_step_is_ended_at_its_limit(tmp_path: Path) -> None:
    """What it printed until then is kept."""
    with (tmp_path / "log").open("wb") as stream:
        code = gpu.limited(
            [sys.executable, "-c", "import time; print(1, flush=True); time.sleep(60)"],
            3,
            stream,
            gpu.environment("cpu"),
        )
    assert code is None
    assert (tmp_path / "log").read_text() == "1\n"


def test_skipped_tests_do_not_pass() -> None:
    """A run of pytest counts only if a test passed."""
    assert gpu.tests_passed(["12 passed, 2 skipped in 3.4s"]) == {"passed": 12}
    assert gpu.tests_passed(["14 skipped in 0.1s"]) == {}
    assert gpu.tests_passed([]) == {}


def test_what_a_machine_lacks_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packages that are missing or too old, and what these need; not what fits, nor a package that nothing needs."""
    made = {
        "no_such_package-2.0": "Requires-Dist: no-such-need>=1",
        "no_such_need-1.0": 'Requires-Dist: unused; extra == "all"',
        "unused-1.0": "",
        "numpy-1.0": "",
        "pytest-999.0": "",
    }
    for name, needs in made.items():
        with zipfile.ZipFile(tmp_path / f"{name}-py3-none-any.whl", "w") as archive:
            archive.writestr(f"{name}.dist-info/METADATA", f"Metadata-Version: 2.1\n{needs}\n")
    monkeypatch.setattr(wheels, "WHEELS", tmp_path)
    monkeypatch.setattr(wheels, "declared", lambda: ["no-such-package>=1", "numpy>=1", "pytest>=998"])
    names = [path.name.split("-")[0] for path in wheels.lacking()]
    assert names == ["no_such_need", "no_such_package", "pytest"]


def test_wheels_are_for_what_pyproject_declares() -> None:
    """All that the package needs is gathered, but for what the machine has."""
    names = {wheels.name_of(entry) for entry in wheels.declared()}
    assert {"typer", "msgspec", "rouge-score", "pytest"} <= names
    assert not names & {"torch", "transformers", "numpy", "datasets", "scipy"}
    assert {"nltk", "pydantic"} <= set(wheels.wanted())  # through rouge-score and typer


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> FakeTensorMode:
    """A mode in which tensors have shapes and a device, and mixing the CPU's with another device's is an error.

    PyTorch's fake tensors of the device meta, which a machine without a GPU differentiates too. What asks for values
    is left out.
    """
    monkeypatch.setitem(factors.BLOCK, "meta", 2**12)
    monkeypatch.setattr(norms, "_precise", lambda gradient, squared, apart: squared)
    mode = FakeTensorMode()
    mode.allow_meta = True
    return mode


def bert() -> Any:
    """A tiny BERT with a head for two classes."""
    return gpu_steps.bert(gpu_steps.Size(16, 1, 0, 0, 0, 0, 0), ["a", "b"])


def llama() -> Any:
    """A tiny Llama with LoRA adapters."""
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig
    base: Any = LlamaForCausalLM(
        config(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=1,
            num_attention_heads=2,
            use_cache=False,
        )
    )
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", r=2, target_modules="all-linear"))


def deberta() -> Any:
    """A tiny DeBERTa v3, which has a file of its own among the architectures."""
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    config: Any = DebertaV2Config
    more = {"relative_attention": True, "position_buckets": 4, "pos_att_type": ["p2c", "c2p"], "share_att_key": True}
    return DebertaV2ForSequenceClassification(
        config(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, **more)
    )


@pytest.mark.filterwarnings("ignore:Accessing the data pointer")
@pytest.mark.parametrize("adam", [False, True], ids=["plain", "adam"])
@pytest.mark.parametrize("tokens", [3, 40], ids=["grams", "formed"])
@pytest.mark.parametrize("build", [bert, llama, deberta], ids=lambda build: build.__name__)
def test_gradients_stay_on_the_device(
    build: Callable[[], Any], tokens: int, adam: bool, elsewhere: FakeTensorMode
) -> None:
    """No tensor of another device gets among those of the model: captured, projected, measured, compared."""
    with elsewhere:
        with META:
            model = build().eval()
            ids = torch.zeros(3, tokens, dtype=torch.int64)
            mask = torch.ones_like(ids)
            labels = ids if build is llama else ids[:, 0]
        task: Any = generation if build is llama else classification
        capture = Capture(model)
        moments = {name: torch.zeros_like(p) for name, p in capture.trainable.items()}
        kept = Adam(moments, moments, (0.9, 0.999)) if adam else None
        projected, products = Projected(16, 0), Influence(Directions([moments, moments]), cosine=True, adam=kept)
        projected.precondition(kept)

        def sink(name: str, gradient: Any) -> None:
            projected.add(name, gradient)
            products.add(name, gradient)

        with capture.attached(model):
            for collector in (projected, products):
                collector.begin(3, META)
            capture.begin(3, sink)
            summed(task, model, ids, mask, labels).backward()
            capture.finish()
        for tensor in (*projected.finish(), products.finish()):
            assert tensor.device == META


@pytest.mark.parametrize("tokens", [3, 40], ids=["grams", "formed"])
@pytest.mark.parametrize("build", [bert, llama], ids=lambda build: build.__name__)
def test_factors_in_bfloat16_come_to_the_same(
    build: Callable[[], Any], tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The way of a GPU under autocast, taken on a CPU: norms, projections and products, but for eight bits."""
    torch.manual_seed(0)
    model = build().eval()
    ids = torch.randint(1, 50, (3, tokens))
    task: Any = generation if build is llama else classification
    labels = ids if build is llama else torch.tensor([0, 1, 1])
    capture = Capture(model)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # zeros at first, with which A has no gradient
            torch.nn.init.normal_(parameter)
    directions = [{name: torch.randn_like(p) for name, p in capture.trainable.items()}]

    def found() -> list[torch.Tensor]:
        projected, products = Projected(64, 0), Influence(Directions(directions), cosine=True)

        def sink(name: str, gradient: Any) -> None:
            projected.add(name, gradient)
            products.add(name, gradient)

        with capture.attached(model):
            for collector in (projected, products):
                collector.begin(3, torch.device("cpu"))
            capture.begin(3, sink)
            with torch.autocast("cpu", torch.bfloat16):
                loss = summed(task, model, ids, torch.ones_like(ids), labels)
            loss.backward()
            capture.finish()
        return [*projected.finish(), products.finish()]

    wide = found()
    narrow: list[torch.dtype] = []

    def times(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        narrow.append(a.dtype)
        return a.float() @ b.float()

    monkeypatch.setattr(factors, "_narrow_times", times)
    for module in (factors, norms, projection):
        monkeypatch.setattr(module, "narrow", lambda tensor: tensor.dtype == torch.bfloat16)
    for ours, theirs in zip(found(), wide, strict=True):
        assert (ours - theirs).norm() < 2e-2 * theirs.norm()
    assert set(narrow) == {torch.bfloat16}


def test_bfloat16_is_folded_by_a_product(monkeypatch: pytest.MonkeyPatch) -> None:
    """A side of a matrix that is folded far comes to the same sums, and what its factors are folded to is theirs."""
    generator = torch.Generator().manual_seed(0)
    left, right = (torch.randn(3, 5, d, generator=generator).bfloat16() for d in (300, 700))
    sketches = []
    for narrow in (False, True):
        monkeypatch.setattr(projection, "narrow", lambda tensor, narrow=narrow: narrow)
        sketch = projection.Sketch(512, 0)
        sketch.begin(3, torch.device("cpu"))
        sketch.add("layers.0.weight", Outer(left, right))
        assert bool(sketch._wraps) == narrow
        sketches.append(sketch.projected)
    assert (sketches[1] - sketches[0]).norm() < 1e-2 * sketches[0].norm()


def summed(task: Any, model: Any, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The summed losses; those of a language model without choosing tokens, whose number fake tensors do not know."""
    logits = model(input_ids=ids, attention_mask=mask).logits
    if task is generation:
        return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    losses: torch.Tensor = task.losses(logits, labels).sum()
    return losses


@pytest.mark.parametrize("how", ["cls", "mean", "last", "position"])
def test_states_are_pooled_on_the_device(how: str, elsewhere: FakeTensorMode) -> None:
    """Index tensors and weights are made where the states are."""
    with elsewhere:
        states, mask = torch.zeros(2, 5, 4, device=META), torch.ones(2, 5, dtype=torch.int64, device=META)
        assert pool(states, mask, how).device == META


def test_dynamics_stay_on_the_device(elsewhere: FakeTensorMode) -> None:
    """The dynamics of a classifier are computed where its logits are."""
    with elsewhere:
        logits, labels = torch.zeros(4, 3, device=META), torch.zeros(4, dtype=torch.int64, device=META)
        assert {value.device for value in classification.dynamics(logits, labels).values()} == {META}


def test_a_mix_of_devices_is_noticed(elsewhere: FakeTensorMode) -> None:
    """What the tests above rest on: a term, an index or a factor on the CPU is an error."""
    with elsewhere:
        there, here = torch.zeros(3, 4, device=META), torch.zeros(3, 4)
        index = torch.zeros(3, 4, dtype=torch.int64)
        for mixed in (lambda: there + here, lambda: there.gather(1, index), lambda: there @ here.T):
            with pytest.raises(RuntimeError, match="devices"):
                mixed()
