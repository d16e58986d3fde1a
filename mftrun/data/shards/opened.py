"""What a rank sees of the shards: each is an epoch, opened when it is there."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache

from mftrun.data.epochs import Epoch, WaitEndedError
from mftrun.data.plan import EpochPlan, Freeze, concerning
from mftrun.data.shards.folder import ShardFolder
from mftrun.data.table import SampleTable

_PAUSE = 0.1  # seconds between two looks
_SAY_AFTER = 3.0  # seconds of waiting, and twice as many from one line to the next
_log = logging.getLogger(__name__)


class Shards:
    """The epochs of a run that is trained shard by shard.

    Waiting is looking at the folder: no rank waits inside a collective operation, which could time out, for
    longer than another one takes to look again.

    Args:
        folder: Where the shards are.
        tasks: Task names.
        plan: The plan of a shard's samples, by its number and the freezes so far.
        announces: Whether this rank is the one that tells which shard is trained on.
        is_stopping: Whether the run is to stop, so that waiting makes no sense.
        pause: Waits for so many seconds.
    """

    def __init__(
        self,
        folder: ShardFolder,
        tasks: Sequence[str],
        plan: Callable[[SampleTable, int, Sequence[Freeze]], EpochPlan],
        *,
        announces: bool,
        is_stopping: Callable[[], bool] = lambda: False,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self.tasks = tasks
        self._folder = folder
        self._plan = plan
        self._announces = announces
        self._is_stopping = is_stopping
        self._pause = pause

    def epoch(self, number: int, freezes: Sequence[Freeze] = ()) -> Epoch:
        """The samples of a shard and their plan; waits until the shard is there.

        Raises:
            MftrunError: It cannot be made.
            WaitEndedError: The run is to stop before it is there.
        """
        return self._epochs(number, concerning(freezes, number))

    @cached_property
    def _epochs(self) -> Callable[[int, tuple[Freeze, ...]], Epoch]:
        return lru_cache(maxsize=1)(self._planned)

    @cached_property
    def _tables(self) -> Callable[[int], SampleTable]:
        # Apart from the plans: a freeze inside a shard makes another plan of the same samples.
        return lru_cache(maxsize=1)(self._open)

    def _planned(self, number: int, freezes: tuple[Freeze, ...]) -> Epoch:
        table = self._tables(number)
        return Epoch(table, self._plan(table, number, freezes))

    def _open(self, number: int) -> SampleTable:
        if self._announces:
            self._folder.want(number)
        return self._wait(number)

    def _wait(self, number: int) -> SampleTable:
        waited, say_at = 0.0, _SAY_AFTER
        while (table := self._folder.open(number)) is None:
            if (failure := self._folder.failure()) is not None:
                raise failure
            if self._is_stopping():
                raise WaitEndedError
            self._pause(_PAUSE)
            waited += _PAUSE
            if waited >= say_at:
                _log.info("waiting for data: shard %d is not there yet (%.0f s)", number, waited)
                say_at *= 2
        return table
