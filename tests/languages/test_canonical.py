"""A few of the published solutions, all the way: right ones pass, wrong ones fail."""

from functools import cache
from pathlib import Path

import pytest
from judging import verdict

from mftrun.benchmarks.data import benchmark_data
from mftrun.benchmarks.registry import find
from mftrun.languages.base import Verdict
from mftrun.languages.registry import languages

DATA = Path(__file__).parents[2].parent / "shared" / "data" / "eval"
NUMBERS = (23, 162)  # one line, and one that needs libraries
WRONG_PASSES = {("cpp", 23)}

pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the benchmarks are not here")


@cache
def _benchmark(language):
    return find([f"humanevalsynthesize-{language}"])[0]


@cache
def _languages():
    return languages()


@cache
def _problems(language):
    return _benchmark(language).problems(benchmark_data(str(DATA)))


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("language", ["python", "java", "js", "cpp", "go", "rust"])
def test_right_solutions_pass_and_wrong_ones_fail(language, number):
    benchmark, problem = _benchmark(language), _problems(language)[number]
    right, wrong = (
        benchmark.assemble(problem, solution)
        for solution in (benchmark.canonical(problem), benchmark.buggy(problem))
    )
    known = _languages()[language]
    assert verdict(known, right.source, right.seconds) is Verdict.PASSED
    passed = verdict(known, wrong.source, wrong.seconds) is Verdict.PASSED
    assert passed is ((language, number) in WRONG_PASSES)
