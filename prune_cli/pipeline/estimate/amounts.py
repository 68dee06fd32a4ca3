"""How much a step has to do: its rows, their tokens, optimizer steps, and what its time grows with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prune_cli import tasks
from prune_cli.data.formats import AUTO
from prune_cli.data.open import LM_EVAL, Reading
from prune_cli.data.split import REST
from prune_cli.models import find
from prune_cli.models.device import batch_limits
from prune_cli.pipeline.estimate import growth
from prune_cli.pipeline.row_checks import n_train, rows_of
from prune_cli.pipeline.schema import DECONTAMINATED, Plan, as_trained
from prune_cli.pipeline.work import Step
from prune_cli.report.corruption import CORRUPT
from prune_cli.stages.evaluate import evaluate
from prune_cli.stages.finetune import finetune
from prune_cli.stages.represent import represent

Positions = Mapping[str, NDArray[np.int64]]  # data file -> which of its rows


@dataclass(frozen=True)
class Amount:
    """What a step has to do. tokens: of its rows, each once. work: what its time grows with."""

    rows: int
    tokens: int
    optimizer_steps: int
    work: float


class Amounts:
    """The rows of a plan in the folder `out`, whole or some of them, and what steps have to do with them."""

    def __init__(self, plan: Plan, out: Path) -> None:
        self.plan, self.out, self.task = plan, out, tasks.load(plan.task)
        placed = plan.placed(out / "split")
        self.rows = rows_of(plan)
        self.labels = self.task.label_list(self.rows[plan.train])
        clean = str(out / DECONTAMINATED) if plan.decontaminate else placed.train
        self.train = clean if plan.corruption.idle else str(out / CORRUPT)
        self.n = n_train(plan)
        # where rows come from: a data file, and the share of its rows
        self.sources = {name: (name, 1.0) for name in self.rows}
        self.sources |= {str(out / "split" / name): (plan.train, share) for name, share in plan.parts.shares.items()}
        self.sources[str(out / "split" / REST)] = (plan.train, 1 - sum(plan.parts.shares.values()))
        self.sources[clean] = (plan.train, 1 - sum(plan.parts.shares.values()))  # at most
        self.sources[self.train] = (plan.train, self.n / len(self.rows[plan.train]))
        self._lengths: dict[tuple[Any, ...], NDArray[np.int64]] = {}

    @property
    def reading(self) -> Reading:
        """How rows are read that were written as they came."""
        found = {rows.format for rows in self.rows.values()}
        fields = {**self.rows[self.plan.train].fields, **self.plan.reading.fields}
        return Reading(fields, format=found.pop() if len(found) == 1 else AUTO)

    def count(self, name: str, positions: Positions | None) -> int:
        """Rows of data, or of what is made of some of the rows."""
        file, share = self.sources[name]
        return max(1, round(share * len(self.rows[file] if positions is None else positions[file])))

    def lengths(self, name: str, opts: Any, positions: Positions | None) -> NDArray[np.int64]:
        """Tokens of rows [n] as a stage reads them, special tokens included, and cut as it cuts them."""
        file, _ = self.sources[name]
        model, encoded = self._encoded(opts)
        key = (file, model, encoded.max_length, encoded.chat_template, *tasks.how_encoded(self.task, encoded).items())
        if key not in self._lengths:
            from prune_cli.models.load import load_tokenizer

            tokenizer = load_tokenizer(find.find(model), tasks.chat_template(self.plan.task, encoded.chat_template))
            how = tasks.how_encoded(self.task, encoded)
            found = self.task.encode(self.rows[file], tokenizer, encoded.max_length, self.labels, **how)
            self._lengths[key] = found.lengths
        lengths = self._lengths[key]
        return lengths if positions is None else lengths[positions[file]]

    def _encoded(self, opts: Any) -> tuple[str, Any]:
        """The model whose tokenizer reads rows, and options that say how, those of a training where they follow it."""
        plan = self.plan
        if not hasattr(opts, "model"):  # of eval
            return plan.model, as_trained(opts, plan.finetune)
        if hasattr(opts, "epochs"):  # of finetune
            return opts.model, opts
        if opts.model is None or Path(opts.model).is_relative_to(self.out):
            return plan.proxy, as_trained(opts, plan.warmup)
        named = find.find(opts.model)
        limit = opts.max_length or find.max_length(named)
        return opts.model, replace(opts, max_length=limit, loss_on=find.loss_on(named, opts.loss_on))

    def read(self, step: Step) -> list[str]:
        """The data whose rows go through a model in a step, or would if trainings read all training rows."""
        if step.stage is finetune:
            return [self.train]
        if step.stage is represent:
            return [*step.given, *([step.opts.target_data] if step.opts.target_data else [])]
        if step.stage is evaluate:
            return [name for name in step.given[1].values() if not name.startswith(LM_EVAL)]
        return []

    def of(self, step: Step, positions: Positions | None = None) -> Amount:
        """What a step has to do with all rows, or with these alone."""
        opts = step.opts
        if step.stage is finetune:
            n = step.rows if positions is None else self.count(self.train, positions)
            lengths = self.lengths(self.train, opts, positions)
            work = growth.trained(lengths, n, opts)
            return Amount(n, round(n * lengths.mean()), opts.optimizer_steps(n), work)
        if step.stage in (represent, evaluate):
            rows, tokens, work = 0, 0.0, 0.0
            for name in self.read(step):
                n, lengths = self.count(name, positions), self.lengths(name, opts, positions)
                rows, tokens = rows + n, tokens + n * lengths.mean()
                work += growth.walked(lengths, n, *batch_limits(opts.batch_size, opts.tokens_per_batch, opts.device))
            return Amount(rows, round(tokens), 0, work)
        n = self.count(self.train, positions)
        return Amount(n, 0, 0, n)
