import pytest

from mftrun.errors import ConfigError, DataError
from mftrun.scoring.generations import find_generations


def test_the_folder_is_found_by_itself_and_from_above(generations):
    folder = generations({"mbpp": [["x"]], "humaneval": [["y"], ["z"]]}, model="a_b")
    for asked in (folder, folder.parent):
        found = find_generations(str(asked))
        assert (found.model, list(found.files)) == ("a_b", ["humaneval", "mbpp"])
        assert found.read("humaneval") == [["y"], ["z"]]


def test_files_of_another_model_are_others(generations):
    folder = generations({"mbpp": [["x"]]})
    (folder / "generations_mbpp_other.json").write_text("[]")
    (folder / "notes.txt").write_text("")
    found = find_generations(str(folder))
    assert list(found.files) == ["mbpp"]
    assert [path.name for path in found.others] == ["generations_mbpp_other.json", "notes.txt"]


def test_two_models_are_refused(generations):
    folder = generations({"mbpp": [["x"]]}, "one")
    generations({"mbpp": [["x"]]}, "two")
    with pytest.raises(ConfigError, match=r"several models; name one of .*generations_one.*generations_two"):
        find_generations(str(folder.parent))


def test_a_folder_without_solutions_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"generations: .*holds no folder generations_MODEL"):
        find_generations(str(tmp_path))
    with pytest.raises(ConfigError, match=r"generations: there is no folder .*nowhere"):
        find_generations(str(tmp_path / "nowhere"))


def test_a_task_that_is_not_there_is_refused(generations):
    found = find_generations(str(generations({"mbpp": [["x"]]})))
    with pytest.raises(ConfigError, match="holds no solutions of humaneval; it holds mbpp"):
        found.read("humaneval")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("{", "cannot be read as JSON"),
        pytest.param("[" * 100_000, "cannot be read as JSON", id="deep"),
        ({"a": 1}, "must hold a list .* not a mapping"),
        (["x"], "problem 0 must be a list"),
        ([["x"], []], "problem 1 must be a list of at least one solution"),
        ([["x", None]], "sample 1 of problem 0 must be a text, not a number or null"),
        ([["x"], ["x", "y"]], "problems have 1 to 2 samples"),
        ([], "is empty"),
    ],
)
def test_what_is_no_list_of_solutions_is_refused(generations, rows, message):
    found = find_generations(str(generations({"mbpp": rows})))
    with pytest.raises(DataError, match=message) as error:
        found.read("mbpp")
    assert error.value.path.endswith("generations_mbpp_my-model.json")
