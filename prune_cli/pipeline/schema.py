"""The pipeline's TOML file: read and checked as a whole, every mistake told."""

from __future__ import annotations

import math
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.artifacts.manifest import digest_value
from prune_cli.data.groups import groups
from prune_cli.data.open import open_rows
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.methods.budget import parse_keep
from prune_cli.methods.method import PublishedMethod
from prune_cli.models import load as models
from prune_cli.pipeline.entries import Chosen, read_method


@dataclass(frozen=True)
class Plan:
    """A pipeline file, checked. Paths are ready to open; option tables are those of the stages.

    The proxy is warmed up on `fraction` of the training rows, and rows are represented with it; those of methods that
    ask for the reference with that model as it is. `model` is what the selections train.
    """

    train: str
    validation: str | None
    tests: dict[str, str]
    model: str
    proxy: str
    reference: str
    task: str
    fields: dict[str, str]
    chosen: tuple[Chosen, ...]
    keep: tuple[str, ...]
    seeds: tuple[int, ...]
    warmup: options.Finetune
    fraction: float
    represent: options.Represent
    finetune: options.Finetune
    eval: options.Eval

    def represented(self, method: PublishedMethod, *, target: bool) -> tuple[str, options.Represent]:
        """How a method has its rows represented, or those of its target set: a name for it, and the options.

        The name is empty where it is as the file says. The model is empty where it is the one that was warmed up.
        """
        plain = self.represent
        if method.model == "reference":  # which has no training behind it
            plain = replace(plain, model=self.reference, checkpoints="last", dynamics="recompute")
        given = dict(method.represent_options)
        if target and _steps(method):
            given["precondition"] = "none"  # the target's gradients are compared as they are
        opts = replace(plain, **given)
        other = [f"{key}-{_in_a_name(given[key])}" for key in sorted(given) if given[key] != getattr(plain, key)]
        return "-".join([*([method.model] if method.model else []), *other]), opts


def _in_a_name(value: Any) -> str:
    """An option's value as part of a folder's name."""
    text = str(value)
    return text if all(letter.isalnum() or letter in "._,-" for letter in text) else digest_value(text)[:8]


def read_plan(file: Path) -> Plan:
    """Read a pipeline file and check all of it, the rows of its data files too.

    Raises one PruneError that names every mistake.
    """
    try:
        table = tomllib.loads(file.read_text("utf-8"))
    except OSError as failure:
        raise PruneError(f"{file}: cannot be read ({failure.strerror}); a TOML file is needed") from failure
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as failure:
        raise PruneError(f"{file}: broken TOML ({failure})") from failure
    check = _Check(file, table)
    plan = check.plan()
    if check.mistakes:
        raise PruneError(check.mistakes[0], also=check.mistakes[1:])
    return plan


_MODELS = ("model", "proxy", "reference")
_KEYS = (
    "task train validation tests model proxy reference fields methods keep seeds warmup represent finetune eval"
).split()
_SET_BY_PIPELINE = {
    "warmup": ("model", "task"),
    "represent": ("model", "task", "kind", "precondition"),  # of the training rows alone: a method's to say
    "finetune": ("model", "task", "seed"),
    "eval": ("task",),
}


class _Check:
    """Turns a TOML table into a plan, collecting mistakes on the way."""

    def __init__(self, file: Path, table: dict[str, Any]) -> None:
        self.file, self.folder, self.table = file, file.parent, table
        self.mistakes: list[str] = []

    def wrong(self, text: str) -> None:
        self.mistakes.append(f"{self.file}: {text}")

    def plan(self) -> Plan:
        for name in self.table:
            if name not in _KEYS:
                self.wrong(f"{name}: unknown key; allowed: {', '.join(_KEYS)}")
        task = self.text("task", "classification")
        model = self.path_or_name(self.text("model"))
        proxy = self.path_or_name(self.text("proxy")) if "proxy" in self.table else model
        reference = self.path_or_name(self.text("reference")) if "reference" in self.table else proxy
        fields = self.fields()
        train = self.data("train")
        validation = self.data("validation") if "validation" in self.table else None
        tests = self.tests()
        chosen = self.methods()
        seeds = self.numbers("seeds")
        plan = Plan(
            train=train,
            validation=validation,
            tests=tests,
            model=model,
            proxy=proxy,
            reference=reference,
            task=task,
            fields=fields,
            chosen=chosen,
            keep=tuple(str(keep) for keep in self.list_of("keep", (str, int, float), "such as [0.1, 0.3]")),
            seeds=seeds,
            warmup=self.stage("warmup", options.Finetune, ("fraction",), model=proxy, task=task, checkpoints="epoch"),
            fraction=self.fraction(),
            represent=self.stage("represent", options.Represent, model="", task=task),
            finetune=self.stage("finetune", options.Finetune, model=model, task=task),
            eval=self.stage("eval", options.Eval),
        )
        if plan.warmup.moments == "auto" and any(_steps(c.method) for c in chosen):
            plan = replace(plan, warmup=replace(plan.warmup, moments="yes"))
        for name in _MODELS:
            found = getattr(plan, name)
            if found and name in self.table:
                try:
                    models.find(found)
                except PruneError as mistake:
                    self.wrong(f"{name}: {mistake.message}")
        self.represented(plan)
        if any(c.method.wants_target for c in chosen) and validation is None:
            names = ", ".join(c.name for c in chosen if c.method.wants_target)
            self.wrong(f"validation: missing; the target set of {names} is needed")
        if not self.mistakes:
            self.rows(plan)
        return plan

    def text(self, name: str, default: str | None = None) -> str:
        value = self.table.get(name, default)
        if not isinstance(value, str) or not value:
            self.wrong(f"{name}: {options.shown(value)}; a string is needed")
            return ""
        return value

    def list_of(self, name: str, kinds: tuple[type, ...], example: str) -> list[Any]:
        values = self.table.get(name)
        if not isinstance(values, list) or not values or any(type(value) not in kinds for value in values):
            self.wrong(f"{name}: {options.shown(values)}; a list is needed, {example}")
            return []
        if len({str(value) for value in values}) < len(values):
            self.wrong(f"{name}: {options.shown(values)}; each may stand once")
        return values

    def numbers(self, name: str) -> tuple[int, ...]:
        values = self.list_of(name, (int,), "such as [0, 1, 2]")
        if any(value < 0 for value in values):
            self.wrong(f"{name}: {options.shown(values)}; 0 or more is allowed")
        return tuple(values)

    def path_or_name(self, name: str) -> str:
        """A path is meant from the file's folder; what is none there (a hub name) stays as it is."""
        path = self.folder / name
        return str(path) if name and path.exists() else name

    def data(self, name: str, value: Any = None) -> str:
        value = self.table.get(name) if value is None else value
        if not isinstance(value, str) or not value:
            self.wrong(f"{name}: {options.shown(value)}; the path of a data file is needed")
            return ""
        if value.startswith("hf:"):
            return value
        path = self.folder / value
        if not path.is_file():
            self.wrong(f"{name}: {value}; no such file in {self.folder or '.'}")
        return str(path)

    def tests(self) -> dict[str, str]:
        table = self.table.get("tests")
        if not isinstance(table, dict) or not table:
            self.wrong(f'tests: {options.shown(table)}; a table is needed, such as {{test = "test.jsonl"}}')
            return {}
        return {name: self.data(f"tests.{name}", value) for name, value in table.items()}

    def fields(self) -> dict[str, str]:
        table = self.table.get("fields", {})
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            self.wrong(f'fields: {options.shown(table)}; a table is needed, such as {{text = "sentence"}}')
            return {}
        return dict(table)

    def methods(self) -> tuple[Chosen, ...]:
        found = []
        for entry in self.list_of("methods", (str, dict), 'such as ["random", "less"]'):
            try:
                found.append(read_method(entry))
            except PruneError as mistake:
                hint = f" ({mistake.hint})" if mistake.hint else ""
                self.wrong(f"methods: {mistake.message}{hint}")
        names = [chosen.name for chosen in found]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.wrong(f"methods: {name} stands twice; each needs its own name")
        different = {chosen.method.name: chosen.method for chosen in found}
        for chosen in found:
            if different[chosen.method.name] != chosen.method:
                self.wrong(f"methods: {chosen.method.name} names two different methods; each needs its own name")
        return tuple(found)

    def stage(self, name: str, kind: type, also: tuple[str, ...] = (), **fixed: Any) -> Any:
        """An option table as the stage's record; the keys of `also` are read elsewhere."""
        table = self.table.get(name, {})
        if not isinstance(table, dict):
            self.wrong(f"{name}: {options.shown(table)}; a table is needed, [{name}]")
            table = {}
        known = {key: typ for key, (typ, _) in options.described(kind).items() if key not in _SET_BY_PIPELINE[name]}
        own = {key: value for key, value in table.items() if key not in also}
        given, problems = options.typed(own, known, also)
        for problem in problems:
            self.wrong(f"{name}.{problem}")
        made = kind(**{**fixed, **given})
        try:
            options.check(made)
        except PruneError as mistake:
            self.wrong(f"{name}.{mistake.message}")
        return made

    def fraction(self) -> float:
        """The share of the training rows that the warm-up trains on."""
        table = self.table.get("warmup", {})
        value = table.get("fraction", 1.0) if isinstance(table, dict) else 1.0
        if type(value) not in (int, float) or not 0 < value <= 1:
            self.wrong(f"warmup.fraction: {options.shown(value)}; a share above 0 and at most 1 is needed")
            return 1.0
        return float(value)

    def represented(self, plan: Plan) -> None:
        """Whether the rows can be represented as the file and its methods ask."""
        self.checkpoints("represent", plan.represent, plan.warmup)
        chosen = {c.method.name: c.method for c in plan.chosen}
        for method in chosen.values():
            where = f"methods: {method.name}: represent_options"
            opts = options.Represent("", **method.represent_options)
            try:
                options.check(opts)
            except PruneError as mistake:
                self.wrong(f"{where}.{mistake.message}")
            self.checkpoints(where, opts, plan.warmup)
            if _steps(method) and (lacking := _lacks_moments(method, plan)):
                self.wrong(f"methods: {method.name}: precondition: adam; moments are needed, and {lacking}")
            if "unprompted" in method.kinds and plan.task != "generation":
                self.wrong(
                    f"methods: {method.name}: unprompted; rows of the task {plan.task} have no prompt to leave out"
                )
        if plan.represent.dynamics != "recorded":
            return
        if plan.fraction < 1:
            self.wrong(
                "represent.dynamics: recorded; the warm-up trains on a part of the rows alone, "
                f"warmup.fraction {plan.fraction}"
            )
        for method in chosen.values():
            if method.reads_target and "dynamics" in method.kinds and not method.model:
                self.wrong(
                    f"represent.dynamics: recorded; {method.name} needs those of validation, which is not trained on"
                )
                break

    def checkpoints(self, where: str, opts: options.Represent, warmup: options.Finetune) -> None:
        """Whether the warm-up keeps what is to be represented."""
        kept = math.ceil(warmup.epochs) if not warmup.steps else None
        if opts.checkpoints in ("all", "last"):
            return
        numbers = [number.strip() for number in opts.checkpoints.split(",")]
        if not all(number.isdigit() for number in numbers):
            self.wrong(f"{where}.checkpoints: {opts.checkpoints}; allowed: all, last, or numbers such as 1,3")
        elif kept and any(not 1 <= int(number) <= kept for number in numbers):
            self.wrong(f"{where}.checkpoints: {opts.checkpoints}; the warm-up keeps 1 to {kept}")

    def rows(self, plan: Plan) -> None:
        """The data files themselves: every row, every label, every budget."""
        task = tasks.load(plan.task)

        def opened(data: str) -> Rows | None:
            try:
                return open_rows(data, plan.fields, task.check)
            except PruneError as mistake:
                self.mistakes.append(mistake.message)
                return None

        train = opened(plan.train)
        validation = opened(plan.validation) if plan.validation else None
        others = [validation, *(opened(data) for data in plan.tests.values())]
        if validation is not None and any(_reads_target_groups(c.method) for c in plan.chosen):
            try:
                groups(validation)
            except PruneError as mistake:
                self.mistakes.append(mistake.message)
        if train is None:
            return
        for keep in plan.keep:
            try:
                parse_keep(keep, len(train))
            except PruneError as mistake:
                self.wrong(mistake.message)
        labels = task.label_list(train)
        balances = {c.balance_by: c.name for c in plan.chosen if c.balance != "none"}
        if "label" in balances and not labels:
            self.wrong(
                f"methods: {balances['label']}: rows of the task {plan.task} have no labels to balance by; "
                'allowed: balance_by = "group"'
            )
        lacking = next((i for i, row in enumerate(train) if "group" not in row), None) if "group" in balances else None
        if lacking is not None:
            self.mistakes.append(
                f"{train.where(lacking)}: key group is missing; {balances['group']} needs it in every row"
            )
        for rows in others:
            try:
                if rows is not None:
                    task.label_indices(rows, labels)
            except PruneError as mistake:
                self.mistakes.append(mistake.message)


def _steps(method: PublishedMethod) -> bool:
    """Whether a method's training rows are represented by Adam's steps, for which the warm-up keeps the moments."""
    return bool(method.represent_options.get("precondition") == "adam")


def _reads_target_groups(method: PublishedMethod) -> bool:
    """Whether it matters to a method which groups the target set's rows are of."""
    return "influence" in method.kinds or any("target_group" in half.inputs for half in method.halves)


def _lacks_moments(method: PublishedMethod, plan: Plan) -> str:
    """Why no moments are kept where a method's rows are represented; empty where they are."""
    if method.model:
        return "the reference has none"
    if plan.warmup.checkpoints == "none" or plan.warmup.moments == "no":
        name = "checkpoints" if plan.warmup.checkpoints == "none" else "moments"
        return f"the warm-up keeps none; warmup.{name}: {getattr(plan.warmup, name)}"
    if plan.represented(method, target=False)[1].checkpoints == "last":
        return "represent.checkpoints: last has none; allowed: all, or numbers such as 1,3"
    return ""
