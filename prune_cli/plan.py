"""The pipeline's TOML file: read and checked as a whole, every mistake told."""

from __future__ import annotations

import json
import math
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prune_cli import inputs, methods, models, options, tasks
from prune_cli.errors import PruneError
from prune_cli.methods import PublishedMethod
from prune_cli.rows import Rows
from prune_cli.select._balance import BALANCES
from prune_cli.select._budget import parse_keep


@dataclass(frozen=True)
class Chosen:
    """A method of the plan: a published one or the file's own, and how it is balanced."""

    method: PublishedMethod
    balance: str

    @property
    def name(self) -> str:
        """Its name in folders and tables."""
        return self.method.name if self.balance == "none" else f"{self.method.name}-{self.balance}"


@dataclass(frozen=True)
class Plan:
    """A pipeline file, checked. Paths are ready to open; option tables are those of the stages."""

    train: str
    validation: str | None
    tests: dict[str, str]
    model: str
    task: str
    fields: dict[str, str]
    chosen: tuple[Chosen, ...]
    keep: tuple[str, ...]
    seeds: tuple[int, ...]
    warmup: options.Finetune
    represent: options.Represent
    finetune: options.Finetune
    eval: options.Eval


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


_KEYS = "task train validation tests model fields methods keep seeds warmup represent finetune eval".split()
_SET_BY_PIPELINE = {
    "warmup": ("model", "task"),
    "represent": ("model", "task", "kind"),
    "finetune": ("model", "task", "seed"),
    "eval": (),
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
            task=task,
            fields=fields,
            chosen=chosen,
            keep=tuple(str(keep) for keep in self.list_of("keep", (str, int, float), "such as [0.1, 0.3]")),
            seeds=seeds,
            warmup=self.options("warmup", options.Finetune, model=model, task=task, checkpoints="epoch"),
            represent=self.options("represent", options.Represent, model="", task=task),
            finetune=self.options("finetune", options.Finetune, model=model, task=task),
            eval=self.options("eval", options.Eval),
        )
        if model:
            try:
                models.find(model)
            except PruneError as mistake:
                self.wrong(f"model: {mistake.message}")
        self.checkpoints(plan)
        if any(c.method.wants_target for c in chosen) and validation is None:
            names = ", ".join(c.name for c in chosen if c.method.wants_target)
            self.wrong(f"validation: missing; the target set of {names} is needed")
        if not self.mistakes:
            self.rows(plan)
        return plan

    def text(self, name: str, default: str | None = None) -> str:
        value = self.table.get(name, default)
        if not isinstance(value, str) or not value:
            self.wrong(f"{name}: {_shown(value)}; a string is needed")
            return ""
        return value

    def list_of(self, name: str, kinds: tuple[type, ...], example: str) -> list[Any]:
        values = self.table.get(name)
        if not isinstance(values, list) or not values or any(type(value) not in kinds for value in values):
            self.wrong(f"{name}: {_shown(values)}; a list is needed, {example}")
            return []
        if len({str(value) for value in values}) < len(values):
            self.wrong(f"{name}: {_shown(values)}; each may stand once")
        return values

    def numbers(self, name: str) -> tuple[int, ...]:
        values = self.list_of(name, (int,), "such as [0, 1, 2]")
        if any(value < 0 for value in values):
            self.wrong(f"{name}: {_shown(values)}; 0 or more is allowed")
        return tuple(values)

    def path_or_name(self, name: str) -> str:
        """A path is meant from the file's folder; what is none there (a hub name) stays as it is."""
        path = self.folder / name
        return str(path) if name and path.exists() else name

    def data(self, name: str, value: Any = None) -> str:
        value = self.table.get(name) if value is None else value
        if not isinstance(value, str) or not value:
            self.wrong(f"{name}: {_shown(value)}; the path of a data file is needed")
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
            self.wrong(f'tests: {_shown(table)}; a table is needed, such as {{test = "test.jsonl"}}')
            return {}
        return {name: self.data(f"tests.{name}", value) for name, value in table.items()}

    def fields(self) -> dict[str, str]:
        table = self.table.get("fields", {})
        if not isinstance(table, dict) or not all(isinstance(value, str) for value in table.values()):
            self.wrong(f'fields: {_shown(table)}; a table is needed, such as {{text = "sentence"}}')
            return {}
        return dict(table)

    def methods(self) -> tuple[Chosen, ...]:
        found = []
        for entry in self.list_of("methods", (str, dict), 'such as ["random", "less"]'):
            try:
                found.append(_method(entry))
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

    def options(self, name: str, kind: type, **fixed: Any) -> Any:
        """An option table as the stage's record."""
        table = self.table.get(name, {})
        if not isinstance(table, dict):
            self.wrong(f"{name}: {_shown(table)}; a table is needed, [{name}]")
            table = {}
        known = {key: typ for key, (typ, _) in options.described(kind).items() if key not in _SET_BY_PIPELINE[name]}
        given: dict[str, Any] = {}
        for key, value in table.items():
            if key not in known:
                self.wrong(f"{name}.{key}: unknown key; allowed: {', '.join(known)}")
            elif type(value) is not known[key] and not (known[key] is float and type(value) is int):
                need = {int: "a whole number", float: "a number", str: "a string"}[known[key]]
                self.wrong(f"{name}.{key}: {_shown(value)}; {need} is needed")
            else:
                given[key] = known[key](value)
        made = kind(**{**fixed, **given})
        try:
            options.check(made)
        except PruneError as mistake:
            self.wrong(f"{name}.{mistake.message}")
        return made

    def checkpoints(self, plan: Plan) -> None:
        """Whether the warm-up keeps what is to be represented."""
        which = plan.represent.checkpoints
        kept = math.ceil(plan.warmup.epochs) if not plan.warmup.steps else None
        if which not in ("all", "last"):
            numbers = [number.strip() for number in which.split(",")]
            if not all(number.isdigit() for number in numbers):
                self.wrong(f"represent.checkpoints: {which}; allowed: all, last, or numbers such as 1,3")
            elif kept and any(not 1 <= int(number) <= kept for number in numbers):
                self.wrong(f"represent.checkpoints: {which}; the warm-up keeps 1 to {kept}")
        aimed = [c.name for c in plan.chosen if c.method.wants_target and c.method.representation == "dynamics"]
        if plan.represent.dynamics == "recorded" and aimed:
            self.wrong(f"represent.dynamics: recorded; {aimed[0]} needs those of validation, which is not trained on")

    def rows(self, plan: Plan) -> None:
        """The data files themselves: every row, every label, every budget."""
        task = tasks.load(plan.task)

        def opened(data: str) -> Rows | None:
            try:
                return inputs.open_rows(data, plan.fields, task.check)
            except PruneError as mistake:
                self.mistakes.append(mistake.message)
                return None

        train = opened(plan.train)
        others = [opened(data) for data in ([plan.validation] if plan.validation else []) + list(plan.tests.values())]
        if train is None:
            return
        for keep in plan.keep:
            try:
                parse_keep(keep, len(train))
            except PruneError as mistake:
                self.wrong(mistake.message)
        labels = task.label_list(train)
        for rows in others:
            try:
                if rows is not None:
                    task.label_indices(rows, labels)
            except PruneError as mistake:
                self.mistakes.append(mistake.message)


_METHOD_KEYS = "name representation score select score_options select_options balance".split()


def _method(entry: str | dict[str, Any]) -> Chosen:
    """A method of the file: the name of a published one, {recipe, balance}, or its own triple."""
    if isinstance(entry, str):
        return Chosen(methods.find_published(entry), "none")
    rest = dict(entry)
    balance = rest.pop("balance", "none")
    if balance not in BALANCES:
        raise PruneError(f"balance: {_shown(balance)}; allowed: {', '.join(BALANCES)}")
    if "recipe" in rest:
        method = methods.find_published(str(rest.pop("recipe")))
        if rest:
            raise PruneError(f"{', '.join(rest)}: unknown beside recipe; allowed: balance")
        return Chosen(method, balance)
    options_of = {stage: rest.pop(f"{stage}_options", {}) for stage in ("score", "select")}
    texts = {key: rest.pop(key, "none") for key in ("name", "representation", "score", "select")}
    if rest:
        raise PruneError(f"{', '.join(rest)}: unknown; allowed: recipe, or {', '.join(_METHOD_KEYS)}")
    for key, value in texts.items():
        if not isinstance(value, str) or (key in ("name", "select") and value == "none"):
            raise PruneError(f"{key}: {_shown(value)}; a string is needed in {_shown(entry)}")
    if not texts["name"].replace("-", "").replace("_", "").isalnum():
        raise PruneError(f"name: {texts['name']}; letters, digits, - and _ are allowed, as it names a folder")
    if texts["representation"] not in ("none", *inputs.KINDS):
        raise PruneError(f"representation: {texts['representation']}; allowed: none, {', '.join(inputs.KINDS)}")
    if texts["name"] in methods.published():
        raise PruneError(f"name: {texts['name']}; that is a published method's, another is needed")
    _check_halves(texts, options_of)
    tables = {f"{stage}_options": values for stage, values in options_of.items()}
    return Chosen(PublishedMethod(**texts, objective="own", source="", **tables), balance)


def _check_halves(texts: dict[str, str], options_of: dict[str, dict[str, Any]]) -> None:
    """Whether the representation, score and selection of a method of the file go together."""
    name, representation = texts["name"], texts["representation"]
    for stage, values in options_of.items():
        if texts[stage] == "none":
            if values:
                raise PruneError(f"{name}: {stage}_options without a {stage}")
            continue
        loaded = methods.load(stage, texts[stage])
        methods.parse_options(loaded, values)
        if loaded.wants_representation and representation == "none":
            raise PruneError(f"{name}: {stage} {texts[stage]} needs a representation")
        for kind in {inputs.KIND_OF[wanted] for wanted in loaded.inputs if wanted in inputs.KIND_OF}:
            if kind != representation:
                raise PruneError(f"{name}: {stage} {texts[stage]} needs the representation {kind}")
    reads = "score" in methods.load("select", texts["select"]).inputs
    if reads != (texts["score"] != "none"):
        problem = "needs a score" if reads else f"reads no score; leave {texts['score']} out"
        raise PruneError(f"{name}: select {texts['select']} {problem}")


def _shown(value: Any) -> str:
    return "missing" if value is None else json.dumps(value, ensure_ascii=False, default=str)
