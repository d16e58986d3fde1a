from itertools import combinations
from statistics import mean

import pytest

from mftrun.errors import ConfigError
from mftrun.scoring import pass_at_k as module
from mftrun.scoring.pass_at_k import pass_at_k, require_library, tries, wilson


def by_counting(samples, correct, k):
    """The share of k samples drawn at once of which one is right."""
    drawn = list(combinations([True] * correct + [False] * (samples - correct), k))
    return mean(any(one) for one in drawn)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_it_is_the_share_of_draws_with_a_right_sample(k):
    correct = [0, 1, 3, 5]
    expected = mean(by_counting(5, right, k) for right in correct)
    assert pass_at_k(5, correct, k).value == pytest.approx(expected)


def test_the_interval_is_wilsons():
    found = wilson(0.5, 10)  # Wilson 1927: 5 of 10
    assert (found.low, found.high) == pytest.approx((0.2366, 0.7634), abs=1e-4)
    assert wilson(0.0, 164).low == 0.0
    assert wilson(0.0, 164).high == pytest.approx(0.0229, abs=1e-4)
    assert wilson(1.0, 164).high == 1.0


def test_usual_tries_are_those_with_samples():
    assert [tries(None, samples) for samples in (1, 10, 20, 200)] == [[1], [1, 10], [1, 10], [1, 10, 100]]


def test_more_tries_than_samples_are_refused():
    assert tries([2, 1, 2], 2) == [1, 2]
    with pytest.raises(ConfigError, match=r"job\.k: pass@3 needs 3 samples .* there are 2"):
        tries([1, 3], 2)


def test_a_missing_library_is_named(monkeypatch):
    require_library()
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "mftrun\[evaluate\]"'):
        require_library()
