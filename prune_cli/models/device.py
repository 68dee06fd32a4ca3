"""Where and in which number format a model computes."""

from __future__ import annotations

import functools
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from prune_cli.errors import PruneError
from prune_cli.runtime import processes

if TYPE_CHECKING:
    import torch

CPU_BATCH, GPU_BATCH = (32, 8192), (1024, 65_536)  # rows and tokens


@functools.cache  # a second call would see only the device that the first left visible
def use_device(name: str) -> torch.device:
    """The device of a `--device` value. One process uses one device; of several on a machine each has its own.

    Restricting what CUDA shows is the one way that holds for every library in the process (the Trainer would
    otherwise spread a batch over all GPUs it sees).
    """
    import torch

    check_name(name)
    if name == "cpu":
        return torch.device("cpu")
    count = torch.cuda.device_count()
    if count == 0:
        if name != "auto":
            raise PruneError(f"device: {name}; no CUDA device here", hint="--device cpu, or auto")
        return torch.device("cpu")
    index = int(name[5:]) if name.startswith("cuda:") else processes.local_rank()
    if processes.count() > 1 and (name.startswith("cuda:") or index >= count):
        raise PruneError(
            f"device: {name}; {processes.count()} processes need a CUDA device each, and there are {count}",
            hint=f"--device cuda, and at most {count} processes",
        )
    if index >= count:
        raise PruneError(f"device: cuda:{index}; there are {count} CUDA devices, from cuda:0 on")
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    os.environ["CUDA_VISIBLE_DEVICES"] = visible[index] if visible != [""] else str(index)
    return torch.device("cuda", 0)


def resolve_precision(wanted: str, device: str) -> str:
    """float32 or bfloat16; `auto` is bfloat16 where the device of a `--device` value computes in it.

    torch is imported only where there may be a CUDA device to ask.
    """
    check_name(device)
    if wanted != "auto":
        return wanted
    if device == "cpu" or not _may_have_cuda():
        return "float32"
    import torch

    return "bfloat16" if use_device(device).type == "cuda" and torch.cuda.is_bf16_supported() else "float32"


def batch_limits(rows: int, tokens: int, device: str) -> tuple[int, int]:
    """Most rows and tokens in a batch; 0: what suits the device of a `--device` value.

    A GPU is done with a small batch sooner than it can be asked for the next; a batch that does not fit is halved.
    """
    check_name(device)
    if rows and tokens:
        return rows, tokens
    gpu = device != "cpu" and _may_have_cuda() and use_device(device).type == "cuda"
    usual = GPU_BATCH if gpu else CPU_BATCH
    return rows or usual[0], tokens or usual[1]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context that computes in bfloat16 where `precision` says so."""
    import torch

    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


def memory(device: torch.device) -> int:
    """Bytes of memory that the device has; of the CPU, those of the machine."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_name(name: str) -> None:
    """Raise PruneError unless it is a value of `--device`."""
    if not re.fullmatch(r"auto|cpu|cuda|cuda:[0-9]{1,4}", name):
        raise PruneError(f"device: {name}; allowed: auto, cpu, cuda or cuda:N")


def _may_have_cuda(devices: Path = Path("/dev")) -> bool:
    """Whether a CUDA device is possible: on Linux its driver shows itself as /dev/nvidia*, under WSL as /dev/dxg.

    ROCm's driver (which torch also calls cuda) shows itself as /dev/kfd.
    """
    if not sys.platform.startswith("linux"):
        return True
    return any(devices.glob("nvidia*")) or any((devices / name).exists() for name in ("dxg", "kfd"))
