"""Make the sample data: `python sample_data/make.py` writes every file beside it again, byte for byte the same.

train.jsonl … ood.jsonl, model/   classification, as make_classification.py has it
choice/                           multiple choice, as make_choice.py has it; the model is model/ here too
generation/, lm/                  generation, as make_generation.py has it

All of them speak of one small world, that of world.py.
"""

from __future__ import annotations

from pathlib import Path

import make_choice
import make_classification
import make_generation
from jsonl import Row, write_rows


def make_rows() -> dict[str, list[Row]]:
    """The rows of each file, by its path without the suffix."""
    return {
        **make_classification.make_rows(),
        **{f"choice/{name}": rows for name, rows in make_choice.make_rows().items()},
        **{f"generation/{name}": rows for name, rows in make_generation.make_rows().items()},
    }


def main() -> None:
    """Write everything beside this script."""
    here = Path(__file__).parent
    files = make_rows()
    write_rows(files, here)

    held_out = {row["text"] for name in ("validation", "test", "ood") for row in files[name]}
    texts = [row["text"] for row in files["train"]]
    make_classification.make_model(make_classification.make_reviews(held_out), texts, here / "model")

    tested = [row for name in ("validation", "test") for row in files[f"generation/{name}"]]
    held_out = {text for row in tested for text in make_generation.own(row)}
    texts = [row[key] for row in files["generation/train"] for key in ("prompt", "response")]
    make_generation.make_lm(make_generation.make_texts(held_out), texts, here / "lm")


if __name__ == "__main__":
    main()
