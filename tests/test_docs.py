"""Every command in README.md and docs/ runs, with the user's folders replaced by small ones."""

import json
import re
import shlex
from pathlib import Path

import pytest
from commands import mftrun
from datasets import Dataset, DatasetDict
from runs import SMALL, overrides_for, train, write_task

from mftrun.files import write_atomically
from mftrun.scoring.competition import competition_rows

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
SHORT = ["train.max_steps=2", "tracker.wandb=null", "++data.max_length=96", "train.global_batch_size=4"]
SANDBOX = "sandbox.allow_unsafe=true"  # where there is none: what is run is harmless
SHORT_JOBS = {
    "generate": ["job.max_new_tokens=5"],
    "generate_benchmark": ["job.max_new_tokens=5", "job.problems=1"],
    "evaluate": ["job.max_new_tokens=5", "job.problems=1", SANDBOX],
    "score": ["job.problems=2", SANDBOX],
    "submit": [],
}


def commands(page):
    blocks = re.findall(r"```sh\n(.*?)```", page.read_text(), flags=re.DOTALL)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [line for line in lines if line.startswith("python -m mftrun")]


COMMANDS = sorted({command for page in PAGES for command in commands(page)})


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A folder with a small Llama, two tasks, and a finished run named `first`."""
    folder = tmp_path_factory.mktemp("home")
    for name in ("text2code", "unit_tests", "text2code_valid"):
        write_task(folder / "data", name, 30)
    train(folder / "base", *overrides_for(folder / "data", "train.max_steps=1"))
    (folder / "models").mkdir()
    (folder / "base" / "model").rename(folder / "models" / "my-llama")
    rows = [json.loads(line) for line in (folder / "data/text2code/train.jsonl").read_text().splitlines()]
    DatasetDict({"train": Dataset.from_list(rows)}).save_to_disk(folder / "data" / "saved")
    pairs = ({"title": f"Question {number}?", "best": f"answer {number}"} for number in range(30))
    (folder / "data" / "qa.jsonl").write_text("".join(f"{json.dumps(pair)}\n" for pair in pairs))
    write_benchmarks(folder / "data" / "eval")
    write_solutions(folder / "data" / "answers", {"humaneval": 2})
    write_solutions(folder / "data" / "finished", competition_rows())
    return folder


def write_benchmarks(folder):
    """A row of each language of HumanEvalPack and of MBPP."""
    texts = ("prompt", "declaration", "canonical_solution", "buggy_solution", "test", "instruction")
    others = ("import", "test_setup", "example_test", "signature", "docstring")
    row = dict.fromkeys((*texts, *others), "x") | {"task_id": "0", "entry_point": "x"}
    for language in ("python", "java", "js", "cpp", "go", "rust"):
        write_atomically(folder / "humanevalpack" / f"{language}.jsonl", json.dumps(row))
    mbpp = {"task_id": 11, "text": "x", "code": "x", "test_setup_code": "", "test_list": ["x"]}
    write_atomically(folder / "mbpp.jsonl", json.dumps(mbpp))


def write_solutions(folder, rows):
    """Solutions of a model, so many of each benchmark."""
    for name, count in rows.items():
        solutions = json.dumps([["x"]] * count)
        write_atomically(folder / "generations_mine" / f"generations_{name}_mine.json", solutions)


def test_the_documents_hold_commands():
    assert len(COMMANDS) > 12


@pytest.mark.parametrize("command", COMMANDS)
def test_command_of_the_documents(home, command):
    _, _, _, *arguments = shlex.split(command)
    arguments = [re.sub(r"(?<=[=\[,])/(?=models|data)", f"{home}/", argument) for argument in arguments]
    if "rerun=runs/first" in arguments and not (home / "runs" / "first" / "config.yaml").exists():
        mftrun(home, "output_dir=runs/first", *small(["output_dir=runs/first"]))
    if f"data.tokenized={home}/data/tokens" in arguments:
        tasks = f"data.paths=[{home}/data/text2code]"
        model = ["model=llama", f"model.path={home}/models/my-llama"]
        mftrun(home, "job=tokenize", *model, tasks, f"output_dir={home}/data/tokens")
    if f"data.tokenized={home}/data/balance" in arguments:
        tasks = f"data.paths=[{home}/data/text2code,{home}/data/unit_tests]"
        tokens = f"output_dir={home}/data/balance"
        mftrun(home, "job=tokenize", "experiment=balance", tasks, tokens, *SMALL[1:5])
    done = mftrun(home, *arguments, *small(arguments))
    assert done.returncode == 0, done.stdout


def small(arguments):
    """What makes a command short: fewer steps, a smaller model where it is ours."""
    if any(argument.startswith("--") for argument in arguments):
        return []
    if any(argument.startswith("rerun=") for argument in arguments):
        return ["train.max_steps=2"]
    if job := [short for name, short in SHORT_JOBS.items() if f"job={name}" in arguments]:
        return job[0]
    groups = {argument.partition("=")[0].partition(".")[0] for argument in arguments}
    model = [] if "model" in groups else SMALL[1:5]
    data = [] if "data" in groups else ["data.on_overlong=truncate"]
    few = ["data.valid_min=5", "data.valid_max=5"] if "experiment=balance" in arguments else []
    scored = [SANDBOX] if any(one.startswith("evaluation.benchmarks=") for one in arguments) else []
    return [*model, *data, *few, *scored, *SHORT]
