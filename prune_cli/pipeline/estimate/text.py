"""What a run will take, in words."""

from __future__ import annotations

import math

from prune_cli.pipeline.estimate import Estimate, Stage
from prune_cli.report.table import table

HEAD = ("stage", "steps", "rows", "tokens", "optimizer steps", "time", "peak memory", "disk")
UNITS = ("kB", "MB", "GB", "TB")


def text(estimate: Estimate) -> str:
    """The table, and under it what it rests on."""
    current = f"{estimate.current} steps are up to date and count nothing"
    if not estimate.stages:
        return f"nothing to do: {current}"
    shown = [*estimate.stages, estimate.total]
    on_device = estimate.total.peak_device_memory_mb is not None
    head = [*HEAD, *(["peak on the device"] if on_device else [])]
    lines = table([head, *(_cells(stage, on_device) for stage in shown)])
    lines += [
        f"measured in {estimate.seconds_measured:.0f} s, on {' and '.join(f'{n:,}' for n in estimate.rehearsed)} "
        "training rows and as few others",
        "rows and tokens are those that go in, once for each step; time is that of one step after another",
        f"the total has {duration(estimate.start)} for the start: loading libraries, first use of the device",
    ]
    return "\n".join([*lines, *([current] if estimate.current else []), *estimate.notes])


def _cells(stage: Stage, on_device: bool) -> list[str]:
    least = "at least " if stage.unknown else ""
    known = stage.unknown < stage.steps
    cells = [
        stage.stage,
        f"{stage.steps:,}",
        f"{stage.rows:,}",
        f"{stage.tokens:,}" if stage.tokens else "",
        f"{stage.optimizer_steps:,}" if stage.optimizer_steps else "",
        least + duration(stage.seconds) if known else "not measured",
        size(stage.peak_memory_mb * 2**20) if known else "",
        least + size(stage.bytes) if known else "",
    ]
    device = stage.peak_device_memory_mb
    return [*cells, *([size(device * 2**20) if device is not None else ""] if on_device else [])]


def duration(seconds: float) -> str:
    """Seconds in words: 12 s, 3.5 min, 2.0 h."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes in words: 12 kB, 1.2 GB."""
    power = min(max(int(math.log10(max(count, 1)) / 3), 1), len(UNITS))
    count /= 1000**power
    return f"{count:.1f} {UNITS[power - 1]}" if count < 10 else f"{count:.0f} {UNITS[power - 1]}"
