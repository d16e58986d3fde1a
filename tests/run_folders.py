"""Folders of runs as they lie on disk, without running any."""

import datetime
import fcntl
import json
import pickle
from contextlib import contextmanager

import yaml

START = datetime.datetime(2026, 1, 31, 10, tzinfo=datetime.UTC)


def time_at(seconds):
    return (START + datetime.timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def settings(**changes):
    """A resolved config: as much of one as matters here."""
    config = {
        "name": "demo",
        "seed": 0,
        "output_dir": "/somewhere",
        "train": {"max_steps": 40, "epochs": None, "global_batch_size": 8},
        "loss": {"_target_": "mftrun.losses.objective.Objective"},
        "job": {"_target_": "mftrun.jobs.train.TrainJob"},
        "tracker": {"wandb": None},
    }
    return {**config, **changes}


def evaluation(step, **losses):
    """A validation record; the mean is its own."""
    values = {f"valid/loss/{task}": loss for task, loss in losses.items()}
    return {"step": step, "valid/loss": sum(losses.values()) / len(losses), **values}


def training(step, weights=None, **losses):
    values = {f"train/loss/{task}": loss for task, loss in losses.items()}
    shares = {f"weight/{task}": weight for task, weight in (weights or {}).items()}
    mean = sum(losses.values()) / len(losses)
    return {"step": step, "train/loss": mean, **values, **shares, "tokens_per_second": 1000.0}


def write_run(path, config=None, records=(), summary=None, choices=None, slurm=None):
    """A run's folder; records are 2 seconds a step apart."""
    path.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (path / "config.yaml").write_text(yaml.safe_dump({**config, "output_dir": str(path)}))
    lines = [json.dumps({**record, "time": time_at(2 * record["step"])}) for record in records]
    if lines:
        (path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    if summary is not None:
        (path / "summary.json").write_text(json.dumps(summary))
    if choices is not None or slurm is not None:
        launcher = "hydra_plugins.mftrun.SlurmLauncher" if slurm else "hydra._internal.BasicLauncher"
        node = {
            "runtime": {"choices": {"hydra/launcher": "basic", "job": "train", **(choices or {})}},
            "job": {"id": slurm or "0"},
            "launcher": {"_target_": launcher},
        }
        (path / ".hydra").mkdir(exist_ok=True)
        (path / ".hydra" / "hydra.yaml").write_text(yaml.safe_dump({"hydra": node}))
    return path


def submit(sweep, job_id, number, log=None):
    """What submitit leaves of a job that it hands to Slurm, and of one that has said something."""
    array, folder = sweep / ".submitit" / job_id.partition("_")[0], sweep / ".submitit" / job_id
    for path in (array, folder):
        path.mkdir(parents=True, exist_ok=True)
    (array / f"{array.name}_submission.sh").touch()
    (folder / f"{job_id}_submitted.pkl").write_bytes(pickle.dumps(["seed=1", f"job_id_for_{number}"]))
    if log is not None:
        (folder / f"{job_id}_0_log.out").write_text(log)
    return folder


def done(steps=40, seconds=80.0, **more):
    """A summary without its tasks, as far as a comparison reads it."""
    return {"steps": steps, "seconds": seconds, "tokens_per_second": 1200.0, **more}


@contextmanager
def held(run):
    """The folder is locked, as by a process that works there."""
    with (run / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
