"""The parent's side of stopping: signals become something one can wait for together with the ranks."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import NoReturn

from mftrun.launch.errors import NodeLost, RankFailed, Stopped

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
SAVE_SIGNAL = signal.SIGUSR2
SCHEDULED = "MFTRUN_SCHEDULED"
"""Set to 1 where a scheduler sends the signals: see `ScheduledSignals`."""

_LEAVE_SIGNALS = (SAVE_SIGNAL, signal.SIGTERM)

ECHO = 2.0
"""Seconds in which a repeated signal other than Ctrl-C is the same request: `timeout` and schedulers send
theirs both to a process and to its group."""


class StopCount:
    """Tells the first request to stop from the second, which means at once.

    Args:
        clock: Seconds, increasing.
        interrupts_repeat: Whether a Ctrl-C, too, may be repeated by others than the user.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, *, interrupts_repeat: bool = False
    ) -> None:
        self.first: int | None = None
        self.at_once = False
        self._clock = clock
        self._interrupts_repeat = interrupts_repeat
        self._first_at = 0.0

    def add(self, signum: int) -> None:
        """Count one received stop signal."""
        if self.first is None:
            self.first, self._first_at = signum, self._clock()
        elif self._counts_twice(signum) or self._clock() - self._first_at > ECHO:
            self.at_once = True

    def _counts_twice(self, signum: int) -> bool:
        return signum == signal.SIGINT and not self._interrupts_repeat


class ParentSignals:
    """While entered, signals arrive as bytes in a pipe.

    The pipe is Python's wake-up descriptor: written by the low-level handler in whichever thread the
    signal strikes, so that a main thread waiting in `connection.wait` always returns. Outside the main
    thread, where Python cannot handle signals, nothing is installed and nothing ever arrives. Signals
    that the parent was told to ignore (`nohup`, a shell's background job) stay ignored.
    """

    def __init__(self) -> None:
        self.waitable: list[int] = []
        self._raising = False
        self._stack = ExitStack()

    def __enter__(self) -> ParentSignals:
        if threading.current_thread() is threading.main_thread():
            with ExitStack() as stack:
                self.waitable = [_wakeup_pipe(stack)]
                stack.callback(self._pass_on)
                for signum in (*STOP_SIGNALS, SAVE_SIGNAL):
                    self._handle(signum, stack)
                self._stack = stack.pop_all()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stack.close()
        self.waitable = []

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Inside, a stop signal raises `Stopped` on the spot: nothing runs yet that could be saved."""
        self._raising = True
        try:
            yield
        finally:
            self._raising = False

    def take(self) -> list[int]:
        """Return the numbers of the signals that arrived since the last call."""
        received = [number for pipe in self.waitable for number in _drain(pipe)]
        return [number for number in received if number in (*STOP_SIGNALS, SAVE_SIGNAL)]

    def _handle(self, signum: signal.Signals, stack: ExitStack) -> None:
        previous = signal.getsignal(signum)
        if previous is not signal.SIG_IGN and previous is not None:
            signal.signal(signum, self._on_signal)
            stack.callback(signal.signal, signum, previous)

    def _pass_on(self) -> None:
        """Give signals that nobody took to the handlers that stand again."""
        for signum in self.take():
            signal.raise_signal(signum)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if self._raising and (stops := [one for one in self.take() if one in STOP_SIGNALS]):
            raise Stopped(stops[0])


class ScheduledSignals(ParentSignals):
    """Signals of a scheduler, which ends a job itself when its time is over.

    SIGUSR2 says that this will be soon: it is a request to save and leave, too. None is a reason to hurry:
    SIGTERM follows on SIGUSR2 while the ranks still save, and only the first counts.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told = False

    def __enter__(self) -> ParentSignals:
        if signal.getsignal(SAVE_SIGNAL) is signal.SIG_IGN:
            raise Stopped(signal.SIGTERM)  # it came before, where exceptions were lost
        return super().__enter__()

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        if self._told:
            no_more_signals()

    def take(self) -> list[int]:
        """Return SIGTERM, once, however many signals arrive."""
        if self._told or not super().take():
            return []
        self._told = True
        return [signal.SIGTERM]


def parent_signals(environment: Mapping[str, str]) -> ParentSignals:
    """Where this process's signals arrive, by who sends them."""
    return ScheduledSignals() if environment.get(SCHEDULED) == "1" else ParentSignals()


def leave_when_told(environment: Mapping[str, str]) -> None:
    """Makes a scheduler's signals end this process, with exit code 143, until there are ranks that save.

    Args:
        environment: Says whether a scheduler sends them.
    """
    if environment.get(SCHEDULED) == "1":
        for signum in _LEAVE_SIGNALS:
            signal.signal(signum, _leave)


def no_more_signals() -> None:
    """Makes this process deaf to a scheduler: nothing may interrupt what is left to do."""
    for signum in _LEAVE_SIGNALS:
        signal.signal(signum, signal.SIG_IGN)


def gone(rank: int, loss: str, environment: Mapping[str, str]) -> NodeLost | RankFailed:
    """What it comes to that an agent is gone: a failure, or with a scheduler a reason to begin again.

    Args:
        rank: One of its ranks.
        loss: Who is gone, and what that may mean.
        environment: Says whether there is a scheduler.
    """
    return NodeLost(loss) if environment.get(SCHEDULED) == "1" else RankFailed(rank, loss)


def _leave(signum: int, frame: FrameType | None) -> NoReturn:
    # What is ignored from now on tells `ScheduledSignals`, should a library catch this.
    no_more_signals()
    raise SystemExit(Stopped(signal.SIGTERM).exit_code)


def _wakeup_pipe(stack: ExitStack) -> int:
    reader, writer = os.pipe()
    stack.callback(os.close, reader)
    stack.callback(os.close, writer)
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    previous = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    stack.callback(signal.set_wakeup_fd, previous)
    return reader


def _drain(pipe: int) -> bytes:
    try:
        return os.read(pipe, 65536)
    except BlockingIOError:
        return b""
