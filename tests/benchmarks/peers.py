"""What other libraries ask for per-example gradients, beside a plain training step in the same process.

    python -m tests.benchmarks.peers [--data train.jsonl] [--tokens 64]

Runs where bergson and traker are installed (`make bench-peers` sees to that), on the model and the rows of bench.py:
bergson's collector projects each linear layer's gradient from two sides; traker forms every gradient (torch.func) and
multiplies it with a dense random matrix. Fidelity as in bench.py, but against whole gradients of the linear layers'
weights, which is what bergson has.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import bergson
import numpy as np
import torch
from bergson.collector.in_memory_collector import InMemoryCollector
from datasets import Dataset
from scipy.stats import spearmanr
from trak.projectors import BasicProjector, ProjectionType

from prune_cli.represent.observe import Batch
from tests.benchmarks import bench
from tests.benchmarks.passes import PLAIN, Subject, formed

SIDES = (15, 64)
DIM = 16  # of traker's projection: its time grows in proportion


def main() -> None:
    """Print the table."""
    given = bench.arguments(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ready = bench.prepare(given, Path(folder))
    subject, batches = ready.subject, ready.batches
    threads = f"{torch.get_num_threads()} threads, {subject.device.type}"
    print(f"{given.data or 'sample_data'}, {given.tokens or 'own'} tokens, {threads}\n")
    seconds: dict[str, list[float]] = {}
    for _ in range(given.repeats + 1):  # the first warms caches
        clock(subject, seconds, PLAIN, lambda: subject.plain(batches))
        for side in SIDES:
            name = f"bergson, {side} a side, linear layers"
            clock(subject, seconds, name, partial(collect, subject, batches, side))
    base = seconds[PLAIN][1:]
    for name, measured in seconds.items():
        print(f"{name:44} {statistics.median(np.divide(measured[1:], base)):8.2f} x plain")
    truth = [whole(subject, rows).cpu() for rows in (ready.rows, ready.targets)]
    for side in SIDES:
        ours = [collect(subject, rows, side).cpu() for rows in (ready.rows, ready.targets)]
        true, estimated = (unit(g) @ unit(v).T for g, v in (truth, ours))
        less = spearmanr(estimated.mean(1), true.mean(1)).statistic
        norm = spearmanr(ours[0].norm(dim=1), truth[0].norm(dim=1)).statistic
        error = float((estimated - true).square().mean().sqrt())
        numbers = ours[0].shape[1]
        print(f"bergson, {side} a side ({numbers} numbers): LESS rho {less:.3f}, norm rho {norm:.3f}, RMSE {error:.3f}")

    began = time.perf_counter()
    dense(subject, batches[:1], DIM)
    subject.wait()
    once = (time.perf_counter() - began) / statistics.median(base) * len(batches)
    print(f"{f'traker, dense projection, dim {DIM}, once':44} {once:8.0f} x plain")


def clock(subject: Subject, seconds: dict[str, list[float]], name: str, run: Callable[[], Any]) -> None:
    """Note how long a run takes."""
    subject.wait()
    began = time.perf_counter()
    run()
    subject.wait()
    seconds.setdefault(name, []).append(time.perf_counter() - began)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Rows of length one."""
    return x / x.norm(dim=1, keepdim=True)


def linear(model: Any) -> dict[str, torch.nn.Linear]:
    """The encoder's linear layers by name: bergson has no gradients of those that see one state a row."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    return {name: layer for name, layer in layers.items() if ".encoder." in name}


def collect(subject: Subject, batches: list[Batch], side: int) -> torch.Tensor:
    """The projected gradients [n, k] by bergson."""
    model = subject.model
    n = sum(len(batch) for batch in batches)
    collected: list[torch.Tensor] = []
    collector = InMemoryCollector(
        model=model,
        data=Dataset.from_dict({"row": list(range(n))}),
        cfg=bergson.IndexConfig(run_path="unused", projection_dim=side),
        processor=bergson.GradientProcessor(projection_dim=side),
        target_modules=set(linear(model)),
    )
    model.requires_grad_(False)  # as its own command does: only the embeddings start a backward
    model.get_input_embeddings().requires_grad_(True)
    for batch in batches:
        model.zero_grad(set_to_none=True)
        with collector.with_batch(batch.inputs["attention_mask"].bool()):
            subject.backward(batch)
        collected.append(torch.cat([part.flatten(1).float() for part in collector.mod_grads.values()], 1))
        collector.mod_grads.clear()
    model.zero_grad(set_to_none=True)
    model.requires_grad_(True)
    return torch.cat(collected)


def whole(subject: Subject, rows: list[Batch]) -> torch.Tensor:
    """Gradients [n, p] of the linear layers' weights, by autograd from batches of one."""
    gradients = []
    for row in rows:
        subject.model.zero_grad(set_to_none=True)
        subject.backward(row)
        grads = (layer.weight.grad for layer in linear(subject.model).values())
        gradients.append(torch.cat([g.flatten() for g in grads if g is not None]))
    subject.model.zero_grad(set_to_none=True)
    return torch.stack(gradients)


def dense(subject: Subject, batches: list[Batch], dim: int) -> None:
    """Whole gradients by torch.func, projected by traker."""
    projector = BasicProjector(
        grad_dim=sum(p.numel() for p in subject.model.parameters()),
        proj_dim=dim,
        seed=0,
        proj_type=ProjectionType.rademacher,
        device=subject.device,
        block_size=dim,
    )
    for gradients in formed(subject, batches):
        projector.project(torch.cat([g.flatten(1) for g in gradients.values()], 1), model_id=0)


if __name__ == "__main__":
    main()
