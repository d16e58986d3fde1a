"""`distributed=auto`: a strategy for the devices at hand, and why."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from mftrun.planning.estimate import GIB, Estimate, estimate
from mftrun.planning.model import ModelSize
from mftrun.planning.setup import LAYOUTS, Setup

Needs = Callable[[str], Estimate]


@dataclass(frozen=True)
class Choice:
    """A strategy.

    Attributes:
        strategy: Its name among the options of `distributed`.
        reason: For the log.
    """

    strategy: str
    reason: str


def needs_of(model: ModelSize, setup: Setup) -> Needs:
    """What each strategy would take of a run, by its name.

    Args:
        model: The model with its adapters.
        setup: The run, with its ranks; their layout does not matter.
    """
    return lambda name: estimate(model, replace(setup, layout=LAYOUTS[name]))


def choose(devices: int, memory: int, needs: Needs, *, divisible: bool = True) -> Choice:
    """Chooses a strategy: the simplest that fits, as each next one costs more messages or time.

    One device takes `single`. Several take `ddp` while a whole copy fits on each; then `fsdp`, which divides
    everything, 4-bit weights included, and keeps what is trained in 32 bit; `zero3` for weights that FSDP
    cannot divide. What fits nowhere moves to the host's memory: with `zero2_offload` the optimizer's state,
    with `zero3_offload` the weights, too.

    Args:
        devices: GPUs of all machines; 0 for none.
        memory: Bytes of the smallest of them.
        needs: What each strategy would take.
        divisible: Whether FSDP can divide the weights; it cannot where they are quantised to 8 bits.
    """
    if devices == 0:
        return Choice("ddp", "no GPU is visible, and every process holds the whole model")
    whole, sharded = "single" if devices == 1 else "ddp", "fsdp" if divisible else "zero3"
    names = [whole] if devices == 1 else [whole, sharded]
    tried: list[str] = []
    for name in (*names, "zero2_offload", "zero3_offload"):
        found = needs(name)
        if found.needed <= memory:
            return Choice(name, _reason(name, devices, found, memory, tried, divisible))
        tried.append(f"{name} {_gib(found.needed)}")
    last = whole if devices == 1 else sharded
    return Choice(
        last,
        f"nothing seems to fit into {_gib(memory)} ({', '.join(tried)}): tried all the same; "
        "python -m mftrun job=plan says what would",
    )


def _reason(name: str, devices: int, found: Estimate, memory: int, tried: list[str], divisible: bool) -> str:
    count = "one GPU" if devices == 1 else f"each of {devices} GPUs"
    text = f"{name} needs about {_gib(found.needed)} of the {_gib(memory)} of {count}"
    if tried:
        text += f"; too much: {', '.join(tried)}"
    return text if divisible else f"{text}; fsdp cannot divide 8-bit weights"


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
