from mftrun.tracking.base import RunInfo
from mftrun.tracking.tensorboard import TensorBoard


def write(folder, steps, resumed=None, value=1.0):
    board = TensorBoard()
    board.start(RunInfo(folder, "demo", None, None, {}, ["a"], 10, resumed))
    for step in steps:
        board.log(step, {"train/loss/a": value * step, "lr": 0.1})
    board.finish(None, 0)


def scalars(folder, tag):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard"), purge_orphaned_data=True)
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def test_every_metric_is_a_scalar_of_its_name(tmp_path):
    write(tmp_path, [1, 2])
    assert scalars(tmp_path, "train/loss/a") == [(1, 1.0), (2, 2.0)]
    assert [step for step, _ in scalars(tmp_path, "lr")] == [1, 2]


def test_a_resumed_run_replaces_the_steps_after_the_checkpoint(tmp_path):
    write(tmp_path, [1, 2, 3, 4])
    write(tmp_path, [3, 4, 5], resumed=2, value=10.0)
    assert scalars(tmp_path, "train/loss/a") == [(1, 1.0), (2, 2.0), (3, 30.0), (4, 40.0), (5, 50.0)]


def test_finish_without_start_does_nothing():
    TensorBoard().finish(None, 1)
