"""Bad input through the command line: one line says where and what, exit status 1, nothing is left behind."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Prune, Ran, sentences, write_rows

GOOD = b'{"id": "a", "text": "the film is good", "label": "positive"}\n'
OTHER = b'{"id": "b", "text": "the film is bad", "label": "negative"}\n'
BAD_ROWS = {
    "blank text": (b'{"text": "  ", "label": "positive"}', "text is blank"),
    "null text": (b'{"text": null, "label": "positive"}', "text is null"),
    "number for text": (b'{"text": 7, "label": "positive"}', "text 7 is an integer"),
    "missing text": (
        b'{"sentence": "fine", "label": "positive"}',
        'no "text"; the row has: "sentence", "label"',
    ),
    "missing label": (b'{"text": "fine"}', 'no "label"'),
    "duplicate id": (
        b'{"id": "a", "text": "fine", "label": "positive"}',
        'id "a" is that of data.jsonl:1 too',
    ),
    "NaN label": (b'{"text": "fine", "label": NaN}', "label NaN is a float; allowed: an integer or a string"),
    "NaN elsewhere": (b'{"text": "fine", "label": "positive", "x": NaN}', "x holds NaN"),
    "float label": (
        b'{"text": "fine", "label": 1.0}',
        "label 1.0 is a float; allowed: an integer or a string",
    ),
    "boolean label": (b'{"text": "fine", "label": true}', "label true is a boolean"),
    "other kind of label": (b'{"text": "fine", "label": 1}', "label 1 is an integer, but the rows before"),
    "broken JSON": (b'{"text": "fine", "label": "positive"', "broken JSON at column 37"),
    "no object": (b'["fine", "positive"]', "the row is a list; allowed: a JSON object"),
    "wrong encoding": ('{"text": "caf\xe9", "label": "positive"}'.encode("latin-1"), "0xe9, is not UTF-8"),
    "blank id": (b'{"id": "", "text": "fine", "label": "positive"}', "id is blank"),
}


def check(ran: Ran, *parts: str, code: int = 1) -> None:
    """One error line that holds all the parts, nothing on stdout, no traceback."""
    assert ran.code == code, ran.err
    assert len(ran.errors) == 1, ran.err
    assert all(part in ran.errors[0] for part in parts), ran.err
    assert len(ran.err.splitlines()) <= 2 and all(
        line.startswith(("error: ", "hint: ")) for line in ran.err.splitlines()
    ), ran.err
    assert ran.out == ""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder to work in."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def left(folder: str = ".") -> list[str]:
    """The names in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def command(stage: str, source: str, model: Path) -> list[str]:
    """A command of a stage that reads rows."""
    return {
        "represent": ["represent", source, "-o", "out", "--model", str(model)],
        "finetune": ["finetune", source, "-o", "out", "--model", str(model)],
        "score": ["score", source, "-o", "out", "--method", "random"],
        "select": ["select", source, "-o", "out", "--method", "random", "--keep", "1"],
    }[stage]


@pytest.mark.parametrize("stage", ["represent", "finetune", "score", "select"])
@pytest.mark.parametrize("case", BAD_ROWS)
def test_bad_rows_are_named_by_file_and_line(case: str, stage: str, here: Path, prune: Prune, tiny_model: Path) -> None:
    """Every stage that reads rows stops at a bad one, names its file and line, and leaves nothing behind."""
    row, problem = BAD_ROWS[case]
    (here / "data.jsonl").write_bytes(GOOD + OTHER + row + b"\n" + GOOD.replace(b'"a"', b'"c"'))
    if case == "missing label" and stage != "finetune":  # only training needs it
        assert prune(*command(stage, "data.jsonl", tiny_model)).code == 0
        return
    check(prune(*command(stage, "data.jsonl", tiny_model)), "data.jsonl:3: ", problem)
    assert left() == ["data.jsonl"]


@pytest.mark.parametrize("case", ["blank text", "broken JSON", "float label", "wrong encoding"])
def test_bad_rows_of_standard_input_have_lines_too(case: str, here: Path, prune: Prune) -> None:
    """Rows from stdin are checked as those of a file are."""
    row, problem = BAD_ROWS[case]
    select = ["select", "-", "-o", "out", "--method", "random", "--keep", 1]
    check(prune(*select, stdin=GOOD + OTHER + row), "stdin:3: ", problem)
    assert left() == []


@pytest.mark.parametrize(
    ("name", "content", "parts"),
    [
        ("data.jsonl", b"", ("data.jsonl:1: no rows",)),
        ("data.jsonl", b"\n  \n", ("data.jsonl:1: no rows",)),
        ("data.csv", b"", ("data.csv:1: no rows",)),
        ("data.csv", b"text,label\nfine,positive\nfine,positive,x\n", ("data.csv:3: 3 cells; allowed: 2",)),
        ("data.csv", b"text,label\nfine,positive\n ,negative\n", ("data.csv:3: text is blank",)),
        (
            "data.json",
            b'[{"text": "fine", "label": 0}, {"text": "", "label": 1}]',
            ("data.json:row 2: text is blank",),
        ),
        ("data.parquet", b"no parquet", ("data.parquet: cannot be read",)),
        ("data.jsonl.gz", b"no gzip", ("data.jsonl.gz: cannot be read",)),
        ("data.xlsx", b"x", ("data.xlsx: unknown kind of file; allowed: .jsonl", ".parquet")),
        ("data", b"x", ("data: unknown kind of file",)),
    ],
)
def test_bad_files(
    name: str, content: bytes, parts: tuple[str, ...], here: Path, prune: Prune, tiny_model: Path
) -> None:
    """A file that is empty, cut short or of no known kind is an error that says what is allowed."""
    (here / name).write_bytes(content)
    check(prune("represent", name, "-o", "out", "--model", tiny_model), *parts)
    assert left() == [name]


def test_missing_and_misnamed_sources(here: Path, prune: Prune, tiny_model: Path, made: Path) -> None:
    """What is not there, or is a folder that is no artifact, is named with what is allowed."""
    (here / "folder").mkdir()
    check(
        prune(*command("finetune", "no.jsonl", tiny_model)),
        "no.jsonl: there is no such file; allowed: .jsonl",
    )
    check(prune(*command("finetune", "folder", tiny_model)), "folder: is not a file")
    check(prune(*command("finetune", str(made / "score"), tiny_model)), "made by prune score")
    check(
        prune("select", "folder/none", "-o", "out", "--method", "top", "--keep", 1),
        "folder/none: there is no",
    )
    check(prune("show", "folder"), "not an artifact: folder")
    check(prune("show", "none"), "no such artifact: none")
    (here / "none.part").mkdir()
    for command_line in (["show", "none"], ["represent", "folder", "--model", "none", "-o", "out"]):
        assert "none.part beside it is under way or was interrupted" in prune(*command_line).err
    (here / "none.part").rmdir()
    assert left() == ["folder"]


def test_labels_that_do_not_fit(here: Path, prune: Prune, tiny_model: Path, made: Path) -> None:
    """One label alone cannot be trained on; a label that the model never saw is named by file and line."""
    write_rows(here / "one.jsonl", [row for row in sentences(9) if row["label"] == "positive"])
    check(prune(*command("finetune", "one.jsonl", tiny_model)), "one.jsonl:1: ", "at least two labels")
    write_rows(here / "unseen.jsonl", [*sentences(3), {"text": "so so", "label": "neutral"}])
    check(
        prune("eval", made / "warmup", "unseen.jsonl", "-o", "out"),
        "unseen.jsonl:4: label 'neutral' is not among those trained on; allowed: 'negative', 'positive'",
    )
    check(
        prune("represent", "unseen.jsonl", "-o", "out", "--model", made / "warmup"),
        "unseen.jsonl:4: label 'neutral' is not among those trained on",
    )
    write_rows(here / "number.jsonl", [{"text": "so so", "label": 0}])
    check(prune("eval", made / "warmup", "number.jsonl", "-o", "out"), "number.jsonl:1: label 0 is not among")
    assert left() == ["number.jsonl", "one.jsonl", "unseen.jsonl"]


@pytest.mark.parametrize("field", ["label=sentence", "text=nowhere", "label=text"])
def test_fields_that_do_not_fit(field: str, here: Path, prune: Prune, tiny_model: Path) -> None:
    """A renamed key that is not there, or whose new name is taken, is an error with file and line."""
    write_rows(here / "data.jsonl", [{"sentence": "fine", "text": "fine", "label": 0}])
    check(prune(*command("represent", "data.jsonl", tiny_model), "--field", field), "data.jsonl:1: ")


def drop_layer(weights: Path) -> None:
    """Take the second layer out of a file of weights."""
    from safetensors.torch import load_file, save_file

    save_file({name: value for name, value in load_file(weights).items() if ".1." not in name}, weights)


BAD_MODELS: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (lambda path: None, "no such folder"),
    "no config": (lambda path: (path / "config.json").unlink(), "not a model"),
    "broken config": (lambda path: (path / "config.json").write_text("{"), "cannot load"),
    "no tokenizer": (lambda path: (path / "tokenizer.json").unlink(), "holds no tokenizer"),
    "no weights": (lambda path: (path / "model.safetensors").unlink(), "cannot load model"),
    "a layer less": (lambda path: drop_layer(path / "model.safetensors"), "its weights lack bert.encoder.layer.1."),
    "cut weights": (lambda path: os.truncate(path / "model.safetensors", 1000), "cannot load model"),
}


@pytest.mark.parametrize("stage", ["represent", "finetune", "eval"])
@pytest.mark.parametrize("case", BAD_MODELS)
def test_bad_models(case: str, stage: str, here: Path, prune: Prune, tiny_model: Path, data: Path) -> None:
    """A model that is not there, lacks a file or is cut short is one line; nothing is left behind."""
    spoil, problem = BAD_MODELS[case]
    model = here / "model"
    if case != "no folder":
        shutil.copytree(tiny_model, model)
        spoil(model)
    train = data / "train.jsonl"
    ran = prune("eval", model, train, "-o", "out") if stage == "eval" else prune(*command(stage, str(train), model))
    check(ran, problem, "model")
    assert set(left()) <= {"model"}


def test_a_hub_name_without_a_network(here: Path, prune_process: Prune, data: Path) -> None:
    """A hub name that cannot be looked up is one line, with the way round it."""
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(here / "hub")}
    ran = prune_process(*command("represent", str(data / "test.jsonl"), Path("no-such-model")), env=offline)
    check(ran, "no-such-model")
    assert "hint: a folder that holds the model works without a network" in ran.err


def test_a_model_without_a_trained_head(here: Path, prune: Prune, tiny_model: Path, data: Path) -> None:
    """Where the head matters an untrained one is refused, with the way to train one."""
    test = data / "test.jsonl"
    for arguments in (
        ["eval", tiny_model, test],
        ["represent", test, "--model", tiny_model, "--kind", "dynamics"],
    ):
        ran = prune(*arguments, "-o", "out")
        check(ran, "a model with a trained head is needed")
        assert "hint: train one first: prune finetune" in ran.err
    assert left() == []


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--kind", "hiden"], ("kind: hiden; allowed: dynamics, gradient, hidden",)),
        (["--layer", "3"], ("layer: 3; the model has layers 0 (embeddings) to 2",)),
        (["--layer", "-4"], ("layer: -4",)),
        (["--dim", "0"], ("dim: 0; allowed: a whole number, 2 or more",)),
        (["--dim", "1"], ("dim: 1; allowed: a whole number, 2 or more",)),
        (["--dim", "16777217"], ("dim: 16777217; allowed: a whole number, 2 or more, at most 16777216",)),
        (["--dim", "1" + "0" * 400], ("dim: 10",)),
        (
            ["--batch-size", "2147483648"],
            ("batch_size: 2147483648; allowed: a whole number, 0 or more, at most 21474836",),
        ),
        (["--tokens-per-batch", "1" + "0" * 20], ("tokens_per_batch: 1",)),
        (["--max-length", "2147483648"], ("max_length: 2147483648; allowed: a whole number, 0 or more, at most",)),
        (["--batch-size", "-1"], ("batch_size: -1; allowed: a whole number, 0 or more",)),
        (["--checkpoints", "7"], ("no checkpoint 7; it keeps 1, 2",)),
        (["--checkpoints", "first"], ("no checkpoint first; it keeps 1, 2",)),
        (["--device", "gpu"], ("device: gpu; allowed: auto, cpu, cuda or cuda:N",)),
        (["--device", "cuda:99"], ("device: cuda:99",)),
        (["--device", "cuda:²"], ("device: cuda:²; allowed: auto, cpu, cuda or cuda:N",)),
        (["--device", "cuda:" + "9" * 5000], ("allowed: auto, cpu, cuda or cuda:N",)),
        (
            ["--kind", "gradient", "--params", "last:" + "9" * 5000],
            ("the model has 2 blocks; allowed: last:1 to last:2",),
        ),
        (["--max-length", "1"], ("max_length: 1",)),
        (["--seed", "-1"], ("seed: -1; allowed: a whole number, 0 or more, below 4294967296",)),
    ],
)
def test_bad_values_of_represent(
    arguments: list[str], parts: tuple[str, ...], here: Path, prune: Prune, made: Path, data: Path
) -> None:
    """A value that cannot be used is named with what is allowed."""
    check(prune("represent", data / "test.jsonl", "-o", "out", "--model", made / "warmup", *arguments), *parts)
    assert left() == []


def test_a_text_longer_than_the_model_reads(here: Path, prune: Prune, made: Path, tiny_model: Path, data: Path) -> None:
    """A text is cut to the tokenizer's limit; if that is unknown, too long a text is named by its line."""
    write_rows(here / "long.jsonl", [*sentences(5), {"text": "good " * 100, "label": "positive"}])
    represent = ["represent", "long.jsonl", "-o", "out", "--model"]
    ran = prune(*represent, made / "warmup", "--max-length", 32)
    assert ran.code == 0 and "1 of 6 rows were cut to 32 tokens, and lost 70; the tokenizer's limit" in ran.err
    shutil.rmtree(here / "out")
    shutil.copytree(tiny_model, here / "model")
    settings = json.loads((here / "model" / "tokenizer_config.json").read_text())
    del settings["model_max_length"]
    (here / "model" / "tokenizer_config.json").write_text(json.dumps(settings))
    for command in ([*represent, "model"], ["finetune", "long.jsonl", "-o", "out", "--model", "model"]):
        ran = prune(*command)
        check(ran, "long.jsonl:6: 102 tokens; the model has positions for 32")
        assert "hint: --max-length 32" in ran.err
        assert prune(*command, "--max-length", 32).code == 0
        shutil.rmtree(here / "out")


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--epochs", "0"], ("epochs: 0.0; allowed: a number above 0",)),
        (["--epochs", "nan"], ("epochs: NaN; allowed: a number above 0",)),
        (["--learning-rate", "inf"], ("learning_rate: Infinity; allowed: a number above 0",)),
        (["--epochs", "1e7"], ("epochs: 10000000.0; allowed: a number above 0, at most 1000000",)),
        (["--steps", "-1"], ("steps: -1",)),
        (["--steps", "2147483648"], ("steps: 2147483648; allowed: a whole number, 0 or more, at most 2147483647",)),
        (["--batch-size", "1" + "0" * 20], ("batch_size: 1",)),
        (["--accumulate", "2147483648"], ("accumulate: 2147483648",)),
        (["--max-length", "2147483648"], ("max_length: 2147483648",)),
        (
            ["--tune", "lora", "--lora-rank", "65537"],
            ("lora_rank: 65537; allowed: a whole number above 0, at most 65",),
        ),
        (["--tune", "lora", "--lora-alpha", "1" + "0" * 400], ("lora_alpha: 1",)),
        (["--warmup-ratio", "1.5"], ("warmup_ratio: 1.5; allowed: a number, 0 or more, below 1",)),
        (["--tune", "lora", "--lora-targets", "nothing"], ("lora_targets: nothing",)),
        (["--tune", "lora", "--lora-rank", "0"], ("lora_rank: 0; allowed: a whole number above 0",)),
        (["--learning-rate", "1e30"], ("training diverged",)),
        (["--lora-rank", "8"], ("lora_rank: 8; it has no say with tune full, only with lora; leave it out",)),
        (["--log-steps", "5"], ("log_steps: 5; it has no say with log none, only with tensorboard, wandb, mlflow",)),
        (["--keep-moments"], ("keep_moments: true; it has no say with keep_checkpoints none, only with epoch",)),
        (
            ["--loss-on", "last"],
            ("loss_on: last; it has no say with the task classification, only with --task generation; leave it out",),
        ),
    ],
)
def test_bad_values_of_finetune(
    arguments: list[str], parts: tuple[str, ...], here: Path, prune: Prune, tiny_model: Path, data: Path
) -> None:
    """A value that cannot be used, or that training cannot survive, is one line; nothing is left behind."""
    check(prune(*command("finetune", str(data / "train.jsonl"), tiny_model), *arguments), *parts)
    assert left() == []


BELOW, ABOVE = "1e-99999999999999999999", "1e99999999999999999999%"  # beyond what a Decimal holds


@pytest.mark.parametrize(
    "keep", ["0", "0.0", "1.5", "-0.3", "0%", "120%", "-5", "25", "nan", "much", "", "9" * 5000, BELOW, ABOVE]
)
def test_bad_budgets(keep: str, here: Path, prune: Prune, data: Path) -> None:
    """A budget that is nothing, too much or no number is refused, with what is allowed."""
    ran = prune("select", data / "train.jsonl", "-o", "out", "--method", "random", f"--keep={keep}")
    check(ran, "keep: ")
    assert left() == []


def test_bad_methods_and_their_options(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """An unknown method, option or representation is named with those allowed; what lacks is asked for."""
    train = [made / "train", "-o", "out"]
    kept = [*train, "--keep", 3, "--method"]
    for arguments, *parts in (
        (["score", *train, "--method", "lss"], "score method: lss; allowed: ", "less"),
        (["select", *kept, "best"], "select method: best; allowed: ", "top"),
        (
            ["select", *kept, "kmeans", "--on", "hidden", "--set", "kk=3"],
            "kmeans: kk: unknown option; did you mean k? allowed: k",
        ),
        (
            ["select", *kept, "kmeans", "--on", "hidden", "--set", "k=three"],
            "k: three; allowed: a whole number",
        ),
        (["select", *kept, "kmeans", "--on", "hidden", "--set", "k=-1"], "k: -1; allowed: a whole number"),
        (
            ["select", *kept, "kmeans"],
            "--on: missing; allowed: dynamics, gradient, hidden",
        ),
        (
            ["select", *kept, "kmeans", "--on", "ngram"],
            "--on ngram: not among the inputs; there are: dynamics",
        ),
        (["select", *kept, "random", "--on", "hidden"], "--on hidden: this method runs on no representation"),
        (["select", *kept, "top"], "no score artifact is given; this method needs one"),
        (["score", *train, "--method", "less", "--on", "gradient"], "--target ARTIFACT is needed"),
        (["score", data / "train.jsonl", "-o", "out", "--method", "el2n"], "dynamics is needed"),
        (["score", *train, "--method", "less", "--on", "gradient", "--target", ""], "target: empty; allowed: text"),
        (["select", *kept, "random", "--within", ""], "within: empty; allowed: text"),
        (["select", "-", "-o", "out", "--method", "random", "--keep", 1, "--decontaminate", "-"], "-: given twice"),
    ):
        check(prune(*arguments), *parts)
    assert left() == []


@pytest.mark.parametrize(
    ("on", "hint"),
    [
        ("gradint", "hint: did you mean gradient?"),
        ("influence", "hint: prune represent DATA -o OUT --model MODEL --kind influence"),
        ("logitz", None),
    ],
)
def test_a_representation_that_is_not_there(on: str, hint: str | None, here: Path, prune: Prune, made: Path) -> None:
    """A kind is told how it is made, a mistyped one its nearest name, and what is like none nothing."""
    ran = prune("score", made / "train", "-o", "out", "--method", "prototypicality", "--on", on)
    check(ran, f"--on {on}: not among the inputs; there are: dynamics, gradient, hidden")
    assert ran.err.splitlines()[1:] == ([hint] if hint else [])


def test_an_option_of_a_kind_that_is_not_asked_for(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """It would change nothing: refused with the kinds that have it, unless it says no more than the default."""
    represent = ["represent", data / "test.jsonl", "-o", "out", "--model", made / "warmup"]
    check(prune(*represent, "--dim", 64), "dim: 64; an option of gradient, and not of hidden; leave it out")
    wrong = prune(*represent, "--kind", "dynamics", "--params", "head", "--layer", 1)
    assert (wrong.code, wrong.errors) == (
        1,
        [
            "params: head; an option of gradient, influence, and not of dynamics; leave it out",
            "layer: 1; an option of hidden, and not of dynamics; leave it out",
        ],
    )
    assert left() == []
    assert prune(*represent, "--dim", 8192, "--params", "all", "--dry-run").code == 0
    assert prune(*represent, "--kind", "hidden,gradient", "--dim", 64, "--layer", 1, "--dry-run").code == 0


def test_inputs_that_do_not_belong_together(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """Artifacts of other rows, representations of another space and two data files are refused."""
    train, test = data / "train.jsonl", data / "test.jsonl"
    score = ["-o", "out", "--method", "less", "--on", "gradient", "--target"]
    assert (
        prune("represent", test, "-o", "other", "--model", made / "warmup", "--kind", "gradient", "--dim", 32).code == 0
    )
    check(prune("score", made / "train", *score, "other"), "other: its gradient is not comparable with that of")
    check(
        prune("select", made / "score", test, "-o", "out", "--method", "top", "--keep", 3),
        "test.jsonl:1: id row-200 is not in",
    )
    check(prune("score", train, test, "-o", "out", "--method", "random"), "more than one data file")
    check(
        prune(
            "represent",
            test,
            "-o",
            "out",
            "--model",
            made / "warmup",
            "--kind",
            "dynamics",
            "--dynamics",
            "recorded",
        ),
        "test.jsonl:1: id row-200 was not trained on",
    )
    assert left() == ["other"]


def test_rows_that_changed_after_they_were_scored(here: Path, prune: Prune) -> None:
    """A score leads back to the rows that it is of; where those were edited or moved, it is of no use."""
    write_rows(here / "data.jsonl", sentences(6))
    assert prune("score", "data.jsonl", "-o", "score", "--method", "random").code == 0
    select = ["select", "score", "-o", "out", "--method", "top", "--keep", 3]
    write_rows(here / "data.jsonl", [{**row, "text": "good"} for row in sentences(6)])
    check(prune(*select), "data.jsonl: changed since score scored its rows")
    (here / "data.jsonl").unlink()
    check(prune(*select), "score: the rows that it scored are no longer at data.jsonl")
    assert left() == ["score"]


def test_two_tests_of_one_name(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """Test sets are told apart by name, so two of one name are refused; NAME=PATH gives another."""
    shutil.copy(data / "test.jsonl", here / "test.jsonl")
    ran = prune("eval", made / "warmup", data / "test.jsonl", "test.jsonl", "-o", "out")
    check(ran, "two test sets are called test")
    assert "hint: name one yourself: test2=test.jsonl" in ran.err
    ran = prune("eval", made / "warmup", data / "test.jsonl", "ood=test.jsonl", "-o", "out", "--json")
    assert list(ran.json()["metrics"]) == ["test", "ood"]


def test_another_recipe_for_an_artifact_is_refused(here: Path, prune: Prune, made: Path) -> None:
    """An artifact is not replaced by one made otherwise, unless told to; the reason names what differs."""
    shutil.copytree(made / "kept", here / "kept")
    select = ["select", made / "score", "-o", "kept", "--method", "top", "--keep"]
    before = (here / "kept" / "select.jsonl").read_bytes()
    check(prune(*select, "6"), "kept: holds another artifact: options.n_keep 12 -> 6")
    check(prune(*select, "6", "--dry-run"), "options.n_keep 12 -> 6")
    assert (here / "kept" / "select.jsonl").read_bytes() == before
    assert prune(*select, "12").err.startswith("select: up to date\n")
    assert "(options.n_keep 12 -> 6)" in prune(*select, "6", "--replace").err
    assert len((here / "kept" / "select.jsonl").read_text().splitlines()) == 6
    assert left() == ["kept"]


def test_damaged_artifacts(here: Path, prune: Prune, made: Path) -> None:
    """A file cut short or edited is an error to its readers, and `show` says so; --force makes it anew."""
    shutil.copytree(made / "score", here / "score")
    select = ["select", "score", made / "train", "-o", "out", "--method", "top", "--keep", 3]
    file = here / "score" / "score.jsonl"
    whole = file.read_text()
    for spoilt in (whole[:-1], whole.replace("0", "1", 1), ""):
        file.write_text(spoilt)
        check(prune(*select), "score/score.jsonl: differs from what was written")
        shown = prune("show", "score")
        assert shown.code == 1 and shown.errors == ["score: damaged: score.jsonl"]
    file.unlink()
    check(prune(*select), "score/score.jsonl: is missing")
    assert prune("show", "score").errors == ["score: missing: score.jsonl"]
    score = [
        "score",
        made / "train",
        "-o",
        "score",
        "--method",
        "less",
        "--on",
        "gradient",
        "--target",
        made / "validation",
    ]
    check(prune(*score), "score: holds another artifact: score.jsonl is missing")
    assert prune(*score, "--force").code == 0
    assert file.read_text() == whole
    manifest = json.loads((here / "score" / "manifest.json").read_text())
    manifest["recipe"]["options"]["method"] = "loss"
    edited = json.dumps(manifest)
    deep = '{"prune": ' + "[" * 5000
    for spoilt in (edited, edited[:-1], edited[:40], '{"prune": "0.1.0"}', deep, deep + "]" * 5000 + "}"):
        (here / "score" / "manifest.json").write_text(spoilt)
        check(prune(*select), "score/manifest.json: damaged or edited")
        check(prune("show", "score"), "score/manifest.json: damaged or edited")
        check(prune(*score), "manifest.json is damaged")
    check(prune(*score, "--force"), "score/manifest.json: damaged, so prune does not know which files are its own")
    (here / "score" / "manifest.json").write_text(edited)  # which still lists its files
    assert prune(*score, "--force").code == 0
    for other in ("{", "[]", "null", "{}", ""):  # the folder may be anyone's: it is neither read nor replaced
        (here / "score" / "manifest.json").write_text(other)
        check(prune(*select), "score: is not a file")
        check(prune("show", "score"), "not an artifact: score")
        check(prune(*score, "--force"), "score: exists and was not made by prune")
        assert file.read_text() == whole
    assert left() == ["score"]


def test_a_damaged_model_is_not_used(here: Path, prune: Prune, made: Path, data: Path) -> None:
    """Weights that were edited after training are an error, not a result."""
    shutil.copytree(made / "warmup", here / "warmup")
    weights = here / "warmup" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    check(
        prune("eval", "warmup", data / "test.jsonl", "-o", "out"),
        "model.safetensors: differs from what was written",
    )
    weights = here / "warmup" / "checkpoints" / "1" / "model.safetensors"
    shutil.copy(made / "warmup" / "model.safetensors", here / "warmup" / "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    ran = prune("represent", data / "test.jsonl", "-o", "out", "--model", "warmup")
    assert ran.code == 1 and "checkpoints/1/model.safetensors: differs from what was written" in ran.errors[0]
    assert left() == ["out.part", "warmup"]  # what was made of another checkpoint, to go on from


def test_places_that_cannot_be_written(here: Path, prune: Prune, made: Path, tiny_model: Path, data: Path) -> None:
    """What is there already and is not ours is never touched; a place that cannot be is one line."""
    (here / "mine").mkdir()
    (here / "mine" / "notes.txt").write_text("mine")
    (here / "file").write_text("mine")
    for out, part in (
        ("mine", "mine: exists and was not made by prune"),
        ("file", "file: exists and was not made by prune"),
        ("file/out", "Not a directory"),
        (".", "not a name"),
        ("..", "not a name"),
        ("x" * 300, "File name too long"),
    ):
        for force in ([], ["--force"]):
            ran = prune("represent", data / "test.jsonl", "-o", out, "--model", tiny_model, *force)
            check(ran, part)
    assert left() == ["file", "mine"] and left("mine") == ["notes.txt"]
    shutil.copytree(made / "kept", here / "kept")
    select = ["select", "kept", "-o", "kept", "--method", "random", "--keep", 3]
    check(prune(*select), "holds another artifact")
    check(prune(*select, "--force"), "kept: is one of the inputs")


def test_wrong_usage(here: Path, prune: Prune, tiny_model: Path) -> None:
    """What the command line itself does not allow is exit status 2: a line, and where the help is."""
    represent = ["represent", "x.jsonl", "-o", "out", "--model", str(tiny_model)]
    for arguments, part, hint in (
        (["prune"], "No such command 'prune'", "prune --help"),
        (["represent"], "Missing argument 'DATA'", "prune represent --help"),
        ([*represent, "--pool", "cls"], "No such option: --pool", "prune represent --help"),
        ([*represent, "--pooling", "max"], "'max' is not one of 'auto', 'cls', 'mean', 'last', 'position'", ""),
        ([*represent, "--dim", "many"], "'--dim': Input should be a valid integer", ""),
        ([*represent, "--field", "text"], "--field: text; allowed: NAME=KEY", "prune represent --help"),
        (["score", "x", "-o", "out", "--method", "less", "--set", "k"], "--set: k; allowed: KEY=VALUE", ""),
        (
            ["score", "x", "-o", "out", "--method", "less", "--set", "k=1", "--set", "k=2"],
            "each key once",
            "",
        ),
        (
            ["select", "x", "-o", "o", "--method", "top", "--keep", "1", "--balance", "even"],
            "is not one of",
            "",
        ),
    ):
        ran = prune(*arguments)
        check(ran, part, code=2)
        assert hint in ran.err
    assert left() == []


def test_rows_of_a_language_model_are_told_their_task(here: Path, prune: Prune) -> None:
    """Where the task was not said, the hint is not to classify the instructions."""
    write_rows(here / "rows.jsonl", [{"instruction": "Say yes.", "output": "Yes."}])
    ran = prune("select", "rows.jsonl", "-o", "out", "--method", "random", "--keep", 1)
    assert ran.code == 1 and "hint: --task generation reads these rows for a language model" in ran.err
