"""How a job that leaves before it is done is queued again, and when it is not."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mftrun.slurm.controller import Controller
from mftrun.slurm.errors import JobFailed

if TYPE_CHECKING:
    from submitit.core.job_environment import SignalHandler

_WAY_ON = "the same command goes on with it"
_log = logging.getLogger(__name__)


class Submission:
    """What submitit starts when the job begins, in a file that also counts.

    Args:
        handler: submitit's answer to signals, which knows the file.
    """

    def __init__(self, handler: SignalHandler) -> None:
        self._handler = handler

    @property
    def left(self) -> int:
        """How often the job may still come back for its own reasons."""
        return int(self._handler._delayed._timeout_countdown)

    def keep(self, left: int) -> None:
        """Writes the file for the next start."""
        from submitit.core.job_environment import _checkpoint

        _checkpoint(self._handler._delayed, self._handler._job_paths.submitted_pickle, left)

    def forget_result(self) -> None:
        """What an earlier start has come to says nothing of this one."""
        self._handler._job_paths.result_pickle.unlink(missing_ok=True)


class Comeback:
    """Queues a job again.

    Args:
        submission: Counts.
        controller: Slurm, where it is about this job.
        delay: Seconds before its limit at which a job is told to leave.
    """

    def __init__(self, submission: Submission, controller: Controller, delay: float) -> None:
        self._submission = submission
        self._controller = controller
        self._delay = delay

    def ask_for(self, *, lost: bool) -> None:
        """Queues the job again, unless somebody has cancelled it, or Slurm has queued it itself.

        Args:
            lost: Whether it leaves because a node of it is gone.

        Raises:
            JobFailed: It cannot come back, or has done so too often.
        """
        known = self._controller.known()
        if isinstance(known, str):
            raise JobFailed(f"stopped, and not queued again: Slurm does not answer ({known}); {_WAY_ON}")
        if not known.meant_to_run:
            _log.warning("not queued again by this job: for Slurm it is %s", known.state.lower())
            return
        if not known.may_return:
            raise JobFailed(
                "stopped, and not queued again: the job was submitted so that it may not be (no-requeue in "
                f"hydra.launcher.additional_parameters, or requeue=false); {_WAY_ON}"
            )
        left = self._submission.left - (lost or known.time_is_over(self._delay))
        if left < 0:
            raise JobFailed(f"stopped: timed-out too many times (hydra.launcher.max_num_timeout); {_WAY_ON}")
        self._submission.keep(left)
        if problem := self._controller.queue_again():
            raise JobFailed(f"stopped, and not queued again: Slurm refuses that ({problem}); {_WAY_ON}")
        _log.warning("queued again as job %s (%d remaining timeouts)", self._controller.job, left)
