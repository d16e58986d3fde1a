"""Which single options would make a run fit, found by estimating the run with each of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mftrun.planning.estimate import Estimate, estimate
from mftrun.planning.model import ModelSize
from mftrun.planning.setup import LAYOUTS, Setup

_SHARDED = ("fsdp", "zero2", "zero3")
_OFFLOADED = ("zero2_offload", "zero3_offload")
_MOST_RANKS = 64


@dataclass(frozen=True)
class Option:
    """A run with one thing changed.

    Attributes:
        change: What to write on the command line.
        price: What it costs, in words.
        model: The model then.
        setup: The run then.
    """

    change: str
    price: str
    model: ModelSize
    setup: Setup

    @property
    def estimate(self) -> Estimate:
        """Its memory."""
        return estimate(self.model, self.setup)


def advice(
    model: ModelSize, setup: Setup, adapters: Sequence[Option], device: int, host: int | None
) -> list[Option]:
    """The options that fit, best first: what keeps the result before what does not, then the cheaper one.

    Where no single one does, the first ones together.

    Args:
        model: The model with its adapters.
        setup: The run.
        adapters: The run with other adapters, in order.
        device: Bytes of one device.
        host: Bytes of one machine's memory; None where nobody knows.
    """
    fits = partial(_fits, device=device, host=host)
    batches = [option for option in _smaller_batches(model, setup) if fits(option)][:1]
    others = (*_same_result(model, setup), *adapters)
    single = [*batches, *filter(fits, others), *_more_ranks(model, setup, device)]
    return single or list(filter(fits, _together(model, setup, adapters)))[:3]


def _same_result(model: ModelSize, setup: Setup) -> Iterator[Option]:
    if not setup.checkpointing:
        again = replace(setup, checkpointing=True)
        yield Option("train.gradient_checkpointing=true", "about a third more time", model, again)
    yield from _shared_out(model, setup)
    yield from _offloaded(model, setup)


def _smaller_batches(model: ModelSize, setup: Setup) -> Iterator[Option]:
    """Halved until 1."""
    size = min(setup.micro_batch, -(-setup.global_batch // setup.ranks)) // 2
    while size >= 1:
        smaller = replace(setup, micro_batch=size)
        yield Option(f"train.micro_batch_size={size}", "some speed", model, smaller)
        size //= 2


def _shared_out(model: ModelSize, setup: Setup) -> Iterator[Option]:
    names = _SHARDED if setup.ranks > 1 else ()
    for name in names:
        if LAYOUTS[name] != setup.layout and _possible(name, setup):
            other = replace(setup, layout=LAYOUTS[name])
            yield Option(f"distributed={name}", "more messages between ranks", model, other)


def _offloaded(model: ModelSize, setup: Setup) -> Iterator[Option]:
    for name in _OFFLOADED:
        if LAYOUTS[name] != setup.layout:
            other = replace(setup, layout=LAYOUTS[name])
            yield Option(f"distributed={name}", "much time: weights or steps on the host", model, other)


def _more_ranks(model: ModelSize, setup: Setup, device: int) -> Iterator[Option]:
    """Doubled until it fits; a strategy that divides nothing is exchanged for FSDP."""
    divides = setup.layout.weights or setup.layout.gradients or setup.layout.optimizer
    name = "zero3" if not _possible("fsdp", setup) else "fsdp"
    layout = setup.layout if divides else LAYOUTS[name]
    strategy = "" if divides else f"distributed={name} "
    ranks = 2 * setup.ranks
    while ranks <= _MOST_RANKS:
        more = replace(setup, layout=layout, ranks=ranks)
        if estimate(model, more).needed <= device:
            yield Option(f"{strategy}on {ranks} GPUs", "GPUs", model, more)
            return
        ranks *= 2


def _together(model: ModelSize, setup: Setup, adapters: Sequence[Option]) -> Iterator[Option]:
    """Everything that only costs time, then with each way to divide or move the rest, or to train less."""
    lean = replace(setup, checkpointing=True, micro_batch=1)
    change = "train.gradient_checkpointing=true train.micro_batch_size=1"
    yield Option(change, "about a third more time", model, lean)
    for option in (*_shared_out(model, lean), *_offloaded(model, lean)):
        yield replace(option, change=f"{change} {option.change}")
    for option in adapters:
        small = replace(option.setup, checkpointing=True, micro_batch=1)
        yield replace(option, change=f"{change} {option.change}", setup=small)


def _fits(option: Option, device: int, host: int | None) -> bool:
    found = option.estimate
    return found.needed <= device and (host is None or found.host_training <= host)


def _possible(name: str, setup: Setup) -> bool:
    """FSDP cannot divide 8-bit weights: bitsandbytes keeps them as int8, which has no gradient to go with."""
    return name != "fsdp" or setup.quantized is None or setup.quantized < 1
