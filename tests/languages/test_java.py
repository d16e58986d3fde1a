"""Java programs: what they may do, and what does not help them to pass."""

from functools import partial

import pytest
from judging import judged as judged_by

from mftrun.languages.base import Verdict
from mftrun.languages.java import Java

_PROGRAM = """\
import java.util.*;

class Solution {
    public int twice(int n) {
        %s
    }
}

public class Main {
    public static void main(String[] args) {
        List<Boolean> correct = Arrays.asList(new Solution().twice(2) == 4, new Solution().twice(0) == 0);
        if (correct.contains(false)) {
            throw new AssertionError();
        }
    }
}
"""
_WORDS = """\
        java.util.regex.Matcher found = java.util.regex.Pattern.compile("[0-9a-f]{32}").matcher(seen);
        while (found.find()) { System.out.println(found.group()); }
        System.exit(0);
"""
_DUMP = (
    """\
        String seen = "";
        try {
            var server = java.lang.management.ManagementFactory.getPlatformMBeanServer();
            java.lang.management.ManagementFactory.newPlatformMXBeanProxy(
                server, "com.sun.management:type=HotSpotDiagnostic",
                com.sun.management.HotSpotDiagnosticMXBean.class).dumpHeap("/tmp/all.hprof", false);
            seen = new String(new java.io.FileInputStream("/tmp/all.hprof").readAllBytes(), "ISO-8859-1");
        } catch (Exception error) { throw new RuntimeException(error); }
"""
    + _WORDS
    + "return 0;"
)
_STDIN = (
    """\
        String seen = "";
        for (String file : new String[] {"/dev/stdin", "/proc/self/fd/0", "/proc/1/fd/0"}) {
            try { seen += new String(new java.io.FileInputStream(file).readAllBytes()); }
            catch (java.io.IOException error) { }
        }
"""
    + _WORDS
    + "return 0;"
)
_THREAD = "new Thread(() -> { while (true) { Thread.onSpinWait(); } }).start(); return 2 * n;"
_NO_LIST = "class Arrays { static <T> List<T> asList(T... all) { return new ArrayList<>(); } }"
_NO_MATH = "class Math { static int abs(int x) { return 0; } }"
_FLOOD = 'while (true) { System.out.println("x".repeat(10000)); }'
_HOARD = "List<long[]> all = new ArrayList<>(); while (true) { all.add(new long[1 << 20]); }"
_SAY = 'System.out.println("passed"); System.out.println("true"); System.exit(0); return 0;'


@pytest.fixture(scope="module")
def judged():
    return partial(judged_by, Java(heap_mb=64))


def test_a_right_program_passes(judged):
    assert judged(_PROGRAM % 'System.out.print("heard"); return 2 * n;').verdict is Verdict.PASSED


def test_a_wrong_program_fails_and_says_where(judged):
    found = judged(_PROGRAM % "return n;")
    assert found.verdict is Verdict.FAILED
    assert "AssertionError" in found.log


@pytest.mark.parametrize(
    ("body", "verdict"),
    [
        ("return m;", Verdict.COMPILE_ERROR),
        (_HOARD, Verdict.MEMORY),
        (_FLOOD, Verdict.OUTPUT_LIMIT),
        ("return twice(n) + 1;", Verdict.FAILED),
    ],
)
def test_other_verdicts(judged, body, verdict):
    assert judged(_PROGRAM % body).verdict is verdict


@pytest.mark.parametrize("body", ["while (true) { }", _THREAD])
def test_whatever_does_not_end_in_time(judged, body):
    assert judged(_PROGRAM % body, seconds=2).verdict is Verdict.TIMEOUT


@pytest.mark.parametrize(
    "body",
    [
        "System.exit(0); return 0;",
        "Runtime.getRuntime().halt(0); return 0;",
        "return 0; } static { System.exit(0);",
        "Runtime.getRuntime().addShutdownHook(new Thread(() -> Runtime.getRuntime().halt(0))); return 0;",
        "Thread.currentThread().setUncaughtExceptionHandler((t, e) -> System.exit(0)); return 0;",
        _SAY,
        _STDIN,
        _DUMP,
    ],
)
def test_a_wrong_program_does_not_pass_by_a_trick(judged, body):
    assert judged(_PROGRAM % body).verdict is Verdict.FAILED


@pytest.mark.parametrize("own", [_NO_LIST, _NO_MATH, "class Optional { }"])
def test_a_program_may_not_replace_what_its_tests_use(judged, own):
    found = judged(_PROGRAM % "return 0;" + own)
    assert found.verdict is Verdict.FAILED
    assert "as Java has" in found.log


def test_without_a_jdk_its_name_and_the_way_to_it(monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    missing = Java().missing()
    assert missing is not None
    assert "apt-get install" in missing.install
