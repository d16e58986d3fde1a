"""Loading the model that a run trains, and proving that its losses are its own."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from mftrun.files import whole_folder
from mftrun.jobs.preparation import build_group
from mftrun.models.adapters import parameter_counts
from mftrun.models.heads import head_for
from mftrun.models.parts import causal_lm_of
from mftrun.models.recompute import recompute_activations
from mftrun.models.verify import check_length, verify_against_logits, verify_packing
from mftrun.models.with_nll import ModelWithNll

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.jobs.layout import RunLayout
    from mftrun.schema import RunConfig

log = logging.getLogger(__name__)


def load_model(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerFast,
    layout: RunLayout,
    accelerator: Accelerator,
) -> ModelWithNll:
    """The model-with-nll of this rank, on its device, with its adapters in place.

    Args:
        config: The run's configuration.
        tokenizer: The run's tokenizer.
        layout: Where a base model goes that exists nowhere else.
        accelerator: Knows the device and the precision.

    Raises:
        ConfigError: The model cannot be loaded, or its losses or packed rows would be wrong.
    """
    source, adapter = build_group(config, "model"), build_group(config, "peft")
    half = accelerator.mixed_precision == "bf16"
    dtype = torch.bfloat16 if half and adapter.freezes_base else torch.float32
    base = source.load(tokenizer, dtype)
    if adapter.freezes_base and accelerator.is_main_process:
        _keep_base(base, layout)
    model = adapter.apply(base)
    if config.train.gradient_checkpointing:
        recompute_activations(model)
    model = model.to(accelerator.device)
    choice = head_for(model, source.head, torch.bfloat16 if half else dtype)
    check_length(model, config.data.max_length)
    verify_against_logits(model, choice.head)
    rows = build_group(config, "rows")
    if rows.shares_rows:
        verify_packing(model)
    if rows.layout.joins_rows and config.train.micro_batch_size > 1:
        _warn_of_masks(model, config.train.micro_batch_size)
    counts = parameter_counts(model)
    log.info(
        "%s: %s of %s parameters are trained",
        type(base).__name__,
        f"{counts.trainable:,}",
        f"{counts.total:,}",
    )
    log.info("output head: %s", choice.reason)
    return ModelWithNll(model, choice.head)


def _warn_of_masks(model: Any, micro_batch_size: int) -> None:
    """Only attention that is told where segments begin passes over the rest of a joined row."""
    attention = str(causal_lm_of(model).config._attn_implementation)
    if "flash" not in attention:
        log.warning(
            "rows of a micro-batch are joined, and %s attention takes time with the square of their length: "
            "train.micro_batch_size=1 instead of %d, or rows=packing, is faster here",
            attention,
            micro_batch_size,
        )


def _keep_base(base: PreTrainedModel, layout: RunLayout) -> None:
    """An adapter is worth nothing without its base: one that was drawn at random is kept beside it."""
    if base.name_or_path:
        return
    if not layout.base_model.exists():
        with whole_folder(layout.base_model) as folder:
            base.save_pretrained(folder)
    base.name_or_path = str(layout.base_model)
