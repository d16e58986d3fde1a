"""Metrics to Weights & Biases."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from mftrun.errors import ConfigError
from mftrun.files import write_atomically
from mftrun.tracking.base import RunInfo, fit_label
from mftrun.tracking.summary import Summary
from mftrun.tracking.wandb_mode import chosen_mode, logged_in

_log = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled", "shared"]

_ID_NAME = "wandb_id"
_MODES: Mapping[str, Mode] = {"online": "online", "offline": "offline", "disabled": "disabled"}
_OUTSIDE_MODES: Mapping[str, Mode] = {**_MODES, "run": "online", "dryrun": "offline", "shared": "shared"}
_MAX_JOB_TYPE = 64  # a heading in tables
_UPLOAD_SECONDS = 300.0
"""How long the end of a run waits for its upload; what is left then can be sent by `wandb sync`."""

_FLUSH_SECONDS = 1.0
"""How much of an offline run a kill can cost; the client's own 15 seconds may reach behind a checkpoint."""


class Wandb:
    """A W&B run in `RUN/wandb`; a resumed run goes on with the same W&B run.

    In mode `auto` the user's own choice (WANDB_MODE, `wandb offline`) counts; without one the run is online
    when the user is logged in, else offline, to be sent later by `wandb sync`. No server within reach makes
    an `auto` run offline too, with a warning.

    Args:
        project: W&B project.
        entity: W&B user or team; None is the user's default.
        mode: auto, online, offline or disabled.
        group: Group of the W&B run; None is the sweep's name.
        name: Display name; None is the run's name and, in a sweep, its override directory or job number.
        tags: Tags of the W&B run.

    Raises:
        ConfigError: An unknown mode.
    """

    def __init__(
        self,
        project: str = "mftrun",
        entity: str | None = None,
        mode: str = "auto",
        group: str | None = None,
        name: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        if mode != "auto" and mode not in _MODES:
            raise ConfigError("tracker.wandb.mode", f"{mode!r} is none of auto, {', '.join(_MODES)}")
        self._project = project
        self._entity = entity
        self._mode = mode
        self._group = group
        self._name = name
        self._tags = tuple(tags)
        self._run: Any = None

    def check(self) -> None:
        """Refuses a project, tag or mode that cannot work.

        Raises:
            ConfigError: Online without credentials, or a name that W&B does not take.
        """
        self.resolved_mode()
        _check_names(self._project, self._tags)

    def resolved_mode(self) -> Mode:
        """The mode to run in.

        Raises:
            ConfigError: Online is asked for, here or by WANDB_MODE, and there are no credentials.
        """
        key, mode = self._asked()
        if mode is None:
            return "online" if logged_in(os.environ) else "offline"
        if mode == "online" and not logged_in(os.environ):
            raise ConfigError(
                key,
                "online needs a W&B login: run `wandb login`, set WANDB_API_KEY, "
                "or choose tracker.wandb.mode=offline",
            )
        return mode

    def start(self, run: RunInfo) -> None:
        """Makes or continues the W&B run.

        Raises:
            ConfigError: Online without credentials, with wrong ones, or without a server within reach.
        """
        mode = self.resolved_mode()
        self._run = self._open_online(run) if mode == "online" else self._open(run, mode)
        _define_metrics(self._run)
        _log.info("W&B %s run %s%s", mode, self._run.id, _where(self._run))

    def log(self, step: int, record: Mapping[str, float]) -> None:
        """Logs one record at its step; the step is a metric too, the x-axis of all curves."""
        self._run.log({**record, "step": step}, step=step)

    def finish(self, summary: Summary | None, exit_code: int) -> None:
        """Records results and state, and waits a limited time for an upload."""
        run, self._run = self._run, None
        if run is None:
            return
        if summary is not None:
            run.summary.update(_final(summary))
        _close(run, exit_code)
        if run.offline:
            parts = Path(run.dir).parent.parent / f"offline-run-*-{run.id}*"  # one for every resumption
            _log.info("W&B: send this run with `wandb sync %s`", parts)

    def _asked(self) -> tuple[str, Mode | None]:
        """Who asks for which mode: our key, or for `auto` what the user chose outside; None for nobody."""
        return ("tracker.wandb.mode", _MODES[self._mode]) if self._mode != "auto" else _asked_outside()

    def _open_online(self, run: RunInfo) -> Any:
        import wandb

        try:
            return self._open(run, "online")
        except wandb.errors.AuthenticationError as error:
            raise ConfigError("tracker.wandb.mode", f"W&B refuses the credentials: {error}") from error
        except wandb.errors.CommError as error:
            key, mode = self._asked()
            if mode == "online":
                reason = f"no W&B server within reach: {error}; tracker.wandb.mode=offline works without one"
                raise ConfigError(key, reason) from error
            _log.warning("no W&B server within reach, this run is logged offline: %s", error)
            return self._open(run, "offline")

    def _open(self, run: RunInfo, mode: Mode) -> Any:
        import wandb

        return wandb.init(
            project=self._project,
            entity=self._entity,
            mode=mode,
            dir=str(run.run_dir),
            id=_run_id(run),
            resume="allow",
            name=fit_label(self._name or run.label),
            group=fit_label(self._group or run.group or "") or None,
            job_type=fit_label(run.variant or "", _MAX_JOB_TYPE) or None,
            tags=self._tags,
            config=dict(run.config),
            allow_val_change=True,  # a resumed run may have been changed on purpose
            settings=_settings(wandb),
        )


def _asked_outside() -> tuple[str, Mode | None]:
    demanded = os.environ.get("WANDB_MODE")
    if demanded and demanded not in _OUTSIDE_MODES:
        raise ConfigError("WANDB_MODE", f"{demanded!r} is none of {', '.join(_OUTSIDE_MODES)}")
    chosen = _OUTSIDE_MODES.get(chosen_mode(os.environ) or "")
    # W&B's settings files only ever turn it off; "online" there is the default and no demand.
    return "WANDB_MODE", chosen if demanded or chosen != "online" else None


def _check_names(project: str, tags: Sequence[str]) -> None:
    if not project or len(project) > 128 or set(project) & set("/\\#?%:"):
        reason = f"{project!r} must be 1 to 128 characters, none of /\\#?%:"
        raise ConfigError("tracker.wandb.project", reason)
    for tag in tags:
        if not 1 <= len(tag) <= 64:
            raise ConfigError("tracker.wandb.tags", f"{tag!r} must be 1 to 64 characters")


def _run_id(run: RunInfo) -> str:
    """The W&B run of this directory when it is resumed, the one a sweep agent assigned, else a new one."""
    path = run.run_dir / _ID_NAME
    if run.resumed_step is not None and path.exists():
        return path.read_text().strip()
    # The jobs of a sweep share an environment, and are runs of their own.
    assigned = os.environ.get("WANDB_RUN_ID") if run.group is None else None
    made = assigned or secrets.token_hex(4)
    write_atomically(path, made + "\n")
    return made


def _settings(wandb: Any) -> Any:
    wanted = {
        "silent": True,
        "console": "off",  # wrapping stdout would break the live display
        "finish_timeout": _UPLOAD_SECONDS,
        "x_transaction_log_flush_interval": _FLUSH_SECONDS,
    }
    # The last two are younger than W&B versions that serve us well without them.
    known = wandb.Settings.model_fields
    return wandb.Settings(**{key: value for key, value in wanted.items() if key in known})


def _close(run: Any, exit_code: int) -> None:
    import wandb

    run.finish(exit_code=exit_code)
    wandb.teardown()  # finish() may return before the service has written the end of an offline run's file


def _define_metrics(run: Any) -> None:
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    run.define_metric("valid/*", step_metric="step", summary="min,last")
    run.define_metric("benchmark/*", step_metric="step", summary="max,last")


def _final(summary: Summary) -> dict[str, Any]:
    """What the run came to; over the tasks, of the lowest loss of each."""
    totals = {"final/seconds": summary.seconds, "final/tokens_per_second": summary.tokens_per_second}
    best = [task.valid_best for task in summary.tasks.values() if task.valid_best is not None]
    if best:
        totals |= {"final/mean": fmean(best), "final/worst": max(best), "final/spread": max(best) - min(best)}
    tasks = {
        f"final/{key}/{name}": value
        for name, task in summary.to_dict()["tasks"].items()
        for key, value in task.items()
        if value is not None
    }
    return totals | tasks


def _where(run: Any) -> str:
    if run.offline:  # asking an offline run for its URL prints a warning
        return f" in {Path(run.dir).parent}"
    return f": {run.url}" if run.url else ""
