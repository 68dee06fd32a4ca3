"""Hidden states of one layer, pooled over tokens: the representation of prototypicality, RDS and their kin.

pooling: `cls` the first token; `mean` over the real tokens; `last` the last real token; `position` weights that grow
with the token's position, wₜ = t / Σ t (Muennighoff 2022, arXiv 2202.08904, as RDS+ uses it: Ivison et al. 2025,
arXiv 2503.01807), over prompts and responses of all turns; `response` the mean over the tokens that are trained on,
where rows are for generation; `summary` the token that has seen all others (Du et al. 2025, arXiv 2507.03648): the
first of a masked language model, the last real token of any other model, whose first token has seen none. choices:
where a row is several choices, its vector is the `mean` of its choices' vectors (Du et al. 2025, arXiv 2507.03648) or
the vector of the `gold` choice.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prune_cli.errors import PruneError
from prune_cli.options import Help
from prune_cli.represent.kinds._shared import DType
from prune_cli.represent.observe import Batch, Setup, Tensor, Watcher

if TYPE_CHECKING:
    import torch

    from prune_cli.models.find import Checkpoint
    from prune_cli.tasks import Task

TENSORS = {"hidden": Tensor(("d",), None, "hidden states of one layer, pooled over tokens")}
FEATURES = "hidden"
NEEDS: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Options:
    """Options of the kind."""

    layer: Annotated[int, Help("Which layer; -1 is the last, 0 the embeddings.")] = -1
    pooling: Annotated[
        Literal["auto", "cls", "mean", "last", "position", "response", "summary"],
        Help("How vectors of tokens become one vector; auto: the task's own way."),
    ] = "auto"
    choices: Annotated[
        Literal["mean", "gold"], Help("How vectors of a row's choices become one vector.", by_task=True)
    ] = "mean"
    dtype: DType = "float16"


def resolved(opts: Options, task: Task) -> Options:
    """The options with the task's own pooling for `auto`."""
    return replace(opts, pooling=task.POOLING) if opts.pooling == "auto" else opts  # type: ignore[arg-type]


def observe(setup: Setup, opts: Options) -> Hidden:
    """Observe a pass."""
    if opts.pooling == "summary":
        opts = replace(opts, pooling=summarising(setup.model.config, setup.task))
    return Hidden(opts)


def summarising(config: Any, task: Task) -> Literal["cls", "last"]:
    """The pooling that takes the token which has seen all others, by the type of model and its use."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    return "cls" if config.model_type in MASKED and task.AUTO_MODEL != "AutoModelForCausalLM" else "last"


class Hidden(Watcher):
    """Observes `hidden` [b, d]."""

    def __init__(self, opts: Options) -> None:
        self._opts = opts

    def sizes(self, model: torch.nn.Module) -> dict[str, int]:
        """d: the width of the model."""
        whole: Any = model.config
        config = whole.get_text_config()  # of a model with several parts, the one for texts
        count, layer = getattr(config, "num_hidden_layers", None), self._opts.layer
        if count is not None and not -count - 1 <= layer <= count:
            raise PruneError(f"layer: {layer}; the model has layers 0 (embeddings) to {count}, or -1 for the last")
        width = getattr(config, "hidden_size", None)
        if width is None:
            raise PruneError(f"kind: hidden; the config of {type(model).__name__} has no hidden_size")
        return {"d": width}

    @contextmanager
    def attach(self, model: torch.nn.Module, checkpoint: Checkpoint | None = None) -> Iterator[None]:
        """Ask for hidden states with every call.

        Not through `model.config`: a model wrapped in adapters passes its own default on.
        """

        def ask(module: torch.nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            return args, {**kwargs, "output_hidden_states": True}

        handle = model.register_forward_pre_hook(ask, with_kwargs=True)
        try:
            yield
        finally:
            handle.remove()

    def rows(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Pool the batch's hidden states [b, t, d], or [b·c, t, d] of c choices, to [b, d]."""
        outputs, layer = batch.outputs, self._opts.layer
        # of an encoder with a decoder (T5, BART), those of the encoder
        states = getattr(outputs, "hidden_states", None) or outputs.encoder_hidden_states
        states = states[layer].detach().float()
        mask = batch.inputs["attention_mask"]
        tokens = mask.flatten(end_dim=-2).shape
        if states.dim() != 3 or states.shape[:2] != tokens:
            raise PruneError(
                f"layer: {layer}; it has states of shape {list(states.shape)} for {list(tokens)} tokens; "
                "allowed: a layer with one state for each token"
            )
        if self._opts.pooling == "response":
            if batch.labels.shape != mask.shape:
                raise PruneError("pooling: response; only rows of the task generation have a response")
            mask = (batch.labels >= 0).long()
        pooled = pool(states, mask.flatten(end_dim=-2), self._opts.pooling)
        if mask.dim() == 3:
            weights = (batch.labels >= 0 if self._opts.choices == "mean" else batch.labels == 1).float()
            weights = weights / weights.sum(1, keepdim=True)
            pooled = (pooled.unflatten(0, weights.shape) * weights.unsqueeze(2)).sum(1)
        return {"hidden": pooled}


def pool(states: torch.Tensor, mask: torch.Tensor, how: str) -> torch.Tensor:
    """Pool token vectors [b, t, d] under a right-padded mask [b, t] to [b, d]."""
    import torch

    if how == "cls":
        return states[:, 0]
    if how == "last":
        last = mask.sum(1) - 1
        return states[torch.arange(len(states), device=states.device), last]
    weights = mask.float()
    if how == "position":
        weights = weights * torch.arange(1, mask.shape[1] + 1, device=mask.device)
    weights = weights / weights.sum(1, keepdim=True)
    return (states * weights.unsqueeze(2)).sum(1)
