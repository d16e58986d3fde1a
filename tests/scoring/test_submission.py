import json
import zipfile

import pytest

from mftrun.errors import ConfigError
from mftrun.scoring.generations import find_generations
from mftrun.scoring.greedy import PLAIN, known_manners
from mftrun.scoring.submission import deviations, write_zip

ROWS = {"mbpp": 2, "humanevalsynthesize-go": 1}
RIGHT = {"mbpp": [["x"], ["y"]], "humanevalsynthesize-go": [["z"]]}


def found(generations, tasks=RIGHT, manners=None):
    return deviations(find_generations(str(generations(tasks))), ROWS, manners or {})


def test_nothing_departs(generations):
    assert found(generations) == []
    assert found(generations, manners={"mbpp": PLAIN}) == []


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ({"humanevalsynthesize-go": None}, "humanevalsynthesize-go is missing: there is no generations_h"),
        ({"mbpp": [["x"]]}, "generations_mbpp_my-model.json has 1 rows, not 2"),
        ({"mbpp": [["x", "x"], ["y", "y"]]}, "has 2 samples of each problem, not one"),
        ({"mbpp": [["x"], [None]]}, "sample 0 of problem 1 must be a text"),
        ({"mbpp": {"a": "x"}}, "must hold a list"),
    ],
)
def test_what_departs_is_named(generations, tasks, told):
    changed = {task: rows for task, rows in {**RIGHT, **tasks}.items() if rows is not None}
    (message,) = found(generations, changed)
    assert told in message


def test_sampled_answers_are_named(generations):
    assert found(generations, manners={"mbpp": "at temperature 0.2"}) == [
        "mbpp was generated at temperature 0.2; the competition asks for plain greedy answers"
    ]


@pytest.mark.parametrize(
    ("solutions", "sampling", "manner"),
    [
        (["x", "y"], {"temperature": 0.0, "repetition_penalty": 1.0}, PLAIN),
        (["x"], {"temperature": 0}, PLAIN),
        (["x", "y"], {"temperature": 0.2, "repetition_penalty": 1.5}, "at temperature 0.2 and with rep"),
        (["x", "other"], {"temperature": 0.0}, None),
        (["x", "y", "z"], {"temperature": 0.0}, None),
        (["x", "y"], {}, None),
    ],
)
def test_a_record_tells_of_its_own_solutions_alone(generations, solutions, sampling, manner):
    folder = generations({"mbpp": [[one] for one in solutions]})
    records = folder.parent / "records"
    records.mkdir()
    lines = [{"problem": f"p{number}", "sample": 0, "solution": text} for number, text in enumerate("xy")]
    (records / "mbpp.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    (records / "mbpp.settings.json").write_text(json.dumps({"sampling": sampling}))
    known = known_manners(find_generations(str(folder)))
    assert known.get("mbpp", "none").startswith("none" if manner is None else manner)
    assert manner is None or bool(known["mbpp"]) == bool(manner)


def test_another_file_is_named(generations):
    (generations({}) / "notes.txt").write_text("")
    assert found(generations) == ["notes.txt does not belong there"]


def test_all_is_named_at_once(generations):
    assert len(found(generations, {"mbpp": [["x", "y"]], "humaneval": [["x"]]})) == 3


def test_the_zip_holds_one_folder_with_the_files_and_never_changes(generations, tmp_path):
    folder = generations({**RIGHT, "humaneval": [["x"]]})
    names = write_zip(find_generations(str(folder)), ROWS, tmp_path / "one.zip")
    assert names == [
        "generations_my-model/generations_humanevalsynthesize-go_my-model.json",
        "generations_my-model/generations_mbpp_my-model.json",
    ]
    with zipfile.ZipFile(tmp_path / "one.zip") as file:
        assert file.namelist() == names
        assert file.read(names[1]) == b'[["x"], ["y"]]'
    (folder / "generations_mbpp_my-model.json").touch()
    write_zip(find_generations(str(folder)), ROWS, tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()


def test_a_zip_that_cannot_be_written_is_refused(generations, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="output: cannot write"):
        write_zip(find_generations(str(generations(RIGHT))), ROWS, tmp_path / "file" / "one.zip")
