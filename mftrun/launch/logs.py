"""Logging inside a rank: one log file for the whole run, rank 0 in full, the others when it matters."""

from __future__ import annotations

import logging
import sys
import warnings
from pathlib import Path

LOG_FORMAT = "%(asctime)s %(levelname)-7s %(name)s: %(message)s"
CONSOLE_FORMAT = "%(message)s"
DATE_FORMAT = "%Y-%m-%d %H:%M:%S"
"""The formats of `conf/hydra/job_logging/mftrun.yaml`: parent and ranks write one log."""

QUIET_LOGGERS = (
    "accelerate",
    "datasets",
    "filelock",
    "fsspec",
    "httpcore",
    "httpx",
    "huggingface_hub",
    "matplotlib",
    "peft",
    "torch",
    "transformers",
    "urllib3",
)
"""Libraries whose messages below WARNING tell a user nothing."""


def silence_imports() -> None:
    """Keeps libraries from remarking, wherever they are imported, on what a user cannot act on."""
    warnings.filterwarnings("ignore", category=FutureWarning)
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)


def configure_logging(rank: int, log_file: Path | None, level: int = logging.INFO) -> None:
    """Send this rank's log records and Python warnings to the console and to the run's log file.

    Args:
        rank: 0 logs from `level` on; other ranks from WARNING on, marked with their number.
        log_file: The run's one log, appended to; None for the console alone.
        level: The lowest level that rank 0 logs.
    """
    console, mark = logging.StreamHandler(sys.stdout), "" if rank == 0 else f"[rank {rank}] "
    console.setFormatter(logging.Formatter(mark + CONSOLE_FORMAT))
    handlers: list[logging.Handler] = [console]
    if log_file is not None:
        file = logging.FileHandler(log_file, mode="a", encoding="utf-8")
        text = LOG_FORMAT.replace(CONSOLE_FORMAT, mark + CONSOLE_FORMAT)
        file.setFormatter(logging.Formatter(text, DATE_FORMAT))
        handlers.append(file)
    for handler in handlers:
        handler.addFilter(_tells_something)
    lowest = level if rank == 0 else max(level, logging.WARNING)
    logging.basicConfig(level=lowest, handlers=handlers, force=True)
    logging.captureWarnings(True)
    # What libraries tell each other's developers is nothing that a user can act on.
    warnings.filterwarnings("ignore", category=FutureWarning)
    for name in QUIET_LOGGERS:
        _quieten(logging.getLogger(name))


def _tells_something(record: logging.LogRecord) -> bool:
    """Not the compiler's command lines, with which DeepSpeed finds out what it could compile."""
    return "distutils" not in record.pathname


def _quieten(logger: logging.Logger) -> None:
    # Some of these libraries bring a handler of their own, which would keep their warnings out of the file.
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)
