"""What is measured, and how a trainer's process is run, watched and ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

OUT_OF_MEMORY = "out of memory"
NOT_INSTALLED = "not installed"
_POLL_SECONDS = 0.05


@dataclass(frozen=True)
class Case:
    """One line of the table, as both trainers must do it.

    Attributes:
        shape: Name of the model.
        method: Name of the method.
        recompute: Whether activations are recomputed.
        device: `cuda` or `cpu`.
        attention: Implementation of attention.
        warmup: Steps that do not count.
        steps: Steps that count.
        limit: Seconds the whole process may take.
        material: Folder with the model and the samples.
    """

    shape: str
    method: str
    recompute: bool
    device: str
    attention: str
    warmup: int
    steps: int
    limit: float
    material: Path


@dataclass(frozen=True)
class Speed:
    """What a trainer did.

    Attributes:
        tokens_per_second: Median over the steps that count.
        memory_gib: Peak of what was allocated on the GPU by the whole process; resident memory without a GPU.
    """

    tokens_per_second: float
    memory_gib: float


class FailedError(Exception):
    """A trainer did not come to its last step; the message fits a cell of the table."""


def environment(device: str, repository: Path) -> Mapping[str, str]:
    """Of a trainer's process: one GPU or none, this checkout's mftrun, and nothing from outside."""
    path = os.pathsep.join(filter(None, (str(repository), os.environ.get("PYTHONPATH"))))
    visible = "" if device == "cpu" else os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {**os.environ, **offline, "PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": visible}


def run(
    command: Sequence[str | Path],
    folder: Path,
    variables: Mapping[str, str],
    limit: float,
    enough: Callable[[], bool] = lambda: False,
) -> None:
    """Runs a process in a folder, whose output goes to FOLDER/log, until it ends or has done enough.

    Args:
        command: What to run.
        folder: Where.
        variables: Its environment.
        limit: Seconds it may take.
        enough: Asked again and again; once true, the process is killed, with all that it started.

    Raises:
        FailedError: It failed, or took too long.
    """
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=variables, stdout=output, stderr=output, start_new_session=True
        )
    try:
        over = _watch(process, time.monotonic() + limit, enough)
    finally:
        _end(process)
    if over == "limit":
        raise FailedError(f"not done after {limit:.0f} s, see {log}")
    if over == "exit" and process.returncode != 0 and not enough():
        raise FailedError(_reason(log))


def _watch(process: subprocess.Popen[bytes], deadline: float, enough: Callable[[], bool]) -> str:
    while not enough():
        if process.poll() is not None:
            return "exit"
        if time.monotonic() > deadline:
            return "limit"
        time.sleep(_POLL_SECONDS)
    return "enough"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Killed, not asked: a run that is asked saves its model first, which may be larger than the disk."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _reason(log: Path) -> str:
    """Why a process failed, from its output."""
    text = log.read_text(encoding="utf-8", errors="replace")
    if "OutOfMemoryError" in text or OUT_OF_MEMORY in text:
        return OUT_OF_MEMORY
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1][:200].replace("|", "/") if lines else "no output"
    return f"failed: {last} (see {log})"
