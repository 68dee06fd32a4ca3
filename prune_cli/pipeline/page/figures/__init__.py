"""The figures of a page: which there are, where each is drawn, and how to read it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_cli.pipeline.page.figures import heat, lines, points
from prune_cli.pipeline.page.maps import KEPT
from prune_cli.report.compare.scores import BEYOND
from prune_cli.runtime.progress import progress

Facts = Mapping[str, Any]
Draw = Callable[[Path, Facts], None]


@dataclass(frozen=True)
class Picture:
    """A figure: its title, what it shows for those who cannot see it, and a caption that says how to read it."""

    title: str
    alt: str
    caption: str

    @staticmethod
    def file(name: str) -> str:
        """The PNG file of a picture, by its name."""
        return f"{name}.png"


def draw(facts: Facts, folder: Path) -> dict[str, Picture]:
    """Draw into a folder what the facts allow; name -> picture."""
    wanted = list(_wanted(facts))
    with progress("report, figures", len(wanted)) as advance:
        for name, drawing, _ in wanted:
            drawing(folder / Picture.file(name), facts)
            advance(1)
    return {name: picture for name, _, picture in wanted}


def _wanted(facts: Facts) -> Iterator[tuple[str, Draw, Picture]]:
    if lines.methods_of(facts):
        yield "performance", lines.performance, _performance(facts)
    if len(facts["correlations"]["order"]) > 1:
        yield "correlations", heat.correlations, _correlations()
    for i, found in enumerate(facts["overlaps"]):
        yield f"overlap-{found['rows']}", heat.overlaps(i), _overlaps(found)
    if facts["data_map"]:
        yield "data-map", points.data_map, _data_map(facts["data_map"])
    if facts["histograms"]:
        yield "histograms", lines.histograms, _histograms(facts["labels"])
    if facts["plane"]:
        yield "plane", points.plane, _plane(facts["plane"])
    for what in (what for what, found in facts["shares"].items() if found["all"]):
        yield f"{what}-shares", heat.shares(what), _shares(what)


def _performance(facts: Facts) -> Picture:
    columns = ", ".join(f"{column['test']} {column['metric']}" for column in facts["columns"])
    several = " The methods are spread over several panels, so that lines can be told apart; the grey is in all."
    return Picture(
        "Performance against budget",
        f"Lines of {columns} against the number of kept rows for each method, with random, full and none. "
        "The numbers are those of the table of results.",
        "Each line is a method: the mean over seeds at each budget, with a band of one sample deviation to each "
        "side. Grey is what methods are held against: random (dotted), all rows (full, solid) and no training at all"
        " (none, dash-dotted), where they were run, each with its band. A method is worth its price where its line "
        "is above the dotted one of random and its band (below them, for a loss). With one budget lines are points, "
        "and their bands bars. Bands show how runs vary, not whether a difference is certain: that is "
        "what the table says." + (several if len(lines.chunks(facts)) > 1 else ""),
    )


def _correlations() -> Picture:
    return Picture(
        "Correlation of scores",
        "A heat map of Spearman's correlation of each two scores. The numbers are in the table below it.",
        "Spearman's correlation of each two scores over all training rows: 1 means that both put the rows in the same "
        "order, 0 that they have nothing to do with each other, −1 the reverse order. Scores that are alike stand "
        "together (average linkage). Bright is more alike. Of a block of bright cells you need to try only one.",
    )


def _overlaps(found: Facts) -> Picture:
    chance = found["pairs"][0]["chance_overlap"]
    return Picture(
        f"Overlap of selections of {found['rows']:,} rows",
        f"A heat map of the share of rows that each two selections of {found['rows']:,} rows have in common. "
        "The numbers are in the table below it.",
        f"The share of its {found['rows']:,} rows that a selection has in common with another. Two random draws would "
        f"share {chance:.3f}; + marks more than chance gives, − less (p < {BEYOND} for a pair). Bright is more. Of "
        "several seeds the first is shown. Selections that are alike stand together.",
    )


def _data_map(found: Facts) -> Picture:
    n = len(found["correct"])
    return Picture(
        "Data map",
        f"A scatter plot of {n:,} rows: confidence against variability, coloured by how often the model was right.",
        f"{_drawn(n, found['of'])} Up: the mean probability of the right answer over {found['checkpoints']} "
        "checkpoints (confidence). To the right: how much it changes between them (variability). Colour and mark: at "
        "how many checkpoints the model was right. Upper left: easy rows, learnt early. Right: ambiguous rows, which "
        "the model changes its mind about. Lower left: rows that it never learns, hard ones and those with wrong "
        "labels.",
    )


def _histograms(labels: list[str]) -> Picture:
    if not labels:
        return Picture(
            "How scores are spread",
            "For each score a histogram of the rows.",
            "How each score is spread: the height is the share of the rows in a bin.",
        )
    return Picture(
        "Scores by label",
        "For each score a histogram of the rows of each label.",
        "How each score is spread over the rows of each label: the height is the share of the label's rows in a bin. "
        "Where labels lie apart, the top of the score is made of some labels only: balance the selection (balance = "
        '"keep"), or it changes what the model learns about how frequent a label is.',
    )


def _plane(found: Facts) -> Picture:
    first, second = (f"{share:.0%}" for share in found["shares"])
    labelled = len(found["labels"]) > 1
    first_panel = "labels" if labelled else "all rows"
    others = f" The run has other representations too: {', '.join(found['others'])}." if found["others"] else ""
    return Picture(
        "Where the selections lie",
        f"Scatter plots of the rows in a plane of the representation {found['kind']}: "
        f"{'by label' if labelled else 'all'}, and what each method keeps at its smallest budget.",
        f"{_drawn(len(found['label']), found['of'])} The plane is that in which rows of the representation "
        f"{found['kind']} differ most: its first two principal components, {first} and {second} of the variance. What "
        f"lies apart here is apart; what lies together may not be. First panel: {first_panel}. In each other panel "
        f"blue points are kept by the method at its smallest budget, at most {KEPT} of them; grey are the rows of the "
        "first panel. A random draw covers the grey evenly; a method that picks one corner leaves the rest of the data "
        f"to what the model knows already.{others}",
    )


def _shares(what: str) -> Picture:
    more = "" if what == "label" else " Groups are those of the rows' key group."
    return Picture(
        f"Share of each {what}",
        f"A heat map of the share of each {what} in each selection. The numbers are in the table below it.",
        f"The share of each {what} among the kept rows, in per cent; the first line is that of all rows. Colour says "
        f"how it changed: dark lost, bright gained, up to four times. An exclamation mark says that a {what} lost more "
        f"than half of its share or has no row left: a model trained on these rows hardly knows it.{more}",
    )


def _drawn(n: int, of: int) -> str:
    return f"All {n:,} rows." if n == of else f"{n:,} of {of:,} rows, drawn at random."
