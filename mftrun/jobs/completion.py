"""What a finished run leaves behind: the final model, the curves, the summary."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.data.prepare import read_report
from mftrun.data.report import DataReport
from mftrun.errors import MftrunError
from mftrun.files import whole_folder
from mftrun.jobs.export import ModelExport
from mftrun.merging.identity import record_base
from mftrun.models.adapters import parameter_counts
from mftrun.models.parts import causal_lm_of
from mftrun.tracking.curves import plot_curves
from mftrun.tracking.jsonl import METRICS_NAME
from mftrun.tracking.model_card import ModelCard
from mftrun.tracking.summary import Summary, TaskCounts, summarize

if TYPE_CHECKING:
    from mftrun.jobs.assembly import Run

log = logging.getLogger(__name__)


def complete(run: Run) -> None:
    """Writes the final model, the plot and the summary. The ranks gather the model, and the first one writes.

    Raises:
        MftrunError: The final model cannot be written. The last checkpoint is there to try again from.
    """
    if run.config.checkpoint.export_best:
        _back_to_best(run)
    export = ModelExport.of(run.config, run.layout, run.trainer.parts.engine)
    weights = export.gathered()
    if not run.ranks.is_main:
        return
    summary = _summary(run)
    try:
        with whole_folder(run.layout.model) as folder:
            export.write(folder, weights)
            if export.adapter.freezes_base:
                record_base(folder, causal_lm_of(run.trainer.parts.engine.bare.model))
            _card(run, summary).write(folder)
        plot_curves(run.metrics.records(), run.trainer.parts.feed.tasks, run.layout.curves)
        summary.write(run.layout.run_dir)
    except OSError as error:
        raise MftrunError(
            f"{run.layout.run_dir}: the results cannot be written ({error}). "
            "The last checkpoint is kept: free some space, then run the same command with resume=auto."
        ) from error
    run.summary = summary


def _back_to_best(run: Run) -> None:
    saver, overall = run.trainer.parts.saver, run.trainer.progress.overall
    best = overall.kept_step
    if best is None or best != overall.step:
        log.warning("the final model is that of the last step: no best checkpoint was saved")
        return
    saver.load_weights(saver.checkpoints.path(best))
    log.info("the final model is that of step %d, the best evaluation", best)


def _card(run: Run, summary: Summary) -> ModelCard:
    config = run.config
    return ModelCard(
        name=config.name,
        base_model=config.objects["model"].get("path"),
        adapter=hasattr(run.causal_lm, "peft_config"),
        chat=bool(run.tokenizer.chat_template),
        summary=summary,
        settings={
            "loss": _short(config.objects["loss"]["normalization"]),
            "task weighting": _short(config.objects["loss"]["weighting"]),
            "peft": _short(config.objects["peft"]),
            "learning rate": config.objects["optimizer"]["lr"],
            "schedule": _short(config.objects["scheduler"]),
            "rows per step": config.train.global_batch_size,
            "steps": summary.steps,
        },
    )


def _summary(run: Run) -> Summary:
    stored = read_report(run.layout.data)
    assert stored is not None, "the data was prepared before there were ranks"
    report = DataReport.from_dict(stored["report"])
    progress, parameters = run.trainer.progress, parameter_counts(run.causal_lm)
    counts = {
        name: TaskCounts(task.train.samples, task.valid.samples, task.train.target_tokens)
        for name, task in report.tasks.items()
    }
    return summarize(
        run.metrics.records(),
        counts,
        steps=progress.step,
        seconds=progress.seconds,
        tokens_per_second=progress.tokens / max(progress.seconds, 1e-9),
        trainable_parameters=parameters.trainable,
        total_parameters=parameters.total,
        active_parameters=parameters.active,
        frozen={name: frozen.step for name, frozen in progress.frozen.items()},
        closing=_closing(run),
    )


def _closing(run: Run) -> dict[str, str]:
    layout = run.layout
    model, own = run.config.objects["model"], run.config.data.tasks or run.config.data.paths
    try_next = (
        f"python -m mftrun rerun={_near(layout.run_dir)} seed={run.config.seed + 1}"
        if own or "path" in model
        else "python -m mftrun model=llama model.path=DIR data.tasks.NAME.path=DIR peft=lora"
    )
    return {
        "model": str(_near(layout.model)),
        "metrics": str(_near(layout.run_dir / METRICS_NAME)),
        "curves": str(_near(layout.curves)),
        "try next": try_next,
    }


def _near(path: Path) -> Path:
    """The path as seen from here, where that is shorter."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _short(node: dict[str, Any]) -> str:
    return str(node["_target_"]).rpartition(".")[2]
