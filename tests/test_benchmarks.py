"""The script behind the tables of docs/balance.md reads what runs leave behind."""

import subprocess
import sys
from pathlib import Path

from runs import SMALL, write_task

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["train.max_steps=4", "train.log_every=1", "evaluation.every=2", "probe.tokens_per_task=60"]


def mftrun(folder, *arguments):
    command = [sys.executable, "-m", "mftrun", *arguments, *SMALL, *QUICK]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)


def test_tables_and_picture_of_a_sweep(tmp_path):
    for name in ("long", "short"):
        write_task(tmp_path / "data", name, 30)
    tasks = f"data.paths=[{tmp_path}/data/long,{tmp_path}/data/short]"
    mftrun(tmp_path, "-m", tasks, "loss=mft,lbtw", "output_dir=sweep")
    alone = ["sampler=weights", "sampler.weights.short=0"]
    mftrun(tmp_path, tasks, *alone, "output_dir=single/long")
    (tmp_path / "sweep" / "unfinished" / ".hydra").mkdir(parents=True)
    script = [
        sys.executable,
        ROOT / "benchmarks" / "balance.py",
        "sweep",
        "--single",
        "single",
        "--out",
        "plot",
    ]
    done = subprocess.run(script, cwd=tmp_path, check=True, capture_output=True, text=True)
    rows = [line.split("|")[1].strip() for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows == 2 * ["loss", "---", "mft", "lbtw", "single task"]
    assert "unfinished" in done.stderr
    assert (tmp_path / "plot.png").stat().st_size > 10_000
