"""A folder that `datasets.load_dataset` reads: a Parquet file, and a card that says where the rows are from."""

from __future__ import annotations

from pathlib import Path

from prune_cli.export._card import card
from prune_cli.export._kept import Kept
from prune_cli.export._table import TRAIN, write_parquet


def write(kept: Kept, folder: Path) -> None:
    """Write `train.parquet` and the card `README.md`."""
    write_parquet(kept.rows, folder / TRAIN)
    (folder / "README.md").write_text(card(kept), "utf-8")
