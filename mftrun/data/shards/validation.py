"""The validation samples of a run that is trained on shards."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from mftrun.data.fitting import Limit, fit
from mftrun.data.sample import Sample
from mftrun.data.selection import Piece, write_pieces
from mftrun.data.source import Source, read
from mftrun.data.split import VALID, ValidationSize, split
from mftrun.data.token_file import TokenFile
from mftrun.errors import DataError


def held_out(source: Source, task: str, seed: int, size: ValidationSize) -> int:
    """How many samples at the beginning of a source are for validation.

    That is what would be split off the whole source: from some size on it is the maximum, so no more of the
    source is read than would show that.

    Args:
        source: The source.
        task: The task's name.
        seed: The run's seed.
        size: The size of the validation split.

    Raises:
        DataError: The source has no sample.
        ConfigError: No sample would be left for training.
    """
    if size.fraction == 0:
        return 0
    enough = max(math.ceil(size.maximum / size.fraction), size.minimum) + 1
    samples = (item for item in read(source) if isinstance(item, Sample))
    count = sum(1 for _ in islice(samples, enough))
    if not count:
        raise DataError(source.location, 0, f"task {task!r} has no valid sample")
    return int((split(count, task, seed, size) == VALID).sum())


def write_valid(folder: Path, valid: Mapping[int, TokenFile], tasks: Sequence[str], limit: Limit) -> None:
    """Writes the table of validation samples, which depends on no shard.

    Args:
        folder: Where it shall be.
        valid: Token files by the number of their task.
        tasks: Names of all tasks.
        limit: The longest length, and what becomes of longer samples.

    Raises:
        DataError: The folder cannot be written.
    """
    pieces = [
        Piece(task, file, VALID, fit(file, np.arange(file.num_samples), limit))
        for task, file in valid.items()
    ]
    write_pieces(folder, pieces, tasks)
