"""The card of a data set: a README.md whose head the library datasets reads, and how the rows were chosen in words."""

from __future__ import annotations

from prune_cli.export._kept import Kept
from prune_cli.export._table import TRAIN

SIZES = (("n<1K", 10**3), ("1K<n<10K", 10**4), ("10K<n<100K", 10**5), ("100K<n<1M", 10**6), ("1M<n<10M", 10**7))


def card(kept: Kept, *more: str) -> str:
    """The card's text; more: paragraphs behind it."""
    size = next((name for name, below in SIZES if kept.n < below), "10M<n<100M")
    head = f"""\
---
configs:
- config_name: default
  data_files:
  - split: train
    path: {TRAIN}
size_categories:
- {size}
tags:
- data-pruning
---
"""
    table = ["| | |", "|---|---|", *(f"| {what} | {_escaped(told)} |" for what, told in kept.about.items())]
    text = ["# Kept rows", "A selection of training rows, made by prune-cli.", "\n".join(table), *more]
    return head + "\n" + "\n\n".join(text) + "\n"


def _escaped(text: str) -> str:
    """A text as a cell of a table."""
    return " ".join(text.split()).replace("|", "\\|")
