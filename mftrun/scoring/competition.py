"""What the competition asks for: thirteen benchmarks, whole."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from mftrun.benchmarks.registry import SETS

_HUMANEVAL, _MBPP = 164, 500
PUBLISHED: Mapping[str, int] = MappingProxyType(
    {"humaneval": _HUMANEVAL, **dict.fromkeys(SETS["humanevalpack"], _HUMANEVAL), "mbpp": _MBPP}
)
"""How many problems each published benchmark has."""


def competition_rows() -> dict[str, int]:
    """Problems of each benchmark of the competition, by its name."""
    return {name: PUBLISHED[name] for name in SETS["competition"]}
