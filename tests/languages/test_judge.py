"""From a recipe and what became of its steps to a verdict; no program is run here."""

import os
from dataclasses import dataclass, field

import pytest

from mftrun.benchmarks.compat import STRICT, UPSTREAM
from mftrun.languages.base import Program, Recipe, Verdict
from mftrun.languages.judge import judge
from mftrun.languages.registry import languages
from mftrun.languages.word import has_said
from mftrun.sandbox.base import End, Limits, Outcome, Step

WORD = "the-word"
GOOD = Outcome(End.EXITED, 0, f"hello\n{WORD}\n", "", 0.5)
COMPILED = Outcome(End.EXITED, 0, "", "", 0.25)


@dataclass
class Scripted:
    """A sandbox that looks at the folders, and says what it was told to say."""

    outcomes: list[Outcome]
    name: str = "scripted"
    seen: list[tuple[Step, dict[str, bytes]]] = field(default_factory=list)

    def run(self, step, files, build):
        assert build.is_dir()
        assert not list(build.iterdir())
        self.seen.append((step, {path.name: path.read_bytes() for path in files.iterdir()}))
        return self.outcomes.pop(0)


@dataclass(frozen=True)
class Made:
    """A language of two steps."""

    name = "made"
    memory_signs = ("out of cells",)
    compiles: bool = True

    def missing(self):
        return None

    def prepare(self):
        pass

    def versions(self):
        return ()

    def recipe(self, program, nonce):
        compile_ = Step(["compile"], Limits(9), builds=True) if self.compiles else None
        return Recipe({"a.txt": program.source}, compile_, Step(["run"], Limits(1), stdin=nonce.encode()))

    def has_passed(self, outcome, nonce):
        return has_said(outcome, nonce)


def judged(*outcomes, language=None, source="x"):
    program = Program("made", source, 1)
    return judge(program, language or Made(), Scripted(list(outcomes)), WORD)


def test_a_program_passes_only_when_its_driver_says_so():
    passed = judged(COMPILED, GOOD)
    assert passed == (Verdict.PASSED, "hello", 0.75)
    assert judged(COMPILED, GOOD._replace(stdout="hello")).verdict is Verdict.FAILED
    assert judged(COMPILED, GOOD._replace(exit_code=1)).verdict is Verdict.FAILED
    assert judged(COMPILED, GOOD._replace(stdout=f"x{WORD}")).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("end", "of_run", "of_compiler"),
    [
        (End.TIMEOUT, Verdict.TIMEOUT, Verdict.TIMEOUT),
        (End.MEMORY, Verdict.MEMORY, Verdict.MEMORY),
        (End.OUTPUT, Verdict.OUTPUT_LIMIT, Verdict.COMPILE_ERROR),
        (End.ERROR, Verdict.SANDBOX_ERROR, Verdict.SANDBOX_ERROR),
    ],
)
def test_how_a_command_ended_is_its_verdict_whatever_was_said(end, of_run, of_compiler):
    outcome = GOOD._replace(end=end, exit_code=None, reason="why")
    assert judged(COMPILED, outcome).verdict is of_run
    assert judged(outcome).verdict is of_compiler
    assert judged(outcome).log == "why\nhello"


def test_what_does_not_compile_is_not_run():
    failed = judged(Outcome(End.EXITED, 1, "", "line 1: what?", 0.5))
    assert failed == (Verdict.COMPILE_ERROR, "line 1: what?", 0.5)


def test_a_program_that_says_that_memory_ran_out_is_believed_unless_it_passed():
    said = Outcome(End.EXITED, 1, "", "out of cells", 0.5)
    assert judged(COMPILED, said).verdict is Verdict.MEMORY
    assert judged(said).verdict is Verdict.MEMORY
    assert judged(COMPILED, GOOD._replace(stderr="out of cells")).verdict is Verdict.PASSED


def test_steps_see_the_files_and_no_step_but_the_run_hears_the_word():
    sandbox = Scripted([COMPILED, GOOD])
    judge(Program("made", "\ud800 ü", 1), Made(), sandbox, WORD)
    (compiled, files), (ran, _) = sandbox.seen
    assert files == {"a.txt": "\\ud800 ü".encode()}
    assert (compiled.stdin, ran.stdin) == (b"", WORD.encode())


@dataclass
class Digging(Scripted):
    """A sandbox whose programs leave folders in folders."""

    def run(self, step, files, build):
        outcome = super().run(step, files, build)
        self.top = build.parent
        here = os.open(build, os.O_RDONLY)
        for _ in range(3000):
            os.mkdir("a", dir_fd=here)
            inner = os.open("a", os.O_RDONLY, dir_fd=here)
            os.close(here)
            here = inner
        os.close(here)
        return outcome


def test_however_deep_its_folders_are_a_program_leaves_none_behind():
    sandbox = Digging([GOOD])
    assert judge(Program("made", "x", 1), Made(compiles=False), sandbox, WORD).verdict is Verdict.PASSED
    assert not sandbox.top.exists()


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), RecursionError("No space left")])
def test_what_goes_wrong_around_a_program_is_told_of_it_alone(error):
    @dataclass
    class Failing(Scripted):
        def run(self, step, files, build):
            raise error

    found = judge(Program("made", "x", 1), Made(), Failing([]), WORD)
    assert found.verdict is Verdict.SANDBOX_ERROR
    assert "No space left" in found.log


def test_every_program_has_a_word_of_its_own():
    sandbox = Scripted([GOOD, GOOD])
    for _ in range(2):
        judge(Program("made", "x", 1), Made(compiles=False), sandbox)
    words = {step.stdin for step, _ in sandbox.seen}
    assert len(words) == 2
    assert all(len(word) == 32 for word in words)


def test_long_logs_are_shortened_in_their_middle():
    log = judged(COMPILED, GOOD._replace(stderr="a" * 9000, stdout="z" * 9000)).log
    assert log.startswith("aaa")
    assert log.endswith("zzz")
    assert "characters left out" in log
    assert len(log) < 4100


def test_a_silent_failure_says_its_exit_code():
    assert judged(COMPILED, Outcome(End.EXITED, -11, "", "", 0)).log == "exit code -11"


def test_all_languages_are_known_by_their_names():
    known = languages(STRICT)
    assert list(known) == ["python", "java", "js", "cpp", "go", "rust"]
    assert all(language.name == name and language.memory_signs for name, language in known.items())
    assert type(languages(UPSTREAM)["js"]) is not type(known["js"])
