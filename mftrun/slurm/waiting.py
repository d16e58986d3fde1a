"""Waiting for jobs: their results, or the news that there will be none."""

from __future__ import annotations

import logging
import subprocess
import time
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from mftrun.slurm.errors import JobFailed

_LOOK = 0.5
_ASK = 5.0
"""Seconds between two questions to Slurm, which many users ask."""
_ASK_AT_END = 1.0
"""The same, once all jobs have results."""
_log = logging.getLogger(__name__)


def outcomes(jobs: Sequence[Any], job_overrides: Sequence[Sequence[str]]) -> list[JobReturn]:
    """What has become of each job, once all are over.

    Args:
        jobs: As submitted.
        job_overrides: Their overrides.
    """
    try:
        _wait(jobs)
    except KeyboardInterrupt:
        number = str(jobs[0].job_id).partition("_")[0]
        _log.warning("the jobs go on without this program; scancel %s ends them", number)
        raise
    return [_outcome(job, overrides) for job, overrides in zip(jobs, job_overrides, strict=True)]


def _wait(jobs: Sequence[Any]) -> None:
    """Returns when all are out of the queue: a result may be of a start that a lost node has ended."""
    asked = time.monotonic()
    waiting = list(jobs)
    while waiting:
        time.sleep(_LOOK)
        pause = _ASK_AT_END if all(map(_has_result, waiting)) else _ASK
        if time.monotonic() - asked >= pause:
            known = queued(job.job_id for job in waiting)
            waiting = [job for job in waiting if known is None or job.job_id in known]
            asked = time.monotonic()


def _has_result(job: Any) -> bool:
    return bool(job.paths.result_pickle.exists())


def queued(numbers: Iterable[str]) -> dict[str, str] | None:
    """States of those jobs that are not over, by their number; None where Slurm does not answer."""
    bases = sorted({number.partition("_")[0] for number in numbers})
    command = ["squeue", "--noheader", "--array", "--format=%i %T", f"--jobs={','.join(bases)}"]
    try:
        done = subprocess.run(command, text=True, capture_output=True, check=False)
    except OSError:  # in an image without Slurm's commands
        return None
    if done.returncode and "Invalid job id" not in done.stderr:
        return None
    return {number: state for number, _, state in (line.partition(" ") for line in done.stdout.splitlines())}


def _outcome(job: Any, overrides: Sequence[str]) -> JobReturn:
    if not _has_result(job):
        return _failed(job, overrides, "was cancelled, or ended with its node, before it had a result")
    from submitit.core.utils import pickle_load

    kind, result = pickle_load(job.paths.result_pickle)
    if kind == "success":
        assert isinstance(result, JobReturn)
        return result
    return _failed(job, overrides, f"failed: {JobFailed.text_in(result)}")


def _failed(job: Any, overrides: Sequence[str], how: str) -> JobReturn:
    error = JobFailed(f"job {job.job_id} {how}\nits log: {job.paths.stdout}")
    _log.error("%s", error)
    return JobReturn(overrides=overrides, status=JobStatus.FAILED, _return_value=error)
