from __future__ import annotations

import ast
import pickle
from pathlib import Path

import pytest

from mftrun.data.embedded import CompleteFunction, WriteDocstring, WriteFunction
from mftrun.data.sample import problem
from mftrun.data.source import Source, read

TASKS = (WriteFunction, WriteDocstring, CompleteFunction)


@pytest.fixture(scope="module")
def samples():
    return {task: list(read(task(max_samples=300))) for task in TASKS}


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_valid_bounded_unique_and_as_many_as_asked(samples, task):
    found = samples[task]
    texts = [tuple(message.content for message in sample.messages) for sample in found]
    assert len(found) == 300
    assert [problem(sample.messages) for sample in found] == [None] * 300
    assert len(set(texts)) == 300
    assert max(sum(map(len, text)) for text in texts) <= 800


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_the_same_each_time_and_a_prefix_of_more(samples, task):
    assert list(read(task(max_samples=100))) == samples[task][:100]


def test_no_file_serves_two_tasks(samples):
    first, second, third = ({sample.origin.path for sample in samples[task]} for task in TASKS)
    assert not (first & second) | (first & third) | (second & third)


@pytest.mark.parametrize("task", TASKS)
def test_origin_is_the_line_of_the_function(samples, task):
    for sample in samples[task]:
        line = Path(sample.origin.path).read_text(encoding="utf-8").split("\n")[sample.origin.line - 1]
        assert line.lstrip().startswith("def ")
        assert line.split("(")[0].split()[-1] in sample.messages[0].content


def test_written_functions_parse_and_have_no_docstring(samples):
    for sample in samples[WriteFunction]:
        (function,) = ast.parse(sample.messages[1].content).body
        assert ast.get_docstring(function) is None
        assert sample.messages[1].content.startswith(sample.messages[0].content.split("\n\n")[1])


def test_docstring_is_the_one_of_the_function(samples):
    for sample in samples[WriteDocstring][::30]:
        tree = ast.parse(Path(sample.origin.path).read_bytes())
        docstrings = [ast.get_docstring(f) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef)]
        assert sample.messages[1].content.strip() in [text.strip() for text in docstrings if text]
        assert sample.messages[1].content not in sample.messages[0].content


def test_halves_make_a_whole_function(samples):
    for sample in samples[CompleteFunction]:
        first = sample.messages[0].content.split("\n\n", 1)[1]
        assert isinstance(ast.parse(f"{first}\n{sample.messages[1].content}").body[0], ast.FunctionDef)


ODD = '''
class Shallow:
    def text(self):
        """Gives a text."""
        return """
no indent
"""

    def one_line(self): return 1

    def only_docstring(self):
        """Does nothing."""

\f
def after_form_feed(value):
    """Adds one."""
    return value + 1
'''


def test_odd_files_and_functions_are_passed_over(tmp_path, monkeypatch):
    (tmp_path / "a_syntax.py").write_text("def broken(:")
    (tmp_path / "b_latin.py").write_bytes(b"# \xe9")
    (tmp_path / "c_odd.py").write_text(ODD)
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "a.py").write_text(ODD)
    monkeypatch.setattr("sysconfig.get_path", lambda _: str(tmp_path))
    (sample,) = read(WriteFunction(99))
    assert sample.messages[1].content == "def after_form_feed(value):\n    return value + 1"
    assert sample.messages[0].content.endswith("def after_form_feed(value):\n\nAdds one.")


def test_chunks_can_be_sent_to_a_worker_and_add_up(samples):
    source = WriteFunction(max_samples=300)
    chunks = [pickle.loads(pickle.dumps(chunk)) for chunk in source.chunks()]
    assert [chunk.size for chunk in chunks] == [256, 44]
    assert source.size() == 300
    assert [item for chunk in chunks for item in chunk.items()] == samples[WriteFunction]


def test_it_is_a_source_and_its_fingerprint_follows_its_limits():
    assert isinstance(WriteFunction(3), Source)
    assert WriteFunction(3).fingerprint() == WriteFunction(3).fingerprint()
    assert WriteFunction(3).fingerprint() != WriteFunction(4).fingerprint()
    with pytest.raises(ValueError, match="at least 1"):
        WriteFunction(0)
