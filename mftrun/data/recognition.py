"""Which format a record is written in, recognised by its keys; see `mftrun.data.formats` for the rules."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple, Protocol

from mftrun.data.fields import BadSampleError, listed_keys
from mftrun.data.formats import FORMATS, PAIR_KEYS, RANKS, READ_KEYS, RECOGNISED_KEYS, Format
from mftrun.data.sample import Message
from mftrun.errors import ConfigError
from mftrun.nearest import unknown

_FORMAT_KEY = "data.tasks.NAME.format"
_COLUMNS_KEY = "data.tasks.NAME.columns"


class Recognised(NamedTuple):
    """A record in its format.

    Attributes:
        messages: Its messages.
        tools: Its tools as the text of a JSON list; "" for none.
        format: The name of the format.
        unread: Its keys that were passed over, those inside of messages as ``messages.name``.
    """

    messages: tuple[Message, ...]
    tools: str
    format: str
    unread: frozenset[str] = frozenset()


class Recogniser(Protocol):
    """Turns records into messages; it can be pickled."""

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """The messages of a record.

        Raises:
            BadSampleError: It fits no format, or its fields do not fit the one that it has.
        """

    def columns(self, names: Iterable[str]) -> list[str]:
        """Of the columns of a table those to be read; all of them if none tells a format."""


@dataclass(frozen=True)
class AnyFormat:
    """Recognises the format of each record by its keys."""

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """The messages of a record in the format that its keys tell."""
        form, unread, problem = _judged(_given(record), tuple(record))
        if form is None:
            raise BadSampleError(problem)
        return _recognised(form, record, unread)

    def columns(self, names: Iterable[str]) -> list[str]:
        """Those that some format reads."""
        names = list(names)
        known = [name for name in names if name in READ_KEYS]
        return names if RECOGNISED_KEYS.isdisjoint(known) else known


@dataclass(frozen=True)
class OneFormat:
    """Takes every record to be of the same format.

    Args:
        name: A name of `FORMATS`.
    """

    name: str

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """The messages of a record."""
        return _recognised(FORMATS[self.name], record, _beside(self.name, _given(record)))

    def columns(self, names: Iterable[str]) -> list[str]:
        """Those that some format reads."""
        return AnyFormat().columns(names)


@dataclass(frozen=True)
class Renamed:
    """Puts other names on the keys of records before their format is recognised.

    Args:
        recogniser: Recognises it.
        renamed: Pairs of a key that a format reads, and the one that records have instead.
    """

    recogniser: Recogniser
    renamed: tuple[tuple[str, str], ...]

    def parse(self, record: Mapping[str, Any]) -> Recognised:
        """The messages of a record."""
        for key, name in self.renamed:
            if name not in record:
                raise BadSampleError(f"no {name!r}, which {_COLUMNS_KEY}.{key} names; {listed_keys(record)}")
        names = self._names(record)
        found = self.recogniser.parse({key: record[name] for key, name in names.items()})
        if len(names) == len(record):
            return found
        hidden = {name for name in record if name not in names.values() and record[name] is not None}
        return found._replace(unread=found.unread | hidden)

    def columns(self, names: Iterable[str]) -> list[str]:
        """Those that some format reads by their new names."""
        names = list(names)
        if not {name for _, name in self.renamed}.issubset(names):
            return names  # each record is going to be refused with its keys
        new = self._names(names)
        return [new[key] for key in self.recogniser.columns(new)]

    def _names(self, names: Iterable[str]) -> dict[str, str]:
        """Names by the ones they get; one that another gets, too, is left out."""
        key_of = {name: key for key, name in self.renamed}
        taken = set(key_of.values())
        return {key_of.get(name, name): name for name in names if name in key_of or name not in taken}


def recogniser(
    name: str | None, columns: Mapping[str, str] | None = None, key: str = _FORMAT_KEY
) -> Recogniser:
    """The recogniser that a user asks for.

    Args:
        name: A name of `FORMATS`; None recognises the format of each record.
        columns: The names that records have for keys of formats, by these keys.
        key: The config key that holds the name.

    Raises:
        ConfigError: There is no such format, or it reads no such key.
    """
    if name is not None and name not in FORMATS:
        raise ConfigError(key, unknown(name, FORMATS, f"there is no format {name!r}"))
    plain: Recogniser = AnyFormat() if name is None else OneFormat(name)
    if not columns:
        return plain
    _check_columns(columns, name)
    return Renamed(plain, tuple(columns.items()))


def listed(columns: Mapping[str, str] | None) -> str | None:
    """The names of columns as text, for a fingerprint; None if there are none."""
    return json.dumps(dict(sorted(columns.items()))) if columns else None


def _check_columns(columns: Mapping[str, str], name: str | None) -> None:
    """Refuses keys that the format does not read, and a column that is named twice."""
    read, reader = READ_KEYS, "no format reads a"
    if name is not None:
        read, reader = FORMATS[name].optional.union(FORMATS[name].keys), f"{name} reads no"
    key_of: dict[str, str] = {}
    for key, column in columns.items():
        if key not in read:
            raise ConfigError(f"{_COLUMNS_KEY}.{key}", unknown(key, read, f"{reader} key {key!r}"))
        if (other := key_of.setdefault(column, key)) != key:
            raise ConfigError(f"{_COLUMNS_KEY}.{key}", f"{column!r} stands for {other!r} already")


def _given(record: Mapping[str, Any]) -> tuple[str, ...]:
    """The keys that have a value."""
    if None not in record.values():
        return tuple(record)
    return tuple(key for key, value in record.items() if value is not None)


class _Judged(NamedTuple):
    """What follows from the keys of a record: its format and what that leaves aside, or what is wrong."""

    format: Format | None
    unread: frozenset[str]
    problem: str = ""


@lru_cache(maxsize=1024)
def _judged(given: tuple[str, ...], written: tuple[str, ...]) -> _Judged:
    """Judges the keys with a value, and all of them."""
    keys = RECOGNISED_KEYS.intersection(given)
    fitting = _fitting_with_nulls(keys, RECOGNISED_KEYS.intersection(written))
    if not fitting:
        return _Judged(None, frozenset(), _unrecognised(written))
    form, *others = fitting
    if others or (unread := _unread(form, keys)):
        return _Judged(None, frozenset(), _ambiguous(fitting) if others else _left_over(form, unread))
    return _Judged(form, _beside(form.name, given))


@lru_cache(maxsize=1024)
def _beside(name: str, given: tuple[str, ...]) -> frozenset[str]:
    """The keys that a format never reads."""
    return frozenset(given).difference(FORMATS[name].keys, FORMATS[name].optional)


def _recognised(form: Format, record: Mapping[str, Any], unread: frozenset[str]) -> Recognised:
    messages, tools, more = form.parse(record)
    return Recognised(messages, tools, form.name, unread | more if more else unread)


def _fitting(keys: frozenset[str]) -> tuple[Format, ...]:
    """The formats of the first rank that has one whose keys are all there, but for parts of others."""
    for rank in RANKS:
        fitting = [form for form in rank if keys.issuperset(form.keys)]
        if fitting:
            return tuple(form for form in fitting if not _is_part_of_another(form, fitting))
    return ()


def _fitting_with_nulls(keys: frozenset[str], written: frozenset[str]) -> tuple[Format, ...]:
    """The formats that fit; one that lacks nothing but a value goes on to say which value is null.

    Args:
        keys: Those with a value.
        written: All of them.
    """
    fitting = _fitting(keys)
    if keys == written:
        return fitting
    lacking = _lacking(keys, written)
    if not fitting or any(_is_part_of(fitting[0], form, written - keys) for form in lacking):
        return lacking
    return fitting


def _lacking(keys: frozenset[str], written: frozenset[str]) -> tuple[Format, ...]:
    """Of the formats that fit but for null values, the one with the most other values, if there is one."""
    forms = [form for form in FORMATS.values() if written.issuperset(form.keys)]
    return (max(forms, key=lambda form: len(keys.intersection(form.keys))),) if forms else ()


def _is_part_of(form: Format, other: Format, null: frozenset[str]) -> bool:
    """Whether a format fits only because a value that another one needs is null."""
    return set(form.keys) < set(other.keys) and not null.intersection(other.keys) <= other.optional


def _is_part_of_another(form: Format, fitting: list[Format]) -> bool:
    return any(set(form.keys) < set(other.keys) for other in fitting)


def _unread(form: Format, keys: frozenset[str]) -> frozenset[str]:
    """The keys of pairs that a format would leave aside; conversations may."""
    return frozenset() if form in RANKS[0] else (keys & PAIR_KEYS) - set(form.keys) - form.optional


def _ambiguous(found: tuple[Format, ...]) -> str:
    names = ", ".join(form.name for form in found)
    return f"fits more than one format: {names}; say which with {_FORMAT_KEY}={found[0].name}"


def _left_over(form: Format, unread: frozenset[str]) -> str:
    keys = ", ".join(map(repr, sorted(unread)))
    return f"fits {form.name}, but that does not read {keys}; if this is meant, say {_FORMAT_KEY}={form.name}"


def _unrecognised(written: tuple[str, ...]) -> str:
    keys = ", ".join(map(repr, written)) or "none"
    return f"no known format (its keys are: {keys}); known: {', '.join(FORMATS)}"
