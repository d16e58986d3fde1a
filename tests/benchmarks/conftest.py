"""A made-up problem in each language, and folders that hold them."""

import json

import pytest

LANGUAGES = {
    "python": {
        "task_id": "Python/0",
        "prompt": "import math\n\n\ndef twice(x: int) -> int:\n"
        '    """ Two times x.\n    >>> twice(2)\n    4\n    """\n',
        "declaration": "import math\n\n\ndef twice(x: int) -> int:\n",
        "canonical_solution": "    y = x + x\n\n    return y\n",
        "buggy_solution": "    return x\n",
        "test": "\n\ndef check(twice):\n    assert twice(2) == 4\n\ncheck(twice)",
    },
    "java": {
        "task_id": "Java/0",
        "prompt": "import java.util.*;\n\nclass Solution {\n    /**\n    Two times x.\n     */\n"
        "    public int twice(int x) {\n",
        "declaration": "import java.util.*;\n\nclass Solution {\n    public int twice(int x) {\n",
        "canonical_solution": "        if (x == 0) { return 0; }\n        return 2 * x;\n    }\n}",
        "buggy_solution": "        return x;\n    }\n}",
        "test": "public class Main {\n    public static void main(String[] args) {\n"
        "        if (new Solution().twice(2) != 4) throw new AssertionError();\n    }\n}",
    },
    "js": {
        "task_id": "JavaScript/0",
        "prompt": "/* Two times x.\n*/\nconst twice = (x) => {\n",
        "declaration": "\nconst twice = (x) => {\n",
        "canonical_solution": "  if (!x) { return 0; }\n  return 2 * x;\n}\n\n",
        "buggy_solution": "  return x;\n}\n\n",
        "test": "const testTwice = () => {\n  console.assert(twice(2) === 4)\n}\n\ntestTwice()\n",
    },
    "cpp": {
        "task_id": "CPP/0",
        "prompt": "/*\nTwo times x.\n*/\n#include<math.h>\nusing namespace std;\nint twice(int x){ \n",
        "declaration": "#include<math.h>\nusing namespace std;\nint twice(int x){\n",
        "canonical_solution": "    if (x==0) { return 0; }\n    return 2*x;\n}\n\n",
        "buggy_solution": "    return x;\n}\n",
        "test": "#undef NDEBUG\n#include<assert.h>\nint main(){\n    assert (twice(2)==4);\n}\n",
    },
    "go": {
        "task_id": "Go/0",
        "prompt": 'import (\n    "math"\n)\n\n// Two times x.\nfunc Twice(x float64) float64 {\n',
        "declaration": "\nfunc Twice(x float64) float64 {\n",
        "canonical_solution": "    if x == 0 { return 0 }\n    return math.Abs(2 * x)\n}\n\n",
        "buggy_solution": "    return math.Abs(x)\n}\n",
        "test_setup": 'package main\n\nimport (\n    "testing"\n'
        '    "github.com/stretchr/testify/assert"\n)\n',
        "test": "func TestTwice(t *testing.T) {\n    assert.New(t).Equal(4.0, Twice(2))\n}\n",
    },
    "rust": {
        "task_id": "Rust/0",
        "prompt": "fn main(){}\n\nuse std::cmp::max;\n\n/*\n Two times x.\n*/\nfn twice(x: i32) -> i32{\n",
        "declaration": "\nuse std::cmp::max;\n\nfn twice(x: i32) -> i32{\n",
        "canonical_solution": "\n    if x == 0 { return 0; }\n    max(x, x) * 2\n}\n",
        "buggy_solution": "\n    max(x, x)\n}\n",
        "test": "\n#[cfg(test)]\nmod tests {\n    use super::*;\n\n    #[test]\n    fn test_twice() {\n"
        "        assert_eq!(twice(2), 4);\n    }\n}\n",
    },
}
MBPP = {
    "text": "Write a function to double a number.",
    "code": "import math\r\ndef twice(x):\r\n  return 2 * x ",
    "task_id": 11,
    "test_setup_code": "two = 2 \r\nfour = 4",
    "test_list": ["assert twice(two) == four", "assert twice(0) == 0"],
    "challenge_test_list": [],
}
HUMANEVAL = {
    "task_id": "HumanEval/0",
    "prompt": '\n\ndef twice(x):\n    """Two times x."""\n',
    "entry_point": "twice",
    "canonical_solution": "    return 2 * x\n",
    "test": "\n\ndef check(candidate):\n    assert candidate(2) == 4\n",
}


def pack_row(language):
    """The row of a language."""
    instruction = " Write `twice` to solve the following problem:\nTwo times x.\n"
    name = "Twice" if language == "go" else "twice"
    return {"entry_point": name, "instruction": instruction, **LANGUAGES[language]}


def write(path, rows):
    """A file of JSON lines."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture
def folder(tmp_path):
    """A folder with one problem of each kind."""
    for language in LANGUAGES:
        write(tmp_path / f"humanevalpack/{language}.jsonl", [pack_row(language)])
    write(tmp_path / "mbpp.jsonl", [{**MBPP, "task_id": 10}, MBPP, {**MBPP, "task_id": 511}])
    write(tmp_path / "HumanEval.jsonl", [HUMANEVAL])
    return tmp_path


@pytest.fixture
def posed(folder):
    """A benchmark by its name, and its problem."""
    from mftrun.benchmarks.compat import STRICT
    from mftrun.benchmarks.data import benchmark_data
    from mftrun.benchmarks.registry import find

    def pose(name, compat=STRICT):
        (benchmark,) = find([name], compat)
        (problem,) = benchmark.problems(benchmark_data(str(folder)))
        return benchmark, problem

    return pose
