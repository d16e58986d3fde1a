"""ZeRO: DeepSpeed divides optimizer state, gradients and weights over the ranks, as its stage says."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from mftrun.distributed.base import Sharding, called_within
from mftrun.distributed.group import join
from mftrun.distributed.machines import Machines
from mftrun.distributed.ranks import Ranks
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.models.base import ModelSource
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory

Result = TypeVar("Result")


@dataclass(frozen=True)
class Zero(Machines):
    """DeepSpeed's ZeRO (arXiv 1910.02054).

    Args:
        stage: 1 divides the optimizer's state, 2 the gradients besides, 3 the weights besides.
        offload_optimizer: Whether the optimizer's state lies in the host's memory (arXiv 2101.06840).
        offload_weights: Whether the weights do, with stage 3.
        overlap_comm: Whether ranks exchange gradients while others are computed.
        bucket_size: Numbers that are exchanged at once.
        persistence_threshold: Weights of fewer numbers stay whole on every rank, with stage 3.
        options: More keys of DeepSpeed's ``zero_optimization``, as its documentation names them.

    Raises:
        ConfigError: Weights are to be offloaded that are not divided.
    """

    stage: Literal[1, 2, 3] = 2
    offload_optimizer: bool = False
    offload_weights: bool = False
    overlap_comm: bool = True
    bucket_size: int = 500_000_000
    persistence_threshold: int = 100_000
    options: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.offload_weights and self.stage < 3:
            raise ConfigError(
                "distributed.offload_weights",
                f"needs divided weights, and stage {self.stage} divides none; use distributed=zero3_offload",
            )

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

    @property
    def divides_data(self) -> bool:
        """True."""
        return True

    @property
    def needs_files(self) -> bool:
        """False."""
        return False

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
    ) -> ZeroEngine:
        """See `Strategy.engine`."""
        deepspeed = _deepspeed(ranks.device)
        engine, *_ = deepspeed.initialize(
            model=model,
            optimizer=self._optimizer(model, optimizer),
            config=self.config(precision, max_grad_norm),
            dist_init_required=False,
        )
        _gather_head_once(engine)
        return ZeroEngine(ranks, engine)

    def adapter_dtype(self, precision: str) -> torch.dtype | None:
        """That of the other weights: DeepSpeed holds the ones to train in one dtype."""
        import torch

        return torch.bfloat16 if precision == "bf16" else torch.float32

    def quant_storage(self, precision: str) -> torch.dtype:
        """With stage 3 that of the other weights, as DeepSpeed gathers all in one dtype."""
        import torch

        if self.stage < 3:
            return torch.uint8
        return torch.bfloat16 if precision == "bf16" else torch.float32

    def config(self, precision: str, max_grad_norm: float | None) -> dict[str, Any]:
        """DeepSpeed's own configuration."""
        zero: dict[str, Any] = {
            "stage": self.stage,
            "overlap_comm": self.overlap_comm,
            "contiguous_gradients": True,
            "reduce_bucket_size": self.bucket_size,
            **(self.options or {}),
        }
        if self.stage == 3:
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

    def _optimizer(self, model: ModelWithNll, factory: OptimizerFactory) -> Any:
        return factory.build(model)


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


class ZeroEngine:
    """Trains a model through DeepSpeed; see `Engine`.

    Args:
        ranks: Those that train it.
        engine: DeepSpeed's.
    """

    def __init__(self, ranks: Ranks, engine: Any) -> None:
        self.ranks = ranks
        self.model = engine
        self.bare: ModelWithNll = engine.module

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Engine.micro_step`."""
        self.model.set_gradient_accumulation_boundary(is_boundary=is_last)
        return nullcontext()

    def backward(self, share: Tensor) -> None:
        """DeepSpeed averages gradients over the ranks, so that each share is multiplied by their number."""
        self.model.backward(share * self.ranks.count, scale_wrt_gas=False)

    def step(self, rate: float) -> float:
        """See `Engine.step`. DeepSpeed clips, and skips a step whose norm is not finite."""
        from mftrun.distributed.replicated import set_rate

        set_rate(self.model.optimizer, rate)
        self.model.step()
        norm = float(self.model.get_global_grad_norm())
        return math.inf if self.model.optimizer.overflow else norm

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """See `Engine.within_forward`."""
        return called_within(self.model, function)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`. The weights are the float32 ones that are stepped."""
        from mftrun.distributed.zero_state import zero_state

        return zero_state(self.model)

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        from mftrun.distributed.zero_state import refresh, zero_state

        read(zero_state(self.model, optimizer=optimizer))
        refresh(self.model)

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """See `Engine.gathered`. Trained weights are the float32 ones that are stepped."""
        import torch

        from mftrun.distributed.zero_state import whole_parameter

        parameters = dict(self.bare.named_parameters(remove_duplicate=False))
        for name, tensor in self.bare.state_dict().items():
            if names(name):
                whole = whole_parameter(parameters[name]) if name in parameters else tensor
                yield name, whole.detach().cpu() if self.ranks.is_main else torch.empty(0)
