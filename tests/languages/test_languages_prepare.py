"""What is the same for all languages: what is made beforehand, and what verdicts depend on."""

from dataclasses import dataclass, field

import pytest
from judging import verdict

from mftrun.benchmarks.compat import UPSTREAM
from mftrun.errors import MftrunError
from mftrun.languages.base import Program, Verdict
from mftrun.languages.python import Python
from mftrun.languages.registry import languages
from mftrun.scoring.attempts import fingerprint

NAMES = ["python", "java", "js", "cpp", "go", "rust"]


def _language(name):
    found = languages()[name]
    if missing := found.missing():
        pytest.skip(f"{missing.what} is not here")
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_program_is_known_again(name):
    program = Program(name, "", 1)
    again = fingerprint(program, _language(name), {})
    assert fingerprint(program, _language(name), {}) == again
    assert fingerprint(Program(name, "x", 1), _language(name), {}) != again


@pytest.mark.parametrize("name", NAMES)
def test_the_smallest_program_passes(name):
    language = _language(name)
    assert verdict(language, language.smallest) is Verdict.PASSED
    assert verdict(languages(UPSTREAM)[name], language.smallest) is Verdict.PASSED


@dataclass(frozen=True)
class Other(Python):
    """Python with another numpy."""

    library: str = field(default="other")

    def versions(self):
        return (*super().versions()[:-1], self.library)


def test_a_verdict_does_not_outlive_an_upgrade():
    program = Program("python", "", 1)
    assert fingerprint(program, Python(), {}) != fingerprint(program, Other(), {})
    assert all(Python().versions())


@pytest.mark.parametrize("name", NAMES)
def test_what_is_made_once_is_made_before_the_first_program(name, monkeypatch, tmp_path):
    language = _language(name)
    language.prepare()  # kept from other tests
    (tmp_path / "file").touch()
    monkeypatch.setenv("MFTRUN_CACHE", str(tmp_path / "file"))
    language.prepare()
    new = _language(name)
    if name in ("python", "js"):
        new.prepare()
    else:
        with pytest.raises(MftrunError, match=f"cannot prepare {name}"):
            new.prepare()
