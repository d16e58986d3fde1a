"""Where the shards of a run lie, and the notes by which its processes tell each other about them."""

from __future__ import annotations

import json
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from mftrun.data.selection import TRAIN_TABLE
from mftrun.data.shards.stream import Position
from mftrun.data.table import SampleTable
from mftrun.errors import DataError, MftrunError
from mftrun.files import write_atomically, write_json

Totals = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class Start:
    """Where a shard starts.

    Attributes:
        positions: Of each task's stream.
        totals: What all shards before it held, by task.
    """

    positions: Mapping[str, Position]
    totals: Totals


@dataclass(frozen=True)
class ShardFolder:
    """The shards of one run, which come and go, and the records of its stream, which stay.

    A shard is there once its mark is: everything else of it has been written before.

    Args:
        data: The run's data folder.
    """

    data: Path

    @property
    def records(self) -> Path:
        """Where each shard starts, and what was held out for validation."""
        return self.data / "stream"

    @property
    def report(self) -> Path:
        """What all shards held so far."""
        return self.records / "report.json"

    def left_out(self, number: int) -> Path:
        """Which entries are not in a shard as they were read; absent where all are."""
        return self.records / "left_out" / f"{number:08d}.tsv"

    def shard(self, number: int) -> Path:
        """The folder of a shard."""
        return self._shards / f"{number:08d}"

    def tokens(self, number: int, task: int) -> Path:
        """The token file of a task in a shard."""
        return self.shard(number) / "tokens" / str(task)

    def valid_tokens(self, task: int) -> Path:
        """The token file of a task's validation samples."""
        return self.records / "valid" / str(task)

    def open(self, number: int) -> SampleTable | None:
        """The samples of a shard, if it is there.

        Raises:
            DataError: It is damaged.
        """
        if not self._mark(number).is_file():
            return None
        return SampleTable.open(self.shard(number) / TRAIN_TABLE)

    def holds(self, number: int) -> bool:
        """Whether a shard is there, undamaged."""
        try:
            return self.open(number) is not None
        except DataError:
            return False

    def seal(self, number: int) -> None:
        """Marks a shard as whole."""
        write_json(self._mark(number), {"shard": number})

    def remove(self, number: int) -> None:
        """Removes a shard, if it is there; at no moment is a part of it taken for the whole."""
        self._mark(number).unlink(missing_ok=True)
        shutil.rmtree(self.shard(number), ignore_errors=True)

    def numbers(self) -> list[int]:
        """The shards of which there is anything, in order."""
        return sorted(int(path.name) for path in self._shards.glob("[0-9]*"))

    def clear(self) -> None:
        """Removes all shards and notes, but not the records."""
        for number in self.numbers():
            self.remove(number)
        shutil.rmtree(self._shards, ignore_errors=True)

    def write_start(self, number: int, start: Start) -> None:
        """Records where a shard starts."""
        positions = {task: asdict(position) for task, position in start.positions.items()}
        write_json(self._start(number), {"positions": positions, "totals": start.totals})

    def start(self, number: int) -> Start:
        """Where a shard starts.

        Raises:
            DataError: There is no record of it.
        """
        try:
            found = json.loads(self._start(number).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            message = f"no record of where shard {number} of the run's data starts ({error}); start a new run"
            raise DataError(self._start(number), 0, message) from error
        positions = {task: Position(**values) for task, values in found["positions"].items()}
        return Start(positions, found["totals"])

    def write_about(self, about: Mapping[str, Any]) -> None:
        """Records what the stream is made from."""
        write_json(self._about, about)

    def about(self) -> dict[str, Any] | None:
        """What the stream is made from; None if nothing is recorded."""
        try:
            about: dict[str, Any] = json.loads(self._about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return about

    def want(self, number: int) -> None:
        """Notes that a shard is trained on from now on."""
        write_json(self._wanted, {"shard": number})

    def wanted(self) -> int:
        """The shard that is trained on."""
        return int(json.loads(self._wanted.read_text(encoding="utf-8"))["shard"])

    def fail(self, error: MftrunError) -> None:
        """Notes why there will be no more shards."""
        write_atomically(self._failure, pickle.dumps(error))

    def failure(self) -> MftrunError | None:
        """Why there will be no more shards; None while there will."""
        try:
            error: MftrunError = pickle.loads(self._failure.read_bytes())
        except FileNotFoundError:
            return None
        return error

    def forget_failure(self) -> None:
        """Removes the note of an earlier failure."""
        self._failure.unlink(missing_ok=True)

    @property
    def _shards(self) -> Path:
        return self.data / "shards"

    @property
    def _about(self) -> Path:
        return self.records / "about.json"

    @property
    def _wanted(self) -> Path:
        return self._shards / "wanted.json"

    @property
    def _failure(self) -> Path:
        return self._shards / "failure.pickle"

    def _mark(self, number: int) -> Path:
        return self.shard(number) / "shard.json"

    def _start(self, number: int) -> Path:
        return self.records / "starts" / f"{number:08d}.json"
