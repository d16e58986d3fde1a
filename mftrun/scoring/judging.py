"""Many programs judged side by side, equal ones once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial

from mftrun.languages.base import Judged, Program, Verdict
from mftrun.scoring.attempts import Attempt
from mftrun.scoring.stopping import Stopping

Judge = Callable[[Program], Judged]


def judged_together(
    attempts: Iterable[Attempt], judge: Judge, workers: int
) -> Iterator[tuple[list[Attempt], Judged]]:
    """Judges programs, and gives each verdict as it comes, with all attempts that it is about.

    What the sandbox fails at is tried once more. Where nobody asks any more, the programs that run are ended.

    Args:
        attempts: The programs.
        judge: Judges one; is called from several threads at once.
        workers: Programs at a time.
    """
    pool, stopping = ThreadPoolExecutor(workers), Stopping()
    judged = partial(_judged, stopping.stoppable(judge))
    try:
        running = {pool.submit(judged, equal[0].program): equal for equal in _equal(attempts)}
        for done in as_completed(running):
            yield running[done], done.result()
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        stopping.stop()
        pool.shutdown()


def _equal(attempts: Iterable[Attempt]) -> Sequence[list[Attempt]]:
    groups: dict[str, list[Attempt]] = {}
    for attempt in attempts:
        groups.setdefault(attempt.key, []).append(attempt)
    return list(groups.values())


def _judged(judge: Judge, program: Program) -> Judged:
    first = _anyhow(judge, program)
    return _anyhow(judge, program) if first.verdict is Verdict.SANDBOX_ERROR else first


def _anyhow(judge: Judge, program: Program) -> Judged:
    """A verdict, whatever happens: one program is no reason to end the scoring of all."""
    try:
        return judge(program)
    except Exception as error:
        return Judged(Verdict.SANDBOX_ERROR, f"{type(error).__name__}: {error}", 0.0)
