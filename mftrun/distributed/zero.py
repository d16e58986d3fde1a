"""ZeRO: DeepSpeed divides optimizer state, gradients and weights over the ranks, as its stage says."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from mftrun.distributed.base import Engine, Sharding
from mftrun.distributed.common import CommonStrategy
from mftrun.distributed.group import half, join
from mftrun.distributed.ranks import Ranks
from mftrun.errors import ConfigError
from mftrun.nearest import unknown

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.models.base import ModelSource
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory


_OWN = {
    "stage": "distributed=zero1, zero2 or zero3",
    "overlap_comm": "distributed.overlap_comm",
    "reduce_bucket_size": "distributed.bucket_size",
    "stage3_param_persistence_threshold": "distributed.persistence_threshold",
    "offload_optimizer": "distributed.offload_optimizer",
    "offload_param": "distributed.offload_weights",
    "contiguous_gradients": "it is always true",
}


@dataclass(frozen=True)
class Zero(CommonStrategy):
    """DeepSpeed's ZeRO (arXiv 1910.02054).

    Args:
        stage: 1 divides the optimizer's state, 2 the gradients besides, 3 the weights besides.
        offload_optimizer: Whether the optimizer's state lies in the host's memory (arXiv 2101.06840).
        offload_weights: Whether the weights do, with stage 3.
        overlap_comm: Whether ranks exchange gradients while others are computed.
        bucket_size: Numbers that are exchanged at once.
        persistence_threshold: Weights of fewer numbers stay whole on every rank, with stage 3; None takes
            DeepSpeed's.
        options: More keys of DeepSpeed's ``zero_optimization``, as its documentation names them.

    Raises:
        ConfigError: A value is out of range or does not act at this stage, or an option has a key of its own.
    """

    stage: Literal[1, 2, 3] = 2
    offload_optimizer: bool = False
    offload_weights: bool = False
    overlap_comm: bool = True
    bucket_size: int = 500_000_000
    persistence_threshold: int | None = None
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.offload_weights and self.stage < 3:
            raise ConfigError(
                "distributed.offload_weights",
                f"needs divided weights, and stage {self.stage} divides none; use distributed=zero3_offload",
            )
        if self.bucket_size < 1:
            raise ConfigError("distributed.bucket_size", f"must be 1 or more, not {self.bucket_size}")
        if self.persistence_threshold is not None and (self.stage < 3 or self.persistence_threshold < 0):
            raise ConfigError(
                "distributed.persistence_threshold", "must be 0 or more, and acts at stage 3 alone"
            )
        for name in set(self.options or ()) & _OWN.keys():
            raise ConfigError(f"distributed.options.{name}", f"has a key of its own: {_OWN[name]}")

    def check_options(self) -> None:
        """Refuses options that DeepSpeed does not know.

        Raises:
            ConfigError: It knows no such key, or refuses its value.
        """
        if not self.options:
            return
        import torch

        _deepspeed(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
        from deepspeed.runtime.zero.config import DeepSpeedZeroConfig
        from pydantic import ValidationError

        for name in self.options:
            if name not in DeepSpeedZeroConfig.model_fields:
                problem = f"DeepSpeed has no key {name}"
                raise ConfigError(
                    f"distributed.options.{name}", unknown(name, DeepSpeedZeroConfig.model_fields, problem)
                )
        try:
            DeepSpeedZeroConfig(**self.config("fp32", None)["zero_optimization"])
        except ValidationError as error:
            fault = error.errors(include_url=False)[0]
            raise ConfigError(f"distributed.options.{fault['loc'][0]}", fault["msg"]) from error

    @property
    def name(self) -> str:
        """See `Strategy.name`."""
        return f"zero{self.stage}{'_offload' if self.offload_optimizer else ''}"

    @property
    def sharding(self) -> Sharding:
        """See `Strategy.sharding`."""
        return Sharding(
            weights=self.stage == 3,
            gradients=self.stage >= 2,
            optimizer=True,
            cpu_optimizer=self.offload_optimizer,
            cpu_weights=self.offload_weights,
        )

    def join(self, precision: str) -> Ranks:
        """See `Strategy.join`."""
        return join(precision, grouped=True)

    def load(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, ranks: Ranks
    ) -> PreTrainedModel:
        """See `Strategy.load`: with stage 3 each weight is divided as soon as it is read."""
        if self.stage < 3:
            return source.load(tokenizer, dtype)
        _deepspeed(ranks.device)
        with _dividing(self.config("bf16" if dtype.itemsize == 2 else "fp32", None)):
            return source.load(tokenizer, dtype)

    def engine(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        max_grad_norm: float | None,
    ) -> Engine:
        """See `Strategy.engine`."""
        from mftrun.distributed.zero_engine import ZeroEngine

        deepspeed = _deepspeed(ranks.device)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=optimizer.build(model),
            config=self.config(precision, max_grad_norm),
            dist_init_required=False,
        )
        _gather_head_once(engine)
        return ZeroEngine(ranks, engine)

    def adapter_dtype(self, precision: str) -> torch.dtype:
        """That of the other weights: DeepSpeed holds the ones to train in one dtype."""
        import torch

        return half(precision) or torch.float32

    def quant_storage(self, precision: str) -> torch.dtype:
        """With stage 3 that of the other weights, as DeepSpeed gathers all in one dtype."""
        if self.stage < 3:
            return super().quant_storage(precision)
        return self.adapter_dtype(precision)

    def config(self, precision: str, max_grad_norm: float | None) -> dict[str, Any]:
        """DeepSpeed's own configuration."""
        zero: dict[str, Any] = {
            "stage": self.stage,
            "overlap_comm": self.overlap_comm,
            "contiguous_gradients": True,
            "reduce_bucket_size": self.bucket_size,
            **(self.options or {}),
        }
        if self.persistence_threshold is not None:
            zero["stage3_param_persistence_threshold"] = self.persistence_threshold
        if self.offload_optimizer:
            zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
        if self.offload_weights:
            zero["offload_param"] = {"device": "cpu", "pin_memory": True}
        return {
            # Windows and micro-batches are ours: DeepSpeed neither counts nor scales by them.
            "train_micro_batch_size_per_gpu": 1,
            "gradient_accumulation_steps": 1,
            # Without the key it clips at 1; 0 does not clip.
            "gradient_clipping": max_grad_norm or 0.0,
            "bf16": {"enabled": precision == "bf16", "check_grad_overflow": True},
            "data_types": {"grad_accum_dtype": "fp32"},
            "zero_optimization": zero,
            "zero_allow_untested_optimizer": True,
            # Torch steps on the host, too: its kernel is as fast as DeepSpeed's, which must be compiled.
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": 2**62,
        }


@contextmanager
def _dividing(config: dict[str, Any]) -> Iterator[None]:
    """Inside, transformers divides weights as DeepSpeed does with this configuration."""
    from transformers.integrations.deepspeed import HfDeepSpeedConfig, unset_hf_deepspeed_config

    held = HfDeepSpeedConfig(config)  # transformers holds a weak reference
    try:
        yield
    finally:
        del held
        unset_hf_deepspeed_config()


def _deepspeed(device: torch.device) -> Any:
    """The library, told where it computes and kept from talking while it is imported."""
    os.environ.setdefault("DS_ACCELERATOR", device.type)
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # what it could compile, and the commands that try
    try:
        import deepspeed
        import deepspeed.ops
    finally:
        logging.disable(disabled)
    if device.type == "cpu":
        # It would compile messages through shared memory for half a minute and more.
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    return deepspeed


def _gather_head_once(engine: Any) -> None:
    """With stage 3, makes the output head's weights come with the whole model's forward pass.

    DeepSpeed gathers weights as modules are called, in the same order on every rank. But the head is
    applied as often as a rank has chunks of targets.

    Raises:
        ConfigError: The head is more than a linear layer, and must be called as a module.
    """
    import deepspeed

    from mftrun.models.heads import is_plain
    from mftrun.models.parts import causal_lm_of, output_head_of

    if engine.zero_optimization_stage() < 3:
        return
    head = output_head_of(causal_lm_of(engine.module.model))
    if not is_plain(head):
        raise ConfigError(
            "distributed",
            f"zero3 cannot share out an output head that is a {type(head).__name__}; take it out of "
            "peft.target_modules and peft.modules_to_save, or use distributed=fsdp",
        )
    for parameter in head.parameters():
        deepspeed.zero.register_external_parameter(engine.module, parameter)
