"""Loading the model that a run trains, and proving that its losses are its own."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from mftrun.distributed import resolve_precision
from mftrun.distributed.group import half
from mftrun.files import whole_folder
from mftrun.jobs.preparation import build_group
from mftrun.models.adapters import parameter_counts
from mftrun.models.experts import describe_unquantized
from mftrun.models.heads import head_for
from mftrun.models.parts import causal_lm_of
from mftrun.models.pretrained import Pretrained, settle_attention
from mftrun.models.recompute import recompute_activations
from mftrun.models.router import describe_router_loss
from mftrun.models.verify import check_length, verify_against_logits, verify_packing
from mftrun.models.with_nll import ModelWithNll

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.distributed import Engine, Ranks, Strategy
    from mftrun.jobs.layout import RunLayout
    from mftrun.models.adapters import Adapter
    from mftrun.models.base import ModelSource
    from mftrun.schema import RunConfig

log = logging.getLogger(__name__)


def load_model(
    config: RunConfig,
    tokenizer: PreTrainedTokenizerFast,
    layout: RunLayout,
    strategy: Strategy,
    ranks: Ranks,
) -> ModelWithNll:
    """The model-with-nll of this rank, with its adapters in place, as a strategy takes it.

    Args:
        config: The run's configuration.
        tokenizer: The run's tokenizer.
        layout: Where a base model goes that exists nowhere else.
        strategy: Says how weights are held.
        ranks: Those that train it.

    Raises:
        ConfigError: The model cannot be loaded.
    """
    adapter, source = build_group(config, "peft"), build_group(config, "model")
    precision = resolve_precision(config.train.precision)
    compute = half(precision)
    dtype = compute if compute and adapter.freezes_base else torch.float32
    source = settle_attention(source, compute or torch.float32)
    base = _base(_Loading(source, adapter, strategy, ranks, precision), tokenizer, dtype, layout)
    model = adapter.apply(base, adapter_dtype=strategy.adapter_dtype(precision))
    if config.train.gradient_checkpointing:
        recompute_activations(model)
    choice = head_for(model, source.head, compute or dtype)
    check_length(model, config.data.max_length)
    log.info("%s: %s", type(base).__name__, parameter_counts(model))
    if (router := describe_router_loss(causal_lm_of(model))) is not None:
        log.info("router loss: %s", router)
    log.info("output head: %s", choice.reason)
    return ModelWithNll(model, choice.head)


def verify_model(config: RunConfig, engine: Engine) -> None:
    """Proves on the prepared model that its losses are its own, and that packed samples stay apart.

    Every rank must call it.

    Raises:
        ConfigError: Its losses or its packed rows would be wrong.
    """
    engine.within_forward(lambda bare: verify_against_logits(bare.model, bare.head))
    rows = build_group(config, "rows")
    if rows.shares_rows:
        engine.within_forward(lambda bare: verify_packing(bare.model))
    if rows.layout.joins_rows and config.train.micro_batch_size > 1:
        _warn_of_masks(engine.bare.model, config.train.micro_batch_size)


@dataclass(frozen=True)
class _Loading:
    """What decides how a base model is loaded."""

    source: ModelSource
    adapter: Adapter
    strategy: Strategy
    ranks: Ranks
    precision: str

    def pretrained(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype
    ) -> PreTrainedModel:
        """One that lies in files."""
        wanted = self.adapter.quantization
        if wanted is not None:
            storage = self.strategy.quant_storage(self.precision)
            model = source.load(tokenizer, dtype, wanted.config(storage))
            if (left := describe_unquantized(model)) is not None:
                log.warning(left)
            return model
        if self.adapter.reads_weights:  # and computes with whole ones
            return source.load(tokenizer, dtype)
        return self.strategy.load(source, tokenizer, dtype, self.ranks)


def _base(
    loading: _Loading, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, layout: RunLayout
) -> PreTrainedModel:
    """The model that is fine-tuned. One drawn at random is quantised from files, as all are."""
    if loading.source.has_files:
        return loading.pretrained(loading.source, tokenizer, dtype)
    base = loading.source.load(tokenizer, dtype)
    if loading.adapter.freezes_base or loading.strategy.needs_files:
        _keep_base(base, layout, loading.ranks)
    if loading.adapter.quantization is None and not loading.strategy.needs_files:
        return base
    attention: Any = loading.source.attention
    kept = Pretrained(path=str(layout.base_model), attention=attention)
    return loading.pretrained(kept, tokenizer, dtype)


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


def _keep_base(base: PreTrainedModel, layout: RunLayout, ranks: Ranks) -> None:
    """An adapter is worth nothing without its base: one that was drawn at random is kept beside it."""
    if ranks.is_main and not layout.base_model.exists():
        with whole_folder(layout.base_model) as folder:
            base.save_pretrained(folder)
    ranks.wait()
    base.name_or_path = str(layout.base_model)
