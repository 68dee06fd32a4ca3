"""Figures in one style: sizes, fonts, colours that colour-blind readers tell apart, and names as plain text.

The colours are those of Okabe and Ito; in grey, lines and points are told apart by their marks.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_cli.runtime.terminal import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 7.2  # inches: a page's text
BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"
COLOURS = (BLUE, VERMILION, GREEN, PURPLE, ORANGE, SKY)
MARKS = "os^DvPX*<>"
ON_A_PAGE = 150  # dots an inch of figures that a page holds
LONGEST = 28  # characters of a name


@contextmanager
def figure(path: Path, height: float, caption: str = "", *, width: float = WIDTH, dpi: int = 200) -> Iterator[Figure]:
    """A figure of `height` inches, above its caption if it has one; written to `path` when the block ends well."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    lines = textwrap.wrap(caption, 124)
    below = 0.2 + 0.145 * len(lines) if lines else 0.0
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update({"font.size": 8, "axes.titlesize": 8, "legend.frameon": False})
        rect = (0, below / (height + below), 1, height / (height + below))
        whole = Figure(figsize=(width, height + below), layout=ConstrainedLayoutEngine(rect=rect))
        yield whole
        if lines:
            whole.text(0.02, 0.1 / (height + below), "\n".join(lines), fontsize=8, va="bottom", linespacing=1.3)
        whole.savefig(path, dpi=dpi, metadata={"Software": None})


def named(text: Any) -> str:
    """A name as figures show it: on one line, not too long, no formula; letters that the font lacks as escapes."""
    short = " ".join(clean(str(text)).split()) or "(empty)"
    short = short if len(short) <= LONGEST else short[: LONGEST - 1] + "…"
    escaped = (c if ord(c) in _letters() else c.encode("unicode_escape").decode() for c in short)
    return "".join(escaped).replace("$", r"\$")


@cache
def _letters() -> frozenset[int]:
    """The letters of the font that figures are set in."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset(get_font(findfont("DejaVu Sans")).get_charmap())
