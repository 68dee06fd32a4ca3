"""Generation against transformers' own loss of each row alone, rouge-score, hand cases, and through every command."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, AutoTokenizer

from prune_cli.artifacts import tensors
from prune_cli.data.rows import read_rows as open_rows
from prune_cli.errors import PruneError
from prune_cli.models.answers import forward
from prune_cli.models.find import find
from prune_cli.models.load import load_tokenizer
from prune_cli.tasks import Judging, generation, text_scores, vocabulary
from tests.conftest import NEGATIVE, NOUNS, POSITIVE, WORDS, Prune, read_rows, write_rows

MARKS = ["<pad>", "<unk>", "<s>", "</s>", "<system>", "<user>", "<assistant>"]
TEMPLATE = (
    "<s>{% for message in messages %}<{{ message['role'] }}> {{ message['content'] }} </s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def talks(n: int, start: int = 0) -> list[dict[str, Any]]:
    """n rows of mixed length: a prompt of 4 words or more, a response of one to three."""
    rows = []
    for i in range(start, start + n):
        prompt = " ".join(["the", NOUNS[i % 4], "is", *["very"] * (i * 3 % 7), NEGATIVE[i % 4]])
        said = " ".join([*["very"] * (i % 3), POSITIVE[i % 4]])
        rows.append({"id": f"t-{i}", "prompt": prompt, "response": said, "group": str(i % 2)})
    return rows


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    """The same row in the other form."""
    turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row["response"]}]
    return {"id": row["id"], "messages": turns}


def made(folder: Path, kind: str, template: str | None) -> Path:
    """A causal LM of random weights (2 layers, 16 features, 64 positions) with tied embeddings."""
    from tokenizers import Tokenizer, pre_tokenizers, processors
    from tokenizers import models as token_models
    from transformers import GPT2Config, LlamaConfig, PreTrainedTokenizerFast

    vocabulary = {word: i for i, word in enumerate([*MARKS, *WORDS])}
    words = Tokenizer(token_models.WordLevel(vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    words.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])
    fast: Any = PreTrainedTokenizerFast  # untyped
    tokenizer = fast(
        tokenizer_object=words,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        additional_special_tokens=MARKS[4:],
        model_max_length=64,
        padding_side="left",  # ours is on the right in training whatever this says
    )
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    ends = {"bos_token_id": 2, "eos_token_id": 3, "vocab_size": len(vocabulary)}
    config: Any
    if kind == "gpt2":
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 64}
        config = GPT2Config(**sizes, initializer_range=0.3, **off, **ends)
    else:
        config = LlamaConfig(
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            tie_word_embeddings=True,
            initializer_range=0.3,
            **ends,
        )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `llama` (with a chat template) and `gpt2` (without); train, validation and test of 16, 6 and 8 rows."""
    folder = tmp_path_factory.mktemp("talks")
    made(folder / "llama", "llama", TEMPLATE)
    made(folder / "gpt2", "gpt2", None)
    for name, n, start in (("train", 16, 0), ("validation", 6, 100), ("test", 8, 200)):
        write_rows(folder / f"{name}.jsonl", talks(n, start))
    return folder


def encoded(folder: Path, kind: str, most: int = 64, path: Path | None = None) -> tuple[Any, Any, Any]:
    tokenizer = load_tokenizer(find(str(folder / kind)))
    rows = open_rows(path or folder / "train.jsonl", check=generation.check)
    return rows, tokenizer, generation.encode(rows, tokenizer, most, [])


def plain(kind: str, tokenizer: Any, row: dict[str, Any]) -> tuple[list[int], list[int]]:
    """A row's prompt and response tokens, the texts put together by hand."""
    if kind == "llama":
        prompt, answer = f"<s><user> {row['prompt']} </s><assistant>", f" {row['response']} </s>"
    else:
        prompt, answer = f"<s> {row['prompt']}", f"{row['response']} </s>"
    first, second = tokenizer([prompt, answer], add_special_tokens=False)["input_ids"]
    return first, second


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_losses_and_dynamics_are_those_of_each_row_alone(folder: Path, kind: str) -> None:
    """In one padded batch every row has transformers' own loss, and the dynamics worked out token by token."""
    rows, tokenizer, found = encoded(folder, kind)
    model = AutoModelForCausalLM.from_pretrained(folder / kind).eval()
    batch = generation.collate(found, range(len(rows)), tokenizer.eos_token_id, "cpu")
    labels = batch.pop("labels")
    with torch.no_grad():
        logits = model(**batch).logits
        losses, dynamics = generation.losses(logits, labels), generation.dynamics(logits, labels)
        for i, row in enumerate(rows):
            prompt, answer = plain(kind, tokenizer, row)
            ids = torch.tensor([[*prompt, *answer]])
            gold = torch.tensor([[-100] * len(prompt) + answer])
            alone = model(input_ids=ids, labels=gold)
            assert losses[i].item() == pytest.approx(alone.loss.item(), abs=1e-5)
            sums: dict[str, Any] = dict.fromkeys(dynamics, 0.0)
            for at, token in enumerate(answer, len(prompt)):
                scores = alone.logits[0, at - 1].double().numpy()
                p = np.exp(scores) / np.exp(scores).sum()
                sums["logprob"] += math.log(p[token])
                sums["correct"] += float(scores.argmax() == token)
                sums["margin"] += scores[token] - np.delete(scores, token).max()
                sums["el2n"] += np.linalg.norm(p - np.eye(len(p))[token])
                sums["improbability"] += 1 - p[token]
                entropy = -(p * np.log(p)).sum()
                sums["entropy"] += entropy
                sums["upd"] += 1 / (1 + p[token]) * max(0, 1 - entropy / math.log(len(p)))  # σ(−log p) = 1 / (1 + p)
            for name, total in sums.items():
                assert dynamics[name][i].item() == pytest.approx(total / len(answer), abs=1e-5), name


def test_both_forms_of_a_row_are_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    """Through a chat template a prompt is what a user says; earlier turns belong to the prompt."""
    first = encoded(folder, "llama")[2]
    rows = [as_messages(row) for row in talks(16)]
    second = encoded(folder, "llama", path=write_rows(tmp_path / "rows.jsonl", rows))[2]
    for name in ("input_ids", "offsets", "gold"):
        assert np.array_equal(getattr(first, name), getattr(second, name))
    turns = [{"role": "system", "content": "the plot"}, *rows[0]["messages"], *rows[1]["messages"]]
    longer = encoded(folder, "llama", path=write_rows(tmp_path / "long.jsonl", [{"messages": turns}]))[2]
    assert longer.gold.sum() == first.gold[: first.offsets[2]].sum()


def two_turns(n: int) -> list[dict[str, Any]]:
    """n conversations of two turns, each of two rows of `talks`."""
    pairs = zip(talks(n), talks(n, 50), strict=True)
    return [
        {"id": i, "messages": as_messages(a)["messages"] + as_messages(b)["messages"]} for i, (a, b) in enumerate(pairs)
    ]


@pytest.mark.parametrize("loss_on", ["all", "last"])
def test_a_conversation_has_the_loss_of_its_turns(folder: Path, tmp_path: Path, loss_on: str) -> None:
    """The mean over the tokens of both answers, or of the last alone, by transformers with labels put by hand."""
    said = two_turns(6)
    rows = open_rows(write_rows(tmp_path / "rows.jsonl", said), check=None, format="auto")
    tokenizer = load_tokenizer(find(str(folder / "llama")))
    found = generation.encode(rows, tokenizer, 64, [], loss_on=loss_on)
    model = AutoModelForCausalLM.from_pretrained(folder / "llama").eval()
    batch = generation.collate(found, range(6), 0, "cpu")
    labels = batch.pop("labels")
    with torch.no_grad():
        losses = generation.losses(model(**batch).logits, labels)
        for i, row in enumerate(said):
            ids, gold = [2], [-100]
            for asked, answered in (row["messages"][:2], row["messages"][2:]):
                texts = f"<user> {asked['content']} </s><assistant>", f" {answered['content']} </s>"
                prompt, answer = tokenizer(list(texts), add_special_tokens=False)["input_ids"]
                ids += prompt + answer
                gold += [-100] * len(prompt) + answer
            if loss_on == "last":
                gold[: len(ids) - len(answer)] = [-100] * (len(ids) - len(answer))
            assert found.input_ids[found.offsets[i] : found.offsets[i + 1]].tolist() == ids
            alone = model(input_ids=torch.tensor([ids]), labels=torch.tensor([gold]))
            assert losses[i].item() == pytest.approx(alone.loss.item(), abs=1e-5)


@pytest.mark.slow
def test_conversations_through_every_command(folder: Path, tmp_path: Path, prune: Prune) -> None:
    """Trained, represented and judged by their turns; the last is generated; --loss-on makes another artifact."""
    data = write_rows(tmp_path / "rows.jsonl", two_turns(8))
    train = ["finetune", data, "--model", folder / "llama", "--task", "generation", "--steps", 2, "--batch-size", 4]
    kinds = ["--kind", "hidden,dynamics,gradient,unprompted", "--pooling", "response", "--dim", 16]
    for command in (
        [*train, "-o", tmp_path / "all"],
        [*train, "-o", tmp_path / "last", "--loss-on", "last"],
        ["represent", data, "-o", tmp_path / "rep-all", "--model", tmp_path / "all", *kinds],
        ["represent", data, "-o", tmp_path / "rep-last", "--model", tmp_path / "all", *kinds, "--loss-on", "last"],
        ["eval", tmp_path / "all", data, "-o", tmp_path / "eval", "--max-new-tokens", 3],
    ):
        ran = prune(*command)
        assert ran.code == 0, ran.err
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("all", "last")]
    assert weights[0] != weights[1]
    for kind, name in (("dynamics", "logprob"), ("unprompted", "logprob_unprompted"), ("hidden", "hidden")):
        every, last = (tensors.load(tmp_path / f"rep-{on}" / f"{kind}.safetensors")[name] for on in ("all", "last"))
        assert not np.allclose(every, last)
    predictions = read_rows(tmp_path / "eval/predictions.jsonl")
    assert [row["reference"] for row in predictions] == [row["messages"][3]["content"] for row in two_turns(8)]
    stale = prune(*train, "-o", tmp_path / "all", "--loss-on", "last")
    assert stale.code == 1 and 'options.loss_on "all" -> "last"' in stale.err


def test_texts_are_trained_on_and_have_no_prompt(folder: Path, tmp_path: Path, prune: Prune) -> None:
    """A text has a loss and no prediction."""
    data = write_rows(tmp_path / "rows.jsonl", [{"text": f"{row['prompt']} {row['response']}"} for row in talks(6)])
    train = [
        "finetune",
        data,
        "-o",
        tmp_path / "model",
        "--model",
        folder / "gpt2",
        "--task",
        "generation",
        "--steps",
        1,
    ]
    for command in (train, ["eval", tmp_path / "model", data, "-o", tmp_path / "eval"]):
        ran = prune(*command)
        assert ran.code == 0, ran.err
    assert set(read_rows(tmp_path / "eval/predictions.jsonl")[0]) == {"test", "id", "loss", "tokens"}
    metrics = json.loads((tmp_path / "eval/metrics.json").read_text())["rows"]
    assert set(metrics) == {"n", "loss", "token_loss", "perplexity"}


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_prompts_are_cut_from_the_left_and_responses_kept(folder: Path, kind: str) -> None:
    """With room for 6 tokens a row is the first token, the prompt's end, and the whole response."""
    rows, tokenizer, found = encoded(folder, kind, 6)
    for i, row in enumerate(rows):
        prompt, answer = plain(kind, tokenizer, row)
        kept = found.input_ids[found.offsets[i] : found.offsets[i + 1]].tolist()
        room = 6 - len(answer)
        assert kept == [2, *prompt[len(prompt) - room + 1 :], *answer]
        assert found.gold[found.offsets[i] : found.offsets[i + 1]].tolist() == [False] * room + [True] * len(answer)
    assert generation.cut([2, 7, 8, 9], 1, 2) == [2]
    assert generation.cut([6, 7, 8, 9], 2, 2) == [8, 9]


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_generation_in_batches_is_that_of_each_row_alone(folder: Path, kind: str) -> None:
    """Left padding changes nothing: what is said in one batch is what plain greedy search says one by one."""
    rows, tokenizer, found = encoded(folder, kind)
    model = AutoModelForCausalLM.from_pretrained(folder / kind).eval()
    judging = Judging(model, tokenizer, rows, found, [], torch.device("cpu"), 64, 5)
    together = generation.generate(judging, np.arange(16))
    for i, row in enumerate(rows):
        ids = plain(kind, tokenizer, row)[0]
        start = len(ids)
        while len(ids) < start + 5 and (len(ids) == start or ids[-1] != 3):
            ids = [*ids, int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())]
        assert together[i] == (tokenizer.decode(ids[start:], skip_special_tokens=True), 0)
    with pytest.raises(PruneError, match="max_new_tokens: 64; the model has positions for 64"):
        generation.generate(replace(judging, max_new_tokens=64), np.arange(2))


def test_what_is_generated_hangs_on_the_prompt_alone(done: Path, folder: Path, tmp_path: Path, prune: Prune) -> None:
    """Rows cut to 8 tokens: short and long responses of the same prompts, the same predictions."""
    said = []
    for name, answer in (("short", "the"), ("long", "the plot the plot the")):
        rows = [{**row, "response": answer} for row in talks(8, 40)]
        data = write_rows(tmp_path / f"{name}.jsonl", rows)
        start = ["eval", done / "model", data, "-o", tmp_path / name, "--max-length", 8, "--max-new-tokens", 4]
        ran = prune(*start)
        assert ran.code == 0, ran.err
        predictions = read_rows(tmp_path / name / "predictions.jsonl")
        said.append([row["prediction"] for row in predictions])
        cut = sum(row["prompt_cut"] > 0 for row in predictions)
        assert json.loads((tmp_path / name / "metrics.json").read_text())[name]["prompts_cut"] == cut > 0
        assert f"{cut} of 8 prompts were cut from the left before generating" in ran.err
    assert said[0] == said[1]
    assert len(set(said[0])) > 1


def test_rouge_is_that_of_the_library() -> None:
    """Rouge-score's F1 of the same texts, and their mean, and a case by hand: 2 of 3 words, one of two pairs."""
    from rouge_score.rouge_scorer import RougeScorer

    pairs = [("the cat sat", "the cats"), ("a b c d", "d c b a"), ("one", "two")]
    found = text_scores.rouge(pairs)
    for name in found[0]:
        scorer = RougeScorer([name], use_stemmer=True)
        assert [score[name] for score in found] == [scorer.score(*pair)[name].fmeasure for pair in pairs]
    assert found[0] == pytest.approx({"rouge1": 0.8, "rouge2": 2 / 3, "rougeL": 0.8, "rougeLsum": 0.8})
    means = text_scores.text_scores(pairs)
    assert means["rougeL"] == pytest.approx(np.mean([score["rougeL"] for score in found]))


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("it is 1,234.", "1234"),
        ("3 + 4 = 7.0", "7"),
        ("from 3-5", "5"),
        ("so -2", "-2"),
        ("$.50 each", "0.5"),
        ("1,2 and 3,4", "4"),
        ("none", None),
    ],
)
def test_last_numbers(text: str, number: str | None) -> None:
    """The number that a text ends with, commas of thousands left out."""
    assert text_scores.last_number(text) == (None if number is None else Decimal(number))


def test_metrics_by_hand() -> None:
    """Perplexity weighs by tokens, a match ignores white space at the ends, numbers count where there is one."""
    said = [("yes 4", " yes 4 ", 1), ("so 1,000", "1000.0", 3), ("well", "well 9", 1)]
    rows = [{"reference": r, "prediction": p, "tokens": t, "prompt_cut": t - 1} for r, p, t in said]
    found = generation.metrics(rows, np.array([1.0, 2.0, 3.0]), [])
    assert found["prompts_cut"] == 1
    assert found["loss"] == 2.0
    assert found["perplexity"] == pytest.approx(math.exp((1 + 6 + 3) / 5))
    assert found["exact_match"] == pytest.approx(1 / 3)
    assert found["last_number"] == 1.0
    assert "last_number" not in generation.metrics(rows[2:], np.array([3.0]), [])


@pytest.fixture(scope="module")
def done(folder: Path, prune: Prune) -> Path:
    """Artifacts of all six commands; each says that it is up to date when run again."""
    warmup, represented, target, score, kept = (folder / n for n in ("warmup", "rep", "target", "score", "kept"))
    train, validation, test = (folder / f"{name}.jsonl" for name in ("train", "validation", "test"))
    quick = ["--task", "generation", "--epochs", 2, "--learning-rate", "1e-2", "--batch-size", 4]
    kinds = ["--kind", "hidden,dynamics,gradient", "--dim", 64, "--dtype", "float32"]
    for command in (
        ["finetune", train, "-o", warmup, "--model", folder / "llama", "--keep-checkpoints", "epoch", *quick],
        ["represent", train, "-o", represented, "--model", warmup, "--pooling", "response", *kinds],
        ["represent", validation, "-o", target, "--model", warmup, "--pooling", "response", *kinds],
        ["score", represented, "-o", score, "--method", "less", "--on", "gradient", "--target", target],
        ["select", score, "-o", kept, "--method", "top", "--keep", "0.5"],
        ["finetune", kept, "-o", folder / "model", "--model", folder / "gpt2", *quick[2:]],  # the task is known
        ["eval", folder / "model", test, "-o", folder / "metrics", "--max-new-tokens", 4],
    ):
        ran = prune(*command)
        assert ran.code == 0, ran.err
        assert "up to date" in prune(*command).err
    return folder


def test_representations_are_those_of_each_row_alone(done: Path) -> None:
    """At each checkpoint of a tied model: states over the response, log-probability and gradient norm of one row."""
    hidden, dynamics, gradient = (
        tensors.load(done / "rep" / f"{kind}.safetensors") for kind in ("hidden", "dynamics", "gradient")
    )
    tokenizer = AutoTokenizer.from_pretrained(done / "warmup")
    for e, epoch in enumerate("12"):
        model = AutoModelForCausalLM.from_pretrained(done / "warmup/checkpoints" / epoch).eval()
        for i, row in enumerate(read_rows(done / "train.jsonl")):
            prompt, answer = plain("llama", tokenizer, row)
            gold = torch.tensor([[-100] * len(prompt) + answer])
            model.zero_grad()
            alone = model(input_ids=torch.tensor([[*prompt, *answer]]), labels=gold, output_hidden_states=True)
            alone.loss.backward()
            states = alone.hidden_states[-1][0, len(prompt) :].mean(0).detach().numpy()
            assert np.allclose(hidden["hidden"][i, e], states, atol=1e-5)
            assert dynamics["logprob"][i, e] == pytest.approx(-alone.loss.item(), abs=1e-5)
            norm = math.sqrt(sum(float(p.grad.double().square().sum()) for p in model.parameters()))
            assert gradient["grad_norm"][i, e] == pytest.approx(norm, rel=1e-3)


def test_eval_writes_the_texts(done: Path, prune: Prune) -> None:
    """predictions.jsonl has every row's reference and text; metrics follow from it; without new tokens, loss alone."""
    rows, found = read_rows(done / "test.jsonl"), read_rows(done / "metrics/predictions.jsonl")
    metrics = json.loads((done / "metrics/metrics.json").read_text())["test"]
    assert [row["reference"] for row in found] == [row["response"] for row in rows]
    assert all(isinstance(row["prediction"], str) for row in found)
    assert metrics["loss"] == pytest.approx(np.mean([row["loss"] for row in found]), abs=1e-5)
    matched = [row["prediction"].strip() == row["reference"] for row in found]
    assert metrics["exact_match"] == np.mean(matched)
    quick = prune("eval", done / "model", done / "test.jsonl", "-o", done / "no-text", "--max-new-tokens", 0)
    assert quick.code == 0, quick.err
    bare = json.loads((done / "no-text/metrics.json").read_text())["test"]
    assert set(bare) == {"n", "loss", "token_loss", "perplexity"}
    assert bare["loss"] == pytest.approx(metrics["loss"])


def test_gradient_checkpointing_changes_no_loss(done: Path, prune: Prune) -> None:
    """The recorded log-probabilities of training are the same when activations are computed again."""
    command = ["finetune", done / "train.jsonl", "--model", done / "llama", "--task", "generation", "--epochs", 1]
    for name, more in (("plain", []), ("again", ["--gradient-checkpointing"])):
        ran = prune(*command, "-o", done / name, *more)
        assert ran.code == 0, ran.err
    first, second = (tensors.load(done / name / "dynamics.safetensors")["logprob"] for name in ("plain", "again"))
    assert np.allclose(first, second, atol=1e-6)


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_lora_runs_end_to_end(done: Path, prune: Prune, kind: str) -> None:
    """Adapters are trained without the head, represented at each checkpoint, and judged."""
    out = done / f"lora-{kind}"
    common = ["--task", "generation", "--tune", "lora", "--lora-rank", 2, "--epochs", 1, "--keep-checkpoints", "epoch"]
    for command in (
        ["finetune", done / "train.jsonl", "-o", out, "--model", done / kind, *common],
        ["represent", done / "train.jsonl", "-o", f"{out}-rep", "--model", out, "--kind", "dynamics,gradient"],
        ["eval", out, done / "test.jsonl", "-o", f"{out}-eval", "--max-new-tokens", 3],
    ):
        ran = prune(*command)
        assert ran.code == 0, ran.err
    names = tensors.load(out / "adapter_model.safetensors")
    assert names
    assert not any("lm_head" in name or "embed" in name or "wte" in name for name in names)


TURN = {"role": "user", "content": "the film"}
BAD = [
    ({"prompt": "a"}, 'no "response"; the row has: "prompt"; allowed: '),
    ({"prompt": "a", "response": " "}, "response is blank; allowed: a string that is not blank"),
    ({"prompt": 3, "response": "b"}, "prompt 3 is an integer; allowed: a string that is not blank"),
    ({"prompt": "a", "response": "b", "messages": []}, 'the row has "messages" and "prompt"'),
    ({"messages": [TURN]}, "messages has 1; allowed: two or more, the last by the assistant"),
    ({"messages": [TURN, TURN]}, "the last message of messages has the role user; allowed: assistant"),
    (
        {"messages": [TURN, {"role": "bot", "content": "a"}]},
        "message 2 has the role 'bot'; allowed: system, developer, user",
    ),
    ({"messages": [TURN, {"role": "assistant", "content": ""}]}, "content of message 2 is blank"),
    ({"messages": [TURN, {"role": "assistant"}]}, 'message 2 has no "content"'),
    ({"messages": "a"}, 'messages "a" is a string; allowed: a list'),
    ({"messages": ["a", "b"]}, 'message 1 "a" is a string; allowed: an object with role and content'),
    (
        {"messages": [TURN, {"role": "assistant", "content": "a"}]},
        "a conversation, but the tokenizer has no chat template",
    ),
    ({"prompt": "a", "response": "very " * 70}, "response of 71 tokens; allowed: up to 63"),
]


@pytest.mark.parametrize(("row", "problem"), BAD)
def test_bad_rows_are_one_line(folder: Path, tmp_path: Path, prune: Prune, row: dict[str, Any], problem: str) -> None:
    """Each bad row stops the command with one line that names file and line and says what is allowed."""
    good = [as_messages(entry) if "messages" in row else entry for entry in talks(2)]
    data = write_rows(tmp_path / "bad.jsonl", [*good, row])
    ran = prune("finetune", data, "-o", tmp_path / "out", "--model", folder / "gpt2", "--task", "generation")
    assert ran.code == 1
    (line,) = ran.errors
    assert ("bad.jsonl:1: " if "no chat template" in problem else "bad.jsonl:3: ") in line
    assert problem in line


def test_templates_that_refuse_or_part_a_row_are_errors_that_name_it(folder: Path, tmp_path: Path) -> None:
    """A template's own refusal, and one whose prompt is no beginning of the conversation."""
    rows, tokenizer, _ = encoded(folder, "llama")
    for template, problem in (
        ("{{ raise_exception('no system') }}", "train.jsonl:1: the chat template refuses the messages: no system"),
        ("<s> the film", "train.jsonl:1: the chat template leaves out message 1, of the user"),
        (
            "{{ messages }} {{ range(9999) | random }}{{ messages | length }}",
            "train.jsonl:1: it is unknown where message 2",
        ),
    ):
        tokenizer.chat_template = template
        with pytest.raises(PruneError, match=problem):
            generation.encode(rows, tokenizer, 64, [])


def test_a_language_model_without_its_head_is_an_error(folder: Path, tmp_path: Path, prune: Prune) -> None:
    """Weights that a causal LM lacks are never drawn, not even in training."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "llama")
    model.config.tie_word_embeddings = False
    AutoTokenizer.from_pretrained(folder / "llama").save_pretrained(tmp_path / "headless")
    model.model.save_pretrained(tmp_path / "headless")
    ran = prune(
        "finetune",
        folder / "train.jsonl",
        "-o",
        tmp_path / "out",
        "--model",
        tmp_path / "headless",
        "--task",
        "generation",
    )
    assert ran.code == 1
    assert "lm_head.weight" in ran.errors[0]


def test_options_that_do_not_fit_are_refused(done: Path, folder: Path, tmp_path: Path, prune: Prune) -> None:
    """4 bits without LoRA or without CUDA, and a balance of labels where there are none."""
    start = ["finetune", folder / "train.jsonl", "-o", tmp_path / "out", "--model", folder / "gpt2"]
    start += ["--task", "generation", "--load-in", "4bit", "--device", "cpu"]
    assert "load_in: 4bit; it has no say with tune full, only with lora; leave it out" in prune(*start).errors[0]
    told = "load_in: 4bit; on the device cpu; allowed: a CUDA device"
    assert prune(*start, "--tune", "lora").errors == [told]
    balanced = ["select", done / "score", "-o", tmp_path / "kept", "--method", "top", "--keep", "4"]
    assert "no labels to balance by" in prune(*balanced, "--balance", "keep").errors[0]


def test_response_states_are_of_generation_alone(data: Path, tiny_model: Path, tmp_path: Path, prune: Prune) -> None:
    """Rows of a class have no response to pool over."""
    ran = prune(
        "represent", data / "train.jsonl", "-o", tmp_path / "out", "--model", tiny_model, "--pooling", "response"
    )
    assert ran.errors == ["pooling: response; only rows of the task generation have a response"]


def test_padding_has_no_say() -> None:
    """Whatever stands in a padded place, losses and dynamics stay the same."""
    torch.manual_seed(0)
    logits, labels = torch.randn(2, 5, 7), torch.tensor([[-100, -100, 3, 4, -100], [-100, 6, -100, -100, -100]])
    before = {"loss": generation.losses(logits, labels), **generation.dynamics(logits, labels)}
    logits[0, 3:], logits[1, 1:] = 1e3, -1e3
    after = {"loss": generation.losses(logits, labels), **generation.dynamics(logits, labels)}
    assert all(torch.allclose(before[name], after[name], rtol=1e-6) for name in before)


def test_a_turn_may_end_otherwise_than_a_text() -> None:
    """Generation ends at the tokenizer's token or at any that the model's own settings name."""
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=[9, 4]))
    assert generation._endings(SimpleNamespace(eos_token_id=3), model) == [3, 4, 9]
    model.generation_config.eos_token_id = None
    assert generation._endings(SimpleNamespace(eos_token_id=None), model) == []


def test_the_longest_responses_are_those_of_the_assistant(tmp_path: Path, prune: Prune) -> None:
    """`length` counts characters of the turns that are trained on, whatever the format; not those of the prompt."""
    turns = [("user", "a very long question " * 9), ("assistant", "ab"), ("user", "and?"), ("assistant", "cde")]
    rows = [
        {"messages": [{"role": role, "content": said} for role, said in turns]},
        {"messages": [{"role": role, "content": said} for role, said in [*turns[:1], ("assistant", "1234567")]]},
    ]
    rows[0]["messages"][1]["loss_weight"] = 0  # type: ignore[assignment]  # a turn that is not trained on
    write_rows(tmp_path / "chats.jsonl", rows)
    write_rows(tmp_path / "alpaca.jsonl", [{"instruction": "Say it.", "input": "x" * 99, "output": "yes"}])
    for name, lengths in (("chats", [3, 7]), ("alpaca", [3])):
        command = ["score", tmp_path / f"{name}.jsonl", "--task", "generation", "--method", "length"]
        done = prune(*command, "-o", tmp_path / name)
        assert done.code == 0, done.err
        assert [line["score"] for line in read_rows(tmp_path / name / "score.jsonl")] == lengths


def test_the_last_layer_sees_the_tokens_that_are_trained_on_alone(folder: Path) -> None:
    """Its logits at the places asked for, losses and gradients are those of a forward with all of them."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "llama").eval()
    ids = torch.tensor([[5, 6, 7, 8, 5, 6], [7, 8, 5, 6, 0, 0]])
    labels = torch.tensor([[-100, 6, -100, 8, 5, -100], [-100, -100, 5, 6, -100, -100]])
    at, gold = generation.answers(labels)
    assert at.tolist() == [[0, 2, 3, 0], [1, 2, 0, 0]]
    assert gold.tolist() == [[-100, 6, 8, 5], [-100, 5, 6, -100]]
    seen: list[torch.Size] = []
    model.get_output_embeddings().register_forward_hook(lambda _, given, made: seen.append(made.shape))
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    forward(model, inputs, at)
    seen.clear()
    some = forward(model, inputs, at).logits
    every = forward(model, inputs, None).logits
    assert [shape[1] for shape in seen] == [1, 4, 6]  # in the forward one token, for its shape
    torch.testing.assert_close(some[0, :3], every[0, [0, 2, 3]])
    torch.testing.assert_close(some[1, :2], every[1, [1, 2]])
    both = [generation.losses(some, gold), generation.losses(every, labels)]
    torch.testing.assert_close(*both)
    torch.testing.assert_close(*[torch.autograd.grad(loss.sum(), model.lm_head.weight)[0] for loss in both])
    model.get_output_embeddings = lambda: None  # a model that does not tell
    torch.testing.assert_close(forward(model, inputs, at).logits, some)


@pytest.mark.parametrize("trained", ["head", "adapters", "scaled"])
def test_losses_in_parts_are_those_of_all_logits(folder: Path, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Losses, dynamics, and gradients by every parameter, of logits that are never there all at once.

    Whether the last layer is trained or not; a model that scales its logits works them out in the forward.
    """
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "llama").double().eval()
    model.requires_grad_(trained != "adapters")
    for layer in model.model.layers:
        layer.mlp.requires_grad_(True)
    if trained == "scaled":
        scale = model.forward
        model.forward = lambda **given: scaled(scale(**given))
    monkeypatch.setattr(vocabulary, "PART", 2)
    ids = torch.tensor([[5, 6, 7, 8, 5, 6], [7, 8, 5, 6, 0, 0]])
    labels = torch.tensor([[-100, 6, -100, 8, 5, -100], [-100, -100, 5, 6, -100, -100]])
    at, gold = generation.answers(labels)
    inputs = {"input_ids": ids, "attention_mask": (ids > 0).long()}
    seen: list[int] = []
    given = forward(model, inputs, at)
    assert isinstance(given.answers, torch.Tensor) == (trained == "scaled")
    model.get_output_embeddings().register_forward_hook(lambda _, given, made: seen.append(len(made)))
    weights = torch.tensor([0.3, 2.0])  # rows that do not weigh the same
    ours = generation.losses(given.answers, gold)
    assert seen == ([] if trained == "scaled" else [2, 2, 1])
    logits = model(**inputs).logits
    every = torch.stack([cross_entropy(logits[i, :-1].float(), labels[i, 1:]) for i in range(2)])
    torch.testing.assert_close(ours, every)
    learnt = [p for p in model.parameters() if p.requires_grad]
    both = [torch.autograd.grad((losses * weights).sum(), learnt) for losses in (ours, every)]
    torch.testing.assert_close(*both)
    dynamics = [generation.dynamics(*pair) for pair in ((given.answers, gold), (logits, labels))]
    torch.testing.assert_close(*dynamics)
    torch.testing.assert_close(-dynamics[0]["logprob"], every)


def scaled(outputs: Any) -> Any:
    """The outputs with logits that are half as large."""
    outputs.logits = outputs.logits / 2
    return outputs


def test_losses_in_parts_have_the_precision_of_the_forward(folder: Path) -> None:
    """The last layer computes in bfloat16 where the forward did, though it is asked outside of it."""
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "llama").float().eval().requires_grad_(False)
    model.model.layers[0].requires_grad_(True)
    ids = torch.tensor([[5, 6, 7, 8, 5, 6]])
    labels = torch.tensor([[-100, 6, -100, 8, 5, -100]])
    at, gold = generation.answers(labels)
    with torch.autocast("cpu", torch.bfloat16):
        answers = forward(model, {"input_ids": ids}, at).answers
        logits = model(input_ids=ids).logits
    assert not isinstance(answers, torch.Tensor)
    assert answers.logits(answers.states).dtype == logits.dtype == torch.bfloat16
    ours, every = generation.losses(answers, gold), generation.losses(logits, labels)
    torch.testing.assert_close(ours, every)
    learnt = [p for p in model.parameters() if p.requires_grad]
    found, true = (torch.cat([g.flatten() for g in torch.autograd.grad(lost.sum(), learnt)]) for lost in (ours, every))
    assert (found - true).norm() < 0.02 * true.norm()  # bfloat16 has three digits
