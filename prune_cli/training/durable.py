"""Bring files safely to disk, so that not even a power cut leaves a part of them."""

from __future__ import annotations

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Bring one file, or the list of names in a folder, safely to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Bring a folder with everything in it safely to disk."""
    for path in (*folder.rglob("*"), folder):
        sync(path)
