"""What models are asked, letter by letter, and where their answers end."""

import pytest

ASKED = "Write `twice` to solve the following problem:\nTwo times x."
SYNTHESIZE = {
    "python": "import math\n\n\ndef twice(x: int) -> int:\n"
    '    """ Two times x.\n    >>> twice(2)\n    4\n    """',
    "java": "import java.util.*;\n\nclass Solution {\n    /**\n    Two times x.\n     */\n"
    "    public int twice(int x) {",
    "js": "/* Two times x.\n*/\nconst twice = (x) => {",
    "cpp": "/*\nTwo times x.\n*/\n#include<math.h>\nusing namespace std;\nint twice(int x){",
    "go": 'import (\n    "math"\n)\n\n// Two times x.\nfunc Twice(x float64) float64 {',
    "rust": "fn main(){}\n\nuse std::cmp::max;\n\n/*\n Two times x.\n*/\nfn twice(x: i32) -> i32{",
}
FIXTESTS = {
    "python": (
        "import math\n\n\ndef twice(x: int) -> int:\n    return x\n"
        "\n\n\ndef check(twice):\n    assert twice(2) == 4\n\ncheck(twice)\nFix bugs in twice.",
        "import math\n\n\ndef twice(x: int) -> int:",
    ),
    "java": (
        "import java.util.*;\n\nclass Solution {\n    public int twice(int x) {\n"
        "        return x;\n    }\n}\npublic class Main {\n    public static void main(String[] args) {\n"
        "        if (new Solution().twice(2) != 4) throw new AssertionError();\n    }\n}\nFix bugs in twice.",
        "import java.util.*;\n\nclass Solution {\n    public int twice(int x) {",
    ),
    "js": (
        "\nconst twice = (x) => {\n  return x;\n}\n\n\n"
        "const testTwice = () => {\n  console.assert(twice(2) === 4)\n}\n\ntestTwice()\n\nFix bugs in twice.",
        "\nconst twice = (x) => {",
    ),
    "cpp": (
        "#include<math.h>\nusing namespace std;\nint twice(int x){\n    return x;\n}\n\n"
        "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (twice(2)==4);\n}\n\nFix bugs in twice.",
        "#include<math.h>\nusing namespace std;\nint twice(int x){",
    ),
    "go": (
        "\nfunc Twice(x float64) float64 {\n    return math.Abs(x)\n}\n\n"
        "func TestTwice(t *testing.T) {\n    assert.New(t).Equal(4.0, Twice(2))\n}\n\nFix bugs in Twice.",
        "\nfunc Twice(x float64) float64 {",
    ),
    "rust": (
        "fn main(){}\n\nuse std::cmp::max;\n\nfn twice(x: i32) -> i32{\n\n    max(x, x)\n}\n\n"
        "\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n    fn test_twice() {\n"
        "        assert_eq!(twice(2), 4);\n    }\n}\n\nFix bugs in twice.",
        "fn main(){}\n\nuse std::cmp::max;\n\nfn twice(x: i32) -> i32{",
    ),
}
STOP = {
    "python": ["\nclass", "\ndef", "\n#", "\n@", "\nprint", "\nif", "\nassert", "<|endoftext|>"],
    "go": ["\n//", "\nfunc main(", "\nfunc", "<|endoftext|>"],
}
SECONDS = {"python": 10, "java": 10, "js": 10, "cpp": 60, "go": 20, "rust": 300}


@pytest.mark.parametrize("language", SYNTHESIZE)
def test_synthesize(posed, language):
    benchmark, problem = posed(f"humanevalsynthesize-{language}")
    assert benchmark.prompt(problem) == (ASKED, SYNTHESIZE[language])


@pytest.mark.parametrize("language", FIXTESTS)
def test_fixtests(posed, language):
    benchmark, problem = posed(f"humanevalfixtests-{language}")
    assert benchmark.prompt(problem) == FIXTESTS[language]


def test_the_published_instruct_style(posed):
    """The ingredients make the text that the harness of these benchmarks makes."""
    benchmark, problem = posed("humanevalsynthesize-python")
    instruction, begun = benchmark.prompt(problem)
    published = f"{ASKED}\n\n{problem.fields['prompt']}".strip()
    assert f"{instruction}\n\n{begun}".strip() == published
    assert published.startswith("Write `twice` to solve")
    assert published.endswith('    4\n    """')


@pytest.mark.parametrize("language", SYNTHESIZE)
def test_stop_and_seconds(posed, language):
    for task in ("synthesize", "fixtests"):
        benchmark, problem = posed(f"humaneval{task}-{language}")
        assert list(benchmark.stop) == STOP.get(language, ["<|endoftext|>"])
        program = benchmark.assemble(problem, "")
        assert (program.language, program.seconds) == (language, SECONDS[language])


def test_humaneval(posed):
    benchmark, problem = posed("humaneval")
    assert benchmark.prompt(problem) == ("", '\n\ndef twice(x):\n    """Two times x."""')
    assert {"\nclass", "\ndef", "\n#", "\nif", "\nprint"} < set(benchmark.stop)
    assert benchmark.assemble(problem, "").seconds == 10


def test_mbpp(posed):
    benchmark, problem = posed("mbpp")
    assert problem.id == "MBPP/11"
    text = '"""\nWrite a function to double a number.\nassert twice(two) == four\n"""'
    assert benchmark.prompt(problem) == (text, "")
    assert {"\nclass", "\nassert", '\n"""', "\nprint", "\nif", "\n<|/"} < set(benchmark.stop)
    assert benchmark.assemble(problem, "").seconds == 3
