"""Advice in words, and as JSON values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prune_cli.numeric.inference import Difference
from prune_cli.pipeline.advise.choice import FULL, NONE, Advice, Line
from prune_cli.pipeline.advise.cost import Cost
from prune_cli.pipeline.evidence import BASELINE, visible


@dataclass(frozen=True)
class Price:
    """What a pick costs, and how its rows are chosen. rows: the selection that holds them, where there is one."""

    cost: Cost | None
    commands: list[str]
    rows: str | None


Prices = dict[tuple[str, str], Price]


def facts(path: str, found: Sequence[Advice], prices: Prices) -> dict[str, Any]:
    """The advice for each test set as JSON values."""
    return {"path": path, "advice": [_facts(advice, prices) for advice in found]}


def lines(found: Sequence[Advice], prices: Prices) -> list[str]:
    """The advice in words; at the end the commands that choose the rows of what it names."""
    told = [line for advice in found for line in _told(advice, prices)]
    named = {(line.method, line.keep): line for advice in found for line in _to_choose(advice)}
    recommended = {(advice.recommended.method, advice.recommended.keep) for advice in found}
    for key, line in named.items():
        price, rows = prices[key], f"the rows of {line.method}, keep {line.keep}"
        told += ["", f"To choose {rows}:" if key in recommended else f"If you prune all the same, to choose {rows}:"]
        told += [f"  {command}" for command in price.commands]
        told += [f"  # {price.rows} holds them already"] if price.rows else []
    return told


def _to_choose(advice: Advice) -> list[Line]:
    """What is recommended, or the pick of each budget where that is no selection."""
    return [advice.recommended] if advice.recommended in advice.picks else advice.picks


def _facts(advice: Advice, prices: Prices) -> dict[str, Any]:
    return {
        "test": advice.test,
        "metric": advice.metric,
        "margin": advice.margin,
        "recommended": {"method": advice.recommended.method, "keep": advice.recommended.keep},
        "why": advice.why,
        "detectable": advice.detectable,
        "picks": [{**asdict(pick), **_price(prices[pick.method, pick.keep])} for pick in advice.picks],
        "lines": [asdict(line) for line in advice.lines],
    }


def _price(price: Price) -> dict[str, Any]:
    seconds = {**asdict(price.cost), "saved": price.cost.saved} if price.cost else None
    return {"seconds": seconds, "commands": price.commands, "selection": price.rows}


def _told(advice: Advice, prices: Prices) -> Iterator[str]:
    """What to do for a test set; then what each budget came to."""
    chosen = advice.recommended
    yield f"{advice.test}, by {advice.metric}: {_do(chosen)}: {chosen.mean:.3f}; {advice.why}"
    for pick in advice.picks:
        yield f"  keep {pick.keep}, {pick.kept:,} rows: {'; '.join(_findings(pick, advice))}"
        if cost := prices[pick.method, pick.keep].cost:
            yield f"    {_seconds(cost)}"


def _do(line: Line) -> str:
    """What to do, in words."""
    if line.method == NONE:
        return "do not train"
    if line.method == FULL:
        return "train on all rows"
    drawn = "drawn at random" if line.method == BASELINE else f"chosen by {line.method}"
    return f"keep {line.keep}, {drawn}"


def _findings(pick: Line, advice: Advice) -> Iterator[str]:
    yield f"{pick.method} {pick.mean:.3f}"
    if pick.over_random:
        yield f"{interval(pick.over_random)} over random"
    elif advice.detectable is not None:
        yield f"no method is better than random ({visible(advice.detectable, advice.metric)})"
    if pick.to_full:
        yield f"{interval(pick.to_full)} against all rows" + (", within the margin" if pick.within else "")
    if pick.over_none:
        yield f"{interval(pick.over_none)} over no training"


def _seconds(cost: Cost) -> str:
    saves = f"{cost.saved:.1f} s saved" if cost.saved >= 0 else f"{-cost.saved:.1f} s lost"
    told = f"choosing {cost.choosing:.1f} s, training {cost.training:.1f} s; on all rows {cost.all_rows:.1f} s: {saves}"
    each = cost.all_rows - cost.training
    if cost.saved < 0 < each:
        told += f" by one training, regained by {int(-(-cost.choosing // each))}"
    return told


def interval(found: Difference) -> str:
    """A difference with its 95% interval."""
    return f"{found.estimate:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"
