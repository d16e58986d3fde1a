"""The sweep that this process runs, if it runs one: its folder, held against others, and how it ends."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from mftrun.errors import ConfigError, MftrunError
from mftrun.lock import is_locked, locked
from mftrun.paths import CONFIG_FILE, sweep_dir
from mftrun.sweeps.asked import Asked

if TYPE_CHECKING:
    from mftrun.runs.reading import Failure, RunFolder

STUDY = "study.json"
"""File in a sweep's folder: what Optuna chose for each job."""

_FOLDER = "hydra.sweep.dir"
_SAMPLER = "hydra/sweeper/sampler"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tally:
    """The jobs of a sweep by how they stand.

    Attributes:
        finished: Those that are done, pruned ones among them.
        pruned: Those of them that ended for being behind the others.
        failed: Those whose last attempt ended in an error.
        running: Those that some process works on.
        begun: All others.
    """

    finished: tuple[RunFolder, ...]
    pruned: tuple[RunFolder, ...]
    failed: tuple[RunFolder, ...]
    running: tuple[RunFolder, ...]
    begun: tuple[RunFolder, ...]

    @classmethod
    def of(cls, sweep: Path) -> Tally:
        """Counts what lies in the folder of a sweep."""
        from mftrun.runs.reading import RunFolder, State

        jobs = [RunFolder.of(path) for path in sorted(sweep.iterdir()) if _is_job(path)]
        return cls(
            finished=tuple(job for job in jobs if job.is_finished),
            pruned=tuple(job for job in jobs if job.state is State.PRUNED),
            failed=tuple(job for job in jobs if job.state is State.FAILED),
            running=tuple(job for job in jobs if job.state is State.RUNNING),
            begun=tuple(job for job in jobs if job.state in (State.STOPPED, State.NOT_STARTED)),
        )

    @property
    def tried(self) -> tuple[RunFolder, ...]:
        """Those that may say what failed: one that is finished, too, if other settings were asked for."""
        return (*self.failed, *self.finished)

    @property
    def is_empty(self) -> bool:
        """Whether there is no job yet."""
        return not (self.finished or self.failed or self.running or self.begun)


class Sweep:
    """Registers itself as what finds the folder of a sweep; holds that folder until it exits.

    Attributes:
        folder: Of the sweep; None in a process that runs none.
    """

    def __init__(self) -> None:
        self.folder: Path | None = None
        self._held = ExitStack()
        self._begun = datetime.now(UTC).replace(microsecond=0)

    def __reduce__(self) -> tuple[type[Sweep], tuple[()]]:
        """Launchers take the resolvers along to other machines; there it holds nothing."""
        return Sweep, ()

    def __enter__(self) -> Sweep:
        OmegaConf.register_new_resolver("sweep_dir", self._place, use_cache=True, replace=True)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        OmegaConf.register_new_resolver("sweep_dir", sweep_dir, use_cache=True, replace=True)
        with self._held:
            if self.folder is not None:
                self._end(error)

    def _place(
        self,
        name: Any,
        resume: Any,
        output_dir: Any,
        overrides: Sequence[str],
        sweeper: Mapping[str, Any] | None,
    ) -> str:
        path = Path(sweep_dir(name, resume, output_dir, overrides, sweeper))
        tally = Tally.of(path)
        if is_locked(path) or tally.running:
            raise ConfigError(
                "resume",
                f"this sweep is running in {path} already; wait for it, or start another beside it: with "
                "resume=never, or another output_dir",
            )
        self._held.enter_context(locked(path))
        self.folder = path
        if not tally.is_empty:
            log.info(
                "going on with the sweep in %s: finished %d, stopped %d, failed %d; the finished are not run "
                "again (resume=never starts another sweep)",
                *(path, len(tally.finished), len(tally.begun), len(tally.failed)),
            )
        asked = Asked.of(overrides, sweeper)
        if not asked.is_same(Asked.read(path)):
            (path / STUDY).unlink(missing_ok=True)  # in a folder that was named and holds another sweep's
        asked.note(path)
        return str(path)

    def _end(self, error: BaseException | None) -> None:
        assert self.folder is not None
        tally = Tally.of(self.folder)
        if tally.is_empty:  # submitted, for others to run
            return
        log.info(
            "the sweep in %s: finished %d (pruned %d), failed %d, unfinished %d%s",
            *(self.folder, len(tally.finished), len(tally.pruned), len(tally.failed)),
            len(tally.running) + len(tally.begun),
            "; the same command goes on with it" if error or tally.failed or tally.begun else "",
        )
        if error is None or isinstance(error, Exception):
            _compare(self.folder, tally)
        broken = {job.name: why for job in tally.tried if (why := job.failure) and self._is_new(why)}
        if broken and (error is None or _is_of_sweeper(error, tally, broken)):
            name, why = next(iter(broken.items()))
            raise MftrunError(
                f"{len(broken)} jobs of the sweep in {self.folder} failed; the first: {name}: {why.message}"
            ) from error

    def _is_new(self, failure: Failure) -> bool:
        """Whether it is of this command; one that submits leaves what jobs have failed of before."""
        return failure.time is None or datetime.fromisoformat(failure.time) >= self._begun


def refuse_unusable(arguments: Sequence[str]) -> None:
    """Refuses what Hydra would take and a sweep here cannot use.

    Args:
        arguments: The command line.

    Raises:
        ConfigError: It names a folder that nothing here would hold, count or compare, or Optuna's grid, which
            is in another order each time.
    """
    for argument in arguments:
        key, _, value = argument.lstrip("+").partition("=")
        if key == _FOLDER:
            raise ConfigError(_FOLDER, f"does not say where a sweep goes; say output_dir={value or 'DIR'}")
        if (key, value) == (_SAMPLER, "grid"):
            raise ConfigError(_SAMPLER, "grid is what a sweep without Optuna runs: -m KEY=A,B OTHER=C,D")


def _is_job(path: Path) -> bool:
    return (path / CONFIG_FILE).exists() or (path / ".hydra").is_dir()


def _is_of_sweeper(error: BaseException, tally: Tally, broken: Collection[str]) -> bool:
    """Optuna's complaint that no trial has a value says less than what the jobs failed of."""
    return isinstance(error, ValueError) and all(job.name in broken for job in tally.finished)


def _compare(folder: Path, tally: Tally) -> None:
    if not any(job.is_training for job in tally.finished):
        return
    from mftrun.compare.write import compare_sweep

    compare_sweep(folder)
