"""What a run of the pipeline came to, in words."""

from __future__ import annotations

from prune_cli.pipeline import attribution, evidence
from prune_cli.pipeline.results import Report, table
from prune_cli.report import corruption
from prune_cli.report.table import table as aligned


def text(report: Report) -> str:
    """The tables, and under them what they show beyond chance, how scores predict, and what of corrupted rows."""
    lines = aligned(list(table(report)))
    if report.without:
        lines += ["", *aligned(list(table(report, without=True)))]
    lines += evidence.told(report.comparisons)
    lines += attribution.lines(report.lds)
    lines += corruption.lines(report.corruption)
    return "\n".join(lines)
