"""Every family of models through finetune, represent and eval: what works of it, as a part of `prune guide models`.

`python -m tests.harness.sweep` tries all of them and writes that part anew.
"""

from __future__ import annotations

import gc
import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import transformers

from prune_cli import tasks
from prune_cli.artifacts import tensors
from tests.conftest import REPOSITORY, Prune, Ran, run_here, sentences, write_rows
from tests.harness import families

PAGE = REPOSITORY / "prune_cli/guide/models.md"
HEADING = "## Families tried\n"  # from here to the end of the page
ROWS: dict[str, list[dict[str, Any]]] = {
    "classification": sentences(6),
    "choice": [{"question": row["text"], "choices": ["good film", "bad"], "label": 1} for row in sentences(6)],
    "generation": [{"prompt": "the film is", "response": row["text"]} for row in sentences(6)],
}
UNTRIED, WORKS, ALONE, NO_HIDDEN, NO_UNPROMPTED, NO_LORA, REFUSED, BROKEN = (
    "Not tried, as transformers makes no tiny model of them here",
    "All kinds, full training and LoRA",
    "`gradient` and `influence` with `--batch-size 1` only",
    "No `hidden`",
    "No `unprompted`",
    "No LoRA on all linear layers",
    "Refused",
    "Broken",
)


@dataclass(frozen=True)
class Tried:
    """Where a family belongs, and what prune said where something was refused."""

    lists: frozenset[str]
    said: tuple[str, ...] = ()


def auto_model(task: str) -> str:
    """The transformers class of a task's models."""
    return tasks.load(task).AUTO_MODEL


def attempt(prune: Prune, task: str, family: str, folder: Path) -> Tried:
    """Train a tiny model of the family, represent rows by it in every way, train it on, and evaluate it."""
    try:
        families.save(auto_model(task), family, folder / "model")
    except Exception as failure:  # whatever its config or its code raises
        return Tried(frozenset({UNTRIED}), (f"{type(failure).__name__}: {failure}",))
    data = write_rows(folder / "rows.jsonl", ROWS[task])
    lists: set[str] = set()
    said: list[str] = []

    def works(*command: object, otherwise: str) -> bool:
        """Whether the command does it; what it cannot do it says in one line."""
        ran: Ran = prune(*command, "--device", "cpu")
        if ran.code:
            assert ran.code == 1 and len(ran.errors) == 1 and ran.out == "", (family, command, ran.err)
            lists.add(otherwise)
            said.append(f"{command[0]}: {ran.errors[0]}")
        return ran.code == 0

    def train(model: Path, out: Path, *more: object, otherwise: str = REFUSED) -> bool:
        length = [] if "--steps" in more else ["--epochs", 1]
        options = [*length, "--batch-size", 4, "--learning-rate", "1e-3", "--task", task]
        return works("finetune", data, "-o", out, "--model", model, *options, *more, otherwise=otherwise)

    def represent(model: Path, kinds: str, *more: object, otherwise: str) -> Path | None:
        out = folder / f"{model.name}-{kinds}{len(more)}"
        options = ["--checkpoints", "all", "--dim", 64] if "gradient" in kinds else ["--checkpoints", "all"]
        command = ["represent", data, "-o", out, "--model", model, "--kind", kinds, "--batch-size", 3, *options, *more]
        return out if works(*command, otherwise=otherwise) else None

    def evaluate(model: Path, represented: Path, rows: int) -> None:
        """The last checkpoint is the model: the loss that it was represented with is that of the evaluation."""
        short = ["--max-new-tokens", 4] if task == "generation" else []
        out = folder / f"{model.name}-eval"
        if works("eval", model, f"test={data}", "-o", out, "--batch-size", rows, *short, otherwise=REFUSED):
            loss = json.loads((out / "metrics.json").read_text())["test"]["loss"]
            logprobs = tensors.load(represented / "dynamics.safetensors")["logprob"][:, -1]
            np.testing.assert_allclose(-logprobs.mean(dtype=np.float64), loss, rtol=1e-3, err_msg=family)

    model, adapted = folder / "trained", folder / "adapted"
    if train(folder / "model", model, "--keep-checkpoints", "epoch"):
        every = "dynamics,hidden,gradient" + (",unprompted" if task == "generation" else "")
        represented = represent(model, every, otherwise=WORKS)  # or, where something is refused, one by one
        if not represented:
            lists.clear()
            said.clear()
            represented = represent(model, "dynamics", otherwise=REFUSED)
            represent(model, "hidden", otherwise=NO_HIDDEN)
            if task == "generation":
                represent(model, "unprompted", otherwise=NO_UNPROMPTED)
            if not represent(model, "gradient", otherwise=ALONE):
                represent(model, "gradient", "--batch-size", 1, otherwise=REFUSED)
        rows = 1 if ALONE in lists else 3
        represent(model, "influence", "--batch-size", rows, "--target-data", data, otherwise=REFUSED)
        if represented:
            evaluate(model, represented, 3)
        train(model, folder / "on", "--steps", 1)
        lora = ["--tune", "lora", "--lora-rank", 2, "--keep-checkpoints", "epoch"]
        if train(folder / "model", adapted, *lora, otherwise=NO_LORA) and (
            represented := represent(adapted, "dynamics,gradient", "--batch-size", 1, otherwise=NO_LORA)
        ):
            evaluate(adapted, represented, 1)
    return Tried(frozenset(lists or {WORKS}), tuple(said))


def table(tried: dict[str, dict[str, Tried]]) -> str:
    """The part of the page: for each task, the lists with their families."""
    lines = [f"Made with transformers {transformers.__version__}.", ""]
    for task, outcomes in tried.items():
        lines += [f"### {task}", ""]
        for name in (WORKS, ALONE, NO_HIDDEN, NO_UNPROMPTED, NO_LORA, REFUSED, BROKEN, UNTRIED):
            if members := [family for family, outcome in outcomes.items() if name in outcome.lists]:
                lines += [f"{name}: {', '.join(members)}.", ""]
    return "\n".join(lines[:-1]) + "\n"


def on_page() -> dict[str, dict[str, set[str]]]:
    """The lists of each family as the page has them; none where it was made with another transformers."""
    made_with, *lines = PAGE.read_text("utf-8").split(HEADING)[1].split("\n\n")
    found: dict[str, dict[str, set[str]]] = {}
    if made_with.strip() != f"Made with transformers {transformers.__version__}.":
        return found
    for line in map(str.strip, lines):
        if line.startswith("### "):
            of_task = found.setdefault(line.removeprefix("### "), {})
        elif line:
            name, members = line.removesuffix(".").split(": ")
            for family in members.split(", "):
                of_task.setdefault(family, set()).add(name)
    return found


def sweep(prune: Prune, folder: Path, tell: Callable[[str], None] = lambda line: None) -> dict[str, dict[str, Tried]]:
    """All families of all tasks."""
    tried: dict[str, dict[str, Tried]] = {}
    gc.freeze()  # each training collects garbage, which takes longer than the training among all that is loaded here
    for task in ROWS:
        tried[task] = {}
        for family in families.names(auto_model(task)):
            here = folder / f"{task}-{family}"
            try:
                outcome = attempt(prune, task, family, here)
            except Exception as failure:  # of any kind: each is one too many
                outcome = Tried(frozenset({BROKEN}), (f"{type(failure).__name__}: {failure}",))
            tried[task][family] = outcome
            shutil.rmtree(here, ignore_errors=True)
            tell(f"{task} {family}: {', '.join(sorted(outcome.lists))} {outcome.said}")
    return tried


def main() -> None:
    """Try all, and write the part of the page."""
    with tempfile.TemporaryDirectory() as folder:
        part = table(sweep(run_here, Path(folder), lambda line: print(line, flush=True)))
    before = PAGE.read_text("utf-8").split(HEADING)[0]
    PAGE.write_text(f"{before}{HEADING}\n{part}", "utf-8")


if __name__ == "__main__":
    main()
