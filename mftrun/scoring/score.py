"""What the verdicts on a benchmark come to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mftrun.languages.base import Judged, Verdict
from mftrun.scoring.pass_at_k import Estimate, pass_at_k


@dataclass(frozen=True)
class Extent:
    """What of a benchmark was scored.

    Attributes:
        task: The benchmark's name.
        problems: Problems that were scored.
        of: Problems that were published.
    """

    task: str
    problems: int
    of: int

    @property
    def is_whole(self) -> bool:
        """Whether no problem was left out."""
        return self.problems == self.of

    def told(self) -> str:
        """The number of problems, and of how many."""
        return f"{self.problems}" if self.is_whole else f"{self.problems} of {self.of}"

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"problems": self.problems, "of": self.of}


@dataclass(frozen=True)
class Score:
    """The score of a benchmark.

    Attributes:
        extent: What was scored.
        samples: Samples of each problem.
        counts: How often each verdict was found.
        pass_at: pass@k by k; None where the sandbox failed at a program.
        seconds: Time that the programs took together.
        trouble: What the sandbox said where it failed.
    """

    extent: Extent
    samples: int
    counts: Mapping[Verdict, int]
    pass_at: Mapping[int, Estimate | None]
    seconds: float
    trouble: str = ""

    @staticmethod
    def of(extent: Extent, verdicts: Sequence[Judged], samples: int, tries: Iterable[int]) -> Score:
        """The score that verdicts come to.

        Args:
            extent: What was scored.
            verdicts: Problem by problem, those of all samples.
            samples: Samples of each problem.
            tries: For which k to estimate pass@k.
        """
        counts = Counter(one.verdict for one in verdicts)
        trouble = next((one.log for one in verdicts if one.verdict is Verdict.SANDBOX_ERROR), "")
        whole = not counts[Verdict.SANDBOX_ERROR]
        correct = _correct(verdicts, samples)
        pass_at = {k: pass_at_k(samples, correct, k) if whole else None for k in tries}
        return Score(extent, samples, counts, pass_at, sum(one.seconds for one in verdicts), trouble)

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        found: dict[str, Any] = {}
        for k, estimate in self.pass_at.items():
            found[f"pass@{k}"] = None if estimate is None else estimate.value
            found[f"pass@{k}_interval"] = None if estimate is None else [estimate.low, estimate.high]
        verdicts = {verdict.value: self.counts.get(verdict, 0) for verdict in Verdict}
        return {
            **found,
            **self.extent.values(),
            "samples": self.samples,
            "verdicts": verdicts,
            "seconds": round(self.seconds, 1),
        }


@dataclass(frozen=True)
class Skipped:
    """A benchmark that cannot be scored on this machine.

    Attributes:
        extent: What would have been scored.
        reason: Why it is not.
        install: The command that installs what is missing; None where that is not the reason.
    """

    extent: Extent
    reason: str
    install: str | None = None

    def told(self) -> str:
        """Why, and what to do."""
        return self.reason if self.install is None else f"{self.reason}, install it with: {self.install}"

    def values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        install = {} if self.install is None else {"install": self.install}
        return {"pass@1": None, **self.extent.values(), "skipped": self.reason, **install}


def _correct(verdicts: Sequence[Judged], samples: int) -> list[int]:
    passed = [one.verdict is Verdict.PASSED for one in verdicts]
    return [sum(passed[start : start + samples]) for start in range(0, len(passed), samples)]
