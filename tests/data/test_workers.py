from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mftrun.data.workers import Workers, worker_count
from mftrun.errors import ConfigError, DataError, MftrunError


class Square:
    """Work that remembers how many pieces this copy of it has done."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self, number: int) -> tuple[int, int, int]:
        self.done += 1
        return number * number, os.getpid(), self.done


def _refuses(number: int) -> int:
    if number == 3:
        raise DataError("file", 3, "no good")
    return number


def _breaks(number: int) -> int:
    raise ValueError(f"broken at {number}")


def _ends_itself(number: int) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return number


class CannotBeRead:
    """Work that fails as it arrives."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return int, ("no number",)

    def __call__(self, number: int) -> int:
        return number


def _run(work: object, count: int, processes: int) -> list[object]:
    with Workers(processes, spare=0) as workers, workers.results(work, range(count)) as found:  # type: ignore[arg-type]
        return list(found)


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_results_come_in_order(processes: int) -> None:
    results = _run(Square(), 40, processes)

    assert [square for square, _, _ in results] == [number * number for number in range(40)]  # type: ignore[misc]
    assert (os.getpid() in {pid for _, pid, _ in results}) == (processes == 1)  # type: ignore[misc]


def test_few_pieces_are_done_here_and_more_are_not() -> None:
    with Workers(2, spare=10) as workers:
        used = []
        for count in (2, 2, 2, 1):
            with workers.results(Square(), range(count), cost=2) as found:
                used.append({pid == os.getpid() for _, pid, _ in found})

    assert used == [{True}, {True}, {False}, {False}]


def test_equal_work_goes_on_with_what_it_has_learnt() -> None:
    with Workers(2, spare=0) as workers:
        for expected in (1, 2):
            with workers.results(Square(), range(1)) as found:
                assert [done for _, _, done in found] == [expected]


def test_only_a_few_pieces_are_read_ahead() -> None:
    read = []

    def numbers() -> object:
        for number in range(100):
            read.append(number)
            yield number

    with Workers(2, spare=0) as workers, workers.results(Square(), numbers()) as found:  # type: ignore[arg-type]
        for given, _ in enumerate(found):
            assert len(read) <= given + 6


@pytest.mark.parametrize("processes", [1, 2])
def test_errors_keep_their_type(processes: int) -> None:
    with pytest.raises(DataError, match="file:3: no good"):
        _run(_refuses, 10, processes)
    with pytest.raises(ValueError, match="broken at 0"):
        _run(_breaks, 3, processes)


def test_an_error_says_where_in_the_worker_it_was() -> None:
    with pytest.raises(ValueError) as caught:
        _run(_breaks, 3, 2)

    assert "in _breaks" in "".join(caught.value.__notes__)


def test_work_that_cannot_be_set_up() -> None:
    with pytest.raises(ValueError, match="no number"):
        _run(CannotBeRead(), 3, 2)


def test_a_killed_worker_suggests_fewer() -> None:
    with pytest.raises(MftrunError, match=r"killed.*data\.num_workers=1"):
        _run(_ends_itself, 8, 2)


def test_after_an_error_the_workers_can_be_used_again() -> None:
    with Workers(2, spare=0) as workers:
        with pytest.raises(DataError), workers.results(_refuses, range(10)) as found:
            list(found)
        with workers.results(Square(), range(5)) as squares:
            assert [square for square, _, _ in squares] == [0, 1, 4, 9, 16]


def test_workers_are_gone_after_the_block() -> None:
    with Workers(2, spare=0) as workers, workers.results(Square(), range(20)) as found:
        pids = {next(found)[1]}

    assert not any(_is_alive(pid) for pid in pids)


_PARENT = """
import os, sys
sys.path.insert(0, {tests!r})
from mftrun.data.workers import Workers
from test_workers import Square
with Workers(2, spare=0) as workers, workers.results(Square(), iter(int, 1)) as found:
    pids = {{next(found)[1] for _ in range(8)}}
    print(*pids, flush=True)
    {then}
    for _ in found: pass
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_workers_end_with_their_parent(number: signal.Signals) -> None:
    tests = str(Path(__file__).parent)
    code = _PARENT.format(tests=tests, then=f"os.killpg(0, {number})" if number == signal.SIGINT else "")
    parent = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert parent.stdout is not None
    assert parent.stderr is not None
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    if number != signal.SIGINT:
        parent.send_signal(number)
    errors = parent.stderr.read()  # ends when nobody holds it any more: the workers had it too

    assert pids
    assert parent.wait(60) == -number
    assert errors.count("Traceback") == (number == signal.SIGINT)  # the parent's own, and none of a worker
    assert not any(_is_alive(pid) for pid in pids)


def _is_alive(pid: int) -> bool:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            return False
        if state == "Z":
            return False
    return True


def test_workers_import_nothing_heavy() -> None:
    with Workers(2, spare=0) as workers, workers.results(_imported, range(1)) as found:
        assert list(found) == [[]]


def _imported(number: int) -> list[str]:
    return [name for name in ("torch", "transformers", "hydra", "datasets") if name in sys.modules]


def test_how_many() -> None:
    assert worker_count(3) == 3
    assert worker_count(None) == len(os.sched_getaffinity(0))
    with pytest.raises(ConfigError, match=r"data\.num_workers"):
        worker_count(0)
