"""Scores as a table of plain text."""

from __future__ import annotations

from collections.abc import Sequence

from mftrun.languages.base import Verdict
from mftrun.scoring.pass_at_k import Estimate
from mftrun.scoring.score import Score, Skipped
from mftrun.text_table import text_table

_ALWAYS = (Verdict.PASSED, Verdict.FAILED)


def score_table(scores: Sequence[Score | Skipped], average: float | None) -> str:
    """The table, and a line for each benchmark that was skipped or could not be judged.

    Args:
        scores: One of each benchmark.
        average: Mean pass@1 of the competition's benchmarks; None where they are not all there.
    """
    scored = [one for one in scores if isinstance(one, Score)]
    tries = sorted({k for one in scored for k in one.pass_at})
    shown = [
        verdict for verdict in Verdict if verdict in _ALWAYS or any(one.counts.get(verdict) for one in scored)
    ]
    head = ["benchmark", "problems", *_titles(tries), *(verdict.value for verdict in shown), "seconds"]
    rows = [_row(one, tries, shown) for one in scores]
    if average is not None:
        rows.append(["average", "", f"{average:.1%}", *[""] * (len(head) - 3)])
    return "\n".join([text_table([head, *rows]), *(_remark(one) for one in scores if _remark(one))])


def _titles(tries: Sequence[int]) -> list[str]:
    return [title for k in tries for title in (f"pass@{k}", "95 % interval")]


def _row(one: Score | Skipped, tries: Sequence[int], shown: Sequence[Verdict]) -> list[str]:
    start = [one.extent.task, one.extent.told()]
    if isinstance(one, Skipped):
        return [*start, "skipped", *[""] * (2 * len(tries) + len(shown))]
    estimates = [cell for k in tries for cell in _estimate(one.pass_at.get(k))]
    return [*start, *estimates, *(f"{one.counts.get(verdict, 0)}" for verdict in shown), f"{one.seconds:.1f}"]


def _estimate(found: Estimate | None) -> tuple[str, str]:
    return ("-", "") if found is None else (f"{found.value:.1%}", f"{found.low:.1%} to {found.high:.1%}")


def _remark(one: Score | Skipped) -> str:
    task = one.extent.task
    if isinstance(one, Skipped):
        return f"{task} was skipped: {one.told()}"
    failed = one.counts.get(Verdict.SANDBOX_ERROR, 0)
    return f"{task} has no score: the sandbox failed at {failed} programs: {one.trouble}" if failed else ""
