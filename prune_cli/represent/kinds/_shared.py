"""Options that several kinds have, declared once."""

from __future__ import annotations

from typing import Annotated, Literal

from prune_cli.options import Help

DType = Annotated[Literal["float16", "float32"], Help("Stored type of the values.")]
Params = Annotated[
    str, Help("Which parameters: all, lora, head, last:N blocks, or a regular expression on their names.")
]
Precondition = Annotated[
    Literal["none", "adam"],
    Help("Plain gradients (none), or the step that Adam would take on each example (finetune --keep-moments)."),
]
CountEos = Annotated[
    bool, Help("Count the end-of-sequence token among the tokens of a response (generation).", by_task=True)
]
