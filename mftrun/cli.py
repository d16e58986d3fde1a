"""The command line: compose with Hydra, check, run the job; errors as one message a user can act on."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from mftrun import hydra_plugin
from mftrun.agent import followers_told, own_arguments, own_place
from mftrun.compose import resolved
from mftrun.errors import ConfigError
from mftrun.explain import explanation
from mftrun.files import write_atomically
from mftrun.launch.logs import silence_imports
from mftrun.launch.signals import leave_when_told
from mftrun.lock import LOCK, locked
from mftrun.paths import CONFIG_FILE, NEVER, resource_dir
from mftrun.rerun import config_name
from mftrun.sweeps.asked import MULTIRUN
from mftrun.sweeps.sweep import Sweep, refuse_unusable

# Importing this module is what a launcher's worker does on another machine: it must know our resolvers.
hydra_plugin.register()

_FULL_ERROR = "HYDRA_FULL_ERROR"
_SET_BY_US = "MFTRUN_SHORT_ERRORS"
_INTERRUPTED = 130
_log = logging.getLogger(__name__)


@runtime_checkable
class Job(Protocol):
    """What `job` builds: one thing to do with a config, in a directory of its own."""

    def run(self, config: Mapping[str, Any], run_dir: Path) -> float | None:
        """Does it, in the parent process.

        Args:
            config: The resolved and checked config.
            run_dir: The run's directory, which exists.

        Returns:
            The metric that a sweeper minimizes, if there is one.
        """


def main() -> None:
    """Runs `python -m mftrun` with `sys.argv`; exits with 1 after an error, 130 after Ctrl-C."""
    sys.argv[1:] = own_arguments(sys.argv[1:])
    leave_when_told(os.environ)
    silence_imports()
    with _errors_reach_us(), followers_told(sys.argv[1:]):
        try:
            refuse_unusable(sys.argv[1:])
            _lead_or_follow(sys.argv[1:])
            with Sweep():
                _hydra_main(config_name(sys.argv[1:]))()
        except KeyboardInterrupt:
            sys.exit(_INTERRUPTED)
        except Exception as error:
            _print_error(error)
            sys.exit(1)


def _lead_or_follow(arguments: list[str]) -> None:
    """Returns in a process that is alone, or that leads; one that follows does so, and exits."""
    place = own_place(arguments)
    if place is None:
        return
    from mftrun.launch.errors import Stopped
    from mftrun.launch.follower import follow
    from mftrun.launch.team import lead

    if place.index == 0:
        lead(place, arguments)
        return
    try:
        sys.exit(follow(place, arguments))
    except Stopped as stop:
        raise SystemExit(stop.exit_code) from None


def run(cfg: DictConfig) -> float | None:
    """Runs one composed job in the directory that Hydra made for it.

    Args:
        cfg: The composed config, without Hydra's own part.

    Returns:
        The job's metric, which a sweeper minimizes; `None` if it has none.
    """
    from mftrun.launch.errors import Stopped

    run_dir = Path(HydraConfig.get().runtime.output_dir)
    try:
        return _run(cfg, run_dir)
    except Stopped as stop:
        _log.warning("%s; %s", stop, _way_on(run_dir))
        raise SystemExit(stop.exit_code) from None  # ends a sweep, too
    except KeyboardInterrupt as interrupt:
        told = "; ".join(getattr(interrupt, "__notes__", ()))  # of a job without checkpoints
        _log.warning("stopped by Ctrl-C; %s", told or _way_on(run_dir))
        raise
    except Exception as error:
        _log_error(error, run_dir)
        if explanation(error, sys.argv[1:]) is not None:
            _leave_no_empty_run(run_dir)
        if _in_sweep():
            raise  # the sweep goes on with its other jobs, and ends with this error
        raise SystemExit(1) from error


def _run(cfg: DictConfig, run_dir: Path) -> float | None:
    # pydantic and the job's modules cost time that --help and --cfg need not pay.
    from mftrun.runs.slurm import note_slurm_job
    from mftrun.sweeps import outcome

    with locked(run_dir), _failure_noted(run_dir):
        cfg.resume = _resume(cfg.resume, run_dir)
        config, job = _checked(cfg, run_dir)
        if _in_sweep() and (earlier := outcome.finished(run_dir, config)) is not None:
            outcome.forget_failure(run_dir)
            _log.info("finished before: %s", run_dir)
            return earlier.metric
        outcome.forget_failure(run_dir)
        _save(config, run_dir)
        note_slurm_job(run_dir, os.environ)
        metric = job.run(config, run_dir)
        outcome.note_finish(run_dir, metric, in_sweep=_in_sweep())
    return metric


def _checked(cfg: DictConfig, run_dir: Path) -> tuple[dict[str, Any], Job]:
    """The resolved config, and what `job` builds; whatever can be refused beforehand has been."""
    from mftrun.build import build
    from mftrun.jobs.automatic import settled
    from mftrun.jobs.reading import refuse_unread
    from mftrun.schema import check, without_shorthands

    config = without_shorthands(resolved(cfg, run_dir))
    typed = check(config)
    if typed.evaluation.pruning.siblings is not None and not (run_dir.parent / MULTIRUN).exists():
        raise ConfigError(
            "evaluation.pruning.siblings",
            "compares the jobs of a sweep; a single run needs it to be null",
        )
    config = settled(config, typed)
    job: Job = build(config["job"], Job, "job", allowed=typed.allowed_targets)
    refuse_unread(job, HydraConfig.get().overrides.task)
    return config, job


def _in_sweep() -> bool:
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def _resume(asked: Any, run_dir: Path) -> Any:
    """What `resume` means here: a job of a repeated sweep goes on with its own checkpoints, if it has any."""
    from mftrun.training.checkpoint import FOLDER

    if _in_sweep() and any((run_dir / FOLDER).glob("step-*")):
        return "auto"
    return None if asked == NEVER else asked


@contextmanager
def _failure_noted(run_dir: Path) -> Iterator[None]:
    """An error goes to RUN/failure.json; not that a single command was refused, which is no run's end."""
    from mftrun.launch.errors import Stopped
    from mftrun.sweeps.outcome import note_failure

    try:
        yield
    except Stopped:
        raise
    except Exception as error:
        told = explanation(error, sys.argv[1:])
        if _in_sweep() or told is None or not (isinstance(error, ConfigError) or _is_empty(run_dir)):
            note_failure(run_dir, error, told or str(error))
        raise


def _way_on(run_dir: Path) -> str:
    from mftrun.training.checkpoint import Checkpoints

    if Checkpoints(run_dir).newest() is None:
        return "there is no checkpoint yet: start again"
    if _in_sweep():
        return "the same command goes on with the sweep"
    return f"go on with: python -m mftrun rerun={run_dir} resume={run_dir}"


def _leave_no_empty_run(run_dir: Path) -> None:
    """A command that was refused before it started leaves no folder; a sweep keeps the log of each job."""
    if HydraConfig.get().mode == RunMode.RUN and _is_empty(run_dir):
        shutil.rmtree(run_dir)


def _is_empty(run_dir: Path) -> bool:
    """Whether nothing is there but what is made before a job starts."""
    left = {path.name for path in run_dir.iterdir()}
    return left <= {".hydra", LOCK, CONFIG_FILE, f"{HydraConfig.get().job.name}.log"}


def _save(config: dict[str, Any], run_dir: Path) -> None:
    """Writes RUN/config.yaml. A resumed run keeps its own, unless a change of it was asked for.

    The permission to change is for this once: whoever repeats or resumes the run later is asked again.
    """
    from omegaconf import OmegaConf

    from mftrun.training.checkpoint import Checkpoints

    path, checkpoint = run_dir / CONFIG_FILE, config["checkpoint"]
    resumes = config["resume"] is not None and Checkpoints(run_dir).newest() is not None
    if path.exists() and resumes and not checkpoint["allow_changed_config"]:
        return
    saved = {**config, "checkpoint": {**checkpoint, "allow_changed_config": False}}
    try:
        write_atomically(path, OmegaConf.to_yaml(OmegaConf.create(saved)))
    except OSError as error:
        raise ConfigError("output_dir", f"cannot write {path}: {error.strerror}") from error


def _hydra_main(name: str) -> Callable[[], None]:
    decorator = hydra.main(version_base="1.3", config_path=str(resource_dir("conf")), config_name=name)
    return decorator(run)  # type: ignore[no-any-return]


@contextmanager
def _errors_reach_us() -> Iterator[None]:
    """Hydra prints exceptions itself, unless its variable is set. A user who sets it wants tracebacks."""
    if os.environ.get(_FULL_ERROR) == "1":
        yield
        return
    os.environ.update({_FULL_ERROR: "1", _SET_BY_US: "1"})
    try:
        yield
    finally:
        del os.environ[_FULL_ERROR], os.environ[_SET_BY_US]


def _wants_traceback() -> bool:
    return os.environ.get(_FULL_ERROR) == "1" and _SET_BY_US not in os.environ


def _print_error(error: Exception) -> None:
    """One clear message for what a user can put right; the traceback for everything else."""
    message = explanation(error, sys.argv[1:])
    if message is None or _wants_traceback():
        traceback.print_exception(error)
    if message is not None:
        print(f"error: {message}", file=sys.stderr)


def _log_error(error: Exception, run_dir: Path) -> None:
    """The same, to the console and to RUN/mftrun.log."""
    message = explanation(error, sys.argv[1:])
    if message is None or _wants_traceback():
        _log_failure(error, run_dir)
    if message is not None:
        _log.error("error: %s", message)


def _log_failure(error: Exception, run_dir: Path) -> None:
    """What is not the user's to mend; our own frames say nothing of a rank's end."""
    from mftrun.launch.errors import RankFailed

    if isinstance(error, RankFailed) and not _wants_traceback():
        _log.error("the run in %s failed: %s", run_dir, error)
        _log.error(_way_on(run_dir))
    else:
        _log.error("the run in %s failed", run_dir, exc_info=error)
