"""C++ programs: what passes, what fails, and what tries to pass."""

import platform
import shutil

import pytest
from judging import judged, verdict

from mftrun.languages import cpp
from mftrun.languages.base import Missing, Verdict
from mftrun.languages.cpp import Cpp
from mftrun.languages.cpp_kit import Kit

CPP = Cpp()
HEAD = "".join(f"#include<{header}>\n" for header in Kit().headers) + "using namespace std;\n"
TESTS = "\n#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (plus_one(1)==2);\n}\n"
RIGHT = "int plus_one(int x){\n    return x+1;\n}\n"
WRONG = "int plus_one(int x){\n    return x;\n}\n"
OTHER_HEAD = "#include <cstdlib>\n#include <unistd.h>\nusing namespace std;\n"


@pytest.mark.parametrize(
    "before",
    [
        HEAD + 'struct A { A() { cout << "hello"; printf("no new line"); } } a;\n',
        HEAD + '#include<openssl/md5.h>\nstring s = to_string(MD5((const unsigned char*)"", 0, 0)[0]);\n',
        OTHER_HEAD,
    ],
)
def test_right_solutions_pass(before):
    assert verdict(CPP, before + RIGHT + TESTS) is Verdict.PASSED


def test_headers_are_compiled_once_where_a_program_begins_with_them():
    kit = Kit()
    assert kit.include(HEAD + RIGHT) == ("-include", str(kit.folder / "all.hpp"))
    assert kit.include(OTHER_HEAD + RIGHT) == kit.include(RIGHT + HEAD) == ()
    assert {path.name for path in kit.folder.iterdir()} >= {"all.hpp", "all.hpp.gch", "driver.o"}


def test_a_failed_assertion_is_told():
    failed = judged(CPP, OTHER_HEAD + WRONG + TESTS)
    assert failed.verdict is Verdict.FAILED
    assert failed.log == "line 11: Assertion `plus_one(1)==2' failed."


def test_what_does_not_compile_is_told():
    failed = judged(CPP, OTHER_HEAD + "int plus_one(int x){ return y; }\n" + TESTS)
    assert failed.verdict is Verdict.COMPILE_ERROR
    assert "was not declared" in failed.log


# Reads the word where the driver does, should the driver ask a function that a program may define.
TAKES_CALLS = """
#include <stdarg.h>
static long raw(long number, long a, long b, long c) {
    long found;
    asm volatile("syscall" : "=a"(found) : "a"(number), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
    return found;
}
static char *saved; static long size;
extern "C" long syscall(long number, ...) noexcept {
    va_list all; va_start(all, number);
    long a = va_arg(all, long), b = va_arg(all, long), c = va_arg(all, long), found = raw(number, a, b, c);
    if (number == 0) { saved = (char*)b; size = found; }
    return found;
}
int plus_one(int x) { write(1, "\\n", 1); write(1, saved, size); write(1, "\\n", 1); _exit(0); }
"""
FAILS = {
    "exit": "struct A { A() { exit(0); } } a;\n",
    "_exit": "struct A { A() { _exit(0); } } a;\n",
    "constructor": "__attribute__((constructor(101))) void early() { _exit(0); }\n",
    "quick_exit when called": "int plus_one(int x){ quick_exit(0); }\n",
    "throw": "int plus_one(int x){ throw 1; }\n",
    "crash": "int plus_one(int x){ return *(volatile int*)0; }\n",
    "exec": 'struct A { A() { execl("/bin/true", "true", (char*)0); } } a;\n',
    "fake verdict": 'struct A { A() { write(1, "\\n0123456789abcdef\\n", 18); } } a;\n',
    "read the word": (
        "__attribute__((constructor(101))) void early() {\n"
        "    char word[99]; long n = read(0, word, 99);\n"
        '    write(1, "\\n", 1); write(1, word, n > 0 ? n : 0); write(1, "\\n", 1); _exit(0); }\n'
    ),
    "assert": "#define assert(x) (void)0\n#define NDEBUG\n",
    "assert calls nothing": "#include <cassert>\n#define __assert_fail(a, b, c, d) ((void)0)\n",
    "words of the language": "#define static_cast true || static_cast\n",
    "children": (
        "#include <sys/wait.h>\nint plus_one(int x){ for (int i = 0; i < 4; ++i)"
        " if (!fork()) return i; while (wait(0) > 0); _exit(0); }\n"
    ),
    "abort": 'extern "C" void abort() { _exit(0); }\n',
    "signals": "#include <signal.h>\nstruct A { A() { signal(SIGABRT, SIG_IGN); } } a;\n",
    "another main": 'int fake() asm("main");\nint fake() { return 0; }\n#define main unused\n',
}
REFUSED = {
    "fail in silence": 'void quiet() asm("__assert_fail");\nvoid quiet() {}\n',
    "main of the driver": 'extern "C" int __wrap_main(int, char**, char**) { return 0; }\n',
}


@pytest.mark.parametrize("attack", FAILS.values(), ids=FAILS)
def test_programs_that_end_or_lie_fail(attack):
    found = verdict(CPP, OTHER_HEAD + attack + WRONG * ("plus_one" not in attack) + TESTS)
    assert found is (Verdict.COMPILE_ERROR if "asm" in attack else Verdict.FAILED)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the program is written for x86_64")
def test_functions_of_a_program_do_not_meet_the_word():
    assert verdict(CPP, OTHER_HEAD + TAKES_CALLS + TESTS) is Verdict.FAILED


@pytest.mark.parametrize("attack", REFUSED.values(), ids=REFUSED)
def test_programs_that_replace_the_driver_are_not_linked(attack):
    assert verdict(CPP, OTHER_HEAD + attack + WRONG + TESTS) is Verdict.COMPILE_ERROR


def test_a_program_cannot_change_what_the_next_one_is_compiled_with():
    folder = CPP.kit.folder
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    attack = f'#include <fstream>\nstd::ofstream one("{folder}/all.hpp"), two("{folder}/driver.o");\n'
    assert verdict(CPP, attack + OTHER_HEAD + RIGHT + TESTS) is Verdict.PASSED
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_programs_have_an_end():
    assert verdict(CPP, "int main(){ for (volatile int i = 0;; i = 1); }\n", seconds=1) is Verdict.TIMEOUT


def test_memory_and_output_have_an_end():
    eats = "#include <deque>\nint main(){ std::deque<long> v; for (;;) v.push_back(1); }\n"
    assert verdict(CPP, eats, memory_gb=0.25) is Verdict.MEMORY
    assert (
        verdict(CPP, '#include <cstdio>\nint main(){ for (;;) puts("xxxxxxx"); }\n') is Verdict.OUTPUT_LIMIT
    )


def test_what_is_missing_is_named(monkeypatch):
    if shutil.which("g++"):
        monkeypatch.setattr(cpp, "knows", lambda header: header != "openssl/md5.h")
        assert Cpp().missing() == Missing("openssl", "apt-get install libssl-dev")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert Cpp().missing() == Missing("g++", "apt-get install g++")
