"""Requests that a model can answer, as tokens; what cannot be answered is refused or left out, as asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import NamedTuple

from mftrun.errors import ConfigError, MftrunError
from mftrun.generation.base import TokenPrompt
from mftrun.generation.generator import Generator, TooLongError
from mftrun.generation.requests import Request

_log = logging.getLogger(__name__)

_BAD, _OVERLONG = "data.on_bad", "data.on_overlong"


class Ready(NamedTuple):
    """A request, and its tokens."""

    request: Request
    prompt: TokenPrompt


def ready(
    generator: Generator, requests: Sequence[Request], system: str, *, on_bad: str, on_overlong: str
) -> list[Ready]:
    """Makes tokens of all requests before any is answered.

    Args:
        generator: Who shall answer.
        requests: The requests; each keeps its number, whatever becomes of others.
        system: System text of those that have none.
        on_bad: What becomes of one that the template cannot render: ``error``, ``skip``.
        on_overlong: What becomes of one that is too long for the model: ``error``, ``skip``.

    Raises:
        ConfigError: One is refused, or none is left; or prompts would have to be cut.
    """
    if on_overlong == "truncate":
        raise ConfigError(_OVERLONG, "prompts are never cut; use error or skip")
    found: list[Ready] = []
    left_out: list[str] = []
    for number, request in enumerate(requests):
        asked = request.with_system(system)
        try:
            found.append(Ready(asked, TokenPrompt(generator.encode(asked), number)))
        except ValueError as error:
            key, policy = (_OVERLONG, on_overlong) if isinstance(error, TooLongError) else (_BAD, on_bad)
            if policy == "error":
                raise MftrunError(f"{request.origin}: {error}; {key}=skip leaves it out") from error
            left_out.append(f"{request.origin}: {error}")
    if left_out:
        _log.warning("%s prompts left out, as %s", f"{len(left_out):,}", left_out[0])
    if not found:
        raise MftrunError(f"no prompt is left to answer; the first one, {left_out[0]}")
    return found
