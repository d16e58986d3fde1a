"""Threads that can be told to leave what they are doing."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from typing import TypeVar

_In = TypeVar("_In")
_Out = TypeVar("_Out")


class StoppedError(BaseException):
    """Nobody waits for this thread's work any more. No ``except Exception`` takes it for a fault."""


class Stopping:
    """Ends calls that run in other threads.

    `StoppedError` is raised inside of each, wherever it is in its Python code: a sandbox, which looks at its
    program many times a second, leaves by the way that ends the program and removes its folders.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._threads: set[int] = set()
        self._stopped = False

    def stoppable(self, call: Callable[[_In], _Out]) -> Callable[[_In], _Out]:
        """The same call; `stop` ends it."""

        def stoppable(value: _In) -> _Out:
            self._enter()
            try:
                return call(value)
            finally:
                self._leave()

        return stoppable

    def stop(self) -> None:
        """Ends all calls that run, and refuses those to come."""
        with self._lock:
            self._stopped = True
            for thread in self._threads:
                ctypes.pythonapi.PyThreadState_SetAsyncExc(
                    ctypes.c_ulong(thread), ctypes.py_object(StoppedError)
                )

    def _enter(self) -> None:
        with self._lock:
            if self._stopped:
                raise StoppedError
            self._threads.add(threading.get_ident())

    def _leave(self) -> None:
        with self._lock:
            self._threads.discard(threading.get_ident())
