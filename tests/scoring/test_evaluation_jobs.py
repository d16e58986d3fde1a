"""The jobs, as on the command line. Their programs are harmless, so they may run without a sandbox."""

import json
import zipfile

import pytest
from commands import mftrun

from mftrun.scoring.competition import competition_rows

ANYWHERE = "sandbox.allow_unsafe=true"
RIGHT = "def add(a, b):\n    return a + b"
WRONG = "def less(a, b):\n    return a"


@pytest.fixture
def score(tmp_path, benchmarks_folder, generations):
    """Scores solutions of HumanEval: score(solutions, *more) on the command line."""

    def run(solutions, *more):
        folder = generations({"humaneval": solutions})
        where = [f"generations={folder}", f"benchmark_data={benchmarks_folder}", ANYWHERE]
        return mftrun(tmp_path, "job=score", *where, *more)

    return run


def metrics(folder):
    return json.loads((folder / "metrics.json").read_text())


def test_solutions_are_scored(score, tmp_path):
    done = score([[RIGHT], [WRONG]])
    assert done.returncode == 0, done.stdout
    assert "humaneval  2 of 164   50.0%" in done.stdout
    found = metrics(tmp_path / "out")
    assert found["humaneval"]["pass@1"] == 0.5
    assert found["config"]["compat"] == "strict"
    lines = (tmp_path / "out" / "verdicts" / "humaneval.jsonl").read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["verdict"], second["verdict"]) == ("passed", "failed")
    assert "AssertionError" in second["log"]
    assert not list(tmp_path.glob("runs/*/*"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["benchmarks=[humanevil]"], "there is no benchmark humanevil; did you mean humaneval?"),
        (["benchmarks=[mbpp]"], "benchmark_data: there is no mbpp.jsonl"),
        (["job.k=[2]"], "job.k: pass@2 needs 2 samples of each problem, and there are 1"),
        (["job.k=[0]"], "job.k: must hold numbers from 1"),
        (["job.problems=0"], "job.problems: must be 1 or more"),
        (["benchmark_data=/nowhere"], "benchmark_data: there is no folder /nowhere"),
        (["compat=both"], "compat"),
        (["train.max_steps=3"], "train.max_steps=3 would do nothing"),
        (["sandbox.workers=0"], "sandbox.workers: must be 1 or more"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_runs(score, tmp_path, more, message):
    done = score([[RIGHT], [WRONG]], *more)
    assert done.returncode == 1
    assert message in done.stdout
    assert not (tmp_path / "out" / "metrics.json").exists()
    assert not list((tmp_path / "out").glob("verdicts/*.jsonl"))


@pytest.fixture
def evaluate(tmp_path, benchmarks_folder, tiny):
    """Evaluates the tiny model: evaluate(*more) on the command line."""

    def run(*more):
        what = [f"path={tiny}", "benchmarks=[humaneval]", f"benchmark_data={benchmarks_folder}"]
        how = [f"output={tmp_path / 'out'}", "style=continue", "job.max_new_tokens=4", ANYWHERE]
        return mftrun(tmp_path, "job=evaluate", *what, *how, *more)

    return run


def test_a_model_is_evaluated_and_not_again(evaluate, tmp_path):
    done = evaluate()
    assert done.returncode == 0, done.stdout
    assert "humaneval  2 of 164    0.0%" in done.stdout
    out = tmp_path / "out"
    files = [
        *("generations_tiny/generations_humaneval_tiny.json", "records/humaneval.jsonl"),
        *("verdicts/humaneval.jsonl", "metrics.json"),
    ]
    before = [(out / name).read_bytes() for name in files]
    config = metrics(out)["config"]
    assert (config["style"], config["sampling"]["temperature"]) == ("continue", 0.0)
    quick = evaluate("job.problems=1")
    assert quick.returncode == 0, quick.stdout
    assert "humaneval  1 of 164" in quick.stdout
    assert "keeps the score of humaneval that is there: it is of 2 problems" in quick.stdout
    assert [(out / name).read_bytes() for name in files[:2]] == before[:2]
    again = evaluate()
    assert "humaneval: 2 of 2 answers are there already" in again.stdout
    assert "humaneval: 2 verdicts are there already" in again.stdout
    assert [(out / name).read_bytes() for name in files] == before


def test_a_foreign_metrics_file_is_refused_before_anything_is_generated(evaluate, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "metrics.json").write_text('{"mine": 1}')
    assert "metrics.json holds no scores" in evaluate().stdout
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["metrics.json"]


def test_more_tries_than_samples_are_refused_before_anything_is_generated(evaluate, tmp_path):
    done = evaluate("job.k=[2]")
    assert "job.k: must hold numbers from 1 to job.num_samples=1" in done.stdout
    assert not (tmp_path / "out").exists()


@pytest.fixture
def submission(generations):
    """The folder of solutions that the competition asks for."""
    return generations({task: [["x"]] * rows for task, rows in competition_rows().items()})


def test_a_submission_is_written(submission, tmp_path):
    done = mftrun(tmp_path, "job=submit", f"generations={submission}", f"output={tmp_path / 'mine.zip'}")
    assert done.returncode == 0, done.stdout
    assert "whether these answers are greedy is not known" in done.stdout
    with zipfile.ZipFile(tmp_path / "mine.zip") as file:
        names = file.namelist()
        assert len(json.loads(file.read("generations_my-model/generations_mbpp_my-model.json"))) == 500
    assert len(names) == 13
    assert {name.partition("/")[0] for name in names} == {"generations_my-model"}


def test_a_submission_with_faults_is_refused_unless_it_is_forced(submission, tmp_path):
    (submission / "generations_mbpp_my-model.json").write_text("[]")
    records = submission.parent / "records"
    records.mkdir()
    lines = [json.dumps({"problem": number, "sample": 0, "solution": "x"}) for number in range(164)]
    (records / "humanevalfixtests-go.jsonl").write_text("\n".join(lines))
    (records / "humanevalfixtests-go.settings.json").write_text('{"sampling": {"temperature": 0.2}}')
    done = mftrun(tmp_path, "job=submit", f"generations={submission}")
    assert done.returncode == 1
    assert "\n  generations_mbpp_my-model.json: is empty" in done.stdout
    assert "\n  humanevalfixtests-go was generated at temperature 0.2" in done.stdout
    assert not list(submission.parent.glob("*.zip"))
    forced = mftrun(tmp_path, "job=submit", f"generations={submission}", "job.force=true")
    assert forced.returncode == 0, forced.stdout
    assert "humanevalfixtests-go was generated at temperature 0.2" in forced.stdout
    assert (submission.parent / "generations_my-model.zip").exists()
