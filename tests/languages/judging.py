"""What the tests of all languages share: a sandbox, and verdicts."""

from functools import cache

import pytest

from mftrun.errors import ConfigError
from mftrun.languages.base import Judged, Language, Program, Verdict
from mftrun.languages.judge import judge
from mftrun.sandbox.base import Sandbox
from mftrun.sandbox.choice import Auto

SECONDS = 20.0  # much more than a program takes that ends


@cache
def sandbox(memory_gb: float | None = None) -> Sandbox:
    """One for all tests; skips where none works."""
    try:
        return Auto(memory_gb=memory_gb).open()
    except ConfigError as error:
        pytest.skip(str(error))


def judged(
    language: Language, source: str, seconds: float = SECONDS, memory_gb: float | None = None
) -> Judged:
    """What becomes of a program; skips without its tools."""
    if missing := language.missing():
        pytest.skip(f"{missing.what} is not here: {missing.install}")
    return judge(Program(language.name, source, seconds), language, sandbox(memory_gb))


def verdict(
    language: Language, source: str, seconds: float = SECONDS, memory_gb: float | None = None
) -> Verdict:
    """See `judged`."""
    return judged(language, source, seconds, memory_gb).verdict
