"""The loop: windows in, an exactly balanced model out, and nothing lost on the way."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.data.epochs import WaitEndedError
from mftrun.errors import MftrunError
from mftrun.training.agreement import Agreement, Ballot, agree
from mftrun.training.diagnose import explain_non_finite
from mftrun.training.meter import Meter
from mftrun.training.progress import Progress
from mftrun.training.pruning import PRUNED, MedianRule, Pruner
from mftrun.training.scoring import scores_record
from mftrun.training.step import accumulate

if TYPE_CHECKING:
    import torch

    from mftrun.data.batch import Batch
    from mftrun.distributed import Engine
    from mftrun.launch import StopRequest
    from mftrun.losses.objective import Objective
    from mftrun.schema import CheckpointConfig, EvaluationConfig, TrainConfig
    from mftrun.tracking.base import Tracker
    from mftrun.training.balance import Balance
    from mftrun.training.evaluation import Evaluator
    from mftrun.training.feed import Feed
    from mftrun.training.saving import Saver
    from mftrun.training.schedulers import Scheduler
    from mftrun.training.scoring import Scoring
    from mftrun.training.stopping import EarlyStopping, Verdict

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parts:
    """Everything the loop works with, already built and prepared.

    Attributes:
        engine: Holds the prepared model and its optimizer.
        peak_lr: Learning rate before scheduling.
        scheduler: Learning rate by step.
        objective: Turns nlls into loss shares.
        balance: Keeps the objective's task weights up to date.
        feed: This rank's windows.
        evaluator: Exact validation losses.
        tracker: Where records go; silent on all ranks but the first.
        saver: Writes and restores checkpoints.
        early_stopping: Watches the validation loss, or the scores.
        stop: What signals asked of this rank.
        scoring: Scores on benchmarks; None without any.
    """

    engine: Engine
    peak_lr: float
    scheduler: Scheduler
    objective: Objective
    balance: Balance
    feed: Feed
    evaluator: Evaluator
    tracker: Tracker
    saver: Saver
    early_stopping: EarlyStopping
    stop: StopRequest
    scoring: Scoring | None = None


class Trainer:
    """Trains until the steps are done, patience runs out, or a signal says stop.

    Args:
        parts: The built objects.
        train: Settings of the loop.
        evaluation: When to evaluate.
        checkpoint: When to save.
    """

    def __init__(
        self, parts: Parts, train: TrainConfig, evaluation: EvaluationConfig, checkpoint: CheckpointConfig
    ) -> None:
        self.parts = parts
        self.progress = Progress()
        self.meter = Meter(parts.engine.ranks, parts.feed.tasks)
        self._train = train
        self._evaluation = evaluation
        self._checkpoint = checkpoint
        self._total = parts.feed.total_steps
        self._saved_at = time.monotonic()
        self._saved_step = -1
        self._no_data: MftrunError | None = None
        self._pruner = _pruner(evaluation, parts.saver.checkpoints.folder.parent)
        self._used_weights = parts.objective.task_weights()

    def restore(self, checkpoint: Path) -> None:
        """Goes back to the state of a checkpoint.

        Args:
            checkpoint: A whole checkpoint folder.
        """
        self.progress = self.parts.saver.restore(checkpoint, self.meter)
        self._freeze_parts()
        # An evaluation that was cut short is done again, and may find a best: then this step is saved again.
        self._saved_step = -1 if self._measuring_pending() else self.progress.step
        if self.parts.engine.ranks.is_main:
            self.parts.saver.checkpoints.drop_after(self.progress.step)
        log.info("resumed at step %d from %s", self.progress.step, checkpoint)

    def run(self) -> bool:
        """Trains to the end.

        Returns:
            Whether the run is finished; False when a signal stopped it early.

        Raises:
            MftrunError: The loss or the gradient is not finite; or the data of the next step cannot be had,
                and then the steps so far are saved.
        """
        with self.parts.stop.graceful():
            if self._measure():
                self._save()
            over = self._steps()
            if over and self._measure(over=True):
                self._saved_step = -1  # was saved before it was known to be the best
            finished = over and not self._measuring_pending(over=True)
            self._settle()
            self._save()
            self._settle()
            if finished:
                self._end_on_best()
        if self._no_data is not None:
            raise self._no_data
        return finished

    def _steps(self) -> bool:
        for window, ballot, watched in self._windows():
            agreement = agree(self.parts.engine.ranks, ballot, watched)
            self._settle(wait=False)
            if agreement.stop:
                return False
            if agreement.save:
                self._save()
            # After the save: whoever resumes there observes the same once more.
            self.parts.balance.observe(self.progress.step, agreement.watched)
            self._step(window, agreement)
        return True

    def _windows(self) -> Iterator[tuple[Iterator[Batch], Ballot, torch.Tensor]]:
        while self.progress.step < self._total and self._why_over() is None:
            if self.progress.rollback is not None:
                self._roll_back()
            watched = self.parts.balance.vector(self.parts.engine.model, self.progress.step)
            ballot = self._ballot()
            if ballot is None:
                log.info("stopping early: the sampler draws frozen tasks only")
                return
            yield self.parts.feed.window(self.progress.epoch, self.progress.batch), ballot, watched

    def _ballot(self) -> Ballot | None:
        """What this rank brings to the next step; may wait for data. Without any, the run saves and stops.

        None where there will never be any more, as what the sampler draws is all of frozen tasks.
        """
        feed, progress = self.parts.feed, self.progress
        try:
            place = feed.settle(progress.epoch, progress.batch)
            if place is None:
                return None
            progress.epoch, progress.batch = place
            counts = feed.ballot(progress.epoch, progress.batch)
        except WaitEndedError:
            return Ballot.to_stop(len(feed.tasks))
        except MftrunError as error:
            self._no_data = error
            return Ballot.to_stop(len(feed.tasks))
        return Ballot(*counts, stop=self.parts.stop.stop_requested, save=self._save_wanted())

    def _step(self, window: Iterator[Batch], agreement: Agreement) -> None:
        parts, step = self.parts, self.progress.step + 1
        rate = parts.scheduler.rate(step, self._total, parts.peak_lr)
        self._used_weights = parts.objective.task_weights()
        sums, gradients = parts.balance.begin_step(step)
        accumulate(parts.engine, parts.objective, window, agreement, self.meter, sums, gradients)
        parts.balance.end_step(step, agreement)
        norm = parts.engine.step(rate)
        if not norm < float("inf"):
            raise self._non_finite(step)
        self._advance(agreement)
        self.meter.count(agreement, lr=rate, grad_norm=norm)
        self._after_step()

    def _after_step(self) -> None:
        step = self.progress.step
        if step == self._total or step % self._train.log_every == 0:
            self._log()
        best = self._measure()
        # Asked after the evaluation: a task that it froze may have been all that was left of the epoch.
        epoch_end = self.parts.feed.is_over(self.progress.epoch, self.progress.batch)
        keep = epoch_end and self._checkpoint.every_epoch
        if keep or best or _due(step, self._checkpoint.every_steps):
            self._save(epoch_end=keep)
        reason = self._why_over()
        if reason is not None:
            log.info("stopping early: %s", reason)
            if self.meter.pending:
                self._log()

    def _why_over(self) -> str | None:
        """Why there is nothing left to train, None as long as there is."""
        if self.parts.early_stopping.exhausted(self.progress):
            return f"no improvement in {self.progress.overall.stale} evaluations"
        if self._pruner is not None and self.progress.pruned is not None:
            return f"pruned at step {self.progress.pruned}, as others of the sweep do better"
        if self.progress.frozen and not self.parts.objective.task_weights().any():
            return "all tasks that have a weight are frozen"
        return None

    def _roll_back(self) -> None:
        self._settle()
        if self.parts.saver.roll_back(self.progress):
            self.parts.balance.interrupt()

    def _end_on_best(self) -> None:
        """What becomes of a rollback that no step follows."""
        if self.progress.rollback is None:
            return
        if self.parts.objective.task_weights().any():
            log.info("not going back to step %d: the run ends here", self.progress.rollback)
            self.progress.rollback = None
        else:
            self._roll_back()
            self._log_validation()  # of the model that is left
            self._log_scores()

    def _log_validation(self) -> dict[str, float] | None:
        """Evaluates; None where a stop cut it short."""
        with self.meter.paused():
            losses = self.parts.evaluator.losses(self.parts.engine.model, self.parts.stop)
        if losses:
            self.parts.tracker.log(self.progress.step, validation_record(losses))
        return losses

    def _advance(self, agreement: Agreement) -> None:
        progress, feed = self.progress, self.parts.feed
        progress.step += 1
        progress.tokens += agreement.tokens
        progress.epoch, progress.batch = feed.after(progress.epoch, progress.batch)
        for name, targets, samples in zip(feed.tasks, agreement.targets, agreement.samples, strict=True):
            progress.targets[name] = progress.targets.get(name, 0) + targets
            progress.samples[name] = progress.samples.get(name, 0) + samples

    def _log(self) -> None:
        weights = dict(zip(self.parts.feed.tasks, self._used_weights.tolist(), strict=True))
        record = self.meter.record(weights, self.parts.balance.probe_seconds())
        record.update(self.parts.balance.record())
        record["epoch"] = self.parts.feed.fraction(self.progress.epoch, self.progress.batch)
        self.parts.tracker.log(self.progress.step, record)

    def _measure(self, *, over: bool = False) -> bool:
        """Does what this step asks for of evaluation and scores; see `_evaluate` for what it returns.

        Args:
            over: Whether no step follows.
        """
        best = self._evaluation_pending() and self._evaluate()
        return (self._scoring_pending(over=over) and self._score()) or best

    def _measuring_pending(self, *, over: bool = False) -> bool:
        return self._evaluation_pending() or self._scoring_pending(over=over)

    def _evaluation_pending(self) -> bool:
        """Whether this step asks for an evaluation that has not been done, or was cut short by a stop."""
        step = self.progress.step
        asked = step in (0, self._total) or _due(step, self._evaluation.every)
        return asked and self.progress.evaluated_at < step

    def _evaluate(self) -> bool:
        """Evaluates and says whether a checkpoint of the new best is wanted."""
        losses = self._log_validation()
        if losses is None:
            return False
        self._settle()  # what there is to go back to must not hang on the disk's speed
        self.progress.evaluated_at = self.progress.step
        if not losses:
            return False
        self._prune(losses)
        verdict = self.parts.early_stopping.observe(self.progress, losses)
        self._freeze(verdict)
        if self.progress.rollback is not None:
            return True  # what is there before going back, and the note to do so
        return self._keeps(verdict.is_best or bool(verdict.best_tasks))

    def _keeps(self, best: bool) -> bool:
        # The untrained model is worth a checkpoint only where one may go back to it.
        goes_back = self._checkpoint.export_best or self.parts.early_stopping.rollback
        return best and self._checkpoint.keep_best and (self.progress.step > 0 or goes_back)

    def _scoring_pending(self, *, over: bool) -> bool:
        """Whether this step asks for scores that there are none of yet, or that a stop cut short."""
        scoring, step = self.parts.scoring, self.progress.step
        if scoring is None or self.progress.scored_at >= step:
            return False
        ended = over and self.progress.pruned is None
        return ended or scoring.is_due(step, self._total)

    def _score(self) -> bool:
        """Scores and says whether a checkpoint of the new best is wanted."""
        scores = self._log_scores()
        if scores is None:
            return False
        self._settle()
        self.progress.scored_at = self.progress.step
        return self._keeps(self.parts.early_stopping.observe_scores(self.progress, scores))

    def _log_scores(self) -> dict[str, float] | None:
        """Scores; None where a stop cut it short, or there is nothing to score on."""
        if self.parts.scoring is None:
            return None
        with self.meter.paused():
            scores = self.parts.scoring.scores(self.progress.step, self.parts.stop)
        if scores:
            self.parts.tracker.log(self.progress.step, scores_record(scores))
        return scores

    def _prune(self, losses: dict[str, float]) -> None:
        """Ends the run if the others of its sweep do better; the first rank says so, as files may change."""
        step, ranks = self.progress.step, self.parts.engine.ranks
        if self._pruner is None or step == self._total:
            return
        why = self._pruner.verdict(step, losses) if ranks.is_main else None
        if ranks.any(why is not None):
            self.progress.pruned = step
            log.info("others of the sweep do better: %s", why)
            self.parts.tracker.log(step, {PRUNED: 1.0})

    def _freeze(self, verdict: Verdict) -> None:
        """Takes tasks out of training from the next global batch on."""
        if not verdict.to_freeze:
            return
        self.progress.freeze(verdict.to_freeze)
        self.progress.rollback = verdict.rollback
        self._freeze_parts()
        for name in verdict.to_freeze:
            best = self.progress.tasks[name]
            log.info(
                "task %s is frozen, no better in %d evaluations: lowest validation loss %.4f, of step %s",
                *(name, best.stale, best.value, best.step),
            )

    def _freeze_parts(self) -> None:
        feed = self.parts.feed
        freezes = self.progress.freezes(feed.tasks)
        feed.freeze(freezes)
        self.parts.objective.freeze([freeze.task for freeze in freezes])

    def _save_wanted(self) -> bool:
        minutes = self._checkpoint.every_minutes
        due = minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes
        return self.parts.stop.save_requested or (due and self.parts.engine.ranks.is_main)

    def _save(self, epoch_end: bool = False) -> None:
        self.parts.stop.clear_save()
        if self.progress.step == self._saved_step:
            return
        self._saved_at = time.monotonic()
        with self.meter.paused():
            self.progress.seconds = self.meter.seconds
            background = self._checkpoint.asynchronous
            if self.parts.saver.save(self.progress, self.meter, epoch_end, background=background):
                self._saved_step = self.progress.step

    def _settle(self, *, wait: bool = True) -> None:
        """Lets a checkpoint appear that was written beside the steps."""
        with self.meter.paused():
            if not self.parts.saver.settle(self.progress, wait=wait):
                self._saved_step = -1  # there is none of it after all

    def _non_finite(self, step: int) -> Exception:
        parts = self.parts
        self._settle()  # there to go on from
        window = parts.feed.window(self.progress.epoch, self.progress.batch)
        newest = parts.saver.checkpoints.newest()
        return explain_non_finite(parts.engine, window, parts.feed, step, newest)


def validation_record(losses: dict[str, float]) -> dict[str, Any]:
    """The record of one evaluation: each task's loss, and their plain mean as ``valid/loss``."""
    record = {f"valid/loss/{name}": value for name, value in losses.items()}
    return {"valid/loss": sum(losses.values()) / len(losses), **record}


def _pruner(evaluation: EvaluationConfig, run_dir: Path) -> Pruner | None:
    asked = evaluation.pruning
    if asked.siblings is None:
        return None
    return Pruner(MedianRule(asked.siblings, asked.warmup, asked.metric), run_dir)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0
