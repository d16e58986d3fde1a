"""job=preview job.contamination.benchmarks=[…]: from planted lines to the report."""

import gzip
import json
from dataclasses import asdict
from pathlib import Path

import pytest
from made_benchmark import BODIES, TESTS, sample
from runs import SMALL, train, write_task

from mftrun.contamination.settings import Contamination
from mftrun.errors import ConfigError, DataError

KEY = "job.contamination"
LONG = ["data.max_length=1024", "job.samples=0"]


@pytest.fixture
def benchmarks(tmp_path):
    """A folder with a HumanEval of our own."""
    rows = []
    for number, (name, code) in enumerate(BODIES.items()):
        end = code.rindex('"""') + 4
        test = f"def check(candidate):\n    {TESTS[name]}".replace("\nassert", "\n    assert")
        row = {"prompt": code[:end], "canonical_solution": code[end:], "test": test, "entry_point": name}
        rows.append({"task_id": f"HumanEval/{number}", **row})
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    (folder / "HumanEval.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return folder


@pytest.fixture
def tasks(tmp_path):
    """Two tasks; line 7 of the first holds a solution, line 3 of the second a prompt."""
    planted = {
        "code": (7, "Mend this.", BODIES["longest_nap"].replace("    ", "\t")),
        "chat": (3, "What is meant by this?" + BODIES["weigh_apples"].split('"""')[1], "It is about apples."),
    }
    for name, (line, question, answer) in planted.items():
        file = write_task(tmp_path / "tasks", name, 20) / "train.jsonl"
        rounds = [{"role": "human", "content": question}, {"role": "bot", "content": answer}]
        lines = file.read_text().splitlines()
        lines[line - 1] = json.dumps({"chat_rounds": rounds})
        file.write_text("\n".join(lines) + "\n")
    return tmp_path / "tasks"


def overrides(tasks, *more):
    paths = ",".join(str(tasks / name) for name in ("code", "chat"))
    return [*SMALL, *LONG, "job=preview", f"data.paths=[{paths}]", *more]


def records(run):
    return [json.loads(line) for line in (run / "contamination.jsonl").read_text().splitlines()]


def test_planted_lines_are_named(tasks, benchmarks, tmp_path, capsys):
    run = tmp_path / "run"
    train(run, *overrides(tasks, f"{KEY}.benchmarks=[humaneval]", f"{KEY}.data={benchmarks}"))
    found = {(one["task"], one["line"], one["problem"], one["part"]) for one in records(run)}
    assert found == {
        ("code", 7, "HumanEval/1", "prompt"),
        ("code", 7, "HumanEval/1", "solution"),
        ("chat", 3, "HumanEval/0", "prompt"),
    }
    shown = capsys.readouterr().out
    assert "2 of 40 samples hold 50% or more of a benchmark's prompt, solution or tests:\n" in shown
    assert f"  {tasks}/code/train.jsonl:7 · code · 100% of the " in shown
    table = {line.split("  ")[0]: line.split()[3:] for line in shown.splitlines() if " · humaneval " in line}
    assert table["code · humaneval"] == ["1", "5.00%", "1", "1", "1", "0"]
    assert f"take the lines that {run}/contamination.jsonl names out" in shown


def test_validation_samples_are_looked_through(tasks, benchmarks, tmp_path):
    split = ["data.valid_min=19", "data.valid_max=19"]
    train(
        tmp_path / "a", *overrides(tasks, f"{KEY}.benchmarks=[humaneval]", f"{KEY}.data={benchmarks}", *split)
    )
    assert {one["task"]: one["split"] for one in records(tmp_path / "a")} == {
        "code": "valid",
        "chat": "valid",
    }


def test_fewer_samples_are_shown_than_written(tasks, benchmarks, tmp_path, capsys):
    few = [f"{KEY}.benchmarks=[humaneval]", f"{KEY}.data={benchmarks}", f"{KEY}.show=1"]
    train(tmp_path / "run", *overrides(tasks, *few))
    shown = capsys.readouterr().out
    assert "code/train.jsonl:7" in shown
    assert "chat/train.jsonl:3" not in shown
    assert "  … 1 samples more" in shown


def test_clean_data_are_called_clean(benchmarks, tmp_path, capsys):
    path = write_task(tmp_path, "clean", 20)
    named = [f"{KEY}.benchmarks=[humaneval]", f"{KEY}.data={benchmarks}"]
    train(tmp_path / "run", *SMALL, *LONG, "job=preview", f"data.paths=[{path}]", *named)
    assert "0 of 20 samples hold" in capsys.readouterr().out
    assert records(tmp_path / "run") == []


def test_published_problems_are_found_and_other_data_are_clean():
    shared = Path(__file__).parents[2].parent / "shared" / "data"
    if not shared.is_dir():
        pytest.skip("there are no published benchmarks here")
    detector = Contamination(["humaneval"], str(shared / "eval")).detector()
    lines = (shared / "tasks" / "text2method" / "train.jsonl").read_text().splitlines()[:200]
    texts = ["\n".join(turn["content"] for turn in json.loads(line)["chat_rounds"]) for line in lines]
    with gzip.open(shared / "eval" / "HumanEval.jsonl.gz", "rt") as rows:
        own = [row["prompt"] + row["canonical_solution"] for row in map(json.loads, rows)]
    hits = list(detector.hits([sample(text, number) for number, text in enumerate([*texts, *own])]))
    named = {(hit.sample.number - len(texts), hit.passage.problem) for hit in hits if hit.share > 0.99}
    assert {(number, f"HumanEval/{number}") for number in range(len(own))} <= named
    assert min(hit.sample.number for hit in hits) >= len(texts)


def test_nothing_is_compared_unless_asked(tasks, tmp_path, capsys):
    train(tmp_path / "run", *overrides(tasks))
    assert "Contamination" not in capsys.readouterr().out
    assert not (tmp_path / "run" / "contamination.jsonl").exists()


def test_the_first_shard_is_compared(tasks, benchmarks, tmp_path, caplog):
    shards = ["data.shard_samples=10", "train.epochs=null", "train.max_steps=2"]
    named = [f"{KEY}.benchmarks=[humaneval]", f"{KEY}.data={benchmarks}"]
    train(tmp_path / "run", *overrides(tasks, *named, *shards))
    assert "only the first shard is compared" in caplog.text
    assert {one["line"] for one in records(tmp_path / "run")} == {3, 7}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"benchmarks": ["humanevil"]}, "benchmarks: .*humaneval"),
        ({"benchmarks": ["mbpp"], "data": "{folder}"}, "data: there is no mbpp.jsonl"),
        ({"benchmarks": ["humaneval"], "data": "/nowhere"}, "data: there is no folder /nowhere"),
        ({"benchmarks": ["mbpp"]}, "data: .*name a folder"),
        ({"data": "hub"}, "data: does nothing without"),
        ({"ngram": 13}, "ngram: does nothing without"),
        ({"benchmarks": ["humaneval"], "ngram": 1}, "ngram: must be at least 2, not 1"),
        ({"benchmarks": ["humaneval"], "threshold": 0.0}, "threshold: must be above 0"),
        ({"benchmarks": ["humaneval"], "threshold": 1.5}, "threshold: must be above 0"),
        ({"benchmarks": ["humaneval"], "show": -1}, "show: must be 0 or more"),
    ],
)
def test_what_cannot_be_compared_is_refused(benchmarks, given, named):
    if given.get("data") == "{folder}":
        given = {**given, "data": str(benchmarks)}
    with pytest.raises(ConfigError, match=rf"job\.contamination\.{named}"):
        Contamination(**given).detector()


def test_unknown_benchmarks_stop_before_data_is_read(tmp_path):
    with pytest.raises(ConfigError, match="no benchmark"):
        train(tmp_path, *SMALL, "job=preview", "data.paths=[/nowhere]", f"{KEY}.benchmarks=[nothing]")


def test_a_damaged_benchmark_is_named(benchmarks):
    file = benchmarks / "HumanEval.jsonl"
    file.write_text(file.read_text() + "{\n")
    with pytest.raises(DataError, match=r"HumanEval\.jsonl:5"):
        Contamination(["humaneval"], str(benchmarks)).detector()


def test_the_options_say_what_the_class_does(repository_defaults):
    assert repository_defaults == asdict(Contamination())


@pytest.fixture
def repository_defaults(tmp_path):
    from mftrun.compose import compose

    node = dict(compose(["job=preview"], tmp_path)["job"]["contamination"])
    return {key: value for key, value in node.items() if not key.startswith("_")}
