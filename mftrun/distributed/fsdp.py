"""FSDP2: each rank holds a slice of every weight, its gradient and its optimizer state."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mftrun.distributed.base import Sharding, called_within
from mftrun.distributed.group import join
from mftrun.distributed.machines import Machines
from mftrun.distributed.ranks import Ranks
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.models.base import ModelSource
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory

Result = TypeVar("Result")


@dataclass(frozen=True)
class Fsdp(Machines):
    """Fully sharded data parallel, as torch's ``fully_shard`` does it (arXiv 2304.11277).

    Args:
        wrap: Class names of the modules that are gathered as one; None takes the decoder's layers.
        reshard_after_forward: Whether a layer's weights are let go after its forward pass and gathered again
            for its backward pass: less memory, half as many messages again.
        accumulate_whole_gradients: Whether ranks exchange gradients in a step's last backward pass alone:
            fewer messages, and a whole gradient on each rank where there are several micro-batches.
        cpu_offload: Whether weights, gradients and optimizer state lie in the host's memory.
        cpu_efficient_loading: Whether the first rank alone reads the weights and hands them out. Quantized
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
        """See `Strategy.load`."""
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
    ) -> FsdpEngine:
        """See `Strategy.engine`."""
        shard(model, self, ranks, precision)
        return FsdpEngine(ranks, model, optimizer, max_grad_norm, self.accumulate_whole_gradients)

    def adapter_dtype(self, precision: str) -> None:
        """Any will do: a group of weights may hold frozen ones of another dtype."""

    def quant_storage(self, precision: str) -> torch.dtype:
        """The dtype in which weights are gathered, so that gathering changes no bit of the packed ones."""
        import torch

        return torch.bfloat16 if precision == "bf16" else torch.float32


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


def _fully_shard(model: ModelWithNll, settings: Fsdp, device: torch.device, precision: str) -> None:
    from torch import distributed
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (distributed.get_world_size(),)),
        "mp_policy": _mixed_precision(precision),
        "offload_policy": _offload(settings.cpu_offload, device),
    }
    for layer in _layers(model, settings.wrap):
        fully_shard(layer, reshard_after_forward=settings.reshard_after_forward, **options)
    # What no layer holds (embeddings, head, norms) stays gathered from the forward to the backward pass.
    fully_shard(model, reshard_after_forward=False, **options)


def _offload(on_host: bool, device: torch.device) -> Any:
    from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

    return CPUOffloadPolicy(pin_memory=device.type == "cuda") if on_host else OffloadPolicy()


def _mixed_precision(precision: str) -> Any:
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    if precision == "fp32":
        return MixedPrecisionPolicy()
    # No output dtype: losses leave the model in float32.
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)


def _layers(model: ModelWithNll, wrap: Sequence[str] | None) -> list[nn.Module]:
    """The modules to gather as one, inner ones before those that hold them."""
    from mftrun.models.parts import causal_lm_of

    names = wrap if wrap is not None else _layer_classes(causal_lm_of(model.model))
    found = [module for module in model.modules() if type(module).__name__ in names]
    missing = set(names) - {type(module).__name__ for module in found}
    if missing or not found:
        there = sorted({type(module).__name__ for module in model.modules()})
        raise ConfigError(
            "distributed.wrap",
            f"the model has no module of class {', '.join(sorted(missing)) or 'known to be a layer'}; "
            f"there are {', '.join(there)}",
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


class FsdpEngine:
    """Trains a model whose parameters are slices; see `Engine`.

    Args:
        ranks: Those that train it.
        model: The model-with-nll, already sharded.
        optimizer: Makes its optimizer.
        max_grad_norm: Upper bound of the gradient's norm; None does not clip.
        accumulate: Whether gradients stay whole until a step's last micro-batch.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        max_grad_norm: float | None,
        accumulate: bool,
    ) -> None:
        self.ranks = ranks
        self.bare = model
        self.model: nn.Module = model
        self._optimizer = optimizer.build(model)
        self._max_norm = math.inf if max_grad_norm is None else max_grad_norm
        self._accumulate = accumulate

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Engine.micro_step`."""
        sharded: Any = self.model
        sharded.set_is_last_backward(is_last)
        sharded.set_requires_gradient_sync(is_last or not self._accumulate)
        return nullcontext()

    def backward(self, share: Tensor) -> None:
        """Gradients are averaged over the ranks, so that each share is multiplied by their number."""
        (share * self.ranks.count).backward()  # type: ignore[no-untyped-call]

    def step(self, rate: float) -> float:
        """See `Engine.step`."""
        import torch

        from mftrun.distributed.replicated import set_rate

        found: Any = torch.nn.utils.clip_grad_norm_(self.model.parameters(), self._max_norm)
        norm = float(found.full_tensor() if hasattr(found, "full_tensor") else found)
        if math.isfinite(norm):
            set_rate(self._optimizer, rate)
            self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """See `Engine.within_forward`."""
        return called_within(self.model, function)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`. The tensors are distributed ones."""
        from mftrun.distributed.trained import training_state

        self._let_go()
        return training_state(self.bare, self._optimizer)

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        from mftrun.distributed.trained import training_state

        self._let_go()
        read(training_state(self.bare, self._optimizer if optimizer else None))

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """See `Engine.gathered`."""
        import torch

        from mftrun.distributed.trained import whole_tensors

        for name, tensor in whole_tensors(self.bare, names):
            whole: Any = tensor
            if hasattr(whole, "full_tensor"):
                whole = whole.to(self.ranks.device).full_tensor()
            yield name, whole.cpu() if self.ranks.is_main else torch.empty(0)

    def _let_go(self) -> None:
        """Leaves slices where a forward pass that no backward pass followed has left gathered weights."""
        from torch.distributed.fsdp import FSDPModule

        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
