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

from mftrun.launch.errors import RankFailed
from mftrun.launch.stop import HELD_SIGNALS

PRELOAD = (
    "mftrun.launch.preloaded",
    "mftrun.launch",
    "numpy",
    "torch",
    "torch.distributed",
    "transformers",
    "transformers.modeling_utils",
    "transformers.tokenization_utils_fast",
    "transformers.models.auto.modeling_auto",
    "transformers.models.llama.modeling_llama",
    "accelerate",
    "torch.distributed.checkpoint",
    "hydra.utils",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
    "mftrun.jobs.train",
    "mftrun.jobs.assembly",
    "mftrun.jobs.completion",
)
"""What the server imports: slow, needed by every rank, and none of it touches an accelerator."""

# Asks torch to count devices without creating a CUDA context, which no forked rank could use.
_CUDA_CHECK = "PYTORCH_NVML_BASED_CUDA_CHECK"
# Nothing that a rank does depends on these. Torch and DeepSpeed set one each wherever they are imported;
# that of DeepSpeed the server has in any case.
_UNREAD = frozenset(
    {
        "COLUMNS",
        "LINES",
        "OLDPWD",
        "PWD",
        "PYTEST_CURRENT_TEST",
        "SHLVL",
        "_",
        "TORCHINDUCTOR_CACHE_DIR",
        _CUDA_CHECK,
    }
)


def warm_up(preload: Sequence[str] = PRELOAD) -> None:
    """Start the fork server now, so that it imports while the parent does other work.

    Returns at once; does nothing when the server stands already.

    Args:
        preload: The modules it imports; one that is missing is left to the ranks.
    """
    _server().start(preload)


def rank_context() -> BaseContext:
    """Return the multiprocessing context that honours the parent's present environment.

    Waits until the fork server has imported its modules: until then it starts no rank.

    Raises:
        RankFailed: The server ended during its imports.
    """
    warm_up()
    if _environment() != _server().environment:
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    try:
        context.Process(target=int, name="probe", daemon=True).start()
    except (EOFError, ConnectionError) as error:
        raise RankFailed(0, "the server that starts ranks ended while it imported libraries") from error
    return context


@contextmanager
def signals_held() -> Iterator[None]:
    """Processes started inside begin with the signals of a run blocked; ours arrive at the end."""
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
    try:
        # The tracker guards itself against two of them only, and unblocks those two here as it starts.
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_BLOCK, HELD_SIGNALS)
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


class _Server:
    """The one fork server of this process, and the environment it was started with."""

    def __init__(self) -> None:
        self.environment: dict[str, str] | None = None

    def start(self, preload: Sequence[str]) -> None:
        if self.environment is None:
            self.environment = _environment()
            forkserver.set_forkserver_preload(list(preload))
        with signals_held(), _without_device_contexts():
            forkserver.ensure_running()


@functools.cache
def _server() -> _Server:
    return _Server()


@contextmanager
def _without_device_contexts() -> Iterator[None]:
    before = os.environ.get(_CUDA_CHECK)
    os.environ[_CUDA_CHECK] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_CUDA_CHECK]
        else:
            os.environ[_CUDA_CHECK] = before


def _environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in _UNREAD}
