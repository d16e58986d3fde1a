"""Where things lie: the packaged configs, and the directory of every run."""

from __future__ import annotations

import datetime
import os
import re
import tempfile
from pathlib import Path

from mftrun.errors import ConfigError

RUNS = Path("runs")
CONFIG_FILE = "config.yaml"
CHECKPOINTS = "checkpoints"
MANIFEST = "manifest.json"
SUMMARY = "summary.json"
_MAX_JOB_NAME = 100


def resource_dir(name: str) -> Path:
    """Folder `name` that ships with the package: `conf` or `launchers`.

    A wheel carries it inside the package; a clone and an editable install keep it beside the package.
    """
    package = Path(__file__).resolve().parent
    for folder in (package / name, package.parent / name):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"mftrun is installed without its folder {name!r}: {package / name}")


def run_dir(name: str, resume: str | None, output_dir: str | None) -> str:
    """Directory of a run, made if it is new. Registered as the resolver `run_dir`.

    Args:
        name: The run's name; new runs go to `runs/<name>/<time>`.
        resume: `None` for a new run, `auto` for the newest unfinished run of this name that has a
            checkpoint (a new run if there is none), or the path of a run or of one of its checkpoints.
        output_dir: An explicit directory; it wins over the other two.

    Raises:
        ConfigError: The directory cannot be written, holds another run, or there is nothing to resume.
    """
    resumed = _resumed_run(name, resume)
    if output_dir is not None:
        return str(_explicit(Path(output_dir), resume))
    return str(_writable(resumed)) if resumed is not None else str(_new(RUNS / name))


def sweep_dir(name: str, output_dir: str | None) -> str:
    """Directory of a multirun, made if it is new. Registered as the resolver `sweep_dir`."""
    return str(_new(RUNS / "sweeps" / name) if output_dir is None else _writable(Path(output_dir)))


def job_subdir(number: int, overrides: str) -> str:
    """Folder name of one job of a multirun: its number and its overrides, safe as a file name."""
    short = (_last_component(override) for override in overrides.split(","))
    name = re.sub(r"[^\w.=+-]+", "-", ",".join(filter(None, short)).replace(",", "_"))
    return f"{number}_{name}"[:_MAX_JOB_NAME].rstrip("_-.")


def complete_checkpoints(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest step first. An incomplete one has no manifest."""
    found = (path.parent for path in (run / CHECKPOINTS).glob(f"step-*/{MANIFEST}"))
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def _last_component(override: str) -> str:
    """`data.tasks.a.path=/long/way/to/a` → `path=a`: a job's name should show values, not ways."""
    key, equals, value = override.partition("=")
    return f"{key.rpartition('.')[2]}{equals}{value.rstrip('/').rpartition('/')[2]}"


def _resumed_run(name: str, resume: str | None) -> Path | None:
    if resume is None:
        return None
    if resume == "auto":
        return _newest_unfinished(RUNS / name)
    return _run_of(Path(resume))


def _newest_unfinished(runs: Path) -> Path | None:
    unfinished = [
        path.parent for path in runs.glob(f"*/{CHECKPOINTS}") if not (path.parent / SUMMARY).exists()
    ]
    resumable = [(points[-1].stat().st_mtime, run) for run in unfinished if (points := complete_checkpoints(run))]
    return max(resumable)[1].absolute() if resumable else None


def _run_of(path: Path) -> Path:
    run = path.parent.parent if path.parent.name == CHECKPOINTS else path
    if not path.is_dir():
        raise ConfigError("resume", f"{path} does not exist; give a run directory, one of its checkpoints, or auto")
    if path is not run and not (path / MANIFEST).is_file():
        raise ConfigError("resume", f"{path} is not a complete checkpoint (no {MANIFEST})")
    if not complete_checkpoints(run):
        raise ConfigError("resume", f"{run} holds no complete checkpoint (no {CHECKPOINTS}/step-*/{MANIFEST})")
    return run.absolute()


def _explicit(path: Path, resume: str | None) -> Path:
    if resume is None and (path / CONFIG_FILE).exists():
        raise ConfigError(
            "output_dir",
            f"{path} already holds a run; continue it with resume=auto or resume={path}, or choose another folder",
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
            f"cannot write to the run directory {path} ({reason}: {where}); give a folder that can be written",
        ) from error
    return path
