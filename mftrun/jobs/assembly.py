"""From a resolved configuration to a rank's trainer, with everything it works with."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from accelerate.utils import set_seed

from mftrun.data.epochs import Epochs
from mftrun.data.plan import evaluation_plan
from mftrun.data.table import SampleTable
from mftrun.data.tokenizer import load_saved
from mftrun.distributed import Engine, Ranks, resolve_precision
from mftrun.jobs.balancing import build_balance, build_objective, draws_of
from mftrun.jobs.export import ModelExport
from mftrun.jobs.layout import RunLayout
from mftrun.jobs.preparation import build_group, build_trackers
from mftrun.jobs.run_data import RunData, run_data
from mftrun.jobs.weights import load_model, verify_model
from mftrun.models.parts import causal_lm_of, text_config_of
from mftrun.schema import RunConfig
from mftrun.tracking.base import RunInfo, Trackers
from mftrun.tracking.jsonl import MetricsFile
from mftrun.tracking.summary import SUMMARY_NAME
from mftrun.training.checkpoint import Checkpoints, read_manifest
from mftrun.training.evaluation import Evaluator
from mftrun.training.feed import Feed
from mftrun.training.saving import Saver
from mftrun.training.stopping import EarlyStopping
from mftrun.training.trainer import Parts, Trainer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.distributed import Strategy
    from mftrun.jobs.train import Payload
    from mftrun.launch import RankContext
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.tracking.summary import Summary
    from mftrun.training.scoring import Scoring

log = logging.getLogger(__name__)


@dataclass
class Run:
    """One rank's assembled run.

    Attributes:
        config: The typed configuration.
        resolved: The same as plain containers.
        layout: Where things lie.
        ranks: Those that train.
        causal_lm: The bare model, or its peft wrapper.
        tokenizer: The run's tokenizer.
        trainer: The loop.
        metrics: The metrics file.
        trackers: Everything that records go to; empty on all ranks but the first.
        resumed_step: Step of the checkpoint the run goes on from; None from the start.
        summary: The results, once there are some.
    """

    config: RunConfig
    resolved: dict[str, Any]
    layout: RunLayout
    ranks: Ranks
    causal_lm: Any
    tokenizer: PreTrainedTokenizerFast
    trainer: Trainer
    metrics: MetricsFile
    trackers: Trackers
    resumed_step: int | None
    summary: Summary | None = field(default=None)

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """Keeps the trackers open, and tells them how the run ended."""
        feed = self.trainer.parts.feed
        info = run_info(self.resolved, self.layout, feed.tasks, feed.total_steps, self.resumed_step)
        if self.ranks.is_main:
            if (self.resumed_step or 0) < feed.total_steps:
                (self.layout.run_dir / SUMMARY_NAME).unlink(missing_ok=True)  # unfinished once more
            self.trackers.start(info)
        try:
            yield
        except BaseException:
            self.trackers.finish(None, exit_code=1)
            raise
        self.trackers.finish(self.summary, exit_code=0)


def assemble(context: RankContext, payload: Payload) -> Run:
    """Builds a rank's run.

    Args:
        context: Who this rank is.
        payload: What the parent handed over.
    """
    config, layout = RunConfig.from_dict(payload.config), RunLayout(payload.run_dir)
    strategy = build_group(config, "distributed")
    ranks = strategy.join(resolve_precision(config.train.precision))
    _quiet_bars()
    tokenizer = load_saved(layout.tokenizer)
    data = run_data(config, payload.run_dir)
    set_seed(config.seed)
    engine = prepare(config, strategy, ranks, load_model(config, tokenizer, layout, strategy, ranks))
    metrics = MetricsFile()
    trackers = {"metrics": metrics, **build_trackers(config)} if ranks.is_main else {}
    run_trackers = Trackers(trackers)
    parts = _parts(config, dict(payload.config), layout, engine, data, run_trackers, context)
    parts = replace(parts, scoring=_scoring(config, payload, strategy, engine, tokenizer))
    # From here on dropout draws another stream on every rank.
    set_seed(config.seed + ranks.index)
    return Run(
        config=config,
        resolved=dict(payload.config),
        layout=layout,
        ranks=ranks,
        causal_lm=engine.bare.model,
        tokenizer=tokenizer,
        trainer=Trainer(parts, config.train, config.evaluation, config.checkpoint),
        metrics=metrics,
        trackers=run_trackers,
        resumed_step=None if payload.checkpoint is None else read_manifest(payload.checkpoint).step,
    )


def prepare(config: RunConfig, strategy: Strategy, ranks: Ranks, model: ModelWithNll) -> Engine:
    """Prepares the model, and proves that the engine computes what it should.

    Raises:
        ConfigError: It does not.
    """
    engine = strategy.engine(
        ranks,
        model,
        build_group(config, "optimizer"),
        precision=resolve_precision(config.train.precision),
        max_grad_norm=config.train.max_grad_norm,
    )
    verify_model(config, engine)
    log.info(
        "%s, %d %s, %d rows a step, at most %d in a forward pass, %s",
        *(strategy.name, ranks.processes, "rank" if ranks.processes == 1 else "ranks"),
        *(config.train.global_batch_size, config.train.micro_batch_size),
        resolve_precision(config.train.precision),
    )
    engine.model.train()
    return engine


def _quiet_bars() -> None:
    """Bars of the libraries are for terminals; in a log they are noise."""
    from transformers.utils import logging as transformers_logging

    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()


def run_info(
    config: dict[str, Any], layout: RunLayout, tasks: list[str], total_steps: int, resumed_step: int | None
) -> RunInfo:
    """What trackers may know of the run; a run inside a sweep is named after its own folder."""
    in_sweep = (layout.run_dir.parent / "multirun.yaml").exists()
    return RunInfo(
        run_dir=layout.run_dir,
        name=config["name"],
        group=layout.run_dir.parent.name if in_sweep else None,
        job_id=layout.run_dir.name if in_sweep else None,
        config=config,
        tasks=tasks,
        total_steps=total_steps,
        resumed_step=resumed_step,
    )


def _parts(
    config: RunConfig,
    resolved: dict[str, Any],
    layout: RunLayout,
    engine: Engine,
    data: RunData,
    trackers: Trackers,
    context: RankContext,
) -> Parts:
    valid = data.valid()
    draws = draws_of(config, valid)
    objective = build_objective(config, valid.tasks, draws)
    ranks = engine.ranks
    epochs = data.epochs(context.stop, announces=ranks.is_main)
    keep = config.checkpoint
    checkpoints = Checkpoints(layout.run_dir, keep.keep_last, keep.keep_best)
    pad_id = _pad_id(causal_lm_of(engine.bare.model))
    balance = build_balance(config, objective, ranks, engine.bare, valid, draws, pad_id)
    return Parts(
        engine=engine,
        peak_lr=build_group(config, "optimizer").lr,
        scheduler=build_group(config, "scheduler"),
        objective=objective,
        balance=balance,
        feed=_feed(config, epochs, data.total_steps(), ranks, pad_id),
        evaluator=_evaluator(config, valid, ranks, pad_id),
        tracker=trackers,
        saver=Saver(
            engine,
            checkpoints,
            balance,
            resolved,
            ModelExport.of(config, layout, engine) if keep.export else None,
        ),
        early_stopping=EarlyStopping(**vars(config.evaluation.early_stopping)),
        stop=context.stop,
    )


def _scoring(
    config: RunConfig,
    payload: Payload,
    strategy: Strategy,
    engine: Engine,
    tokenizer: PreTrainedTokenizerFast,
) -> Scoring | None:
    if not config.evaluation.benchmarks:
        return None
    from mftrun.examining.opening import open_scoring

    return open_scoring(
        config,
        payload.config,
        engine,
        is_divided=strategy.sharding.weights,
        tokenizer=tokenizer,
        template=build_group(config, "template"),
        folder=RunLayout(payload.run_dir).scores,
    )


def _feed(config: RunConfig, epochs: Epochs, total_steps: int, ranks: Ranks, pad_id: int) -> Feed:
    return Feed(
        epochs,
        total_steps,
        rank=ranks.index,
        world_size=ranks.count,
        micro_batch_size=config.train.micro_batch_size,
        pad_id=pad_id,
        pin=ranks.device.type == "cuda",
    )


def _evaluator(config: RunConfig, table: SampleTable, ranks: Ranks, pad_id: int) -> Evaluator:
    plan = evaluation_plan(table.lengths, build_group(config, "rows"), config.data.max_length)
    return Evaluator(ranks, table, plan, config.evaluation.batch_size, pad_id)


def _pad_id(causal_lm: Any) -> int:
    """Token that fills rows. Which one does not matter: nothing real can see it."""
    return int(text_config_of(causal_lm).pad_token_id or 0)
