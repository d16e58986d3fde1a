"""What becomes of answers: where they are cut, and what is found in those that talk."""

import pytest

from mftrun.benchmarks.compat import UPSTREAM
from mftrun.benchmarks.cutting import Bracketed, InClass, Indented
from mftrun.benchmarks.fences import fenced

LANGUAGES = ("python", "java", "js", "cpp", "go", "rust")
PACK = [f"humaneval{task}-{one}" for task in ("synthesize", "fixtests") for one in LANGUAGES]
TALK = "\n\nThis works {because} it does.\n"


@pytest.mark.parametrize("name", [*PACK, "humaneval"])
def test_the_right_solution_as_a_model_writes_it(posed, name):
    benchmark, problem = posed(name)
    right, begun = benchmark.canonical(problem), benchmark.prompt(problem).begun
    written = right[len(begun) :]
    assert right.startswith(begun)
    assert benchmark.postprocess(problem, written) == right
    assert benchmark.postprocess(problem, written + "\n<|endoftext|>more") == right
    assert benchmark.postprocess(problem, problem.fields["canonical_solution"]).split() == right.split()


@pytest.mark.parametrize("name", PACK)
def test_what_follows_the_function_is_cut(posed, name):
    benchmark, problem = posed(name)
    right, begun = benchmark.canonical(problem), benchmark.prompt(problem).begun
    for more in (TALK, f"\n```{TALK}", "\nx = 1\n", f"\n```\n\nor\n\n```\n{right} \n\n# so\n```\n"):
        assert benchmark.postprocess(problem, right[len(begun) :] + more) == right


@pytest.mark.parametrize("name", PACK)
def test_the_wrong_solution(posed, name):
    benchmark, problem = posed(name)
    wrong = benchmark.buggy(problem)
    assert wrong.startswith(benchmark.prompt(problem).begun)
    assert wrong.rstrip().endswith(problem.fields["buggy_solution"].rstrip())


def test_only_the_pack_has_wrong_solutions(posed):
    for name in ("humaneval", "mbpp"):
        benchmark, problem = posed(name)
        assert benchmark.buggy(problem) is None


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("\n  a\n\n\tb\nc\n  d", "\n  a\n\n\tb"),
        ("  a", "  a"),
        ("a\n  b", ""),
        ("\n \n", "\n \n"),
    ],
)
def test_indented(text, cut):
    assert Indented().cut(text) == cut


@pytest.mark.parametrize(
    ("block", "text", "cut"),
    [
        (Bracketed(), "a {b} c} d}", "a {b} c}"),
        (Bracketed(), "a {b} c", "a {b}"),
        (Bracketed(), "a b", "a b"),
        (InClass(), "a {b} c} d} e}", "a {b} c} d}"),
        (InClass(), "a;\n  }\n  rest", "a;\n  }"),
        (InClass(), "a {b", "a {b\n}"),
        (InClass(), "a", "a"),
        (InClass(), "{a}\n public static void main(String[] x) {", "{a}\n }"),
        (InClass(), "if {a\n public static void main(String[] x) {", "if {a\n }"),
        (InClass(), "{{a}", "{{a}\n}"),
    ],
)
def test_bracketed(block, text, cut):
    assert block.cut(text) == cut


@pytest.mark.parametrize(
    ("name", "answer", "kept"),
    [
        ("humanevalsynthesize-python", "\n    a\n#b", "\n    a"),
        ("humanevalsynthesize-go", "\n  a\nfunc b\n//c\n}", "\n  a"),
        ("humanevalsynthesize-go", "\n  a\n//b\nfunc c\n}", "\n  a"),
        ("humanevalsynthesize-go", "\n  a\n//b\n}", "\n  a"),
        ("humanevalsynthesize-go", "\n  a struct{} b}c", "\n  a struct{} b}"),
        ("humanevalsynthesize-js", "\n  a\n//b\n}", "\n  a\n//b\n}"),
        ("humaneval", "\n    a\nb = 1\nif c:\n    d", "\n    a\nb = 1"),
        ("humanevalsynthesize-python", "    a", "\n    a"),
        ("humanevalsynthesize-python", " \n    a", " \n    a"),
    ],
)
def test_stop(posed, name, answer, kept):
    benchmark, problem = posed(name)
    assert benchmark.postprocess(problem, answer) == benchmark.prompt(problem).begun + kept


def test_upstream_stops_in_words(posed):
    benchmark, problem = posed("humanevalsynthesize-go", UPSTREAM)
    found = benchmark.postprocess(problem, "\n  // the structure\n}")
    assert found == benchmark.prompt(problem).begun + "\n  // the"
    assert "struct" in benchmark.stop
    assert "struct" not in posed("humanevalsynthesize-go")[0].stop


ALONE = {
    "python": ("def twice(x):\n    return 2 * x", "import math\ndef twice(x):\n    return 2 * x"),
    "java": (
        "public int twice(int x) {\n    return 2 * x;\n}",
        "import java.util.*;\n\nclass Solution {\npublic int twice(int x) {\n    return 2 * x;\n}\n}",
    ),
    "js": ("function twice(x) {\n  return 2 * x;\n}", "\nfunction twice(x) {\n  return 2 * x;\n}"),
    "cpp": (
        "int twice(int x) {\n    return 2*x;\n}",
        "#include<math.h>\nusing namespace std;\nint twice(int x) {\n    return 2*x;\n}",
    ),
    "go": ("func Twice(x float64) float64 {\n    return 2 * x\n}",) * 2,
    "rust": (
        "fn twice(x: i32) -> i32 {\n    2 * x\n}",
        "fn main(){}\n\nuse std::cmp::max;\nfn twice(x: i32) -> i32 {\n    2 * x\n}",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_function_in_a_fence(posed, language):
    benchmark, problem = posed(f"humanevalfixtests-{language}")
    code, whole = ALONE[language]
    chat = f"\nHere {{you}} are:\n\n```\npip install it\n```\n\n```{language}\n{code}\n```{TALK}"
    assert benchmark.postprocess(problem, chat) == whole


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_whole_program_in_a_fence(posed, language):
    benchmark, problem = posed(f"humanevalfixtests-{language}")
    right = benchmark.canonical(problem)
    found = benchmark.postprocess(problem, f"Sure!\n```\n{right}\n```")
    assert sorted(filter(str.strip, found.split("\n"))) == sorted(filter(str.strip, right.split("\n")))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_fence_that_goes_on(posed, language):
    benchmark, problem = posed(f"humanevalfixtests-{language}")
    right, begun = benchmark.canonical(problem), benchmark.prompt(problem).begun
    rest = right[len(begun) :].removeprefix("\n")
    assert benchmark.postprocess(problem, f"\n```\n{rest}\n```{TALK}").split() == right.split()


@pytest.mark.parametrize("name", [*PACK, "humaneval"])
def test_upstream_looks_into_no_fence(posed, name):
    benchmark, problem = posed(name, UPSTREAM)
    code, _ = ALONE[benchmark.language]
    begun = benchmark.prompt(problem).begun
    assert benchmark.postprocess(problem, f"Sure:\n```\n{code}\n```") != code
    assert benchmark.postprocess(problem, f"Sure:\n```\n{code}\n```").startswith(begun)
    assert benchmark.postprocess(problem, "    a").startswith(f"{begun}    a")


def test_an_end_inside_of_a_fence(posed):
    benchmark, problem = posed("humanevalfixtests-python")
    code, whole = ALONE["python"]
    assert benchmark.postprocess(problem, f"So:\n```\n{code}<|endoftext|>\nmore") == whole


def test_rust_uses_nothing_twice(posed):
    benchmark, problem = posed("humanevalfixtests-rust")
    code, whole = ALONE["rust"]
    more = "use std::collections::HashMap;\n"
    found = benchmark.postprocess(problem, f"So:\n```\nuse std::cmp::{{self, max}};\n{more}{code}\n```")
    assert found == whole.replace(code, more + code)


def test_what_looks_like_a_comment(posed):
    """No comment begins in a text, or behind a character that would begin one."""
    for language, line in {
        "cpp": 'char a = \'"\'; auto b = "/*";',
        "rust": 'const A: &\'static str = "/*";',
        "python": "A = '/*'",
    }.items():
        benchmark, problem = posed(f"humanevalfixtests-{language}")
        code, _ = ALONE[language]
        other = line.replace("/*", "*/")
        found = benchmark.postprocess(problem, f"So:\n```\n{line}\n{code}\n{other}\n```")
        assert f"{line}\n{code}" in found
        assert "So:" not in found


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_function_in_a_comment_is_none(posed, language):
    benchmark, problem = posed(f"humanevalfixtests-{language}")
    code, _ = ALONE[language]
    sign = "# " if language == "python" else "// "
    said = sign + code.replace("\n", f"\n{sign}")
    assert code not in benchmark.postprocess(problem, f"So:\n```\n{said}\n```\n```\n/* \n{said}\n```")


HELPED = {
    "python": (
        "import math\n\ndef one(x):\n    return x\n\n\ndef twice(x):\n",
        "def one(x):\n    return x\n\n\n",
    ),
    "cpp": (
        "#include<math.h>\nint one(int x){\n    return x;\n}\n\nint twice(int x){\n",
        "int one(int x){\n    return x;\n}\n\n",
    ),
    "go": ("func One(x float64) float64 {\n    return x\n}\n\nfunc Twice(x float64) float64 {\n", ""),
}


@pytest.mark.parametrize("language", HELPED)
def test_helpers_are_there_once(posed, language):
    benchmark, problem = posed(f"humanevalfixtests-{language}")
    declaration, helper = HELPED[language]
    helped = type(problem)(problem.id, {**problem.fields, "declaration": declaration})
    code, _ = ALONE[language]
    helper = helper or declaration[: declaration.index("func Twice")]
    for said in (code, helper + code):
        found = benchmark.postprocess(helped, f"Sure:\n```\n{said}\n```")
        assert found.count(helper.strip()) == 1
        assert found.count(code) == 1


@pytest.mark.parametrize(
    ("text", "blocks"),
    [
        ("a\n```python\nb\n\nc\n```\nd\n  ```\ne", ["b\n\nc\n", "e"]),
        ("```\na = '```' + b\nc```\nd", ["a = '```' + b\nc"]),
        ("say ```a``` or\n```b```\nc", []),
    ],
)
def test_fences(text, blocks):
    assert fenced(text) == blocks


MBPP = [
    ("```python\nimport re\ndef f():\n  return 1\n```\nbut\n```\nno\n```", "import re\ndef f():\n  return 1"),
    ("Sure:\n```\ndef f():\n  return 1", "def f():\n  return 1"),
    ("import re\ndef f():\n  return 1\nassert f()\n", "import re\ndef f():\n  return 1"),
    (
        "Sure.\n\nimport re\nx = 1\ndef f():\n  return 1\n\nIt works.",
        "import re\nx = 1\ndef f():\n  return 1",
    ),
    ("I do not know.", ""),
    ("Sure:\r\nx = 1\r\ndef f():\r\n  return 1\r\n# so", "x = 1\ndef f():\n  return 1\n# so"),
    ("def f():\n  return 1\n```\nIt works.", "def f():\n  return 1"),
    ("x = 5 in the test.\n\ndef f():\n  return 1\nThat's it: (", "def f():\n  return 1"),
    ("def f():\n  return '\\d'\ndef g():\n  return (1 +", "def f():\n  return '\\d'"),
    ("import re\nThen:\n\ndef f():\n  return 1\0", "def f():\n  return 1"),
    ("@f\n" * 9 + "-" * 20000 + "1", ""),
]


@pytest.mark.parametrize(("answer", "solution"), MBPP)
def test_mbpp(posed, answer, solution):
    benchmark, problem = posed("mbpp")
    assert benchmark.postprocess(problem, answer) == solution


@pytest.mark.parametrize(
    "line",
    [
        *(
            "for i in range(3):\n    T[i] = i",
            "while not T:\n    T.append(1)",
            "try:\n    import re\nexcept E: pass",
        ),
        *("with a() as b:\n    T = b", "a[0] = 1", "lst.append(1)", "x += 1", "X: int = 3", "A, B = 1, 2"),
        *("# so", "T = '''\ntalk\n'''", "sys.setrecursionlimit(10000)", "T = [\n1,\n]", "f = lambda x: x"),
    ],
)
def test_code_around_functions_of_mbpp_is_kept(posed, line):
    benchmark, problem = posed("mbpp")
    code = f"{line}\n\ndef f(x):\n    return x\n{line}\ndef g(x):\n    return x"
    assert benchmark.postprocess(problem, f"So, as asked:\n{code}\n\nThis is it.\n") == code


def test_upstream_loses_imports_of_mbpp(posed):
    benchmark, problem = posed("mbpp", UPSTREAM)
    unfenced = "import re\ndef f():\n  return 1\ndef g():\n  return 2\nx = 1\n"
    assert benchmark.postprocess(problem, unfenced) == "def f():\n  return 1\ndef g():\n  return 2"
    fenced = "```\nimport re\ndef f():\n  return 1\n```"
    assert benchmark.postprocess(problem, fenced) == "import re\ndef f():\n  return 1"
