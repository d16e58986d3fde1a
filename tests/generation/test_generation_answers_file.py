"""A file of answers keeps what is its own, refuses what is not, and loses nothing of anybody else."""

import dataclasses
import logging
import os
import shutil

import pytest

from mftrun.data.template import Document
from mftrun.errors import ConfigError
from mftrun.generation.answers_file import AnswersFile, answer_key
from mftrun.generation.base import Weights
from mftrun.generation.finishing import Finished
from mftrun.generation.identity import fingerprint, identity
from mftrun.generation.place import Place
from mftrun.generation.requests import text_request
from mftrun.generation.transformers_backend import Transformers
from mftrun.jobs.generate import _tell

KEYS = ["k0", "k1"]
REQUESTS = [text_request("zwei plus drei \u00e9", "prompt 1"), text_request("b", "prompt 2")]
ANSWERS = [Finished("f\u00fcnf\n", 3, "stop")]


@pytest.fixture
def whole(tmp_path):
    """Bytes of a file that holds both answers."""
    with AnswersFile(tmp_path / "whole.jsonl", KEYS, REQUESTS) as file:
        for number in range(2):
            file.write(number, ANSWERS)
    return (tmp_path / "whole.jsonl").read_bytes()


def test_a_file_goes_on_wherever_it_was_cut(tmp_path, whole):
    path = tmp_path / "cut.jsonl"
    for size in range(len(whole) + 1):
        path.write_bytes(whole[:size])
        with AnswersFile(path, KEYS, REQUESTS) as file:
            assert file.done == whole[:size].count(b"\n")
            for number in range(file.done, 2):
                file.write(number, ANSWERS)
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    "foreign",
    [
        b"my notes",
        b"my notes\n",
        b'{"a": 1}',
        b'{"number": 0, "origin": "prompt 7"',
        b'{"number": 1, "origin": "prompt 2"',
        b"\xff\xfe",
    ],
)
def test_what_is_not_ours_is_refused_and_stays(tmp_path, foreign, whole):
    path = tmp_path / "notes"
    first = whole[: whole.index(b"\n") + 1]
    for content in (foreign, whole + foreign, *([] if b"number" in foreign else [first + foreign])):
        path.write_bytes(content)
        with pytest.raises(ConfigError, match=r"holds something else.*name another file") as caught:
            AnswersFile(path, KEYS, REQUESTS)
        assert caught.value.key == "job.output"
        assert path.read_bytes() == content


@pytest.mark.parametrize("cut", [None, -1])
def test_answers_from_other_settings_are_refused_and_stay(tmp_path, whole, cut):
    path = tmp_path / "other.jsonl"
    path.write_bytes(whole[:cut])
    for keys, requests in ((["k0", "x"], REQUESTS), (["x", "k1"], REQUESTS), (KEYS[:1], REQUESTS[:1])):
        with pytest.raises(ConfigError, match="from other settings"):
            AnswersFile(path, keys, requests)
        assert path.read_bytes() == whole[:cut]


def test_keys_follow_from_the_model_and_from_how_it_is_held(tmp_path):
    for name in ("model", "adapter"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    place = Place(str(tmp_path / "model"), str(tmp_path / "model"), str(tmp_path / "adapter"))

    def key(place=place, weights=None, option=None, template=None, stop_ids=(1,)):
        found = identity(
            place,
            weights or Weights(),
            option or Transformers(device="cpu"),
            template or Document(),
            stop_ids,
        )
        return answer_key([1, 2], 0, found)

    first = key()
    assert key(option=Transformers(batch_size=3, device="cpu")) == first
    (tmp_path / "model" / "generated.jsonl").write_text("")
    assert key() == first
    shutil.copytree(tmp_path / "model", tmp_path / "copy")
    others = [
        key(dataclasses.replace(place, model=str(tmp_path / "copy"))),
        key(dataclasses.replace(place, adapter=None)),
        key(weights=Weights("bfloat16")),
        key(weights=Weights("float16")),
        key(weights=Weights(quantization="4bit")),
        key(option=Transformers(device="cpu", merge=True)),
        key(option=Transformers(device="cpu", attention="eager")),
        key(template=Document(separator=" ")),
        key(stop_ids=(1, 2)),
    ]
    os.utime(tmp_path / "adapter" / "config.json", (1, 1))
    others.append(key())
    (tmp_path / "model" / "config.json").write_text("{ }")
    others.append(key())
    assert len({first, *others}) == 1 + len(others)


def test_on_the_hub_the_commit_counts(tmp_path, monkeypatch):
    import huggingface_hub

    def cached(name, file, revision=None):
        return str(tmp_path / "snapshots" / "abc" / file) if file == "adapter_config.json" else None

    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cached)
    assert fingerprint("owner/name", "main") == ["main", "abc"]
    place = Place("o/base", "o/base", "o/adapter", revision="a", base_revision="b")
    found = identity(place, Weights(), Transformers(device="cpu"), Document(), [1])
    assert found["files"] == [["o/adapter", ["a", "abc"]], ["o/base", ["b", "abc"]]]


def test_empty_answers_are_told(caplog):
    nothing, cut = Finished("", 0, "stop"), Finished("", 1, "length")
    with caplog.at_level(logging.INFO):
        _tell([nothing], 1.0)
        assert "the model ended its answer at once" in caplog.text
        _tell([nothing, *ANSWERS, nothing, cut], 1.0)
        assert "2 of 4 answers are empty: the model ended them at once" in caplog.text
        caplog.clear()
        _tell([*ANSWERS, cut], 1.0)
    assert "at once" not in caplog.text
