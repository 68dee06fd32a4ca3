"""From rows to tokens and back to scores: nothing depends on the day, is lost, or is counted right without a word."""

from __future__ import annotations

import json
import math
import random
import re
import shutil
import string
import time
from datetime import UTC, datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers

from prune_cli.data.formats._conversation import of_messages
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.models.find import find
from prune_cli.models.load import load_tokenizer
from prune_cli.stages.evaluate import finite
from prune_cli.tasks import chat, choice, classification, generation, text_scores
from tests.conftest import REPOSITORY, Prune, read_rows, write_rows

LM = REPOSITORY / "sample_data" / "lm"
DAY = "{{ strftime_now('%d %b %Y') }}"
LLAMA = "".join(  # as in Llama 3.1's template
    [
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}",
        '{%- set date_string = strftime_now("%d %b %Y") %}{%- else %}{%- set date_string = "26 Jul 2024" %}',
        '{%- endif %}{%- endif %}{{ "Today Date: " + date_string }}',
    ]
)
TURNS = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
MESSAGES = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "yes"}]


@pytest.mark.parametrize(
    "question",
    [
        "What is my_var_name?",
        "__init__ is called by",
        "Let a_{n+1} = a_n",
        "What does $_ hold?",
        r"In LaTeX \_ is",
        "This is _emphasised_",
        "x_1 and x_",
        "é_ and _é",
        "none",
    ],
)
def test_an_underscore_that_touches_something_is_no_blank(question: str) -> None:
    """Names, indices, markup and variables stay as they are, and the choice follows the question."""
    assert choice.filled(question, "cold") == question
    row = {"question": question, "choices": ["cold", "warm"], "label": 0}
    assert choice._texts([row]) == ([question, question], ["cold", "warm"])


@pytest.mark.parametrize(
    ("question", "filled"),
    [
        ("The lid is _.", "The lid is cold."),
        ("_ is hot", "cold is hot"),
        ("The ____ is (_), \"_\" or '_'; _'s", "The cold is (cold), \"cold\" or 'cold'; cold's"),
        ("hot, _", "hot, cold"),
        ("my_name is _", "my_name is cold"),
        ("_", "cold"),
    ],
)
def test_a_blank_stands_alone(question: str, filled: str) -> None:
    """A run of underscores with space or punctuation about it is filled, beside names that are not."""
    assert choice.filled(question, "cold") == filled
    assert choice._texts([{"question": question, "choices": ["cold", "warm"], "label": 0}])[1] is None


def test_the_blanks_of_the_sample_data_are_filled() -> None:
    """Every question of sample_data/choice that was written with a blank is filled."""
    rows = read_rows(REPOSITORY / "sample_data" / "choice" / "train.jsonl")
    with_blank = [row for row in rows if "_" in row["question"]]
    assert len(with_blank) > 100
    assert all("_" not in choice.filled(row["question"], "x") for row in with_blank)


def tokenizer_with(template: str) -> Any:
    """The tokenizer of the sample model with another chat template."""
    tokenizer = load_tokenizer(find(str(LM)))
    tokenizer.chat_template = template
    return tokenizer


def texts_of(tokenizer: Any) -> tuple[str, str]:
    """The prompt of MESSAGES and the whole."""
    told = of_messages(MESSAGES)
    return chat.prompt(tokenizer, told, "here"), chat.rendered(tokenizer, told, [len(MESSAGES) - 1], "here").whole


@pytest.fixture
def another_day(monkeypatch: pytest.MonkeyPatch) -> str:
    """A day far from today, by the clock of transformers' templates."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime(1999, 12, 31)

    monkeypatch.setattr("transformers.utils.chat_template_utils.datetime", Clock)
    return "31 Dec 1999"


@pytest.mark.parametrize("template", [DAY, LLAMA])
def test_a_template_sees_a_fixed_date(template: str, another_day: str) -> None:
    """The library's own rendering changes with the day; ours does not, and is otherwise the same."""
    tokenizer = tokenizer_with(template + TURNS)
    theirs = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
    prompt, whole = texts_of(tokenizer)
    assert another_day in theirs
    assert whole == theirs.replace(another_day, "26 Jul 2024")
    assert whole.startswith(prompt)


@pytest.mark.parametrize("stage", ["represent", "finetune"])
def test_the_same_recipe_gives_the_same_bytes_on_another_day(
    stage: str, prune: Prune, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Hidden states and weights of a model whose template prints the date do not depend on the clock."""
    tokenizer = tokenizer_with(LLAMA + TURNS)
    model = tmp_path / "model"
    transformers.AutoModelForCausalLM.from_pretrained(LM).save_pretrained(model)
    tokenizer.save_pretrained(model)
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": f"what is {i}", "response": "good"} for i in range(4)])
    more = ["--steps", 1] if stage == "finetune" else []
    file = "model.safetensors" if stage == "finetune" else "hidden.safetensors"

    def made(name: str) -> bytes:
        command = [stage, rows, "-o", tmp_path / name, "--model", model, "--task", "generation", *more]
        ran = prune(*command)
        assert ran.code == 0, ran.err
        return (tmp_path / name / file).read_bytes()

    today = made("today")
    request.getfixturevalue("another_day")
    assert made("another") == today


@pytest.mark.parametrize("code", [*chat._CODES, *(f"-{code}" for code in "dmHIMSj")])
def test_every_code_of_strftime_is_told(code: str) -> None:
    """The macro's text for a code is Python's own for the fixed date; `%%` is a percent sign."""
    text = f"a %{code} b %% %%d %{code}"
    tokenizer = tokenizer_with(f"{{{{ strftime_now({text!r}) }}}}|{TURNS}")
    _, whole = texts_of(tokenizer)
    assert whole.split("|<")[0].rstrip("|") == datetime(2024, 7, 26, tzinfo=UTC).strftime(text)


def test_a_template_keeps_its_white_space_beside_the_date() -> None:
    """A first line of spaces, an empty line and trimmed blocks come out as the library renders them."""
    for start in ("\n", "  \n", "  {% if true %}\n x{% endif %}", " {%- if true %} y {% endif %}", "{# c #}\n"):
        template = start + TURNS + "{{ strftime_now('') }}"
        tokenizer = tokenizer_with(template)
        theirs = tokenizer.apply_chat_template(MESSAGES, tokenize=False)
        assert texts_of(tokenizer)[1] == theirs


def test_a_template_that_draws_at_random_draws_the_same() -> None:
    """Jinja's random filter gives the same words each time, and leaves Python's own draws alone."""
    tokenizer = tokenizer_with("{{ range(10000) | random }} {{ lipsum(n=1) }}" + TURNS)
    random.seed(5)
    expected = random.random()
    random.seed(5)
    first = texts_of(tokenizer)
    assert random.random() == expected
    assert texts_of(tokenizer) == first
    assert first[1].startswith(first[0])


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ("{{ raise_exception('no system please') }}", "refuses the messages: no system please"),
        ("{{ messages[7].content }}", "refuses the messages: list object has no element 7"),
        ("{% if %}", "refuses the messages: "),
        ("{{ 1 / 0 }}", "fails on the messages: ZeroDivisionError: division by zero"),
        ("{{ messages[0].content + 1 }}", "fails on the messages: TypeError: "),
        ("{{ 'a' * 10 ** 15 }}", "fails on the messages: "),
        ("{% for i in range(10 ** 9) %}x{% endfor %}", "fails on the messages: OverflowError: "),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "fails on the messages: RecursionError: "),
    ],
)
def test_whatever_a_template_raises_is_one_line(template: str, said: str, tmp_path: Path) -> None:
    """Any exception of a template is an error of the row, with file and line."""
    rows = open_rows(write_rows(tmp_path / "rows.jsonl", [{"messages": MESSAGES}]), check=generation.check)
    with pytest.raises(PruneError) as failure:
        generation.encode(rows, tokenizer_with(template), 50, [])
    assert failure.value.message.startswith(f"{tmp_path / 'rows.jsonl'}:1: the chat template ")
    assert said in failure.value.message


def test_a_template_that_runs_away_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loops within loops end after the time for a row; a text without end is told by its length."""
    monkeypatch.setattr(chat, "SECONDS", 0.3)
    loops = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
    began = time.monotonic()
    with pytest.raises(PruneError, match=r"here: the chat template fails .* TimeoutError: it took more than 0.3 s"):
        texts_of(tokenizer_with(loops))
    assert time.monotonic() - began < 60  # the loops by themselves would take hours
    monkeypatch.undo()
    with pytest.raises(PruneError, match="here: the chat template makes a text of 20000000 characters; allowed: up to"):
        texts_of(tokenizer_with("{{ 'ab' * 10 ** 7 }}"))


def uncut(tokenizer: Any, *texts: str) -> int:
    """The number of tokens of a text or pair, by the tokenizer alone."""
    return len(tokenizer(*texts)["input_ids"])


@pytest.mark.parametrize("task", ["classification", "choice", "generation"])
def test_tokens_that_are_cut_are_counted(task: str, tmp_path: Path) -> None:
    """For each row as many as the tokenizer alone makes over the limit; a row just as long as the limit loses none."""
    tokenizer = load_tokenizer(find(str(LM if task == "generation" else LM.parent / "model")))
    tokenizer.chat_template = None
    words = [" ".join(["the film is good"] * (i + 1)) for i in range(6)]
    rows: list[dict[str, Any]]
    texts: list[list[tuple[str, ...]]]
    if task == "classification":
        rows = [{"text": t, "label": i % 2, **({"text_pair": t} if i % 2 else {})} for i, t in enumerate(words)]
        texts = [[(row["text"], row["text_pair"]) if "text_pair" in row else (row["text"],)] for row in rows]
    elif task == "choice":
        rows = [
            {"question": f"_ {t}" if i % 2 else t, "choices": ["a film", "the film is good"], "label": 0}
            for i, t in enumerate(words)
        ]
        texts = [
            [
                (choice.filled(row["question"], c),) if "_" in row["question"] else (row["question"], c)
                for c in row["choices"]
            ]
            for row in rows
        ]
    else:
        rows = [{"prompt": t, "response": "good"} for t in words]
        texts = [[(f"{t}",)] for t in words]
    module: Any = {"classification": classification, "choice": choice, "generation": generation}[task]
    opened = open_rows(write_rows(tmp_path / "rows.jsonl", rows), check=module.check)
    labels = module.label_list(opened)
    answer = len(tokenizer("good", add_special_tokens=False)["input_ids"]) + 1 if task == "generation" else 0
    lengths = [[uncut(tokenizer, *text) + answer for text in row] for row in texts]
    limit = lengths[2][0]
    encoded = module.encode(opened, tokenizer, limit, labels)
    expected = [sum(max(0, length - limit) for length in row) for row in lengths]
    assert encoded.lost_by_row.tolist() == expected
    assert expected[0] == 0 and lengths[2][0] == limit and sum(x > 0 for x in expected) >= 3
    whole = module.encode(opened, tokenizer, 10**6, labels)  # the tokenizer has a limit of its own
    assert whole.limit == tokenizer.model_max_length
    assert whole.lost_by_row.tolist() == [
        sum(max(0, length - tokenizer.model_max_length) for length in row) for row in lengths
    ]


@pytest.mark.parametrize("stage", ["finetune", "represent", "eval"])
def test_rows_that_are_cut_are_told_and_kept(
    stage: str, prune: Prune, tiny_model: Path, made: Path, data: Path, tmp_path: Path
) -> None:
    """Once on stderr, in the manifest and by `show`; without cut rows, not a word."""
    model = made / "warmup"
    rows = read_rows(data / "train.jsonl")
    lengths = [len(row["text"].split()) + 2 for row in rows]
    counts = {"rows": sum(x > 6 for x in lengths), "of": 24, "tokens": sum(max(0, x - 6) for x in lengths)}
    assert 0 < counts["rows"] < 24
    inputs = [model, data / "train.jsonl"] if stage == "eval" else [data / "train.jsonl", "--model", model]
    more = ["--steps", 1] if stage == "finetune" else []
    ran = prune(stage, *inputs, "-o", tmp_path / "cut", "--max-length", 6, *more)
    assert ran.code == 0, ran.err
    n, tokens = counts["rows"], counts["tokens"]
    said = f"{data / 'train.jsonl'}: {n} of 24 rows were cut to 6 tokens, and lost {tokens}; a larger --max-length"
    assert ran.err.count(said) == 1 and ran.err.count("were cut") == 1
    shown = prune("show", tmp_path / "cut", "--json").json()
    name = "train" if stage == "eval" else "rows"
    assert shown["about"]["cut"] == {name: {**counts, "max_length": 6}}
    assert f"{name}: {n} of 24 to 6 tokens; {tokens} lost" in prune("show", tmp_path / "cut").out
    ran = prune(stage, *inputs, "-o", tmp_path / "whole", "--max-length", 512, *more)
    assert ran.code == 0 and "were cut" not in ran.err
    assert " lost" not in prune("show", tmp_path / "whole").out
    assert prune("show", tmp_path / "whole", "--json").json()["about"]["cut"][name]["rows"] == 0


def test_rows_of_a_target_set_that_are_cut_are_told_apart(prune: Prune, made: Path, data: Path, tmp_path: Path) -> None:
    """`represent --kind influence` reads two files, each of which may be cut."""
    command = ["represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", made / "warmup", "--kind"]
    ran = prune(*command, "influence", "--target-data", data / "validation.jsonl", "--max-length", 6)
    assert ran.code == 0, ran.err
    assert "train.jsonl: " in ran.err and "validation.jsonl: " in ran.err
    cut = prune("show", tmp_path / "out", "--json").json()["about"]["cut"]
    assert (cut["rows"]["of"], cut["target"]["of"]) == (24, 8)


def test_rows_of_several_files_that_are_cut_are_told_together(
    prune: Prune, made: Path, data: Path, tmp_path: Path
) -> None:
    """Under the name that the files have in common."""
    for name in ("train", "validation"):
        (tmp_path / f"part-{name}.jsonl").write_bytes((data / f"{name}.jsonl").read_bytes())
    start = ["represent", tmp_path / "part-*.jsonl", "-o", tmp_path / "out", "--model", made / "warmup"]
    ran = prune(*start, "--kind", "dynamics", "--max-length", 6)
    assert ran.code == 0 and " of 32 rows were cut" in ran.err
    assert any(line.startswith("part: ") for line in ran.err.splitlines())


@pytest.mark.parametrize(
    ("max_length", "own", "whose", "hint"),
    [
        (5, 60, "max_length 5 leaves one", "--max-length {} or more"),
        (5, 6, "max_length 5 leaves one", "this model reads no more; leave such rows out: prune select"),
        (6, 6, "the tokenizer's limit of 6 tokens", "this model reads no more; leave such rows out: prune select"),
        (500, 6, "the tokenizer's limit of 6 tokens", "this model reads no more; leave such rows out: prune select"),
        (5, 0, "max_length 5 leaves one", "--max-length 9, which is all that this model reads; 1 too long even so: "),
    ],
)
def test_a_response_too_long_names_whose_limit_it_is(
    max_length: int, own: int, whose: str, hint: str, tmp_path: Path
) -> None:
    """The option where that is the lower one, with a value that is enough for all; else the tokenizer's own limit.

    own: the tokenizer's limit, 0 for as many tokens as the longest response has.
    """
    tokenizer = load_tokenizer(find(str(LM)))
    tokenizer.chat_template = None
    text = "the film is good"
    while len(tokenizer(text, add_special_tokens=False)["input_ids"]) < 6:
        text += " good"
    length = len(tokenizer(text, add_special_tokens=False)["input_ids"]) + 1
    tokenizer.model_max_length = own or length + 1
    said = [{"prompt": "a", "response": response} for response in (text, "no", f"{text} good")]
    rows = open_rows(write_rows(tmp_path / "a.jsonl", said), check=generation.check)
    with pytest.raises(PruneError) as failure:
        generation.encode(rows, tokenizer, max_length, [])
    assert f"a.jsonl:1: response of {length} tokens; allowed: up to" in failure.value.message
    assert whose in failure.value.message
    assert f"; 1 more are too long, of up to {length + 1} tokens" in failure.value.message
    assert list(failure.value.also) == [f"{tmp_path / 'a.jsonl'}:3: response of {length + 1} tokens"]
    assert failure.value.hint and failure.value.hint.startswith(hint.format(length + 2))


def test_of_many_responses_too_long_twenty_are_named(tmp_path: Path) -> None:
    """The rest are counted."""
    tokenizer = load_tokenizer(find(str(LM)))
    rows = open_rows(
        write_rows(tmp_path / "a.jsonl", [{"prompt": "a", "response": "the film is good"}] * 23), check=generation.check
    )
    with pytest.raises(PruneError) as failure:
        generation.encode(rows, tokenizer, 3, [])
    where = tmp_path / "a.jsonl"
    assert failure.value.message.startswith(f"{where}:1: ")
    assert [told.partition(": ")[0] for told in failure.value.also[:-1]] == [f"{where}:{i}" for i in range(2, 21)]
    assert failure.value.also[-1] == f"{where}: and 3 more"


SAME = [
    ("0.5", "1/2"),
    ("0.5", r"\frac{1}{2}"),
    ("0.5", r"\boxed{\dfrac{1}{2}}"),
    ("0.5", "½"),
    ("1.5", "1 1/2"),
    ("1.5", "1½"),
    ("1,234.50", "1234.5"),
    ("1,234,567", "1234567."),
    ("1000", "1e3"),
    ("1000", "10^3"),
    ("2000", r"2 \times 10^{3}"),
    ("0.002", "2E-3"),
    ("-5", "\u22125"),
    ("-5", "-$5"),
    ("-5", "$-5"),
    ("50", "50%"),
    ("18", "$18.00"),
    ("3", "12 / 4"),
    ("3:30", "at 3:30."),
    ("2", "- 2"),
    ("3", "5-3"),
    ("3", "so 5 \u2013 3"),
]
OTHER = [
    ("1/2", "3/2"),
    ("3:30", "4:30"),
    ("3:30", "30"),
    ("1:2", "3:2"),
    ("2^10", "3^10"),
    ("1 1/2", "1/2"),
    (r"\frac{1}{2}", r"\frac{3}{2}"),
    ("1e3", "3"),
    ("5", "-5"),
    ("7/0", "3/0"),
    ("1,234", "234"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_numbers_that_are_equal_are_the_same_however_they_are_written(one: str, other: str) -> None:
    """At the end of a worked answer, in either place."""
    found = text_scores.last_number(f"7 apples\n#### {one}")
    assert found is not None and found == text_scores.last_number(f"first 8, then it is {other}")


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_numbers_that_differ_are_not_the_same(one: str, other: str) -> None:
    """Not even where both end with the same digits."""
    found = [text_scores.last_number(f"7 apples\n#### {text}") for text in (one, other)]
    assert None not in found and found[0] != found[1]


def test_a_number_is_the_fraction_that_python_reads() -> None:
    """Decimals, exponents and quotients as Python's own Fraction parses them."""
    for text in ("12", "0.125", "3/8", "1e-3", "2.5e2", "-7/4", "-.25"):
        assert text_scores.last_number(f"it is {text}.") == Fraction(text)
    assert text_scores.last_number("none at all") is None
    assert text_scores.last_number("it is 9" + "9" * 5000) is not None


SQUAD = [  # the reference, what is said, and whether SQuAD's evaluation script takes them for the same
    ("The Eiffel Tower", "eiffel tower.", True),
    ("an  answer, a day", "Answer day", True),
    ("it's", "its", True),
    ("theatre", "the atre", False),
    ("42", "43", False),
    ("café", "cafe", False),
]


@pytest.mark.parametrize(("reference", "said", "same"), SQUAD)
def test_exact_match_normalized_is_that_of_squad(reference: str, said: str, same: bool) -> None:
    """Lower case, punctuation out, articles out, white space mended, in the script's order (evaluate-v1.1.py)."""

    def script(text: str) -> str:
        bare = "".join(ch for ch in text.lower() if ch not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())

    assert (script(reference) == script(said)) is same
    scores = text_scores.text_scores([(reference, said)])
    assert scores["exact_match_normalized"] == float(same) and scores["exact_match"] == float(reference == said)


def test_rouge_lsum_is_that_of_the_library() -> None:
    """It takes lines for sentences, so that their order does not matter as it does for rougeL."""
    from rouge_score.rouge_scorer import RougeScorer

    pair = ("the cat sat\nthe dog ran far", "the dog ran far\nthe cat sat")
    [found] = text_scores.rouge([pair])
    assert found["rougeLsum"] == RougeScorer(["rougeLsum"], use_stemmer=True).score(*pair)["rougeLsum"].fmeasure
    assert found["rougeLsum"] == 1.0 > found["rougeL"]


def test_perplexity_is_that_of_the_token_loss() -> None:
    """Rows of 1 and 3 tokens with losses 1 and 2: means 1.5 over rows and 7/4 over tokens."""
    rows = [{"reference": "a", "tokens": 1}, {"reference": "b", "tokens": 3}]
    found = generation.metrics(rows, np.array([1.0, 2.0]), [])
    assert (found["loss"], found["token_loss"]) == (1.5, 1.75)
    assert found["perplexity"] == pytest.approx(math.e**1.75)


def test_a_metric_that_is_not_finite_is_null(capsys: pytest.CaptureFixture[str]) -> None:
    """Infinity and NaN at any depth, each named on stderr; all else stays."""
    values = {"loss": 1.0, "perplexity": math.inf, "per_label": {"a": {"f1": math.nan, "n": 3}}}
    found = finite(values, "test")
    assert found == {"loss": 1.0, "perplexity": None, "per_label": {"a": {"f1": None, "n": 3}}}
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "test, perplexity: infinite; metrics.json has null"
    assert said[1] == "test, per_label, a, f1: not a number; metrics.json has null"


def test_a_loss_above_709_is_reported(prune: Prune, tmp_path: Path) -> None:
    """A model that is very sure and wrong: its perplexity is beyond a float, so it is null and told; all else stays."""
    from safetensors.torch import load_file, save_file

    model = tmp_path / "model"
    shutil.copytree(LM, model)
    weights = load_file(model / "model.safetensors")
    name = next(name for name in weights if "norm" in name and "layers" not in name)
    save_file({**weights, name: weights[name] * 1e4}, model / "model.safetensors", {"format": "pt"})
    rows = write_rows(tmp_path / "rows.jsonl", [{"prompt": "the film", "response": "the tent the tent"}] * 2)
    command = ["eval", model, rows, "-o", tmp_path / "out", "--task", "generation", "--max-new-tokens", 2]
    ran = prune(*command)
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["rows"]
    assert found["token_loss"] > 709 and found["perplexity"] is None and found["loss"] > 709
    assert "rows, perplexity: infinite; metrics.json has null" in ran.err
