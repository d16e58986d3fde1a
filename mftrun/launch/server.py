"""Where ranks come from: a fork server that has imported the heavy libraries once.

Ranks forked from it start in a fraction of a second, and share no state with the parent. The libraries
read some environment variables as they are imported, so a run whose environment differs from the server's
gets fresh interpreters instead: slower, but every variable acts.
"""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

from mftrun.launch.stop import HELD_SIGNALS

PRELOAD = (
    "mftrun.launch",
    "torch",
    "torch.distributed",
    "torch.nn.parallel.distributed",
    "numpy",
    "transformers",
    "transformers.modeling_utils",
    "transformers.tokenization_utils_fast",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "accelerate",
    "peft",
    "mftrun.jobs.train",
)
"""What the server imports: slow, needed by every rank, and none of it touches an accelerator."""

_UNREAD = frozenset({"COLUMNS", "LINES", "OLDPWD", "PWD", "PYTEST_CURRENT_TEST", "SHLVL", "_"})


def warm_up(preload: Sequence[str] = PRELOAD) -> None:
    """Start the fork server now, so that it imports while the parent does other work.

    Returns at once; does nothing when the server stands already.

    Args:
        preload: The modules it imports; one that is missing is left to the ranks.
    """
    _server_environment(tuple(preload))


def rank_context() -> BaseContext:
    """Return the multiprocessing context that honours the parent's present environment."""
    same = _environment() == _server_environment()
    return multiprocessing.get_context("forkserver" if same else "spawn")


@contextmanager
def signals_held() -> Iterator[None]:
    """Processes started inside begin with the signals of a run blocked; ours arrive at the end."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        # It guards itself against two of them only, and lets those two through again here.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


@functools.cache
def _server_started() -> dict[str, str]:
    raise NotImplementedError


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _UNREAD}
