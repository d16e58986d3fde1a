"""The folder that a model is written to: it is new, it has room, it appears whole or not at all."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType

from mftrun.errors import ConfigError
from mftrun.files import whole_folder

_UNITS = MappingProxyType({"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30})
_SIZE = re.compile(r"\s*(?:(?P<bytes>\d+)|(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMG]I?B))\s*", re.IGNORECASE)


def bytes_of(size: str | int, key: str = "job.shard_size") -> int:
    """Bytes of a size such as ``5GB``, ``1.5GiB`` or ``500000``.

    Args:
        size: A number and its unit, in letters of either case; a whole number alone counts bytes.
        key: Names it in the message.

    Raises:
        ConfigError: It is none, or not above 0.
    """
    found = _SIZE.fullmatch(str(size))
    number = 0
    if found is not None:
        number = int(found["bytes"] or float(found["number"]) * _UNITS[found["unit"].upper()])
    if number < 1:
        raise ConfigError(key, f"must be a size such as 5GB or 500MB, or a number of bytes, not {size!r}")
    return number


def new_folder(output: str) -> Path:
    """The folder to write, absolute, once it is sure that it holds nothing.

    Raises:
        ConfigError: It holds something, or is a file.
    """
    folder = Path(output).expanduser().resolve()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("output", f"{folder} exists already; give a new folder, or remove it first")
    return folder


def check_room(output: Path, wanted: int) -> None:
    """Refuses a disk that has no room.

    Args:
        output: What is to be written; it need not exist.
        wanted: Bytes.

    Raises:
        ConfigError: There is less.
    """
    there = next(path for path in (output, *output.absolute().parents) if path.exists())
    free = shutil.disk_usage(there).free
    if free < wanted:
        raise ConfigError("output", f"needs {wanted / 1e9:.1f} GB, and {there} has {free / 1e9:.1f} GB left")


@contextmanager
def written_folder(output: Path) -> Iterator[Path]:
    """Gives a scratch folder that becomes ``output`` once the block ends, or vanishes if it raises.

    Args:
        output: Where the folder shall appear.

    Yields:
        The scratch folder.

    Raises:
        ConfigError: The disk fails or is full, or the folder may not be written.
    """
    from safetensors import SafetensorError

    try:
        with whole_folder(output) as folder:
            yield folder
    except (OSError, SafetensorError) as error:
        message = f"{output} cannot be written ({error}), and nothing of it is kept; give a folder with room"
        raise ConfigError("output", message) from error
