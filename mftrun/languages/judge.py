"""From a program to its verdict: write, compile, run, and hear what the driver says."""

from __future__ import annotations

import logging
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

from mftrun.languages.base import Judged, Language, Program, Recipe, Verdict
from mftrun.sandbox.base import End, Outcome, Sandbox

_LOGGER = logging.getLogger(__name__)
_LOG = 4000  # characters of a log
_VERDICTS: Mapping[End, Verdict] = MappingProxyType(
    {
        End.TIMEOUT: Verdict.TIMEOUT,
        End.MEMORY: Verdict.MEMORY,
        End.OUTPUT: Verdict.OUTPUT_LIMIT,
        End.ERROR: Verdict.SANDBOX_ERROR,
    }
)


def judge(program: Program, language: Language, sandbox: Sandbox, nonce: str | None = None) -> Judged:
    """Compiles and runs a program with its tests.

    A program has passed when its driver has said so: its exit code alone says nothing, as the solution may
    have ended it before the tests were reached.

    What goes wrong around one program is its verdict, `Verdict.SANDBOX_ERROR`, and ends nothing else.

    Args:
        program: The program.
        language: How it is compiled and run.
        sandbox: Where.
        nonce: The word that the driver says; None makes one.
    """
    nonce = nonce or secrets.token_hex(16)
    recipe = language.recipe(program, nonce)
    try:
        with _workplace(recipe.files) as place:
            return _judged(recipe, language, sandbox, nonce, place)
    except (OSError, RecursionError) as error:  # what happens to one program ends no other
        return Judged(Verdict.SANDBOX_ERROR, _shortened(f"{type(error).__name__}: {error}"), 0.0)


def _judged(recipe: Recipe, language: Language, sandbox: Sandbox, nonce: str, place: _Place) -> Judged:
    compiled = recipe.compile and sandbox.run(recipe.compile, *place)
    if compiled and not _succeeded(compiled):
        return Judged(_of_compiler(compiled, language), _log(compiled, nonce), compiled.seconds)
    ran = sandbox.run(recipe.run, *place)
    seconds = ran.seconds + (compiled.seconds if compiled else 0.0)
    return Judged(_of_run(ran, language, nonce), _log(ran, nonce), seconds)


class _Place(NamedTuple):
    """Folders of one program."""

    files: Path
    build: Path


@contextmanager
def _workplace(files: Mapping[str, str]) -> Iterator[_Place]:
    top = Path(tempfile.mkdtemp(prefix="mftrun-judge-"))
    try:
        top.chmod(0o711)  # programs of root run as somebody else, who must get to the two below
        place = _Place(top / "job", top / "build")
        for folder in place:
            folder.mkdir()
        for file, text in files.items():
            # A model may write half of a surrogate pair, which is no character; its program fails, not we.
            (place.files / file).write_bytes(text.encode(errors="backslashreplace"))
        yield place
    finally:
        _remove(top)


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except (OSError, RecursionError):
        # Deeper than we can go: a compiler makes a folder of each part of a package's name.
        done = subprocess.run(["rm", "-rf", "--", folder], capture_output=True, text=True, check=False)
        if done.returncode:
            _LOGGER.warning("%s stays: %s", folder, done.stderr[:_LOG])


def _succeeded(outcome: Outcome) -> bool:
    return outcome.end is End.EXITED and outcome.exit_code == 0


def _of_compiler(outcome: Outcome, language: Language) -> Verdict:
    if outcome.end is End.EXITED:
        return Verdict.MEMORY if _ran_out(outcome, language) else Verdict.COMPILE_ERROR
    # A compiler may have more to complain of than fits.
    return Verdict.COMPILE_ERROR if outcome.end is End.OUTPUT else _VERDICTS[outcome.end]


def _of_run(outcome: Outcome, language: Language, nonce: str) -> Verdict:
    if outcome.end is not End.EXITED:
        return _VERDICTS[outcome.end]
    if language.has_passed(outcome, nonce):
        return Verdict.PASSED
    return Verdict.MEMORY if _ran_out(outcome, language) else Verdict.FAILED


def _ran_out(outcome: Outcome, language: Language) -> bool:
    return any(sign in outcome.stderr for sign in language.memory_signs)


def _log(outcome: Outcome, nonce: str) -> str:
    texts = (outcome.reason, outcome.stderr, outcome.stdout.replace(nonce, ""))
    said = "\n".join(text.strip() for text in texts if text.strip())
    return _shortened(said or _silent(outcome))


def _silent(outcome: Outcome) -> str:
    return f"exit code {outcome.exit_code}" if outcome.exit_code else ""


def _shortened(text: str) -> str:
    if len(text) <= _LOG:
        return text
    half = _LOG // 2
    return f"{text[:half]}\n… {len(text) - 2 * half} characters left out …\n{text[-half:]}"
