"""Checks of a weighting's settings. Each names the key and what it may be."""

from __future__ import annotations

import math
from typing import TypeGuard

from mftrun.errors import ConfigError

KEY = "loss.weighting"


def positive(setting: str, value: object, most: float = math.inf) -> None:
    """Refuses all but finite numbers above 0, and at most `most`.

    Raises:
        ConfigError: `value` is none.
    """
    expected = "a finite number above 0" if most == math.inf else f"above 0 and at most {most:g}"
    _demand(_is_number(value) and 0 < value <= most, setting, value, expected)


def between(setting: str, value: object, least: float, most: float = math.inf) -> None:
    """Refuses all but finite numbers from `least` to `most`, both allowed.

    Raises:
        ConfigError: `value` is none.
    """
    expected = f"a finite number, {least:g} or more" if most == math.inf else f"from {least:g} to {most:g}"
    fits = _is_number(value) and least <= value <= most
    _demand(fits, setting, value, expected)


def finite(setting: str, value: object) -> None:
    """Refuses all but finite numbers.

    Raises:
        ConfigError: `value` is none.
    """
    _demand(_is_number(value), setting, value, "a finite number")


def whole(setting: str, value: object, least: int, why: str = "") -> None:
    """Refuses all but whole numbers of `least` or more.

    Args:
        setting: Name of the key in `loss.weighting`.
        value: What the user gave.
        least: The smallest that is allowed.
        why: What a smaller one would lead to, for the message.

    Raises:
        ConfigError: `value` is none.
    """
    fits = isinstance(value, int) and not isinstance(value, bool) and value >= least
    _demand(fits, setting, value, f"a whole number, {least} or more", why)


def one_of(setting: str, value: object, known: tuple[str, ...]) -> None:
    """Refuses all but the `known` words.

    Raises:
        ConfigError: `value` is none of them.
    """
    _demand(value in known, setting, value, " or ".join(known))


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _demand(fits: bool, setting: str, value: object, expected: str, why: str = "") -> None:
    if not fits:
        reason = f" ({why})" if why else ""
        raise ConfigError(f"{KEY}.{setting}", f"must be {expected}, not {value!r}{reason}")
