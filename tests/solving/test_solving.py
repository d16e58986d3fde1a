"""Solving: records that survive anything, are of one kind, and say the same however the work was shared."""

import json
import multiprocessing
import os
import signal
from dataclasses import replace

import pytest
from made_up import GREEDY, LIVELY, Sums, lines, problems, task

from mftrun.errors import ConfigError, DataError
from mftrun.generation.base import TokenPrompt
from mftrun.generation.transformers_backend import Transformers, TransformersBackend
from mftrun.solving.answers import OVERLONG, answers
from mftrun.solving.generations import generations_file, model_name, write_generations
from mftrun.solving.lines import Part
from mftrun.solving.questions import Key, questions
from mftrun.solving.sharing import Left, Manner, Record, count_ranks, deal
from mftrun.solving.solve import Solver
from mftrun.solving.styles import STYLES


@pytest.fixture(scope="module")
def expected(model, generator):
    """What the model says to one question at a time."""
    bound, found = model.bound, {}
    for name, sampling in (("greedy", GREEDY), ("lively", LIVELY)):
        asked = questions(bound, Sums(), problems(), sampling.num_samples)
        texts = {
            question.key: one.answer
            for question in asked
            for one in answers(generator, sampling, Sums.stop, [question])
        }
        found[name] = [
            [Sums().postprocess(problem, texts[problem.id, sample]) for sample in range(sampling.num_samples)]
            for problem in problems()
        ]
    return found


@pytest.fixture
def asked(monkeypatch):
    """What the model is asked in this process: number, sample and length of each prompt."""
    plain, found = TransformersBackend.generate, []

    def generate(backend, prompts, *more):
        found.extend((prompt.number, prompt.sample, len(prompt.ids)) for prompt in prompts)
        return plain(backend, prompts, *more)

    monkeypatch.setattr(TransformersBackend, "generate", generate)
    return found


def test_greedy_and_sampled_answers_are_those_of_one_at_a_time(
    model, asked, greedy, lively, expected, tmp_path
):
    assert Solver(model, greedy, tmp_path / "a").solve([task()]) == {"sums": expected["greedy"]}
    lengths = [length for *_, length in asked]
    asked.clear()
    assert lengths == sorted(lengths, reverse=True)
    assert len(set(lengths)) > 3
    assert Solver(model, lively, tmp_path / "b").solve([task()]) == {"sums": expected["lively"]}
    assert len({text for samples in expected["lively"] for text in samples}) > 7  # chance acts
    assert len({samples[0] for samples in expected["greedy"]}) > 2  # and so does what is asked


def test_records_are_whole_and_in_order(model, lively, expected, tmp_path):
    Solver(model, lively, tmp_path).solve([task()])
    found = lines(tmp_path / "records" / "sums.jsonl")
    assert [(one["problem"], one["sample"]) for one in found] == [
        (f"sums/{problem}", sample) for problem in range(5) for sample in range(2)
    ]
    assert [one["solution"] for one in found] == [text for samples in expected["lively"] for text in samples]
    assert set(found[0]) == {"problem", "sample", "prompt", "answer", "finish", "tokens", "solution"}
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == [
        ".lock",
        "sums.jsonl",
        "sums.settings.json",
    ]


def _killed(model, manner, output, count):
    """Answers, and is killed when it writes so many and a half."""
    plain, written = Part.write, []

    def write(part, answered):
        if len(written) == count:
            part._stream.write('{"problem": "sums/')
            part._stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)
        written.append(answered)
        plain(part, answered)

    Part.write = write
    Solver(model, manner, output).solve([task()])


def test_a_killed_generation_goes_on(model, asked, lively, expected, tmp_path):
    process = multiprocessing.get_context("forkserver").Process(
        target=_killed, args=(replace(model), lively, tmp_path, 4)
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    before = lines_that_are_whole(tmp_path / "records" / "sums.rank0.jsonl")
    assert len(before) == 4
    assert Solver(model, lively, tmp_path).solve([task()]) == {"sums": expected["lively"]}
    there = {(int(one["problem"][5:]), one["sample"]) for one in before}
    again = {(number, sample) for number, sample, _ in asked}
    assert len(again) == 6
    assert not again & there
    assert len(lines(tmp_path / "records" / "sums.jsonl")) == 10


def lines_that_are_whole(path):
    *whole, rest = path.read_text().split("\n")
    assert rest == '{"problem": "sums/'
    return [json.loads(line) for line in whole]


def test_ranks_share_the_work_and_go_on_with_that_of_others(asked, model, lively, expected, tmp_path):
    """Parts of three ranks, one of them cut; two go on; one finds nothing left to do."""
    Solver(model, lively, tmp_path).solve([task()])
    records = tmp_path / "records"
    whole = (records / "sums.jsonl").read_text().splitlines(keepends=True)
    (records / "sums.jsonl").write_text("".join(whole[:1]))
    (records / "sums.rank0.jsonl").write_text(whole[5] + whole[1][:30])
    (records / "sums.rank2.jsonl").write_text(whole[7] + whole[0])
    assert Solver(model, lively, tmp_path, num_processes=2).solve([task()]) == {"sums": expected["lively"]}
    assert (records / "sums.jsonl").read_text() == "".join(whole)
    assert not list(records.glob("*rank*"))
    asked.clear()
    Solver(model, lively, tmp_path).solve([task()])
    assert asked == []


def test_an_error_of_a_rank_is_the_users(model, greedy, tmp_path):
    strict = Manner(replace(GREEDY, max_length=3), "error")
    with pytest.raises(ConfigError, match="leave no room") as caught:
        Solver(model, strict, tmp_path, num_processes=2).solve([task()])
    assert caught.value.key == "job.on_overlong"


def test_more_problems_and_more_samples_go_on(asked, model, lively, expected, tmp_path):
    first = Solver(model, Manner(replace(LIVELY, num_samples=1)), tmp_path).solve([task(first=2)])
    assert first == {"sums": [[samples[0]] for samples in expected["lively"][:2]]}
    assert Solver(model, lively, tmp_path).solve([task()]) == {"sums": expected["lively"]}
    assert len(asked) == 10
    for less in (lively, Manner(replace(LIVELY, num_samples=1))):
        assert Solver(model, less, tmp_path).solve([task(first=2)]) == {"sums": expected["lively"]}
    assert len(lines(tmp_path / "records" / "sums.jsonl")) == 10


def test_solutions_follow_the_benchmark_not_the_record(model, asked, greedy, tmp_path):
    class Other(Sums):
        def postprocess(self, problem, answer):
            return answer.upper()

    Solver(model, greedy, tmp_path).solve([task()])
    asked.clear()
    found = Solver(model, greedy, tmp_path).solve([task()._replace(benchmark=Other())])
    assert asked == []
    assert [one["solution"] for one in lines(tmp_path / "records" / "sums.jsonl")] == [
        text for (text,) in found["sums"]
    ]
    assert all(text == text.upper() for (text,) in found["sums"])


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"sampling": replace(GREEDY, max_new_tokens=7)}, r"sampling.max_new_tokens was 6, is 7"),
        ({"sampling": replace(LIVELY, num_samples=1)}, r"sampling.temperature was 0.0, is 1.0.*seed was"),
        ({"style": STYLES["octocoder"]}, r"model.template was .*, is .*Question"),
        ({"backend": Transformers(3, "cpu", "eager")}, r"model.backend was"),
        ({"stop": ("\ndef",)}, r"sampling.stop was"),
    ],
)
def test_settings_are_not_mixed(model, greedy, tmp_path, change, named):
    Solver(model, greedy, tmp_path).solve([task()])
    manner = Manner(change.pop("sampling", GREEDY))
    asked = task(stop=change.pop("stop", Sums.stop))
    with pytest.raises(ConfigError, match=named) as caught:
        Solver(replace(model, **change), manner, tmp_path).solve([asked])
    assert caught.value.key == "output"
    assert Solver(model, greedy, tmp_path).solve([task()])  # nothing was harmed


def test_other_rows_are_not_mixed(model, greedy, tmp_path):
    Solver(model, greedy, tmp_path).solve([task()])
    rows = problems()
    rows[3] = replace(rows[3], fields={**rows[3].fields, "text": "subtract"})
    with pytest.raises(ConfigError, match="sums/3 of the benchmark has changed"):
        Solver(model, greedy, tmp_path).solve([task()._replace(problems=rows)])
    with pytest.raises(ConfigError, match="an answer to sums/4, which the benchmark does not have"):
        Solver(model, greedy, tmp_path).solve([task(4)])


def test_what_was_written_by_others_is_refused(model, greedy, tmp_path):
    Solver(model, greedy, tmp_path).solve([task()])
    file = tmp_path / "records" / "sums.jsonl"
    settings = tmp_path / "records" / "sums.settings.json"
    kept = settings.read_text()
    settings.unlink()
    with pytest.raises(ConfigError, match=r"cannot be read from sums\.settings\.json"):
        Solver(model, greedy, tmp_path).solve([task()])
    settings.write_text(kept)
    whole = file.read_text().splitlines(keepends=True)
    file.write_text("".join([whole[0], "{}\n", *whole[1:]]))
    with pytest.raises(DataError, match=rf"{file}:2: is no record"):
        Solver(model, greedy, tmp_path).solve([task()])


def test_one_process_at_a_time(model, greedy, tmp_path):
    from mftrun.lock import locked

    (tmp_path / "records").mkdir()
    with locked(tmp_path / "records"), pytest.raises(ConfigError, match="another process") as caught:
        Solver(model, greedy, tmp_path).solve([task()])
    assert caught.value.key == "output"
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write in"):
        Solver(model, greedy, tmp_path / "file").solve([task()])


def test_questions_without_room_are_answered_by_nothing(model, tmp_path, caplog):
    manner = Manner(replace(GREEDY, max_length=20))
    found = Solver(model, manner, tmp_path).solve([task()])["sums"]
    finishes = {one["problem"]: one["finish"] for one in lines(tmp_path / "records" / "sums.jsonl")}
    missing = [name for name, finish in finishes.items() if finish == OVERLONG]
    assert 0 < len(missing) < 5
    assert found[int(missing[0][5:])][0].endswith("(a, b):")
    assert f"sums: {len(missing)} of 5 answers are missing" in caplog.text


def test_answers_that_are_missing_are_no_answers_where_that_is_an_error(model, tmp_path):
    sampling = replace(GREEDY, max_length=20)
    Solver(model, Manner(sampling), tmp_path).solve([task()])
    with pytest.raises(ConfigError, match="leave no room") as caught:
        Solver(model, Manner(sampling, "error"), tmp_path).solve([task()])
    assert caught.value.key == "job.on_overlong"


def test_the_prompt_counts_where_it_shall(model, generator):
    (asked,) = questions(model.bound, Sums(), problems(1), 1)
    room = replace(GREEDY, max_length=len(asked.prompt.ids) + 2)
    ((one),) = answers(generator, room, (), [asked])
    assert one.tokens == 2
    assert one.finish == "length"


def test_ctrl_c_says_how_to_go_on(model, greedy, tmp_path, monkeypatch):
    def interrupt(part, answered):
        raise KeyboardInterrupt

    monkeypatch.setattr(Part, "write", interrupt)
    with pytest.raises(KeyboardInterrupt) as caught:
        Solver(model, greedy, tmp_path).solve([task()])
    assert f"the same command with output={tmp_path} goes on" in caught.value.__notes__[0]


def test_shares_are_alike(model, tmp_path):
    asked = questions(model.bound, Sums(), problems(5), 1)
    left = [Left(Record(tmp_path, name), (), asked) for name in ("a", "b")]
    shares = deal(left, 2)
    counts = [sum(len(work.asked) for work in share) for share in shares]
    assert counts == [5, 5]
    for name, works in zip(("a", "b"), zip(*shares, strict=True), strict=True):
        assert [work.part.name for work in works] == [f"{name}.rank0.jsonl", f"{name}.rank1.jsonl"]
        assert sorted(one.key for work in works for one in work.asked) == sorted(one.key for one in asked)


class OnGpus:
    def __init__(self, each):
        self.each = each

    def gpus(self):
        return self.each


@pytest.mark.parametrize(
    ("each", "asked", "count"), [(1, None, 4), (2, None, 2), (3, None, 1), (0, None, 1), (1, 3, 3), (0, 2, 2)]
)
def test_how_many_ranks(each, asked, count, monkeypatch):
    monkeypatch.setattr("mftrun.distributed.machines.visible_gpus", lambda: 4)
    assert count_ranks(OnGpus(each), asked, 100) == count
    assert count_ranks(OnGpus(each), asked, 1) == 1


def test_too_many_ranks(monkeypatch):
    monkeypatch.setattr("mftrun.distributed.machines.visible_gpus", lambda: 4)
    for each, asked in ((1, 5), (2, 3), (0, 100_000)):
        with pytest.raises(ConfigError, match="too many") as caught:
            count_ranks(OnGpus(each), asked, 10**6)
        assert caught.value.key == "job.num_processes"


def test_samples_are_those_of_a_larger_batch(generator):
    """A single answer draws the random numbers that it has among several."""
    ids = [9, 8, 7]
    ((*several,),) = generator.answers([TokenPrompt(ids, 4)], replace(LIVELY, num_samples=3))
    single = replace(LIVELY, num_samples=1)
    alone = [next(generator.answers([TokenPrompt(ids, 4, sample)], single))[0] for sample in range(3)]
    assert alone == several


def test_answers_come_as_their_batches_end(generator, model):
    asked = questions(model.bound, Sums(), problems(8), 1)
    found = answers(generator, GREEDY, (), asked)
    backend, batches = generator._backend, []
    plain = backend._batch
    backend._batch = lambda rows, *more: (batches.append(len(rows)), plain(rows, *more))[1]
    try:
        keys = [next(found).key for _ in range(3)]
        assert batches == [3]
        assert len(keys + [one.key for one in found]) == 8
    finally:
        del backend._batch


def test_names_of_models_and_files(tmp_path):
    run = tmp_path / "runs" / "my run" / "model"
    run.mkdir(parents=True)
    assert model_name(str(run)) == "my-run"
    assert model_name("owner/Name-7b.v2") == "Name-7b.v2"
    assert model_name("runs/demo/2026-01-02_03-04-05/model") == "demo-2026-01-02_03-04-05"
    assert model_name("anything", "mine") == "mine"
    with pytest.raises(ConfigError, match="letters, digits"):
        model_name("anything", "a/b")
    with pytest.raises(ConfigError, match=r"job\.model_name: must be letters"):
        model_name("anything", "..")
    file = generations_file(tmp_path, "m", "mbpp")
    assert file == tmp_path / "generations_m" / "generations_mbpp_m.json"
    write_generations(file, [["a\n", "b"], ["ü", ""]])
    assert json.loads(file.read_text()) == [["a\n", "b"], ["ü", ""]]


@pytest.mark.parametrize(
    ("before", "is_kept"),
    [
        ([["a"]], False),
        ([["a"], ["b"], ["c"]], True),
        ([["a", "x"], ["b", "y"]], True),
        ([["mine"], ["b"]], True),
        ("mine", True),
    ],
)
def test_solutions_that_would_be_lost_are_kept_beside(tmp_path, caplog, before, is_kept):
    file = generations_file(tmp_path, "m", "mbpp")
    file.parent.mkdir()
    file.write_text(json.dumps(before))
    write_generations(file, [["a"], ["b"]])
    assert json.loads(file.read_text()) == [["a"], ["b"]]
    kept = tmp_path / "earlier" / "1-generations_mbpp_m.json"
    assert kept.exists() == is_kept
    if is_kept:
        assert json.loads(kept.read_text()) == before
        assert f"it is kept as {kept}" in caplog.text


def test_keys_are_told_apart():
    assert Key("a", 1) < Key("a", 2) < Key("b", 0)
