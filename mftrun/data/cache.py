"""Folders made once, kept under a name that says what they were made from, and shared by all runs."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import shutil
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from mftrun.data.digests import digest
from mftrun.errors import DataError
from mftrun.files import PARTIAL, whole_folder, write_json

_KEY, _CONTENT, _LOCKS = "key.json", "content", "locks"
_WAY_OUT = "choose another folder with data.cache_dir, or free some space there"

_log = logging.getLogger(__name__)


class TokenCache:
    """Folders by what they were made from; several processes may use it at once.

    Args:
        root: Where the entries are; made when the first one is.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, key: Mapping[str, Any]) -> Path | None:
        """The folder made from these things, if there is one.

        Args:
            key: Plain values that name everything the content depends on.
        """
        content = self._entry(key) / _CONTENT
        return content if content.is_dir() else None

    def get_or_make(self, key: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder made from these things, which is made now if there is none.

        While one process makes an entry, others that want it wait, and then take it.

        Args:
            key: Plain values that name everything the content depends on.
            make: Makes the content in a folder, which does not exist yet; the entry appears once it is done.

        Returns:
            The folder with the content; not to be written to.

        Raises:
            DataError: The cache cannot be written.
        """
        found = self.find(key)
        if found is not None:
            return found
        entry = self._entry(key)
        with self._locked(entry.name), _explained(self.root, _is_of_disk):
            found = self.find(key)
            if found is None:
                self._sweep()
                with whole_folder(entry) as scratch:
                    make(scratch / _CONTENT)
                    write_json(scratch / _KEY, key)
        return entry / _CONTENT

    def _entry(self, key: Mapping[str, Any]) -> Path:
        return self.root / digest(key)[:32]

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        with ExitStack() as stack:
            with _explained(self.root, _always):
                file = stack.enter_context(self._lock_file(name))
                if not _taken(file):
                    holder = file.read().strip() or "another process"
                    _log.info("waiting for %s, which is making the same tokens", holder)
                    fcntl.flock(file, fcntl.LOCK_EX)
                _sign(file)
            yield

    def _lock_file(self, name: str) -> IO[str]:
        # The file stays: if it were removed, two processes could hold locks on two files of one name.
        folder = self.root / _LOCKS
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o666)
        return os.fdopen(descriptor, "r+")

    def _sweep(self) -> None:
        """Removes what killed processes left half made; what is another user's is left to them."""
        for leftover in self.root.glob(f"{PARTIAL}*"):
            with suppress(PermissionError), self._lock_file(leftover.name.removeprefix(PARTIAL)) as file:
                if _taken(file):
                    shutil.rmtree(leftover, ignore_errors=True)


def _taken(file: IO[str]) -> bool:
    """Takes a lock that is free; the system gives it back when this process ends, however it ends."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _sign(file: IO[str]) -> None:
    """Writes who holds the lock, for those who wait."""
    file.seek(0)
    file.truncate()
    file.write(f"process {os.getpid()} on {socket.gethostname()}")
    file.flush()


@contextmanager
def _explained(root: Path, is_ours: Callable[[OSError], bool]) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not is_ours(error):
            raise
        why = error.strerror or str(error)
        raise DataError(root, 0, f"tokens cannot be kept here ({why}); {_WAY_OUT}") from error


def _always(error: OSError) -> bool:
    return True


def _is_of_disk(error: OSError) -> bool:
    """Whether writing failed: what `make` reads may fail too, and says so itself."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO, errno.EFBIG)
