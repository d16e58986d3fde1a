"""Tensor parallel: the ranks divide each layer's matrices and compute the same batch together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from mftrun.distributed.base import Sharding
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


class TogetherRanks(Ranks):
    """Ranks that all work on the whole global batch; see `Ranks`.

    What they have is the same but for signals, which reach them at different moments: a sum counts each of
    them as its share of one.
    """

    def __init__(self, ranks: Ranks) -> None:
        super().__init__(ranks.accelerator)
        self._together = self.count
        self.index, self.count = 0, 1

    def sum(self, tensor: Tensor) -> Tensor:
        """See `Ranks.sum`."""
        return super().sum(tensor) / self._together

    def any(self, own: bool) -> bool:
        """See `Ranks.any`."""
        import torch

        return bool(self.sum(torch.tensor(float(own), device=self.device)))

    def gather(self, value: Any) -> list[Any]:
        """What the first rank has, in the place of all."""
        return super().gather(value)[:1]


@dataclass(frozen=True)
class TensorParallel(Machines):
    """Tensor parallel on one machine, by the plan that transformers has for the family (arXiv 1909.08053).

    For full fine-tuning. It divides the model, not the data.

    Raises:
        ConfigError: Several machines.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_nodes > 1:
            raise ConfigError(
                "distributed.num_nodes", "tp joins the GPUs of one machine; use distributed=fsdp for several"
            )

    @property
    def sharding(self) -> Sharding:
        """The matrices are divided, and what belongs to them."""
        return Sharding(weights=True, gradients=True, optimizer=True)

    @property
    def divides_data(self) -> bool:
        """False: every rank takes the whole global batch."""
        return False

    @property
    def needs_files(self) -> bool:
        """True: weights are divided while they are read."""
        return True

    def join(self, precision: str) -> Ranks:
        """See `Strategy.join`."""
        return TogetherRanks(join(precision))

    def load(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, ranks: Ranks
    ) -> PreTrainedModel:
        """See `Strategy.load`: each rank reads its part.

        Raises:
            ConfigError: The family has no plan, or its heads cannot be dealt to so many ranks.
        """
        from torch import distributed
        from torch.distributed.device_mesh import init_device_mesh

        if not distributed.is_initialized():
            return source.load(tokenizer, dtype)
        mesh = init_device_mesh(ranks.device.type, (distributed.get_world_size(),))
        return source.load(tokenizer, dtype, mesh=mesh)

    def engine(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        max_grad_norm: float | None,
    ) -> TensorParallelEngine:
        """See `Strategy.engine`."""
        return TensorParallelEngine(ranks, model, optimizer, precision, max_grad_norm)

    def adapter_dtype(self, precision: str) -> None:
        """There are no adapters."""

    def quant_storage(self, precision: str) -> torch.dtype:
        """There are no quantised weights."""
        import torch

        return torch.uint8


class TensorParallelEngine:
    """Trains a model whose matrices are divided; see `Engine`.

    Args:
        ranks: Those that train it.
        model: The model-with-nll, its parts already on their ranks.
        optimizer: Makes its optimizer.
        precision: ``fp32`` or ``bf16``.
        max_grad_norm: Upper bound of the gradient's norm; None does not clip.
    """

    def __init__(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        precision: str,
        max_grad_norm: float | None,
    ) -> None:
        self.ranks = ranks
        self.bare = model.to(ranks.device)
        self.model: nn.Module = self.bare
        self._optimizer = optimizer.build(model)
        _separate(self._optimizer)
        self._max_norm = math.inf if max_grad_norm is None else max_grad_norm
        self._precision = precision

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """See `Engine.micro_step`."""
        if self._precision == "fp32":
            return nullcontext()
        import torch

        return torch.autocast(self.ranks.device.type, torch.bfloat16)

    def backward(self, share: Tensor) -> None:
        """See `Engine.backward`."""
        share.backward()  # type: ignore[no-untyped-call]

    def step(self, rate: float) -> float:
        """See `Engine.step`."""
        from mftrun.distributed.replicated import set_rate

        norm = _clip(self._optimizer, self._max_norm)
        if math.isfinite(norm):
            set_rate(self._optimizer, rate)
            self._optimizer.step()
        self._optimizer.zero_grad()
        return norm

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """The layers put their parts together wherever they are called."""
        import torch

        with torch.no_grad():
            return function(self.bare)

    def state(self) -> dict[str, Any]:
        """See `Engine.state`."""
        from mftrun.distributed.trained import training_state

        return training_state(self.bare, self._optimizer)

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """See `Engine.load`."""
        from mftrun.distributed.trained import training_state

        read(training_state(self.bare, self._optimizer if optimizer else None))

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """See `Engine.gathered`."""
        import torch

        from mftrun.distributed.trained import whole_tensors

        for name, tensor in whole_tensors(self.bare, names):
            whole: Any = tensor
            whole = whole.full_tensor() if hasattr(whole, "full_tensor") else whole
            yield name, whole.cpu() if self.ranks.is_main else torch.empty(0)


def _separate(optimizer: torch.optim.Optimizer) -> None:
    """Torch's kernels for many parameters at once take divided ones or whole ones, not both."""
    from torch.distributed.tensor import DTensor

    groups = optimizer.param_groups
    for group in list(groups):
        whole = [p for p in group["params"] if not isinstance(p, DTensor)]
        divided = [p for p in group["params"] if isinstance(p, DTensor)]
        if whole and divided:
            group["params"] = divided
            groups.append({**group, "params": whole})


def _clip(optimizer: torch.optim.Optimizer, max_norm: float) -> float:
    """Scales all gradients down to a norm of `max_norm`, and returns the norm they had."""
    import torch
    from torch.nn.utils import clip_grads_with_norm_, get_total_norm

    groups = [[p for p in g["params"] if p.grad is not None] for g in optimizer.param_groups]
    groups = [group for group in groups if group]
    norms: list[Any] = [get_total_norm([p.grad for p in group]) for group in groups]
    whole = [norm.full_tensor() if hasattr(norm, "full_tensor") else norm for norm in norms]
    total = torch.linalg.vector_norm(torch.stack(whole))
    for group in groups:
        clip_grads_with_norm_(group, max_norm, total)
    return float(total)
