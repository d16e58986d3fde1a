"""An MFTCoder config, whole, as ours."""

from __future__ import annotations

from typing import Any

from mftrun.errors import ConfigError
from mftrun.mftcoder.dialects import dialect_of
from mftrun.mftcoder.sections.adapters import translate_adapters
from mftrun.mftcoder.sections.course import translate_course
from mftrun.mftcoder.sections.data import translate_data
from mftrun.mftcoder.sections.keeping import translate_keeping
from mftrun.mftcoder.sections.launching import translate_launching
from mftrun.mftcoder.sections.loss import translate_loss
from mftrun.mftcoder.sections.model import translate_model
from mftrun.mftcoder.source import Source
from mftrun.mftcoder.translation import Fate, Translation
from mftrun.mftcoder.unread import UNREAD
from mftrun.mftcoder.values import Values
from mftrun.nearest import nearest


def translate(source: Source, gpus: int | None) -> Translation:
    """Translates a config; every key of it is mapped, dropped or unknown.

    Args:
        source: The config.
        gpus: On which MFTCoder ran it; None for as many as its scripts start.

    Raises:
        ConfigError: A value has the wrong type, or asks for what is not offered.
    """
    values, out = Values(source, dialect_of(source.given, source.path)), Translation()
    translate_model(values, out)
    translate_adapters(values, out)
    translate_data(values, out)
    translate_loss(values, out)
    translate_course(values, out, gpus)
    translate_keeping(values, out)
    translate_launching(values, out)
    _name_rest(values, out)
    if not any(fate.key in source.given for fate in (*out.mapped, *out.dropped)):
        raise ConfigError("file", f"{source.path} holds none of the keys of an MFTCoder training config")
    return out


def _name_rest(values: Values, out: Translation) -> None:
    told = {fate.key for fate in (*out.mapped, *out.dropped)}
    for key, value in values.read.items():
        if key not in told:
            out.dropped.append(Fate(key, value, _silent(value)))
    known = {*UNREAD, *values.read, *values.dialect.defaults}
    for key, value in values.unread.items():
        if (reason := UNREAD.get(key)) is not None:
            out.dropped.append(Fate(key, value, reason))
        else:
            out.unknown.append(Fate(key, value, _unknown(key, known)))


def _silent(value: Any) -> str:
    if value is None:
        return "null leaves it open"
    return "false leaves it off" if value is False else "another key decided"


def _unknown(key: str, known: set[str]) -> str:
    close = nearest(key, sorted(known))
    return f"MFTCoder knows no such key{f'; did you mean {close}?' if close else ''}"
