"""A benchmark of a user, as the documentation shows one, through the jobs."""

import json
import re
from pathlib import Path

import pytest

from mftrun.build import build
from mftrun.compose import compose
from mftrun.errors import ConfigError
from mftrun.schema import check

DOCUMENT = Path(__file__).parents[2] / "docs" / "evaluation.md"
OWN = ["+own_benchmarks.kata._target_=my_benchmarks.Kata", "allowed_targets=[my_benchmarks]"]
ROWS = [
    {
        "task_id": name,
        "begun": f"def {name}(x):\n",
        "right": "    return 2 * x",
        "test": f"assert {name}(2) == 4",
    }
    for name in ("double", "twice")
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with the documented class, its rows, and solutions of which one is right."""
    (code,) = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    (tmp_path / "my_benchmarks.py").write_text(code)
    (tmp_path / "kata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    solutions = tmp_path / "generations_mine"
    solutions.mkdir()
    solved = [["def double(x):\n    return 2 * x"], ["def twice(x):\n    return x"]]
    (solutions / "generations_kata_mine.json").write_text(json.dumps(solved))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "my_benchmarks", raising=False)
    return tmp_path


def job(folder, *overrides):
    """A job, and its configuration."""
    run_dir = folder / "run"
    run_dir.mkdir(exist_ok=True)
    config = compose([f"benchmark_data={folder}", *overrides], run_dir)
    check(config)
    return build(config["job"], object, "job", allowed=config["allowed_targets"]), config


@pytest.mark.parametrize("name", ["generate_benchmark", "evaluate"])
def test_generation_knows_it(folder, name):
    found, _ = job(folder, f"job={name}", "path=any", "benchmarks=[kata]", *OWN)
    ((benchmark, problems, _),) = found.tasks()
    assert benchmark.name == "kata"
    assert [problem.id for problem in problems] == ["double", "twice"]
    assert benchmark.canonical(problems[0]) == "def double(x):\n    return 2 * x"


def test_its_solutions_are_scored(folder):
    found, config = job(folder, "job=score", f"generations={folder}", "sandbox.allow_unsafe=true", *OWN)
    found.run(config, folder / "run")
    scores = json.loads((folder / "metrics.json").read_text())
    assert scores["kata"]["pass@1"] == 0.5


@pytest.mark.parametrize(
    ("own", "key", "message"),
    [
        (OWN[:1], "job.own_benchmarks.kata._target_", "not allowed"),
        ([], "benchmarks", "no benchmark kata"),
        (["+own_benchmarks.kata=Kata"], "own_benchmarks.kata", "is a str, and no Benchmark"),
        ([OWN[0].replace(".kata", ".mine"), OWN[1]], "own_benchmarks.mine", "calls itself kata"),
    ],
)
def test_what_is_refused(folder, own, key, message):
    with pytest.raises(ConfigError, match=message) as caught:
        job(folder, "job=generate_benchmark", "path=any", "benchmarks=[kata]", *own)[0].tasks()
    assert caught.value.key == key


@pytest.mark.parametrize("name", ["generate_benchmark", "score"])
def test_a_dataset_and_its_revision(folder, monkeypatch, caplog, name):
    asked = []

    def download(name, **settings):
        asked.append((name, settings["revision"]))
        return str(folder / "abc123")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    (folder / "abc123" / "data").mkdir(parents=True)
    where = ["path=any", "benchmarks=[kata]"] if name == "generate_benchmark" else [f"generations={folder}"]
    hub = ["benchmark_data=hub:you/kata", "job.benchmark_revision=v2"]
    found, config = job(folder, f"job={name}", *where, *OWN, *hub)
    caplog.set_level("INFO")
    with pytest.raises(ConfigError, match="you/kata at revision abc123 has no"):
        found.run(config, folder / "run")
    assert asked == [("you/kata", "v2")]
    assert "you/kata is at revision abc123" in caplog.messages
