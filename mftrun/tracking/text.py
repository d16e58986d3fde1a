"""Numbers and names as people read them in a terminal."""

from __future__ import annotations

from collections.abc import Sequence


def loss(value: float | None) -> str:
    """A loss with four decimals; `-` when there is none."""
    if value is None:
        return "-"
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.2e}"


def share(value: float) -> str:
    """A share as a percentage with one decimal."""
    return f"{value:.1%}"


def short_count(value: float) -> str:
    """A count in three or four digits: 950, 12.3k, 4.56M."""
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size * 0.9995:
            return f"{value / size:.3g}{unit}"
    return f"{value:.0f}"


def count(value: int) -> str:
    """A count with thousands separators, short from ten million on."""
    return f"{value:,}" if value < 10_000_000 else short_count(value)


def step(value: int | None) -> str:
    """A step number; nothing when there is none."""
    return "" if value is None else str(value)


def duration(seconds: float | None) -> str:
    """A duration: 42s, 3m05s, 2h07m, 3d04h; `-` when unknown."""
    if seconds is None:
        return "-"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02d}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02d}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02d}h"


def short_name(name: str, width: int) -> str:
    """`name` in at most `width` characters: the middle gives way, because both ends tell tasks apart."""
    if len(name) <= width:
        return name
    head = (width - 2 + 1) // 2
    return f"{name[:head]}..{name[len(name) - (width - 2 - head) :]}"


def short_names(names: Sequence[str], width: int) -> dict[str, str]:
    """Short forms of several names, no two alike: those that would be get a number."""
    short: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        form, number = short_name(name, width), 1
        while form in taken:
            number += 1
            form = short_name(name, width - len(f"~{number}")) + f"~{number}"
        taken.add(form)
        short[name] = form
    return short
