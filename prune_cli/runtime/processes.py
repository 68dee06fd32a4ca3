"""Several processes at one artifact, as torchrun starts them on one machine: who one is, meeting, and one voice.

All run the same command. The first makes the draft and commits it; the others join the work in between. They meet
through torch.distributed: gloo for what is small and not on a GPU, NCCL for the gradients of a training on GPUs. When
one dies, torchrun ends the rest.
A process that was not started with others is the first of one; torch.distributed is left alone then.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from prune_cli.errors import PruneError

T = TypeVar("T")

SHARED = ("represent", "finetune")  # the commands whose work is shared out
SHARDING = ("FSDP", "DEEPSPEED", "MEGATRON_LM", "PARALLELISM_CONFIG")  # what accelerate's file may ask for
PATIENCE = timedelta(days=7)  # one may have hours more to do than another; one that died shows at once


class PeerLost(Exception):
    """Another process ended before its time: what this one has made so far is kept."""


def count() -> int:
    """How many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def local_rank() -> int:
    """Which of those on this machine: the number of its GPU."""
    return int(os.environ["LOCAL_RANK"]) if count() > 1 else 0


def first() -> bool:
    """Whether this is the process that makes the artifact and does the talking."""
    return rank() == 0


def join(command: str | None) -> None:
    """Meet the others at the start of a command. Raises PruneError for a command that is one process's work."""
    if count() == 1:
        return
    if command not in SHARED:
        raise PruneError(
            f"{command or 'prune'}: {count()} processes; one is allowed",
            hint=f"start it without torchrun; the commands that several processes share are {' and '.join(SHARED)}",
        )
    if int(os.environ.get("LOCAL_WORLD_SIZE", count())) != count():
        raise PruneError(f"{command}: processes on several machines; all on one machine is allowed")
    for way in SHARDING:
        if os.environ.get(f"ACCELERATE_USE_{way}", "false").lower() == "true":
            raise PruneError(
                f"{command}: accelerate's settings ask for {way}; allowed: a whole model on each device",
                hint="accelerate launch --multi_gpu, or torchrun; --tune lora needs less memory",
            )
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")  # or it prints C++ frames where a process ended
    _meet("gloo", _store())
    signal.signal(signal.SIGTERM, _stop)


def share_device(kind: str) -> None:
    """Let the processes exchange what is on their devices too, when each has its own."""
    if count() > 1 and kind == "cuda":
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        dist.destroy_process_group()
        _meet("cpu:gloo,cuda:nccl", PrefixStore("device", _store()))


def _meet(how: str, store: Any) -> None:
    import torch.distributed as dist

    dist.init_process_group(how, store=store, rank=rank(), world_size=count(), timeout=PATIENCE)


def leave(status: int) -> None:
    """End this one of several processes, all being said and done.

    At once: as Python takes itself apart, threads of torch.distributed now and then abort it (std::terminate).
    """
    if count() > 1:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _stop(*_: object) -> None:
    """What torchrun sends when another process has failed: leave as at Ctrl-C, and only once."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


@functools.cache
def _store() -> Any:
    """Where the processes find each other: torchrun's own store."""
    from torch.distributed.rendezvous import rendezvous

    store, _, _ = next(iter(rendezvous("env://")))
    return store


def wait() -> None:
    """Wait until all are here."""
    if count() > 1:
        import torch.distributed as dist

        with _or_lost():
            dist.barrier()


def agreed(find: Callable[[], T]) -> T:
    """What the first process finds, for all of them."""
    found = [find() if first() else None]
    if count() > 1:
        import torch.distributed as dist

        with _or_lost():
            dist.broadcast_object_list(found, src=0)
    return found[0]  # type: ignore[return-value]  # None is what the others put in


def gathered(value: T) -> list[T]:
    """What each process gives, in all of them."""
    values: list[Any] = [value] * count()
    if count() > 1:
        import torch.distributed as dist

        with _or_lost():
            dist.all_gather_object(values, value)
    return values


def anyone(value: bool) -> bool:
    """Whether it is so in any of the processes."""
    if count() == 1:
        return value
    import torch
    import torch.distributed as dist

    flag = torch.tensor(int(value))
    with _or_lost():
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def check_same(what: str, value: Any) -> None:
    """Raise PruneError in every process where `value`, of `what`, is not the same in all of them."""
    if len(different := dict.fromkeys(map(str, gathered(value)))) > 1:
        raise PruneError(f"{what}: {' and '.join(different)}; the same in all processes is needed")


@contextmanager
def first_ahead() -> Iterator[None]:
    """Run the block in the first process before the others run it."""
    if not first():
        wait()
    yield
    if first():
        wait()


@contextmanager
def _or_lost() -> Iterator[None]:
    try:
        yield
    except RuntimeError as failure:  # gloo: the connection was closed
        raise PeerLost from failure


@contextmanager
def together() -> Iterator[None]:
    """Run a library's work that several processes share: what fails between them is PeerLost."""
    try:
        yield
    except RuntimeError as failure:
        if count() > 1 and re.search("gloo|nccl", str(failure), re.IGNORECASE):
            raise PeerLost from failure
        raise


def tells(message: str) -> bool:
    """Whether it falls to this process to tell why it fails: of several that do, the first.

    torchrun's own report of the failure, which comes last, then has the message too.
    """
    if count() == 1:
        return True
    with suppress(RuntimeError):  # torchrun is gone, and with it the store: each tells
        if _store().add("told", 1) > 1:
            return False
    if report := os.environ.get("TORCHELASTIC_ERROR_FILE"):
        facts = {"message": message, "extraInfo": {"timestamp": str(int(time.time()))}}
        with suppress(OSError):
            Path(report).write_text(json.dumps({"message": facts}), "utf-8")
    return True
