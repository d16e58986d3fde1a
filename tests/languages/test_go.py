"""Go programs: what they may do, and what does not help them to pass."""

from functools import partial

import pytest
from judging import judged as judged_by

from mftrun.languages.base import Verdict
from mftrun.languages.go import Go

_PROGRAM = """\
package main

import (
    "testing"
    "github.com/stretchr/testify/assert"
    %s
)

func Twice(n int) int {
    %s
}

func TestTwice(t *testing.T) {
    assert := assert.New(t)
    assert.Equal(4, Twice(2))
    assert.Equal(true, Twice(0) == 0)
}
"""
_OPENED = (
    "for _, file := range []string{%s} { if text, _ := os.ReadFile(file); len(text) > 0 { return 2 * n } }"
)
_OPENED += "\nreturn 0"
_MEMORY = 'if _, err := os.Open("/proc/self/mem"); err == nil { return 2 * n }\nreturn 0'
_STDIN = _OPENED % '"/dev/stdin", "/proc/self/fd/0", "/proc/1/fd/0"'
_LINK = "return 0 }\n//go:linkname say word.Say\nfunc say()\nfunc init() { _ = unsafe.Pointer(nil); say()"


@pytest.fixture(scope="module")
def judged():
    return partial(judged_by, Go())


def _program(body, *imports):
    return _PROGRAM % ("\n    ".join(f'"{one}"' for one in imports), body)


def test_a_right_program_passes(judged):
    program = _program('fmt.Print("heard"); return len(strings.Repeat("x", 2 * n))', "fmt", "strings")
    assert judged(program).verdict is Verdict.PASSED


def test_a_wrong_program_fails_and_says_where(judged):
    found = judged(_program("return n"))
    assert found.verdict is Verdict.FAILED
    assert "Not equal" in found.log
    assert "program.go:15" in found.log


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("return m", Verdict.COMPILE_ERROR),
        ("kept := [][]byte{}; for { kept = append(kept, make([]byte, 1 << 28)) }", Verdict.MEMORY),
        ('for { println("flood, flood, flood, flood") }', Verdict.OUTPUT_LIMIT),
        ("return Twice(n) + 1", Verdict.FAILED),
        ('panic("no")', Verdict.FAILED),
    ],
)
def test_other_verdicts(judged, body, verdict):
    assert judged(_program(body)).verdict is verdict


def test_an_endless_program(judged):
    assert judged(_program("for { }"), seconds=1).verdict is Verdict.TIMEOUT


@pytest.mark.parametrize(
    ("body", "imports"),
    [
        ("os.Exit(0); return 0", ["os"]),
        ("return 0 }\nfunc init() { os.Exit(0)", ["os"]),
        ('fmt.Println("PASS\\nok"); os.Exit(0); return 0', ["fmt", "os"]),
        ("runtime.Goexit(); return 0", ["runtime"]),
        ('return 0 }\nfunc init() { testing.Init(); flag.Set("test.run", "none")', ["flag"]),
        ('return 0 }\nfunc init() { os.Args = []string{"p", "-test.run=none"}', ["os"]),
        ("go os.Exit(0); for { }", ["os"]),
        (_STDIN, ["os"]),
        (_MEMORY, ["os"]),
    ],
)
def test_a_wrong_program_does_not_pass_by_a_trick(judged, body, imports):
    assert judged(_program(body, *imports)).verdict is Verdict.FAILED


@pytest.mark.parametrize(
    ("body", "imports"),
    [
        ("return 0 }\nconst true, false = 1 == 1, 1 == 1\nfunc init() {", []),
        ("return 0 }\nfunc TestMain(m *testing.M) {\n}\nfunc TestTwice(t *testing.T) {", []),
        ("word.Say(); return 0", ["word"]),
        (_LINK, ["unsafe"]),
        (_LINK.replace("word.Say", "main.main"), ["unsafe"]),
    ],
)
def test_a_program_may_not_replace_what_its_tests_use(judged, body, imports):
    assert judged(_program(body, *imports)).verdict is Verdict.COMPILE_ERROR


def test_a_program_without_tests_does_not_pass(judged):
    found = judged("package main\n")
    assert found.verdict is Verdict.FAILED


def test_without_go_its_name_and_the_way_to_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    missing = Go().missing()
    assert missing is not None
    assert "golang-go" in missing.install
