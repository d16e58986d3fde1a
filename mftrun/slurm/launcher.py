"""Hydra's launcher for Slurm: the plugin's own, for runs that span nodes, leave in time and come back."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra_plugins.hydra_submitit_launcher import submitit_launcher
from omegaconf import DictConfig
from omegaconf.basecontainer import BaseContainer

from mftrun.errors import ConfigError

_SWEEP_DIR = "hydra.sweep.dir"
_RESOLVERS = "omegaconf_resolvers"
_log = logging.getLogger(__name__)


class SlurmLauncher(submitit_launcher.SlurmLauncher):  # type: ignore[misc]
    """Submits the jobs of a multirun as one array; each starts the ranks of its nodes itself.

    Args:
        submitit_folder: Where scripts, logs and results of the jobs go.
        wait: Whether to wait for the results; None leaves unless the sweeper needs them.
        max_num_timeout: How often a job is queued again when its time is over.
        container: Image to run in, for a Slurm that has `srun --container-image`.
        python: Interpreter to run with; None takes this one.
        srun_args: Further options of `srun`.
        parameters: The rest; see `launchers/hydra/launcher/mftrun_slurm.yaml`.
    """

    def __init__(
        self,
        *,
        submitit_folder: str,
        wait: bool | None = None,
        max_num_timeout: int = 0,
        container: str | None = None,
        python: str | None = None,
        srun_args: Sequence[str] = (),
        **parameters: Any,
    ) -> None:
        super().__init__(**parameters)
        self._folder = submitit_folder
        self._wait = wait
        self._executor = {"slurm_max_num_timeout": max_num_timeout, "slurm_python": python}
        image = [] if container is None else [f"--container-image={container}"]
        cores = self.params.get("cpus_per_task")
        # Since Slurm 22.05 srun does not take this number from the job.
        cpus = [] if cores is None else [f"--cpus-per-task={cores}"]
        self.params["srun_args"] = [*cpus, *image, *map(str, srun_args)]
        self._arguments = sys.argv[1:]
        self._has_launched = False

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Submits the jobs that are not done yet, and waits for them if it must.

        Raises:
            ConfigError: Slurm does not take them, a job that is done had other settings, or a sweeper needs
                results that nobody waits for.
        """
        from mftrun.slurm.finished import FinishedJobs
        from mftrun.slurm.submission import refuse_queued

        self._waits()
        if not self._has_launched:  # what this command has submitted since is its own
            refuse_queued(Path(self._folder).parent)
        self._has_launched = True
        given = dict(enumerate(job_overrides, start=initial_job_idx))
        for number, overrides in given.items():
            _log.info("#%d: %s", number, " ".join(filter_overrides(overrides)))
        done = FinishedJobs(self.hydra_context, self.task_function, self.config).among(given)
        left = {number: overrides for number, overrides in given.items() if number not in done}
        done |= self._submitted(left) if left else {}
        return [done[number] for number in given]

    def __call__(self, *arguments: Any) -> JobReturn | None:
        """Runs one job, in every task that Slurm starts for it."""
        from mftrun.slurm.job import Terms, job_of_slurm

        *others, state = arguments
        sys.argv = ["mftrun", *self._arguments]
        whole = {**state, _RESOLVERS: BaseContainer._resolvers}
        sweep = Path(str(_hydra(self.config).sweep.dir))
        terms = Terms(sweep, delay=self.params["signal_delay_s"], compares=not self._waits())
        return job_of_slurm(lambda: submitit_launcher.SlurmLauncher.__call__(self, *others, whole), terms)

    def _submitted(self, given: Mapping[int, Sequence[str]]) -> dict[int, JobReturn]:
        from mftrun.slurm.submission import submit
        from mftrun.slurm.waiting import outcomes

        # The job has its own: those of this program belong to its sweep.
        state = {**Singleton.get_state(), _RESOLVERS: {}}
        calls = [
            (list(overrides), _SWEEP_DIR, number, f"job_id_for_{number}", state)
            for number, overrides in given.items()
        ]
        jobs = submit(self, calls, folder=self._folder, executor=self._executor, parameters=self.params)
        self._tell(jobs)
        overrides = list(given.values())
        told = outcomes(jobs, overrides) if self._waits() else map(_left, overrides)
        return dict(zip(given, told, strict=True))

    def _waits(self) -> bool:
        needed = not _hydra(self.config).sweeper["_target_"].endswith(".BasicSweeper")
        if self._wait is False and needed:
            raise ConfigError("hydra.launcher.wait", "must not be false: this sweeper chooses by results")
        return needed if self._wait is None else self._wait

    def _tell(self, jobs: Sequence[Any]) -> None:
        folder = Path(str(_hydra(self.config).sweep.dir))
        job = str(jobs[0].job_id).partition("_")[0]
        _log.info("submitted to Slurm as job %s; its runs go to %s", job, folder)
        _log.info("what they say: %s", Path(self._folder.replace("%j", f"{job}*")) / "*.out")
        _log.info("how they are: python -m mftrun job=status runs=%s; to end them: scancel %s", folder, job)


def _hydra(config: DictConfig | None) -> Any:
    assert config is not None, "Hydra calls setup first"
    return config.hydra


def _left(overrides: Sequence[str]) -> JobReturn:
    """For the sweeper: a job that goes on without us."""
    return JobReturn(overrides=overrides, status=JobStatus.COMPLETED, _return_value=None)
