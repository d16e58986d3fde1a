import errno
import json

import pytest

from mftrun.errors import ConfigError
from mftrun.languages.base import Judged, Verdict
from mftrun.scoring import metrics
from mftrun.scoring.metrics import competition_average, write_metrics
from mftrun.scoring.score import Extent, Score, Skipped
from mftrun.scoring.table import score_table


def score(task, verdicts, of=None, samples=1, tries=(1,)):
    judged = [Judged(verdict, "words of it", 1.5) for verdict in verdicts]
    problems = len(verdicts) // samples
    return Score.of(Extent(task, problems, of or problems), judged, samples, tries)


PASSED, FAILED = Verdict.PASSED, Verdict.FAILED
WHOLE = score("one", [PASSED, FAILED])
HALF = score("two", [PASSED, Verdict.TIMEOUT], of=4)
SKIPPED = Skipped(Extent("three", 2, 2), "go is missing", "apt install golang-go")
BROKEN = score("four", [PASSED, Verdict.SANDBOX_ERROR])


def test_the_table():
    assert score_table([WHOLE, HALF, SKIPPED], None).splitlines() == [
        "benchmark  problems   pass@1  95 % interval  passed  failed  timeout  seconds",
        "one               2    50.0%  9.5% to 90.5%       1       1        0      3.0",
        "two          2 of 4    50.0%  9.5% to 90.5%       1       0        1      3.0",
        "three             2  skipped",
        "three was skipped: go is missing, install it with: apt install golang-go",
    ]


def test_the_table_with_several_tries_and_an_average():
    table = score_table([score("one", [PASSED, FAILED, FAILED, FAILED], samples=2, tries=(1, 2))], 0.25)
    head, row, average = table.splitlines()
    assert head.split()[:7] == ["benchmark", "problems", "pass@1", "95", "%", "interval", "pass@2"]
    assert "25.0%" in row
    assert "50.0%" in row
    assert average.split() == ["average", "25.0%"]


def test_a_sandbox_error_is_told_and_has_no_score():
    table = score_table([BROKEN], None)
    assert "four has no score: the sandbox failed at 1 programs: words of it" in table
    assert BROKEN.values()["pass@1"] is None


def test_a_table_of_skips_alone():
    assert "skipped" in score_table([SKIPPED], None)


def read(folder, name="metrics.json"):
    return json.loads((folder / name).read_text())


def test_scores_of_other_benchmarks_stay(tmp_path):
    settings = {"model": "m", "version": "1"}
    assert write_metrics(tmp_path, [WHOLE], ["one", "five"], {**settings, "style": "auto"}) is None
    other = score("five", [PASSED, PASSED])
    assert write_metrics(tmp_path, [other], ["one", "five"], {**settings, "version": "2"}) == 0.75
    found = read(tmp_path)
    assert list(found) == ["one", "five", "average", "config"]
    assert (found["one"]["pass@1"], found["five"]["pass@1"], found["average"]) == (0.5, 1.0, 0.75)
    assert found["config"] == {"model": "m", "version": "2", "style": "auto"}
    assert not (tmp_path / "earlier").exists()


def test_a_score_of_more_problems_stays_and_a_better_one_takes_its_place(tmp_path, caplog):
    write_metrics(tmp_path, [WHOLE], [], {})
    for less in (score("one", [PASSED], of=2), Skipped(WHOLE.extent, "go is missing")):
        caplog.clear()
        write_metrics(tmp_path, [less], [], {})
        assert read(tmp_path)["one"] == WHOLE.values()
        assert "keeps the score of one that is there: it is of 2 problems with 1 samples" in caplog.text
    write_metrics(tmp_path, [score("one", [PASSED, PASSED])], [], {})
    assert read(tmp_path)["one"]["pass@1"] == 1.0


def test_scores_of_other_settings_are_kept_beside(tmp_path, caplog):
    for number, model in enumerate(("a", "b", "a")):
        write_metrics(tmp_path, [score(f"task-{number}", [PASSED])], [], {"model": model})
    assert list(read(tmp_path)) == ["task-2", "average", "config"]
    kept = [read(tmp_path / "earlier", f"{number}-metrics.json") for number in (1, 2)]
    assert [(next(iter(one)), one["config"]["model"]) for one in kept] == [("task-0", "a"), ("task-1", "b")]
    assert "holds scores of another model or of other settings; it is kept as" in caplog.text


@pytest.mark.parametrize(
    "text", ['{"mine": 1}', "[]", "{", pytest.param("[" * 100_000, id="deep"), '{"one": {}, "config": 1}']
)
def test_what_is_no_metrics_is_refused_and_left(tmp_path, text):
    (tmp_path / "metrics.json").write_text(text)
    with pytest.raises(ConfigError, match=r"output: .*metrics\.json holds no scores"):
        write_metrics(tmp_path, [WHOLE], [], {})
    assert (tmp_path / "metrics.json").read_text() == text


def test_the_metrics(tmp_path):
    write_metrics(tmp_path, [WHOLE, HALF, SKIPPED], ["one", "two"], {"compat": "strict"})
    found = read(tmp_path)
    assert list(found) == ["one", "two", "three", "average", "config"]
    assert found["one"]["pass@1"] == 0.5
    assert found["one"]["verdicts"]["failed"] == 1
    assert [found[task]["problems"] for task in ("one", "two")] == [2, 2]
    assert [found[task]["of"] for task in ("one", "two")] == [2, 4]
    assert found["three"] == {
        "pass@1": None,
        "problems": 2,
        "of": 2,
        "skipped": "go is missing",
        "install": "apt install golang-go",
    }
    assert (found["average"], found["config"]) == (None, {"compat": "strict"})


def test_metrics_that_cannot_be_read_or_written_are_refused(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="output: cannot read"):
        write_metrics(tmp_path / "file", [WHOLE], [], {})

    def full(path, value):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(metrics, "write_json", full)
    with pytest.raises(ConfigError, match=r"output: cannot write .*: No space left"):
        write_metrics(tmp_path, [WHOLE], [], {})


def average(scores, tasks):
    return competition_average({one.extent.task: one.values() for one in scores}, tasks)


def test_the_average_is_of_all_and_whole():
    other = score("two", [PASSED, PASSED])
    assert average([WHOLE, other], ["one", "two"]) == 0.75
    assert average([WHOLE, other, SKIPPED], ["one", "two"]) == 0.75


def test_each_reason_for_no_average():
    assert average([WHOLE], ["one", "two"]) is None
    assert average([WHOLE, HALF], ["one", "two"]) is None
    assert average([WHOLE, SKIPPED], ["one", "three"]) is None
    assert average([WHOLE, BROKEN], ["one", "four"]) is None
