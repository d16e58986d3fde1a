"""Loss curves of every task, and its weight where weights change, as one picture."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.files import write_atomically
from mftrun.tracking import text
from mftrun.tracking.summary import series

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DPI = 120
_LINE_STYLES = ("-", "--", ":")
_ROWS_A_LEGEND_COLUMN = 24
_CROWDED = 10  # tasks; of more, pale lines and large markers would hide the rest
_LOSS = "loss per target token (nats)"


def plot_curves(records: Sequence[Mapping[str, Any]], tasks: Sequence[str], path: Path) -> None:
    """Draws the training and the validation loss of each task over the steps, side by side, as a PNG.

    Where a task's weight changed during the run, a third panel shows the weights; a cross marks the record
    from which on a weight stays 0, as that of a frozen task. A task has one color and line style in all
    panels. Training losses and weights are drawn as they were measured, pale, and smoothed; a task that is
    absent from a record has no point there.

    Args:
        records: Records of the metrics file, in order.
        tasks: Task names; their order gives the colors.
        path: The PNG; it appears whole or not at all.

    Raises:
        OSError: The file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = -(-len(tasks) // _ROWS_A_LEGEND_COLUMN)
    panels = 3 if _weights_change(records, tasks) else 2
    figure = Figure(figsize=(6 * panels + 1.6 * columns, 5.2), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)  # draws without pyplot, whose state is global
    train, valid, *weights = figure.subplots(1, panels, sharex=True)
    valid.sharey(train)
    styles = _styles(len(tasks))
    _draw_smoothed(train, records, tasks, styles, "train/loss/", "Training loss", _LOSS)
    _draw_valid(valid, records, tasks, styles)
    for axes in weights:
        _draw_weights(axes, records, tasks, styles)
    _legend(figure, tasks, styles, columns)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", metadata={"Software": "mftrun"})
    write_atomically(path, drawn.getvalue())


# Fewer points than this are drawn as they are.
_SMOOTHED_FROM = 40


def smoothed(values: Sequence[float]) -> list[float]:
    """Mean over a window of about a twentieth of the points around each; it narrows evenly towards the ends.

    Being centered it lags behind neither a fall nor a rise.
    """
    sums = list(accumulate(values, initial=0.0))
    last, half = len(values) - 1, len(values) // _SMOOTHED_FROM
    reach = [min(half, place, last - place) for place in range(len(values))]
    return [
        (sums[place + wide + 1] - sums[place - wide]) / (2 * wide + 1) for place, wide in enumerate(reach)
    ]


def _styles(count: int) -> list[dict[str, Any]]:
    """Color and line of each task: a known palette while it lasts, then hues in three line styles."""
    import matplotlib

    if count <= 10:
        return [{"color": matplotlib.colormaps["tab10"](number), "linestyle": "-"} for number in range(count)]
    hues = -(-count // len(_LINE_STYLES))
    wheel = matplotlib.colormaps["turbo"]
    return [
        {
            "color": wheel(0.04 + 0.92 * (n // len(_LINE_STYLES)) / max(1, hues - 1)),
            "linestyle": _LINE_STYLES[n % 3],
        }
        for n in range(count)
    ]


def _weights_change(records: Sequence[Mapping[str, Any]], tasks: Sequence[str]) -> bool:
    return any(len(set(series(records, f"weight/{task}")[1])) > 1 for task in tasks)


def _draw_smoothed(
    axes: Axes,
    records: Sequence[Mapping[str, Any]],
    tasks: Sequence[str],
    styles: list[Any],
    prefix: str,
    title: str,
    label: str,
) -> None:
    points = 0
    for task, style in zip(tasks, styles, strict=True):
        steps, values = series(records, prefix + task)
        points = max(points, len(values))
        if len(tasks) <= _CROWDED:
            axes.plot(steps, values, color=style["color"], linewidth=0.7, alpha=0.3)
        axes.plot(steps, smoothed(values), **style, linewidth=1.6, marker=_marker(values))
    _finish(axes, title if points < _SMOOTHED_FROM else f"{title} (smoothed)", label, records, prefix)


def _draw_weights(
    axes: Axes, records: Sequence[Mapping[str, Any]], tasks: Sequence[str], styles: list[Any]
) -> None:
    _draw_smoothed(axes, records, tasks, styles, "weight/", "Task weights", "weight in the loss")
    axes.set_ylim(bottom=0)
    for task, style in zip(tasks, styles, strict=True):
        for step in _zero_from(*series(records, f"weight/{task}")):
            axes.plot(step, 0, "X", color=style["color"], markersize=8, clip_on=False, zorder=3)


def _zero_from(steps: Sequence[int], weights: Sequence[float]) -> Sequence[int]:
    """The step from which on a weight stays 0; nothing if it does not, or always was."""
    positive = max((place for place, weight in enumerate(weights) if weight > 0), default=len(weights))
    return steps[positive + 1 : positive + 2]


def _draw_valid(
    axes: Axes, records: Sequence[Mapping[str, Any]], tasks: Sequence[str], styles: list[Any]
) -> None:
    size = 4.5 if len(tasks) <= _CROWDED else 2.5
    for task, style in zip(tasks, styles, strict=True):
        steps, values = series(records, f"valid/loss/{task}")
        axes.plot(steps, values, **style, linewidth=1.4, marker="o", markersize=size)
    _finish(axes, "Validation loss", _LOSS, records, "valid/loss/")


def _marker(values: Sequence[float]) -> str:
    """A line of one point shows nothing without a marker."""
    return "o" if len(values) == 1 else ""


def _finish(axes: Axes, title: str, label: str, records: Sequence[Mapping[str, Any]], prefix: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title)
    axes.set_xlabel("optimizer step")
    axes.set_ylabel(label)
    axes.tick_params(labelleft=True)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    steps = {record["step"] for record in records}
    if len(steps) == 1:
        axes.set_xlim(min(steps) - 1, min(steps) + 1)  # else the axis would show fractions of a step
    axes.ticklabel_format(style="plain", useOffset=False)
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if not any(key.startswith(prefix) for record in records for key in record):
        axes.text(0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color="gray")


def _legend(figure: Any, tasks: Sequence[str], styles: list[dict[str, Any]], columns: int) -> None:
    from matplotlib.lines import Line2D

    names = text.short_names(tasks, 28)
    lines = [Line2D([], [], **style, linewidth=2) for style in styles]
    labels = [names[task].replace("$", r"\$") for task in tasks]
    figure.legend(lines, labels, loc="outside right upper", ncols=columns, fontsize=8, title="task")
