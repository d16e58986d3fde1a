"""Where the first evaluation of these benchmarks is at fault: as it is here, and as it was there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Compat:
    """Differences, one each; all False is right, True repeats a fault to reproduce its scores.

    Attributes:
        silence_passes_js: JavaScript passes if and only if nothing was printed, whatever the exit code.
        bare_go_imports: Go's ``math/rand`` and ``crypto/md5`` are added as ``rand`` and ``md5``.
        go_helpers_left_out: Four functions in Go call helpers that neither declaration nor tests bring.
        stray_quote_kept: A quotation mark stays behind a declaration in Python, which cannot be compiled.
        unfenced_imports_lost: An answer to MBPP that is not fenced begins with its first ``def``.
        test_setup_ignored: What tests of MBPP need besides the solution is not run.
        answers_only_cut: A function that an answer repeats in a fenced block is not found.
        stops_in_words: An answer in Go ends at ``struct``, as in "the structure", though its brackets
            end it, too.
        prompt_counts: The longest length of an answer includes its prompt.
    """

    silence_passes_js: bool = False
    bare_go_imports: bool = False
    go_helpers_left_out: bool = False
    stray_quote_kept: bool = False
    unfenced_imports_lost: bool = False
    test_setup_ignored: bool = False
    answers_only_cut: bool = False
    stops_in_words: bool = False
    prompt_counts: bool = False


STRICT = Compat()
UPSTREAM = Compat(
    silence_passes_js=True,
    bare_go_imports=True,
    go_helpers_left_out=True,
    stray_quote_kept=True,
    unfenced_imports_lost=True,
    test_setup_ignored=True,
    answers_only_cut=True,
    stops_in_words=True,
    prompt_counts=True,
)
COMPATS: Mapping[str, Compat] = MappingProxyType({"strict": STRICT, "upstream": UPSTREAM})
