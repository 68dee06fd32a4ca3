"""Words of texts in any script."""

from __future__ import annotations

import re

import pytest

from prune_cli.numeric import minhash
from prune_cli.numeric.words import WORD_OR_SIGNS, words, words_and_operators


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("A fine_film, No. 2!", ["a", "fine_film", "no", "2"]),
        ("今天天气。GPT测试", ["今", "天", "天", "气", "gpt", "测", "试"]),
        ("東京タワー・ひ", ["東", "京", "タ", "ワ", "ー", "ひ"]),
        ("นี้ดี", ["น", "ี", "้", "ด", "ี"]),
        ("안녕하세요 세계", ["안녕하세요", "세계"]),
        ("नमस्ते दुनिया।", ["नमस्ते", "दुनिया"]),
        ("e\u0301te\u0301", ["\u00e9t\u00e9"]),
        ("😀 !", []),
    ],
)
def test_words_of_scripts(text: str, said: list[str]) -> None:
    """Letters of scripts without spaces are words; vowel signs and accents stay with their letters elsewhere."""
    assert words(text) == said


def test_runs_of_signs_stand_beside_words() -> None:
    """As a library finds them by the pattern: letters of scripts without spaces alone, and no sign lost."""
    found = re.findall(WORD_OR_SIGNS, "so, it's 5%!? \u0e01\u0e35\u3002\u597d\u5417?! !\u0e31\u0e34")
    assert found[:7] == ["so", ",", "it", "'", "s", "5", "%!?"]
    assert found[7:] == ["\u0e01", "\u0e35", "\u3002", "\u597d", "\u5417", "?!", "!", "\u0e31", "\u0e34"]


def test_operators_are_told_apart() -> None:
    """Of arithmetic, of comparisons and of names; dashes, bullets, hyphens and punctuation say nothing."""
    texts = ["What is 8 - 4?", "what is 8 + 4", "8 -4", "a < b", "a > b", "C++ is", "C# is", "C is", "−5 * 3", "-5 / 3"]
    assert len({tuple(words_and_operators(text)) for text in texts}) == len(texts)
    for same in (["well-known: a - b", "well known a b"], ["* one\n* two\n- x", "one two x"], ["8 - 4!", "8 -4."]):
        assert len({tuple(words_and_operators(text)) for text in same}) == 1


def test_near_duplicates_without_spaces() -> None:
    """Of Chinese texts those that differ by a letter or two are near duplicates, and others are not."""
    one, other = "今天天气很好我们一起去公园散步然后回家吃晚饭", "机器学习模型需要大量的数据来训练才能得到好的结果"
    assert minhash.groups([one, other, one + "吧", f"好。{other}"], 3, 0.8).tolist() == [0, 1, 0, 1]
