"""What a rank is dealt when tasks are frozen on the way: places, ends of epochs, shards."""

import numpy as np
import pytest
from memory_samples import joined

from mftrun.data.epochs import Epoch, SameSamples, WaitEndedError
from mftrun.data.mixture import Proportional
from mftrun.data.plan import Freeze, Planner
from mftrun.data.rows import Padding, PaddingFree
from mftrun.data.samplers import Weights
from mftrun.data.shards.opened import Shards
from mftrun.training.feed import Feed

TASKS = ("a", "b", "c")
BATCH = 4


def samples_of(*counts):
    """So many samples of each task, all of three tokens."""
    tasks = np.repeat(np.arange(len(counts)), counts).tolist()
    made = [(range(3 * at, 3 * at + 3), [0, 1, 1], task) for at, task in enumerate(tasks)]
    return joined(made, tasks=TASKS)


def planner_of(samples, seed=0, sampler=None, rows=None):
    chosen = sampler or Proportional(), rows or Padding()
    return Planner(samples.lengths, samples.task, *chosen, seed, BATCH, 8)


def feed_of(epochs, total_steps=100, **more):
    settings = {"rank": 0, "world_size": 1, "micro_batch_size": 2, "pad_id": 0, **more}
    return Feed(epochs, total_steps, **settings)


@pytest.fixture
def feed():
    """Six batches an epoch: twelve samples of a, eight of b, four of c."""
    samples = samples_of(12, 8, 4)
    return feed_of(SameSamples(samples, planner_of(samples)))


def walked(feed, place, steps):
    """The places of the next batches, and the samples of each task in all of them."""
    places, samples = [], np.zeros(3)
    for _ in range(steps):
        place = feed.settle(*place)
        places.append(place)
        samples += feed.ballot(*place)[1]
        place = feed.after(*place)
    return places, samples.tolist()


def test_without_a_freeze_places_follow_each_other(feed):
    places, samples = walked(feed, (0, 0), 7)
    assert places == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 0)]
    assert feed.settle(0, 5) == (0, 5)
    assert sum(samples) == 28


def test_a_frozen_task_is_dealt_no_more(feed):
    before = walked(feed, (0, 0), 2)[1]
    feed.freeze([Freeze(0, 0, 2)])
    left = [12 - before[0], 8 - before[1], 4 - before[2]]
    rest = int(-(-(left[1] + left[2]) // BATCH))
    assert walked(feed, (0, 2), rest)[1] == [0, left[1], left[2]]
    assert feed.after(0, 1 + rest) == (1, 0)
    assert walked(feed, (1, 0), 3) == ([(1, 0), (1, 1), (1, 2)], [0, 8, 4])
    for batch in feed.window(1, 0):
        assert 0 not in batch.task_ids
        assert {feed.describe(int(sample))[0] for sample in batch.sample_ids} <= {"b", "c"}
    feed.freeze([Freeze(0, 0, 2)])
    assert walked(feed, (1, 0), 3)[1] == [0, 8, 4], "being told twice is being told once"


class ByTask:
    """Task c first, then b, then a."""

    def order(self, task, seed, epoch):
        return np.argsort(-task, kind="stable")


def test_an_epoch_that_a_freeze_ends_is_left_for_the_next():
    samples = samples_of(12, 8, 4)
    feed = feed_of(SameSamples(samples, planner_of(samples, sampler=ByTask(), rows=PaddingFree(3))))
    assert walked(feed, (0, 0), 4)[1] == [4, 8, 4]
    feed.freeze([Freeze(0, 0, 4)])
    assert feed.fraction(0, 4) == 1.0
    assert feed.settle(0, 3) == (0, 3)
    assert feed.after(0, 3) == feed.settle(0, 4) == (1, 0)
    assert walked(feed, (0, 4), 3) == ([(1, 0), (1, 1), (1, 2)], [0, 8, 4])


def test_the_last_step_of_an_epoch_is_told(feed):
    places = [feed.after(0, batch) for batch in range(6)]
    assert [feed.is_over(*place) for place in places] == [False] * 5 + [True]
    assert not feed.is_over(*feed.after(1, 0))


def test_a_freeze_can_make_a_step_the_last_of_its_epoch():
    samples = samples_of(12, 8, 4)
    feed = feed_of(SameSamples(samples, planner_of(samples, sampler=ByTask(), rows=PaddingFree(3))))
    place = feed.after(0, 3)
    assert not feed.is_over(*place)
    feed.freeze([Freeze(0, *place)])
    assert feed.is_over(*place)
    assert not feed.is_over(0, 3)
    following = feed.after(*feed.settle(*place))
    assert following == (1, 1)
    assert not feed.is_over(*following), "once is enough"


def test_epochs_without_a_batch_are_passed_over():
    samples = samples_of(6, 0, 3)

    class Turns:
        """Task a in even epochs, c in odd ones."""

        def order(self, task, seed, epoch):
            return np.flatnonzero(task == 2 * (epoch % 2))

    feed = feed_of(SameSamples(samples, planner_of(samples, sampler=Turns())))
    feed.freeze([Freeze(0, 0, 1)])
    assert feed.settle(0, 0) == (0, 0)
    assert feed.settle(0, 1) == (1, 0)
    assert feed.settle(*feed.after(1, 0)) == (3, 0)
    assert feed.fraction(2, 0) == 2.0


def test_where_only_frozen_tasks_would_be_drawn_there_is_no_place():
    samples = samples_of(6, 6, 6)
    sampler = Weights(TASKS, {"a": 0, "b": 1, "c": 1})
    feed = feed_of(SameSamples(samples, planner_of(samples, sampler=sampler)))
    feed.freeze([Freeze(1, 0, 2), Freeze(2, 0, 3)])
    assert feed.settle(0, 2) == (0, 2)
    assert feed.settle(0, 3) is None


def test_fractions_go_up_to_the_end_of_the_epoch(feed):
    feed.freeze([Freeze(0, 0, 2)])
    fractions, place = [], (0, 0)
    while place[0] == 0:
        fractions.append(feed.fraction(*place))
        place = feed.after(*place)
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] < feed.fraction(*place) == 1.0


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_what_is_left(world):
    samples = samples_of(12, 8, 4)
    seen = []
    for rank in range(world):
        epochs = SameSamples(samples, planner_of(samples))
        feed = feed_of(epochs, rank=rank, world_size=world)
        feed.freeze([Freeze(1, 0, 3)])
        place = feed.settle(0, 3)
        while place == feed.settle(*place) and place[0] == 0:
            seen += [int(s) for batch in feed.window(*place) for s in batch.sample_ids.unique()]
            place = feed.after(*place)
    plan = planner_of(samples).epoch(0)
    rest = plan.rows.samples[3 * BATCH :]
    assert sorted(seen) == sorted(rest[samples.task[rest] != 1].tolist())


class Folder:
    """Shards that are all there; of what is opened, and wanted, a note is taken."""

    def __init__(self, shards):
        self.shards, self.opened, self.asked = shards, [], []

    def open(self, number):
        self.opened.append(number)
        return self.shards.get(number)

    def want(self, number):
        self.asked.append(number)

    def failure(self):
        return None


def shards_of(shards):
    from mftrun.jobs.streaming import _seen_from

    def plan(table, number, freezes):
        return planner_of(table, seed=number).epoch(0, _seen_from(number, freezes))

    folder = Folder(shards)
    return folder, Shards(folder, TASKS, plan, announces=True, is_stopping=lambda: True)


def test_a_freeze_inside_a_shard_plans_the_same_samples_anew():
    folder, shards = shards_of({0: samples_of(8, 8, 8), 1: samples_of(4, 4, 4)})
    feed = feed_of(shards)
    before = walked(feed, (0, 0), 3)[1]
    feed.freeze([Freeze(0, 0, 3)])
    left = [0.0, 8 - before[1], 8 - before[2]]
    assert walked(feed, (0, 3), int(-(-sum(left) // BATCH)))[1] == left
    assert folder.opened == folder.asked == [0]
    assert walked(feed, (1, 0), 2)[1] == [0, 4, 4]
    assert folder.opened == folder.asked == [0, 1]


def test_a_freeze_of_a_later_shard_changes_none_before_it():
    _, shards = shards_of({0: samples_of(8, 8, 8)})
    first: Epoch = shards.epoch(0)
    assert shards.epoch(0, [Freeze(0, 1, 2)]) is first


def test_a_shard_of_frozen_tasks_is_passed_over():
    folder, shards = shards_of({0: samples_of(8, 4, 0), 1: samples_of(8, 0, 0), 2: samples_of(4, 4, 4)})
    feed = feed_of(shards)
    feed.freeze([Freeze(0, 0, 0)])
    assert feed.settle(0, 0) == (0, 0)
    assert feed.after(0, 0) == (1, 0)
    assert feed.is_over(1, 0)
    assert folder.asked == [0], "a step does not wait for the shard behind the last"
    assert feed.settle(1, 0) == (2, 0)
    assert folder.asked == [0, 1, 2]


def test_looking_for_a_place_ends_when_the_run_is_to_stop():
    _, shards = shards_of({0: samples_of(8, 0, 0)})
    feed = feed_of(shards)
    feed.freeze([Freeze(0, 0, 1)])
    with pytest.raises(WaitEndedError):
        feed.settle(0, 1)
