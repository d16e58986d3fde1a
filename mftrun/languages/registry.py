"""All languages, by their keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from mftrun.languages.base import Language

if TYPE_CHECKING:
    from mftrun.benchmarks.compat import Compat


def languages(compat: Compat | None = None) -> Mapping[str, Language]:
    """The languages.

    Args:
        compat: Faults to be repeated; None repeats none.
    """
    from mftrun.languages.cpp import Cpp
    from mftrun.languages.go import Go
    from mftrun.languages.java import Java
    from mftrun.languages.javascript import JavaScript, SilentJavaScript
    from mftrun.languages.python import Python
    from mftrun.languages.rust import Rust

    javascript = SilentJavaScript() if compat and compat.silence_passes_js else JavaScript()
    known: tuple[Language, ...] = (Python(), Java(), javascript, Cpp(), Go(), Rust())
    return {language.name: language for language in known}
