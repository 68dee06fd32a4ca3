"""A chat template from a file, in place of the tokenizer's; and what a trained model says of how it was trained."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from prune_cli.artifacts.manifest import open_artifact
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.models.find import find
from prune_cli.models.load import load_tokenizer
from prune_cli.pipeline.checks import read_plan
from prune_cli.tasks import generation
from tests.conftest import REPOSITORY, Prune, read_rows, write_rows

LM = REPOSITORY / "sample_data/lm"
TEMPLATE = (
    "{% for m in messages %}{% if loop.index > 9 %}{% break %}{% endif %}{{ m.role }}: "
    "{% if m.role == 'assistant' %}{% generation %}{{ m.content }}!{% endgeneration %}{% else %}{{ m.content }}?"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}"
)


def chat(i: int) -> dict[str, Any]:
    said = ["where are you", "here", f"and now {i}", "there"]
    roles = ["user", "assistant"] * 2
    return {"messages": [{"role": role, "content": text} for role, text in zip(roles, said, strict=True)]}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """rows.jsonl, own.jinja."""
    folder = tmp_path_factory.mktemp("templates")
    write_rows(folder / "rows.jsonl", [chat(i) for i in range(6)])
    (folder / "own.jinja").write_text(TEMPLATE, "utf-8")
    return folder


@pytest.fixture(scope="module")
def tuned(folder: Path, prune: Prune) -> Path:
    """A model trained with the template, on the last turns alone."""
    command = ["finetune", folder / "rows.jsonl", "-o", folder / "tuned", "--model", LM, "--task", "generation"]
    done = prune(*command, "--steps", 1, "--chat-template", folder / "own.jinja", "--loss-on", "last")
    assert done.code == 0, done.err
    return folder / "tuned"


def test_tokens_are_those_of_the_template(folder: Path) -> None:
    """A row's tokens and what is trained on are what transformers makes of the same template."""
    rows = open_rows(folder / "rows.jsonl", check=None, format="auto")
    encoded = generation.encode(rows, load_tokenizer(find(str(LM)), TEMPLATE), 512, [])
    theirs = load_tokenizer(find(str(LM))).apply_chat_template(
        [row["messages"] for row in rows],
        chat_template=TEMPLATE,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    assert encoded.input_ids.tolist() == [token for ids in theirs["input_ids"] for token in ids]
    assert encoded.gold.tolist() == [bool(mark) for marks in theirs["assistant_masks"] for mark in marks]


def test_the_trained_model_brings_template_and_loss(folder: Path, tuned: Path, prune: Prune) -> None:
    """What follows a training takes its template and the turns of its loss over, as if they were given again."""
    assert load_tokenizer(find(str(tuned))).chat_template == TEMPLATE
    given = ["--chat-template", folder / "own.jinja", "--loss-on", "last", "--max-new-tokens", 0]
    for name, options in (("own", given[4:]), ("given", given), ("all", [*given[4:], "--loss-on", "all"])):
        done = prune("eval", tuned, folder / "rows.jsonl", "-o", folder / name, *options)
        assert done.code == 0, done.err
    own, same, every = (json.loads((folder / name / "metrics.json").read_text()) for name in ("own", "given", "all"))
    assert own == same != every
    assert open_artifact(folder / "own").options["loss_on"] == "last"
    last, both = (
        sum(row["tokens"] for row in read_rows(folder / name / "predictions.jsonl")) for name in ("own", "all")
    )
    assert last < both
    done = prune("represent", folder / "rows.jsonl", "-o", folder / "represented", "--model", tuned)
    assert done.code == 0, done.err
    assert open_artifact(folder / "represented").options["loss_on"] == "last"


def test_the_bytes_of_the_template_are_part_of_the_recipe(folder: Path, tuned: Path, prune: Prune) -> None:
    """The same template elsewhere is up to date; another, or none, is told."""
    command = ["finetune", folder / "rows.jsonl", "-o", tuned, "--model", LM, "--task", "generation"]
    command += ["--steps", 1, "--loss-on", "last"]
    (folder / "copy.jinja").write_text(TEMPLATE, "utf-8")
    (folder / "other.jinja").write_text(f"{TEMPLATE} ", "utf-8")
    assert "up to date" in prune(*command, "--chat-template", folder / "copy.jinja").err
    assert "input chat template changed" in prune(*command, "--chat-template", folder / "other.jinja").errors[0]
    assert "input chat template is no longer read" in prune(*command).errors[0]


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "chat_template: {}: cannot be read (No such file or directory); allowed: a file"),
        (b"\xff", "chat_template: {}: not UTF-8; allowed: a Jinja template as UTF-8 text"),
        (b" \n", "chat_template: {}: empty; allowed: a Jinja template"),
        (b"{{ messages }}\n{% for %}", "{}:2: Expected an expression, got 'end of statement block'; allowed: "),
        (b"{{ messages | shouted }}", "{}:1: No filter named 'shouted'.; allowed: a Jinja template"),
    ],
)
def test_what_is_no_template_is_told_in_one_line(
    content: bytes | None, problem: str, folder: Path, tmp_path: Path, prune: Prune
) -> None:
    """Before any work."""
    path = tmp_path / "bad.jinja"
    if content is not None:
        path.write_bytes(content)
    command = ["--model", LM, "--task", "generation", "--chat-template", path, "--dry-run"]
    done = prune("finetune", folder / "rows.jsonl", "-o", tmp_path / "out", *command)
    assert done.code == 1 and len(done.errors) == 1
    assert done.errors[0].startswith(problem.format(path))


def test_rows_that_are_no_conversations_take_no_template(
    data: Path, tiny_model: Path, folder: Path, tmp_path: Path, prune: Prune
) -> None:
    """A template for a classifier is refused."""
    command = ["finetune", data / "train.jsonl", "-o", tmp_path / "out", "--model", tiny_model]
    done = prune(*command, "--chat-template", folder / "own.jinja")
    assert "rows of the task classification are no conversations" in done.errors[0]


def test_a_pipeline_takes_a_template_beside_its_file(folder: Path, tmp_path: Path) -> None:
    """Its path is relative to the file; what judges and represents goes by that of the training; a bad one is told."""
    file = write_pipeline(tmp_path, folder, "own.jinja")
    (tmp_path / "own.jinja").write_text(TEMPLATE)
    plan = read_plan(file, tokenise=True)
    assert plan.finetune.chat_template == str(tmp_path / "own.jinja")
    (tmp_path / "own.jinja").write_text("{{ raise_exception('no') }}")
    with pytest.raises(PruneError, match="the chat template refuses the messages: no"):
        read_plan(file, tokenise=True)
    write_pipeline(tmp_path, folder, "none.jinja")
    with pytest.raises(PruneError, match=r"finetune.chat_template: \S*none.jinja: cannot be read"):
        read_plan(file)
    (tmp_path / "none.jinja").write_text("{% for")
    with pytest.raises(PruneError, match=r"finetune.chat_template: \S*none.jinja:1: "):
        read_plan(file)


def write_pipeline(tmp_path: Path, folder: Path, template: str) -> Path:
    (tmp_path / "pipeline.toml").write_text(
        f'task = "generation"\ntrain = "{folder}/rows.jsonl"\nmodel = "{LM}"\nmethods = ["random"]\nkeep = [0.5]\n'
        f'seeds = [0]\n[tests]\ntest = "{folder}/rows.jsonl"\n[finetune]\nchat_template = "{template}"\n'
    )
    return tmp_path / "pipeline.toml"
