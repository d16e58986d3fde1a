import logging

import pytest

from mftrun.errors import ConfigError
from mftrun.training.checkpoint import Checkpoints, fault_of, find_resume


def fill(folder):
    (folder / "weights").write_bytes(b"12345678")
    (folder / "progress.json").write_text("{}")


def save(checkpoints, *steps, epoch_end=False):
    return [checkpoints.save(step, epoch_end, fill) for step in steps]


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


def test_a_save_that_fails_leaves_no_trace(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    save(checkpoints, 5)

    def fail(folder):
        fill(folder)
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        checkpoints.save(10, False, fail)
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000005"]


def test_keeps_the_newest_the_best_and_epoch_ends(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=2)
    save(checkpoints, 1, 2)
    save(checkpoints, 3, epoch_end=True)
    save(checkpoints, 4, 5, 6)
    checkpoints.prune(best_step=2)
    assert names(checkpoints) == [f"step-0000000{step}" for step in (2, 3, 5, 6)]


def test_the_best_is_not_kept_unless_asked(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep_last=1, keep_best=False)
    save(checkpoints, 1, 2)
    checkpoints.prune(best_step=1)
    assert names(checkpoints) == ["step-00000002"]


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
