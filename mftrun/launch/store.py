"""Where agents find their leader: at the port that all were told, or through the store that listens there."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from mftrun.errors import MftrunError
from mftrun.launch.place import Place

_TIMEOUT = timedelta(seconds=60)


class OuterStore:
    """The store of a torchrun, in which the leader leaves word where it listens.

    Args:
        place: Has a `store_key`.

    Raises:
        MftrunError: Nothing answers there.
    """

    def __init__(self, place: Place) -> None:
        assert place.store_key is not None, "the leader listens at the port itself"
        self._key = place.store_key
        self._store = _client(place)

    def publish(self, port: int) -> None:
        """Let all agents know the leader's port."""
        self._store.set(self._key, str(port))

    def port(self) -> int | None:
        """The leader's port, once it is known."""
        return int(self._store.get(self._key)) if self._store.check([self._key]) else None


def _client(place: Place) -> Any:
    # torch does not declare what it exports.
    from torch import distributed

    try:
        store: Any = distributed.TCPStore
        return store(place.address, place.port, is_master=False, timeout=_TIMEOUT)
    except distributed.DistError as error:
        raise MftrunError(
            f"the outer launcher's store at {place.address}:{place.port} does not answer: {error}"
        ) from error
