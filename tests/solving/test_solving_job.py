"""job=generate_benchmark: from a command line to files of solutions."""

import gzip
import json

import pytest
from commands import mftrun
from made_up import lines

from mftrun.build import build
from mftrun.compose import compose
from mftrun.errors import ConfigError
from mftrun.schema import check

JOB = "job=generate_benchmark"


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """A folder of benchmarks with a few problems of HumanEval's kind."""
    folder = tmp_path_factory.mktemp("rows")
    found = [
        {
            "task_id": f"HumanEval/{number}",
            "prompt": f'def f{number}(a, b):\n    """Adds."""\n',
            "canonical_solution": "    return a + b\n",
            "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
            "entry_point": f"f{number}",
        }
        for number in range(3)
    ]
    with gzip.open(folder / "HumanEval.jsonl.gz", "wt") as stream:
        stream.write("".join(json.dumps(row) + "\n" for row in found))
    return folder


@pytest.fixture
def asked(model_dir, rows, tmp_path):
    return [
        JOB,
        f"path={model_dir}",
        "benchmarks=[humaneval]",
        f"benchmark_data={rows}",
        f"output={tmp_path / 'out'}",
        "job.max_new_tokens=4",
        "job.backend.device=cpu",
    ]


def generate(run_dir, *overrides):
    run_dir.mkdir(exist_ok=True)
    config = compose(overrides, run_dir)
    check(config)
    build(config["job"], object, "job").run(config, run_dir)


def test_from_the_command_line(asked, tmp_path):
    done = mftrun(tmp_path, *asked, "job.num_processes=2", "job.model_name=mine")
    assert done.returncode == 0, done.stdout
    assert "answering 3 questions on 2 ranks" in done.stdout
    out = tmp_path / "out"
    solutions = json.loads((out / "generations_mine" / "generations_humaneval_mine.json").read_text())
    assert [len(samples) for samples in solutions] == [1, 1, 1]
    assert [solution.split("(")[0] for (solution,) in solutions] == ["def f0", "def f1", "def f2"]
    records = lines(out / "records" / "humaneval.jsonl")
    assert [[one["solution"]] for one in records] == solutions
    again = mftrun(tmp_path, *asked, "job.model_name=mine")
    assert "humaneval: 3 of 3 answers are there already" in again.stdout
    refused = mftrun(tmp_path, *asked, "style=octocoder")
    assert refused.returncode == 1
    assert "error: output: " in refused.stdout
    assert "model.template was" in refused.stdout
    unread = mftrun(tmp_path, *asked, "data.max_length=5")
    assert "this job does not read data.max_length" in unread.stdout


def test_a_subset_and_several_samples(asked, tmp_path):
    generate(tmp_path / "run", *asked, "job.problems=2", "job.num_samples=2", "job.temperature=1")
    (file,) = (tmp_path / "out").glob("generations_*/*.json")
    assert file.name == "generations_humaneval_tiny.json"
    assert [len(samples) for samples in json.loads(file.read_text())] == [2, 2]


def test_without_output_the_run_has_it(asked, tmp_path):
    generate(tmp_path / "run", *asked, "output=null", "job.problems=1", "benchmarks=humaneval")
    assert (tmp_path / "run" / "generations_tiny" / "generations_humaneval_tiny.json").exists()
    assert (tmp_path / "run" / "records" / "humaneval.jsonl").exists()


def test_upstream_counts_the_prompt(asked, tmp_path):
    generate(tmp_path / "run", *asked, "compat=upstream", "job.max_new_tokens=3")
    assert {one["finish"] for one in lines(tmp_path / "out" / "records" / "humaneval.jsonl")} == {"overlong"}


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("benchmarks=[humanevl]", "benchmarks"),
        ("benchmark_data=/nowhere", "benchmark_data"),
        ("style=octo", "style"),
        ("compat=loose", "compat"),
        ("job.problems=0", "job.problems"),
        ("job.num_processes=0", "job.num_processes"),
        ("job.num_samples=2", "job.num_samples"),
        ("job.top_p=0.9", "job.top_p"),
        ("job.top_k=5", "job.top_k"),
        ("job.on_overlong=skip", "job.on_overlong"),
        ("job.model_name=a/b", "job.model_name"),
        ("path=/nowhere", "path"),
    ],
)
def test_what_is_refused(asked, tmp_path, override, key):
    with pytest.raises(ConfigError) as caught:
        generate(tmp_path / "run", *asked, override)
    assert caught.value.key.removeprefix("job.") == key.removeprefix("job.")
    assert not (tmp_path / "out").exists()


def test_a_template_that_would_not_act_is_refused(asked, tmp_path):
    done = mftrun(tmp_path, *asked, "style=octocoder", "template=chatml")
    assert "error: template: acts with style=auto only" in done.stdout
