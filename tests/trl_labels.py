"""What TRL's SFTTrainer trains on with `assistant_only_loss`, written to trl_labels.json: python -m tests.trl_labels

Needs trl (1.16.0 made the file), which the tests do not. TRL reads the templates with generation marks; prune must find
the same tokens with them and without.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).with_suffix(".json")
BEGIN, END = "{% generation %}", "{% endgeneration %}"
SPECIAL = [
    "<bos>",
    "<eos>",
    "<|start|>",
    "<|end|>",
    "<|head|>",
    "<|/head|>",
    "<turn>",
    "</turn>",
    "<U>",
    "<A>",
    "<think>",
]

# As the templates of SmolLM2, Llama 3, Qwen3, Gemma, DeepSeek-R1, Phi 3 and GLM 4.5 do it. BEGIN and END become the
# marks that TRL needs.
TEMPLATES = {
    "chatml": """\
{% for m in messages %}{% if loop.first and m.role != 'system' %}<|start|>system
You help.<|end|>
{% endif %}<|start|>{{ m.role }}
{% if m.role == 'assistant' %}BEGIN{{ m.content }}<|end|>
END{% else %}{{ m.content }}<|end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant
{% endif %}""",
    "headers": """\
{{ bos_token }}{% for m in messages %}<|head|>{{ m.role }}<|/head|>

{% if m.role == 'assistant' %}BEGIN{{ m.content | trim }}<|end|>END{% else %}{{ m.content | trim }}<|end|>{% endif %}\
{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>

{% endif %}""",
    "thinking": """\
{% if tools %}<|start|>system
{% for tool in tools %}{{ tool | tojson }}
{% endfor %}<|end|>
{% endif %}{% set last = namespace(user=-1) %}{% for m in messages %}{% if m.role == 'user' %}\
{% set last.user = loop.index0 %}{% endif %}{% endfor %}{% for m in messages %}<|start|>{{ m.role }}
{% if m.role == 'assistant' %}BEGIN{% set said = (m.content or '').split('</think>')[-1].lstrip() %}\
{% if loop.index0 > last.user %}<think>
{{ (m.content or '').split('</think>')[0].split('<think>')[-1].strip() if '</think>' in (m.content or '') else '' }}
</think>

{% endif %}{{ said }}{% for call in m.tool_calls or [] %}<call>{{ call.function.name }} \
{{ call.function.arguments | tojson }}</call>{% endfor %}<|end|>
END{% else %}{{ m.content }}<|end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<|start|>assistant
{% endif %}""",
    "model": """\
{{ bos_token }}{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}\
{% for m in messages %}{% if m.role == 'assistant' %}<turn>model
BEGIN{{ m.content | trim }}</turn>
END{% else %}<turn>{{ m.role }}
{{ m.content | trim }}</turn>
{% endif %}{% endfor %}{% if add_generation_prompt %}<turn>model
{% endif %}""",
    "begun": """\
{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<A>BEGIN\
{{ m.content.split('</think>')[-1] }}<eos>END{% else %}<U>{{ m.content }}{% endif %}{% endfor %}\
{% if add_generation_prompt %}<A><think>
{% endif %}""",
    "closed": """\
{% for m in messages %}{% if m.role == 'assistant' %}<A>
BEGIN{{ m.content }}<|end|>
END{% else %}<U>
{{ m.content }}<|end|>
{% endif %}{% endfor %}{% if add_generation_prompt %}<A>
{% else %}BEGIN<eos>END{% endif %}""",
    "emptied": """\
{{ bos_token }}{% for m in messages %}{% if m.role == 'assistant' %}<A>BEGIN\
{{ '\n' }}<think>{% if loop.last and '</think>' in m.content %}\
{{ m.content.split('</think>')[0].split('<think>')[-1].strip() }}{% endif %}</think>
{{ m.content.split('</think>')[-1].strip() }}END{% else %}<U>
{{ m.content }}{% endif %}{% endfor %}{% if add_generation_prompt %}<A>{% endif %}""",
}


def _talk(*said: str | dict[str, Any], system: str = "") -> list[dict[str, Any]]:
    """Messages by the user and the assistant in turn."""
    turns = [
        {"role": ("user", "assistant")[i % 2], "content": text} if isinstance(text, str) else text
        for i, text in enumerate(said)
    ]
    return [*([{"role": "system", "content": system}] if system else []), *turns]


CALL = [{"type": "function", "function": {"name": "add", "arguments": {"a": 2}}}]
TOOLS = [{"type": "function", "function": {"name": "add", "description": "Adds.", "parameters": {}}}]
ROWS: dict[str, dict[str, Any]] = {
    "one": {"messages": _talk("Hi there", "Hello!")},
    "two": {"messages": _talk("Hi", "Hello!", "How are you?", "Fine, thanks.")},
    "same": {"messages": _talk("Hi", "Hi", "Hi", "Hi", "Hi", "Hi")},
    "spaces": {"messages": _talk(" Hi \n", " Hello\n", "And\n\n?", "\n\nBye <|end|> \u00e9\U0001f600")},
    "system": {"messages": _talk("Hi", "Hello!", "Bye", "Bye.", system="Be kind.")},
    "thoughts": {
        "messages": _talk("Hi", "<think>\nHm.\n</think>\n\nHello!", "And?", "<think>\nWell.\n</think>\n\nFine.")
    },
    "tools": {
        "messages": [
            *_talk("2 + 0?", {"role": "assistant", "content": None, "tool_calls": CALL}),
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "<think>\nSo.\n</think>\n\nIt is 2."},
            *_talk("Thanks", "Welcome."),
        ],
        "tools": TOOLS,
    },
}
CASES = [
    (template, row)
    for template in TEMPLATES
    for row in ROWS
    if (row != "tools" or template == "thinking") and (row != "system" or template != "model")
]


def tokenizer(template: str, *, marked: bool) -> Any:
    """A tokenizer of bytes and a few special tokens, with a template."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [("\u010a", "\u010a"), ("l", "l"), ("!", "<")]
    vocabulary = {token: i for i, token in enumerate([*letters, *("".join(pair) for pair in pairs)])}
    of_bytes = Tokenizer(models.BPE(vocabulary, pairs))
    of_bytes.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    of_bytes.decoder = decoders.ByteLevel()
    of_bytes.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    fast: Any = PreTrainedTokenizerFast  # untyped
    made = fast(tokenizer_object=of_bytes, bos_token="<bos>", eos_token="<eos>", pad_token="<eos>")
    begin, end = (BEGIN, END) if marked else ("", "")
    made.chat_template = TEMPLATES[template].replace("BEGIN", begin).replace("END", end)
    return made


def main() -> None:
    """Write the tokens of each case, and whether each is trained on, as spans."""
    import tempfile

    import datasets
    import transformers
    from trl import SFTConfig, SFTTrainer  # type: ignore[import-not-found]  # the tests do without it

    found: dict[str, Any] = {}
    for template, row in CASES:
        tokens = tokenizer(template, marked=True)
        config = transformers.LlamaConfig(
            hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, vocab_size=len(tokens)
        )
        with tempfile.TemporaryDirectory() as folder:
            how = SFTConfig(
                folder, assistant_only_loss=True, max_length=None, report_to="none", use_cpu=True, bf16=False
            )
            trainer = SFTTrainer(
                transformers.LlamaForCausalLM(config),
                how,
                train_dataset=datasets.Dataset.from_list([ROWS[row]]),
                processing_class=tokens,
            )
            made = trainer.train_dataset[0]
        found[f"{template} {row}"] = {
            "ids": list(made["input_ids"]),
            "trained": [i for i, label in enumerate(made["labels"]) if label != -100],
        }
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(case)}" for name, case in found.items())
    FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    main()
