import errno
import json
from dataclasses import replace
from pathlib import Path
from threading import Event

import pytest
from standins import Judge, Plain

from mftrun.errors import ConfigError, DataError
from mftrun.languages.base import Verdict
from mftrun.scoring.attempts import fitting
from mftrun.scoring.score import Skipped
from mftrun.scoring.scorer import Scorer
from mftrun.scoring.verdicts_file import VerdictsFile

SOLUTIONS = [["passed", "failed"], ["failed", "timeout"]]


def lines(folder):
    return [json.loads(line) for line in (folder / "verdicts" / "words.jsonl").read_text().splitlines()]


def test_solutions_are_judged_and_counted(scorer, asked, tmp_path):
    score = scorer.score(asked, SOLUTIONS, tmp_path)
    assert score.counts == {Verdict.PASSED: 1, Verdict.FAILED: 2, Verdict.TIMEOUT: 1}
    assert score.pass_at[1].value == 0.25
    assert score.seconds == 2.0
    found = [(line["problem"], line["sample"], line["verdict"], line["log"]) for line in lines(tmp_path)]
    assert found == [
        ("a", 0, "passed", "log of a passed"),
        ("a", 1, "failed", "log of a failed"),
        ("b", 0, "failed", "log of b failed"),
        ("b", 1, "timeout", "log of b timeout"),
    ]


def test_what_was_judged_is_not_judged_again(scorer, judge, asked, tmp_path):
    first = scorer.score(asked, SOLUTIONS, tmp_path)
    judge.seen.clear()
    assert scorer.score(asked, SOLUTIONS, tmp_path) == first
    assert judge.seen == []
    scorer.score(asked, [["passed", "failed"], ["passed", "timeout"]], tmp_path)
    assert judge.seen == ["b passed"]
    found = [(line["problem"], line["verdict"], line.get("earlier", False)) for line in lines(tmp_path)]
    assert found == [
        *[("a", "passed", False), ("a", "failed", False), ("b", "passed", False), ("b", "timeout", False)],
        ("b", "failed", True),
    ]


def test_verdicts_of_other_settings_and_problems_stay(scorer, judge, asked, tmp_path):
    first = scorer.score(asked, SOLUTIONS, tmp_path)
    before = lines(tmp_path)
    other = Scorer(scorer.languages, judge, 1, {"compat": "upstream"})
    other.score(replace(asked, problems=asked.problems[:1]), SOLUTIONS[:1], tmp_path)
    found = lines(tmp_path)
    assert found[2:] == [{**line, "earlier": True} for line in before]
    assert not any("earlier" in line for line in found[:2])
    judge.seen.clear()
    assert scorer.score(asked, SOLUTIONS, tmp_path) == first
    assert judge.seen == []
    assert lines(tmp_path)[:4] == before


@pytest.mark.parametrize(
    "change", [{"judged_by": {"sandbox": "other"}}, {"languages": {"plain": Plain(driver="2")}}]
)
def test_another_judge_judges_again(scorer, judge, asked, tmp_path, change):
    scorer.score(asked, SOLUTIONS, tmp_path)
    judge.seen.clear()
    same = {"languages": scorer.languages, "judge": judge, "workers": 1, "judged_by": {}}
    Scorer(**{**same, **change}).score(asked, SOLUTIONS, tmp_path)
    assert len(judge.seen) == 4


def test_equal_programs_are_judged_once(scorer, judge, asked, tmp_path):
    score = scorer.score(asked, [["passed"] * 3, ["failed"] * 3], tmp_path)
    assert sorted(judge.seen) == ["a passed", "b failed"]
    assert score.counts == {Verdict.PASSED: 3, Verdict.FAILED: 3}


@pytest.mark.parametrize("kept", range(5))
def test_a_kill_loses_nothing(scorer, judge, asked, tmp_path, kept):
    whole = scorer.score(asked, SOLUTIONS, tmp_path)
    file = tmp_path / "verdicts" / "words.jsonl"
    written = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(written[:kept]) + b"".join(written[kept : kept + 1])[:20])
    judge.seen.clear()
    assert scorer.score(asked, SOLUTIONS, tmp_path) == whole
    assert len(judge.seen) == 4 - kept
    assert file.read_bytes() == b"".join(written)


def test_verdicts_stand_in_the_file_as_they_come(scorer, asked, tmp_path):
    class Killed(Judge):
        def _judge(self, program):
            if program.source == "b timeout":
                raise KeyboardInterrupt
            return super()._judge(program)

    one = Scorer(scorer.languages, Killed(), workers=1, judged_by={})
    with pytest.raises(KeyboardInterrupt):
        one.score(asked, SOLUTIONS, tmp_path)
    assert [line["verdict"] for line in lines(tmp_path)] == ["passed", "failed", "failed"]


VERDICT = {"problem": "a", "sample": 0, "verdict": "passed", "seconds": 1, "key": "k", "log": ""}


@pytest.mark.parametrize(
    "line",
    [
        {"mine": 1},
        {**VERDICT, "key": [1]},
        {**VERDICT, "log": None},
        {**VERDICT, "seconds": float("nan")},
        {**VERDICT, "problem": {}},
        {**VERDICT, "verdict": []},
        pytest.param("[" * 100_000, id="deep"),
    ],
)
def test_a_foreign_file_is_refused_and_left(scorer, asked, tmp_path, line):
    file = tmp_path / "verdicts" / "words.jsonl"
    file.parent.mkdir()
    text = f"{line if isinstance(line, str) else json.dumps(line)}\nend"
    file.write_text(text)
    with pytest.raises(ConfigError, match=r"line 1 of .* is no verdict"):
        scorer.score(asked, SOLUTIONS, tmp_path)
    assert file.read_text() == text


class FullDisk:
    """A stream that takes so many lines."""

    def __init__(self, stream, room):
        self._stream, self._room = stream, room

    def __getattr__(self, name):
        return getattr(self._stream, name)

    def write(self, data):
        self._room -= 1
        if self._room < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        self._stream.write(data)


def test_a_full_disk_is_the_users_and_loses_nothing(scorer, judge, asked, tmp_path, monkeypatch):
    plain = VerdictsFile.__init__

    def init(file, path):
        plain(file, path)
        file._stream = FullDisk(file._stream, 3)

    with monkeypatch.context() as patch:
        patch.setattr(VerdictsFile, "__init__", init)
        with pytest.raises(ConfigError, match=r"output: cannot write .*words\.jsonl: No space left"):
            scorer.score(asked, SOLUTIONS, tmp_path)
    assert len(lines(tmp_path)) == 3
    judge.seen.clear()
    scorer.score(asked, SOLUTIONS, tmp_path)
    assert len(judge.seen) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_disk_that_is_full_at_the_end_is_the_users(tmp_path):
    file = VerdictsFile(tmp_path / "words.jsonl")
    file._stream = Path("/dev/full").open("wb")  # noqa: SIM115
    file._stream.write(b"x")
    with pytest.raises(ConfigError, match="output: cannot write"), file:
        pass


def test_a_sandbox_that_fails_gives_no_score_and_is_asked_again(scorer, judge, asked, tmp_path):
    score = scorer.score(asked, [["passed"], ["sandbox error"]], tmp_path)
    assert score.pass_at == {1: None}
    assert score.trouble == "log of b sandbox error"
    assert judge.seen.count("b sandbox error") == 2
    judge.seen.clear()
    scorer.score(asked, [["passed"], ["sandbox error"]], tmp_path)
    assert judge.seen == ["b sandbox error"] * 2


def test_a_missing_tool_is_a_skip(scorer, asked, judge, tmp_path):
    lacking = Scorer({"plain": Plain(tool="gcc")}, judge, 1, {})
    found = lacking.score(asked, SOLUTIONS, tmp_path)
    assert isinstance(found, Skipped)
    assert found.values()["pass@1"] is None
    assert found.values()["install"] == "install gcc"
    assert judge.seen == []
    with pytest.raises(ConfigError, match=r"none can be scored here; words: gcc is .* with: install gcc"):
        lacking.look_for_tools([asked])
    scorer.look_for_tools([asked])


def test_a_language_that_cannot_be_made_ready_is_a_skip(asked, judge, tmp_path):
    plain = Scorer({"plain": Plain(fault="crates: no space left")}, judge, 1, {})
    with pytest.raises(
        ConfigError, match=r"none .* here; words: plain cannot be made ready: crates: no space"
    ):
        plain.look_for_tools([asked])
    found = plain.score(asked, SOLUTIONS, tmp_path)
    assert found.values()["skipped"] == "plain cannot be made ready: crates: no space left"
    assert judge.seen == []


def test_a_language_in_which_nothing_passes_is_a_skip(asked, judge, tmp_path):
    plain = Scorer({"plain": Plain(smallest="smallest failed")}, judge, 1, {})
    found = plain.score(asked, SOLUTIONS, tmp_path)
    reason = "plain does not work here: a program that does nothing ends as failed: log of smallest failed"
    assert found.values()["skipped"] == reason
    assert judge.seen == []


def test_whatever_happens_to_a_program_the_others_are_judged(scorer, asked, tmp_path):
    class Clumsy(Judge):
        def _judge(self, program):
            if program.source == "a failed":
                raise PermissionError("no such place")
            return super()._judge(program)

    score = Scorer(scorer.languages, Clumsy(), 2, {}).score(asked, SOLUTIONS, tmp_path)
    assert score.counts[Verdict.SANDBOX_ERROR] == 1
    assert score.trouble == "PermissionError: no such place"
    assert sum(score.counts.values()) == 4


def test_programs_that_run_are_ended_when_nobody_asks_any_more(scorer, asked, tmp_path):
    begun, ended = Event(), Event()

    class Endless(Judge):
        def _judge(self, program):
            if program.source.startswith("smallest"):
                return super()._judge(program)
            if program.source != "b timeout":
                begun.wait()
                raise KeyboardInterrupt
            begun.set()
            try:
                for _ in range(1000):
                    ended.wait(0.01)
            except BaseException:
                ended.set()
                raise

    one = Scorer(scorer.languages, Endless(), workers=4, judged_by={})
    with pytest.raises(KeyboardInterrupt):
        one.score(asked, SOLUTIONS, tmp_path)
    assert ended.is_set()


def test_solutions_of_more_problems_give_the_first(asked, tmp_path):
    assert fitting(tmp_path, asked.problems, None, SOLUTIONS) == SOLUTIONS
    assert fitting(tmp_path, asked.problems[:1], 2, SOLUTIONS) == SOLUTIONS[:1]
    with pytest.raises(DataError, match=r"of 1 problems, not of 2; job\.problems=1 scores the first 1"):
        fitting(tmp_path, asked.problems, None, SOLUTIONS[:1])
    with pytest.raises(DataError, match=r"of 3 problems, not of 2$"):
        fitting(tmp_path, asked.problems[:1], 2, [["x"]] * 3)
