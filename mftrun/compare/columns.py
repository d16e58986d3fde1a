"""The columns of the table of runs, for the console, the page and the file alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

from mftrun.compare.comparison import Comparison
from mftrun.compare.result import BestEvaluation, RunResult
from mftrun.compare.seeds import Estimate, SeedGroup
from mftrun.runs.reading import State
from mftrun.tracking import text

Value = str | float | None

_NAME_WIDTH = 16


def _shown(value: Value) -> str:
    return "-" if value is None else str(value)


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: Its heading; `TASK` for a task's lowest loss.
        value: What a run has there.
        show: That value, as people read it.
        best: The best of several values; None where none is better.
        among: The runs whose values can be compared.
        keep: A narrow terminal loses the columns of the lowest numbers.
        task: Whose loss it is.
        note: What goes with the value, such as the step of a loss.
    """

    name: str
    value: Callable[[RunResult], Value]
    show: Callable[[Value], str] = _shown
    best: Callable[[Sequence[float]], float] | None = None
    among: Callable[[Sequence[RunResult]], Sequence[RunResult]] = lambda results: results
    keep: int = 0
    task: str | None = None
    note: Callable[[RunResult], str] = lambda _: ""

    def best_of(self, results: Sequence[RunResult]) -> list[RunResult]:
        """The runs with the best value in this column; none where there is nothing to choose from."""
        values = [
            (value, one) for one in self.among(results) if (value := _number(self.value(one))) is not None
        ]
        if self.best is None or len(values) < 2:
            return []
        best = self.best([value for value, _ in values])
        return [one for value, one in values if value == best]


def columns(comparison: Comparison) -> list[Column]:
    """All columns that have something to say."""
    settings = [Column(key, partial(_setting, key), keep=8) for key in comparison.setting_keys]
    tasks = [_task(task) for task in comparison.tasks]
    several = len(comparison.tasks) > 1
    whole = [
        Column("mean", _of_best("mean"), _loss, min, among=of_same_tasks, keep=10, note=_best_step),
        *([_WORST, _SPREAD] if several else []),
    ]
    all_done = all(result.state is State.FINISHED for result in comparison.results)
    state = _STATE if all_done else replace(_STATE, keep=11)
    return [_RUN, state, *settings, *tasks, *whole, *_COST]


def of_same_tasks(results: Sequence[RunResult]) -> list[RunResult]:
    """The runs validated on the tasks that most were: a mean over others is another thing."""
    tasks = Counter(frozenset(one.tasks) for one in results if one.tasks)
    most = max(tasks, key=lambda one: (tasks[one], len(one)), default=frozenset[str]())
    return [one for one in results if one.tasks.keys() == most]


def estimate(found: Estimate | None) -> str:
    """`mean ± deviation (n)`."""
    if found is None:
        return "-"
    deviation = "" if found.deviation is None else f" ± {found.deviation:.4f}"
    return f"{text.loss(found.mean)}{deviation}"


def group_rows(comparison: Comparison) -> tuple[list[str], list[list[str]], list[int | None]]:
    """Headings and cells of the table over seeds, and for each column the row of the lowest mean."""
    several = len(comparison.tasks) > 1
    heads = ["settings", "n", *comparison.tasks, "mean", *(["worst task", "spread"] if several else [])]
    found = [_estimates(group, comparison.tasks, several) for group in comparison.groups]
    rows = [
        [group.label, str(len(group.seeds)), *map(estimate, own)]
        for group, own in zip(comparison.groups, found, strict=True)
    ]
    lowest = [_lowest([own[place] for own in found]) for place in range(len(heads) - 2)]
    return heads, rows, [None, None, *lowest]


def _estimates(group: SeedGroup, tasks: Sequence[str], several: bool) -> list[Estimate | None]:
    return [*(group.tasks.get(task) for task in tasks), group.mean, *([group.worst, group.spread] * several)]


def _lowest(column: Sequence[Estimate | None]) -> int | None:
    there = [(one.mean, row) for row, one in enumerate(column) if one is not None]
    return min(there)[1] if len(there) > 1 else None


def _finished(results: Sequence[RunResult]) -> list[RunResult]:
    return [one for one in results if one.state is State.FINISHED]


def _number(value: Value) -> float | None:
    return None if isinstance(value, str) else value


def _setting(key: str, result: RunResult) -> Value:
    return result.settings.get(key)


def _task(task: str) -> Column:
    return Column(
        task, lambda one: one.loss(task), _loss, min, keep=7, task=task, note=partial(_step_of, task)
    )


def _step_of(task: str, result: RunResult) -> str:
    found = result.tasks.get(task)
    return "" if found is None else f"@{found.step}"


def _of_best(name: str) -> Callable[[RunResult], Value]:
    return lambda one: None if one.best is None else getattr(one.best, name)


def _note_of_best(note: Callable[[BestEvaluation], str]) -> Callable[[RunResult], str]:
    return lambda one: "" if one.best is None else note(one.best)


def _loss(value: Value) -> str:
    return text.loss(value if isinstance(value, int | float) else None)


def _duration(value: Value) -> str:
    return text.duration(value if isinstance(value, int | float) else None)


def _count(value: Value) -> str:
    return text.short_count(value) if isinstance(value, int | float) else "-"


def _steps(result: RunResult) -> str:
    if result.state.is_finished or result.total_steps is None:
        return f"{result.step} steps"
    return f"{result.step}/{result.total_steps}"


def _worst_task(best: BestEvaluation) -> str:
    return text.short_name(best.worst_task, _NAME_WIDTH)


_best_step = _note_of_best(lambda best: f"@{best.step}")
_RUN = Column("run", lambda one: one.label, keep=99)
_STATE = Column("state", lambda one: str(one.state), keep=6, note=_steps)
_WORST = Column(
    "worst task",
    *(_of_best("worst"), _loss, min, of_same_tasks),
    keep=9,
    note=_note_of_best(_worst_task),
)
_SPREAD = Column("spread", _of_best("spread"), _loss, min, of_same_tasks, keep=4)
_COST = (
    Column("time", lambda one: one.seconds, _duration, min, _finished, keep=5),
    Column("tokens/s", lambda one: one.tokens_per_second, _count, max, keep=3),
)
