"""What the process does that makes the shards of a run while its ranks train."""

from __future__ import annotations

import logging
import os
import pickle
import sys
import threading
import time
from pathlib import Path

from mftrun.data.shards.folder import ShardFolder
from mftrun.data.shards.maker import ShardMaker
from mftrun.data.tokenizer import load_saved
from mftrun.data.workers import Workers, worker_count
from mftrun.errors import DataError, MftrunError
from mftrun.jobs.layout import RunLayout
from mftrun.jobs.shard_process import Place
from mftrun.jobs.streaming import AHEAD, ShardedData, shard_maker
from mftrun.launch.logs import configure_logging

_PAUSE = 0.2  # seconds between two looks at how far the ranks are
_log = logging.getLogger(__name__)


def serve() -> None:
    """What the process runs that makes shards: its order comes from its input, which ends with its parent."""
    config, run_dir, place, level = pickle.load(sys.stdin.buffer)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    configure_logging(0, RunLayout(run_dir).log, level)
    # It has much to tell for each shard that only matters to one who waits for it.
    logging.getLogger("mftrun.data.progress").setLevel(logging.WARNING)
    folder = ShardFolder(RunLayout(run_dir).data)
    try:
        with Workers(worker_count(config.data.num_workers)) as workers:
            tokenizer = load_saved(RunLayout(run_dir).tokenizer)
            maker = shard_maker(config, folder, tokenizer, workers)
            make_ahead(ShardedData(config, run_dir), maker, folder, place)
    except Exception as error:
        failure = _told(error, run_dir)
        _log.warning(
            "no more data: the run will end where this is missing: %s", failure, exc_info=_bug(error)
        )
        folder.fail(failure)
        sys.exit(1)


def _end_with_parent() -> None:
    os.read(0, 1)  # returns when the other end is closed
    os._exit(0)


def _bug(error: Exception) -> Exception | None:
    return None if isinstance(error, MftrunError) else error


def _told(error: Exception, run_dir: Path) -> MftrunError:
    """The error for the user, who may go on from the last checkpoint."""
    way_on = (
        f"The run can go on from its last checkpoint: resume={run_dir}; with a mended source, or another "
        "policy (data.on_bad, data.on_overlong), add checkpoint.allow_changed_config=true."
    )
    if isinstance(error, DataError):
        return DataError(error.path, error.line, f"{error.message}\n{way_on}")
    if isinstance(error, MftrunError):
        return error
    return MftrunError(f"the process that makes shards failed: {error!r}; its log has more. {way_on}")


def make_ahead(data: ShardedData, maker: ShardMaker, folder: ShardFolder, place: Place) -> None:
    """Makes shards while the ranks train on earlier ones, and removes those behind them.

    It ends when there are enough for all steps of the run; where tasks may be frozen, which makes shards
    shorter, it never does, and goes on when a rank asks for more.

    Args:
        data: The run's data.
        maker: Makes its shards.
        folder: Where they go; the shard of `place` is there.
        place: Where the run goes on from.
    """
    number, steps = place.epoch, place.step - place.batch
    while True:
        if not folder.holds(number):
            maker.make(number)
        table = folder.open(number)
        assert table is not None, "it was just made"
        steps += data.plan(table, number).num_batches
        del table
        is_enough = steps >= data.total_steps()
        if is_enough and not data.may_shrink:
            return
        number += 1
        ahead = 0 if is_enough else AHEAD
        while (wanted := folder.wanted()) < number - ahead:
            time.sleep(_PAUSE)
        for behind in [other for other in folder.numbers() if other < wanted - AHEAD]:
            folder.remove(behind)
