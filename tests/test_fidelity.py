"""The figures of the fidelity benchmark, against closed forms and whole gradients."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from prune_cli import options
from tests.benchmarks.fidelity import (
    LESS,
    ROWS,
    TARGETS,
    CountSketch,
    Fidelity,
    compared,
    fidelity,
    folded,
    table,
    whole,
)
from tests.benchmarks.trained import lengthened, trained
from tests.conftest import sentences, write_rows


def test_a_count_sketch_is_unbiased_with_the_known_variance() -> None:
    """Inner products over 4,000 draws: the mean is right, and the variance (‖x‖²‖y‖² + ⟨x,y⟩² − 2 Σ x²y²) / k."""
    drawn = torch.Generator().manual_seed(0)
    x, y = torch.randn(2, 60, generator=drawn)
    y = y + x
    sketch = CountSketch(16, range(4000))
    for dim in (16, 8):
        pairs = zip(sketch.of(x), sketch.of(y), strict=True)
        draws = torch.stack([folded(a, dim) @ folded(b, dim) for a, b in pairs])
        true = float(x @ y)
        variance = float(x.square().sum() * y.square().sum() + true**2 - 2 * (x * y).square().sum()) / dim
        assert float(draws.mean()) == pytest.approx(true, abs=4 * (variance / 4000) ** 0.5)
        assert float(draws.var()) == pytest.approx(variance, rel=0.15)


def test_fidelity_of_a_hand_made_case() -> None:
    """Two targets along the axes; the second of three rows is projected to another direction and length."""
    rows = torch.tensor([[2.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    true = torch.tensor([[1.0, 0.0], [0.8, 0.6], [0.0, 0.9]])
    got = fidelity(rows, torch.eye(2) * 7, true, torch.tensor([2.0, 1.0, 3.0]))
    assert got.error == pytest.approx(((0.2**2 + 0.2**2 + 0.1**2) / 6) ** 0.5)
    assert got.less == pytest.approx(0.75**0.5)  # of 0.5, 0.7, 0.5 with 0.5, 0.7, 0.45
    assert got.norm == pytest.approx(-1)  # 2, 5, 1 against 2, 1, 3


def test_the_table_has_medians_over_seeds_and_the_range_over_slices() -> None:
    """A hand-made case of two slices and three seeds."""

    def pair(error: float, lost: float) -> tuple[Fidelity, Fidelity]:
        return Fidelity(error, 0.9 - lost, 0.5), Fidelity(0.01, 0.9, 0.6)

    near = [pair(0.010, 0.0), pair(0.011, 0.001), pair(0.09, 0.5)]
    far = [pair(0.012, 0.002), pair(0.0112, 0.0), pair(0.02, 0.01)]
    lines, good = table({"near": near, "far": far})
    cells = {line[:18].strip(): [float(cell) for cell in line[18:].split()] for line in lines[2:7]}
    assert cells["near"] == [0.011, 0.01, 1.1, 0.899, 0.9, 0.001, 0.5, 0.6]
    assert cells["far"][2] == 1.2
    assert cells["median of all"][2] == pytest.approx(1.16)  # of 1.0, 1.1, 1.12, 1.2, 2, 9, each three times
    assert (cells["least slice"][2], cells["largest slice"][2]) == (1.1, 1.2)
    assert not good
    assert lines[-1].endswith("missed")
    assert table({"near": near})[1]
    assert not table({"near": [pair(0.01, LESS * 2)]})[1]


@pytest.mark.slow
def test_projections_and_sketches_of_many_numbers_tell_the_truth(tiny_model: Path, tmp_path: Path) -> None:
    """With far more buckets than the model has parameters, both are nearly exact for rows of mixed length."""
    data = write_rows(tmp_path / "rows.jsonl", sentences(ROWS + TARGETS + 16))
    opts = options.Finetune(model=str(tiny_model), task="classification", steps=2, batch_size=8, learning_rate=1e-2)
    ready = trained(str(data), tmp_path / "trained", opts, fresh=ROWS + TARGETS)
    setup = ready.setup
    gradient = whole(setup, int(ready.fresh[0]))
    assert gradient.numel() == sum(p.numel() for p in setup.model.parameters())
    few, many = 2**8, 2**17
    by = compared(setup, ready.fresh[:ROWS], ready.fresh[ROWS:], [few, many], range(2))
    assert list(by) == [(few, 0), (few, 1), (many, 0), (many, 1)]
    for (dim, _), both in by.items():  # an entry's share of the error is 1 / dim: 0.003 of 2 ** 17, 0.06 of 2 ** 8
        for got in both:
            assert got.error < (0.01 if dim == many else 0.2)
            assert got.norm > (0.9 if dim == many else 0.5)


def test_rows_are_lengthened_by_their_own_tokens(tiny_model: Path, tmp_path: Path) -> None:
    """Each row has the wanted number of tokens, its own over and over."""
    data = write_rows(tmp_path / "rows.jsonl", sentences(16))
    opts = options.Finetune(model=str(tiny_model), task="classification", steps=1, batch_size=8)
    encoded = trained(str(data), tmp_path / "trained", opts, fresh=8).setup.encoded
    longer = lengthened(encoded, 11)
    assert longer.longest.tolist() == [11] * 16
    for i in range(16):
        own = encoded.input_ids[encoded.offsets[i] : encoded.offsets[i + 1]]
        assert longer.input_ids[longer.offsets[i] : longer.offsets[i + 1]].tolist() == np.resize(own, 11).tolist()
