"""The work of a generation, shared out among ranks."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mftrun.errors import ConfigError
from mftrun.generation.base import BackendOption
from mftrun.generation.sampling import Sampling
from mftrun.solving.answers import OnOverlong, answers
from mftrun.solving.candidate import Candidate
from mftrun.solving.lines import Part
from mftrun.solving.questions import Question
from mftrun.solving.record import Record

if TYPE_CHECKING:
    from mftrun.generation.generator import Generator
    from mftrun.launch import RankContext

_VISIBLE = "CUDA_VISIBLE_DEVICES"
_RANKS_PER_CORE = 8


class Work(NamedTuple):
    """The questions of one benchmark that one rank answers.

    Attributes:
        part: Where its answers go.
        stop: Texts that end an answer.
        asked: The questions.
    """

    part: Path
    stop: Sequence[str]
    asked: Sequence[Question]


class Left(NamedTuple):
    """What is left to do of a benchmark.

    Attributes:
        record: Where its answers go.
        stop: Texts that end an answer.
        asked: The questions.
    """

    record: Record
    stop: Sequence[str]
    asked: Sequence[Question]


@dataclass(frozen=True)
class Manner:
    """How questions are answered.

    Attributes:
        sampling: How tokens are chosen.
        on_overlong: See `answers`.
    """

    sampling: Sampling
    on_overlong: OnOverlong = "empty"


def deal(left: Sequence[Left], ranks: int) -> list[list[Work]]:
    """Deals the questions of all benchmarks; of long ones and short ones all ranks get as many.

    Args:
        left: What is to be done.
        ranks: Among how many.
    """
    shares: list[list[Work]] = [[] for _ in range(ranks)]
    dealt = 0
    for record, stop, asked in left:
        ordered = sorted(asked, key=lambda one: -len(one.prompt.ids))
        for rank, share in enumerate(shares):
            mine = ordered[(rank - dealt) % ranks :: ranks]
            if mine:
                share.append(Work(record.part(rank), stop, mine))
        dealt += len(ordered)
    return shares


def answer_all(
    generator: Generator, manner: Manner, works: Sequence[Work], advance: Callable[[int], None]
) -> None:
    """Answers all questions of a rank, and writes each answer down as it comes.

    Args:
        generator: The model.
        manner: How.
        works: What.
        advance: Is told of each answer.
    """
    for work in works:
        with Part(work.part) as part:
            for answered in answers(generator, manner.sampling, work.stop, work.asked, manner.on_overlong):
                part.write(answered)
                advance(1)


def count_ranks(backend: BackendOption, asked: int | None, questions: int) -> int:
    """How many ranks share the work.

    Args:
        backend: What generates tokens.
        asked: As many as the user wants; None takes one for each GPU.
        questions: How many there are, at least one; no rank is started for nothing.

    Raises:
        ConfigError: There are too few GPUs or cores for so many.
    """
    from mftrun.distributed.machines import cores, visible_gpus

    each = backend.gpus()
    most = max(1, visible_gpus() // each) if each else cores() * _RANKS_PER_CORE
    if asked is None:
        asked = most if each else 1
    if asked > most:
        what = f"{each} for each of the {visible_gpus()} GPUs" if each else f"{most} for these CPU cores"
        raise ConfigError("job.num_processes", f"{asked} processes are too many: at most {most} fit ({what})")
    return min(asked, questions)


def run_works(
    candidate: Candidate, manner: Manner, shares: Sequence[Sequence[Work]], log_file: Path | None
) -> None:
    """Answers all questions: here where they are one share, else each share in a rank of its own.

    Args:
        candidate: The model; each rank loads it.
        manner: How.
        shares: What each rank answers.
        log_file: The run's one log.

    Raises:
        MftrunError: That of a rank.
    """
    if len(shares) == 1:
        with _shown(shares, 0) as advance:
            answer_all(candidate.generator(), manner, shares[0], advance)
        return
    from mftrun import launch

    gpus = _gpus_of_ranks(candidate.backend, len(shares))
    payload = _Payload(replace(candidate), manner, shares, gpus)
    launch.run_ranks(_answer_rank, payload, num_processes=len(shares), log_file=log_file)


@dataclass(frozen=True)
class _Payload:
    candidate: Candidate
    manner: Manner
    shares: Sequence[Sequence[Work]]
    gpus: Sequence[str] | None


def _answer_rank(context: RankContext, payload: _Payload) -> None:
    if payload.gpus is not None:  # before anything touches one: then a rank's own are all there are
        os.environ[_VISIBLE] = payload.gpus[context.rank]
    generator = payload.candidate.generator()
    with _shown(payload.shares, context.rank) as advance:
        answer_all(generator, payload.manner, payload.shares[context.rank], advance)


def _gpus_of_ranks(backend: BackendOption, ranks: int) -> list[str] | None:
    """What each rank shall see of the GPUs; None where there is nothing to share."""
    from mftrun.distributed.machines import visible_gpus

    each = backend.gpus()
    if not each:
        return None
    told = os.environ.get(_VISIBLE)
    names = told.split(",") if told else [str(number) for number in range(visible_gpus())]
    return [",".join(names[rank * each : (rank + 1) * each]) for rank in range(ranks)]


def _shown(shares: Sequence[Sequence[Work]], rank: int) -> AbstractContextManager[Callable[[int], None]]:
    """The progress of the first rank, which stands for all: their shares are alike."""
    from mftrun.data.progress import progress

    counts = [sum(len(work.asked) for work in share) for share in shares]
    if rank != 0:
        return _unseen()
    on = f" on {len(shares)} ranks" if len(shares) > 1 else ""
    return progress(f"answering {sum(counts):,} questions{on}", counts[0])


@contextmanager
def _unseen() -> Iterator[Callable[[int], None]]:
    yield lambda count: None
