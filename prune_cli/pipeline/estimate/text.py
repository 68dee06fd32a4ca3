"""What a run will take, in words."""

from __future__ import annotations

from prune_cli.pipeline.estimate import Estimate, Stage
from prune_cli.report.table import table
from prune_cli.report.units import duration, size

HEAD = ("stage", "steps", "rows", "tokens", "optimizer steps", "time", "peak memory", "disk")


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
