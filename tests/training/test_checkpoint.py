import json
import logging
import os
import resource
import shutil
from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch
from worlds import engine_of

from mftrun.errors import ConfigError
from mftrun.launch import run_ranks
from mftrun.training.checkpoint import Checkpoints, fault_of, find_resume, read_manifest
from mftrun.training.meter import Meter
from mftrun.training.progress import Best, Frozen, Lowest, Progress
from mftrun.training.saving import Saver, read_progress


def fill(folder):
    (folder / "weights").write_bytes(b"12345678")
    (folder / "progress.json").write_text("{}")


def save(checkpoints, *steps, epoch_end=False):
    return [save_one(checkpoints, step, epoch_end) for step in steps]


def save_one(checkpoints, step, epoch_end):
    checkpoints.begin(step)
    fill(checkpoints.scratch(step))
    return checkpoints.publish(step, epoch_end)


def names(checkpoints):
    return [path.name for path in checkpoints.complete()]


def test_a_saved_checkpoint_is_complete_and_the_newest(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 5, 10)
    assert checkpoints.newest() == checkpoints.path(10)


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda path: (path / "weights").write_bytes(b"123"), "3 bytes of 8"),
        (lambda path: (path / "weights").unlink(), "weights is missing"),
        (lambda path: (path / "manifest.json").unlink(), "manifest.json is missing"),
        (lambda path: (path / "manifest.json").write_text('{"step":'), "manifest.json is missing or broken"),
    ],
)
def test_a_cut_checkpoint_is_passed_over_and_named(tmp_path, damage, word, caplog):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 5, 10)
    damage(checkpoints.path(10))
    with caplog.at_level(logging.WARNING):
        assert checkpoints.newest() == checkpoints.path(5)
    assert "step-00000010" in caplog.text
    assert word in caplog.text


def test_what_is_begun_appears_when_it_is_published_and_goes_when_it_is_discarded(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 5)
    checkpoints.begin(10)
    fill(checkpoints.scratch(10))
    assert names(checkpoints) == ["step-00000005"]
    checkpoints.discard(10)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000005"]


def test_keeps_the_newest_the_best_and_epoch_ends(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    save(checkpoints, 1, 2)
    save(checkpoints, 3, epoch_end=True)
    save(checkpoints, 4, 5, 6)
    checkpoints.prune({2})
    assert names(checkpoints) == [f"step-0000000{step}" for step in (2, 3, 5, 6)]


def test_the_best_is_not_kept_unless_asked(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=False)
    save(checkpoints, 1, 2)
    checkpoints.prune({1})
    assert names(checkpoints) == ["step-00000002"]


def test_the_best_of_every_task_is_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=1)
    save(checkpoints, 1, 2, 3, 4, 5)
    checkpoints.prune({1, 3, 9})
    assert names(checkpoints) == [f"step-0000000{step}" for step in (1, 3, 5)]


def test_what_a_kill_left_behind_goes_with_the_next_save(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    (checkpoints.folder / ".partial-step-00000003").mkdir(parents=True)
    save(checkpoints, 4)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000004"]


def test_later_checkpoints_are_set_aside_not_lost(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 1, 2)
    checkpoints.drop_after(1)
    assert names(checkpoints) == ["step-00000001"]
    assert fault_of(checkpoints.folder / "replaced-step-00000002") is None


def test_auto_starts_anew_where_nothing_is(tmp_path):
    assert find_resume("auto", tmp_path) is None
    assert find_resume(None, tmp_path) is None


def test_auto_takes_the_newest(tmp_path):
    save(Checkpoints(tmp_path), 1, 2)
    assert find_resume("auto", tmp_path).name == "step-00000002"


def test_a_used_folder_is_not_overwritten(tmp_path):
    save(Checkpoints(tmp_path), 1)
    with pytest.raises(ConfigError, match=r"output_dir.*resume=auto"):
        find_resume(None, tmp_path)


def test_a_run_or_a_checkpoint_may_be_named(tmp_path):
    first, second = save(Checkpoints(tmp_path / "run"), 1, 2)
    assert find_resume(str(tmp_path / "run"), tmp_path / "new") == second
    assert find_resume(str(first), tmp_path / "new") == first


def test_a_named_checkpoint_that_is_cut_is_refused_with_another(tmp_path):
    first, second = save(Checkpoints(tmp_path), 1, 2)
    (second / "weights").write_bytes(b"")
    with pytest.raises(ConfigError, match=rf"resume.*0 bytes of 8.*{first}"):
        find_resume(str(second), tmp_path)


def test_a_missing_one_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"resume.*no such folder"):
        find_resume(str(tmp_path / "nowhere"), tmp_path)


@pytest.mark.parametrize(("form", "age"), [(None, "an earlier"), (99, "a later")])
@pytest.mark.parametrize("resume", ["auto", "run"])
def test_one_of_another_version_is_refused_before_anything_is_loaded(tmp_path, form, age, resume):
    (path,) = save(Checkpoints(tmp_path), 1)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["form"] = form
    kept = {key: value for key, value in manifest.items() if value is not None}  # the first form said nothing
    (path / "manifest.json").write_text(json.dumps(kept))
    with pytest.raises(ConfigError, match=rf"resume.*{age} version.*new output_dir"):
        find_resume("auto" if resume == "auto" else str(tmp_path), tmp_path)


class Balance:
    def __init__(self):
        self.seen = 0

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state):
        self.seen = state["seen"]


class World:
    """A model of one layer that is trained by hand, and its saver."""

    def __init__(self, context, run_dir):
        torch.manual_seed(0)
        self.engine = engine_of(context.world_size, torch.nn.Linear(2, 2))
        self.balance = Balance()
        self.meter = Meter(self.engine.ranks, ["a", "b"])
        self.checkpoints = Checkpoints(run_dir, keep_last=1)
        self.saver = Saver(self.engine, self.checkpoints, self.balance, config={"name": "x"})

    def train(self, progress, steps=1):
        for _ in range(steps):
            with self.engine.micro_step(is_last=True):
                self.engine.backward(self.engine.model(torch.ones(1, 2)).square().sum())
            self.engine.step(0.1)
            self.balance.seen += 1
            progress.step += 1
            progress.batch += 1

    def state(self):
        """Weights and moments as they are now."""
        return {name: value.clone() for name, value in self.engine.state().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def there_and_back(context, run_dir):
    """Three steps, of which the second is the best of b; then back to it, and one step more."""
    world, progress = World(context, run_dir), Progress(tasks={"a": Best(), "b": Best()})
    world.train(progress, 2)
    progress.tasks["b"].take(1.0, progress.step, 0.0)
    progress.overall = Best(2.0, 2, None, 2.5, 1, line=Lowest(2.0, 2))
    then, saved = world.state(), world.saver.save(progress, world.meter)
    world.train(progress)
    straight_on = world.state()
    world.train(progress, 2)
    progress.overall.take(9.0, progress.step, 0.0)
    progress.freeze(["b"])
    progress.rollback = 2
    world.saver.save(progress, world.meter)
    torch.manual_seed(7)
    drawn = torch.get_rng_state()
    went = world.saver.roll_back(progress)
    back = world.state()
    untouched = torch.equal(torch.get_rng_state(), drawn) and world.balance.seen == 5
    place = progress.step, progress.batch, progress.rollback
    world.train(progress)
    return {
        "saved and went": saved and went,
        "back": equal(back, then) and not equal(back, straight_on),
        "goes on as before": equal(world.state(), straight_on),
        "untouched": untouched,
        "place": place,
        "overall": progress.overall,
        "kept": progress.kept_steps,
        "there": names(world.checkpoints),
        "pending": read_progress(world.checkpoints.path(5)).rollback,
        "frozen": progress.frozen,
    }


@pytest.mark.parametrize("ranks", [1, 2])
def test_model_and_optimizer_go_back_and_nothing_else_does(tmp_path, ranks):
    found = run_ranks(there_and_back, tmp_path, num_processes=ranks, log_file=None)
    overall = Best(2.0, 2, 2, 2.5, 1, line=Lowest(2.0, 2, 2))
    assert {name: found[name] for name in ("saved and went", "back", "goes on as before", "untouched")} == {
        "saved and went": True,
        "back": True,
        "goes on as before": True,
        "untouched": True,
    }
    assert found["place"] == (5, 5, None)
    assert found["overall"] == overall
    assert found["kept"] == {2}
    assert found["there"] == ["step-00000002", "step-00000005"], "what a task was best at outlives pruning"
    assert found["pending"] == 2, "a resumed run goes back, too"
    assert found["frozen"] == {"b": Frozen(5, 0, 5)}


ALONE = SimpleNamespace(world_size=1)


def test_a_run_whose_best_is_gone_goes_on(tmp_path, caplog):
    world, progress = World(ALONE, tmp_path), Progress(rollback=3)
    world.train(progress)
    before = world.state()
    progress.overall.stale = 4
    with caplog.at_level(logging.WARNING):
        assert not world.saver.roll_back(progress)
    assert "not going back to step 3: there is no whole checkpoint of it" in caplog.text
    assert equal(world.state(), before)
    assert (progress.rollback, progress.overall.stale) == (None, 4)


def test_a_model_that_was_saved_untrained_comes_back_as_if_it_had_never_moved(tmp_path):
    world, progress = World(ALONE, tmp_path), Progress(overall=Best(1.0, 0))
    fresh = world.state()
    world.saver.save(progress, world.meter)
    world.train(progress, 2)
    progress.rollback = 0
    assert world.saver.roll_back(progress)
    assert equal(world.state(), fresh)


@contextmanager
def full_disk():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_best_that_could_not_be_saved_is_not_noted(tmp_path):
    world, progress = World(ALONE, tmp_path), Progress(tasks={"a": Best(1.0, 0)})
    world.saver.save(progress, world.meter)
    world.train(progress)
    progress.tasks["a"].take(0.5, 1, 0.0)
    with full_disk():
        assert not world.saver.save(progress, world.meter)
    assert (progress.tasks["a"].step, progress.tasks["a"].kept_step) == (1, 0)
    assert names(world.checkpoints) == ["step-00000000"]


def test_a_checkpoint_says_itself_that_it_is_the_best(tmp_path):
    world, progress = World(ALONE, tmp_path), Progress(tasks={"a": Best(1.0, 0)})
    world.saver.save(progress, world.meter)
    stored = json.loads((world.checkpoints.path(0) / "progress.json").read_text())
    assert stored["tasks"]["a"]["kept_step"] == 0
    assert world.saver.restore(world.checkpoints.path(0), world.meter) == progress


def test_weights_that_went_back_are_not_the_best_that_could_not_be_saved(tmp_path):
    world, progress = World(ALONE, tmp_path), Progress(tasks={"a": Best(), "b": Best()})
    for task in "ab":
        progress.tasks[task].take(1.0, 0, 0.0)
    world.saver.save(progress, world.meter)
    world.train(progress)
    progress.tasks["b"].take(0.5, 1, 0.0)
    progress.freeze(["a"])
    progress.rollback = 0
    with full_disk():
        assert not world.saver.save(progress, world.meter)
    assert world.saver.roll_back(progress)
    assert world.saver.save(progress, world.meter)
    for known in (progress, read_progress(world.checkpoints.path(1))):
        assert (known.tasks["b"].step, known.tasks["b"].kept_step) == (1, 0)


@pytest.mark.parametrize("fault", ["prune", "leftovers"])
def test_a_checkpoint_is_saved_though_old_ones_cannot_be_removed(tmp_path, monkeypatch, caplog, fault):
    world, progress = World(ALONE, tmp_path), Progress(tasks={"a": Best()})
    world.saver.save(progress, world.meter)
    world.train(progress)
    progress.tasks["a"].take(0.5, 1, 0.0)
    if fault == "leftovers":
        (world.checkpoints.folder / ".partial-step-00000000").mkdir()
    real = shutil.rmtree

    def refuse(path, ignore_errors=False, **options):
        if not ignore_errors:
            raise OSError(16, "Device or resource busy", str(path))
        real(path, ignore_errors=True, **options)

    monkeypatch.setattr(shutil, "rmtree", refuse)
    with caplog.at_level(logging.WARNING):
        assert world.saver.save(progress, world.meter)
    assert progress.tasks["a"].kept_step == 1
    assert world.checkpoints.holds(1)
    assert "could not be removed" in caplog.text
    assert "could not be saved" not in caplog.text


def run_to_begin_from(folder):
    """A run of four steps: the first is the best of a, the third of b."""
    world, progress = World(ALONE, folder), Progress(tasks={"a": Best(), "b": Best()})
    for losses in [(1.0, 3.0), (2.0, 2.0), (3.0, 1.0), (4.0, 4.0)]:
        world.train(progress)
        for task, loss in zip("ab", losses, strict=True):
            progress.tasks[task].take(loss, progress.step, 0.0)
        world.saver.save(progress, world.meter, epoch_end=progress.step == 3)
    assert names(world.checkpoints) == [f"step-0000000{step}" for step in (1, 3, 4)]
    return world


def test_a_run_that_begins_from_another_takes_its_bests_over(tmp_path):
    old, new = run_to_begin_from(tmp_path / "old"), World(ALONE, tmp_path / "new")
    progress = new.saver.restore(old.checkpoints.path(4), new.meter)
    assert names(new.checkpoints) == names(old.checkpoints)
    assert all(
        (new.checkpoints.path(1) / name).samefile(old.checkpoints.path(1) / name)
        for name in read_manifest(old.checkpoints.path(1)).files
    ), "no room is taken twice"
    progress.freeze(["a"])
    progress.rollback = 1
    assert new.saver.roll_back(progress)
    new.train(progress)
    progress.tasks["b"].take(0.5, progress.step, 0.0)
    new.saver.save(progress, new.meter)
    kept = {int(name[5:]) for name in names(new.checkpoints)}
    assert kept == {1, 5}, "no longer a best, an adopted one goes, though an epoch ended there"
    assert names(old.checkpoints) == ["step-00000001", "step-00000003", "step-00000004"]


def test_a_run_that_goes_on_in_its_folder_takes_nothing_over(tmp_path):
    world = run_to_begin_from(tmp_path)
    stamps = {path: path.stat().st_ino for path in world.checkpoints.complete()}
    world.saver.restore(world.checkpoints.path(4), world.meter)
    assert {path: path.stat().st_ino for path in world.checkpoints.complete()} == stamps


def test_beside_a_renamed_checkpoint_nothing_is_taken_over(tmp_path):
    old, new = run_to_begin_from(tmp_path / "old"), World(ALONE, tmp_path / "new")
    old.checkpoints.drop_after(3)
    new.saver.restore(old.checkpoints.folder / "replaced-step-00000004", new.meter)
    assert names(new.checkpoints) == []


def test_what_cannot_be_linked_is_copied(tmp_path, monkeypatch):
    def refuse(source, target):
        raise OSError(18, "Invalid cross-device link")

    save(Checkpoints(tmp_path / "old"), 1)
    monkeypatch.setattr(os, "link", refuse)
    new = Checkpoints(tmp_path / "new")
    new.adopt(tmp_path / "old" / "checkpoints", [1])
    assert (new.path(1) / "weights").read_bytes() == b"12345678"
    assert names(new) == ["step-00000001"]


def test_only_what_is_whole_there_and_not_here_is_taken_over(tmp_path):
    old, new = Checkpoints(tmp_path / "old"), Checkpoints(tmp_path / "new")
    save(old, 1, 2, 3)
    save(new, 2)
    (old.path(1) / "weights").write_bytes(b"123")
    here = (new.path(2) / "weights").stat().st_ino
    new.adopt(old.folder, [1, 2, 3, 4])
    assert {path.name for path in new.folder.iterdir()} == {"step-00000002", "step-00000003"}
    assert (new.path(2) / "weights").stat().st_ino == here


def test_a_disk_too_full_to_take_checkpoints_over_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(source, target):
        raise OSError(28, "No space left on device")

    save(Checkpoints(tmp_path / "old"), 1, 2)
    monkeypatch.setattr(os, "link", refuse)
    monkeypatch.setattr(shutil, "copyfile", refuse)
    new = Checkpoints(tmp_path / "new")
    with caplog.at_level(logging.WARNING):
        new.adopt(tmp_path / "old" / "checkpoints", [1, 2])
    assert "step-00000002, and any best before it, stays where it is" in caplog.text
    assert list(new.folder.iterdir()) == []


def test_a_run_that_ended_before_its_first_save_may_begin_once_more(tmp_path):
    (old,) = save(Checkpoints(tmp_path / "old"), 1)
    (stranger,) = save(Checkpoints(tmp_path / "stranger"), 1)
    new = Checkpoints(tmp_path / "new")
    new.adopt(old.parent, [1])
    assert find_resume(str(old), tmp_path / "new") == old
    assert find_resume("auto", tmp_path / "new") == new.path(1)
    with pytest.raises(ConfigError, match="holds another run"):
        find_resume(str(stranger), tmp_path / "new")
    save(new, 2)
    with pytest.raises(ConfigError, match="holds another run"):
        find_resume(str(old), tmp_path / "new")
