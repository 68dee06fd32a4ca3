"""What the representations cost beside a plain training step, for each task.

    python -m tests.benchmarks.bench [--task generation] [--data train.jsonl] [--tokens 64] [--memory]

An encoder is trained in full; generation has LoRA adapters on a Llama of random weights. On a CUDA device where there
is one, in bfloat16 where it computes in it (--batch-size 256 keeps it busy), else on the CPU. All ways are timed in
turn, in one run, on the same batches; each cost is the median over the repeats of its ratio to a plain forward and
backward, and of that to the floor, which takes no step from activations to weights; beside it stand the floating-point
operations a second that it reaches. --memory measures peak memory instead, each way in a process of its own.
fidelity.py measures how faithful the gradients are.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import tempfile
from collections import deque
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from prune_cli import options
from prune_cli.main import hush
from prune_cli.models.batching import batches as batched
from prune_cli.models.device import resolve_precision, use_device
from prune_cli.models.find import Checkpoint
from prune_cli.represent.kinds import hidden
from prune_cli.represent.kinds.dynamics import Dynamics
from prune_cli.represent.observe import Batch
from prune_cli.runtime import memory
from tests.benchmarks.passes import (
    FLOOR,
    PLAIN,
    USUAL,
    Subject,
    Way,
    costs,
    formed,
    frozen,
    gradient_of,
    influence_on,
    observed,
    singles,
)
from tests.benchmarks.trained import lengthened, packaged_encoder, trained

SAMPLE = Path(__file__).parents[2] / "sample_data"
DATA = {
    "classification": SAMPLE / "train.jsonl",
    "choice": SAMPLE / "choice" / "train.jsonl",
    "generation": SAMPLE / "generation" / "train.jsonl",
}
LORA = {"tune": "lora", "batch_size": 8, "learning_rate": 1e-3}
ROWS, TARGETS = 80, 2  # batches of one; what is timed is the same for any number of targets
# how the ways begin whose memory is measured
MEASURED = (PLAIN, USUAL, "gradient, ", "hidden + ", "influence, cosine (")


def main() -> None:
    """Print the table."""
    parser = arguments(__doc__)
    parser.add_argument("--task", choices=list(DATA), default="classification")
    parser.add_argument("--width", type=int, default=512, help="features of the Llama; 512: 42 M parameters")
    parser.add_argument("--dim", type=int, default=8192)
    parser.add_argument("--memory", action="store_true", help="peak memory instead of time")
    hush()
    given = parser.parse_args()
    shape = f"{given.tokens or 'own'} tokens, {given.batches} batches of at most {given.batch_size} rows"
    print(f"{given.task}, {given.data or 'sample_data'}, {shape}, {where()}, {resolve_precision('auto', 'auto')}")
    with tempfile.TemporaryDirectory() as folder:
        if given.memory:
            print_memory(given, Path(folder))
        else:
            print_costs(given, prepare(given, Path(folder), given.task))


def arguments(about: str | None) -> argparse.ArgumentParser:
    """The options that say on which model and batches to measure."""
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default=None, help="rows of the task; default: the sample's")
    parser.add_argument("--model", default=None, help="model to start from; default: the packaged MiniLM, or a Llama")
    parser.add_argument("--tokens", type=int, default=64, help="tokens a text, by joining its own; 0: as they are")
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=32, help="most rows in a batch")
    parser.add_argument("--tokens-per-batch", type=int, default=8192)
    parser.add_argument("--repeats", type=int, default=5)
    return parser


def where() -> str:
    """The device in words."""
    cuda = use_device("auto").type == "cuda"
    return torch.cuda.get_device_name() if cuda else f"CPU, {torch.get_num_threads()} threads"


def print_costs(given: argparse.Namespace, ready: Ready) -> None:
    """The time of each way."""
    rows = sum(len(batch) for batch in ready.batches)
    measured = costs(ready.subject, ways(ready, given.dim), given.repeats)
    print(f"\n{'way':44} {'x plain':>8} {'x floor':>8} {'s a row':>9} {'GFLOP/s':>9}")
    for name, cost in measured.items():
        ratios = f"{cost.over(measured[PLAIN]):8.2f} {cost.over(measured[FLOOR]):8.2f}"
        print(f"{name:44} {ratios} {cost.seconds / rows:9.5f} {cost.operations / cost.seconds / 1e9:9.0f}")


@dataclass(frozen=True)
class Ready:
    """A model after a short training, at the checkpoint `kept`, which has its moments.

    batches: for the clock. rows, targets: 80 and 16 batches of one.
    """

    subject: Subject
    batches: list[Batch]
    rows: list[Batch]
    targets: list[Batch]
    kept: Checkpoint


def prepare(given: argparse.Namespace, folder: Path, task: str = "classification") -> Ready:
    """Train the task's model, or find it in `folder`, and make the batches."""
    lora = task == "generation"
    model = given.model or (llama(folder / "llama", given.width) if lora else packaged_encoder())
    opts = options.Finetune(model=model, task=task, steps=10, **(LORA if lora else {}))
    timed = given.batch_size * given.batches
    ready = trained(str(given.data or DATA[task]), folder / "trained", opts, fresh=timed + ROWS + TARGETS)
    setup, fresh = ready.setup, ready.fresh
    if given.tokens:
        setup = replace(setup, encoded=lengthened(setup.encoded, given.tokens))
    order = batched(setup.encoded.lengths[fresh[:timed]], given.batch_size, given.tokens_per_batch)
    batches = [setup.batch(fresh[some]) for some in islice(order, given.batches)]
    rows = [setup.batch(np.array([position])) for position in fresh[timed:]]
    subject = Subject(setup.model, setup.task, setup.device, setup.precision)
    return Ready(subject, batches, rows[:ROWS], rows[ROWS:], ready.kept)


def llama(folder: Path, width: int) -> str:
    """The folder of a Llama of random weights with the tokenizer of the sample's, made unless it is there."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config: Any = LlamaConfig  # its arguments are untyped
    if not folder.exists():
        torch.manual_seed(0)
        heads = max(1, width // 64)
        sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 6, "vocab_size": 32_000}
        # as many key heads as query heads: torch cannot count the operations of fewer
        sizes |= {"num_attention_heads": heads, "num_key_value_heads": heads, "max_position_embeddings": 4096}
        LlamaForCausalLM(config(tie_word_embeddings=True, pad_token_id=0, **sizes)).save_pretrained(folder)
        for path in (*(SAMPLE / "lm").glob("tokenizer*"), SAMPLE / "lm" / "chat_template.jinja"):
            shutil.copy(path, folder)
    return str(folder)


def ways(ready: Ready, dim: int) -> dict[str, Way]:
    """All that is timed, by name."""
    subject, batches, targets = ready.subject, ready.batches, ready.targets
    states, dynamics = hidden.Hidden(hidden.Options(pooling="mean")), Dynamics(subject.task)

    def kinds(*observers: Any) -> Way:
        return observed(subject, batches, ready.kept, *observers)

    def gradients(**given: str) -> Way:
        return kinds(gradient_of(subject, dim=dim, **given))

    def influences(**given: str) -> Way:
        return kinds(influence_on(subject, targets, **given))

    peers: dict[str, Way] = {
        "batches of one (LESS), before projection": (nullcontext, lambda: subject.plain(list(singles(batches)))),
        "torch.func vmap, before projection": (nullcontext, lambda: deque(formed(subject, batches), 0)),
    }
    usual: dict[str, Way] = {USUAL: (nullcontext, lambda: subject.usual(batches))}
    return {
        PLAIN: (nullcontext, lambda: subject.plain(batches)),
        FLOOR: (partial(frozen, subject.model), lambda: subject.plain(batches)),
        **(peers if batches[0].labels.dim() == 1 else {}),  # of classification
        **(usual if batches[0].at is not None else {}),  # of language models
        "hidden": kinds(states),
        "dynamics": kinds(dynamics),
        f"gradient, dim {dim}, exact norms": gradients(),
        f"gradient, dim {dim}, sketched norms": gradients(norms="sketched"),
        f"hidden + dynamics + gradient, dim {dim}": kinds(states, dynamics, gradient_of(subject, dim=dim)),
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
        if name:
            plain = plain or used  # MEASURED begins with PLAIN
            print(f"{name:44} {used / plain:8.2f} {used:9.0f}")


def peak(given: argparse.Namespace, folder: Path, start: str) -> tuple[str, float]:
    """The name of the way that begins with `start`, and MiB of its peak memory above what was held before it.

    None begins with nothing, or with a name that the task does not have.
    """
    ready = prepare(given, folder, given.task)
    all_ways = ways(ready, given.dim)
    name = next((name for name in all_ways if start and name.startswith(start)), "")
    if not name:
        return "", 0.0
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


if __name__ == "__main__":
    main()
