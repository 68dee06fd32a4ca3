"""What other libraries ask for per-example gradients, beside a plain training step in the same process.

    python tests/bench_peers.py [--data train.jsonl] [--tokens 64]

Runs where bergson and traker are installed (`make bench-peers` sees to that), on the model and the rows of bench.py:
bergson's collector projects each linear layer's gradient from two sides; traker forms every gradient (torch.func) and
multiplies it with a dense random matrix. Fidelity as in bench.py, but against whole gradients of the linear layers'
weights, which is what bergson has.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
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
from prune_cli.tasks import classification as task
from tests.benchmarks import bench

SIDES = (15, 64)
DIM = 16  # of traker's projection: its time grows in proportion


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=str(bench.SAMPLE), help="rows with text and label")
    parser.add_argument("--model", default=None, help="encoder to start from; default: the packaged MiniLM")
    parser.add_argument("--tokens", type=int, default=64, help="tokens a row, by joining texts; 0: rows as they are")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model, batches, (rows, targets), _ = bench.prepare(given, Path(folder))
    print(f"{given.data}, {given.tokens or 'own'} tokens, {torch.get_num_threads()} threads, {bench.DEVICE.type}\n")
    seconds: dict[str, list[float]] = {}
    for _ in range(given.repeats + 1):  # the first warms caches
        clock(seconds, "plain forward + backward", lambda: bench.plain(model, batches))
        for side in SIDES:
            clock(seconds, f"bergson, {side} a side, linear layers", lambda side=side: collect(model, batches, side))
    base = seconds["plain forward + backward"][1:]
    for name, taken in seconds.items():
        print(f"{name:44} {statistics.median(np.divide(taken[1:], base)):8.2f} x plain")
    truth = [whole(model, side) for side in (rows, targets)]
    for side in SIDES:
        ours = [collect(model, given_rows, side) for given_rows in (rows, targets)]
        true, found = (unit(g) @ unit(v).T for g, v in (truth, ours))
        less = spearmanr(found.mean(1), true.mean(1)).statistic
        norm = spearmanr(ours[0].norm(dim=1), truth[0].norm(dim=1)).statistic
        error = float((found - true).square().mean().sqrt())
        numbers = ours[0].shape[1]
        print(f"bergson, {side} a side ({numbers} numbers): LESS rho {less:.3f}, norm rho {norm:.3f}, RMSE {error:.3f}")

    began = time.perf_counter()
    dense(model, batches[:1], DIM)
    once = (time.perf_counter() - began) / statistics.median(base) * len(batches)
    print(f"{f'traker, dense projection, dim {DIM}, once':44} {once:8.0f} x plain")


def clock(seconds: dict[str, list[float]], name: str, run: Any) -> None:
    """Note how long a run takes."""
    bench.wait()
    began = time.perf_counter()
    run()
    bench.wait()
    seconds.setdefault(name, []).append(time.perf_counter() - began)


def unit(x: torch.Tensor) -> torch.Tensor:
    """Rows of length one."""
    return x / x.norm(dim=1, keepdim=True)


def linear(model: Any) -> dict[str, torch.nn.Linear]:
    """The encoder's linear layers by name: bergson has no gradients of those that see one state a row."""
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, torch.nn.Linear)}
    return {name: layer for name, layer in layers.items() if ".encoder." in name}


def collect(model: Any, batches: list[Batch], side: int) -> torch.Tensor:
    """The projected gradients [n, k] by bergson."""
    n = sum(len(batch) for batch in batches)
    found: list[torch.Tensor] = []
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
            task.losses(bench.forward(model, batch.inputs).logits, batch.labels).sum().backward()
        found.append(torch.cat([part.flatten(1).float() for part in collector.mod_grads.values()], 1))
        collector.mod_grads.clear()
    model.zero_grad(set_to_none=True)
    model.requires_grad_(True)
    return torch.cat(found)


def whole(model: Any, rows: list[Batch]) -> torch.Tensor:
    """Gradients [n, p] of the linear layers' weights, by autograd from batches of one."""
    found = []
    for row in rows:
        model.zero_grad(set_to_none=True)
        task.losses(bench.forward(model, row.inputs).logits, row.labels).sum().backward()
        grads = (layer.weight.grad for layer in linear(model).values())
        found.append(torch.cat([g.flatten() for g in grads if g is not None]))
    model.zero_grad(set_to_none=True)
    return torch.stack(found)


def dense(model: Any, batches: list[Batch], dim: int) -> None:
    """Whole gradients by torch.func, projected by traker."""
    projector = BasicProjector(
        grad_dim=sum(p.numel() for p in model.parameters()),
        proj_dim=dim,
        seed=0,
        proj_type=ProjectionType.rademacher,
        device=bench.DEVICE,
        block_size=dim,
    )
    for gradients in bench.formed(model, batches):
        projector.project(torch.cat([g.flatten(1) for g in gradients.values()], 1), model_id=0)


if __name__ == "__main__":
    main()
