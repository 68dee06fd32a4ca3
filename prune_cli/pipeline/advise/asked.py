"""What `prune advise` is asked about trials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from prune_cli.data.open import Reading


@dataclass(frozen=True)
class Asked:
    """What trials are to be made of, and for how long. None: not said.

    test: rows to measure on; else a half of the target set. methods: in place of all that fit the task.
    """

    out: Path | None = None
    model: str | None = None
    target: str | None = None
    test: str | None = None
    keep: str | None = None
    budget: str | None = None
    methods: str | None = None
    seed: int | None = None
    device: str | None = None
    reading: Reading | None = None
