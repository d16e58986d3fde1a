"""Values of an MFTCoder config by key: of the right type, and each known to have been read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from mftrun.errors import ConfigError
from mftrun.mftcoder.dialects import Dialect
from mftrun.mftcoder.source import Source

T = TypeVar("T")

MISSING = "???"
"""What Hydra asks the user for."""


@dataclass(frozen=True)
class Given(Generic[T]):
    """One value.

    Attributes:
        key: MFTCoder's name.
        value: The value, never None.
        is_default: Whether MFTCoder assumed it, as the file does not say.
    """

    key: str
    value: T
    is_default: bool = False


class Values:
    """Reads a config, and remembers which keys were read.

    Args:
        source: The config.
        dialect: The program it is for.
    """

    def __init__(self, source: Source, dialect: Dialect) -> None:
        self.dialect = dialect
        self._source = source
        self._read: set[str] = set()

    @property
    def unread(self) -> Mapping[str, Any]:
        """Keys of the file that nothing has read yet."""
        return {key: value for key, value in self._source.given.items() if key not in self._read}

    @property
    def read(self) -> Mapping[str, Any]:
        """Keys of the file that something has read."""
        return {key: value for key, value in self._source.given.items() if key in self._read}

    def whole(self, *keys: str, least: int = 0) -> Given[int] | None:
        """A whole number, under the first of these keys that there is; None if there is none, or null.

        Raises:
            ConfigError: The value is no whole number, or below `least`.
        """
        return self._typed(keys, lambda value: _whole(value, least), f"a whole number of {least} or more")

    def number(self, *keys: str) -> Given[float] | None:
        """A number of 0 or more, as `whole`."""
        return self._typed(keys, _number, "a number of 0 or more")

    def flag(self, *keys: str) -> Given[bool] | None:
        """True or false, as `whole`."""
        return self._typed(keys, _flag, "true or false")

    def text(self, *keys: str) -> Given[str] | None:
        """A text, as `whole`; one such as `$MODEL_TYPE`, which stands for another, is `MISSING`."""
        return self._typed(keys, _text, "a text")

    def any(self, *keys: str) -> Given[Any] | None:
        """A value of any type, as `whole`."""
        return self._typed(keys, lambda value: value, "")

    def refused(self, given: Given[Any], problem: str) -> ConfigError:
        """The error for a value."""
        return ConfigError("file", f"{self._source.path}: {given.key}={given.value!r} {problem}")

    def _typed(
        self, keys: tuple[str, ...], convert: Callable[[Any], T | None], expected: str
    ) -> Given[T] | None:
        self._read.update(keys)
        found = self._first(keys)
        if found is None:
            return None
        value = convert(found.value)
        if value is None:
            raise self.refused(found, f"must be {expected}")
        return Given(found.key, value, found.is_default)

    def _first(self, keys: tuple[str, ...]) -> Given[Any] | None:
        given, defaults = self._source.given, self.dialect.defaults
        key = next((key for key in keys if key in given), None)
        if key is not None:
            return None if given[key] is None else Given(key, given[key])
        key = next((key for key in keys if key in defaults), None)
        return None if key is None else Given(key, defaults[key], is_default=True)


def _whole(value: Any, least: int) -> int | None:
    number = _number(value)
    return int(number) if number is not None and number == int(number) and number >= least else None


def _number(value: Any) -> float | None:
    """MFTCoder's own command line made texts of numbers, and so do scripts that write configs."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    if not 0 <= number < float("inf"):
        return None
    return value if isinstance(value, int) else number


def _flag(value: Any) -> bool | None:
    return {"true": True, "false": False}.get(str(value).lower())


def _text(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return MISSING if value.startswith("$") or not value else value
