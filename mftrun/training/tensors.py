"""The tensors of a checkpoint: what each rank holds, written and read side by side.

The form is that of torch's distributed checkpoint: names, shapes and where each part lies. It knows neither
the strategy nor the number of ranks that wrote it.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

import torch
from torch import distributed

if TYPE_CHECKING:
    from mftrun.distributed import Engine

FOLDER = "tensors"


class Writing:
    """What the ranks are writing, each its own part: they plan it together, and then write by themselves.

    Torch's `checkpoint.save` does the same in one go, with messages between the ranks from first to last.
    Here there are none while files are written, so that this may go on beside the next steps, and whoever
    calls says when the ranks meet again.

    Every rank must make one.

    Args:
        engine: Holds the trained weights and the optimizer's state.
        folder: A new folder, the same on all ranks.
        background: Whether the tensors are copied into the host's memory, and written by a thread.

    Raises:
        OSError: Some rank cannot write. All ranks raise it.
    """

    def __init__(self, engine: Engine, folder: Path, *, background: bool = False) -> None:
        from torch.distributed import checkpoint

        self._is_main = engine.ranks.is_main
        self._writer: Any = checkpoint.FileSystemWriter(folder)
        if background:  # a thread must not ask for a CUDA stream: it would be one of the first device's
            self._writer.per_thread_copy_ahead = 0
        planner = checkpoint.DefaultSavePlanner()
        planner.set_up_planner(engine.state(), is_coordinator=self._is_main)
        self._metadata: Any = None
        plan = planner.finish_plan(self._agree(planner))
        source = _Copies(planner, plan) if background else planner
        self._results = _started(lambda: self._write(plan, source), background=background)

    @property
    def is_over(self) -> bool:
        """Whether this rank has written its part, or failed to."""
        return self._results.done()

    def wait(self) -> list[Any]:
        """What this rank has written, as `finish` takes it.

        Raises:
            OSError: It could not be written.
        """
        return self._results.result()

    def finish(self, written: list[list[Any]]) -> None:
        """Notes where everything lies; for the main rank, when all ranks have written.

        Args:
            written: What `wait` gave, of every rank.

        Raises:
            OSError: It could not be written.
        """
        self._writer.finish(self._metadata, written)

    def _agree(self, planner: Any) -> Any:
        """Decides which rank writes what several have. A collective call."""
        self._writer.set_up_storage_writer(self._is_main)
        plan: Any
        try:
            plan = self._writer.prepare_local_plan(planner.create_local_plan())
        except OSError as error:
            plan = error
        agreed = _shared_out(plan, lambda plans: self._global_plans(planner, plans))
        if isinstance(agreed, OSError):
            raise agreed
        return agreed

    def _global_plans(self, planner: Any, plans: list[Any]) -> list[Any]:
        faults = [plan for plan in plans if isinstance(plan, OSError)]
        if faults:
            return faults[:1] * len(plans)
        plans, self._metadata = planner.create_global_plan(plans)
        prepared: list[Any] = self._writer.prepare_global_plan(plans)
        return prepared

    def _write(self, plan: Any, source: Any) -> list[Any]:
        try:
            written: list[Any] = self._writer.write_data(plan, source).wait()
        except RuntimeError as error:  # torch's word for a failed write
            raise OSError(str(error).splitlines()[0]) from error
        return written


class _Copies:
    """Copies in the host's memory of what a rank is to write, and of nothing else."""

    def __init__(self, planner: Any, plan: Any) -> None:
        self._data = {item.index: _copied(planner.resolve_data(item)) for item in plan.items}

    def resolve_data(self, item: Any) -> Any:
        """What torch asks a planner for, once for each item."""
        return self._data.pop(item.index)


def _copied(data: Any) -> Any:
    return data.detach().to("cpu", copy=True) if isinstance(data, torch.Tensor) else data


def _started(action: Callable[[], list[Any]], *, background: bool) -> Future[list[Any]]:
    future: Future[list[Any]] = Future()

    def act() -> None:
        try:
            future.set_result(action())
        except Exception as error:
            future.set_exception(error)

    if background:
        # A rank that ends by an error does not wait for what will never be a checkpoint.
        Thread(target=act, name="checkpoint", daemon=True).start()
    else:
        act()
    return future


def gathered(value: Any) -> list[Any]:
    """What every rank has, in their order, on the main rank; nothing elsewhere. A collective call."""
    if not distributed.is_initialized():
        return [value]
    values = [None] * distributed.get_world_size() if distributed.get_rank() == 0 else None
    distributed.gather_object(value, values)
    return values or []


def _shared_out(value: Any, share: Callable[[list[Any]], list[Any]]) -> Any:
    """Lets the main rank turn what all ranks have into a piece for each. A collective call."""
    values = gathered(value)
    pieces = share(values) if values else None
    if not distributed.is_initialized():
        return pieces and pieces[0]
    own: list[Any] = [None]
    distributed.scatter_object_list(own, pieces)
    return own[0]


def read_tensors(engine: Engine, folder: Path, *, optimizer: bool = True) -> None:
    """Brings the model, and its optimizer, back to what was written; every rank must call it.

    Args:
        engine: Holds them, whatever its strategy and number of ranks.
        folder: Written by `Writing`.
        optimizer: Whether the optimizer's state is wanted.

    Raises:
        ValueError: The names or shapes are not those of this model or this optimizer.
        OSError: The files cannot be read.
    """
    from torch.distributed import checkpoint

    reader = checkpoint.FileSystemReader(folder)
    saved = set(reader.read_metadata().state_dict_metadata)
    _refuse_other_weights(engine, folder, saved)

    def read(state: dict[str, Any]) -> None:
        _refuse_missing(folder, set(state) - saved)
        with _plain_errors(folder), _quietly():
            checkpoint.load(state, storage_reader=reader, no_dist=not distributed.is_initialized())

    engine.load(read, optimizer=optimizer)


def _refuse_other_weights(engine: Engine, folder: Path, saved: set[str]) -> None:
    from mftrun.distributed.trained import WEIGHT, saved_buffers, trained_parameters

    own = {f"{WEIGHT}{name}" for name in (*trained_parameters(engine.bare), *saved_buffers(engine.bare))}
    odd = own ^ {name for name in saved if name.startswith(WEIGHT)}
    if odd:
        shown = _shown({name.removeprefix(WEIGHT) for name in odd})
        raise ValueError(f"{folder} belongs to another model: {shown} is not in both")


def _refuse_missing(folder: Path, missing: set[str]) -> None:
    if missing:
        raise ValueError(f"{folder} belongs to another optimizer: it has no {_shown(missing)}")


def _shown(names: set[str]) -> str:
    return ", ".join(sorted(names)[:3])


@contextmanager
def _plain_errors(folder: Path) -> Iterator[None]:
    """The ranks tell each other of their faults in an exception of torch's own, which is no `Exception`."""
    from torch.distributed.checkpoint.api import CheckpointException

    try:
        yield
    except CheckpointException as error:
        rank, (fault, _) = min(error.failures.items())
        if isinstance(fault, OSError):
            raise OSError(f"{folder} cannot be read: rank {rank}: {fault}") from error
        raise ValueError(f"{folder} does not fit: rank {rank}: {str(fault).splitlines()[0]}") from error


@contextmanager
def _quietly() -> Iterator[None]:
    """Torch remarks on there being no process group where one process needs none."""
    log = logging.getLogger("torch.distributed.checkpoint")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    finally:
        log.setLevel(level)
