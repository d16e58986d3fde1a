"""Stand-ins of a benchmark, a language and a judge, and folders of solutions."""

import json
from pathlib import Path

import pytest
from standins import Judge, Plain, Words
from tiny_models import saved

from mftrun.benchmarks.base import Problem
from mftrun.scoring.scorer import Asked, Scorer


@pytest.fixture
def judge():
    return Judge()


@pytest.fixture
def scorer(judge):
    return Scorer({"plain": Plain()}, judge, workers=2, judged_by={})


@pytest.fixture
def asked():
    return Asked(Words(), [Problem("a", {}), Problem("b", {})], of=2)


@pytest.fixture
def generations(tmp_path):
    """Writes a folder of solutions: generations({task: rows}, model)."""

    def write(tasks, model="my-model"):
        folder = Path(tmp_path) / "out" / f"generations_{model}"
        folder.mkdir(parents=True, exist_ok=True)
        for task, rows in tasks.items():
            text = rows if isinstance(rows, str) else json.dumps(rows)
            (folder / f"generations_{task}_{model}.json").write_text(text)
        return folder

    return write


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """The folder of a model that has learnt nothing."""
    return saved(tmp_path_factory.mktemp("scoring") / "tiny", positions=128)


@pytest.fixture
def benchmarks_folder(tmp_path):
    """A folder with a HumanEval of two problems."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    rows = [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": f"def {name}(a, b):\n",
            "canonical_solution": f"    return a {sign} b\n",
            "test": f"def check(candidate):\n    assert candidate(5, 3) == {result}\n",
            "entry_point": name,
        }
        for number, (name, sign, result) in enumerate([("add", "+", 8), ("less", "-", 2)])
    ]
    (folder / "HumanEval.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder
