"""How much memory this process has used."""

from __future__ import annotations

import resource
from contextlib import suppress
from pathlib import Path


def peak_kib() -> int:
    """Peak resident memory in KiB; where the system tells it, without that of the process that started this one."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    own = [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]
    return own[0] if own else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def forget_peak() -> None:
    """Count the peak from what is held now, where the system can: each of several stages has its own."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
