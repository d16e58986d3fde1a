from __future__ import annotations

import json
import pickle

import datasets
import huggingface_hub
import pytest

from mftrun.data.hub import HubDataset
from mftrun.data.sample import Sample
from mftrun.data.source import Source, read
from mftrun.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def _offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    yield
    datasets.enable_progress_bars()


def rows(count, first=1):
    return [
        {
            "messages": [{"role": "user", "content": f"q{n}"}, {"role": "assistant", "content": f"a{n}"}],
            "id": n,
        }
        for n in range(first, first + count)
    ]


@pytest.fixture
def folder(tmp_path):
    """A folder as the hub holds one: a JSON-lines file for each split."""
    path = tmp_path / "owner" / "name"
    path.mkdir(parents=True)
    for split, count in (("train", 40), ("test", 3)):
        (path / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows(count)))
    return path


@pytest.fixture
def saved(tmp_path):
    """A folder that save_to_disk wrote."""
    path = tmp_path / "saved"
    datasets.Dataset.from_list(rows(40)).save_to_disk(path)
    return path


@pytest.fixture
def saved_splits(tmp_path):
    path = tmp_path / "splits"
    parts = {"train": datasets.Dataset.from_list(rows(40)), "dev": datasets.Dataset.from_list(rows(2))}
    datasets.DatasetDict(parts).save_to_disk(path)
    return path


@pytest.mark.parametrize("kind", ["folder", "saved", "saved_splits"])
@pytest.mark.parametrize("streaming", [False, True])
def test_rows_become_samples(kind, streaming, request):
    source = HubDataset(str(request.getfixturevalue(kind)), streaming=streaming)
    assert isinstance(source, Source)
    chunks = [pickle.loads(pickle.dumps(chunk)) for chunk in source.chunks()]
    items = [item for chunk in chunks for item in chunk.items()]
    assert [item.messages[1].content for item in items] == [f"a{n}" for n in range(1, 41)]
    assert {item.format for item in items} == {"messages"}
    assert [item.origin.line for item in items] == list(range(1, 41))
    assert items[0].origin.path == source.location == f"{source.name}[train]"
    assert sum(chunk.size for chunk in chunks) == 40
    assert source.size() in ((40, 0) if streaming else (40,))
    assert list(read(source)) == items


def test_other_splits_and_slices(folder, saved_splits):
    assert len(list(read(HubDataset(str(folder), split="test")))) == 3
    assert len(list(read(HubDataset(str(folder), split="train[:10%]")))) == 4
    assert len(list(read(HubDataset(str(saved_splits), split="dev")))) == 2


@pytest.mark.parametrize("kind", ["folder", "saved_splits"])
def test_an_unknown_split_is_told_the_known_ones(kind, request):
    with pytest.raises(DataError, match=r"\[validation\]: .*train") as caught:
        list(read(HubDataset(str(request.getfixturevalue(kind)), split="validation")))
    assert "\n" not in str(caught.value)


def test_selected_rows_of_a_saved_dataset_are_read_in_their_order(tmp_path):
    datasets.Dataset.from_list(rows(9)).select([7, 2, 5]).save_to_disk(tmp_path / "some")
    found = [item.messages[0].content for item in read(HubDataset(str(tmp_path / "some")))]
    assert found == ["q8", "q3", "q6"]


def test_bad_rows_have_their_number_and_the_format_may_be_named(tmp_path):
    table = [{"prompt": "p", "answer": "a", "text": None}, {"prompt": "p", "answer": None, "text": None}]
    table += [{"prompt": None, "answer": None, "text": "d"}]
    datasets.Dataset.from_list(table).save_to_disk(tmp_path / "mixed")
    pair, error, document = read(HubDataset(str(tmp_path / "mixed")))
    assert (pair.format, document.format) == ("prompt/answer", "text")
    assert str(error) == f"{tmp_path / 'mixed'}[train]:2: 'answer' is null, not text"
    found = list(read(HubDataset(str(tmp_path / "mixed"), format="text")))
    assert [isinstance(item, Sample) for item in found] == [False, False, True]


def test_an_empty_dataset_is_a_bad_item(monkeypatch):
    empty = datasets.Dataset.from_dict({"text": []})
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: empty)
    (error,) = read(HubDataset("x/y"))
    assert "the dataset is empty" in str(error)


def test_fingerprint_follows_the_files_and_the_settings(folder):
    source = HubDataset(str(folder))
    before = source.fingerprint()
    assert HubDataset(str(folder)).fingerprint() == before
    assert HubDataset(str(folder), split="test").fingerprint() != before
    assert HubDataset(str(folder), format="messages").fingerprint() != before
    with (folder / "train.jsonl").open("a") as stream:
        stream.write(json.dumps(rows(1)[0]) + "\n")
    assert HubDataset(str(folder)).fingerprint() != before
    assert len(list(read(HubDataset(str(folder))))) == 41
    assert all(isinstance(value, str | int | None) for value in before.values())


def test_fingerprint_of_a_folder_needs_no_loading(folder, monkeypatch):
    monkeypatch.setattr(datasets, "load_dataset", None)
    assert str(folder / "train.jsonl") in HubDataset(str(folder)).fingerprint()


def test_fingerprint_of_a_downloaded_dataset_is_that_of_its_content(folder, monkeypatch):
    monkeypatch.chdir(folder.parent.parent)
    monkeypatch.setattr(HubDataset, "_folder", None)
    before = HubDataset("owner/name").fingerprint()
    assert HubDataset("owner/name").fingerprint() == before
    with (folder / "train.jsonl").open("a") as stream:
        stream.write(json.dumps(rows(1)[0]) + "\n")
    assert HubDataset("owner/name").fingerprint() != before


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_that_is_not_here_when_offline(streaming):
    source = HubDataset("owner/no-such-dataset", subset="english", streaming=streaming)
    assert source.location == "owner/no-such-dataset/english[train]"
    for act in (source.size, source.fingerprint, lambda: list(source.chunks())):
        with pytest.raises(DataError) as caught:
            act()
        message = str(caught.value)
        assert message.startswith("owner/no-such-dataset/english[train]: cannot be loaded: ")
        assert "HF_HUB_OFFLINE is set: unset it" in message
        assert "data.tasks.NAME.path" in message
        assert "\n" not in message


def test_a_dataset_that_is_not_there_when_online(monkeypatch):
    def refused(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("Dataset 'x/y' doesn't exist\non the Hub")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets, "load_dataset", refused)
    with pytest.raises(DataError, match=r"x/y\[train\]: .*doesn't exist; is the id right.*connection"):
        HubDataset("x/y").size()


def test_a_folder_that_datasets_cannot_read(tmp_path):
    (tmp_path / "odd").mkdir()
    with pytest.raises(DataError, match=r"cannot be loaded: .*data\.tasks\.NAME\.path"):
        list(read(HubDataset(str(tmp_path / "odd"))))


def test_an_unknown_format_is_refused_at_once():
    with pytest.raises(ConfigError, match="did you mean messages"):
        HubDataset("x/y", format="message")


def test_rows_are_read_in_batches_that_fit_memory(tmp_path):
    table = [{"text": "x" * 100_000, "vector": [0.5] * 100} for _ in range(64)]
    datasets.Dataset.from_list(table).save_to_disk(tmp_path / "long")
    chunks = list(HubDataset(str(tmp_path / "long")).chunks())
    assert len(chunks) > 3
    assert max(len(chunk.data) for chunk in chunks) < 2_000_000
    assert not any(b"vector" in chunk.data for chunk in chunks)


def test_home_folder_is_expanded(saved, monkeypatch):
    monkeypatch.setenv("HOME", str(saved.parent))
    assert HubDataset("~/saved").size() == 40


def test_columns_that_are_not_read_are_named_and_may_be_renamed(folder, tmp_path):
    assert {item.unread for item in read(HubDataset(str(folder)))} == {frozenset({"id"})}
    datasets.Dataset.from_list([{"q": "x", "reply": "y", "id": 1}]).save_to_disk(tmp_path / "other")
    columns = {"question": "q", "answer": "reply"}
    source = HubDataset(str(tmp_path / "other"), columns=columns)
    (sample,) = read(source)
    assert ([message.content for message in sample.messages], sample.unread) == (["x", "y"], {"id"})
    assert source.fingerprint() != HubDataset(str(tmp_path / "other")).fingerprint()


@pytest.fixture
def unreachable(monkeypatch):
    """A network that is not there, asked once at most, and a library that must not be asked at all."""

    def refused(*_, **__):
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refused)
    monkeypatch.setattr(datasets, "load_dataset", None)


@pytest.mark.parametrize("streaming", [False, True])
def test_without_a_connection_a_dataset_that_is_not_kept_fails_at_once(unreachable, streaming):
    source = HubDataset("m/nosuch", streaming=streaming)
    for act in (source.size, source.fingerprint):
        with pytest.raises(DataError) as caught:
            act()
        assert str(caught.value) == (
            "m/nosuch[train]: there is no folder m/nosuch here, and the hub cannot be reached "
            "([Errno -2] Name or service not known)"
        )


def test_without_a_connection_a_dataset_that_is_kept_is_read(unreachable, monkeypatch, tmp_path):
    (tmp_path / "cache" / "m___kept").mkdir(parents=True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: datasets.Dataset.from_list(rows(3)))
    assert HubDataset("m/kept").size() == 3


@pytest.mark.parametrize("name", ["/m/nosuch", "./nosuch", "a/b/c", "~/nosuch"])
def test_a_name_that_can_only_be_a_folder(unreachable, name):
    with pytest.raises(DataError, match=rf"\[train\]: there is no folder {name} here$"):
        HubDataset(name).size()


def test_what_a_folder_does_not_have_is_refused(folder, saved):
    with pytest.raises(DataError, match="is a folder, and has no revision main"):
        list(read(HubDataset(str(folder), revision="main")))
    with pytest.raises(DataError, match="a saved dataset has no subsets"):
        list(read(HubDataset(str(saved), "small")))
