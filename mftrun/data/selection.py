"""What each tokenized sample of a task is for, and the tables that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from mftrun.data.fitting import Fitted, Limit, fit, joined
from mftrun.data.mixture import Int64Array
from mftrun.data.report import PERCENTILES, Counts, TaskReport
from mftrun.data.sample import EXAMPLES
from mftrun.data.split import TRAIN, VALID, ValidationSize, split, subset
from mftrun.data.table import write_table
from mftrun.data.token_file import TokenFile
from mftrun.errors import DataError
from mftrun.files import write_atomically

TRAIN_TABLE, VALID_TABLE, LEFT_OUT = "train", "valid", "left_out.tsv"


@dataclass(frozen=True)
class TaskTokens:
    """One task, tokenized.

    Attributes:
        task: Its name.
        train: Its samples.
        valid: Its validation samples; None splits them off `train`. All of them are used.
        max_samples: Use a random subset of `train` of this size; None uses all.
        location: What the user calls its source.
    """

    task: str
    train: TokenFile
    valid: TokenFile | None
    max_samples: int | None
    location: str

    @property
    def files(self) -> list[TokenFile]:
        """The one or two token files."""
        return [self.train] if self.valid is None else [self.train, self.valid]


class Rules(NamedTuple):
    """How tables are made from token files.

    Attributes:
        limit: The longest length, and what becomes of longer samples.
        size: Validation samples to split off.
        seed: Seed of the split and of subsets.
    """

    limit: Limit
    size: ValidationSize
    seed: int


class Piece(NamedTuple):
    """The samples of one token file that have one role, made to fit.

    Attributes:
        task: Number of the task.
        file: Where their tokens are.
        role: `TRAIN` or `VALID`.
        fitted: The samples.
    """

    task: int
    file: TokenFile
    role: int
    fitted: Fitted


def write_tables(
    directory: Path, tasks: Sequence[TaskTokens], rules: Rules, fingerprint: str
) -> dict[str, TaskReport]:
    """Writes the tables ``directory/train`` and ``directory/valid``, and a list of what is not in them.

    Raises:
        DataError: A task has no sample, over-long samples are refused, or nothing is left of a task.
        ConfigError: There are too few samples to split.
    """
    pieces = [piece for number, task in enumerate(tasks) for piece in _pieces(number, task, rules)]
    if rules.limit.overlong.is_refused:
        _refuse_overlong(tasks, pieces, rules.limit)
    _refuse_empty(tasks, pieces, rules.limit)
    names = [task.task for task in tasks]
    for name, role in ((TRAIN_TABLE, TRAIN), (VALID_TABLE, VALID)):
        write_pieces(directory / name, [piece for piece in pieces if piece.role == role], names, fingerprint)
    _write_left_out(directory / LEFT_OUT, tasks, pieces, rules.limit)
    return {
        task.task: _report(task, [piece for piece in pieces if piece.task == number])
        for number, task in enumerate(tasks)
    }


def _pieces(number: int, task: TaskTokens, rules: Rules) -> Iterator[Piece]:
    for file in task.files:
        if file.num_samples == 0:
            raise DataError(task.location, 0, f"task {task.task!r} has no valid sample{_first_bad(file)}")
    used = np.flatnonzero(subset(task.train.num_samples, task.task, rules.seed, task.max_samples))
    split_off = ValidationSize(0.0, 0, 0) if task.valid is not None else rules.size
    roles = split(len(used), task.task, rules.seed, split_off)
    for role in (TRAIN, VALID):
        yield Piece(number, task.train, role, fit(task.train, used[roles == role], rules.limit))
    if task.valid is not None:
        everything = np.arange(task.valid.num_samples)
        yield Piece(number, task.valid, VALID, fit(task.valid, everything, rules.limit))


def _first_bad(file: TokenFile) -> str:
    meta = file.meta
    return f"; {meta.bad:,} bad lines, the first: {meta.bad_examples[0]}" if meta.bad else ""


def write_pieces(
    directory: Path, pieces: Sequence[Piece], tasks: Sequence[str], fingerprint: str = ""
) -> None:
    """Writes one table of the samples of all pieces.

    Args:
        directory: The folder to create.
        pieces: The samples; possibly none.
        tasks: Names of all tasks.
        fingerprint: A digest of what the table is made from.

    Raises:
        DataError: The folder cannot be written.
    """
    files = [file for piece in pieces for file in piece.file.meta.files]
    before = np.cumsum([0, *(len(piece.file.meta.files) for piece in pieces)])[:-1].tolist()
    columns = joined(
        [piece.fitted for piece in pieces],
        task=[piece.task for piece in pieces],
        source=list(range(len(pieces))),
        files=before,
    )
    sources = [piece.file for piece in pieces]
    write_table(directory, columns, tasks=tasks, files=files, sources=sources, fingerprint=fingerprint)


def _write_left_out(path: Path, tasks: Sequence[TaskTokens], pieces: Sequence[Piece], limit: Limit) -> None:
    """Names every entry that is not trained as it is: task, place and reason, separated by tabs."""
    lines = [f"{task.task}\t{bad}" for task in tasks for file in task.files for bad in file.bad_lines()]
    for piece in pieces:
        task, kept = tasks[piece.task].task, "cut" if limit.overlong.cuts else "left out"
        lines += [f"{task}\t{text}, {kept}" for text in _places(piece, piece.fitted.overlong)]
        lines += [f"{task}\t{text}, no target" for text in _places(piece, piece.fitted.without_target)]
    try:
        write_atomically(path, "".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise DataError(path, 0, f"cannot be written: {error.strerror}; free some space") from error


def _report(task: TaskTokens, pieces: Sequence[Piece]) -> TaskReport:
    metas = [file.meta for file in task.files]
    report = TaskReport(
        bad=sum(meta.bad for meta in metas),
        bad_examples=[str(error) for meta in metas for error in meta.bad_examples][:EXAMPLES],
        formats=dict(sum((Counter(meta.formats) for meta in metas), Counter())),
        unread=dict(sum((Counter(meta.unread) for meta in metas), Counter())),
        longest=max(meta.longest for meta in metas),
        overlong_examples=_overlong(pieces),
    )
    for piece in pieces:
        _count(report.train if piece.role == TRAIN else report.valid, piece.fitted)
    used = sum(piece.fitted.num_chosen for piece in pieces if piece.file is task.train)
    report.unused = task.train.meta.unused + task.train.num_samples - used
    lengths = np.concatenate([np.asarray(file.lengths) for file in task.files])
    report.percentiles = {
        str(rank): int(np.percentile(lengths, rank, method="higher")) for rank in PERCENTILES
    }
    return report


def _places(piece: Piece, samples: Int64Array) -> Iterator[str]:
    file = piece.file
    for sample in samples.tolist():
        yield f"{file.origin(sample)}: {int(file.lengths[sample]):,} tokens"


def _overlong(pieces: Sequence[Piece]) -> list[str]:
    """The first few over-long samples."""
    some = (text for piece in pieces for text in _places(piece, piece.fitted.overlong[:EXAMPLES]))
    return list(islice(some, EXAMPLES))


def _count(counts: Counts, fitted: Fitted) -> None:
    columns = fitted.columns
    counts.samples += fitted.num_samples
    counts.tokens += int(columns["lengths"].sum())
    counts.target_tokens += int(columns["span_length"].sum(dtype=np.int64))
    counts.overlong += len(fitted.overlong)
    counts.truncated += fitted.truncated
    counts.without_target += len(fitted.without_target)


def _refuse_overlong(tasks: Sequence[TaskTokens], pieces: Sequence[Piece], limit: Limit) -> None:
    refused = [piece for piece in pieces if len(piece.fitted.overlong)]
    if not refused:
        return
    file, overlong = refused[0].file, refused[0].fitted.overlong
    first = file.origin(int(overlong[0]))
    others = _overlong(refused)[1:]
    numbers = _by_task(tasks, refused)
    longest = max(int(piece.file.lengths[piece.fitted.overlong].max()) for piece in refused)
    lines = [
        f"{int(file.lengths[overlong[0]]):,} tokens, more than data.max_length={limit.max_length}",
        *(f"  {text}" for text in others),
        f"over-long samples by task: {', '.join(f'{name!r} {count:,}' for name, count in numbers.items())}; "
        f"the longest has {longest:,} tokens",
        "raise data.max_length, or set data.on_overlong=skip (leave them out) or truncate (cut their end)",
    ]
    raise DataError(first.path, first.line, "\n".join(lines))


def _by_task(tasks: Sequence[TaskTokens], pieces: Sequence[Piece]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for piece in pieces:
        name = tasks[piece.task].task
        numbers[name] = numbers.get(name, 0) + len(piece.fitted.overlong)
    return numbers


_MORE = MappingProxyType(
    {TRAIN: "shorter samples", VALID: "more validation samples: data.valid_min, data.valid_fraction"}
)


def _refuse_empty(tasks: Sequence[TaskTokens], pieces: Sequence[Piece], limit: Limit) -> None:
    """Raises if samples were chosen and none of them is left."""
    for piece in pieces:
        chosen = piece.fitted.num_chosen
        if chosen and not piece.fitted.num_samples:
            task, kind = tasks[piece.task], {TRAIN: "training", VALID: "validation"}[piece.role]
            message = (
                f"none of the {chosen:,} {kind} samples of task {task.task!r} has a target token within "
                f"data.max_length={limit.max_length}; raise it, or give the task {_MORE[piece.role]}"
            )
            raise DataError(task.location, 0, message)
