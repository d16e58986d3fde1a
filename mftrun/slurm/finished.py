"""Jobs of a repeated sweep that are done: asked of their folders, so that none takes a place in a queue."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, configure_log, run_job, setup_globals
from omegaconf import DictConfig, open_dict

from mftrun.paths import SUMMARY

_NUMBER = re.compile(r"\d+")


class FinishedJobs:
    """Looks for jobs of a sweep that have been run before.

    Args:
        context: Hydra's, with what composes a job.
        task: What runs one; it returns at once for one that is done.
        config: The composed config of the sweep.
    """

    def __init__(self, context: Any, task: Any, config: DictConfig | None) -> None:
        assert config is not None, "Hydra calls setup first"
        self._context = context
        self._task = task
        self._config = config
        self._sweep = Path(str(config.hydra.sweep.dir))

    def among(self, given: Mapping[int, Sequence[str]]) -> dict[int, JobReturn]:
        """What the jobs that are done have returned, by their numbers.

        Args:
            given: Number of a job to its overrides.

        Raises:
            ConfigError: One of them had other settings.
        """
        summaries = (_NUMBER.match(path.parent.name) for path in self._sweep.glob(f"*/{SUMMARY}"))
        numbers = {int(found[0]) for found in summaries if found}
        jobs = {number: self._job(number, given[number]) for number in given if number in numbers}
        return {number: self._returned(job) for number, job in jobs.items() if self._is_done(job)}

    def _job(self, number: int, overrides: Sequence[str]) -> DictConfig:
        config: DictConfig = self._context.config_loader.load_sweep_config(self._config, list(overrides))
        with open_dict(config):
            config.hydra.job.id = number
            config.hydra.job.num = number
        return config

    def _is_done(self, job: DictConfig) -> bool:
        from mftrun.runs.reading import RunFolder

        return RunFolder.of(self._sweep / str(job.hydra.sweep.subdir)).is_finished

    def _returned(self, job: DictConfig) -> JobReturn:
        setup_globals()
        try:
            done: JobReturn = run_job(
                hydra_context=self._context,
                task_function=self._task,
                config=job,
                job_dir_key="hydra.sweep.dir",
                job_subdir_key="hydra.sweep.subdir",
            )
        finally:
            configure_log(self._config.hydra.hydra_logging, self._config.hydra.verbose)
        _ = done.return_value  # raises what it failed of
        return done
