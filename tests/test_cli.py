"""The command line as users see it: what runs, what is saved, and what errors say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_jobs import exit_code, work_folder

from mftrun import cli, hydra_plugin
from mftrun.compose import compose
from mftrun.lock import locked
from mftrun.paths import job_subdir, resource_dir, run_dir

FAKE = "fake_job_of_tests"
JOB = '''
import json

class Echo:
    """Writes down what it was given."""

    def __init__(self, fail: str | None = None) -> None:
        self.fail = fail

    def run(self, config, run_dir):
        (run_dir / "seen.json").write_text(json.dumps(config))
        if self.fail == "stop" or (self.fail == "seed1" and config["seed"] == 1):
            raise KeyboardInterrupt if self.fail == "stop" else ValueError("our own mistake")
        if self.fail == "disk":
            from mftrun.errors import DataError
            raise DataError("a.jsonl", 3, "is not right")
        return float(config["seed"])

class NotAJob:
    pass
'''
RunCli = Callable[..., int]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder to run in, with a job that can be imported, and a log that goes back to pytest."""
    with work_folder(tmp_path, monkeypatch, FAKE, JOB) as work:
        yield work


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch) -> RunCli:
    """Runs `main` in this process with the fake job; returns the exit code."""

    def run(*arguments: str, job: str | None = "Echo") -> int:
        chosen = [f"job._target_={FAKE}.{job}", f"allowed_targets=[{FAKE}]"] if job else []
        return exit_code(monkeypatch, *arguments, *chosen)

    return run


def runs(name: str = "mftrun") -> list[Path]:
    return sorted(path for path in Path("runs", name).iterdir())


def seen(run: Path) -> dict[str, Any]:
    return json.loads((run / "seen.json").read_text())


def checkpoint(run: Path, step: int) -> Path:
    path = run / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"step": step, "epoch_end": False, "files": {}}))
    return path


# --- what costs nothing -----------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--cfg", "job"]])
def test_help_and_config_import_nothing_heavy(arguments: list[str]) -> None:
    code = (
        f"import sys; sys.argv = {['mftrun', *arguments]!r}\n"
        "from mftrun.cli import main; main()\n"
        "heavy = {'torch', 'transformers', 'accelerate', 'peft', 'wandb', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment()
    )
    assert done.returncode == 0, done.stderr
    assert "tracker" in done.stdout
    assert list(Path().iterdir()) == []


def environment() -> dict[str, str]:
    root = str(Path(cli.__file__).parent.parent)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])}


def test_help_lists_every_group_and_option(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("--help", job=None) == 0
    text = capsys.readouterr().out
    for path in resource_dir("conf").glob("[!h]*/*.yaml"):
        line = next(line for line in text.splitlines() if line.startswith(f"{path.parent.name}:"))
        assert path.stem in line
    assert "python -m mftrun model=llama model.path=DIR" in text


# --- one run ----------------------------------------------------------------------------------------------


def test_a_run_has_one_directory_with_config_and_log(run_cli: RunCli) -> None:
    assert run_cli("seed=3") == 0
    (run,) = runs()
    names = {path.name for path in run.iterdir()}
    assert names == {".hydra", ".lock", "config.yaml", "mftrun.log", "seen.json"}
    assert yaml.safe_load((run / "config.yaml").read_text()) == seen(run)
    assert seen(run)["seed"] == 3
    assert seen(run)["output_dir"] == str(run.absolute())
    assert {path.name for path in Path().iterdir()} == {"runs"}


def test_two_runs_of_one_second_get_two_directories(run_cli: RunCli) -> None:
    assert [run_cli(), run_cli()] == [0, 0]
    assert len(runs()) == 2


def test_relative_paths_are_saved_absolute(run_cli: RunCli, folder: Path) -> None:
    Path("model").mkdir()
    arguments = [
        "data.tasks.a.path=tasks/a",
        "data.tasks.a.valid_path=v",
        "data.paths=[b]",
        "model.path=model",
    ]
    assert run_cli("model=llama", *arguments) == 0
    config = seen(runs()[0])
    assert config["data"]["tasks"]["a"] == {"path": str(folder / "tasks/a"), "valid_path": str(folder / "v")}
    assert config["data"]["paths"] == [str(folder / "b")]
    assert config["model"]["path"] == str(folder / "model")


def test_output_dir_wins_and_is_not_used_twice(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("output_dir=here") == 0
    assert Path("here/seen.json").exists()
    Path("here/checkpoints/step-00000001").mkdir(parents=True)
    assert run_cli("output_dir=here", "seed=9") == 1
    assert "output_dir: " in capsys.readouterr().err
    assert seen(Path("here"))["seed"] == 0


def test_a_folder_in_which_nothing_was_trained_is_used_again(run_cli: RunCli) -> None:
    assert run_cli("output_dir=here") == 0
    assert run_cli("output_dir=here", "seed=9") == 0
    assert seen(Path("here"))["seed"] == 9
    assert "seed: 9" in Path("here/config.yaml").read_text()


def test_two_processes_do_not_share_a_folder(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    Path("here").mkdir()
    with locked(Path("here")):
        assert run_cli("output_dir=here") == 1
        assert "another process is running" in capsys.readouterr().err
    assert run_cli("output_dir=here") == 0


@pytest.mark.parametrize("place", ["file/run", "file", "/proc/nowhere/run"])
def test_a_folder_that_cannot_be_written_is_named(
    run_cli: RunCli, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    Path("file").write_text("in the way")
    assert run_cli(f"output_dir={place}") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: output_dir: cannot write")
    assert place in error
    assert "Traceback" not in error
    assert Path("file").read_text() == "in the way"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_named(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    Path("closed").mkdir(mode=0o555)
    assert run_cli("output_dir=closed/run") == 1
    assert capsys.readouterr().err.startswith("error: output_dir: cannot write")


def test_ctrl_c_exits_with_130(run_cli: RunCli) -> None:
    assert run_cli("+job.fail=stop") == 130


# --- errors -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train.max_step=3"], "train.max_step: there is no such key; did you mean train.max_steps?"),
        (["+train.max_step=3"], "train.max_step: there is no such key; did you mean train.max_steps?"),
        (["~train.max_step"], "did you mean train.max_steps?"),
        (["lr=1"], "did you mean optimizer.lr?"),
        (["modle=llama"], "did you mean model?"),
        (["model=llama", "model.pth=x"], "did you mean model.path?"),
        (["model=auto"], "model.path: needs a value"),
        (["loss=mtf"], "loss=mtf: there is no such option of loss; did you mean mft?"),
        (["loss=zzz"], "known: coba, dro, dwa, famo, focal, gradnorm, lbtw, mft, sample_mean"),
        (
            ["loss/weighting=cobra"],
            "loss/weighting=cobra: there is no such option of loss/weighting; did you mean",
        ),
        (["loss=coba", "loss.weighting.weights.a=2"], "it belongs to loss/weighting=static"),
        (["peft=null"], "peft: null is not an option; choose one of c3a, delora"),
        (["+train.max_steps=3"], "write train.max_steps=VALUE without the +"),
        (["+foo.bar=1"], "foo: there is no such key"),
        (["train.max_steps=many"], "train.max_steps: must be a valid integer, not 'many'"),
        (["optimizer.lr=fast"], "optimizer.lr: must be a valid number, not 'fast'"),
        (["loss.weighting.weights.write_fun=2"], "did you mean loss.weighting.weights.write_function?"),
        (["data.tasks.a.pth=x"], "data.tasks.a.pth: there is no such key; did you mean data.tasks.a.path?"),
        (["model._target_=os.system"], "model._target_: os.system is not allowed"),
        (["name=a/../../b"], "name: must be text that can name a folder"),
        (["name=null"], "name: must be text"),
        (["seed=[1"], "seed=[1: cannot be read"),
        (["template.end_token=<|x|>"], "quote the value inside quotes: 'template.end_token=\"<|x|>\"'"),
        (["seed=1,2"], "--multirun"),
        (["+job.fial=x"], "did you mean job.fail?"),
        (["+job.fail=disk"], "a.jsonl:3: is not right"),
        (["resume=nowhere"], "resume: nowhere does not exist"),
        (["rerun=nowhere"], "rerun: nowhere is not the directory of a run"),
    ],
)
def test_errors_are_one_clear_message(
    run_cli: RunCli, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    assert run_cli(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert words in error
    assert "Traceback" not in error
    assert error.count("error: ") == 1


def test_a_job_must_be_a_job(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli(job="NotAJob") == 1
    assert "which is not a Job" in capsys.readouterr().err


def test_the_error_is_in_the_log_too(run_cli: RunCli) -> None:
    run_cli("+job.fail=disk")
    assert "a.jsonl:3: is not right" in (runs()[0] / "mftrun.log").read_text()


def test_our_own_mistakes_show_their_traceback(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_cli("seed=1", "+job.fail=seed1") == 1
    error = capsys.readouterr().err
    assert "Traceback" in error
    assert "our own mistake" in error


def test_hydra_full_error_shows_tracebacks(
    run_cli: RunCli, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    assert run_cli("+job.fail=disk") == 1
    assert "Traceback" in capsys.readouterr().err
    assert os.environ["HYDRA_FULL_ERROR"] == "1"


def test_the_environment_is_left_as_it_was(run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    before = dict(os.environ)
    run_cli("train.max_step=3")
    assert dict(os.environ) == before


# --- several runs -----------------------------------------------------------------------------------------


def test_a_sweep_has_one_directory_with_a_folder_for_each_job(run_cli: RunCli) -> None:
    assert run_cli("-m", "seed=1,2", "train.max_steps=5") == 0
    (sweep,) = runs("sweeps/mftrun")
    jobs = sorted(path for path in sweep.iterdir() if path.is_dir())
    assert [path.name.split("_")[0] for path in jobs] == ["0", "1"]
    assert [seen(path)["seed"] for path in jobs] == [1, 2]
    assert [seen(path)["output_dir"] for path in jobs] == [str(path.absolute()) for path in jobs]
    assert not Path("runs/mftrun").exists()


def test_a_failing_job_of_a_sweep_hides_neither_the_others_nor_its_error(
    run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("-m", "seed=a,2") == 1
    (sweep,) = runs("sweeps/mftrun")
    assert [seen(path)["seed"] for path in sorted(sweep.glob("1_*"))] == [2]
    error = capsys.readouterr().err
    assert "seed: must be a valid integer, not 'a'" in error.splitlines()[-1]
    assert "Traceback" not in error


def test_job_folders_have_short_safe_names() -> None:
    name = job_subdir(7, "data.tasks.code.path=/long/way/to/code,loss=mft,model.path=/m/llama 2," + "x" * 300)
    assert name.startswith("7_path=code_loss=mft_path=llama-2_")
    assert len(name) <= 100
    assert job_subdir(0, "") == "0"


# --- rerun and resume -------------------------------------------------------------------------------------


def test_rerun_repeats_a_run_in_a_new_directory(run_cli: RunCli, tmp_path: Path) -> None:
    Path("m").mkdir()
    choices = ["model=llama", "model.path=m", "peft=lora", "loss=token_mean", "data.tasks.a.path=a", "seed=4"]
    assert run_cli(*choices) == 0
    (first,) = runs()
    assert run_cli(f"rerun={first}", job=None) == 0
    second = runs()[1]
    before, after = seen(first), seen(second)
    assert after.pop("output_dir") != before.pop("output_dir")
    assert after.pop("rerun") == str(first.absolute())
    assert before.pop("rerun") is None
    assert before == after


def test_rerun_takes_values_on_top(run_cli: RunCli) -> None:
    run_cli("data.tasks.a.path=a")
    (first,) = runs()
    values = ["seed=8", "data.tasks.b.path=b", "loss.weighting.weights.b=2"]
    assert run_cli(f"rerun={first}", *values, job=None) == 0
    config = seen(runs()[1])
    assert (config["seed"], list(config["data"]["tasks"])) == (8, ["a", "b"])
    assert config["loss"]["weighting"]["weights"] == {"b": 2}


def test_rerun_refuses_other_options_and_unknown_keys(
    run_cli: RunCli, capsys: pytest.CaptureFixture[str]
) -> None:
    run_cli()
    (first,) = runs()
    assert run_cli(f"rerun={first}", "loss=token_mean", job=None) == 1
    assert "loss: rerun keeps the options of the run it repeats" in capsys.readouterr().err
    assert run_cli(f"rerun={first}", "train.max_step=1", job=None) == 1
    assert "did you mean train.max_steps?" in capsys.readouterr().err
    assert len(runs()) == 1


@pytest.mark.parametrize("content", ["[1, 2", "just text", "{}"])
def test_rerun_of_a_broken_run_is_refused(
    run_cli: RunCli, capsys: pytest.CaptureFixture[str], content: str
) -> None:
    Path("broken").mkdir()
    Path("broken/config.yaml").write_text(content)
    assert run_cli("rerun=broken") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: rerun: ")
    assert "broken/config.yaml" in error


def test_rerun_and_resume_go_on_without_retyping(run_cli: RunCli) -> None:
    run_cli("seed=6")
    (first,) = runs()
    checkpoint(first, 5)
    saved = (first / "config.yaml").read_text()
    assert run_cli(f"rerun={first}", f"resume={first}", job=None) == 0
    assert runs() == [first]
    assert seen(first)["seed"] == 6
    assert seen(first)["resume"] == str(first.absolute())
    assert (first / "config.yaml").read_text() == saved


def test_rerun_of_a_resumed_run_starts_from_the_beginning(run_cli: RunCli) -> None:
    checkpoint(Path("old"), 5)
    assert run_cli("resume=old") == 0
    assert run_cli("rerun=old", job=None) == 0
    assert seen(runs()[0])["resume"] is None


@pytest.mark.parametrize("part", ["", "checkpoints/step-00000005"])
def test_resume_by_path_goes_on_in_that_run(run_cli: RunCli, part: str) -> None:
    checkpoint(Path("runs/old/then"), 5)
    assert run_cli(f"resume=runs/old/then/{part}") == 0
    assert Path("runs/old/then/seen.json").exists()
    assert not Path("runs/mftrun").exists()


def test_resume_auto_takes_the_newest_unfinished_run_of_this_name() -> None:
    parent = Path("runs/a").absolute()
    for number, name in enumerate(("early", "late", "finished", "empty")):
        if name == "empty":
            (parent / name / "checkpoints").mkdir(parents=True)
            continue
        os.utime(checkpoint(parent / name, 5), (number, number))
    (parent / "finished" / "summary.json").write_text("{}")
    assert run_dir("a", "auto", None) == str(parent / "late")


def test_resume_auto_without_anything_to_resume_is_a_new_run() -> None:
    made = Path(run_dir("a", "auto", None))
    assert made.parent == Path("runs/a").absolute()
    assert run_dir("a", "auto", None) != str(made)


def test_resume_of_a_cut_checkpoint_is_refused(run_cli: RunCli, capsys: pytest.CaptureFixture[str]) -> None:
    path = checkpoint(Path("run"), 5)
    (path / "manifest.json").write_text("{")
    assert run_cli(f"resume={path}") == 1
    assert "resume: " in capsys.readouterr().err
    assert run_cli("resume=run") == 1
    assert "no complete checkpoint" in capsys.readouterr().err


# --- Hydra ------------------------------------------------------------------------------------------------


def test_any_name_may_be_added_to_the_open_mappings_only() -> None:
    config = compose(["data.tasks.new.path=/x", "loss.weighting.weights.new=2"])
    assert config["data"]["tasks"] == {"new": {"path": "/x"}}
    assert config["loss"]["weighting"]["weights"] == {"new": 2}


def test_launchers_are_on_the_search_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "hydra" / "launcher").mkdir(parents=True)
    (tmp_path / "hydra" / "launcher" / "ours.yaml").write_text("_target_: somewhere.Launcher\n")
    monkeypatch.setattr(hydra_plugin, "resource_dir", lambda _: tmp_path)
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir

    with initialize_config_dir(version_base="1.3", config_dir=str(resource_dir("conf"))):
        cfg = hydra_compose("config", ["hydra/launcher=ours"], return_hydra_config=True)
    assert cfg.hydra.launcher._target_ == "somewhere.Launcher"
