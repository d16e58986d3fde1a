"""job=tokenize and job=preview, and training from what the first has written."""

import json
import re
import shutil
import sys

import numpy as np
import pyarrow as pa
import pytest
from runs import SMALL, overrides_for, train, write_task

from mftrun.data.table import SampleTable
from mftrun.data.tokenized import tokenized_tasks
from mftrun.errors import ConfigError, DataError

TASKS = ["backward", "forward", "sideways"]
STEPS = ["train.max_steps=2", "train.log_every=1"]


@pytest.fixture(scope="module")
def tokenized(tasks_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenized")
    train(folder, *overrides_for(tasks_dir, "job=tokenize"))
    return folder


def losses(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        (line["step"], line.get("train/loss"), line.get("valid/loss")) for line in lines if "step" in line
    ]


def folder_of(run, task):
    manifest = json.loads((run / "tokens" / "tokens.json").read_text())
    return run / "tokens" / manifest["tasks"][task]["train"]


def test_training_from_the_folder_is_training_from_the_sources(tokenized, tasks_dir, tmp_path):
    train(tmp_path / "sources", *overrides_for(tasks_dir, *STEPS))
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(tokenized, elsewhere)
    train(
        tmp_path / "folder", *SMALL, f"data.tokenized={elsewhere}", *STEPS, f"data.cache_dir={tmp_path}/none"
    )
    assert losses(tmp_path / "folder") == losses(tmp_path / "sources")
    assert not (tmp_path / "none").exists()


def test_the_folder_is_plain_arrow_with_all_samples(tokenized):
    assert tokenized_tasks(tokenized) == TASKS
    for task, size in zip(TASKS, (24, 60, 9), strict=True):
        (file,) = folder_of(tokenized, task).glob("*.arrow")
        with pa.memory_map(str(file)) as stream:
            table = pa.ipc.open_file(stream).read_all()
        assert table.num_rows == size
        assert set(table["line"].to_pylist()) == set(range(1, size + 1))
        assert "input_ids" in table.column_names


@pytest.mark.parametrize(
    ("change", "key", "message"),
    [
        (
            ["template=chatml"],
            "template",
            "tokenized with another one .*system_prefix.* and [0-9]+ more values.*tokenize again",
        ),
        (["template.user_prefix=U"], "template", "user_prefix: '<s>human"),
        (["model=llama", "model.path=BASE"], "data.tokenized", "another tokenizer than this model's"),
        (["model.vocab_size=300"], "model", "vocab_size: 400 there, 300 here"),
        (["data.paths=[/x]"], "data.tokenized", "leave out data.tasks and data.paths"),
        (["job=tokenize"], "data.tokenized", "is what job=tokenize makes"),
    ],
)
def test_what_does_not_fit_the_folder_is_refused(tokenized, tasks_dir, tmp_path, change, key, message):
    small = [*SMALL]
    if "model=llama" in change:
        write_task(tmp_path / "other", "code", 20, seed=5)
        train(tmp_path / "base", *overrides_for(tmp_path / "other", *STEPS))
        change = ["model=llama", f"model.path={tmp_path}/base/model"]
        small = [one for one in SMALL if not one.startswith("model.")]
    with pytest.raises(ConfigError, match=message) as caught:
        train(tmp_path / "run", *small, f"data.tokenized={tokenized}", *STEPS, *change)
    assert caught.value.key == key
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_a_folder_without_tokens_and_a_damaged_one(tokenized, tmp_path):
    with pytest.raises(ConfigError, match=r"holds no tokens .*job=tokenize output_dir="):
        train(tmp_path / "a", *SMALL, f"data.tokenized={tmp_path}", *STEPS)
    shutil.copytree(tokenized, tmp_path / "cut")
    file = next(folder_of(tmp_path / "cut", "forward").glob("*.arrow"))
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"1_train: the tokens are damaged"):
        train(tmp_path / "b", *SMALL, f"data.tokenized={tmp_path}/cut", *STEPS)


def test_a_run_does_not_go_on_from_a_folder_that_was_made_again(tmp_path):
    path = write_task(tmp_path, "code", 30)
    tokens, run = (
        tmp_path / "tokens",
        [*SMALL, f"data.tokenized={tmp_path}/tokens", "checkpoint.every_steps=1"],
    )
    train(tokens, *SMALL, "job=tokenize", f"data.paths=[{path}]")
    train(tmp_path / "run", *run, *STEPS)
    shutil.rmtree(tokens)
    lines = (path / "train.jsonl").read_text().splitlines()
    (path / "train.jsonl").write_text("\n".join(reversed(lines)) + "\n")
    train(tokens, *SMALL, "job=tokenize", f"data.paths=[{path}]")
    with pytest.raises(DataError, match="gone, and cannot be made again"):
        train(
            tmp_path / "run", *run, "train.max_steps=4", "resume=auto", "checkpoint.allow_changed_config=true"
        )


def test_preview_marks_targets_and_reports(tasks_dir, tmp_path, capsys):
    line = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a " * 300}]}
    extra = tmp_path / "extra" / "mixed.jsonl"
    extra.parent.mkdir()
    text = (tasks_dir / "forward" / "train.jsonl").read_text()
    extra.write_text(f"{text}{json.dumps(line)}\nnot json\n")
    tasks = [f"data.tasks.forward.path={tasks_dir}/forward", f"data.tasks.mixed.path={extra}"]
    policies = ["data.on_bad=skip", "data.on_overlong=skip", "job.samples=2"]
    train(tmp_path / "run", *SMALL, "job=preview", *tasks, *policies)
    shown = capsys.readouterr().out
    table = SampleTable.open(tmp_path / "run" / "data" / "train")
    first = json.loads(text.splitlines()[int(table.origin_line[0]) - 1])["chat_rounds"]
    question, answer = (turn["content"] for turn in first)
    assert f"<s>human\n{question}\n<s>bot\n⟦{answer}\n<|endoftext|>⟧" in shown
    assert shown.count("── forward") == shown.count("── mixed") == 2
    assert "mixed: format chat_rounds 60, messages 1; tokens of a sample: 50% " in shown
    assert f"  bad lines: 1:\n    {extra}:62: not JSON" in shown
    assert f"  over-long samples: 1:\n    {extra}:61: " in shown
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.startswith("pa")}
    assert set(rows) == {"packing", "padding", "padding_free"}
    assert int(rows["padding"][0]) == table.num_samples
    assert rows["padding_free"][2] == "0.0%"


def test_a_sample_shows_its_weights_and_its_length(tmp_path, capsys):
    rounds = [("human", "first question"), ("bot", "untrained"), ("human", "second"), ("bot", "trained")]
    turns = [{"role": role, "content": content, "train": content != "untrained"} for role, content in rounds]
    path = tmp_path / "task" / "a.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps({"chat_rounds": turns}) + "\n" for _ in range(5)))
    train(tmp_path / "run", *SMALL, "job=preview", f"data.paths=[{path.parent}]", "job.max_tokens=1000")
    shown = capsys.readouterr().out
    assert "untrained" in shown
    assert "⟦untrained" not in shown
    assert "⟦trained\n<|endoftext|>⟧" in shown
    train(tmp_path / "short", *SMALL, "job=preview", f"data.paths=[{path.parent}]", "job.max_tokens=3")
    table = SampleTable.open(tmp_path / "run" / "data" / "train")
    assert re.search(
        rf"<s> … {int(table.lengths[0]) - 3:,} tokens more … ⟦<\|endoftext\|>⟧\n", capsys.readouterr().out
    )


def test_every_row_mode_reads_each_token_once(tasks_dir, tmp_path):
    train(tmp_path, *overrides_for(tasks_dir, "job=preview", "rows=concat"))
    table = SampleTable.open(tmp_path / "data" / "train")
    everything = table.read(
        np.arange(table.num_samples), np.zeros(table.num_samples, np.int64), np.array(table.lengths)
    )
    assert len(everything) == table.lengths.sum()


def test_targets_are_green_on_a_terminal(tasks_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    train(tmp_path, *overrides_for(tasks_dir, "job=preview"))
    shown = capsys.readouterr().out
    assert "the tokens that are trained, are green" in shown
    assert re.search(r"<s>bot\n\x1b\[32m[a-z ]+\n<\|endoftext\|>\x1b\[0m", shown)
