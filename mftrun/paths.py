"""Where things lie: the packaged configs, and the directory of every run."""

from __future__ import annotations

import datetime
import os
import re
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mftrun.errors import ConfigError
from mftrun.lock import is_locked
from mftrun.sweeps.asked import MULTIRUN, Asked
from mftrun.training.checkpoint import FOLDER, Checkpoints, fault_of

RUNS = Path("runs")
CONFIG_FILE = "config.yaml"
SUMMARY = "summary.json"
FAILURE = "failure.json"
NEVER = "never"
"""The value of `resume` that leaves what there is alone."""
_MAX_JOB_NAME = 100
_HOW = ("cluster", "sweep")
"""Groups that say how jobs are run, not what they do."""


def resource_dir(name: str) -> Path:
    """Folder `name` that ships with the package: `conf` or `launchers`.

    A wheel carries it inside the package; a clone and an editable install keep it beside the package.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"mftrun is installed without its folder {name!r}: {package / name}")


def cache_dir(chosen: str | None) -> Path:
    """Where tokens are kept for all runs: the folder chosen, else $MFTRUN_CACHE, else ~/.cache/mftrun."""
    folder = chosen or os.environ.get("MFTRUN_CACHE") or "~/.cache/mftrun"
    return Path(folder).expanduser().absolute()


def run_dir(name: Any, resume: Any, output_dir: Any) -> str:
    """Directory of a run, made if it is new. Registered as the resolver `run_dir`.

    Args:
        name: The run's name; new runs go to `runs/<name>/<time>`.
        resume: `None` or `never` for a new run, `auto` for the newest unfinished run of this name that has a
            checkpoint (a new run if there is none), or the path of a run or of one of its checkpoints.
        output_dir: An explicit directory; it wins over the other two.

    Raises:
        ConfigError: The directory cannot be written, holds another run, or there is nothing to resume.
    """
    parent = _runs_of(RUNS, name)
    resume = None if resume == NEVER else resume
    if output_dir is not None:
        return str(_explicit(Path(str(output_dir)).expanduser(), resume))
    resumed = _resumed_run(parent, resume)
    return str(_writable(resumed)) if resumed is not None else str(_new(parent))


def sweep_dir(
    name: Any,
    resume: Any = None,
    output_dir: Any = None,
    overrides: Sequence[str] = (),
    sweeper: Mapping[str, Any] | None = None,
) -> str:
    """Directory of a multirun, made if it is new. Registered as the resolver `sweep_dir`.

    Args:
        name: The run's name; new sweeps go to `runs/sweeps/<name>/<time>`.
        resume: `never` for a new sweep; anything else for the newest that was asked for the same, if there
            is one.
        output_dir: An explicit directory; it wins over the name.
        overrides: What the sweep was asked for (`hydra.overrides.task`).
        sweeper: What makes jobs of them (`hydra.sweeper`).

    Raises:
        ConfigError: The directory cannot be written, or holds a sweep although `resume` is `never`.
    """
    parent = _runs_of(RUNS / "sweeps", name)
    if output_dir is not None:
        path = _writable(Path(str(output_dir)).expanduser())
        if resume == NEVER and (path / MULTIRUN).exists():
            raise ConfigError("resume", f"{path} holds a sweep; choose another output_dir for a new one")
        return str(path)
    same = None if resume == NEVER else _newest_sweep(parent, Asked.of(overrides, sweeper))
    return str(_new(parent) if same is None else _writable(same))


def _newest_sweep(parent: Path, asked: Asked) -> Path | None:
    """The newest sweep that was asked for the same."""
    folders = sorted(parent.glob(f"*/{MULTIRUN}"), key=lambda path: path.stat().st_mtime, reverse=True)
    return next((path.parent for path in folders if asked.is_same(Asked.read(path.parent))), None)


def job_subdir(number: int, overrides: str, sweep: str | None = None) -> str:
    """Folder name of one job of a multirun: its number and what was swept, safe as a file name.

    Args:
        number: Of the job, from 0.
        overrides: Its own, joined by commas.
        sweep: The sweep's folder, which says what it sweeps over; by default the command line says it.
    """
    asked = None if sweep is None else Asked.read(Path(sweep))
    # Where there is no note, the command line tells; on another machine it is not ours.
    swept = (asked or Asked.of([one for one in sys.argv[1:] if not one.startswith("-")])).swept()
    keys = ((one, one.partition("=")[0].lstrip("+")) for one in overrides.split(","))
    chosen = (one for one, key in keys if (key in swept if swept else key not in _HOW))
    short = (_last_component(override) for override in chosen)
    name = re.sub(r"[^\w.=+-]+", "-", ",".join(filter(None, short)).replace(",", "_"))
    return f"{number}_{name}"[:_MAX_JOB_NAME].rstrip("_-.")


def _last_component(override: str) -> str:
    """`data.tasks.a.path=/long/way/to/a` → `path=a`: a job's name should show values, not ways."""
    key, equals, value = override.partition("=")
    return f"{key.rpartition('.')[2]}{equals}{value.rstrip('/').rpartition('/')[2]}"


def _runs_of(parent: Path, name: Any) -> Path:
    """Folder of the runs of one name, below `parent` whatever the name says."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w.=+ -]+", name) or set(name) <= {"."}:
        raise ConfigError("name", f"must be text that can name a folder, not {name!r}")
    return parent / name


def _resumed_run(runs: Path, resume: Any) -> Path | None:
    if resume is None:
        return None
    return _newest_unfinished(runs) if resume == "auto" else _run_of(Path(str(resume)).expanduser())


def _newest_unfinished(runs: Path) -> Path | None:
    started = (path.parent for path in runs.glob(f"*/{FOLDER}") if not (path.parent / SUMMARY).exists())
    started = (run for run in started if not is_locked(run))
    newest = [(point.stat().st_mtime, run) for run in started if (point := Checkpoints(run).newest())]
    return max(newest)[1].absolute() if newest else None


def _run_of(path: Path) -> Path:
    run = path.parent.parent if path.parent.name == FOLDER else path
    if not path.is_dir():
        raise ConfigError(
            "resume", f"{path} does not exist; give a run directory, one of its checkpoints, or auto"
        )
    if path is not run and (fault := fault_of(path)):
        raise ConfigError("resume", f"{path} is not a complete checkpoint: {fault}")
    if Checkpoints(run).newest() is None:
        raise ConfigError("resume", f"{run} holds no complete checkpoint in its folder {FOLDER}/")
    return run.absolute()


def _explicit(path: Path, resume: Any) -> Path:
    if resume is None and (any(path.glob(f"{FOLDER}/step-*")) or (path / SUMMARY).exists()):
        raise ConfigError(
            "output_dir",
            f"{path} already holds a run; go on with it by resume=auto, or choose another folder",
        )
    return _writable(path)


def _new(parent: Path) -> Path:
    """Make `parent/<time>`. Making it here, exclusively, keeps two runs started in one second apart."""
    stamp = datetime.datetime.now().strftime("%Y-%m-%d_%H-%M-%S")
    _writable(parent)
    for suffix in ("", *(f"-{i}" for i in range(2, 1000))):
        path = parent.absolute() / (stamp + suffix)
        try:
            path.mkdir()
        except FileExistsError:
            continue
        return path
    raise ConfigError("name", f"a thousand runs of this name started in one second in {parent}")


def _writable(path: Path) -> Path:
    """Make the directory and try a file in it: permissions alone do not tell about a read-only disk."""
    path = path.absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        where = error.filename if isinstance(error, FileExistsError | NotADirectoryError) else path
        raise ConfigError(
            "output_dir",
            f"cannot write to the run directory {path} ({reason}: {where}); choose another folder",
        ) from error
    return path
