"""How the small models are trained."""

from __future__ import annotations

from typing import Any

from world import SEED


def arguments(scratch: str, epochs: int, rate: float) -> Any:
    """Arguments of a Trainer that works in `scratch`; seeds all that is random, so it comes before the model.

    They take one thread: the order of sums, and so every bit, hangs on it.
    """
    import torch
    from transformers import TrainingArguments, set_seed

    torch.set_num_threads(1)
    set_seed(SEED)
    return TrainingArguments(
        scratch,
        per_device_train_batch_size=64,
        learning_rate=rate,
        warmup_steps=0.05,
        num_train_epochs=epochs,
        seed=SEED,
        use_cpu=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )
