import pytest

from mftrun.scoring import workers
from mftrun.scoring.workers import usual_workers


@pytest.mark.parametrize(
    ("inner", "outer", "count"),
    [("max 100000", "max 100000", 8), ("250000 100000", "max 100000", 3), ("max 100000", "50000 100000", 1)],
)
def test_no_more_workers_than_cores_that_may_be_used(tmp_path, monkeypatch, inner, outer, count):
    monkeypatch.setattr(workers, "cores", lambda: 8)
    group = tmp_path / "groups" / "a" / "b"
    group.mkdir(parents=True)
    (group / "cpu.max").write_text(inner)
    (group.parent / "cpu.max").write_text(outer)
    (tmp_path / "mine").write_text("0::/a/b\n")
    assert usual_workers(tmp_path / "groups", tmp_path / "mine") == count
    assert usual_workers(tmp_path / "none", tmp_path / "absent") == 8
