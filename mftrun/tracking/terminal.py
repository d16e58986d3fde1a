"""Logging and a live display on one terminal, without tearing each other."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

PLAIN_LOGGER = "mftrun.progress"
"""Logger of lines that a live terminal shows in a better form; they always reach log files."""


@contextlib.contextmanager
def plain_lines_hidden() -> Iterator[None]:
    """Keeps the lines of `PLAIN_LOGGER` off the terminal; log files still get them."""
    handlers = terminal_handlers()
    for handler in handlers:
        handler.addFilter(_not_plain)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_not_plain)


@contextlib.contextmanager
def handlers_follow_streams(handlers: list[logging.StreamHandler[Any]]) -> Iterator[None]:
    """Points handlers at what stderr is now (a display's proxy), and back at their own streams afterwards."""
    # Some handlers ask for stderr at every message: they follow by themselves, and refuse to be pointed.
    handlers = [handler for handler in handlers if "stream" in vars(handler)]
    streams = [handler.stream for handler in handlers]
    for handler in handlers:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            handler.setStream(stream)


def terminal_handlers() -> list[logging.StreamHandler[Any]]:
    """Handlers of any logger that write to a terminal."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = [handler for item in loggers if isinstance(item, logging.Logger) for handler in item.handlers]
    return [h for h in dict.fromkeys(handlers) if isinstance(h, logging.StreamHandler) and _on_terminal(h)]


def _on_terminal(handler: logging.StreamHandler[Any]) -> bool:
    try:
        return not isinstance(handler, logging.FileHandler) and bool(handler.stream.isatty())
    except (AttributeError, ValueError):
        return False


def _not_plain(record: logging.LogRecord) -> bool:
    return record.name != PLAIN_LOGGER
