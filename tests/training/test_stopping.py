from mftrun.training.progress import Progress
from mftrun.training.stopping import EarlyStopping


def watch(stopping, *evaluations):
    progress, bests = Progress(), []
    for step, losses in enumerate(evaluations):
        progress.step = step
        bests.append(stopping.observe(progress, losses))
    return progress, bests


def test_watches_the_plain_mean_over_tasks():
    progress, bests = watch(
        EarlyStopping(patience=2), {"a": 4.0, "b": 2.0}, {"a": 1.0, "b": 4.0}, {"a": 9.0, "b": 9.0}
    )
    assert bests == [True, True, False]
    assert (progress.best_value, progress.best_step, progress.stale) == (2.5, 1, 1)


def test_watches_one_task():
    progress, bests = watch(EarlyStopping(metric="b"), {"a": 4.0, "b": 2.0}, {"a": 1.0, "b": 4.0})
    assert bests == [True, False]
    assert progress.best_value == 2.0


def test_ends_when_patience_runs_out():
    stopping = EarlyStopping(patience=2)
    progress, _ = watch(stopping, {"a": 1.0}, {"a": 1.0})
    assert not stopping.exhausted(progress)
    stopping.observe(progress, {"a": 1.0})
    assert stopping.exhausted(progress)


def test_small_gains_are_bests_but_do_not_restore_patience():
    progress, bests = watch(EarlyStopping(patience=2, min_delta=0.1), {"a": 1.0}, {"a": 0.95}, {"a": 0.92})
    assert bests == [True, True, True]
    assert (progress.best_value, progress.best_step, progress.stale) == (0.92, 2, 2)


def test_without_patience_it_never_ends():
    stopping = EarlyStopping()
    progress, _ = watch(stopping, *[{"a": 1.0}] * 50)
    assert not stopping.exhausted(progress)


def test_a_watched_task_that_is_absent_changes_nothing():
    progress, bests = watch(EarlyStopping(metric="b", patience=1), {"a": 1.0})
    assert bests == [False]
    assert progress.stale == 0
