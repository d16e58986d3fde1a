"""job=train: fine-tune one model on several tasks at once."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mftrun.launch import RankContext

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Payload:
    """What the parent hands to every rank.

    Attributes:
        config: The resolved configuration.
        run_dir: The run's folder; the data and the tokenizer are already in it.
        checkpoint: Where to resume from; None starts from the beginning.
    """

    config: Mapping[str, Any]
    run_dir: Path
    checkpoint: Path | None


class TrainJob:
    """Prepares the data once, then trains on all ranks."""

    def run(self, config: Mapping[str, Any], run_dir: Path) -> float | None:
        """Runs the job in the parent process.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Returns:
            The best watched validation loss, or what the best watched score lacks to 1; None where there
            was none.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun import launch

        # Imports torch for the ranks while this process reads the data.
        launch.warm_up((*launch.PRELOAD, *_more_imports(config)))

        from mftrun.jobs.attempts import Attempts
        from mftrun.jobs.balancing import check_balance
        from mftrun.jobs.layout import RunLayout
        from mftrun.jobs.preparation import build_group, check_parts
        from mftrun.jobs.run_data import run_data
        from mftrun.schema import RunConfig
        from mftrun.training.changes import load_config, refuse_changes
        from mftrun.training.checkpoint import find_resume

        typed = RunConfig.from_dict(config)
        ranks = launch.ranks_for(build_group(typed, "distributed"), RunLayout(run_dir).log)
        checkpoint = find_resume(typed.resume, run_dir)
        if checkpoint is not None:
            allowed = typed.checkpoint.allow_changed_config
            refuse_changes(load_config(checkpoint), config, allowed=allowed)
        check_parts(typed)
        if typed.evaluation.benchmarks:
            from mftrun.examining.opening import check_scoring

            check_scoring(typed, config)
        data = run_data(typed, run_dir)
        report = data.prepare(checkpoint)
        check_balance(typed, data.valid(), data.total_steps())
        log.info("%s the data\n%s", "kept" if report.reused else "prepared", report.table())
        return ranks.run(train_rank, Attempts(config, run_dir, data, checkpoint).next)


def _more_imports(config: Mapping[str, Any]) -> list[str]:
    """Slow libraries that the ranks of this run need, and others do not; a hint, for speed alone."""
    hints = {
        "deepspeed": config["distributed"]["_target_"].endswith(".Zero"),
        "peft": not config["peft"]["_target_"].endswith(".FullFineTuning"),
    }
    return [name for name, is_needed in hints.items() if is_needed]


def train_rank(context: RankContext, payload: Payload) -> float | None:
    """Runs the job in one rank; what rank 0 returns is the result of the run."""
    from mftrun.distributed import leave_group

    result = _train(context, payload)
    leave_group()
    return result


def _train(context: RankContext, payload: Payload) -> float | None:
    from mftrun.jobs.assembly import assemble
    from mftrun.jobs.completion import complete

    run = assemble(context, payload)
    with run.tracked():
        if payload.checkpoint is not None:
            run.trainer.restore(payload.checkpoint)
        if run.trainer.run():
            complete(run)
    return run.trainer.progress.overall.value
