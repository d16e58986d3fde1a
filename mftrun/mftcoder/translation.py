"""What has become of an MFTCoder config."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from mftrun.mftcoder.values import MISSING, Given


@dataclass(frozen=True)
class Setting:
    """A key of ours.

    Attributes:
        key: Its dotted path.
        value: Its value; `MISSING` asks the user for it.
        origin: The key of MFTCoder that it comes from, or what else it comes from.
    """

    key: str
    value: Any
    origin: str


@dataclass(frozen=True)
class Fate:
    """What became of one key of MFTCoder.

    Attributes:
        key: Its name.
        value: Its value.
        became: Our keys, or why there is none.
        is_default: Whether the file does not hold it, and MFTCoder assumed it.
    """

    key: str
    value: Any
    became: str
    is_default: bool = False


@dataclass
class Translation:
    """Collects our side of a config.

    Attributes:
        choices: Group → option.
        settings: Our keys, in order.
        personal: Those that belong on a command line only, as they name a run.
        mapped: Keys of MFTCoder that have become keys of ours.
        dropped: Keys that have not, each with the reason.
        unknown: Keys that are none of MFTCoder's.
        notes: What comes out otherwise than it did.
    """

    choices: dict[str, str] = field(default_factory=dict)
    settings: list[Setting] = field(default_factory=list)
    personal: list[Setting] = field(default_factory=list)
    mapped: list[Fate] = field(default_factory=list)
    dropped: list[Fate] = field(default_factory=list)
    unknown: list[Fate] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def choose(self, group: str, option: str, given: Given[Any] | None = None) -> None:
        """Takes an option of a group."""
        self.choices[group] = option
        self._remember(given, f"{group}={option}")

    def put(self, key: str, value: Any, given: Given[Any]) -> None:
        """Sets a key of ours to what a value of MFTCoder means."""
        self._set(Setting(key, value, _origin(given)))
        self._remember(given, f"{key}={shown(value)}")

    def carry(self, key: str, given: Given[Any] | None) -> None:
        """Sets a key of ours to a value of MFTCoder as it is; nothing where there is none."""
        if given is not None:
            self.put(key, given.value, given)

    def assume(self, key: str, value: Any, origin: str) -> None:
        """Sets a key of ours to what MFTCoder did without a key."""
        self._set(Setting(key, value, origin))

    def name_run(self, key: str, value: Any, given: Given[Any]) -> None:
        """Sets a key that names a run: not part of an experiment."""
        self.personal.append(Setting(key, value, _origin(given)))
        self._remember(given, f"{key}={shown(value)}")

    def mention(self, given: Given[Any] | None, became: str) -> None:
        """Says that a value has its part in a key that another one has set."""
        self._remember(given, became)

    def drop(self, given: Given[Any] | None, reason: str) -> None:
        """Says why a value has no counterpart."""
        if given is not None and not given.is_default:
            self.dropped.append(Fate(given.key, given.value, reason))

    def note(self, text: str) -> None:
        """Says what comes out otherwise."""
        self.notes.append(text)

    def value(self, key: str) -> Any:
        """What a key of ours was set to; None if it was not."""
        return next((one.value for one in self.settings if one.key == key), None)

    @property
    def missing(self) -> list[str]:
        """Our keys that the user must give."""
        return [one.key for one in self.settings if one.value == MISSING]

    def _set(self, setting: Setting) -> None:
        assert self.value(setting.key) is None, f"{setting.key} is set twice"
        self.settings.append(setting)

    def _remember(self, given: Given[Any] | None, became: str) -> None:
        if given is not None:
            self.mapped.append(Fate(given.key, given.value, became, given.is_default))


def _origin(given: Given[Any]) -> str:
    return f"{given.key}, MFTCoder's default" if given.is_default else given.key


def shown(value: Any) -> str:
    """A value as one reads it in JSON."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
