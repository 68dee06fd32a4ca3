"""`prune represent`: what a model makes of each row, as tensors for scores and selections to read."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_cli import tasks
from prune_cli.artifacts import tensors
from prune_cli.artifacts.code import digest_of_module, digest_of_plugin
from prune_cli.artifacts.drafts import Draft
from prune_cli.artifacts.manifest import Recipe, digest_value
from prune_cli.data import fingerprints
from prune_cli.data.groups import groups
from prune_cli.data.open import Reading, check_of_use, open_rows, read_as, task_name
from prune_cli.data.rows import Rows
from prune_cli.errors import PruneError
from prune_cli.models import find
from prune_cli.models.device import batch_limits, use_device
from prune_cli.options import Represent, idle, raise_all
from prune_cli.represent import kinds
from prune_cli.represent.kinds import Kind
from prune_cli.represent.observe import Given, Setup, Target
from prune_cli.runtime import processes
from prune_cli.stages.common import How, Outcome, done, making, settle, task_code, tell_bad_rows, template_digest
from prune_cli.tasks import Task

if TYPE_CHECKING:
    from numpy.typing import NDArray

CODE_OF_WALK = ("prune_cli.represent", "prune_cli.models")
CODE_OF_KINDS = ("prune_cli.represent", "prune_cli.gradients", "prune_cli.numeric")


@dataclass(frozen=True)
class _Asked:
    """A kind that is asked for. opts: an instance of its Options. values: the options that its tensors depend on."""

    kind: Kind
    opts: Any
    values: dict[str, Any]

    @property
    def walks(self) -> bool:
        """Whether it is observed by the pass."""
        return self.kind.walks(self.opts)

    @property
    def landmarks(self) -> tuple[int, int] | None:
        """Of how many rows it is computed, the others being estimated, and the seed they are drawn by; None: of all."""
        return self.kind.landmarks(self.opts) if self.kind.landmarks else None


@dataclass(frozen=True)
class _Rows:
    """Rows to represent, those of the target set, and what they are encoded for."""

    rows: Rows
    target: Rows | None
    group: NDArray[np.int64] | None  # of each target row
    task: Task
    named: find.NamedModel
    template: str | None  # a chat template in place of the tokenizer's


def represent(data: str, out: Path, opts: Represent, reading: Reading, how: How) -> Outcome:
    """Represent rows: `<kind>.safetensors` for each kind, the rows in order, and their ids with fingerprints.

    Tensors have the rows on the first axis and the checkpoints on the second. Raises PruneError for options, rows or
    models that do not fit, before any work.
    """
    opts = kinds.build(kinds.flat(opts))
    check_of_use([data, *([opts.target_data] if opts.target_data else [])], reading)
    chosen = [kinds.load(name) for name in kinds.parse(opts.kind)]
    _check_target(chosen, opts)
    named = find.NO_MODEL
    if opts.model is not None:
        named = find.find(opts.model, opts.checkpoints, trust_remote_code=opts.trust_remote_code)
    opts = replace(opts, task=find.task_of(named, task_name(data, opts.task)))
    opts = replace(opts, max_length=opts.max_length or find.max_length(named))
    raise_all(idle(opts, opts.task))
    opts = replace(opts, loss_on=find.loss_on(named, opts.loss_on))
    task = tasks.load(opts.task)
    template = tasks.chat_template(opts.task, opts.chat_template)
    reading = tasks.reading_of(opts.task, reading)
    _check_task(chosen, opts.task, task)
    rows = open_rows(data, reading, task.check)
    target = open_rows(opts.target_data, reading, task.check) if opts.target_data else None
    tell_bad_rows(reading, [rows, *([target] if target else [])], how)
    grouped = groups(target) if target else None
    asked = [_ask(kind, opts, task) for kind in chosen]
    recipe = _recipe(asked, opts, rows, target, named, template)
    others = {"model": opts.model, "target": opts.target_data}
    places = {"rows": data, **{role: place for role, place in others.items() if place}}
    for entry in asked:
        if entry.landmarks and entry.landmarks[0] > len(rows):
            raise PruneError(f"landmarks: {entry.landmarks[0]}; {data} has {len(rows)} rows; allowed: at most as many")

    outcome = settle(out, recipe, places, how)
    if outcome.settled:
        return outcome
    loads: list[str] = []
    if any(entry.walks for entry in asked):
        use_device(opts.device)  # before the draft is opened: a wrong one must not cost saved progress
        loads = ["prune_cli.models.load", "prune_cli.represent.walk"]
    given = _Rows(rows, target, grouped[1] if grouped else None, task, named, template)
    processes.check_same("recipe", recipe.key[:12])
    processes.check_same("batch_size, tokens_per_batch", (opts.batch_size, opts.tokens_per_batch))
    with making(outcome, recipe, places, resumable=True, loads=loads) as draft:
        labels = find.head_labels(named, task.label_list(rows)) if opts.model else task.label_list(rows)
        for some in (rows, target) if target else (rows,):
            gold = task.label_indices(some, labels)  # before any work: a label that the model does not know
            for kind in chosen:
                if "gold" in kind.needs:
                    tasks.check_gold(some, gold, kind.name)
        draft.cached("rows.jsonl", lambda path: _write(rows, path))
        draft.cached(fingerprints.IDS, partial(fingerprints.write_ids, rows))
        for entry in asked:
            if entry.kind.write and not entry.walks:
                material = Given(rows, task, named, opts.checkpoints)
                write = partial(entry.kind.write, given=material, opts=entry.opts)
                draft.cached(f"{entry.kind.name}.safetensors", write)
        walked = [entry for entry in asked if entry.walks]
        lost = _walk(draft, walked, given, labels, opts) if walked else {}
        if not draft.joined:
            draft.about = {
                "rows": len(rows),
                "digest": rows.digest,
                **read_as(rows, target),
                "labels": labels,
                "kinds": {entry.kind.name: _described(draft.path, entry.kind) for entry in asked},
                "space": {entry.kind.name: _space(entry, opts, named, template) for entry in asked},
                "cut": lost,
                **_estimated(draft.path, asked),
                **({"groups": grouped[0]} if grouped else {}),
            }
    return done(outcome, draft)


def _write(rows: Rows, path: Path) -> None:
    rows.write(path)


def _check_target(chosen: list[Kind], opts: Represent) -> None:
    """Whether a target set is given where one is needed, and nowhere else; and whether the kinds go together."""
    about_target = [kind.name for kind in chosen if "target" in kind.needs]
    if about_target and opts.target_data is None:
        raise PruneError(f"kind: {about_target[0]}; it needs a target set", hint="--target-data DATA")
    if opts.target_data is not None and not about_target:
        raise PruneError(f"target_data: {opts.target_data}; {opts.kind} needs no target set; leave it out")
    by_gradients = [kind.name for kind in chosen if "gradients" in kind.needs]
    if len(by_gradients) > 1:
        raise PruneError(f"kind: {' and '.join(by_gradients)}; one of them at a time is allowed")


def _check_task(chosen: list[Kind], name: str, task: Task) -> None:
    """Whether the task has what the kinds need of it."""
    for kind in chosen:
        if lacking := sorted(kind.needs & kinds.OF_TASK - task.OFFERS):
            raise PruneError(f"kind: {kind.name}; it needs {kinds.NEEDED[lacking[0]]}; the task {name} has none")


def _ask(kind: Kind, opts: Represent, task: Task) -> _Asked:
    own = kinds.options_of(kind.name, opts)
    if kind.resolved:
        own = kind.resolved(own, task)
    return _Asked(kind, own, kinds.depends_on(kind, own, opts, task.OPTIONS))


def _recipe(
    asked: list[_Asked],
    opts: Represent,
    rows: Rows,
    target: Rows | None,
    named: find.NamedModel,
    template: str | None,
) -> Recipe:
    """What decides the content: the options that the kinds depend on, what is read, and the code of kinds and task."""
    checkpoints: Any = [checkpoint.name for checkpoint in named.checkpoints]
    if not all(entry.walks for entry in asked):
        checkpoints = opts.checkpoints
    values: dict[str, Any] = {"task": opts.task, "kind": [entry.kind.name for entry in asked]}
    values["checkpoints"] = checkpoints
    if opts.trust_remote_code:
        values["trust_remote_code"] = True
    for entry in asked:
        values |= entry.values
    made_of = {"rows": rows.digest, **template_digest(template)}
    made_of |= {"model": named.digest} if opts.model else {}
    made_of |= {"target rows": target.digest} if target else {}
    code = {
        f"kind {entry.kind.name}": digest_of_plugin(sys.modules[entry.kind.module], CODE_OF_KINDS) for entry in asked
    }
    if any(entry.walks for entry in asked):
        code["walk"] = digest_of_module("prune_cli.represent.walk", CODE_OF_WALK)
    if any(entry.landmarks for entry in asked):
        code["landmarks"] = digest_of_module("prune_cli.represent.landmarks", CODE_OF_KINDS)
    return Recipe("represent", values, made_of, {**code, **task_code(opts.task)})


def _space(entry: _Asked, opts: Represent, named: find.NamedModel, template: str | None) -> str:
    """Digest of what two representations must have in common to be compared."""
    checkpoints: Any = [checkpoint.name for checkpoint in named.checkpoints] if entry.walks else opts.checkpoints
    shared = [named.digest, checkpoints, kinds.space(entry.kind, entry.values), *template_digest(template).values()]
    return digest_value(shared)


def _described(folder: Path, kind: Kind) -> dict[str, Any]:
    """The tensors of a kind as they were written, for the manifest."""
    written = tensors.load(folder / f"{kind.name}.safetensors")
    shapes = {name: {"shape": list(array.shape), "dtype": str(array.dtype)} for name, array in sorted(written.items())}
    return {"features": kind.features, "tensors": shapes}


def _estimated(folder: Path, asked: list[_Asked]) -> dict[str, Any]:
    """How well a kind that is computed of some rows alone is estimated of the others, told and for the manifest."""
    files = {entry.kind.name: folder / f"{entry.kind.name}.safetensors" for entry in asked if entry.landmarks}
    found = {name: tensors.metadata(path)["landmarks"] for name, path in files.items()}
    return {"landmarks": found} if found else {}


def _walk(
    draft: Draft, walked: list[_Asked], given: _Rows, labels: list[Any], opts: Represent
) -> dict[str, dict[str, int]]:
    """One pass over checkpoints × batches for all the kinds that are observed; another for one with landmarks.

    Returns how many of the rows, and of the target set's, were cut.
    """
    from prune_cli.models import load
    from prune_cli.represent import landmarks
    from prune_cli.represent.walk import Observed, walk
    from prune_cli.tasks.tokens import pad_token_id, tell_cut

    lost: dict[str, dict[str, int]] = {}
    device = use_device(opts.device)
    tokenizer = load.load_tokenizer(given.named, given.template)
    headless = not any("head" in entry.kind.needs for entry in walked)
    model, _ = load.load(given.named, given.task, labels, tokenizer, new_head=headless)
    config: Any = model.config
    config.use_cache = False  # rows do not go on from one another; rwkv's kept state has no backward

    def setup_of(role: str, rows: Rows) -> Setup:
        encoded = given.task.encode(rows, tokenizer, opts.max_length, labels, **tasks.how_encoded(given.task, opts))
        load.check_rows(model, encoded, rows)
        lost[role] = tell_cut(encoded, rows, tokenizer.model_max_length)
        batch_size, tokens_per_batch = batch_limits(opts.batch_size, opts.tokens_per_batch, opts.device)
        return Setup(
            encoded=encoded,
            pad_token_id=pad_token_id(tokenizer),
            model=model,
            named=given.named,
            task=given.task,
            device=device,
            precision=opts.precision,
            batch_size=batch_size,
            tokens_per_batch=tokens_per_batch,
            eos_token_id=tokenizer.eos_token_id,
        )

    setup = setup_of("rows", given.rows)
    if given.target:
        group = np.zeros(len(given.target), np.int64) if given.group is None else given.group
        setup = replace(setup, target=Target(setup_of("target", given.target), group))

    def observed(entry: _Asked, setup: Setup) -> Observed:
        assert entry.kind.observe is not None  # it walks
        observer = entry.kind.observe(setup, entry.opts)
        specs = entry.kind.specs(observer.sizes(model), entry.opts)
        return Observed(observer, specs, bool(entry.kind.needs & {"backward", "gradients"}))

    whole = {entry.kind.name: observed(entry, setup) for entry in walked if not entry.landmarks}
    some = [entry for entry in walked if entry.landmarks]  # one at most, as it needs gradients
    if not some:
        walk(draft.path, whole, setup, save_minutes=opts.save_minutes)
    for entry in some:
        assert entry.landmarks is not None
        few = landmarks.Landmarks(draft.path, entry.kind, *entry.landmarks)
        few.walk(whole, partial(observed, entry), setup, save_minutes=opts.save_minutes)
        draft.cached(f"{entry.kind.name}.safetensors", few.write)
    return lost
