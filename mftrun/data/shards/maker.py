"""Making shards: the next samples of every task, tokenized and put into a table."""

from __future__ import annotations

import errno
import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from mftrun.data.fitting import fit
from mftrun.data.policies import BadLines, OnBad
from mftrun.data.selection import LEFT_OUT, Rules, TaskTokens, write_tables
from mftrun.data.shards.folder import ShardFolder, Start
from mftrun.data.shards.stream import Position, Taken, TaskStream
from mftrun.data.source import Source
from mftrun.data.token_file import TokenFile
from mftrun.data.tokenize import tokenize
from mftrun.data.workers import Workers
from mftrun.errors import DataError
from mftrun.files import write_atomically, write_json

if TYPE_CHECKING:
    from mftrun.data.template import ConversationEncoder

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG)
_MANY_CHUNKS = 100  # about 100 MB of text: skipping them takes a moment
_log = logging.getLogger(__name__)


class ShardTask(NamedTuple):
    """What a shard takes of a task.

    Attributes:
        source: Where its samples are read from.
        samples: How many of them, bad entries not counted.
        begin: Where each pass over the source begins: behind what is held out for validation.
    """

    source: Source
    samples: int
    begin: Position


@dataclass(frozen=True)
class Recipe:
    """How samples become a shard.

    Attributes:
        encoder: Makes tokens of them.
        rules: Makes a table of tokens; splits nothing off.
        on_bad: The policy on bad lines.
        fingerprint: What all shards of the run are made from.
    """

    encoder: ConversationEncoder
    rules: Rules
    on_bad: OnBad
    fingerprint: str


class ShardMaker:
    """Makes the shards of a run, best one after the other: sources are then read on where they were left.

    Args:
        folder: Where shards go.
        tasks: By name, in the order of the tables.
        recipe: How samples become a shard.
        workers: Processes that tokenize.
    """

    def __init__(
        self, folder: ShardFolder, tasks: Mapping[str, ShardTask], recipe: Recipe, workers: Workers
    ) -> None:
        self._folder = folder
        self._tasks = tasks
        self._recipe = recipe
        self._workers = workers
        self._streams: dict[str, TaskStream] = {}
        self._replaced: list[str] = []

    def make(self, number: int) -> None:
        """Makes a shard from where it is recorded to start, and records where the next one does.

        Raises:
            DataError: A source cannot be read, the policies refuse a line or a sample, nothing is left of a
                task, or the disk is full. The shard is then absent.
        """
        start = self._folder.start(number)
        self._folder.remove(number)
        self._replaced.clear()
        counts = {task: Counter(start.totals.get(task, {})) for task in self._tasks}
        try:
            files = self._files(number, start, counts)
            write_tables(self._folder.shard(number), files, self._recipe.rules, self._recipe.fingerprint)
            self._keep_left_out(number)
            self._record(number, start, counts)
            self._folder.seal(number)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            message = f"cannot be written: {error.strerror}; free some space, or lower data.shard_samples"
            raise DataError(self._folder.data, 0, message) from error

    def files(self, number: int) -> list[TaskTokens]:
        """The tokens of a shard that is there."""
        return [
            self._tokens(task, TokenFile.open(self._folder.tokens(number, index)))
            for index, task in enumerate(self._tasks)
        ]

    def _files(self, number: int, start: Start, counts: Mapping[str, Counter[str]]) -> list[TaskTokens]:
        return [
            self._tokens(task, self._file(number, index, task, self._stream(task, start), counts[task]))
            for index, task in enumerate(self._tasks)
        ]

    def _tokens(self, task: str, file: TokenFile) -> TaskTokens:
        return TaskTokens(task, file, None, None, self._tasks[task].source.location)

    def _stream(self, task: str, start: Start) -> TaskStream:
        """The task's stream, at the start of the shard."""
        there, stream = start.positions[task], self._streams.get(task)
        if stream is None or stream.position != there:
            if there.chunks >= _MANY_CHUNKS:
                _log.info("task %r: looking for the place to read on in its source", task)
            stream = TaskStream(self._tasks[task].source, self._tasks[task].begin, there)
            self._streams[task] = stream
        return stream

    def _file(
        self, number: int, index: int, task: str, stream: TaskStream, counts: Counter[str]
    ) -> TokenFile:
        """Tokenizes samples, and others in their place if nothing is left of any of them."""
        passes = stream.position.passes
        while True:
            file = self._next(number, index, task, stream)
            limit = self._recipe.rules.limit
            fitted = fit(file, np.arange(file.num_samples), limit)
            counts.update(
                samples=fitted.num_samples,
                tokens=int(fitted.columns["lengths"].sum()),
                bad=file.meta.bad,
                overlong=len(fitted.overlong),
                truncated=fitted.truncated,
                without_target=len(fitted.without_target),
            )
            if fitted.num_samples or (limit.overlong.is_refused and len(fitted.overlong)):
                return file  # or the table refuses what is over-long
            what = f"none of {self._tasks[task].samples:,} samples of task {task!r} in shard {number} can be"
            _log.warning("%s trained on within data.max_length; taking the next ones", what)
            self._replaced += [f"{task}\t{bad}" for bad in file.bad_lines()]
            self._replaced += [f"{task}\t{file.origin(one)}, left out" for one in range(file.num_samples)]
            if stream.position.passes >= passes + 2:
                message = f"no sample of task {task!r} can be trained on within data.max_length"
                raise DataError(self._tasks[task].source.location, 0, message)

    def _next(self, number: int, index: int, task: str, stream: TaskStream) -> TokenFile:
        wanted = self._tasks[task]
        file = tokenize(
            Taken(stream, wanted.source.location, wanted.samples),
            self._recipe.encoder,
            self._folder.tokens(number, index),
            workers=self._workers,
            title=f"tokenizing {task}, shard {number}",
        )
        self._recipe.on_bad.late([BadLines(task, file.meta.bad, file.meta.bad_examples)])
        return file

    def _keep_left_out(self, number: int) -> None:
        """Keeps the names of entries that are not trained as they are, for when the shard is gone."""
        table = (self._folder.shard(number) / LEFT_OUT).read_text(encoding="utf-8")
        replaced = "".join(f"{line}\n" for line in self._replaced)
        if table or replaced:
            write_atomically(self._folder.left_out(number), replaced + table)

    def _record(self, number: int, start: Start, counts: Mapping[str, Counter[str]]) -> None:
        positions = {task: stream.position for task, stream in self._streams.items()}
        totals = {task: dict(count) for task, count in counts.items()}
        self._folder.write_start(number + 1, Start(positions, totals))
        tasks = {task: {**totals[task], "passes": positions[task].passes} for task in totals}
        write_json(self._folder.report, {"shards": number + 1, "tasks": tasks})
        _log.info("shard %d: %s", number, "; ".join(_line(task, start, totals[task]) for task in totals))


def _line(task: str, start: Start, totals: Mapping[str, int]) -> str:
    before = start.totals.get(task, {})
    new = {name: count - before.get(name, 0) for name, count in totals.items()}
    lost = (("bad", "bad lines"), ("overlong", "over-long"), ("without_target", "without a target"))
    others = "".join(f", {new[name]:,} {words}" for name, words in lost if new[name])
    return f"{task} {new['samples']:,} samples, {new['tokens']:,} tokens{others}"
