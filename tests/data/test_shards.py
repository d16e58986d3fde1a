from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mftrun.data.chunks import MadeChunk
from mftrun.data.epochs import WaitEndedError
from mftrun.data.fitting import ON_OVERLONG, Limit
from mftrun.data.mixture import Proportional
from mftrun.data.plan import Planner
from mftrun.data.policies import ON_BAD
from mftrun.data.rows import Padding
from mftrun.data.sample import Message, Origin, Sample
from mftrun.data.selection import Rules
from mftrun.data.shards.folder import ShardFolder, Start
from mftrun.data.shards.maker import Recipe, ShardMaker, ShardTask
from mftrun.data.shards.opened import Shards
from mftrun.data.shards.stream import Position, TaskStream
from mftrun.data.shards.validation import held_out, write_valid
from mftrun.data.split import ValidationSize
from mftrun.data.table import SampleTable
from mftrun.data.template import RoleTemplate
from mftrun.data.tokenize import tokenize
from mftrun.data.workers import Workers
from mftrun.errors import ConfigError, DataError

TEMPLATE = RoleTemplate("S:", "U:", "A:", assistant_suffix="\n", control_tokens=["<s>"])
NO_SPLIT = ValidationSize(0.0, 0, 0)


@dataclass
class Chunked:
    """A source of chunks of entries: the number of a sample, "bad", or "long" for a long sample."""

    entries: list[list[Any]]
    location: str = "made"
    opened: int = 0

    def size(self) -> int:
        return 0

    def chunks(self) -> Iterator[MadeChunk]:
        self.opened += 1
        for chunk in self.entries:
            yield MadeChunk(tuple(_entry(one) for one in chunk))

    def fingerprint(self) -> dict[str, Any]:
        return {}


def _entry(one: Any) -> Sample | DataError:
    if one == "bad":
        return DataError("made", 0, "is bad")
    number, answer = (0, "word " * 99) if one == "long" else (one, "yes")
    return Sample((Message("user", "q"), Message("assistant", answer)), Origin("made", number))


def numbers(parts: Iterator[MadeChunk]) -> list[int | str]:
    return [
        item.origin.line if isinstance(item, Sample) else "bad" for part in parts for item in part.entries
    ]


def chunked(count: int, size: int = 3) -> Chunked:
    """Samples 1 to count."""
    every = list(range(1, count + 1))
    return Chunked([every[begin : begin + size] for begin in range(0, count, size)])


@pytest.fixture
def make(tmp_path, make_tokenizer):
    """A maker of shards in tmp_path: make({task: (source, samples, held out)}, on_bad=, on_overlong=)."""

    def call(tasks, on_bad="error", on_overlong="skip", folder=tmp_path, max_length=64):
        shards = ShardFolder(folder)
        begins = {}
        for name, (source, _, held) in tasks.items():
            stream = TaskStream(source)
            list(stream.take(held))
            begins[name] = stream.position
        if not (shards.records / "starts").exists():
            shards.write_start(0, Start(begins, {}))
        rules = Rules(Limit(max_length, ON_OVERLONG[on_overlong]), NO_SPLIT, 0)
        recipe = Recipe(TEMPLATE.encoder(make_tokenizer(["<s>"])), rules, ON_BAD[on_bad], "made")
        places = {name: ShardTask(source, count, begins[name]) for name, (source, count, _) in tasks.items()}
        return shards, ShardMaker(shards, places, recipe, Workers(1))

    return call


def lines(shards: ShardFolder, number: int) -> dict[str, list[int]]:
    """The samples of a shard by task."""
    table = shards.open(number)
    assert table is not None
    return {name: table.origin_line[table.task == index].tolist() for index, name in enumerate(table.tasks)}


def test_a_stream_begins_again_behind_what_is_held_out() -> None:
    source = chunked(5, size=2)
    stream = TaskStream(source)
    assert numbers(stream.take(2)) == [1, 2]
    stream = TaskStream(source, begin=stream.position)
    assert numbers(stream.take(8)) == [3, 4, 5, 3, 4, 5, 3, 4]
    assert stream.position.passes == 2


def test_bad_entries_come_with_the_samples_they_stand_before() -> None:
    stream = TaskStream(Chunked([["bad", 1, "bad"], [], ["bad", 2]]))
    assert numbers(stream.take(1)) == ["bad", 1]
    assert numbers(stream.take(1)) == ["bad", "bad", 2]
    assert numbers(stream.take(1)) == ["bad", 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.sampled_from(["bad", 1, 2, 3]), max_size=4), min_size=1, max_size=5),
    st.lists(st.integers(1, 5), min_size=1, max_size=5),
)
def test_a_stream_entered_anywhere_goes_on_as_if_it_had_never_been_left(entries, counts) -> None:
    source = Chunked(entries)
    if not any(isinstance(one, int) for chunk in entries for one in chunk):
        with pytest.raises(DataError, match="no sample"):
            list(TaskStream(source).take(1))
        return
    stream, position, pieces = TaskStream(source), Position(), []
    for count in counts:
        entered = TaskStream(source, at=position)
        pieces += numbers(entered.take(count))
        position = entered.position
    assert pieces == [one for count in counts for one in numbers(stream.take(count))]
    assert position == stream.position


def test_a_source_that_has_become_shorter_is_refused() -> None:
    for position in (Position(0, 3, 0), Position(0, 1, 3)):
        with pytest.raises(DataError, match="ends before the place"):
            list(TaskStream(chunked(5), at=position).take(1))


@pytest.mark.parametrize(
    ("count", "expected"), [(4000, 10), (200, 10), (100, 5), (10, 1), (2, 1)], ids=lambda value: str(value)
)
def test_what_is_held_out_is_what_a_split_of_the_whole_would_take(count, expected) -> None:
    source = chunked(count, size=50)
    assert held_out(source, "task", 0, ValidationSize(0.05, 1, 10)) == expected


def test_no_more_is_read_to_find_the_size_of_validation_than_is_needed() -> None:
    class Endless(Chunked):
        def chunks(self) -> Iterator[MadeChunk]:
            while True:
                yield MadeChunk((_entry(1),) * 10)

    assert held_out(Endless([]), "task", 0, ValidationSize(0.05, 1, 10)) == 10
    assert held_out(Endless([]), "task", 0, NO_SPLIT) == 0


def test_a_source_too_small_to_validate_is_refused() -> None:
    with pytest.raises(ConfigError, match="1 sample, but the validation split takes 1"):
        held_out(chunked(1), "task", 0, ValidationSize(0.5, 1, 10))
    with pytest.raises(DataError, match="no valid sample"):
        held_out(Chunked([["bad"]]), "task", 0, ValidationSize(0.5, 1, 10))


def test_shards_take_what_follows_of_each_task_and_never_what_is_held_out(make) -> None:
    shards, maker = make({"large": (chunked(20), 4, 2), "small": (chunked(4), 2, 1)})
    for number in range(3):
        maker.make(number)
    assert [lines(shards, number) for number in range(3)] == [
        {"large": [3, 4, 5, 6], "small": [2, 3]},
        {"large": [7, 8, 9, 10], "small": [4, 2]},
        {"large": [11, 12, 13, 14], "small": [3, 4]},
    ]
    report = json.loads(shards.report.read_text())
    assert report["shards"] == 3
    assert {task: (one["samples"], one["passes"]) for task, one in report["tasks"].items()} == {
        "large": (12, 0),
        "small": (6, 1),
    }


def test_a_source_smaller_than_a_shard_is_in_it_several_times(make) -> None:
    shards, maker = make({"tiny": (chunked(3), 7, 1)})
    maker.make(0)
    assert lines(shards, 0) == {"tiny": [2, 3, 2, 3, 2, 3, 2]}


def test_a_shard_made_again_from_its_record_is_the_same(make) -> None:
    tasks = {"a": (Chunked([["bad", 1, 2], ["long"], [3, "bad", 4, 5]]), 2, 1), "b": (chunked(7), 3, 0)}
    shards, maker = make(tasks, on_bad="skip")
    for number in range(4):
        maker.make(number)
    before, totals = lines(shards, 2), shards.start(3)
    shards.clear()
    _, other = make(tasks, on_bad="skip")
    other.make(2)
    assert lines(shards, 2) == before
    assert shards.start(3) == totals


def test_one_source_is_not_opened_again_for_each_shard(make) -> None:
    source = chunked(30)
    _, maker = make({"a": (source, 3, 0)})
    before = source.opened
    for number in range(5):
        maker.make(number)
    assert source.opened == before + 1


def test_bad_lines_are_refused_or_counted_by_shard(make, caplog) -> None:
    tasks = {"a": (Chunked([[1, 2, "bad", 3, 4, "bad", 5, 6]]), 2, 0)}
    shards, maker = make(tasks)
    maker.make(0)
    with pytest.raises(DataError, match=r"is bad(?s:.*)data\.on_bad=skip"):
        maker.make(1)
    assert not shards.holds(1)
    _, lenient = make(tasks, on_bad="skip")
    with caplog.at_level(logging.INFO):
        lenient.make(1)
        lenient.make(2)
    assert lines(shards, 1) == {"a": [3, 4]}
    assert json.loads(shards.report.read_text())["tasks"]["a"]["bad"] == 2
    shards.clear()
    assert not shards.left_out(0).exists()
    assert shards.left_out(1).read_text() == "a\tmade: is bad\n"
    assert "shard 2: a 2 samples, " in caplog.text
    assert caplog.text.count("1 bad lines left out") == 2


def test_over_long_samples_are_refused_or_counted(make) -> None:
    tasks = {"a": (Chunked([[1, "long", 2, 3]]), 2, 0)}
    shards, strict = make(tasks, on_overlong="error")
    with pytest.raises(DataError, match=r"more than data\.max_length=64"):
        strict.make(0)
    assert not shards.holds(0)
    _, maker = make(tasks)
    maker.make(0)
    assert lines(shards, 0) == {"a": [1]}
    assert json.loads(shards.report.read_text())["tasks"]["a"]["overlong"] == 1


def test_where_nothing_is_left_of_a_task_the_next_samples_are_taken(make, caplog) -> None:
    shards, maker = make({"a": (Chunked([["long", "long", 1, 2]]), 2, 0), "b": (chunked(9), 1, 0)})
    maker.make(0)
    assert lines(shards, 0) == {"a": [1, 2], "b": [1]}
    assert "none of 2 samples of task 'a' in shard 0" in caplog.text
    assert shards.left_out(0).read_text() == "a\tmade, left out\n" * 2
    assert json.loads(shards.report.read_text())["tasks"]["a"]["overlong"] == 2


def test_a_source_of_which_nothing_fits_is_refused(make) -> None:
    _, maker = make({"a": (Chunked([["long"] * 3]), 2, 0)})
    with pytest.raises(DataError, match="no sample of task 'a' can be trained on"):
        maker.make(0)


def test_a_shard_that_was_not_finished_is_not_there(make, tmp_path, monkeypatch) -> None:
    shards, maker = make({"a": (chunked(9), 2, 0)})
    with monkeypatch.context() as patch:
        patch.setattr(ShardFolder, "seal", _killed)
        with pytest.raises(KeyboardInterrupt):
            maker.make(0)
    assert shards.numbers() == [0]
    assert shards.open(0) is None
    _, again = make({"a": (chunked(9), 2, 0)})
    again.make(0)
    assert lines(shards, 0) == {"a": [1, 2]}
    (shards.tokens(0, 0) / "tokens.arrow").write_bytes(b"cut")
    assert not shards.holds(0)


def _killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_full_disk_is_a_clear_error(make, monkeypatch) -> None:
    shards, maker = make({"a": (chunked(9), 2, 0)})
    monkeypatch.setattr("mftrun.data.shards.maker.tokenize", _full)
    with pytest.raises(DataError, match=r"No space left(?s:.*)data\.shard_samples"):
        maker.make(0)
    assert not shards.holds(0)


def _full(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_ranks_wait_until_a_shard_is_there_and_say_so(make, caplog) -> None:
    shards, maker = make({"a": (chunked(9), 3, 0)})
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 40:
            maker.make(0)

    seen = Shards(shards, ["a"], plan, announces=True, pause=pause)
    with caplog.at_level(logging.INFO):
        epoch = seen.epoch(0)
    assert sorted(epoch.plan.rows.samples.tolist()) == [0, 1, 2]
    assert len(pauses) == 40
    assert caplog.text.count("waiting for data: shard 0 is not there yet") == 1
    assert shards.wanted() == 0
    assert seen.epoch(0) is epoch


def plan(table: SampleTable, number: int, freezes: Any = ()) -> Any:
    return Planner(table.lengths, table.task, Proportional(), Padding(), number, 2, 64).epoch(0, freezes)


def test_a_rank_that_is_to_stop_waits_no_longer(make) -> None:
    shards, _ = make({"a": (Chunked([[1, 2]]), 2, 0)})
    asked = iter([False, False, True])
    seen = Shards(shards, ["a"], plan, announces=False, is_stopping=lambda: next(asked), pause=lambda _: None)
    with pytest.raises(WaitEndedError):
        seen.epoch(0)


def test_waiting_ranks_get_the_error_that_ended_the_maker(make) -> None:
    shards, _ = make({"a": (chunked(9), 3, 0)})
    shards.fail(DataError("file", 7, "is bad"))
    with pytest.raises(DataError, match="file:7: is bad"):
        Shards(shards, ["a"], plan, announces=False, pause=_killed).epoch(1)
    shards.forget_failure()
    with pytest.raises(KeyboardInterrupt):
        Shards(shards, ["a"], plan, announces=False, pause=_killed).epoch(1)


def test_a_rank_that_does_not_announce_leaves_no_note(make) -> None:
    shards, maker = make({"a": (chunked(9), 3, 0)})
    maker.make(0)
    Shards(shards, ["a"], plan, announces=False).epoch(0)
    with pytest.raises(FileNotFoundError):
        shards.wanted()


def test_a_missing_record_is_a_clear_error(tmp_path) -> None:
    with pytest.raises(DataError, match="no record of where shard 3"):
        ShardFolder(tmp_path).start(3)


@pytest.mark.parametrize("tasks", [[], [1], [0, 2]], ids=str)
def test_the_table_of_validation_samples_needs_no_shard(tmp_path, make_tokenizer, tasks) -> None:
    encoder = TEMPLATE.encoder(make_tokenizer(["<s>"]))
    files = {task: tokenize(chunked(task + 1), encoder, tmp_path / str(task), workers=1) for task in tasks}
    write_valid(tmp_path / "valid", files, ["a", "b", "c"], Limit(64, ON_OVERLONG["error"]))
    table = SampleTable.open(tmp_path / "valid")
    assert table.tasks == ["a", "b", "c"]
    assert table.task.tolist() == [task for task in tasks for _ in range(task + 1)]
    assert sorted(map(Path, table.sources)) == sorted(file.path for file in files.values())
    assert np.all(table.lengths > 0)
