"""Compare losses over sweeps: `python benchmarks/balance.py RUNS [RUNS ...] --single RUNS --out PATH`.

Reads every run below the folders RUNS, groups them by loss over seeds, and prints in Markdown: the lowest
validation loss of each task, the step it was reached at, and how far these steps lie apart. With `--single`,
runs that were trained on one task each are the measure of what a task alone would reach. With `--out` it
draws the validation curves of each task and the weights that changed, as PATH.png.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml

from mftrun.paths import CONFIG_FILE, SUMMARY
from mftrun.tracking.curves import smoothed
from mftrun.tracking.jsonl import METRICS_NAME, read
from mftrun.tracking.summary import series

MOVED = 1e-6  # weights that differ by less did not change


@dataclass(frozen=True)
class Run:
    """A finished run.

    Attributes:
        folder: Where it is.
        loss: What was overridden of its loss, as a label.
        seed: Its seed.
        records: Its metrics.
    """

    folder: Path
    loss: str
    seed: int
    records: Sequence[Mapping[str, Any]]

    @cached_property
    def trained(self) -> list[str]:
        """Tasks that were trained."""
        return self._named("train/loss/")

    @cached_property
    def best(self) -> dict[str, tuple[float, int]]:
        """Task to its lowest validation loss, and the first step it was measured at."""
        found = {task: self.valid(task) for task in self._named("valid/loss/")}
        return {task: min(zip(*points[::-1], strict=True)) for task, points in found.items() if points[0]}

    @property
    def best_mean(self) -> float:
        """Lowest mean over the tasks of one evaluation: that of the best checkpoint."""
        return min(series(self.records, "valid/loss")[1])

    @property
    def probe_share(self) -> float | None:
        """Mean share of a step's time that went into the probe; None without one."""
        values = series(self.records, "probe/share")[1]
        return fmean(values) if values else None

    def valid(self, task: str) -> tuple[list[int], list[float]]:
        """Steps and validation losses of a task."""
        return series(self.records, f"valid/loss/{task}")

    def shares(self) -> dict[str, tuple[list[int], list[float]]]:
        """Task to steps and its share of the weights; nothing when no share changed."""
        names = {f"weight/{task}": task for task in self._named("weight/")}
        whole = [record for record in self.records if names.keys() <= record.keys()]
        totals = [sum(record[key] for key in names) or 1.0 for record in whole]
        steps = [record["step"] for record in whole]
        found = {
            task: (steps, [record[key] / total for record, total in zip(whole, totals, strict=True)])
            for key, task in names.items()
        }
        moved = any(max(values) - min(values) > MOVED for _, values in found.values() if values)
        return found if moved else {}

    def _named(self, prefix: str) -> list[str]:
        keys = dict.fromkeys(key for record in self.records for key in record if key.startswith(prefix))
        return [key.removeprefix(prefix) for key in keys]


def load(folder: Path) -> Run:
    """Read a run.

    Raises:
        ValueError: It has not ended, or measured nothing.
        OSError: A file of it is missing.
    """
    if not (folder / SUMMARY).exists():
        raise ValueError("has not ended")
    config = yaml.safe_load((folder / CONFIG_FILE).read_text())
    run = Run(folder, label(folder, config), config["seed"], read(folder / METRICS_NAME))
    if not run.best:
        raise ValueError("has no validation losses")
    return run


def label(folder: Path, config: Mapping[str, Any]) -> str:
    """Name the loss by the overrides that chose it: `coba`, or `mft, weighting=coba`; else by its classes."""
    overrides = yaml.safe_load((folder / ".hydra" / "overrides.yaml").read_text()) or []
    chosen = [re.sub(r"^loss[=/.]", "", one) for one in overrides if re.match(r"loss[=/.]", one)]
    parts = (config["loss"][key]["_target_"].rpartition(".")[2] for key in ("normalization", "weighting"))
    return ", ".join(chosen) or " · ".join(parts)


def runs_below(folders: Iterable[Path]) -> list[Run]:
    """Read all runs below some folders, in the order of these and of their jobs; one that fails is named."""
    found = []
    for folder in [run for top in folders for run in sorted(starts(top), key=job_order)]:
        try:
            found.append(load(folder))
        except (OSError, ValueError) as error:
            print(f"left out: {folder}: {error}", file=sys.stderr)
    return found


def starts(top: Path) -> list[Path]:
    """Folders below one in which Hydra has started a run."""
    return [hydra.parent for hydra in top.rglob(".hydra")]


def job_order(folder: Path) -> list[tuple[int, str]]:
    """Sort 2_loss=mft before 10_loss=coba."""
    return [(int(number or 0), rest) for number, rest in re.findall(r"(\d*)(\D*)", str(folder))]


class Singles:
    """What each task reaches alone, by seed.

    Args:
        runs: Runs of one trained task each; others are named and left out.
    """

    def __init__(self, runs: Iterable[Run]) -> None:
        self.best: dict[str, dict[int, tuple[float, int]]] = defaultdict(dict)
        for run in runs:
            if len(run.trained) != 1 or run.trained[0] not in run.best:
                print(f"left out: {run.folder}: trains {len(run.trained)} tasks, not one", file=sys.stderr)
                continue
            task = run.trained[0]
            self.best[task][run.seed] = min(run.best[task], self.best[task].get(run.seed, run.best[task]))

    def losses(self, task: str) -> list[float]:
        """Lowest losses of a task, one for each seed."""
        return [loss for loss, _ in self.best[task].values()]

    def gap(self, run: Run) -> float | None:
        """Worst of the differences of a run's tasks to the models of one task; None if one is missing.

        The split of the data depends on the seed, so that runs are compared with those of their own seed,
        and with the mean of all seeds only where there is none.
        """
        gaps = [
            loss - self.best[task].get(run.seed, (fmean(self.losses(task)),))[0]
            for task, (loss, _) in run.best.items()
            if self.best.get(task)
        ]
        return max(gaps) if len(gaps) == len(run.best) else None


def spread(run: Run) -> int:
    """Steps between the first and the last best step of a run's tasks."""
    steps = [step for _, step in run.best.values()]
    return max(steps) - min(steps)


def deviation(run: Run) -> float:
    """Standard deviation of the best steps of a run's tasks."""
    steps = [step for _, step in run.best.values()]
    return stdev(steps) if len(steps) > 1 else 0.0


def cell(values: Iterable[float | None], form: str = ".3f") -> str:
    """Mean and deviation over seeds, as text; `-` where a value is missing."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    around = f" ± {stdev(known):{form}}" if len(known) > 1 else ""
    return f"{fmean(known):{form}}{around}"


def print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    for row in (header, ["---", *["---:"] * (len(header) - 1)], *rows):
        print(f"| {' | '.join(row)} |")
    print()


def print_losses(groups: Mapping[str, list[Run]], tasks: Sequence[str], singles: Singles) -> None:
    rows = [
        [
            loss,
            *(cell(run.best[task][0] for run in runs) for task in tasks),
            cell(fmean(best for best, _ in run.best.values()) for run in runs),
            cell(run.best_mean for run in runs),
            cell(singles.gap(run) for run in runs),
            cell((run.probe_share for run in runs), ".1%"),
        ]
        for loss, runs in groups.items()
    ]
    if any(singles.best.values()):
        alone = [cell(singles.losses(task)) for task in tasks]
        known = [fmean(losses) for task in tasks if (losses := singles.losses(task))]
        mean = f"{fmean(known):.3f}" if len(known) == len(tasks) else "-"
        rows.append(["single task", *alone, mean, "-", "-", "-"])
    print("Lowest validation loss of each task\n")
    last = ("mean", "best checkpoint", "worst gap to single", "time of probe")
    print_table(["loss", *tasks, *last], rows)


def print_steps(groups: Mapping[str, list[Run]], tasks: Sequence[str], singles: Singles) -> None:
    rows = [
        [
            loss,
            *(cell((run.best[task][1] for run in runs), ".0f") for task in tasks),
            cell((spread(run) for run in runs), ".0f"),
            cell((deviation(run) for run in runs), ".0f"),
        ]
        for loss, runs in groups.items()
    ]
    if any(singles.best.values()):
        alone = [cell((step for _, step in singles.best[task].values()), ".0f") for task in tasks]
        rows.append(["single task", *alone, "-", "-"])
    print("Step of the lowest validation loss\n")
    print_table(["loss", *tasks, "spread (last - first)", "standard deviation"], rows)


def mean_curve(curves: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float], list[float]]:
    """Steps that all seeds measured, means there, and standard deviations."""
    points = [dict(zip(*curve, strict=True)) for curve in curves]
    steps = sorted(set.intersection(*map(set, points))) if points else []
    values = [[point[step] for point in points] for step in steps]
    return steps, [fmean(seeds) for seeds in values], [stdev(v) if len(v) > 1 else 0.0 for v in values]


def draw(groups: Mapping[str, list[Run]], tasks: Sequence[str], singles: Singles, path: Path) -> None:
    """Draw the curves of each task, then the weights of each loss that changed them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    weighed = {loss: shares for loss, runs in groups.items() if (shares := mean_shares(runs, tasks))}
    columns = min(3, len(tasks))
    task_rows, weight_rows = -(-len(tasks) // columns), -(-len(weighed) // columns)
    figure = pyplot.figure(figsize=(5.2 * columns, 3.5 * (task_rows + weight_rows)), layout="constrained")
    parts = figure.subfigures(2, height_ratios=[task_rows, weight_rows]) if weighed else [figure]
    colors = dict(zip(groups, matplotlib.colormaps["tab10"].colors * 9, strict=False))
    draw_tasks(parts[0], groups, tasks, singles, colors)
    if weighed:
        draw_weights(parts[1], weighed, tasks, matplotlib.colormaps["Dark2"].colors * 9)
    figure.savefig(path, dpi=110)
    print(f"drawn: {path}", file=sys.stderr)


def panels(figure: Any, titles: Iterable[str]) -> dict[str, Any]:
    """Axes in up to three columns, by title."""
    names = list(titles)
    columns = min(3, len(names))
    grid = figure.subplots(-(-len(names) // columns), columns, squeeze=False, sharex=True).ravel()
    for axes in grid[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(grid, names, strict=False):
        axes.set_title(name.replace("$", r"\$"), fontsize=11)
        axes.grid(visible=True, alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelbottom=True)
    return dict(zip(names, grid, strict=False))


def draw_tasks(
    figure: Any,
    groups: Mapping[str, list[Run]],
    tasks: Sequence[str],
    singles: Singles,
    colors: Mapping[str, Any],
) -> None:
    shown = panels(figure, tasks)
    for task, axes in shown.items():
        ceiling = []
        for loss, runs in groups.items():
            steps, means, deviations = mean_curve([run.valid(task) for run in runs])
            axes.plot(steps, means, color=colors[loss], linewidth=1.6, label=loss)
            low, high = zip(*((m - d, m + d) for m, d in zip(means, deviations, strict=True)), strict=True)
            axes.fill_between(steps, low, high, color=colors[loss], alpha=0.12, linewidth=0)
            place = min(range(len(means)), key=means.__getitem__)
            axes.plot(steps[place], means[place], "o", color=colors[loss], markersize=6)
            ceiling += [m for step, m in zip(steps, means, strict=True) if step >= 0.15 * steps[-1]]
        if singles.best.get(task):
            axes.axhline(fmean(singles.losses(task)), color="gray", linestyle="--", label="single task, best")
        axes.set_ylim(top=max(ceiling) + 0.05 * (max(ceiling) - min(ceiling)))
        axes.set_xlabel("optimizer step", fontsize=9)
        axes.set_ylabel("validation loss (nats per token)", fontsize=9)
    handles = next(iter(shown.values())).get_legend_handles_labels()
    title = "Validation loss by task: mean over seeds, band ± 1 standard deviation, dot at the lowest"
    finish(figure, title, handles)


def mean_shares(runs: Sequence[Run], tasks: Sequence[str]) -> dict[str, tuple[list[int], list[float]]]:
    """Task to steps and its mean share of the weights; nothing when the weights did not change."""
    shares = [found for run in runs if (found := run.shares())]
    if not shares:
        return {}
    return {task: mean_curve([found[task] for found in shares])[:2] for task in tasks}


def draw_weights(
    figure: Any,
    weighed: Mapping[str, Mapping[str, tuple[list[int], list[float]]]],
    tasks: Sequence[str],
    colors: Sequence[Any],
) -> None:
    shown = panels(figure, (f"loss={loss}" for loss in weighed))
    for axes, shares in zip(shown.values(), weighed.values(), strict=True):
        for task, color in zip(tasks, colors, strict=False):
            steps, values = shares[task]
            axes.plot(steps, values, color=color, linewidth=0.7, alpha=0.3)
            axes.plot(steps, smoothed(values), color=color, linewidth=1.6, label=task)
        axes.axhline(1 / len(tasks), color="gray", linestyle=":", linewidth=1)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("optimizer step", fontsize=9)
        axes.set_ylabel("share of the weights", fontsize=9)
    handles = next(iter(shown.values())).get_legend_handles_labels()
    finish(figure, "Task weights: mean over seeds, smoothed", handles)


def finish(figure: Any, title: str, handles: tuple[Any, Any]) -> None:
    figure.suptitle(title, fontsize=12)
    figure.legend(*handles, loc="outside lower center", ncols=6, fontsize=9, frameon=False)


def grouped(runs: Iterable[Run]) -> dict[str, list[Run]]:
    """Runs by loss, in the order of the sweep; runs of other tasks than the first are named and left out."""
    groups: dict[str, list[Run]] = defaultdict(list)
    tasks: set[str] = set()
    for run in runs:
        tasks = tasks or set(run.best)
        if set(run.best) != tasks:
            print(f"left out: {run.folder}: has other tasks", file=sys.stderr)
        else:
            groups[run.loss].append(run)
    return dict(groups)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUNS")
    parser.add_argument("--single", type=Path, nargs="*", default=[], metavar="RUNS")
    parser.add_argument("--out", type=Path, metavar="PATH")
    given = parser.parse_args()
    groups, singles = grouped(runs_below(given.runs)), Singles(runs_below(given.single))
    if not groups:
        sys.exit("there is no finished run below these folders")
    tasks = list(next(iter(groups.values()))[0].best)
    counts = {loss: [run.seed for run in runs] for loss, runs in groups.items()}
    print(f"seeds: {json.dumps(counts)}", file=sys.stderr)
    print_losses(groups, tasks, singles)
    print_steps(groups, tasks, singles)
    if given.out is not None:
        draw(groups, tasks, singles, given.out.with_suffix(".png"))


if __name__ == "__main__":
    main()
