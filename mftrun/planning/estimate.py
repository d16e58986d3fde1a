"""The memory of one rank at its peak, part by part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mftrun.planning import activations, head, states
from mftrun.planning.model import ModelSize
from mftrun.planning.setup import Setup

GIB = 2**30
CONTEXT = 600 * 2**20
"""Bytes that a process takes on its GPU before it holds any tensor: CUDA context, kernels, NCCL."""
SLACK = 0.05
"""What the allocator holds and cannot give, as a share of what is allocated."""
_PROCESS = int(1.5 * GIB)  # of a rank in the host's memory: Python, torch, and the like


@dataclass(frozen=True)
class Estimate:
    """Memory of a run, in bytes.

    Attributes:
        device: Of one rank on its device, by part, at the moment when most is in use.
        moment: Which moment that is.
        host_training: Of one machine, while it trains.
        host_loading: Of one machine, while models are loaded.
        rough: Why activations are rough; None where they are not.
    """

    device: Mapping[str, int]
    moment: str
    host_training: int
    host_loading: int
    rough: str | None

    @property
    def allocated(self) -> int:
        """What tensors take: that of `torch.cuda.max_memory_allocated`."""
        return sum(self.device.values())

    @property
    def slack(self) -> int:
        """What the allocator takes besides."""
        return round(SLACK * self.allocated)

    @property
    def needed(self) -> int:
        """What a device must have."""
        return self.allocated + self.slack + CONTEXT


def estimate(model: ModelSize, setup: Setup) -> Estimate:
    """Estimates the memory of a run.

    Most is in use at one of a few moments. As the forward pass ends, gradients are there only if they are of
    an earlier micro-batch or in DDP's buckets. In the backward pass activations go as gradients come, both in
    proportion to its progress, so that one of its two ends has most.

    Args:
        model: The model with its adapters.
        setup: The run.
    """
    moments = {
        "the backward pass begins": _turn(model, setup),
        "the first layers' backward pass": _end(model, setup),
        "the optimizer's step": _parts(states.gradients(model, setup), 0, 0, 0),
    }
    if setup.checkpointing:
        moments["the forward pass ends"] = _forward_end(model, setup)
    name = max(moments, key=lambda moment: sum(moments[moment].values()))
    resident = {
        "weights": states.weights(model, setup),
        "gathered weights": states.gathered(model, setup),
        "optimizer": states.optimizer(model, setup),
        "exchange buffers": states.buffers(model, setup),
    }
    device = {**resident, **moments[name]}
    return Estimate(
        device={part: device[part] for part in _ORDER},
        moment=name,
        host_training=states.host(model, setup) + setup.ranks_per_host * _PROCESS,
        host_loading=states.loading(model, setup) + setup.ranks_per_host * _PROCESS,
        rough=model.architecture.rough,
    )


_ORDER = (
    "weights",
    "gathered weights",
    "gradients",
    "optimizer",
    "exchange buffers",
    "activations",
    "output head",
    "working memory",
)


def _turn(model: ModelSize, setup: Setup) -> dict[str, int]:
    """Everything is saved; the head's backward pass, or that of the last layer behind it."""
    copies = 0 if setup.checkpointing else model.architecture.layers * activations.weight_copies(model, setup)
    saved = activations.saved(model, setup) + copies
    early = _early_gradients(model, setup)
    at_head = _parts(early, saved, head.kept(model, setup) + head.peak(model, setup), 0)
    in_layer = _parts(_with_head(early, model, setup), saved, 0, _layer(model, setup))
    return max(at_head, in_layer, key=lambda parts: sum(parts.values()))


def _end(model: ModelSize, setup: Setup) -> dict[str, int]:
    """One layer, with all gradients but the embedding's; or that one, too.

    It is added to what is there: the gradient of an earlier micro-batch, or of the head if tied.
    """
    everything, early = states.gradients(model, setup), _early_gradients(model, setup)
    embedding, tied = head.embedding_gradient(model, setup), model.architecture.tied
    left = 0 if setup.checkpointing else activations.layer(model, setup)
    before = everything if tied else everything - embedding // setup.gradient_ranks
    added = 2 * embedding if tied else embedding if early else 0
    in_layer = _parts(max(early, before), left, 0, _layer(model, setup))
    at_embedding = _parts(everything, 0, 0, added)
    return max(in_layer, at_embedding, key=lambda parts: sum(parts.values()))


def _forward_end(model: ModelSize, setup: Setup) -> dict[str, int]:
    """Autocast keeps its copies of weights to the end of the forward pass, needed or not."""
    copies = model.architecture.layers * activations.weight_copies(model, setup)
    at_head = head.kept(model, setup) + head.forward_peak(model, setup)
    saved = activations.saved(model, setup)
    return _parts(_early_gradients(model, setup), saved + copies, at_head, 0)


def _early_gradients(model: ModelSize, setup: Setup) -> int:
    if setup.micro_batches > 1 or setup.layout.keeps_gradients:
        return states.gradients(model, setup)
    return 0


def _with_head(gradients: int, model: ModelSize, setup: Setup) -> int:
    """The head's gradient is the first to be there."""
    own = model.architecture.vocab * model.architecture.hidden * setup.numerics.weight
    return max(gradients, own // setup.gradient_ranks if model.trains_head else 0)


def _layer(model: ModelSize, setup: Setup) -> int:
    """What the backward pass of a layer takes; with checkpointing it begins with the forward pass."""
    again = 0
    if setup.checkpointing:
        again = activations.layer(model, setup) + activations.weight_copies(model, setup)
    return again + activations.backward(model, setup)


def _parts(gradients: int, saved: int, at_head: int, working: int) -> dict[str, int]:
    return {
        "gradients": gradients,
        "activations": saved,
        "output head": at_head,
        "working memory": working,
    }
