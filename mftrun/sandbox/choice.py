"""The group ``sandbox``: which sandbox runs the programs that models write."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from mftrun.errors import ConfigError
from mftrun.sandbox.base import Sandbox
from mftrun.sandbox.bubblewrap import find_bubblewrap
from mftrun.sandbox.container import find_container
from mftrun.sandbox.limited import Limited
from mftrun.sandbox.trial import UnusableError
from mftrun.sandbox.unsafe import Unsafe

log = logging.getLogger(__name__)

_KEY = "sandbox"
_UNSAFE = "sandbox.allow_unsafe=true runs programs without one: they may do whatever you may do"

_NO_SANDBOX = (
    "NO SANDBOX: programs that a model wrote run with your rights, and may change what later verdicts rest "
    "on, sandboxed ones too: tools, results, and $MFTRUN_CACHE/languages, which is best removed afterwards"
)


@dataclass(frozen=True)
class Option:
    """What all choices have.

    Args:
        workers: Programs that run at once; None takes one for every core.
        memory_gb: GiB that a program may use, in place of what its language says; None leaves that.
        allow_unsafe: Whether programs run on this machine as they are where no sandbox works.

    Raises:
        ConfigError: A number is out of its range.
    """

    workers: int | None = None
    memory_gb: float | None = None
    allow_unsafe: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and self.workers < 1:
            raise ConfigError("sandbox.workers", f"must be 1 or more, or null, not {self.workers}")
        if self.memory_gb is not None and not (self.memory_gb > 0 and math.isfinite(self.memory_gb)):
            raise ConfigError("sandbox.memory_gb", f"must be above 0, or null, not {self.memory_gb}")

    def _first(self, finders: Sequence[Callable[[], Sandbox]]) -> Sandbox:
        """The first sandbox that works, with this choice's limits."""
        found = self._working(finders)
        log.info("programs run in this sandbox: %s", found.name)
        return found if self.memory_gb is None else Limited(found, int(self.memory_gb * (1 << 30)))

    def _working(self, finders: Sequence[Callable[[], Sandbox]]) -> Sandbox:
        reasons: list[str] = []
        for find in finders:
            try:
                return find()
            except UnusableError as reason:
                reasons.append(str(reason))
        if not self.allow_unsafe:
            raise ConfigError(_KEY, "; ".join(["none works here", *reasons, _UNSAFE]))
        log.warning("%s (%s)", _NO_SANDBOX, "; ".join(reasons))
        return Unsafe()


@dataclass(frozen=True)
class Auto(Option):
    """A container engine if an image is named and it answers, else bubblewrap.

    Args:
        workers: See `Option`, as the next two.
        memory_gb: See `Option`.
        allow_unsafe: See `Option`.
        image: Image of a container that holds the languages' tools; None does not look for an engine.
    """

    image: str | None = None

    def open(self) -> Sandbox:
        """See `SandboxOption.open`."""
        image = self.image
        containers = [] if image is None else [lambda: find_container(image)]
        return self._first([*containers, find_bubblewrap])


@dataclass(frozen=True)
class BubblewrapOnly(Option):
    """Bubblewrap, or none."""

    def open(self) -> Sandbox:
        """See `SandboxOption.open`."""
        return self._first([find_bubblewrap])


@dataclass(frozen=True)
class ContainerOnly(Option):
    """A container engine, or none.

    Args:
        workers: See `Option`, as the next two.
        memory_gb: See `Option`.
        allow_unsafe: See `Option`.
        image: Image that holds the languages' tools.
        engine: ``docker``, ``podman``, or another program that takes their arguments; None tries both.
    """

    image: str | None = None
    engine: str | None = None

    def open(self) -> Sandbox:
        """See `SandboxOption.open`."""
        image, engine = self.image, self.engine
        if image is None:
            raise ConfigError("sandbox.image", "name an image that holds the languages' tools")
        return self._first([lambda: find_container(image, engine)])
