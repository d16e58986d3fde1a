"""Memory against the size of the data: `python benchmarks/scale.py [--samples 10000 100000 1000000]`.

Writes data sets of growing size, tokenizes and trains from each with the command line, and reads the resident
memory of every process from /proc meanwhile. Memory that is only mapped from files, which the system takes
back whenever it needs to, is shown apart. With --curve FILE it plots memory over time.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
ROW = "{:>10}{:>10}{:>9}{:>14}{:>14}{:>14}{:>14}"
OVERRIDES = [
    "tracker=none",
    "model.vocab_size=2048",
    "model.hidden_size=64",
    "model.intermediate_size=128",
    "model.num_hidden_layers=2",
    "distributed=single",
    "evaluation.every=null",
    "checkpoint.every_steps=null",
    "train.log_every=20",
]


@dataclass
class Memory:
    """Resident memory of a process tree over time, in MB: the sum over its processes."""

    seconds: list[float] = field(default_factory=list)
    anonymous: list[float] = field(default_factory=list)
    mapped: list[float] = field(default_factory=list)

    def add(self, second: float, processes: Sequence[int]) -> None:
        statuses = [status_of(process) for process in processes]
        self.seconds.append(second)
        self.anonymous.append(sum(status.get("RssAnon", 0) for status in statuses) / 1024)
        self.mapped.append(sum(status.get("RssFile", 0) for status in statuses) / 1024)


def status_of(process: int) -> dict[str, int]:
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
    except OSError:  # it has ended meanwhile
        return {}
    pairs = (line.split()[:2] for line in lines if line.startswith("Rss"))
    return {name.rstrip(":"): int(value) for name, value in pairs}


def tree(process: int) -> list[int]:
    found = [process]
    for parent in found:
        try:
            tasks = list(Path(f"/proc/{parent}/task").iterdir())
            found += [int(child) for task in tasks for child in (task / "children").read_text().split()]
        except OSError:
            continue
    return found


def write_data(path: Path, samples: int, seed: int) -> None:
    """Conversations of about 100 tokens; their words repeat, as those of code and prose do."""
    rng = np.random.default_rng(seed)
    words = np.array([f"{a}{b}" for a in "bcdfghjklmnpqrst" for b in ("ar", "el", "in", "om", "up", "yst")])
    with path.open("w") as stream:
        for _ in range(samples):
            question, answer = (words[rng.integers(0, len(words), rng.integers(20, 60))] for _ in range(2))
            pair = {"prompt": " ".join(question), "response": " ".join(answer)}
            stream.write(json.dumps(pair) + "\n")


def watched(arguments: Sequence[str], folder: Path) -> tuple[Memory, float]:
    paths = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths, "MFTRUN_CACHE": str(folder / "cache")}
    command = [sys.executable, "-m", "mftrun", *arguments]
    memory, start = Memory(), time.perf_counter()
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        while running.poll() is None:
            memory.add(time.perf_counter() - start, tree(running.pid))
            time.sleep(0.25)
    if running.returncode:
        sys.exit((folder / "log").read_text())
    return memory, time.perf_counter() - start


def measure(samples: int, steps: int, folder: Path) -> dict[str, Memory]:
    folder.mkdir()
    for number, task in enumerate(("large", "small")):
        write_data(folder / f"{task}.jsonl", samples * (9, 1)[number] // 10, number)
    data = f"data.paths=[{folder}/large.jsonl,{folder}/small.jsonl]"
    common = [*OVERRIDES, data, f"train.max_steps={steps}"]
    memories = {}
    for job in ("tokenize", "train"):
        memory, seconds = watched([f"job={job}", *common, f"output_dir={folder}/{job}"], folder)
        memories[job] = memory
        half = len(memory.anonymous) // 2
        late = memory.anonymous[half:]
        print(
            ROW.format(
                f"{samples:,}",
                job,
                f"{seconds:.0f}",
                f"{max(memory.anonymous):.0f}",
                f"{max(memory.mapped):.0f}",
                f"{np.median(memory.anonymous[half - half // 4 : half]):.0f}",
                f"{np.median(late[-max(1, len(late) // 4) :]):.0f}",
            ),
            flush=True,
        )
    return memories


def plot(curves: dict[int, dict[str, Memory]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(10, 4))
    for axis, job in zip(axes, ("tokenize", "train"), strict=True):
        for samples, memories in curves.items():
            axis.plot(memories[job].seconds, memories[job].anonymous, label=f"{samples:,} samples")
        axis.set(title=f"job={job}", xlabel="seconds", ylabel="memory of all processes, MB", ylim=(0, None))
        axis.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--curve", type=Path)
    given = parser.parse_args()
    print("Memory of all processes together, MB: its own (anonymous), and mapped from files.")
    print(ROW.format("samples", "job", "seconds", "own, peak", "mapped, peak", "own, middle", "own, end"))
    with tempfile.TemporaryDirectory() as scratch:
        curves = {
            samples: measure(samples, given.steps, Path(scratch) / str(samples)) for samples in given.samples
        }
    if given.curve is not None:
        plot(curves, given.curve)


if __name__ == "__main__":
    main()
