from __future__ import annotations

import errno
import json
import logging
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from mftrun.data.cache import TokenCache
from mftrun.data.files import Files
from mftrun.data.from_sources import FromSources
from mftrun.data.prepare import prepare
from mftrun.data.report import DataReport
from mftrun.data.sample import Message, Origin, Sample
from mftrun.data.settings import DataSettings, TaskSources
from mftrun.data.table import SampleTable
from mftrun.data.template import RoleTemplate
from mftrun.data.tokenizer import tokenizer_digest
from mftrun.errors import ConfigError, DataError

TEMPLATE = RoleTemplate("S:", "U:", "A:", assistant_suffix="\n", control_tokens=["<s>"])
REAL = Path(__file__).parents[3] / "shared" / "data" / "tasks"


class Listed:
    """A source from a list of (question, answer), or errors."""

    location = "a list"

    def __init__(self, items, later=None):
        self.given, self.later, self.readings = list(items), later, 0

    def size(self):
        return len(self.given)

    def chunks(self):
        self.readings += 1
        yield Several(self.later if self.later is not None and self.readings > 1 else self.given)

    def fingerprint(self):
        return {"items": str(self.given)}


@dataclass(frozen=True)
class Several:
    given: list

    @property
    def size(self):
        return len(self.given)

    def items(self):
        for line, item in enumerate(self.given, start=1):
            yield item if isinstance(item, DataError) else _sample(*item, line)


def _sample(question, answer, line):
    return Sample((Message("user", question), Message("assistant", answer)), Origin("list", line))


def pairs(count, name="q"):
    return [(f"{name} {number}", f"answer {number}") for number in range(count)]


def bad(line):
    return DataError("list", line, f"is bad {line}")


@dataclass
class Maker:
    """A model option whose tokenizer is trained on the tasks; counts the tokenizers made."""

    make: Callable
    kind: str
    made: list

    @property
    def tokenizer_recipe(self):
        return {"kind": self.kind}

    def tokenizer(self, texts, control_tokens=()):
        self.made.append(sorted(texts()))
        return self.make(["<s>"])


@pytest.fixture
def run(tmp_path, make_tokenizer):
    """Prepares {name: source or TaskSources} in tmp_path/data; counts the tokenizers made."""
    made = []

    def call(tasks, *, resume=False, seed=0, kind="byte-level", template=TEMPLATE, cuts=False, **settings):
        sources = {
            name: task if isinstance(task, TaskSources) else TaskSources(task) for name, task in tasks.items()
        }
        settings, cache = DataSettings(**settings), TokenCache(tmp_path / "cache")
        model = Maker(make_tokenizer, kind, made)
        return prepare(
            FromSources(sources, settings, template, model, cache, seed, workers=1),
            settings,
            template,
            seed=seed,
            directory=tmp_path / "data",
            tokenizer_folder=tmp_path / "tokenizer",
            cuts=cuts,
            resume=resume,
        )

    call.made = made
    call.directory = tmp_path / "data"
    call.cache = tmp_path / "cache"
    call.open = lambda name: SampleTable.open(tmp_path / "data" / name)
    return call


def origins(store, task):
    return {store.origin(int(sample)).line for sample in np.flatnonzero(store.task == task)}


def test_every_sample_is_in_one_store_under_its_task(run):
    report = run({"a": Listed(pairs(40)), "b": Listed(pairs(10))}, valid_fraction=0.1)
    train, valid = run.open("train"), run.open("valid")
    assert train.tasks == valid.tasks == ["a", "b"]
    assert [(task.train.samples, task.valid.samples) for task in report.tasks.values()] == [(36, 4), (9, 1)]
    for task, count in ((0, 40), (1, 10)):
        assert origins(train, task) | origins(valid, task) == set(range(1, count + 1))
        assert not origins(train, task) & origins(valid, task)


def test_stores_hold_the_tokens_of_the_template(run, make_tokenizer):
    run({"a": Listed(pairs(12))}, valid_fraction=0)
    store, tokenizer = run.open("train"), make_tokenizer(["<s>"])
    for sample in range(12):
        number = store.origin(sample).line - 1
        ids = store.read(*(np.array([value]) for value in (sample, 0, store.lengths[sample])))
        assert tokenizer.decode(ids) == f"U:q {number}A:answer {number}\n</s>"
        (span,) = range(store.span_ptr[sample], store.span_ptr[sample + 1])
        start, length = store.span_start[span], store.span_length[span]
        assert tokenizer.decode(ids[start : start + length]) == f"answer {number}\n</s>"
        assert store.target_weights[sample] == length


def test_report_counts_what_the_stores_hold(run):
    report = run({"a": Listed(pairs(40)), "b": Listed(pairs(10, "longer question"))})
    for name, counts in (("train", lambda task: task.train), ("valid", lambda task: task.valid)):
        store = run.open(name)
        for number, task in enumerate(report.tasks.values()):
            mine = store.task == number
            assert counts(task).samples == mine.sum()
            assert counts(task).tokens == store.lengths[mine].sum()
            assert counts(task).target_tokens == store.target_weights[mine].sum() > 0


def test_a_tokenizer_is_trained_once_on_the_texts_of_all_training_sources(run):
    tasks = {"a": TaskSources(Listed(pairs(5)), Listed(pairs(5, "v"))), "b": Listed(pairs(3, "b"))}
    run(tasks)
    run(tasks, seed=3, max_length=99)
    (texts,) = run.made
    assert texts == sorted(text for pair in [*pairs(5), *pairs(3, "b")] for text in pair)


def test_split_follows_the_seed(run):
    run({"a": Listed(pairs(100))}, seed=1, valid_fraction=0.1)
    first = origins(run.open("valid"), 0)
    run({"a": Listed(pairs(100))}, seed=2, valid_fraction=0.1)
    assert origins(run.open("valid"), 0) != first


def test_a_validation_source_is_used_whole_and_nothing_is_split_off(run):
    report = run({"a": TaskSources(Listed(pairs(20)), Listed(pairs(7, "v")))}, valid_max=3)
    assert (report.tasks["a"].train.samples, report.tasks["a"].valid.samples) == (20, 7)
    assert origins(run.open("valid"), 0) == set(range(1, 8))


def test_no_validation(run):
    assert run({"a": Listed(pairs(5))}, valid_fraction=0).tasks["a"].valid.samples == 0
    assert run.open("valid").num_samples == 0


def test_max_samples_leaves_the_rest_unused(run):
    report = run({"a": TaskSources(Listed(pairs(50)), max_samples=20)}, valid_fraction=0.1)
    task = report.tasks["a"]
    assert (task.train.samples, task.valid.samples, task.unused) == (18, 2, 30)
    with pytest.raises(ConfigError, match="max_samples: must be at least 1"):
        TaskSources(Listed([]), max_samples=0)


def texts_of(run, tokenizer, task):
    store = run.open("train")
    for sample in np.flatnonzero(store.task == task):
        yield tokenizer.decode(
            store.read(*(np.array([value]) for value in (sample, 0, store.lengths[sample])))
        )


def test_tasks_may_share_a_source(run, make_tokenizer):
    run({"a": Listed(pairs(9)), "b": Listed(pairs(9)), "c": Listed(pairs(5, "c"))}, valid_fraction=0)
    tokenizer = make_tokenizer(["<s>"])
    expected = [pairs(9), pairs(9), pairs(5, "c")]
    for task, its in enumerate(expected):
        assert list(texts_of(run, tokenizer, task)) == [f"U:{q}A:{a}\n</s>" for q, a in its]


class Reversed(Listed):
    """Another class that describes itself alike."""

    def chunks(self):
        yield Several(self.given[::-1])


def test_sources_of_two_classes_are_two_sources(run, make_tokenizer):
    run({"a": Listed(pairs(9)), "b": Reversed(pairs(9))}, valid_fraction=0)
    tokenizer = make_tokenizer(["<s>"])
    assert list(texts_of(run, tokenizer, 0)) == list(texts_of(run, tokenizer, 1))[::-1]


@dataclass
class Unhashable(Listed):
    given: list
    later: None = None
    readings: int = 0


def test_a_source_need_not_be_hashable(run):
    assert run({"a": Unhashable(pairs(9))}, valid_fraction=0).tasks["a"].train.samples == 9


def test_validation_on_what_is_trained_is_refused(run, write_jsonl):
    rounds = [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}]
    path = write_jsonl("t/a.jsonl", [{"chat_rounds": rounds}] * 9)
    with pytest.raises(ConfigError, match=r"data\.tasks\.a\.valid_path: .*a\.jsonl would be trained on, too"):
        run({"a": TaskSources(Files(str(path.parent)), Files(str(path)))})
    with pytest.raises(
        ConfigError, match=r"data\.tasks\.a\.valid_split: a list is what the task is trained on"
    ):
        run({"a": TaskSources(Listed(pairs(9)), Listed(pairs(9)))})


# Bad lines.


def test_bad_lines_are_refused_with_the_first_place_some_more_and_the_counts(run):
    tasks = {
        "a": Listed([*pairs(3), *map(bad, range(4, 11))]),
        "b": Listed(pairs(3)),
        "c": Listed([*pairs(3), bad(4)]),
    }
    with pytest.raises(DataError) as caught:
        run(tasks)
    lines = str(caught.value).split("\n")
    assert lines[0] == "list:4: is bad 4"
    assert lines[1:5] == [f"  list:{line}: is bad {line}" for line in (5, 6, 7, 8)]
    assert lines[5] == "bad lines by task: 'a' 7, 'c' 1; mend them, or leave them out with data.on_bad=skip"
    assert (caught.value.path, caught.value.line) == ("list", 4)
    assert not run.directory.exists()


def test_bad_lines_are_left_out_counted_and_named(run, caplog):
    source = Listed([bad(1), *pairs(10), *map(bad, range(12, 20))])
    with caplog.at_level(logging.WARNING):
        task = run({"a": source}, on_bad="skip").tasks["a"]
    assert (task.train.samples + task.valid.samples, task.bad) == (10, 9)
    assert task.bad_examples == [f"list:{line}: is bad {line}" for line in (1, 12, 13, 14, 15)]
    assert "task 'a': 9 bad lines left out, as list:1: is bad 1" in caplog.text


def test_bad_lines_of_a_validation_source_count_too(run):
    tasks = {"a": TaskSources(Listed(pairs(3)), Listed([*pairs(2), bad(3)]))}
    with pytest.raises(DataError, match="list:3: is bad 3"):
        run(tasks)
    assert run(tasks, on_bad="skip").tasks["a"].bad == 1


@pytest.mark.parametrize("which", ["train", "valid"])
def test_a_task_without_a_valid_sample(run, which):
    sources = {"train": Listed(pairs(5)), "valid": Listed(pairs(5)), which: Listed([bad(1), bad(2)])}
    message = "a list: task 'a' has no valid sample; 2 bad lines, the first: list:1: is bad 1"
    with pytest.raises(DataError, match=message):
        run({"a": TaskSources(**sources)}, on_bad="skip")
    with pytest.raises(DataError, match=r"a list: task 'a' has no valid sample$"):
        run({"a": TaskSources(**{**sources, which: Listed([])})})


def test_too_few_samples_for_the_split(run):
    with pytest.raises(
        ConfigError, match=r"data\.tasks\.a: 1 sample, but the validation split takes 1 .*valid_min"
    ):
        run({"a": Listed(pairs(1))})
    with pytest.raises(ConfigError, match=r"data\.tasks\.a: 8 samples, but the validation split takes 20"):
        run({"a": Listed(pairs(8))}, valid_min=20)


def test_a_file_that_cannot_be_used_names_itself(run, write_jsonl, tmp_path):
    path = write_jsonl("t/train.jsonl", ['{"chat_rounds": []}', "{"])
    with pytest.raises(DataError, match=r"train\.jsonl:1: the conversation is empty"):
        run({"a": Files(str(path))})
    with pytest.raises(DataError, match="gone: no such file or folder"):
        run({"a": Files(str(tmp_path / "gone"))})


def test_everything_left_out_or_cut_is_listed_with_its_place(run):
    tasks = {"a": Listed([*map(bad, range(1, 9)), *LONG]), "b": Listed(pairs(3))}
    listed = run.directory / "left_out.tsv"
    run(tasks, on_bad="skip", on_overlong="skip", max_length=100, valid_fraction=0)
    lines = listed.read_text().splitlines()
    assert lines[:8] == [f"a\tlist:{line}: is bad {line}" for line in range(1, 9)]
    assert lines[8:] == [
        f"a\tlist:{line}: {n} tokens, left out" for line, n in ((19, 307), (20, 407), (21, 307))
    ]
    run(tasks, on_bad="skip", on_overlong="truncate", max_length=100, valid_fraction=0)
    lines = listed.read_text().splitlines()
    assert lines[8:11] == [
        f"a\tlist:{line}: {n} tokens, cut" for line, n in ((19, 307), (20, 407), (21, 307))
    ]
    assert lines[11:] == ["a\tlist:21: 307 tokens, no target"]


# Over-long samples.

LONG = [*pairs(10), ("q", "x" * 300), ("q", "x" * 400), ("x" * 300, "a")]


def test_overlong_samples_are_refused_with_places_and_counts(run):
    with pytest.raises(DataError) as caught:
        run({"a": Listed(LONG), "b": Listed(pairs(3))}, max_length=100, valid_fraction=0)
    first, second, third, counts, ways = str(caught.value).split("\n")
    assert first == "list:11: 307 tokens, more than data.max_length=100"
    assert [second, third] == ["  list:12: 407 tokens", "  list:13: 307 tokens"]
    assert counts == "over-long samples by task: 'a' 3; the longest has 407 tokens"
    assert "data.on_overlong=skip" in ways
    assert list(run.directory.glob("*")) == []


def test_overlong_samples_are_left_out_and_counted(run):
    task = run({"a": Listed(LONG)}, max_length=100, on_overlong="skip", valid_fraction=0).tasks["a"]
    assert (task.train.samples, task.train.overlong, task.train.truncated, task.longest) == (10, 3, 0, 407)
    assert origins(run.open("train"), 0) == set(range(1, 11))


def test_overlong_samples_are_cut_and_those_without_a_target_left_out(run):
    task = run({"a": Listed(LONG)}, max_length=100, on_overlong="truncate", valid_fraction=0).tasks["a"]
    assert (task.train.samples, task.train.overlong, task.train.truncated) == (12, 3, 2)
    assert task.train.without_target == 1
    store = run.open("train")
    assert origins(store, 0) == set(range(1, 13))
    assert store.lengths.max() == 100
    assert (store.lengths == 100).sum() == 2
    assert store.target_weights.min() > 0


def test_a_sample_of_just_the_longest_length_fits(run):
    report = run({"a": Listed([("q", "x" * 300), ("q", "x" * 300)])}, max_length=307, valid_fraction=0)
    assert report.tasks["a"].train.samples == 2


@pytest.mark.parametrize(("fraction", "name"), [(0, "2 training"), (0.5, "1 training")])
def test_a_task_of_which_nothing_is_left(run, fraction, name):
    source = Listed([("q", "x" * 300)] * 2)
    with pytest.raises(
        DataError,
        match=f"a list: none of the {name} samples of task 'a' has a target token within data.max_length=9",
    ):
        run({"a": source}, max_length=9, on_overlong="skip", valid_fraction=fraction)


def test_a_validation_set_of_which_nothing_is_left(run):
    tasks = {"a": TaskSources(Listed(pairs(5)), Listed([("q", "x" * 300)]))}
    with pytest.raises(DataError, match="none of the 1 validation samples of task 'a'"):
        run(tasks, max_length=100, on_overlong="skip")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"on_overlong": "truncat"},
            r"data\.on_overlong: there is no policy 'truncat'; did you mean truncate",
        ),
        ({"on_bad": "truncate"}, r"data\.on_bad: there is no policy 'truncate'"),
        ({"max_length": 1}, r"data\.max_length: must be at least 2, not 1"),
        ({"valid_fraction": 1.0}, r"data\.valid_fraction: must be in \[0, 1\)"),
        ({"valid_fraction": -0.1}, r"data\.valid_fraction"),
        ({"valid_min": -1}, r"data\.valid_min"),
        ({"valid_min": 5, "valid_max": 4}, r"data\.valid_max: must be at least data\.valid_min=5, not 4"),
    ],
)
def test_settings_out_of_range(settings, message):
    with pytest.raises(ConfigError, match=message):
        DataSettings(**settings)


# Starting again.


def test_a_resumed_run_keeps_its_tables(run):
    first = run({"a": Listed(pairs(20))})
    source = Listed(pairs(20))
    second = run({"a": source}, resume=True)
    assert (first.reused, second.reused) == (False, True)
    assert (second.tasks, second.fingerprint) == (first.tasks, first.fingerprint)
    assert (source.readings, len(run.made)) == (0, 1)


@pytest.mark.parametrize(
    "settings", [{"seed": 5}, {"valid_fraction": 0.5}, {"max_length": 30}, {"cuts": True}]
)
def test_no_setting_of_a_run_makes_tokens_again(run, settings):
    run({"a": Listed(pairs(20)), "b": Listed(pairs(9))})
    again = {"a": Listed(pairs(20)), "b": Listed(pairs(9))}
    run(again, **settings)
    assert [source.readings for source in again.values()] == [0, 0]


def test_another_task_makes_a_new_tokenizer_and_only_tokens_of_its_own_if_that_is_the_same(run):
    run({"a": Listed(pairs(20)), "b": Listed(pairs(9))})
    again = {"a": Listed(pairs(20)), "b": Listed(pairs(9)), "c": Listed(pairs(4, "new"))}
    run(again)
    for_tokenizer = 2
    assert [source.readings - for_tokenizer for source in again.values()] == [0, 0, 1]


def test_tokens_that_have_gone_from_the_cache_are_made_again_the_same(run, caplog):
    tasks = {"a": Listed(pairs(20))}
    first = run(tasks)
    before = run.open("train")
    shutil.rmtree(run.cache)
    second = run(tasks, resume=True)
    assert "is gone" in caplog.text
    assert second.fingerprint == first.fingerprint
    after = run.open("train")
    everything = [np.arange(before.num_samples), np.zeros(before.num_samples, int), np.array(before.lengths)]
    assert (after.read(*everything) == before.read(*everything)).all()
    shutil.rmtree(run.cache)
    with pytest.raises(
        DataError, match=r"gone, and cannot be made again(.|\n)*tokens\.tasks\.a\.train\.items"
    ):
        run({"a": Listed(pairs(21))}, resume=True)


CHANGES = {
    "max_length": ({"max_length": 999}, r"data\.max_length: 1024 → 999"),
    "policy": ({"on_overlong": "skip"}, r"data\.on_overlong: error → skip"),
    "fraction": ({"valid_fraction": 0.2}, r"data\.valid_fraction: 0\.05 → 0\.2"),
    "seed": ({"seed": 9}, r"seed: 0 → 9"),
    "tokenizer": ({"kind": "other"}, r"tokens\.tokenizer recipe\.kind: byte-level → other"),
    "template": ({"template": RoleTemplate("S", "V:", "A:")}, r"template\.user_prefix: U: → V:"),
    "source": ({"tasks": {"a": Listed(pairs(21))}}, r"tokens\.tasks\.a\.train\.items"),
    "new task": (
        {"tasks": {"a": Listed(pairs(20)), "b": Listed(pairs(5))}},
        r"tokens\.tasks\.b\.train\.items: None →",
    ),
    "limit": (
        {"tasks": {"a": TaskSources(Listed(pairs(20)), max_samples=9)}},
        r"tokens\.tasks\.a\.max_samples: None → 9",
    ),
}


@pytest.mark.parametrize(("change", "message"), CHANGES.values(), ids=CHANGES)
def test_what_changed_is_named_and_kept_on_resume_and_made_anew_otherwise(run, change, message, caplog):
    tasks = {"a": Listed(pairs(20))}
    first = run(tasks)
    resumed = run(**{"tasks": tasks, **change}, resume=True)
    assert (resumed.reused, resumed.fingerprint) == (True, first.fingerprint)
    assert re.search(message, caplog.text)
    second = run(**{"tasks": tasks, **change})
    assert not second.reused
    assert second.fingerprint != first.fingerprint
    assert run.open("train").fingerprint == run.open("valid").fingerprint == second.fingerprint


def test_the_order_of_tasks_counts_since_it_gives_their_ids(run):
    run({"a": Listed(pairs(5)), "b": Listed(pairs(6))})
    assert not run({"b": Listed(pairs(6)), "a": Listed(pairs(5))}).reused
    assert run.open("train").tasks == ["b", "a"]


def test_a_changed_file_is_noticed(run, write_jsonl, caplog):
    lines = [
        {"chat_rounds": [{"role": "user", "content": "q"}, {"role": "bot", "content": f"{n}"}]}
        for n in range(9)
    ]
    tasks = {"a": Files(str(write_jsonl("t/a.jsonl", lines)))}
    run(tasks)
    assert run(tasks, resume=True).reused
    path = write_jsonl("t/a.jsonl", lines[:-1])
    assert run(tasks, resume=True).reused
    assert f"tokens.tasks.a.train.{path}: " in caplog.text
    assert not run(tasks).reused


def test_a_resumed_run_needs_its_sources_no_more(run, write_jsonl, caplog):
    rounds = [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}]
    path = write_jsonl("t/a.jsonl", [{"chat_rounds": rounds}] * 9)
    valid = write_jsonl("v/a.jsonl", [{"chat_rounds": rounds}] * 3)
    tasks = {"a": TaskSources(Files(str(path)), Files(str(valid)))}
    run(tasks)
    path.unlink()
    valid.unlink()
    assert run(tasks, resume=True).reused
    assert str(valid) in caplog.text
    with pytest.raises(DataError, match=r"missing|no such|exist"):
        run(tasks)


def test_a_damaged_table_is_made_again(run):
    tasks = {"a": Listed(pairs(20))}
    run(tasks)
    os.truncate(run.directory / "train" / "lengths.npy", 130)
    assert not run(tasks, resume=True).reused
    assert run.open("train").num_samples == 19


def test_tokens_are_not_made_again_with_another_tokenizer(run, make_tokenizer, monkeypatch):
    tasks = {"a": Listed(pairs(20))}
    run(tasks)
    shutil.rmtree(run.cache)
    other = make_tokenizer(["<s>"], texts=["other text"] * 3)
    monkeypatch.setattr(Maker, "tokenizer", lambda self, texts, control_tokens=(): other)
    with pytest.raises(DataError, match=r"gone, and cannot be made again(.|\n)*the tokenizer"):
        run(tasks, resume=True)


def test_tokens_replaced_in_place_are_noticed(run):
    tasks = {"a": Listed(pairs(20))}
    run(tasks)
    (meta,) = run.cache.glob("*/content/tokens.arrow")
    page = meta.with_name("meta.json")
    page.write_text(page.read_text().replace('"content": "', '"content": "0'))
    with pytest.raises(DataError, match="have been replaced"):
        run.open("train")
    assert not run(tasks, resume=True).reused


@pytest.mark.parametrize("text", [None, "", "{"])
def test_without_a_report_the_stores_do_not_count(run, text):
    tasks = {"a": Listed(pairs(20))}
    run(tasks)
    (run.directory / "report.json").unlink()
    if text is not None:
        (run.directory / "report.json").write_text(text)
    assert not run(tasks, resume=True).reused


def test_a_failed_start_leaves_the_earlier_data_usable(run):
    tasks = {"a": Listed(pairs(20))}
    run(tasks)
    with pytest.raises(DataError):
        run({"a": Listed(LONG)}, max_length=100, valid_fraction=0)
    assert run(tasks, resume=True).reused


def test_a_start_killed_before_its_report_is_no_earlier_start(run, monkeypatch):
    tasks = {"a": Listed(pairs(20))}
    run(tasks)
    with monkeypatch.context() as patch:
        patch.setattr("mftrun.data.prepare.write_json", _full_disk)
        with pytest.raises(DataError, match=r"report\.json: cannot be written: No space left"):
            run({"a": Listed(pairs(30))})
    assert not run(tasks, resume=True).reused
    assert run.open("train").num_samples == 19


def _full_disk(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_source_that_changes_between_the_readings_is_refused(run):
    for later in (pairs(19), pairs(21)):
        task = TaskSources(Listed(pairs(20), later=later), max_samples=15)
        with pytest.raises(DataError, match="a list: changed while it was read"):
            run({"a": task})
    assert not (run.directory / "report.json").exists()


def test_folder_that_cannot_be_written(run):
    run.directory.write_text("a file in the way")
    with pytest.raises(DataError, match="cannot be written"):
        run({"a": Listed(pairs(20))})


# Reports.


def test_report_is_saved_and_read_back(run):
    report = run({"a": Listed([bad(1), *pairs(20)])}, on_bad="skip")
    saved = json.loads((run.directory / "report.json").read_text())
    assert DataReport.from_dict(saved["report"]) == report
    assert report.fingerprint == run.open("train").fingerprint


def test_table_has_a_line_for_every_task_and_the_sum(run):
    report = run(
        {"first": Listed([bad(1), *pairs(20)]), "b": Listed(LONG)},
        on_bad="skip",
        max_length=100,
        on_overlong="skip",
    )
    heading, first, second, total = report.table().split("\n")
    assert heading.split()[:3] == ["task", "train", "valid"]
    assert first.split()[:3] == ["first", "19", "1"]
    samples = report.tasks["b"].train.samples + report.tasks["b"].valid.samples
    assert samples == 10
    tokens = sum(task.train.tokens + task.valid.tokens for task in report.tasks.values())
    assert total.split()[:4] == ["total", "28", "2", str(tokens)]
    assert total.split()[6:8] == ["1", "3"]
    assert second.split()[0] == "b"


def test_tokenizer_digest_survives_saving_and_sees_changes(make_tokenizer, tmp_path):
    tokenizer = make_tokenizer(["<s>"])
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    again("some text", truncation=True, max_length=2)
    assert tokenizer_digest(again) == tokenizer_digest(tokenizer)
    again.add_tokens(["new"])
    assert tokenizer_digest(again) != tokenizer_digest(tokenizer)
    assert tokenizer_digest(make_tokenizer(["<s>"], texts=["other text"] * 3)) != tokenizer_digest(tokenizer)


def test_progress_is_logged_per_task_without_a_terminal(run, caplog):
    with caplog.at_level(logging.INFO):
        run({"a": Listed(pairs(20)), "b": Listed(pairs(5))})
    assert "tokenizing a" in caplog.text
    assert "tokenizing b" in caplog.text


def test_progress_is_a_bar_on_a_terminal(run, caplog, monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    with caplog.at_level(logging.INFO):
        run({"a": Listed(pairs(20))})
    assert "tokenizing a" in capsys.readouterr().err
    assert "tokenizing" not in caplog.text


def test_nothing_of_the_data_needs_torch():
    code = "import sys, mftrun.data.prepare, mftrun.data.embedded; print('torch' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data is not here")
def test_real_tasks(run):
    tasks = {folder.name: Files(str(folder)) for folder in sorted(REAL.iterdir())}
    limited = {name: TaskSources(source, max_samples=100) for name, source in tasks.items()}
    report = run(limited, max_length=2048, on_overlong="truncate")
    used = {name: task.train.samples + task.valid.samples for name, task in report.tasks.items()}
    assert all(task.bad == 0 for task in report.tasks.values())
    assert set(used) == {path.name for path in REAL.iterdir()}
    for name, task in report.tasks.items():
        assert used[name] + task.train.without_target + task.valid.without_target == 100


def test_keys_that_nothing_reads_are_counted_and_told(run, tmp_path):
    path = tmp_path / "a.jsonl"
    lines = [
        {"question": f"q {n}", "answer": "a", "id": n} | dict.fromkeys("bcdefghij", n) for n in range(20)
    ]
    lines[0]["context"] = "c"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    report = run(
        {
            "a": TaskSources(Files(str(path)), Files(str(shutil.copy(path, tmp_path / "b.jsonl")))),
            "b": Listed(pairs(9)),
        }
    )
    assert report.tasks["a"].unread == dict.fromkeys("bcdefghij", 40) | {"id": 40, "context": 2}
    told = ", ".join(f"{key} 40" for key in "bcdefghi")
    assert f"  keys not read: {told} and 3 more" in report.places().split("\n")
    assert report.places().count("keys not read") == 1
    assert DataReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
