"""Worker processes for work on many pieces: results in order, few pieces in flight, nothing left behind.

A worker is a fresh interpreter that imports only what its work needs (no torch, not the main program). It
ends when this process ends, however that happens: it reads from a socket whose other end only we hold.
This module is the first thing a worker imports; it stays light so that workers are up soon.
"""

from __future__ import annotations

import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing, contextmanager
from itertools import chain, islice
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from queue import SimpleQueue
from typing import Any, TypeVar

from mftrun.errors import ConfigError, MftrunError

Item = TypeVar("Item")
Result = TypeVar("Result")

KEY = "data.num_workers"

_WORK, _PIECE = "work", "piece"
_AHEAD = 2  # pieces given to a worker: one that it works on and one that waits, so that it never does
_BOOT = "import sys; sys.path[:] = {path!r}; from mftrun.data.workers import serve; serve({handle})"
# Workers share the cores by being many, so none of them shall start threads of its own.
_ENVIRONMENT = {"TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1", "RAYON_NUM_THREADS": "1"}

# Pieces of data make many objects and hardly a cycle: looking for cycles rarely saves a tenth of the time.
_RARELY = (200_000, 20, 100)


def worker_count(wanted: int | None) -> int:
    """How many workers there shall be: as many as asked for, or one for each core this process may use.

    Raises:
        ConfigError: Fewer than one is asked for.
    """
    if wanted is None:
        return len(os.sched_getaffinity(0))
    if wanted < 1:
        raise ConfigError(
            KEY, f"must be at least 1 (this process alone), or null for all cores, not {wanted}"
        )
    return wanted


class Workers:
    """Processes for the work of several sources: they are started as they are needed, and kept for more.

    Use it as a context manager: at the end of the block, also by an exception, the processes are gone.

    Args:
        most: At most so many processes. With 1 there are none, and this process does all work.
        spare: Work of this cost in all is done in this process before any other is started.
    """

    def __init__(self, most: int, spare: int = 32) -> None:
        self._most = most
        self._spare = spare
        self._workers: list[_Worker] = []

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    @contextmanager
    def results(
        self, work: Callable[[Item], Result], items: Iterable[Item], cost: int = 1
    ) -> Iterator[Iterator[Result]]:
        """Applies work to each item; the results come in the order of the items, wherever they are made.

        Args:
            work: Picklable, as are items and results.
            items: Read one by one, only a few ahead of the results.
            cost: What an item takes of what is spared.

        Yields:
            An iterator over the results, for use inside the block.

        Raises:
            MftrunError: A process was killed.
            Exception: What the work raised, as it raised it.
        """
        iterator = iter(items)
        most_here = 0 if self._workers else self._spare // cost
        head = list(islice(iterator, most_here + 1)) if self._most > 1 else []
        if self._most == 1 or len(head) <= most_here:
            self._spare -= cost * len(head)
            yield map(work, chain(head, iterator))
            return
        with closing(self._ordered(pickle.dumps(work), chain(head, iterator))) as found:
            yield found

    def _ordered(self, work: bytes, items: Iterable[Any]) -> Generator[Any]:
        numbered = enumerate(items)
        done: dict[int, tuple[bool, Any]] = {}
        following = 0
        try:
            while True:
                # What waits for an earlier piece to be done counts as well: memory is bounded.
                room = _AHEAD * self._most - self._in_flight - len(done)
                for number, item in islice(numbered, max(room, 0)):
                    self._give(work, number, item)
                if not self._in_flight:
                    return
                done.update(self._take())
                while following in done:
                    is_good, value = done.pop(following)
                    if not is_good:
                        raise value
                    yield value
                    following += 1
        finally:
            self._forget_unfinished()

    @property
    def _in_flight(self) -> int:
        return sum(len(worker.pieces) for worker in self._workers)

    def _give(self, work: bytes, number: int, item: Any) -> None:
        """Gives a piece to the worker with the fewest, which may be a new one."""
        if len(self._workers) < self._most and all(worker.pieces for worker in self._workers):
            self._workers.append(_Worker())
        worker = min(self._workers, key=lambda worker: len(worker.pieces))
        with self._watched(worker):
            worker.give(work, number, item)

    def _take(self) -> dict[int, tuple[bool, Any]]:
        """Waits for outcomes, by the number of their piece."""
        busy = {worker.connection: worker for worker in self._workers if worker.pieces}
        found = {}
        for connection in wait(list(busy)):
            worker = busy[connection]  # type: ignore[index]
            with self._watched(worker):
                number, outcome = worker.take()
                found[number] = outcome
        return found

    def _forget_unfinished(self) -> None:
        """Ends the workers that still have pieces nobody waits for."""
        for worker in self._workers:
            if worker.pieces:
                worker.end()
        self._workers = [worker for worker in self._workers if not worker.pieces]

    @contextmanager
    def _watched(self, worker: _Worker) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise MftrunError(self._lost(worker.process.wait())) from error

    def _lost(self, status: int) -> str:
        if status == -signal.SIGKILL:
            why = "was killed, most likely because memory ran out"
            fewer = (
                f"use fewer of them ({KEY}={max(1, len(self._workers) // 2)}), or give the run more memory"
            )
            return f"a process that reads the data {why}; {fewer}"
        how = f"by signal {-status}" if status < 0 else f"with exit code {status}"
        return f"a process that reads the data ended {how}; what it wrote is above. {KEY}=1 works without any"


@contextmanager
def using(workers: Workers | int) -> Iterator[Workers]:
    """The workers as they are, or that many for the time of the block."""
    if isinstance(workers, Workers):
        yield workers
        return
    with Workers(workers) as made:
        yield made


class _Worker:
    """One process, and the pieces it has not given back."""

    def __init__(self) -> None:
        self.connection, theirs = Pipe()
        handle = theirs.fileno()
        command = [sys.executable, "-c", _BOOT.format(path=sys.path, handle=handle)]
        environment = {**os.environ, **_ENVIRONMENT}
        with _interrupts_blocked():
            self.process = subprocess.Popen(
                command, pass_fds=[handle], stdin=subprocess.DEVNULL, env=environment
            )
        theirs.close()
        self.pieces: deque[int] = deque()
        self._work = b""

    def give(self, work: bytes, number: int, item: Any) -> None:
        self.pieces.append(number)
        if work != self._work:  # equal work is kept with all that it has learnt
            self.connection.send((_WORK, work))
            self._work = work
        self.connection.send((_PIECE, pickle.dumps(item, protocol=5)))

    def take(self) -> tuple[int, tuple[bool, Any]]:
        outcome = pickle.loads(self.connection.recv_bytes())
        return self.pieces.popleft(), outcome

    def end(self) -> None:
        self.process.kill()  # it holds nothing that it would have to put away
        self.process.wait()
        self.connection.close()


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started inside never get Ctrl-C: it is for this process, which then ends them."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve(handle: int) -> None:
    """What a worker runs: it gets work, and piece after piece to apply it to; it ends with its parent.

    Args:
        handle: File descriptor of its socket.
    """
    gc.set_threshold(*_RARELY)
    connection = Connection(handle)
    inbox: SimpleQueue[tuple[str, bytes]] = SimpleQueue()
    threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()
    work: Callable[[Any], Any] = _nothing
    while True:
        kind, data = inbox.get()
        if kind == _WORK:
            work = _unpickled(data)
        else:
            _give_back(connection, pickle.dumps(_outcome(work, data), protocol=5))


def _give_back(connection: Connection, outcome: bytes) -> None:
    try:
        connection.send_bytes(outcome)
    except OSError:  # the parent has ended, which the thread that receives may notice only later
        os._exit(0)


def _nothing(item: Any) -> None:
    raise AssertionError("work comes before its pieces")


def _receive(connection: Connection, inbox: SimpleQueue[tuple[str, bytes]]) -> None:
    # In a thread: the parent never waits for a busy worker, and the end of the parent is noticed at once.
    try:
        while True:
            inbox.put(connection.recv())
    except (EOFError, OSError):
        os._exit(0)


def _unpickled(data: bytes) -> Callable[[Any], Any]:
    try:
        work: Callable[[Any], Any] = pickle.loads(data)
    except Exception as error:
        return _Fails(error)
    return work


class _Fails:
    """Work that could not be set up: each piece of it fails in the same way."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self, item: Any) -> Any:
        raise self._error


def _outcome(work: Callable[[Any], Any], data: bytes) -> tuple[bool, Any]:
    try:
        return True, work(pickle.loads(data))
    except Exception as error:
        return False, _portable(error)


def _portable(error: Exception) -> Exception:
    """The error as it is if it can be pickled, with the place where it happened; else its text."""
    where = "".join(traceback.format_exception(error))
    if not isinstance(error, MftrunError):
        error.add_note(f"in a worker process:\n{where}")
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"in a worker process:\n{where}")
    return error
