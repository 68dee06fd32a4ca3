"""The page: one HTML file that holds its figures and asks for nothing else.

Every value is escaped where it enters the page, control characters in it are written as escapes: here, in one place.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prune_cli.pipeline.evidence import LOWER, REFERENCES, is_without
from prune_cli.pipeline.page.alike import short
from prune_cli.pipeline.page.figures import Picture
from prune_cli.pipeline.page.figures.heat import largest
from prune_cli.report.units import duration, size
from prune_cli.runtime.drawing import ON_A_PAGE
from prune_cli.runtime.terminal import clean
from prune_cli.version import __version__

PIXELS = ON_A_PAGE / 105  # of a figure to one of the page, so that its letters are about as large as notes


def page(facts: Mapping[str, Any], pictures: Mapping[str, Picture], folder: Path) -> str:
    """The page that tells facts; pictures: those in the folder, by name."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(__package__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: clean(value) if type(value) is str else value,  # a subclass is markup of the page's own
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": number,
        "signed": signed,
        "duration": duration,
        "size": size,
        "square": square,
        "largest": largest,
        "short": short,
    }
    embedded = {name: _embedded(folder / Picture.file(name)) for name in pictures}
    template = environment.get_template("page.html")
    given = {"facts": facts, "lead": lead(facts), "pictures": pictures, "embedded": embedded, "version": __version__}
    return template.render(given) + "\n"


def lead(facts: Mapping[str, Any]) -> str:
    """The results in short: which methods are better than random somewhere, and what all rows come to."""
    better: dict[str, list[str]] = {}
    for line in facts["lines"]:
        for column, cell in zip(facts["columns"], line["cells"], strict=True):
            if not line["marked"] and any(d["verdict"] == "better" for d in cell["differences"]):
                better.setdefault(line["method"], []).append(f"{column['test']} {column['metric']} at {line['keep']}")
    if not better:
        told = "No method is better than a random draw of as many rows beyond noise, at any budget, on any test set."
        return told + _beside_all_rows(facts)
    where_better = "; ".join(f"{method} ({', '.join(where)})" for method, where in better.items())
    return f"Better than a random draw of as many rows, beyond noise: {where_better}." + _beside_all_rows(facts)


def _beside_all_rows(facts: Mapping[str, Any]) -> str:
    """What training on all rows and the best of methods and random draws come to, by the first column."""
    column = facts["columns"][0]
    means = {(line["method"], line["keep"]): line["cells"][0]["mean"] for line in facts["lines"]}
    means = {line: mean for line, mean in means.items() if mean is not None and not is_without(line[0])}
    full = next((mean for (method, _), mean in means.items() if method == "full"), None)
    pruned = {line: mean for line, mean in means.items() if line[0] not in REFERENCES}
    if full is None or not pruned:
        return ""
    method, keep = (min if column["metric"] in LOWER else max)(pruned, key=lambda line: pruned[line])
    return (
        f" By {column['test']} {column['metric']} all rows come to {number(full)}, and the best selection to "
        f"{number(pruned[method, keep])} ({method} at {keep})."
    )


def number(value: float | None, digits: int = 3) -> str:
    """A number with so many digits behind the point, or what there is in its place."""
    return "none" if value is None else f"{value:.{digits}f}".replace("-", "−")


def signed(value: float, digits: int = 3) -> str:
    """A difference: its sign is always there."""
    return f"{value:+.{digits}f}".replace("-", "−")


def square(pairs: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Pairs by both orders of their names."""
    return {names: pair for pair in pairs for names in ((pair["a"], pair["b"]), (pair["b"], pair["a"]))}


def _embedded(path: Path) -> dict[str, Any]:
    """A PNG file as the page holds it, and its size there."""
    data = path.read_bytes()
    width, height = (round(pixels / PIXELS) for pixels in struct.unpack(">II", data[16:24]))  # where PNG has its size
    return {"source": "data:image/png;base64," + base64.b64encode(data).decode(), "width": width, "height": height}
