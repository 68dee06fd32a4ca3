"""What selections and scores make of training rows that were corrupted on purpose, beside chance."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli.artifacts.jsonl import read_jsonl
from prune_cli.artifacts.manifest import PART, Artifact, is_artifact, open_artifact
from prune_cli.data.open import WHY
from prune_cli.numeric import overlap
from prune_cli.numeric.auc import auc
from prune_cli.report.table import table

CORRUPT = "corrupt"
TAIL = 0.025  # of chance, on either side


def facts(run: Path, trials: Iterable[tuple[str, str, int | None]]) -> dict[str, Any] | None:
    """What became of the corrupted rows in the folder of a pipeline; None where there are none.

    trials: method, keep and seed of each. Of a selection: which share of its rows is changed (`precision`) and which
    share of the changed rows is among them (`recall`); the same of the rows that it leaves out; `chance`, between
    which shares 95% of random draws lie; `repeats`, how many kept rows have a kept copy. Means over seeds. Of a score:
    the area under the ROC curve, the probability that a changed row has a higher one than another row.
    """
    if not is_artifact(run / CORRUPT):
        return None
    made = open_artifact(run / CORRUPT, CORRUPT)
    lines = [line for line in _why(made) if line["kept"]]
    changed = np.array([line["was"] is not None for line in lines])
    place = {str(line["id"]): i for i, line in enumerate(lines)}
    pairs = np.array([(i, place[str(of)]) for i, line in enumerate(lines) if (of := line["copy_of"]) is not None])
    kept: dict[tuple[str, str], dict[Path, NDArray[np.bool_]]] = {}
    for method, keep, seed in trials:
        path = _selected(run / "methods" / method / f"keep-{keep}", seed)
        if path and _about(artifact := open_artifact(path), made):
            kept.setdefault((method, keep), {})[path] = np.array([line["kept"] for line in _why(artifact)])
    if not kept:
        return None
    return {
        "rows": len(lines),
        "changed": int(changed.sum()),
        "copies": len(pairs),
        "left_out": made.about["left_out"],
        "selections": [
            {"method": method, "keep": keep, **_selection(np.stack(list(of_seeds.values())), changed, pairs)}
            for (method, keep), of_seeds in kept.items()
        ],
        "scores": [
            {"score": name, "seeds": len(scores), **asdict(auc(np.stack(scores), changed))}
            for name, scores in _scores(run, made).items()
            if 0 < changed.sum() < len(changed)
        ],
    }


def lines(found: Mapping[str, Any] | None) -> Iterator[str]:
    """The same in words: a line for each selection, and for each score."""
    if found is None:
        return
    n, changed = found["rows"], found["changed"]
    done = [f"{changed:,} ({changed / n:.1%}) were changed"] if changed else []
    done += [f"{found['copies']:,} are copies"] if found["copies"] else []
    done += [f"{found['left_out']:,} more, of rarer labels, were left out"] if found["left_out"] else []
    yield ""
    yield f"Of {n:,} training rows {', '.join(done)}."
    yield from table(_cells(found))
    if found["scores"]:
        yield "Probability that a changed row has a higher score than another, with its 95% interval; by chance 0.5:"
        yield from table([[f"  {own['score']}", _area(own)] for own in found["scores"]])


def _cells(found: Mapping[str, Any]) -> list[list[str]]:
    """The cells of the table of selections, head first; without columns that have nothing to tell."""
    changed, copies = found["changed"], found["copies"]
    rows = [["  method", "keep"]]
    rows[0] += ["changed of kept", "by chance", f"kept of {changed:,}"] if changed else []
    rows[0] += ["rows kept twice"] if copies else []
    for own in found["selections"]:
        if own["kept"] < found["rows"]:
            cells = [f"  {own['method']}", own["keep"]]
            if changed:
                low, high = own["chance"]
                cells += [f"{own['precision']:.1%}", f"{low:.1%} to {high:.1%}", f"{own['recall']:.1%}"]
            rows.append([*cells, *([f"{own['repeats']:g}"] if copies else [])])
    return rows


def _area(own: Mapping[str, Any]) -> str:
    interval = f" [{own['low']:.3f}, {own['high']:.3f}]" if own["low"] is not None else ""
    return f"{own['area']:.3f}{interval}"


def _selection(kept: NDArray[np.bool_], changed: NDArray[np.bool_], pairs: NDArray[np.int64]) -> dict[str, Any]:
    """What selections of one size, kept [s, n], have of the rows changed [n], and of the pairs of rows and copies."""
    n, size, of_all = len(changed), int(kept[0].sum()), int(changed.sum())
    inside = float((kept & changed).sum(axis=1).mean())
    chance = overlap.chance(n, size, of_all)
    sums = np.cumsum(chance.probabilities)
    at = np.minimum(np.searchsorted(sums, [TAIL, 1 - TAIL]), len(sums) - 1)
    return {
        "seeds": len(kept),
        "kept": size,
        "precision": inside / size,
        "recall": inside / of_all if of_all else None,
        "precision_left_out": (of_all - inside) / (n - size) if size < n else None,
        "recall_left_out": 1 - inside / of_all if of_all else None,
        "chance": (chance.counts[at] / size).tolist(),
        "repeats": float(kept[:, pairs].all(axis=2).sum(axis=1).mean()) if len(pairs) else 0.0,
    }


def _selected(budget: Path, seed: int | None) -> Path | None:
    """The selection of a trial: of its seed, or of all seeds where nothing is drawn."""
    places = (budget / f"seed-{seed}" / "select", budget / "select")
    return next((path for path in places if is_artifact(path)), None)


def _scores(run: Path, made: Artifact) -> dict[str, list[NDArray[np.float64]]]:
    """Name -> the scores of the corrupted rows, one for each seed."""
    found: dict[str, list[NDArray[np.float64]]] = {}
    for path in sorted((run / "score").glob("*")):
        if not path.name.endswith(PART) and is_artifact(path) and _about(artifact := open_artifact(path), made):
            values = artifact.read("score.jsonl", lambda file: [line["score"] for line in read_jsonl(file)])
            found.setdefault(re.sub(r"-seed-\d+$", "", path.name), []).append(np.array(values, np.float64))
    return found


def _about(artifact: Artifact, made: Artifact) -> bool:
    """Whether an artifact is about the corrupted rows."""
    return artifact.inputs["rows"] == made.about["digest"]


def _why(artifact: Artifact) -> list[dict[str, Any]]:
    return artifact.read(WHY, lambda file: list(read_jsonl(file)))
