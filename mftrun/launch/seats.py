"""Where each rank sits: its number in the run and on its machine, and where all of them meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Seat:
    """One rank's numbers.

    Attributes:
        rank: Over all machines, from 0.
        local_rank: On its machine, from 0.
        local_world_size: How many ranks its machine has.
    """

    rank: int
    local_rank: int
    local_world_size: int


@dataclass(frozen=True)
class World:
    """All ranks together.

    Attributes:
        size: How many there are.
        address: Where rank 0 gathers the others.
        port: Port there.
    """

    size: int
    address: str
    port: int


def numbered(counts: Sequence[int]) -> list[list[Seat]]:
    """The seats of each machine, numbered through, where machine ``i`` has ``counts[i]`` ranks."""
    firsts = [sum(counts[:index]) for index in range(len(counts))]
    return [
        [Seat(first + local, local, count) for local in range(count)]
        for first, count in zip(firsts, counts, strict=True)
    ]
