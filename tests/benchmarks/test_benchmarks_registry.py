"""Names of benchmarks and of sets of them."""

import pickle

import pytest

from mftrun.benchmarks.compat import COMPATS, STRICT, UPSTREAM
from mftrun.benchmarks.registry import benchmarks, find
from mftrun.errors import ConfigError

ORDER = ("python", "java", "js", "cpp", "go", "rust")
SYNTHESIZE = [f"humanevalsynthesize-{language}" for language in ORDER]
FIXTESTS = [f"humanevalfixtests-{language}" for language in ORDER]


def names(*asked, **more):
    return [benchmark.name for benchmark in find(asked, **more)]


def test_sets():
    assert names("humanevalpack") == SYNTHESIZE + FIXTESTS
    assert names("competition") == [*SYNTHESIZE, *FIXTESTS, "mbpp"]
    assert names("humanevalfixtests") == FIXTESTS


def test_order_without_doubles():
    found = names("mbpp", "humaneval", "humanevalsynthesize-go", "humanevalsynthesize", "mbpp")
    rest = [name for name in SYNTHESIZE if not name.endswith("go")]
    assert found == ["mbpp", "humaneval", "humanevalsynthesize-go", *rest]


def test_languages():
    for benchmark in find(["humanevalpack", "mbpp", "humaneval"]):
        assert benchmark.language == (benchmark.name.partition("-")[2] or "python")


def test_compat_reaches_all():
    for compat in COMPATS.values():
        assert all(benchmark.compat == compat for benchmark in find(["competition", "humaneval"], compat))
    assert not any(vars(STRICT).values())
    assert all(vars(UPSTREAM).values())


def test_they_travel_to_other_processes():
    every = find(["competition", "humaneval"], UPSTREAM)
    assert pickle.loads(pickle.dumps(every)) == every


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (["humanevalsynthesis-java"], "did you mean humanevalsynthesize-java?"),
        (["competitoin"], "did you mean competition?"),
        (["mbpp", "nothing"], "known: .*humaneval, "),
        ([], "name some in a list"),
        ("mbpp", "name some in a list"),
    ],
)
def test_unknown(asked, message):
    with pytest.raises(ConfigError, match=message) as caught:
        find(asked)
    assert caught.value.key == "benchmarks"


class Renamed:
    """A benchmark of a user."""

    def __init__(self, name):
        self._inner, self.name = benchmarks()["mbpp"], name

    def __getattr__(self, name):
        return getattr(self._inner, name)


def test_own():
    mine = Renamed("mine")
    assert find(["mbpp", "mine"], own={"mine": mine})[1] is mine


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({"mbpp": Renamed("mbpp")}, "known benchmark"),
        ({"competition": Renamed("competition")}, "known benchmark"),
        ({"mine": Renamed("other")}, "calls itself other"),
        ({"mine": "mbpp"}, "is a str"),
    ],
)
def test_own_that_are_refused(own, message):
    with pytest.raises(ConfigError, match=message) as caught:
        find(["mbpp"], own=own)
    assert caught.value.key == f"own_benchmarks.{next(iter(own))}"
