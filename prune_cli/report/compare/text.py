"""What `prune compare` found, in words and tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from prune_cli.report.compare.scores import BEYOND, beyond
from prune_cli.report.table import table
from prune_cli.stages.counts import MOST

UNCOUNTED = f" (made by an older version, or more than {MOST:,} of them)"
PAIRS = 10  # pairs of selections of different sizes that are listed
COLUMNS = 8  # labels or groups that have a column each
NAMED = 3  # of more of them, those that are named in a line


def text(facts: dict[str, Any]) -> str:
    """All that was found; a part without anything to tell is left out."""
    parts = [
        _head(facts),
        _correlations(facts["correlations"]),
        *_same_size(facts),
        _other_sizes(facts["overlaps"]),
        *(_shares(what, found) for what, found in facts["shares"].items() if found),
        _quantiles(facts["quantiles"]),
        *_representations(facts["representations"]),
    ]
    return "\n\n".join("\n".join(lines) for lines in parts if lines)


def _head(facts: dict[str, Any]) -> list[str]:
    found = {
        "score": len(facts["scores"]),
        "selection": len(facts["selections"]),
        "representation": len(facts["representations"].get("each", [])),
    }
    counted = [f"{n} {what}{'s' if n > 1 else ''}" for what, n in found.items() if n]
    left_out = [f"{name} is left out: {why}" for name, why in facts["left_out"].items()]
    return [f"{', '.join(counted)} of {facts['rows']:,} rows", *left_out]


def _correlations(pairs: Sequence[dict[str, Any]]) -> list[str]:
    if not pairs:
        return []
    cells = [
        [f"  {pair['a']}", pair["b"], *(_correlation(pair, which) for which in ("spearman", "pearson"))]
        for pair in pairs
    ]
    return ["Correlation of scores, with 95% intervals", *table([["", "", "Spearman", "Pearson"], *cells])]


def _correlation(pair: dict[str, Any], which: str) -> str:
    r, interval = pair[which], pair[f"{which}_interval"]
    if r is None:
        return "none: a score is constant"
    return f"{r:+.2f}" + (f" [{interval[0]:+.2f}, {interval[1]:+.2f}]" if interval else "")


def _same_size(facts: dict[str, Any]) -> list[list[str]]:
    """For each size of selections a matrix of what each two have in common."""
    found = []
    for size in sorted(set(facts["selections"].values())):
        names = [name for name, rows in facts["selections"].items() if rows == size]
        pairs = {(pair["a"], pair["b"]): pair for pair in facts["overlaps"]}
        if len(names) < 2:
            continue
        chance = pairs[names[0], names[1]]
        found.append(
            [
                f"Selections of {size:,} rows: share in common below the diagonal "
                f"(by chance {chance['chance_overlap']:.3f}),",
                f"Jaccard index above it (by chance {chance['chance_jaccard']:.3f}); "
                f"+ more than by chance, - less (p < {BEYOND})",
                *_matrix(
                    names,
                    lambda a, b, pairs=pairs: _value(pairs[a, b], "overlap"),  # type: ignore[misc]
                    lambda a, b, pairs=pairs: _value(pairs[a, b], "jaccard"),  # type: ignore[misc]
                ),
            ]
        )
    return found


def _value(pair: dict[str, Any], which: str) -> str:
    return f"{pair[which]:.3f}{beyond(pair)}"


def _matrix(names: Sequence[str], below: Callable[[str, str], str], above: Callable[[str, str], str]) -> list[str]:
    """Names down the side and their numbers on top; each two values of a pair (the earlier name first)."""
    rows = [["", "", *(str(i + 1) for i in range(len(names)))]]
    for i, name in enumerate(names):
        cells = [
            "." if i == j else below(other, name) if j < i else above(name, other) for j, other in enumerate(names)
        ]
        rows.append([f"  {i + 1}", name, *cells])
    return table(rows)


def _other_sizes(pairs: Sequence[dict[str, Any]]) -> list[str]:
    others = [pair for pair in pairs if pair["rows"][0] != pair["rows"][1]]
    if not others:
        return []
    title = f"Selections of different sizes: {len(others)} pair{'s' if len(others) > 1 else ''}"
    if len(others) > PAIRS:
        return [f"{title}, which --json tells"]
    head = ["", "", "rows", "in common", "by chance", "Jaccard", "by chance"]
    cells = [
        [
            f"  {pair['a']}",
            pair["b"],
            f"{pair['rows'][0]:,} and {pair['rows'][1]:,}",
            _value(pair, "overlap"),
            f"{pair['chance_overlap']:.3f}",
            _value(pair, "jaccard"),
            f"{pair['chance_jaccard']:.3f}",
        ]
        for pair in others
    ]
    return [f"{title}; + more in common than by chance, - less (p < {BEYOND})", *table([head, *cells])]


def _shares(what: str, found: dict[str, Any]) -> list[str]:
    of_all, chosen = found["all"], found["selections"]
    older = [f"  {name}: not counted{UNCOUNTED}" for name, own in chosen.items() if own is None]
    known = {name: own for name, own in chosen.items() if own}
    title = f"Share of each {what}"
    if len(of_all) > COLUMNS:
        lost = [f"  {name}: {_lost(own, of_all)}" for name, own in known.items() if own["gone"] or own["halved"]]
        return [
            f"{title}: what lost more than half of its share, of {len(of_all):,} {what}s",
            *(lost or ["  none did"]),
            *older,
        ]
    rows = [[f"  {what}", *of_all], ["  all rows", *(f"{value:.3f}" for value in of_all.values())]]
    for name, own in known.items():
        rows.append([f"  {name}", *(_share(own, label) for label in of_all)])
    return [f"{title}; ! lost more than half of it", *table(rows), *older]


def _share(own: dict[str, Any], name: str) -> str:
    if name in own["gone"]:
        return "none !"
    return f"{own['shares'][name]:.3f}" + (" !" if name in own["halved"] else "")


def _lost(own: dict[str, Any], of_all: dict[str, float]) -> str:
    told = []
    if gone := own["gone"]:
        told.append(f"{len(gone):,} with no row: {_first([f'{name} ({of_all[name]:.3f})' for name in gone])}")
    if halved := own["halved"]:
        changes = [f"{name} ({of_all[name]:.3f} -> {own['shares'][name]:.3f})" for name in halved]
        told.append(f"{len(halved):,} with less: {_first(changes)}")
    return "; ".join(told)


def _first(named: Sequence[str]) -> str:
    return ", ".join(named[:NAMED]) + (", …" if len(named) > NAMED else "")


def _quantiles(found: dict[str, dict[str, float]]) -> list[str]:
    if not found:
        return []
    rows = [["  under", *next(iter(found.values()))]]
    rows += [[f"  {name}", *(f"{value:.3f}" for value in own.values())] for name, own in found.items()]
    return [
        "Mean rank quantile of the kept rows under each score (1 the highest; 0.5 is that of all rows)",
        *table(rows),
    ]


def _representations(found: dict[str, Any]) -> list[list[str]]:
    if not found:
        return []
    names = [own["name"] for own in found["each"]]
    pairs = {(pair["a"], pair["b"]): pair for pair in found["pairs"]}
    drawn = f"of {found['rows']:,} rows"
    parts = []
    if pairs:
        parts.append(
            [
                f"Representations: linear CKA below the diagonal (0 if unrelated, of {found['cka_rows']:,} rows),",
                f"share of the {found['k']} nearest neighbours in common above it "
                f"(by chance {found['chance_in_common']:.3f}, {drawn})",
                *_matrix(
                    names,
                    lambda a, b: "none" if pairs[a, b]["cka"] is None else f"{pairs[a, b]['cka']:.3f}",
                    lambda a, b: f"{pairs[a, b]['in_common']:.3f}",
                ),
            ]
        )
    pure = [own for own in found["each"] if "purity" in own]
    if pure:
        title = f"Share of the {found['k']} nearest neighbours with the row's label"
        cells = [[f"  {own['name']}", f"{own['purity']:.3f}"] for own in pure]
        parts.append([f"{title} (by chance {pure[0]['chance_purity']:.3f}, {drawn})", *table(cells)])
    return parts
