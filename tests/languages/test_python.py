"""Python programs: what passes, what fails, and what tries to pass."""

import importlib.util
from dataclasses import dataclass, replace

import pytest
from judging import judged, verdict

from mftrun.languages.base import Missing, Verdict
from mftrun.languages.python import Python

PYTHON = Python()
TESTS = "def check(f):\n    assert f(1) == 2\n\ncheck(plus)\n"
RIGHT = "def plus(x):\n    return x + 1\n"
WRONG = "def plus(x):\n    return x\n"


@pytest.mark.parametrize(
    "before",
    [
        "",
        "print('hello')\n",
        "import numpy as np\nassert np.arange(3).sum() == 3\nfrom numpy.linalg import norm\n",
        "from numpy import *\nassert array([1]).sum() == 1\n",
        "import numpy.linalg as la\nassert la.norm([3, 4]) == 5\n",
        "import numpy\nimport numpy as np\nimport sys\nassert 'numpy.linalg' not in sys.modules\n",
        "import sys, collections, dataclasses\nassert sys.argv and __name__ == '__main__'\n",
        "@__import__('dataclasses').dataclass\nclass A:\n    x: int = 1\n",
    ],
)
def test_right_solutions_pass(before):
    assert verdict(PYTHON, before + RIGHT + TESTS) is Verdict.PASSED


def test_what_failed_is_told_from_the_program_on():
    failed = judged(PYTHON, WRONG + TESTS)
    assert failed.verdict is Verdict.FAILED
    assert failed.log.endswith("AssertionError")
    assert "driver.py" not in failed.log


def test_what_is_no_program_fails():
    failed = judged(PYTHON, "def plus(x) return x\n" + TESTS)
    assert failed.verdict is Verdict.FAILED
    assert "SyntaxError" in failed.log


ENDS = {
    "sys.exit": "import sys\nsys.exit(0)\n",
    "os._exit": "import os\nos._exit(0)\n",
    "raise": "raise SystemExit\n",
    "quit when called": "import os\ndef plus(x):\n    os._exit(0)\n",
    "signal": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "exec another program": "import os\nos.execv('/bin/true', ['true'])\n",
    "answers of children": (
        "import os\ndef plus(x):\n    for answer in range(4):\n"
        "        if os.fork() == 0:\n            return answer\n        os.wait()\n    os._exit(0)\n"
    ),
    "leave a child behind": "import os\nif os.fork():\n    os._exit(0)\n",
}
LIES = {
    "fake verdict": "print('passed')\nprint('0' * 32)\n",
    "empty word": "import os\nos.write(1, b'\\n\\n')\n",
    "write to the harness's files": (
        "for name in ('/job/program.py', '/job/driver.py', '/build/x', '/mnt/0/driver.py'):\n"
        "    try:\n        open(name, 'w').write('print()')\n    except OSError:\n        pass\n"
    ),
    "redefine check": "check = lambda f: None\n",
    "print": "import builtins\nbuiltins.print = lambda *a, **k: None\n",
    "built-ins": "import builtins\nbuiltins.AssertionError = Warning\nbuiltins.exec = lambda *a: None\n",
    "stdout": "import sys, io\nsys.stdout = io.StringIO()\n",
    "os.write": "import os\nos.write = lambda *a: 0\nos._exit = lambda *a: None\n",
    "atexit": "import atexit, os\natexit.register(os._exit, 0)\n",
    "excepthook": "import sys, os\nsys.excepthook = lambda *a: os._exit(0)\n",
    "trace": "import sys\nsys.settrace(lambda *a: None)\n",
}
# Each looks for the word in one place and says all that it has found, as the driver would.
LOOKS = {
    "frames": (
        "import sys\nframe = sys._getframe()\nwhile frame:\n"
        "    found += [*frame.f_locals.values(), *frame.f_globals.values(), *frame.f_code.co_consts]\n"
        "    frame = frame.f_back\n"
    ),
    "gc": (
        "import gc, sys\nframe = sys._getframe()\nwhile frame:\n"
        "    found += gc.get_referents(frame)\n    frame = frame.f_back\n"
        "for thing in gc.get_objects():\n    found += gc.get_referents(thing)\n"
    ),
    "stdin": "import sys\nfound.append(sys.stdin.read())\n",
    "descriptors": (
        "import os\nfor number in range(32):\n    try:\n        found.append(os.pread(number, 99, 0))\n"
        "    except OSError:\n        pass\n"
    ),
    "proc": (
        "import glob\nfor name in glob.glob('/proc/[0-9]*/fd/[0-9]*') + glob.glob('/proc/[0-9]*/environ')"
        " + glob.glob('/proc/[0-9]*/cmdline'):\n    try:\n        found.append(open(name, 'rb').read(999))\n"
        "    except OSError:\n        pass\n"
    ),
    "memory": (
        "import re\nwith open('/proc/self/mem', 'rb') as memory:\n"
        "    for line in open('/proc/self/maps'):\n"
        "        begin, end = (int(one, 16) for one in line.split()[0].split('-'))\n"
        "        if 'rw' in line:\n            memory.seek(begin)\n"
        "            found += re.findall(rb'\\b[0-9a-f]{32}\\b', memory.read(end - begin))\n"
    ),
}
SAY = (
    "import os, re\nfor thing in found:\n"
    "    text = thing.encode('utf-8', 'replace') if isinstance(thing, str) else thing\n"
    "    if not isinstance(text, bytes):\n        continue\n"
    "    for word in re.findall(rb'\\b[0-9a-f]{32}\\b', text):\n        os.write(1, b'\\n' + word + b'\\n')\n"
    "os._exit(0)\n"
)


@pytest.mark.parametrize("attack", ENDS.values(), ids=ENDS)
def test_programs_that_end_before_their_tests_fail(attack):
    assert verdict(PYTHON, attack + WRONG * ("plus" not in attack) + TESTS) is Verdict.FAILED


@pytest.mark.parametrize("attack", LIES.values(), ids=LIES)
def test_programs_that_lie_fail(attack):
    assert verdict(PYTHON, attack + WRONG + TESTS) is Verdict.FAILED


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_the_word_is_not_found(look):
    assert verdict(PYTHON, f"found = []\n{look}{SAY}") is Verdict.FAILED


@dataclass(frozen=True)
class Leaking(Python):
    """Python whose driver tells the program its word."""

    def recipe(self, program, nonce):
        recipe = super().recipe(program, nonce)
        driver = f"import sys\nsys.argv = ['{nonce}']\nexec(open('/job/program.py').read())\n"
        return replace(recipe, files={**recipe.files, "driver.py": driver})


def test_a_word_that_was_found_would_pass():
    assert verdict(Leaking(), f"import sys\nfound = sys.argv\n{SAY}") is Verdict.PASSED


def test_endless_programs_are_ended():
    assert verdict(PYTHON, "while True:\n    pass\n", seconds=1) is Verdict.TIMEOUT


def test_memory_and_output_have_an_end():
    assert verdict(PYTHON, "x = [b'x' * (1 << 24) for _ in range(999)]\n", memory_gb=0.25) is Verdict.MEMORY
    assert verdict(PYTHON, "while True:\n    print('x' * 9999)\n") is Verdict.OUTPUT_LIMIT


def test_sets_have_one_order():
    source = "import sys\nprint(list({'a', 'b', 'c', 'd', 'e'}))\n"
    assert judged(PYTHON, source).log == judged(PYTHON, source).log


def test_what_is_missing_is_named(monkeypatch):
    assert PYTHON.missing() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert PYTHON.missing() == Missing("numpy", "pip install numpy")
