"""The pipeline's TOML file: read and checked as a whole, every mistake told at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path
from typing import Any

from prune_cli import options, tasks
from prune_cli.artifacts.manifest import digest_value
from prune_cli.data.corrupt import Corruption
from prune_cli.data.fields import pairs_of, parse_fields
from prune_cli.data.formats import AUTO
from prune_cli.data.open import LM_EVAL, Reading
from prune_cli.data.sources import files_of
from prune_cli.data.split import REST, Parts
from prune_cli.errors import PruneError, near
from prune_cli.methods.published import PublishedMethod
from prune_cli.options import Option, shown
from prune_cli.pipeline.entries import Entry, read_entry
from prune_cli.represent import kinds

KEYS = (
    "task train validation tests split_seed decontaminate corrupt model proxy reference fields format drop skip_bad "
    "methods keep seeds random_seeds removal lds keep_models keep_representations warmup represent finetune eval"
).split()
VALIDATION, TESTS = "validation", "tests/"
DECONTAMINATED = "decontaminated"  # the folder of the training rows that stand in no test set
MOST_SEEDS = 1000
LEAST_HALVES = 10
KEEP_MODELS = ("none", "best", "all")
MODELS = ("model", "proxy", "reference")
SET_BY_PIPELINE = {
    "warmup": ("model", "task"),
    "represent": ("model", "task", "kind", "target_data", "kind_options"),
    "finetune": ("model", "task", "seed"),
    "eval": ("task",),
}


@dataclass(frozen=True)
class Plan:
    """A pipeline file, checked. Paths are ready to open; option tables are the records of the stages.

    The proxy is warmed up on `fraction` of the training rows, and rows are represented with it; those of methods that
    ask for the reference with that model before any training. `model` is what the selections train. `parts` are split
    off the training rows: `validation`, and test sets as tests/NAME; `placed` says where they are. The rest is changed
    by `corruption`. decontaminate: whether rows that stand in a test set are left out of the rest. removal: whether
    what methods leave out is trained on too. lds: on how many halves.
    """

    train: str
    validation: str | None
    tests: dict[str, str]
    parts: Parts
    decontaminate: bool
    corruption: Corruption
    model: str
    proxy: str
    reference: str
    task: str
    reading: Reading
    bad_rows: Path | None
    entries: tuple[Entry, ...]
    keep: tuple[str, ...]
    seeds: tuple[int, ...]
    random_seeds: int
    removal: bool
    lds: int
    keep_models: str
    keep_representations: bool
    warmup: options.Finetune
    fraction: float
    represent: options.Represent
    finetune: options.Finetune
    eval: options.Eval

    def seeds_of(self, entry: Entry) -> tuple[int, ...]:
        """The seeds of a method; of random so many that its spread is known."""
        if entry.method.name != "random" or entry.balance != "none":
            return self.seeds
        more = (seed for seed in count() if seed not in self.seeds)
        return (*self.seeds, *islice(more, max(self.random_seeds - len(self.seeds), 0)))

    @property
    def tests_of_rows(self) -> dict[str, str]:
        """The test sets that are data files: all but tasks of lm-eval."""
        return {name: test for name, test in self.tests.items() if not test.startswith(LM_EVAL)}

    @property
    def methods(self) -> dict[str, PublishedMethod]:
        """The methods by name, each once however often it is balanced."""
        return {entry.method.name: entry.method for entry in self.entries}

    @property
    def has_target(self) -> bool:
        """Whether there is a target set."""
        return self.validation is not None or VALIDATION in self.parts.shares

    def placed(self, folder: Path) -> Plan:
        """The plan with the parts that are split off, and the rest, as what lies in `folder`."""
        if not self.parts.shares:
            return self
        tests = {n.removeprefix(TESTS): str(folder / n) for n in sorted(self.parts.shares) if n.startswith(TESTS)}
        return replace(
            self,
            train=str(folder / REST),
            validation=str(folder / VALIDATION) if VALIDATION in self.parts.shares else self.validation,
            tests=self.tests | tests,
        )

    def represented(self, method: PublishedMethod, *, target: bool) -> tuple[str, options.Represent]:
        """How the rows of a method, or of its target set, are represented: a name for it, and the options.

        The name is empty where it is done as the file says. The model is empty where it is the one after the warm-up.
        """
        plain = self.represent
        if method.model == "reference":  # which has no training behind it
            copying = [kind for kind in map(kinds.load, method.kinds) if kind.without_pass]
            recorded = {kind.name for kind in copying}  # the option by which a kind copies is named like it
            rest = {name: value for name, value in plain.kind_options.items() if name not in recorded}
            plain = replace(plain, model=self.reference, checkpoints="last", kind_options=rest)
        given = dict(method.represent_options)
        if target:
            given |= {name: kinds.options()[name].default for name in not_of_target(method)}
        changed = {name: value for name, value in given.items() if value != value_of(plain, name)}
        parts = [f"{name}-{_in_a_name(changed[name])}" for name in sorted(changed)]
        return "-".join([*([method.model] if method.model else []), *parts]), with_options(plain, given)


def not_of_target(method: PublishedMethod) -> list[str]:
    """Options of a method's kinds that only training rows are represented with."""
    return [name for kind in method.kinds for name in kinds.load(kind).not_in_space]


def with_options(opts: options.Represent, given: Mapping[str, Any]) -> options.Represent:
    """The options of `represent` with others in place of some, those of kinds too."""
    own = {name: value for name, value in given.items() if name in options.declared(options.Represent)}
    of_kinds = {name: value for name, value in given.items() if name not in own}
    return replace(opts, **own, kind_options={**opts.kind_options, **of_kinds})


def as_trained(opts: Any, trained: options.Finetune) -> Any:
    """The options of `represent` or `eval`, with those of the training where they say no others."""
    follows = opts.loss_on == "auto" and "loss_on" in tasks.load(trained.task).OPTIONS
    return replace(
        opts,
        max_length=opts.max_length or trained.max_length,
        loss_on=trained.loss_on if follows else opts.loss_on,
        chat_template=opts.chat_template or trained.chat_template,
    )


def value_of(opts: options.Represent, name: str) -> Any:
    """The value of an option of `represent`, of a kind's too."""
    if name in options.declared(options.Represent):
        return getattr(opts, name)
    return opts.kind_options.get(name, kinds.options()[name].default)


def _in_a_name(value: Any) -> str:
    """An option's value as part of a folder's name."""
    text = str(value)
    return text if all(letter.isalnum() or letter in "._,-" for letter in text) else digest_value(text)[:8]


class Reader:
    """Turns a TOML table into a plan, collecting mistakes on the way."""

    def __init__(self, file: Path, table: dict[str, Any]) -> None:
        self.file, self.folder, self.table = file, file.parent, table
        self.mistakes: list[str] = []

    def wrong(self, *told: str) -> None:
        """Take down mistakes."""
        self.mistakes += [f"{self.file}: {text}" for text in told]

    def plan(self) -> Plan:
        """The plan, each table checked by itself; usable only where there are no mistakes."""
        for name in self.table:
            if name not in KEYS:
                meant = near(name, KEYS)
                self.wrong(f"{name}: unknown key; {f'{meant} ' if meant else ''}allowed: {', '.join(KEYS)}")
        task = self.text("task", "classification")
        model = self.model("model")
        proxy = self.model("proxy") if "proxy" in self.table else model
        reference = self.model("reference") if "reference" in self.table else proxy
        table, tests = self.table, self.tests()
        return Plan(
            train=self.data("train", self.table.get("train")),
            validation=self.data("validation", table["validation"]) if _is_path(table, "validation") else None,
            tests={name: self.data(f"tests.{name}", tests[name]) for name in tests if _is_path(tests, name)},
            parts=self.parts(tests),
            decontaminate=self.one_of("decontaminate", (False, True), False),
            corruption=Corruption(**self.options("corrupt", options.declared(Corruption))),
            model=model,
            proxy=proxy,
            reference=reference,
            task=task,
            reading=self.reading(),
            bad_rows=self.folder / self.text("skip_bad") if "skip_bad" in self.table else None,
            entries=self.entries(),
            keep=tuple(str(keep) for keep in self.list_of("keep", (str, int, float), "such as [0.1, 0.3]")),
            seeds=self.seeds(),
            random_seeds=self.number("random_seeds"),
            removal=self.one_of("removal", (False, True), False),
            lds=self.number("lds", LEAST_HALVES),
            keep_models=self.one_of("keep_models", KEEP_MODELS, "all"),
            keep_representations=self.one_of("keep_representations", (False, True), True),
            warmup=self.stage("warmup", options.Finetune, model=proxy, task=task, keep_checkpoints="epoch"),
            fraction=self.fraction(),
            represent=self.represent(task),
            finetune=self.stage("finetune", options.Finetune, model=model, task=task),
            eval=self.eval(),
        )

    def text(self, name: str, default: str | None = None) -> str:
        """A key that holds text."""
        value = self.table.get(name, default)
        if not isinstance(value, str) or not value:
            self.wrong(f"{name}: {shown(value)}; allowed: text")
            return ""
        return value

    def one_of(self, name: str, allowed: tuple[Any, ...], default: Any) -> Any:
        """A key that holds one of a few values."""
        value = self.table.get(name, default)
        if type(value) is not type(default) or value not in allowed:
            self.wrong(f"{name}: {shown(value)}; allowed: {', '.join(map(shown, allowed))}")
            return default
        return value

    def list_of(self, name: str, types: tuple[type, ...], example: str) -> list[Any]:
        """A key that holds a list of different values."""
        values = self.table.get(name)
        if not isinstance(values, list) or not values:
            self.wrong(f"{name}: {shown(values)}; allowed: a list, {example}")
            return []
        for value in values:
            if type(value) not in types:
                self.wrong(f"{name}: {shown(value)} in the list; allowed: {example}")
        values = [value for value in values if type(value) in types]
        if len({str(value) for value in values}) < len(values):
            self.wrong(f"{name}: {shown(values)}; allowed: each value once")
        return values

    def seeds(self) -> tuple[int, ...]:
        """The seeds."""
        seeds = self.list_of("seeds", (int,), "such as [0, 1, 2]")
        _, problems = options.checked(
            {str(seed): replace(options.declared(options.Finetune)["seed"], name="seeds") for seed in seeds},
            {str(seed): seed for seed in seeds},
        )
        self.wrong(*problems)
        return tuple(seeds)

    def number(self, name: str, least: int = 0) -> int:
        """A key that holds how many of something there are: 0, as where it is left out, or `least` and more."""
        value = self.table.get(name, 0)
        if type(value) is not int or not (value == 0 or least <= value <= MOST_SEEDS):
            first = f"0, or {least}" if least else "a whole number"
            self.wrong(f"{name}: {shown(value)}; allowed: {first} up to {MOST_SEEDS}")
            return 0
        return value

    def model(self, name: str) -> str:
        """A model: a path is relative to the file's folder; what is no path there (a hub name) stays as it is."""
        value = self.text(name)
        path = self.folder / value
        return str(path) if value and path.exists() else value

    def data(self, name: str, value: Any) -> str:
        """A data file, relative to the file's folder."""
        if not isinstance(value, str) or not value:
            self.wrong(f"{name}: {shown(value)}; allowed: the path of a data file")
            return ""
        if value.startswith("hf:") or (name.startswith("tests.") and value.startswith(LM_EVAL)):
            return value
        path = str(self.folder / value)
        if not files_of(path):
            self.wrong(f"{name}: {value}; no such file in {self.folder or '.'}")
        return path

    def tests(self) -> dict[str, Any]:
        """Test sets by name: data files, or shares of the training rows."""
        table = self.table.get("tests")
        if not isinstance(table, dict) or not table:
            self.wrong(f'tests: {shown(table)}; allowed: a table, such as {{test = "test.jsonl"}}')
            return {}
        return table

    def parts(self, tests: Mapping[str, Any]) -> Parts:
        """What is split off the training rows: where a number stands in place of a data file."""
        given = {VALIDATION: self.table.get("validation"), **{f"{TESTS}{name}": test for name, test in tests.items()}}
        shares = {name: value for name, value in given.items() if _is_number(value)}
        for name, share in shares.items():
            if not 0 < share < 1:
                self.wrong(f"{name.replace('/', '.')}: {share}; allowed: a data file, or a share between 0 and 1")
            elif not name.removeprefix(TESTS).replace("-", "").replace("_", "").isalnum():
                self.wrong(f"{name}; allowed for a share: letters, digits, - and _, as it names a folder")
        if sum(shares.values()) >= 1:
            self.wrong(f"{', '.join(shares)}: shares of {sum(shares.values()):g} in all; allowed: below 1")
        seed = replace(options.declared(options.Finetune)["seed"], name="split_seed")
        found, problems = options.checked({"split_seed": seed}, {"split_seed": self.table.get("split_seed", 0)})
        self.wrong(*problems)
        return Parts(shares, found.get("split_seed", 0))

    def reading(self) -> Reading:
        """How the rows are read."""
        return Reading(self.fields(), self.drop(), "skip_bad" in self.table, format=self.text("format", AUTO))

    def fields(self) -> dict[str, str | tuple[str, ...]]:
        """Names under which keys of the rows are read."""
        table = self.table.get("fields", {})
        if not isinstance(table, dict) or not all(isinstance(keys, str | list) and keys for keys in table.values()):
            self.wrong(f'fields: {shown(table)}; allowed: a table, such as {{text = ["sentence", "review"]}}')
            return {}
        try:
            return parse_fields(f"{name}={key}" for name, key in pairs_of(table))
        except PruneError as mistake:
            self.wrong(mistake.message)
            return {}

    def drop(self) -> tuple[str, ...]:
        """Keys that rows lose."""
        return tuple(self.list_of("drop", (str,), 'such as ["date"]')) if "drop" in self.table else ()

    def entries(self) -> tuple[Entry, ...]:
        """The methods."""
        entries = []
        for entry in self.list_of("methods", (str, dict), 'such as ["random", "less"]'):
            try:
                entries.append(read_entry(entry, self.folder))
            except PruneError as mistake:
                hint = f" ({mistake.hint})" if mistake.hint else ""
                self.wrong(f"methods: {mistake.message}{hint}")
        names = [entry.name for entry in entries]
        for name in sorted({name for name in names if names.count(name) > 1}):
            self.wrong(f"methods: {name} stands twice; allowed: each name once")
        by_name = {entry.method.name: entry.method for entry in entries}
        for entry in entries:
            if by_name[entry.method.name] != entry.method:
                self.wrong(f"methods: {entry.method.name} names two different methods; allowed: each name once")
        return tuple(entries)

    def stage(self, name: str, record: type, **fixed: Any) -> Any:
        """An option table as the record of a stage."""
        known = {key: o for key, o in options.declared(record).items() if key not in SET_BY_PIPELINE[name]}
        return record(**{**fixed, **self.options(name, known)})

    def eval(self) -> options.Eval:
        """The table [eval]; its folder is relative to the file's."""
        opts: options.Eval = self.stage("eval", options.Eval)
        folder = opts.lm_eval_tasks
        return replace(opts, lm_eval_tasks=str(self.folder / folder)) if folder else opts

    def represent(self, task: str) -> options.Represent:
        """The table [represent]."""
        both = {**options.declared(options.Represent), **kinds.options()}
        not_here = {
            *SET_BY_PIPELINE["represent"],
            *(n for kind in kinds.names() for n in kinds.load(kind).not_in_space),
        }
        known = {name: option for name, option in both.items() if name not in not_here}
        return with_options(options.Represent(model="", task=task), self.options("represent", known))

    def options(self, name: str, known: Mapping[str, Option]) -> dict[str, Any]:
        """The values of an option table that fit."""
        table = self.table.get(name, {})
        if not isinstance(table, dict):
            self.wrong(f"{name}: {shown(table)}; allowed: a table, [{name}]")
            return {}
        also = ("fraction",) if name == "warmup" else ()
        own = {key: value for key, value in table.items() if key not in also}
        values, problems = options.checked(known, own, also)
        for problem in problems:
            self.wrong(f"{name}.{problem}")
        if "chat_template" in values:  # a path
            values["chat_template"] = str(self.folder / values["chat_template"])
        return values

    def fraction(self) -> float:
        """The share of the training rows that the warm-up trains on."""
        table = self.table.get("warmup", {})
        value = table.get("fraction", 1.0) if isinstance(table, dict) else 1.0
        if type(value) not in (int, float) or not 0 < value <= 1:
            self.wrong(f"warmup.fraction: {shown(value)}; allowed: a number above 0, at most 1")
            return 1.0
        return float(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_path(table: Mapping[str, Any], name: str) -> bool:
    """Whether a key is there and names, or should name, a data file."""
    return name in table and not _is_number(table[name])
