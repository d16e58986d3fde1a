"""Time that work takes on its device, measured without making anyone wait."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Protocol

import torch


class Stopwatch:
    """Adds up the time between the beginning and the end of stretches of work.

    Args:
        device: Where the work is done, and so whose clock counts.
    """

    def __init__(self, device: torch.device | str) -> None:
        self._clock = _CLOCKS.get(torch.device(device).type, _HostClock)()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Inside, time counts. Returns at once though the device may be far behind."""
        self._clock.begin()
        try:
            yield
        finally:
            self._clock.end()

    def lap(self) -> float:
        """Seconds since the last lap, which begins anew.

        Waits for the device to reach the end of what was measured: call it where that has happened anyway.
        """
        return self._clock.lap()


class _Clock(Protocol):
    def begin(self) -> None: ...

    def end(self) -> None: ...

    def lap(self) -> float: ...


class _HostClock:
    """For devices that the host works in step with."""

    def __init__(self) -> None:
        self._total = self._since = 0.0

    def begin(self) -> None:
        self._since = time.perf_counter()

    def end(self) -> None:
        self._total += time.perf_counter() - self._since

    def lap(self) -> float:
        total, self._total = self._total, 0.0
        return total


class _CudaClock:
    """Events in the current stream, which tell the time when the device has come to them."""

    def __init__(self) -> None:
        self._total = 0.0
        self._begun = _event()
        self._pairs: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def begin(self) -> None:
        self._begun = _event()
        self._begun.record()

    def end(self) -> None:
        ended = _event()
        ended.record()
        self._pairs.append((self._begun, ended))
        self._settle()

    def lap(self) -> float:
        if self._pairs:
            self._pairs[-1][1].synchronize()
        self._settle()
        total, self._total = self._total, 0.0
        return total

    def _settle(self) -> None:
        """Takes in the stretches that the device has finished, so that few are ever kept."""
        while self._pairs and _reached(self._pairs[0][1]):
            begun, ended = self._pairs.pop(0)
            self._total += begun.elapsed_time(ended) / 1000  # from milliseconds


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _reached(event: torch.cuda.Event) -> bool:
    return bool(event.query())  # type: ignore[no-untyped-call]


_CLOCKS: Mapping[str, Callable[[], _Clock]] = MappingProxyType({"cuda": _CudaClock})
