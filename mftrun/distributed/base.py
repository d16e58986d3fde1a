"""What a run asks of a strategy: ranks that have joined, and an engine that trains one model on them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, runtime_checkable

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

    from mftrun.distributed.ranks import Ranks
    from mftrun.models.base import ModelSource
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.training.optimizers import OptimizerFactory

Result = TypeVar("Result")


@dataclass(frozen=True)
class Sharding:
    """What of a model's training each rank holds only its part of, and what lies in the host's memory.

    Attributes:
        weights: Each rank holds a part of the weights; a layer is gathered when it computes.
        gradients: Each rank holds a part of the gradients.
        optimizer: Each rank holds a part of the optimizer's state.
        cpu_optimizer: The optimizer's state lies in the host's memory, and the step is made there.
        cpu_weights: The weights lie in the host's memory until their layer computes.
    """

    weights: bool = False
    gradients: bool = False
    optimizer: bool = False
    cpu_optimizer: bool = False
    cpu_weights: bool = False


class Engine(Protocol):
    """A model and its optimizer, as prepared by a strategy.

    Attributes:
        ranks: Those that train it.
        model: The prepared model-with-nll: what is called.
        bare: The model-with-nll inside of it.
    """

    ranks: Ranks
    model: nn.Module
    bare: ModelWithNll

    def micro_step(self, *, is_last: bool) -> AbstractContextManager[Any]:
        """Surrounds the forward and the backward pass of one micro-batch.

        Args:
            is_last: Whether it is the last of the step.
        """

    def backward(self, share: Tensor) -> None:
        """Adds the gradient of this rank's share of the loss; in the end those of all ranks are added up.

        Args:
            share: A scalar.
        """

    def step(self, rate: float) -> float:
        """Clips, steps and forgets the gradients; the host waits for the device once.

        Args:
            rate: Learning rate of this step.

        Returns:
            The norm of the whole gradient before clipping. Where it is not finite, nothing was changed.
        """

    def within_forward(self, function: Callable[[ModelWithNll], Result]) -> Result:
        """Calls a function where the weights can be computed with, and without gradients.

        Every rank must call it, with a function that runs the same layers.

        Args:
            function: Takes the bare model.
        """

    def state(self) -> dict[str, Any]:
        """The trained weights, saved buffers and the optimizer's state, for torch's distributed checkpoint.

        Under ``model.NAME`` and ``optimizer.NAME.KEY`` lies what this rank holds of a tensor, with the whole
        tensor's shape and the same names under every strategy: a checkpoint fits any strategy and number of
        ranks. Views of the live tensors. A collective call.
        """

    def load(self, read: Callable[[dict[str, Any]], None], *, optimizer: bool = True) -> None:
        """Puts saved tensors in place of those that are there. A collective call.

        Args:
            read: Writes into tensors as `state` gives them.
            optimizer: Whether the optimizer's state is among them.
        """

    def gathered(self, names: Callable[[str], bool]) -> Iterator[tuple[str, Tensor]]:
        """Whole parameters and saved buffers one by one, as the model computes with them.

        A collective call: every rank must iterate to the end. No rank holds more than one whole tensor at a
        time but for what the caller keeps.

        Args:
            names: Chooses by name; the same on every rank.

        Yields:
            Names as in `bare.state_dict()`, and tensors: on the host on the main rank, empty elsewhere.
        """


def called_within(model: nn.Module, function: Callable[[ModelWithNll], Result]) -> Result:
    """Calls a function inside a model's forward pass, without gradients; see `Engine.within_forward`."""
    import torch

    results: list[Result] = []

    def instead(bare: ModelWithNll) -> Tensor:
        results.append(function(bare))
        return torch.zeros(())  # what wraps the model looks for tensors in what it returns

    with torch.no_grad():
        model(None, None, None, None, instead=instead)
    return results[0]


@runtime_checkable
class Strategy(Protocol):
    """How the ranks of a run share one model."""

    @property
    def name(self) -> str:
        """What it is called in `distributed=`."""

    @property
    def sharding(self) -> Sharding:
        """What the ranks divide among them."""

    @property
    def divides_data(self) -> bool:
        """Whether each rank takes a part of the global batch."""

    @property
    def needs_files(self) -> bool:
        """Whether a model must be read from files, even one that is drawn at random."""

    def processes(self) -> int:
        """Number of ranks to start on this machine."""

    def join(self, precision: str) -> Ranks:
        """Makes this process one of the ranks.

        Args:
            precision: ``fp32`` or ``bf16``.
        """

    def load(
        self, source: ModelSource, tokenizer: PreTrainedTokenizerFast, dtype: torch.dtype, ranks: Ranks
    ) -> PreTrainedModel:
        """Loads a model from files so that no rank holds more of it than it must; see `ModelSource.load`."""

    def engine(
        self,
        ranks: Ranks,
        model: ModelWithNll,
        optimizer: OptimizerFactory,
        *,
        precision: str,
        max_grad_norm: float | None,
    ) -> Engine:
        """Prepares a model.

        Args:
            ranks: As `join` gave them.
            model: On the host or on the device.
            optimizer: Makes the optimizer of whatever parameters this rank is to step.
            precision: ``fp32`` or ``bf16``.
            max_grad_norm: Upper bound of the gradient's norm; None does not clip.
        """

    def adapter_dtype(self, precision: str) -> torch.dtype | None:
        """The dtype that adapter weights must have to be shared out; None leaves it to the adapter."""

    def quant_storage(self, precision: str) -> torch.dtype:
        """The dtype that packed 4-bit weights must be stored in to be shared out."""
