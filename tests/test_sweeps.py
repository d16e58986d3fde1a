"""Sweeps: what a repeated command does again, how jobs end, what a sweeper gets, which jobs end early."""

from __future__ import annotations

import copy
import json
import math
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import mftrun
from fake_jobs import exit_code, work_folder
from hydra.core.config_store import ConfigStore
from runs import overrides_for

from mftrun.compose import compose
from mftrun.errors import ConfigError, MftrunError
from mftrun.lock import is_locked, locked
from mftrun.paths import job_subdir, resource_dir, sweep_dir
from mftrun.schema import check
from mftrun.sweeps.asked import Asked
from mftrun.sweeps.outcome import Finished, finished
from mftrun.sweeps.sweep import Sweep, Tally
from mftrun.training.pruning import MedianRule, Pruner
from mftrun.training.stopping import EarlyStopping

FAKE = "fake_job_of_sweeps"
JOB = '''
import json
from pathlib import Path

class Fake:
    """Fails or stops as a file named after the job's seed says; else it is done."""

    def run(self, config, run_dir):
        seed = config["seed"]
        with Path("ran").open("a") as ran:
            ran.write(f"{seed} {config['resume']}\\n")
        for word, error in (("fail", ValueError), ("stop", KeyboardInterrupt)):
            if Path(f"{word}{seed}").exists():
                raise error("it came to nothing")
        (run_dir / "summary.json").write_text("{}")
        return abs(config["optimizer"]["lr"] - 0.001) * 1000 + seed
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

    def run(*arguments: str) -> int:
        chosen = [f"job._target_={FAKE}.Fake", f"allowed_targets=[{FAKE}]"]
        return exit_code(monkeypatch, *arguments, *chosen)

    return run


def ran() -> list[str]:
    """Seed and `resume` of the jobs that ran since it was asked last."""
    path = Path("ran")
    lines = path.read_text().splitlines() if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def sweeps(name: str = "mftrun") -> list[Path]:
    return sorted(Path("runs/sweeps", name).iterdir())


def names(sweep: Path) -> list[str]:
    return sorted(path.name for path in sweep.iterdir() if path.is_dir())


def add_checkpoint(run: Path, step: int = 5) -> None:
    path = run / "checkpoints" / f"step-{step:08d}"
    path.mkdir(parents=True)
    (path / "manifest.json").write_text(json.dumps({"step": step, "epoch_end": False, "files": {}}))


# --- a repeated command -----------------------------------------------------------------------------------


def test_a_repeated_sweep_runs_what_is_not_done(run_cli: RunCli, capfd: pytest.CaptureFixture[str]) -> None:
    Path("fail2").touch()
    assert run_cli("-m", "seed=1,2,3") == 1
    assert ran() == ["1 None", "2 None", "3 None"]
    (sweep,) = sweeps()
    failure = json.loads((sweep / "1_seed=2" / "failure.json").read_text())
    assert failure["message"] == "it came to nothing"
    assert failure["traceback"] == "ValueError: it came to nothing"
    assert "finished 2 (pruned 0), failed 1, unfinished 0; the same command" in capfd.readouterr().err

    Path("fail2").unlink()
    assert run_cli("-m", "seed=1,2,3") == 0
    assert ran() == ["2 None"]
    assert sweeps() == [sweep]
    assert names(sweep) == ["0_seed=1", "1_seed=2", "2_seed=3"]
    assert not list(sweep.glob("*/failure.json"))
    assert f"going on with the sweep in {sweep.absolute()}: finished 2" in capfd.readouterr().err

    assert run_cli("-m", "seed=1,2,3") == 0
    assert ran() == []


def test_a_stopped_job_goes_on_from_its_checkpoint(run_cli: RunCli) -> None:
    Path("stop2").touch()
    assert run_cli("-m", "seed=2,3") == 130
    assert ran() == ["2 None"]
    (sweep,) = sweeps()
    assert not list(sweep.glob("*/failure.json"))
    add_checkpoint(sweep / "0_seed=2")
    Path("stop2").unlink()
    assert run_cli("-m", "seed=2,3") == 0
    assert ran() == ["2 auto", "3 None"]


def test_the_newest_sweep_that_was_asked_for_the_same_is_taken() -> None:
    made = []
    for age, overrides in enumerate((["seed=1,2"], ["seed=1,2", "resume=never"], ["seed=1,2", "loss=coba"])):
        made.append(sweep_dir("a", "never", None, overrides))
        Asked.of(overrides, None).note(Path(made[-1]))
        os.utime(Path(made[-1], "multirun.yaml"), (age, age))
    assert len({*made}) == 3
    assert sweep_dir("a", None, None, ["seed=1,2"]) == made[1]
    assert sweep_dir("a", None, None, ["seed=1,2", "loss=coba"]) == made[2]
    assert sweep_dir("a", None, None, ["seed=2,1"]) not in made
    assert sweep_dir("a", None, None, ["seed=1,2"], {"params": {"loss": "mft"}}) not in made
    assert sweep_dir("a", None, None, ["seed=1,2"], {"_target_": "Optuna"}) not in made
    assert sweep_dir("b", None, None, ["seed=1,2"]) not in made


def test_a_sweep_that_runs_is_not_joined(run_cli: RunCli, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("-m", "seed=choice(1)") == 0
    (sweep,) = sweeps()
    assert not is_locked(sweep)
    ran()
    with locked(sweep):
        assert run_cli("-m", "seed=choice(1)") == 1
    error = capfd.readouterr().err
    assert f"error: resume: this sweep is running in {sweep.absolute()}" in error
    (sweep / "0_seed=1" / "summary.json").unlink()
    with locked(sweep / "0_seed=1"):  # by a scheduler, when the command that submitted it is gone
        assert run_cli("-m", "seed=choice(1)") == 1
    assert "error: resume: this sweep is running" in capfd.readouterr().err
    assert ran() == []


def test_a_folder_of_hydra_alone_is_refused(run_cli: RunCli, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("-m", "seed=1,2", "hydra.sweep.dir=here") == 1
    assert "hydra.sweep.dir: does not say where a sweep goes; say output_dir=here" in capfd.readouterr().err
    assert not Path("here").exists()
    assert run_cli("-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=grid", "seed=1,2") == 1
    assert "hydra/sweeper/sampler: grid is what a sweep without Optuna runs" in capfd.readouterr().err


@pytest.mark.parametrize("age", [0, 60])
def test_an_old_failure_is_not_of_this_command(folder: Path, age: int) -> None:
    time = (datetime.now(UTC) - timedelta(seconds=age)).isoformat(timespec="seconds")
    with (
        pytest.raises(MftrunError, match="1 jobs of the sweep") if age == 0 else nullcontext(),
        Sweep() as sweep,
    ):
        sweep._place("x", None, "here", ["seed=1,2"], None)
        (folder / "here" / "0_seed=1" / ".hydra").mkdir(parents=True)
        failure = {"message": "it came to nothing", "time": time}
        (folder / "here" / "0_seed=1" / "failure.json").write_text(json.dumps(failure))


def test_a_folder_that_is_named_may_get_more_jobs_but_no_others(
    run_cli: RunCli, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run_cli("-m", "seed=choice(1)", "output_dir=here") == 0
    assert run_cli("-m", "seed=1,2", "output_dir=here") == 0
    assert ran() == ["1 None", "2 None"]
    assert run_cli("-m", "seed=choice(1)", "output_dir=here", "train.max_steps=9") == 1
    assert "holds a finished job with other settings (train.max_steps: " in capfd.readouterr().err
    assert run_cli("-m", "seed=1,2", "output_dir=here") == 0  # of which nothing is left
    assert run_cli("-m", "seed=1,2", "output_dir=here", "resume=never") == 1
    assert "resume: " in capfd.readouterr().err
    assert ran() == []


def test_single_runs_record_failures_but_not_refusals(run_cli: RunCli) -> None:
    Path("fail0").touch()
    assert run_cli("output_dir=here") == 1
    assert json.loads(Path("here/failure.json").read_text())["error"] == "ValueError"
    assert run_cli("output_dir=here", "+train.nothing=1") == 1
    assert json.loads(Path("here/failure.json").read_text())["error"] == "ValueError"
    Path("fail0").unlink()
    assert run_cli("output_dir=here", "resume=never") == 0
    assert not Path("here/failure.json").exists()
    assert json.loads(Path("here/summary.json").read_text())["pruned"] is None
    assert ran() == ["0 None", "0 None"]


def test_the_metric_of_a_job_killed_at_its_very_end_is_measured(tmp_path: Path) -> None:
    config = compose(["evaluation.early_stopping.metric=worst"])
    (tmp_path / "summary.json").write_text("{}")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    losses = [(0, 5.0, 4.0), (1, 2.0, 3.0), (2, 1.0, 3.5), (3, None, 0.0)]
    lines = [{"step": step, "valid/loss/a": a, "valid/loss/b": b} for step, a, b in losses]
    lines.append({"step": 3, "pruned": 1.0})
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert finished(tmp_path, config) == Finished(3.0, 3)
    lines.append({"step": 4, "valid/loss/a": 9.0, "valid/loss/b": 9.0})  # it was told to go on
    (tmp_path / "metrics.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    assert finished(tmp_path, config) == Finished(3.0, None)


def test_a_pruned_job_is_not_taken_for_one_with_other_rules(tmp_path: Path) -> None:
    config = compose([])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    changed = copy.deepcopy(config)
    changed["evaluation"]["pruning"]["warmup"] = 7
    for pruned in (None, 4):
        (tmp_path / "summary.json").write_text(json.dumps({"metric": 1.0, "pruned": pruned}))
        assert finished(tmp_path, config) == Finished(1.0, pruned)
        if pruned is None:
            assert finished(tmp_path, changed) == Finished(1.0, None)
    with pytest.raises(ConfigError, match=r"evaluation\.pruning\.warmup: 0 -> 7"):
        finished(tmp_path, changed)


# --- folders and keys -------------------------------------------------------------------------------------


def test_what_was_asked_for_is_read_back(tmp_path: Path) -> None:
    asked = Asked.of(
        ["loss=mft,coba", "+a.b=choice(1,2)", "name=x"], {"params": {"lr": "tag(log, interval(1, 2))"}}
    )
    asked.note(tmp_path)
    read = Asked.read(tmp_path)
    assert read == asked
    assert asked.swept() == {"loss", "a.b", "lr"}
    assert job_subdir(3, "+a.b=1,loss=mft,lr=1.5,name=x", str(tmp_path)) == "3_b=1_loss=mft_lr=1.5"
    assert asked.is_same(Asked.of([*asked.overrides, "resume=never"], {**asked.sweeper, "n_trials": 3}))
    assert not asked.is_same(Asked.of(asked.overrides))
    for broken in ("{", "[]", "hydra: 3", "hydra: {overrides: 1}"):
        (tmp_path / "multirun.yaml").write_text(broken)
        assert Asked.read(tmp_path) is None


def test_a_sweep_can_be_taken_along_by_launchers(tmp_path: Path) -> None:
    with Sweep() as sweep:
        place = sweep._place("x", None, str(tmp_path), ["seed=1,2"], None)
        assert is_locked(Path(place))
        assert pickle.loads(pickle.dumps(sweep)).folder is None
    assert not is_locked(tmp_path)
    assert Tally.of(tmp_path).is_empty


# --- Optuna -----------------------------------------------------------------------------------------------

OPTUNA = ("-m", "hydra/sweeper=optuna", "hydra/sweeper/sampler=random", "optimizer.lr=interval(0.0001, 0.01)")


def choices(sweep: Path) -> list[float]:
    study = json.loads((sweep / "study.json").read_text())
    return [study[str(number)]["optimizer.lr"] for number in range(len(study))]


def test_optuna_goes_on_with_its_study(run_cli: RunCli) -> None:
    pytest.importorskip("optuna")
    Path("fail0").touch()
    assert run_cli(*OPTUNA, "seed=0", "hydra.sweeper.n_trials=2") == 1
    (sweep,) = sweeps()
    first = choices(sweep)
    assert len(set(first)) == 2
    Path("fail0").unlink()
    assert run_cli(*OPTUNA, "seed=0", "hydra.sweeper.n_trials=3") == 0
    assert sweeps() == [sweep]
    assert choices(sweep)[:2] == first
    assert len(set(choices(sweep))) == 3
    assert [name.partition("_")[0] for name in names(sweep)] == ["0", "1", "2"]
    best = yaml.safe_load((sweep / "optimization_results.yaml").read_text())
    assert best["best_params"]["optimizer.lr"] == min(choices(sweep), key=lambda lr: abs(lr - 0.001))
    ran()
    # Were they chosen anew, others would follow: the sampler's seed is another.
    assert run_cli(*OPTUNA, "seed=0", "hydra.sweeper.n_trials=3", "hydra.sweeper.sampler.seed=7") == 0
    assert ran() == []


def test_without_the_extra_a_sweep_by_optuna_says_so(
    run_cli: RunCli, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(ConfigStore.instance().repo["hydra"]["sweeper"], "sampler", raising=False)
    assert run_cli("+sweep=lr_optuna") == 1
    assert 'hydra/sweeper: optuna is not installed: pip install "mftrun[sweep]"' in capfd.readouterr().err


@pytest.mark.parametrize("name", sorted(path.stem for path in (resource_dir("conf") / "sweep").glob("*")))
def test_presets_name_what_is_there(name: str) -> None:
    assert ConfigStore.instance().load("hydra/sweeper/optuna.yaml") is not None
    check(compose([f"+sweep={name}"]))
    preset = yaml.safe_load((resource_dir("conf") / "sweep" / f"{name}.yaml").read_text())
    assert preset["hydra"]["mode"] == "MULTIRUN"
    for value in preset["hydra"]["sweeper"]["params"].get("loss", "mft").split(","):
        assert (resource_dir("conf") / "loss" / f"{value}.yaml").exists()


def test_a_preset_needs_no_flag_and_two_go_together(run_cli: RunCli) -> None:
    assert run_cli("+sweep=[seeds,losses]", "loss=mft,coba", "seed=5") == 0
    (sweep,) = sweeps()
    assert names(sweep) == ["0_loss=mft_seed=5", "1_loss=coba_seed=5"]


# --- pruning ----------------------------------------------------------------------------------------------


def curve(*losses: dict[str, float]) -> dict[int, dict[str, float]]:
    return dict(enumerate(losses))


OTHERS = [curve({"a": 9, "b": 9}, {"a": value, "b": 4 - value}) for value in (1.0, 2.0, 3.0)]


@pytest.mark.parametrize(
    ("metric", "a", "b", "ends"),
    [
        ("mean", 2.0, 2.0, False),
        ("mean", 2.5, 2.0, True),
        ("worst", 3.0, 0.0, False),
        ("worst", 3.1, 0.0, True),
        ("any", 2.0, 2.0, False),
        ("any", 0.0, 2.1, True),
        ("a", 2.0, 9.0, False),
        ("a", 2.1, 0.0, True),
        ("mean", math.inf, 0.0, True),
    ],
)
def test_a_run_above_the_median_ends(metric: str, a: float, b: float, ends: bool) -> None:
    own = curve({"a": 9, "b": 9}, {"a": a, "b": b})
    assert (MedianRule(3, metric=metric).verdict(own, OTHERS, 1) is not None) == ends


def test_pruning_waits_for_others_and_for_its_warmup() -> None:
    bad = curve({"a": 99.0, "b": 99.0}, {"a": 9.0, "b": 9.0})
    assert MedianRule(3).verdict(bad, OTHERS, 1) is not None
    assert MedianRule(4).verdict(bad, OTHERS, 1) is None
    assert MedianRule(3, warmup=2).verdict(bad, OTHERS, 1) is None
    assert MedianRule(3).verdict(bad, OTHERS, 0) is None, "nothing is trained yet"
    assert MedianRule(1).verdict({**bad, 2: {"a": 9.0}}, OTHERS, 2) is None, "nobody has got as far"


def test_a_run_is_measured_by_its_best() -> None:
    own = curve({"a": 1.0, "b": 1.0}, {"a": 9.0, "b": 9.0})
    assert MedianRule(3).verdict(own, OTHERS, 1) is None


def test_metrics_of_others_may_be_torn_or_not_finite(tmp_path: Path) -> None:
    lines = ['{"step": 0, "valid/loss": 9, "valid/loss/a": 9}', '{"step": 1, "valid/loss": null, ']
    good = '"valid/loss/a": null}'
    for name, text in {"x": lines[1] + good, "y": lines[0] + "\n" + lines[1], "own": lines[0]}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text(text)
    pruner = Pruner(MedianRule(1), tmp_path / "own")
    assert pruner.verdict(1, {"a": 8.0}) is None
    (tmp_path / "y" / "metrics.jsonl").write_text('{"step": 1, "valid/loss": 1, "valid/loss/a": 1}')
    (tmp_path / "x" / "metrics.jsonl").unlink()
    assert "loss 8.0000 by step 1" in str(pruner.verdict(1, {"a": 8.0}))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["evaluation.pruning.metric=wurst"], "evaluation.pruning.metric: .*worst"),
        (["evaluation.pruning.siblings=0"], "evaluation.pruning.siblings"),
        (["evaluation.pruning.siblings=2", "evaluation.every=null"], "evaluation.every: pruning needs"),
        (["evaluation.pruning.siblings=2", "data.valid_fraction=0"], "no validation data to compare"),
        (["evaluation.early_stopping.metric=any"], "evaluation.early_stopping.metric"),
        (["data.tasks.worst.path=x"], "data.tasks.worst: worst stands for all tasks"),
    ],
)
def test_pruning_that_cannot_act_is_refused(overrides: list[str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        check(compose(overrides))


def test_pruning_a_single_run_is_refused(run_cli: RunCli, capfd: pytest.CaptureFixture[str]) -> None:
    assert run_cli("evaluation.pruning.siblings=2") == 1
    assert "evaluation.pruning.siblings: compares the jobs of a sweep" in capfd.readouterr().err
    assert run_cli("-m", "evaluation.pruning.siblings=2") == 0


def test_the_worst_task_is_watched() -> None:
    watch = EarlyStopping(metric="worst")
    assert watch.watched({"a": 1.0, "b": 3.0}) == 3.0
    assert math.isnan(float(watch.watched({"a": 1.0, "b": math.nan}) or 0))
    assert watch.watched({}) is None


def test_a_sweep_prunes_and_goes_on_past_what_is_done(tasks_dir: Path, folder: Path) -> None:
    steps = ["train.max_steps=6", "evaluation.every=2", "evaluation.pruning.siblings=1", "tracker=none"]
    arguments = ["-m", *overrides_for(tasks_dir, *steps), "optimizer.lr=0.01,1e-9"]
    done = mftrun(folder, *arguments)
    assert done.returncode == 0, done.stdout
    good, bad = (summary_of(path) for path in sorted(folder.glob("runs/sweeps/*/*/*/summary.json")))
    assert (good["steps"], good["pruned"]) == (6, None)
    assert (bad["steps"], bad["pruned"]) == (2, 2)
    assert good["metric"] < bad["metric"]
    assert "others of the sweep do better: mean loss" in done.stdout
    assert "stopping early: pruned at step 2" in done.stdout
    assert "finished 2 (pruned 1), failed 0" in done.stdout
    again = mftrun(folder, *arguments)
    assert again.returncode == 0, again.stdout
    assert again.stdout.count("finished before: ") == 2
    (worse,) = folder.glob("runs/sweeps/*/*/1_*/summary.json")
    worse.unlink()  # killed while the model was written
    third = mftrun(folder, *arguments)
    assert "resumed at step 2" in third.stdout, third.stdout
    assert [summary_of(worse)[key] for key in ("steps", "pruned", "metric")] == [2, 2, bad["metric"]]


def summary_of(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text())
