"""The stopwatch adds up stretches of work, on the clock of the device that does it."""

from __future__ import annotations

import pytest
import torch

from mftrun.training.stopwatch import Stopwatch


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Gives these times, one after the other."""
    times: list[float] = []
    monkeypatch.setattr("time.perf_counter", lambda: times.pop(0))
    return times


def test_stretches_add_up_until_the_lap(clock: list[float]) -> None:
    clock += [1.0, 3.0, 10.0, 10.5, 20.0, 21.0]
    watch = Stopwatch("cpu")
    assert watch.lap() == 0
    for _ in range(2):
        with watch.running():
            pass
    assert watch.lap() == 2.5
    assert watch.lap() == 0
    with watch.running():
        pass
    assert watch.lap() == 1


def test_work_that_fails_counts(clock: list[float]) -> None:
    clock += [1.0, 3.0]
    watch = Stopwatch("cpu")
    with pytest.raises(ZeroDivisionError), watch.running():
        raise ZeroDivisionError
    assert watch.lap() == 2


class FakeEvent:
    """An event in a stream that has come as far as `reached`."""

    made = 0
    reached = 0
    waited = 0

    def __init__(self, enable_timing: bool) -> None:
        assert enable_timing

    def record(self) -> None:
        FakeEvent.made += 1
        self.place = FakeEvent.made

    def query(self) -> bool:
        return self.place <= FakeEvent.reached

    def synchronize(self) -> None:
        FakeEvent.waited += self.place > FakeEvent.reached
        FakeEvent.reached = max(FakeEvent.reached, self.place)

    def elapsed_time(self, end: FakeEvent) -> float:
        assert end.query(), "the device must have come to it"
        return 1000.0 * (end.place - self.place)


@pytest.fixture
def fake_device(monkeypatch: pytest.MonkeyPatch) -> type[FakeEvent]:
    monkeypatch.setattr(torch.cuda, "Event", FakeEvent)
    for name in ("made", "reached", "waited"):
        monkeypatch.setattr(FakeEvent, name, 0)
    return FakeEvent


def test_a_device_is_not_waited_for_while_it_works(fake_device: type[FakeEvent]) -> None:
    watch = Stopwatch("cuda")
    for _ in range(3):
        with watch.running():
            pass
    assert fake_device.waited == 0
    fake_device.reached = 6
    assert watch.lap() == 3
    assert fake_device.waited == 0
    assert watch.lap() == 0


def test_a_lap_waits_for_what_it_measures(fake_device: type[FakeEvent]) -> None:
    watch = Stopwatch("cuda")
    with watch.running():
        pass
    assert watch.lap() == 1
    assert fake_device.waited == 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_real_device() -> None:
    watch = Stopwatch("cuda")
    with watch.running():
        torch.ones(1000, 1000, device="cuda").square_()
    torch.cuda.synchronize()
    assert watch.lap() > 0
    assert watch.lap() == 0
