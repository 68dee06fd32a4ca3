"""What two other packages say of six texts and two target texts, as word_peers.json holds it.

python -m venv /tmp/peers && /tmp/peers/bin/pip install bm25s==0.3.16 data-selection==1.0.3
/tmp/peers/bin/python tests/word_peers.py > tests/word_peers.json
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

ROWS = [
    "the film is a good film",
    "the plot is dull",
    "a very good cast, and a good plot!",
    "dull, dull, dull",
    "nothing here",
    "The scene is the good part of the film",
]
TARGET = ["a good film", "the dull plot is dull"]


def bm25() -> list[list[float]]:
    """BM25 of each row for each target text."""
    import bm25s

    def words(texts: list[str]) -> list[list[str]]:
        split = bm25s.tokenize(texts, token_pattern=r"\w+", stopwords=None, return_ids=False, show_progress=False)
        return list(split)

    index = bm25s.BM25(method="lucene", k1=1.5, b=0.75, dtype="float64")
    index.index(words(ROWS), show_progress=False)
    return [index.get_scores(query).tolist() for query in words(TARGET)]


def dsir() -> list[float]:
    """Log importance weights of each row, with so many buckets that no two n-grams share one."""
    from data_selection import HashedNgramDSIR

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for side, texts in (("raw", ROWS), ("target", TARGET)):
            lines = [json.dumps({"text": text}) + "\n" for text in texts]
            (folder / f"{side}.jsonl").write_text("".join(lines))
        sides = [[str(folder / f"{side}.jsonl")] for side in ("raw", "target")]
        made = HashedNgramDSIR(*sides, cache_dir=str(folder / "cache"), num_proc=1, num_buckets=2**20)
        made.fit_importance_estimator("all")
        return [float(made.importance_estimator(made.featurizer(text))) for text in ROWS]


if __name__ == "__main__":
    print(json.dumps({"rows": ROWS, "target": TARGET, "bm25s": bm25(), "dsir": dsir()}, indent=1))
