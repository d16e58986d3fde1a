"""The process beside the ranks that makes their shards: started, watched and ended by the parent."""

from __future__ import annotations

import json
import logging
import pickle
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from mftrun.data.shards.folder import ShardFolder
from mftrun.errors import MftrunError
from mftrun.jobs.layout import RunLayout
from mftrun.launch.errors import describe_exit
from mftrun.launch.server import signals_held
from mftrun.schema import RunConfig
from mftrun.training.saving import PROGRESS

_BOOT = "import sys; sys.path[:] = {path!r}; from mftrun.jobs.shard_server import serve; serve()"


class Place(NamedTuple):
    """How far a run is.

    Attributes:
        step: Optimizer steps done.
        epoch: The shard of the next global batch.
        batch: Global batches of that shard that are done.
    """

    step: int = 0
    epoch: int = 0
    batch: int = 0

    @classmethod
    def of(cls, checkpoint: Path | None) -> Place:
        """Where a checkpoint was taken; the beginning for None."""
        if checkpoint is None:
            return cls()
        found = json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8"))
        return cls(found["step"], found["epoch"], found["batch"])


@contextmanager
def making_shards(config: RunConfig, run_dir: Path, place: Place, folder: ShardFolder) -> Iterator[None]:
    """Makes shards in a process of its own for the time of the block.

    Args:
        config: The run's configuration.
        run_dir: The run's folder.
        place: Where the run goes on from.
        folder: Where the shards go.
    """
    level = min(logging.getLogger().getEffectiveLevel(), logging.INFO)
    order = pickle.dumps((config, run_dir, place, level))
    command = [sys.executable, "-c", _BOOT.format(path=sys.path)]
    with RunLayout(run_dir).log.open("ab") as errors, signals_held():
        # Signals are held for its whole life: this process answers them. And a bar has no place in a log.
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(process, folder, is_over), daemon=True)
    watcher.start()
    try:
        assert process.stdin is not None
        with suppress(BrokenPipeError):  # one that ended at once is reported by its watcher
            process.stdin.write(order)
            process.stdin.flush()
        yield
    finally:
        is_over.set()
        process.kill()  # what it has begun is removed at the next start
        watcher.join()


def _watch(process: subprocess.Popen[bytes], folder: ShardFolder, is_over: threading.Event) -> None:
    """Leaves word for the ranks where the process ends without having done so."""
    status = process.wait()
    if status and not is_over.is_set() and folder.failure() is None:
        folder.fail(MftrunError(f"the process that makes shards failed: {describe_exit(status)}"))
