"""Rows of each format as its documentation shows them, and what TRL trains on where it reads their export.

`python -m tests.trl_export` writes trl_export.json. It needs trl (1.16.0 made the file), which the tests do not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests import trl_labels
from tests.conftest import run_here, write_rows

FILE = Path(__file__).with_suffix(".json")
TEMPLATE = "thinking"  # of trl_labels.py: it has tools

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Of a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
ADD = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"properties": {"a": {}, "b": {}}}},
}


def said(*texts: str) -> list[dict[str, Any]]:
    """Messages by the user and the assistant in turn."""
    return [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(texts)]


def spoken(*texts: str) -> list[dict[str, Any]]:
    """The same as ShareGPT has it."""
    return [{"from": ("human", "gpt")[i % 2], "value": text} for i, text in enumerate(texts)]


CALL = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Paris"}'}}
SUM = {"type": "function", "function": {"name": "add", "arguments": {"a": 2, "b": 0.5}}}
DOCUMENTED: dict[str, list[dict[str, Any]]] = {
    "alpaca": [
        {"instruction": "Give three tips.", "input": "", "output": "Eat.", "text": "Below is an instruction"},
        {"instruction": "Name the capital.", "input": "France", "output": "Paris.", "text": "Below"},
    ],
    "alpaca history": [
        {"instruction": "And?", "output": "Rome.", "system": "Be short.", "history": [["Hi", "Hello"]], "n": 1},
        {"instruction": "Hi", "input": "", "output": "Hello", "system": None, "history": [], "n": 2.5},
    ],
    "sharegpt": [
        {"conversations": spoken("Hi", "Hello", "Bye", "Bye!"), "date": "2020-01-01"},
        {"conversations": spoken("Hi", "Hello"), "date": "2020-01-02"},
    ],
    "sharegpt tools": [
        {
            "conversations": [
                {"from": "human", "value": "How is it in Paris?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Paris"}}'},
                {"from": "observation", "value": '{"degrees": 20}'},
                {"from": "gpt", "value": "Warm."},
            ],
            "system": "Be short.",
            "tools": json.dumps([WEATHER["function"]]),
        },
        {"conversations": spoken("Hi", "Hello"), "system": "", "tools": "[]"},
    ],
    "messages": [
        {"messages": [{"role": "system", "content": "Be short."}, *said("Hi", "Hello", "Bye", "Bye!")]},
        {"messages": said("Hi", "Hello")},
    ],
    "messages tools": [
        {
            "messages": [
                *said("How is it in Paris?"),
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "1", "content": "20"},
                {"role": "assistant", "content": "Warm."},
            ],
            "tools": [WEATHER],
            "parallel_tool_calls": False,
        },
        {
            "messages": [
                *said("2 + 0.5?"),
                {"role": "assistant", "tool_calls": [SUM]},
                {"role": "tool", "name": "add", "content": "2.5"},
                {"role": "assistant", "content": "2.5"},
            ],
            "tools": [ADD],
        },
    ],
    "prompt_response": [
        {"prompt": "Hi", "response": "Hello", "id": 7, "meta": {"a": 1}},
        {"prompt": "Bye", "response": "Bye!", "id": 8, "meta": {"a": "x"}},
    ],
    "prompt_completion": [
        {"prompt": "The sky is", "completion": " blue.", "text": "beside"},
        {"prompt": "The sun is", "completion": " hot.", "text": None},
    ],
    "prompt_completion messages": [
        {"prompt": said("What color is the sky?"), "completion": said("", "Blue.")[1:]},
        {"prompt": said("Hi", "Hello", "And?"), "completion": said("", "Fine.")[1:]},
    ],
    "text": [
        {"text": "The sky is blue.", "meta": {"url": "a"}, "big": 2**53 + 1},
        {"text": "2020-01-01", "meta": {"b": [1, "x"]}, "big": 0.5},
    ],
    "preference": [{"prompt": "The sky is", "chosen": " blue.", "rejected": " green."}],
    "preference messages": [
        {"prompt": said("Sky?"), "chosen": said("", "Blue.")[1:], "rejected": said("", "Green.")[1:]}
    ],
    "preference whole": [{"chosen": said("Sky?", "Blue."), "rejected": said("Sky?", "Green.")}],
    "preference alpaca": [{"instruction": "Sky?", "input": "At noon.", "chosen": "Blue.", "rejected": "Green."}],
    "preference sharegpt": [
        {
            "conversations": spoken("Sky?"),
            "chosen": {"from": "gpt", "value": "Blue."},
            "rejected": {"from": "gpt", "value": "Green."},
        }
    ],
}
TRAINED = [name for name in DOCUMENTED if not name.startswith("preference")]


def exported(name: str, folder: Path) -> Path:
    """A file of the documented rows, its rows selected, and exported for TRL."""
    kept, out = selected(DOCUMENTED[name], name.split()[0], folder), folder / "trl"
    ran = run_here("export", kept, "-o", out, "--for", "trl")
    assert ran.code == 0, ran.err
    return out


def selected(rows: list[dict[str, Any]], format: str, folder: Path) -> Path:
    """All rows of a file, selected."""
    data, out = write_rows(folder / "rows.jsonl", rows), folder / "kept"
    how = ["--method", "random", "--keep", len(rows), "--task", "generation", "--format", format]
    ran = run_here("select", data, "-o", out, *how)
    assert ran.code == 0, ran.err
    return out


def loaded(folder: Path) -> list[dict[str, Any]]:
    """The rows of a folder as the library datasets loads them."""
    import datasets

    rows: Any = datasets.load_dataset(str(folder), split="train", cache_dir=str(folder.parent / "cache"))
    return list(rows)


def main() -> None:
    """Write for each case the exported rows, and the tokens that SFTTrainer makes of them."""
    import tempfile

    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]  # the tests do without it

    found: dict[str, Any] = {}
    for name in TRAINED:
        tokens = trl_labels.tokenizer(TEMPLATE, marked=True)
        config = transformers.LlamaConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=len(tokens)
        )
        with tempfile.TemporaryDirectory() as folder:
            out = exported(name, Path(folder))
            rows = datasets.load_dataset(str(out), split="train", cache_dir=folder)
            chat = "messages" in rows.column_names
            how = SFTConfig(
                folder, assistant_only_loss=chat, max_length=None, report_to="none", use_cpu=True, bf16=False
            )
            trainer = SFTTrainer(
                transformers.LlamaForCausalLM(config), how, train_dataset=rows, processing_class=tokens
            )
            made = [
                {
                    "ids": list(row["input_ids"]),
                    "trained": [i for i, label in enumerate(row["labels"]) if label != -100],
                }
                for row in trainer.train_dataset
            ]
            found[name] = {"rows": list(rows), "made": made}
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
