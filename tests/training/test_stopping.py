import json
import logging
from copy import deepcopy

import pytest

from mftrun.data.plan import Freeze
from mftrun.training.progress import Best, Frozen, Lowest, Progress
from mftrun.training.stopping import EarlyStopping, Verdict


def best(value, step, kept_step=None, reference=None, stale=0):
    """As it is without a rollback: the lowest of all steps is that of the line."""
    return Best(value, step, kept_step, reference, stale, line=Lowest(value, step, kept_step))


def watch(stopping, *evaluations):
    progress, verdicts = Progress(), []
    for step, losses in enumerate(evaluations):
        progress.step = step
        verdicts.append(stopping.observe(progress, losses))
        progress.freeze(verdicts[-1].to_freeze)
    return progress, verdicts


def test_watches_the_plain_mean_over_tasks():
    progress, verdicts = watch(
        EarlyStopping(patience=2), {"a": 4.0, "b": 2.0}, {"a": 1.0, "b": 4.0}, {"a": 9.0, "b": 9.0}
    )
    assert verdicts == [Verdict(True), Verdict(True), Verdict(False)]
    assert progress.overall == best(value=2.5, step=1, reference=2.5, stale=1)
    assert progress.tasks == {}


def test_watches_one_task():
    progress, verdicts = watch(EarlyStopping(metric="b"), {"a": 4.0, "b": 2.0}, {"a": 1.0, "b": 4.0})
    assert verdicts == [Verdict(True), Verdict(False)]
    assert progress.overall.value == 2.0


def test_ends_when_patience_runs_out():
    stopping = EarlyStopping(patience=2)
    progress, _ = watch(stopping, {"a": 1.0}, {"a": 1.0})
    assert not stopping.exhausted(progress)
    stopping.observe(progress, {"a": 1.0})
    assert stopping.exhausted(progress)


def test_small_gains_are_bests_but_do_not_restore_patience():
    evaluations = {"a": 1.0}, {"a": 0.95}, {"a": 0.92}
    progress, verdicts = watch(EarlyStopping(patience=2, min_delta=0.1), *evaluations)
    assert verdicts == [Verdict(True)] * 3
    assert progress.overall == best(value=0.92, step=2, reference=1.0, stale=2)


def test_without_patience_it_never_ends():
    stopping = EarlyStopping()
    progress, _ = watch(stopping, *[{"a": 1.0}] * 50)
    assert not stopping.exhausted(progress)


def test_a_watched_task_that_is_absent_changes_nothing():
    progress, verdicts = watch(EarlyStopping(metric="b", patience=1), {"a": 1.0})
    assert verdicts == [Verdict()]
    assert progress.overall == Best()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_is_no_better(bad):
    progress, verdicts = watch(EarlyStopping(), {"a": bad}, {"a": 2.0}, {"a": bad})
    assert [verdict.is_best for verdict in verdicts] == [False, True, False]
    assert progress.overall == best(value=2.0, step=1, reference=2.0, stale=1)


def losses(a, b):
    return {"a": a, "b": b}


def test_a_task_is_frozen_when_patience_with_it_runs_out():
    progress, verdicts = watch(
        EarlyStopping(per_task=2), losses(3.0, 3.0), losses(4.0, 2.0), losses(4.0, 1.0), losses(1.0, 0.5)
    )
    assert [verdict.best_tasks for verdict in verdicts] == [("a", "b"), ("b",), ("b",), ("a", "b")]
    assert [verdict.to_freeze for verdict in verdicts] == [(), (), ("a",), ()]
    frozen = progress.tasks["a"]
    assert (frozen.value, frozen.step) == (1.0, 3), (
        "what the others learn may help it: that is its best model"
    )
    assert (frozen.reference, frozen.stale, frozen.line.step) == (3.0, 2, 0), "as when it was frozen"
    assert progress.tasks["b"] == best(value=0.5, step=3, reference=0.5)
    assert progress.overall.step == 3, "the frozen task is part of the mean as before"


def test_gains_below_min_delta_do_not_keep_a_task_from_being_frozen():
    _, verdicts = watch(EarlyStopping(per_task=2, min_delta=0.5), {"a": 3.0}, {"a": 2.8}, {"a": 2.6})
    assert verdicts[-1] == Verdict(True, best_tasks=("a",), to_freeze=("a",))


def test_without_per_task_no_task_is_watched():
    progress, verdicts = watch(EarlyStopping(patience=9), *[losses(1.0, 1.0)] * 5)
    assert progress.tasks == {}
    assert {verdict.to_freeze for verdict in verdicts} == {()}


def saved(progress, *steps):
    """As if checkpoints of these steps, of which each is some task's best, had been saved."""
    for one in progress.tasks.values():
        one.kept_step = one.line.kept_step = one.step if one.step in steps else None


def judged(kept, *, stopping, last=None):
    """The verdict when a (best at step 1) and b (best at step 2) both lose patience."""
    progress = Progress(
        step=4,
        tasks={
            "a": best(1.0, 1, reference=1.0, stale=1),
            "b": best(1.0, 2, reference=1.0, stale=1),
            "c": best(1.0, 3, reference=1.0),
        },
    )
    saved(progress, *kept)
    return stopping.observe(progress, last or {"a": 2.0, "b": 2.0, "c": 2.0})


ROLLS_BACK = EarlyStopping(per_task=2, rollback=True)


def test_goes_back_to_the_earliest_best_of_the_tasks_that_are_frozen():
    verdict = judged((1, 2, 3), stopping=ROLLS_BACK)
    assert (verdict.to_freeze, verdict.rollback) == (("a", "b"), 1)
    assert judged((1, 2, 3), stopping=ROLLS_BACK, last={"a": 0.5, "b": 2.0}).rollback == 2
    assert judged((1, 2, 3), stopping=EarlyStopping(per_task=2)).rollback is None
    assert judged((1, 2, 3), stopping=ROLLS_BACK, last={"c": 2.0}).rollback is None


def test_goes_on_from_a_best_that_was_never_saved(caplog):
    with caplog.at_level(logging.WARNING):
        assert judged((2, 3), stopping=ROLLS_BACK).rollback is None
    assert "not going back to step 1, the best of a, b: it was not saved" in caplog.text


def test_there_is_nothing_to_go_back_to_where_the_latest_loss_is_the_lowest(caplog):
    stopping = EarlyStopping(per_task=2, rollback=True, min_delta=0.5)
    _, verdicts = watch(stopping, {"a": 3.0}, {"a": 2.9}, {"a": 2.8})
    assert verdicts[-1] == Verdict(True, ("a",), ("a",), None)
    assert not caplog.records


def full():
    return Progress(
        step=9,
        epoch=1,
        batch=3,
        targets={"a": 1.5},
        overall=best(1.0, 9, 3, 1.0, 0),
        tasks={"b": Best(2.0, 4, 4, 2.5, 1, Lowest(2.2, 9, 6)), "a": best(0.5, 3, 3, 0.5, 2)},
        frozen={"b": Frozen(6, 0, 6), "a": Frozen(9, 1, 3)},
        rollback=3,
    )


def test_progress_comes_back_from_json():
    found = Progress.from_dict(json.loads(json.dumps(full().to_dict())))
    assert found == full()
    assert list(found.frozen) == ["b", "a"]
    assert Progress.from_dict(Progress().to_dict()) == Progress()


def test_freezing_notes_the_place_once():
    progress = Progress(step=6, epoch=1, batch=2)
    progress.freeze(["b"])
    progress.step, progress.batch = 8, 4
    progress.freeze(["b", "a"])
    assert progress.frozen == {"b": Frozen(6, 1, 2), "a": Frozen(8, 1, 4)}
    assert progress.freezes(["a", "b"]) == [Freeze(1, 1, 2), Freeze(0, 1, 4)]


def test_what_is_kept_is_known_before_and_after_saving():
    progress = full()
    assert progress.kept_steps == {3, 4, 6}
    assert progress.once_kept().kept_steps == {3, 4, 9}
    assert progress == full(), "nothing is noted until it is on disk"
    progress.note_kept()
    assert progress == full().once_kept()
    bests = progress.overall, *progress.tasks.values()
    assert [(one.kept_step, one.line.kept_step) for one in bests] == [(9, 9), (4, 9), (3, 3)]


def test_a_checkpoint_after_going_back_is_of_no_lowest():
    progress = full()
    progress.rewind_patience(Progress(step=3, overall=best(2.0, 3, 3)))
    before = progress.kept_steps
    assert progress.once_kept().kept_steps == before == {3, 4, 6}
    progress = Progress.from_dict(progress.to_dict())
    progress.note_kept()
    assert progress.kept_steps == before
    progress.step = 10
    progress.overall.take(0.5, 10, 0.0)
    progress.note_kept()
    assert progress.overall.kept_step == 10


def test_going_back_gives_patience_and_the_line_back_and_nothing_else():
    now = Progress(
        step=9,
        overall=best(1.0, 6, 6, 1.0, 3),
        tasks={"a": best(0.5, 6, 6, 0.5, 2), "b": best(1.0, 3, 3, 1.0, 4), "new": best(1.0, 6, 6, 1.0, 2)},
        frozen={"b": Frozen(9, 0, 9)},
    )
    stored = Progress(
        step=3,
        overall=best(2.0, 3, 3, 2.1, 1),
        tasks={"a": best(0.7, 3, 3, 0.8, 1), "b": best(1.0, 3, 3, 1.0, 0)},
    )
    now.rewind_patience(stored)
    assert now.overall == Best(1.0, 6, 6, 2.1, 1, line=Lowest(2.0, 3, 3))
    assert now.tasks["a"] == Best(0.5, 6, 6, 0.8, 1, line=Lowest(0.7, 3, 3))
    assert now.tasks["b"] == best(1.0, 3, 3, 1.0, 4), "it is frozen"
    assert now.tasks["new"] == Best(1.0, 6, 6, None, 0)
    assert now.step == 9
    assert now.kept_steps == {3, 6}
    now.tasks["a"].take(0.6, 10, 0.0)
    assert stored.tasks["a"].line.value == 0.7, "a copy"


def test_where_the_lowest_of_the_line_was_let_go_the_place_gone_back_to_stands_in():
    now = Progress(
        step=9,
        tasks={"a": best(0.5, 3, 3, 0.5, 2), "b": best(1.0, 6, 6, 1.0, 1)},
        frozen={"a": Frozen(9, 0, 9)},
    )
    stored = Progress(step=3, tasks={"a": best(0.5, 3, 3, 0.5, 0), "b": best(2.0, 1, 1, 2.0, 1)})
    now.rewind_patience(stored)
    assert now.tasks["b"] == Best(1.0, 6, 6, 2.0, 1, line=Lowest(2.0, 3, 3)), "1 was pruned once 6 was lower"


def test_a_second_rollback_stays_on_the_line_that_is_trained_on():
    progress, stored, verdicts = Progress(), {}, {}

    def evaluate(step, **losses):
        progress.step = step
        verdict = verdicts[step] = ROLLS_BACK.observe(progress, losses)
        progress.freeze(verdict.to_freeze)
        progress.note_kept()
        stored[step] = deepcopy(progress)
        if verdict.rollback is not None:
            progress.rewind_patience(stored[verdict.rollback])

    for step, a, b in [(0, 5.0, 5.0), (2, 3.0, 4.0), (4, 4.0, 3.0), (6, 5.0, 2.0)]:
        evaluate(step, a=a, b=b)
    assert (verdicts[6].to_freeze, verdicts[6].rollback) == (("a",), 2)
    assert (progress.tasks["b"].value, progress.tasks["b"].line) == (2.0, Lowest(4.0, 2, 2))
    evaluate(8, a=3.0, b=3.9)
    assert verdicts[8].best_tasks == ("b",), "of the line; it may be gone back to"
    for step in (10, 12):
        evaluate(step, a=3.0, b=4.1)
    assert (verdicts[12].to_freeze, verdicts[12].rollback) == (("b",), 8), "6 had overfitted a"
    assert progress.tasks["b"].kept_step == 6, "the best of the task is still known"
