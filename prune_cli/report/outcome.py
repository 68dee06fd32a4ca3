"""What a stage did, in JSON values and in words."""

from __future__ import annotations

import json
from typing import Any

from prune_cli.artifacts.drafts import NEW
from prune_cli.artifacts.manifest import open_artifact
from prune_cli.report import simulation
from prune_cli.report.contents import metrics_of
from prune_cli.stages.common import Outcome

PAGE, FACTS = "report.html", "facts.json"  # of a report


def facts(done: Outcome) -> dict[str, Any]:
    """What a stage did, with what was kept (select) or measured (eval)."""
    values: dict[str, Any] = {
        "path": str(done.out),
        "stage": done.stage,
        "state": done.state,
        "reason": done.reason,
        "seconds": round(done.seconds, 2),
    }
    if done.state == "would run":
        return values
    if done.stage == "select":
        about = open_artifact(done.out).about
        values |= {name: about[name] for name in ("kept", "rows", "candidates") if name in about}
    if done.stage == "eval":
        values["metrics"] = metrics_of(open_artifact(done.out))
    if done.stage == "report":
        values |= {
            "page": str(done.out / PAGE),
            "facts": json.loads(open_artifact(done.out).file(FACTS).read_text("utf-8")),
        }
    if done.stage == "simulate":
        values |= simulation.facts(open_artifact(done.out))
    return values


def lines(values: dict[str, Any]) -> list[str]:
    """What a stage did, in words."""
    stage = values["stage"]
    told = [f"{stage}: {happened(values['state'], values['reason'], values['seconds'])}"]
    if "kept" in values:
        among = f"{values['candidates']} that may be kept, of " if "candidates" in values else ""
        told.append(f"{stage}: kept {values['kept']} of {among}{values['rows']} rows")
    for name, metrics in values.get("metrics", {}).items():
        measured = sorted((key for key in metrics if isinstance(metrics[key], float)), key=lambda key: key == "loss")
        numbers = ", ".join(f"{key} {metrics[key]:.4f}" for key in measured)
        told.append(f"{stage}: {name}: {numbers}, n {metrics['n']}")
    if "page" in values:
        told.append(f"{stage}: a browser opens {values['page']}")
    return told + (simulation.lines(values) if "summary" in values else [])


def happened(state: str, reason: str, seconds: float) -> str:
    """The outcome of a step, in words."""
    if state == "current":
        return "up to date"
    if state == "would run":
        return f"would run: {reason}"
    return f"made in {seconds:.1f} s" + (f" ({reason})" if reason != NEW else "")
