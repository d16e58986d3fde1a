"""What a run says about its data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mftrun.data.fitting import ON_OVERLONG
from mftrun.data.policies import ON_BAD
from mftrun.data.source import Source
from mftrun.data.split import ValidationSize
from mftrun.errors import ConfigError
from mftrun.nearest import unknown


@dataclass(frozen=True)
class TaskSources:
    """Where one task comes from.

    Attributes:
        train: Its samples.
        valid: Its validation samples; None splits them off `train`. All of them are used.
        max_samples: Use a random subset of `train` of this size; None uses all.

    Raises:
        ConfigError: The subset would be empty.
    """

    train: Source
    valid: Source | None = None
    max_samples: int | None = None

    def __post_init__(self) -> None:
        is_good = self.max_samples is None or self.max_samples > 0
        _check("data.tasks.NAME.max_samples", self.max_samples, is_good, "at least 1, or null for all")


@dataclass(frozen=True)
class DataSettings:
    """How samples become tables.

    Attributes:
        max_length: Longest sample in tokens.
        on_overlong: What to do with a longer one: ``error``, ``skip``, ``truncate``.
        on_bad: What to do with a line that is no sample: ``error``, ``skip``.
        valid_fraction: Share of each task held out for validation; 0 holds out none.
        valid_min: Hold out at least so many.
        valid_max: Hold out at most so many.

    Raises:
        ConfigError: A value is out of its range.
    """

    max_length: int = 1024
    on_overlong: str = "error"
    on_bad: str = "error"
    valid_fraction: float = 0.05
    valid_min: int = 1
    valid_max: int = 200

    def __post_init__(self) -> None:
        _check_choice("data.on_overlong", self.on_overlong, ON_OVERLONG)
        _check_choice("data.on_bad", self.on_bad, ON_BAD)
        _check("data.max_length", self.max_length, self.max_length >= 2, "at least 2")
        _check("data.valid_fraction", self.valid_fraction, 0 <= self.valid_fraction < 1, "in [0, 1)")
        _check("data.valid_min", self.valid_min, self.valid_min >= 0, "at least 0")
        too_small = f"at least data.valid_min={self.valid_min}"
        _check("data.valid_max", self.valid_max, self.valid_max >= self.valid_min, too_small)

    @property
    def validation_size(self) -> ValidationSize:
        """The size of the validation split."""
        return ValidationSize(self.valid_fraction, self.valid_min, self.valid_max)


def _check(key: str, value: object, is_good: bool, wanted: str) -> None:
    if not is_good:
        raise ConfigError(key, f"must be {wanted}, not {value}")


def _check_choice(key: str, value: str, choices: Iterable[str]) -> None:
    if value not in choices:
        raise ConfigError(key, unknown(value, choices, f"there is no policy {value!r}"))
