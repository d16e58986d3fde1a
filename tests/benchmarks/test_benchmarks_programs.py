"""Programs: solutions with what stands before them, and their tests behind."""

from dataclasses import replace

import pytest

from mftrun.benchmarks.base import Problem
from mftrun.benchmarks.compat import STRICT, UPSTREAM

PYTHON_HEAD = [
    *("import math", "import re", "import sys", "import copy", "import datetime", "import itertools"),
    *("import collections", "import heapq", "import statistics", "import functools", "import hashlib"),
    *("import numpy", "import numpy as np", "import string"),
    *("from typing import *", "from collections import *"),
]


def source(posed, name, solution=None, compat=STRICT, **fields):
    """The text of a program, of the right solution unless another is given."""
    benchmark, problem = posed(name, compat)
    problem = Problem(problem.id, {**problem.fields, **fields})
    return benchmark.assemble(problem, benchmark.canonical(problem) if solution is None else solution).source


def test_python(posed):
    found = source(posed, "humanevalfixtests-python", "def twice(x): ...\n")
    assert found.split("\n")[:16] == PYTHON_HEAD
    assert found.split("\n")[16] == "def twice(x): ..."
    assert found.endswith(
        "def twice(x): ...\n\n\ndef check(twice):\n    assert twice(2) == 4\n\ncheck(twice)"
    )


def test_python_without_a_stray_quote(posed):
    broken = {"declaration": 'def twice(x):\n    "\n', "canonical_solution": "    return 2 * x\n"}
    name = "humanevalfixtests-python"
    assert "\ndef twice(x):\n    return 2 * x\n" in source(posed, name, **broken)
    assert '\ndef twice(x):\n    "\n    return 2 * x\n' in source(posed, name, compat=UPSTREAM, **broken)


def test_cpp(posed):
    found = source(posed, "humanevalsynthesize-cpp", "int twice(int x){}\nint main(){ wrong }")
    head, rest = found.split("using namespace std;\n", 1)
    assert head.count("#include<") == len(head.splitlines()) == 20
    assert "#include<boost/any.hpp>\n" in head
    assert rest.startswith("int twice(int x){}\n#undef NDEBUG\n#include<assert.h>\nint main(){")
    assert "wrong" not in found


def test_js(posed):
    solution = "const twice = (x) => 2 * x"
    found = source(posed, "humanevalsynthesize-js", solution)
    assert found.startswith(f"{solution}\nconst testTwice")


def test_java_without_the_empty_main(posed):
    solution = "import java.util.*;\nclass Solution { }\npublic class Main {\n    }"
    found = source(posed, "humanevalsynthesize-java", solution)
    assert found.startswith(
        "import java.util.*;\nclass Solution { }\npublic class Main {\n    public static void"
    )


GO = """package main

import (
    "testing"
    "github.com/stretchr/testify/assert"
)

"""


def test_go_adds_what_is_used(posed):
    solution = (
        "\nfunc Twice(x float64) float64 { // strings.Join\n"
        '    fmt.Println("sort.Ints", rand.Int(), my.time.Now(), time.now)\n    return math.Abs(x) }'
    )
    found = source(posed, "humanevalfixtests-go", solution)
    added = 'import (\n    "math"\n    "fmt"\n    "math/rand"\n)\n'
    assert found.startswith(GO + added + solution + "\nfunc TestTwice")


@pytest.mark.parametrize(
    ("used", "package"),
    [
        ('c == \'"\' && strings.Contains("x", "y")', "strings"),
        ("c == '\\'' || strings.Contains(\"'\", `\"`)", "strings"),
        ('m["sort"] + sort.Ints(x)', "sort"),
        ('m[`\nimport "sort"\n`] + sort.Ints(x)', "sort"),
        ('/* import "time" */ time.Now()', "time"),
    ],
)
def test_go_sees_that_an_import_is_missing(posed, used, package):
    found = source(posed, "humanevalfixtests-go", f"\nfunc Twice() bool {{ return {used} }}")
    assert f'import (\n    "{package}"\n)\n' in found


@pytest.mark.parametrize(
    "imported",
    [
        'import "sort"',
        'import sort "sort"',
        "import `sort`",
        'import ( // )\n"fmt"\n\t"sort" /* so */)',
        'import("sort")',
    ],
)
def test_go_sees_what_is_imported(posed, imported):
    found = source(
        posed, "humanevalfixtests-go", f"package main\n{imported}\nfunc Twice() {{ sort.Ints(x) }}"
    )
    assert 'import (\n    "sort"' not in found
    again = (
        imported.replace("import", "import other") if imported.startswith('import "') else "import o `sort`"
    )
    found = source(posed, "humanevalfixtests-go", f"package main\n{again}\nfunc Twice() {{ sort.Ints(x) }}")
    assert 'import (\n    "sort"\n)' in found


def test_go_keeps_imports_of_the_tests_that_a_solution_only_names(posed):
    solution = '\nfunc Twice(x float64) float64 { return m["testing"] }'
    assert source(posed, "humanevalfixtests-go", solution).startswith(GO)


def test_go_imports_nothing_twice(posed):
    solution = (
        'import (\n    "math"\n    "testing"\n)\n\nfunc Twice(x float64) float64 { return math.Abs(x) }'
    )
    found = source(posed, "humanevalsynthesize-go", f"package main\n{solution}")
    assert found.startswith(GO.replace('"testing"', "") + "\n" + solution)


def test_go_as_it_was(posed):
    solution = "\nfunc Twice(x float64) float64 { return rand.Float64() + md5.Size }"
    found = source(posed, "humanevalfixtests-go", solution, UPSTREAM)
    assert 'import (\n    "rand"\n    "md5"\n)\n' in found


def test_go_brings_helpers_that_the_declaration_lacks(posed):
    helped = 'import (\n    "math"\n)\n\nfunc One() int {\n    return 1\n}\n\n// Doc.\nfunc Twice() int {\n'
    solution = "\nfunc Twice() int { return 2 * One() }"
    ask = {"name": "humanevalfixtests-go", "prompt": helped}
    assert "func One() int {\n    return 1\n}" in source(posed, solution=solution, **ask)
    assert "func One()" not in source(posed, solution=solution, compat=UPSTREAM, **ask)
    both = f"{solution}\nfunc One() int {{ return 1 }}"
    assert source(posed, solution=both, **ask).count("func One()") == 1


def test_rust_adds_what_is_missing(posed):
    solution = "fn twice(x: i32) -> i32 { 2 * x }"
    found = source(posed, "humanevalfixtests-rust", solution)
    assert found.startswith(f"fn main(){{}}\nuse std::cmp::max;\n{solution}\n\n#[cfg(test)]")


def test_rust_has_one_main(posed):
    solution = "fn main(){}\n\nuse std::cmp::max;\n\nfn twice(x: i32) -> i32{ 2 * x }\n"
    found = source(posed, "humanevalsynthesize-rust", solution + "fn main() { wrong }")
    assert found.startswith(f"{solution}\n\n#[cfg(test)]")


def test_humaneval(posed):
    found = source(posed, "humaneval")
    namespace = {}
    exec(found.removesuffix("check(twice)\n"), namespace)
    namespace["check"](lambda x: 4)
    assert found.endswith("    assert candidate(2) == 4\n\ncheck(twice)\n")


def test_mbpp(posed):
    tests = "assert twice(two) == four\nassert twice(0) == 0"
    right = "import math\ndef twice(x):\n  return 2 * x"
    assert source(posed, "mbpp") == f"{right}\ntwo = 2 \nfour = 4\n{tests}"
    assert source(posed, "mbpp", test_setup_code="") == f"{right}\n{tests}"
    assert source(posed, "mbpp", compat=UPSTREAM) == f"{right}\n{tests}"


def test_upstream_differs_in_what_it_says_alone(posed):
    same = replace(UPSTREAM, bare_go_imports=False, go_helpers_left_out=False, test_setup_ignored=False)
    for name in ("humanevalfixtests-python", "humanevalfixtests-go", "humanevalsynthesize-rust", "mbpp"):
        assert source(posed, name, compat=same) == source(posed, name)


def test_comments_that_never_end_take_no_time(posed):
    """Looking for the end of each would take minutes."""
    assert "/* /* " in source(posed, "humanevalfixtests-go", "/* " * 20_000)
