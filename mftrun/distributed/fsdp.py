"""FSDP2: each rank holds a slice of every weight, its gradient and its optimizer state."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mftrun.distributed.base import Engine, Sharding
from mftrun.distributed.common import CommonStrategy
from mftrun.distributed.group import autocast, half, join
from mftrun.distributed.ranks import Ranks
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.models.base import ModelSource
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory


@dataclass(frozen=True)
class Fsdp(CommonStrategy):
    """Fully sharded data parallel, as torch's ``fully_shard`` does it (arXiv 2304.11277).

    Args:
        wrap: Class names of the modules that are gathered as one; None takes the decoder's layers.
        reshard_after_forward: Whether a layer's weights are let go after its forward pass and gathered again
            for its backward pass: less memory, half as many messages again.
        accumulate_whole_gradients: Whether ranks exchange gradients in a step's last backward pass alone:
            fewer messages, and a whole gradient on each rank where there are several micro-batches.
        cpu_offload: Whether weights, gradients and optimizer state lie in the host's memory.
        cpu_efficient_loading: Whether the first rank alone reads the weights and hands them out. Quantised
            weights are read by every rank all the same.
    """

    wrap: Sequence[str] | None = None
    reshard_after_forward: bool = True
    accumulate_whole_gradients: bool = False
    cpu_offload: bool = False
    cpu_efficient_loading: bool = True

    @property
    def sharding(self) -> Sharding:
        """Everything is divided."""
        host = self.cpu_offload
        return Sharding(weights=True, gradients=True, optimizer=True, cpu_optimizer=host, cpu_weights=host)

    def join(self, precision: str) -> Ranks:
        """See `Strategy.join`."""
        return join(precision, grouped=True)

    def load(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, ranks: Ranks
    ) -> PreTrainedModel:
        """See `Strategy.load`: the first rank alone may read, and hand out when the model is sharded."""
        if not self.cpu_efficient_loading or ranks.is_main:
            return source.load(tokenizer, dtype)
        return source.skeleton(len(tokenizer), dtype)

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
        from mftrun.distributed.fsdp_engine import FsdpEngine

        model.autocast = autocast(ranks.device, precision)  # for what layers compute of other dtypes
        shard(model, self, ranks, precision)
        return FsdpEngine(ranks, model, optimizer, max_grad_norm, self.accumulate_whole_gradients)

    def quant_storage(self, precision: str) -> torch.dtype:
        """The dtype in which weights are gathered, so that gathering changes no bit of the packed ones."""
        import torch

        return half(precision) or torch.float32


def shard(model: ModelWithNll, settings: Fsdp, ranks: Ranks, precision: str) -> None:
    """Turns a model's parameters into slices, in place.

    Where some rank has a model without numbers (on the meta device), all get those of the first rank.

    Args:
        model: The model-with-nll, with its adapters in place.
        settings: How.
        ranks: Those that share it.
        precision: ``fp32`` or ``bf16``, in which layers compute; gradients are summed in float32.

    Raises:
        ConfigError: A class to wrap does not exist in the model.
    """
    from mftrun.distributed.handing_out import Source

    source = Source.of(model, ranks)
    _keep_quant_states(model)
    _fully_shard(model, settings, ranks.device, precision)
    source.hand_out(model, on_host=settings.cpu_offload)
    _place_buffers(model, ranks.device)


def _fully_shard(model: ModelWithNll, settings: Fsdp, device: torch.device, precision: str) -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (distributed.get_world_size(),), mesh_dim_names=("shard",)),
        "mp_policy": _mixed_precision(precision),
        "offload_policy": _offload(settings.cpu_offload, device),
    }
    for layer in _layers(model, settings.wrap):
        fully_shard(layer, reshard_after_forward=settings.reshard_after_forward, **options)
    # What no layer holds (embeddings, head, norms) stays gathered from the forward to the backward pass.
    fully_shard(model, reshard_after_forward=False, **options)


def _place_buffers(model: nn.Module, device: torch.device) -> None:
    """Buffers are not divided, and stay where the model computes."""
    for module in model.modules():
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)


def _offload(on_host: bool, device: torch.device) -> Any:
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

    return CPUOffloadPolicy(pin_memory=device.type == "cuda") if on_host else OffloadPolicy()


def _mixed_precision(precision: str) -> Any:
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    # No output dtype: losses leave the model in float32.
    return MixedPrecisionPolicy(param_dtype=half(precision), reduce_dtype=torch.float32)


def _layers(model: ModelWithNll, wrap: Sequence[str] | None) -> list[nn.Module]:
    """The modules to gather as one, inner ones before those that hold them."""
    from mftrun.models.parts import causal_lm_of, output_head_of

    causal_lm = causal_lm_of(model.model)
    names = wrap if wrap is not None else _layer_classes(causal_lm)
    found = [module for module in model.modules() if type(module).__name__ in names]
    missing = set(names) - {type(module).__name__ for module in found}
    if missing or not found:
        there = sorted({type(module).__name__ for module in model.modules()})
        raise ConfigError(
            "distributed.wrap",
            f"the model has no module of class {', '.join(sorted(missing)) or 'known to be a layer'}; "
            f"there are {', '.join(there)}",
        )
    head = output_head_of(causal_lm)
    for module in found:
        if any(inner is head for inner in module.modules()):
            raise ConfigError(
                "distributed.wrap",
                f"{type(module).__name__} holds the output head, which ranks apply in different numbers of "
                "chunks; leave it out",
            )
    return found[::-1]


def _layer_classes(causal_lm: Any) -> list[str]:
    """What transformers says must not be split, as far as it is there."""
    declared = set(getattr(causal_lm, "_no_split_modules", None) or ())
    return sorted({type(module).__name__ for module in causal_lm.modules()} & declared)


def _keep_quant_states(model: nn.Module) -> None:
    """Slices of packed weights know nothing of their constants: the layers must."""
    for module in model.modules():
        state = getattr(getattr(module, "weight", None), "quant_state", None)
        if state is not None:
            module.quant_state = state
