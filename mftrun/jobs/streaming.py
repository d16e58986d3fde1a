"""The data of a run that is made shard by shard, by a process of its own beside the ranks."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mftrun.data.chunks import CHUNK_BYTES
from mftrun.data.digests import digest
from mftrun.data.epochs import Epochs
from mftrun.data.fitting import ON_OVERLONG, Limit
from mftrun.data.from_sources import refuse_shared
from mftrun.data.plan import EpochPlan, Freeze, concerning
from mftrun.data.policies import ON_BAD, BadLines
from mftrun.data.prepare import REPORT, listed_changes, read_report
from mftrun.data.report import DataReport
from mftrun.data.selection import TRAIN_TABLE, VALID_TABLE, Rules, TaskTokens, write_tables
from mftrun.data.settings import TaskSources
from mftrun.data.shards.folder import ShardFolder, Start
from mftrun.data.shards.maker import Recipe, ShardMaker, ShardTask
from mftrun.data.shards.opened import Shards
from mftrun.data.shards.stream import Position, Taken, TaskStream
from mftrun.data.shards.validation import held_out, write_valid
from mftrun.data.source import fingerprint
from mftrun.data.split import ValidationSize
from mftrun.data.table import SampleTable
from mftrun.data.token_file import TokenFile
from mftrun.data.tokenize import tokenize
from mftrun.data.tokenizer import first_texts, load_saved, save_tokenizer, templated, tokenizer_digest
from mftrun.data.workers import Workers, worker_count
from mftrun.errors import DataError
from mftrun.files import whole_folder, write_json
from mftrun.jobs.layout import RunLayout
from mftrun.jobs.preparation import build_group, build_planner, settings_of
from mftrun.jobs.shard_process import Place, making_shards
from mftrun.jobs.sources import task_sources
from mftrun.schema import RunConfig, task_configs
from mftrun.tracking.summary import SUMMARY_NAME

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.launch import StopRequest

AHEAD = 1
"""Shards that are made before they are wanted; as many are kept after they were: checkpoints lie in them."""

_FORMAT = 1
_SEED_STREAM = 4  # separates the seeds of shards from other random numbers
_NOTHING_SPLIT_OFF = ValidationSize(0.0, 0, 0)

log = logging.getLogger(__name__)


class ShardedData:
    """The samples come in shards, each of which is an epoch; see `RunData`.

    Args:
        config: The run's configuration.
        run_dir: The run's folder.
    """

    def __init__(self, config: RunConfig, run_dir: Path) -> None:
        self._config = config
        self._run_dir = run_dir
        self._layout = RunLayout(run_dir)
        self._folder = ShardFolder(self._layout.data)

    def prepare(self, checkpoint: Path | None) -> DataReport:
        """Makes the tokenizer, the validation samples and the first shard that will be trained on."""
        place = Place.of(checkpoint)
        if checkpoint is None:
            shutil.rmtree(self._layout.data, ignore_errors=True)
        else:
            self._adopt(checkpoint)
        sources = task_sources(self._config)
        tokenizer = self._tokenizer(sources, resuming=checkpoint is not None)
        origin = self._origin(sources, tokenizer)
        if checkpoint is not None:
            self._refuse_changes(origin)
        else:
            for name, task in sources.items():
                refuse_shared(name, task)
        save_tokenizer(tokenizer, self._layout.tokenizer)
        with Workers(worker_count(self._config.data.num_workers)) as workers:
            if checkpoint is None:
                self._start(sources, origin, tokenizer, workers)
            maker = shard_maker(self._config, self._folder, tokenizer, workers)
            self._keep_only(place.epoch)
            is_needed = place.step < self.total_steps() or not self._has_valid_table()
            if is_needed and not self._folder.holds(place.epoch):
                maker.make(place.epoch)
        return self._report(maker, place.epoch, origin, tokenizer)

    @contextmanager
    def supplied(self, checkpoint: Path | None) -> Iterator[None]:
        """Inside, a process makes the following shards; once the run is finished they are gone."""
        place = Place.of(checkpoint)
        if place.step >= self.total_steps():
            yield
            return
        # Its samples are those of the first shard: the ranks read them there.
        shutil.rmtree(self._layout.data / TRAIN_TABLE, ignore_errors=True)
        self._folder.forget_failure()
        self._folder.want(place.epoch)
        with making_shards(self._config, self._run_dir, place, self._folder):
            yield
        if (self._run_dir / SUMMARY_NAME).exists():  # a run that stopped early has none, and will go on
            self._folder.clear()

    def epochs(self, stop: StopRequest, *, announces: bool) -> Epochs:
        """See `RunData`."""
        tasks = list(task_configs(self._config.data))
        return Shards(
            self._folder, tasks, self.plan, announces=announces, is_stopping=lambda: stop.stop_requested
        )

    def valid(self) -> SampleTable:
        """See `RunData`."""
        return SampleTable.open(self._layout.data / VALID_TABLE)

    def total_steps(self) -> int:
        """As many as ``max_steps`` says: streams have no end."""
        assert self._config.train.max_steps is not None, "the schema refuses a stream without an end"
        return self._config.train.max_steps

    @property
    def may_shrink(self) -> bool:
        """Whether shards may turn out to hold fewer steps than planned, as tasks may be frozen."""
        return self._config.evaluation.early_stopping.per_task is not None

    def plan(self, table: SampleTable, number: int, freezes: Sequence[Freeze] = ()) -> EpochPlan:
        """The plan of a shard: that of the first epoch of a data set of its own.

        Args:
            table: The samples of the shard.
            number: Of the shard.
            freezes: From where on tasks are no longer trained; their epochs are shards.
        """
        seed = np.random.SeedSequence([self._config.seed, number, _SEED_STREAM]).generate_state(1)[0]
        return build_planner(self._config, table, int(seed)).epoch(0, _seen_from(number, freezes))

    def _adopt(self, checkpoint: Path) -> None:
        """Takes over the records of another run, whose checkpoint this one goes on from."""
        other = RunLayout(checkpoint.parent.parent)
        theirs = ShardFolder(other.data).records
        if self._folder.about() is None and theirs.is_dir() and other != self._layout:
            shutil.copytree(other.tokenizer, self._layout.tokenizer, dirs_exist_ok=True)
            with whole_folder(self._folder.records) as scratch:
                shutil.copytree(theirs, scratch, dirs_exist_ok=True)

    def _tokenizer(self, sources: Mapping[str, TaskSources], *, resuming: bool) -> PreTrainedTokenizerFast:
        """The run's own; else the model's, which may be trained on the first samples of each task."""
        if resuming and self._layout.tokenizer.is_dir():
            return load_saved(self._layout.tokenizer)
        template = build_group(self._config, "template")
        model = build_group(self._config, "model")
        tokenizer: PreTrainedTokenizerFast = model.tokenizer(
            lambda: self._texts(sources), template.required_tokens
        )
        return templated(tokenizer, template)

    def _texts(self, sources: Mapping[str, TaskSources]) -> Iterator[str]:
        for task, count in shard_samples(self._config).items():
            yield from first_texts(sources[task].train, count)

    def _origin(
        self, sources: Mapping[str, TaskSources], tokenizer: PreTrainedTokenizerFast
    ) -> dict[str, Any]:
        """What the stream is made from. The policies are not part of it: they may change on the way."""
        settings = asdict(settings_of(self._config))
        policies = {name: settings.pop(name) for name in ("on_bad", "on_overlong")}
        assert len(policies) == 2
        origin = {
            "format": [_FORMAT, CHUNK_BYTES],
            "seed": self._config.seed,
            "data": settings,
            "shard_samples": shard_samples(self._config),
            "template": dict(build_group(self._config, "template").fingerprint()),
            "tokenizer": tokenizer_digest(tokenizer),
            "sources": {
                name: {
                    "train": fingerprint(task.train),
                    "valid": None if task.valid is None else fingerprint(task.valid),
                }
                for name, task in sources.items()
            },
        }
        plain: dict[str, Any] = json.loads(json.dumps(origin))
        return plain

    def _refuse_changes(self, origin: Mapping[str, Any]) -> None:
        """Stops a resume whose sources have changed, unless the user has allowed it.

        Raises:
            DataError: Names what has changed.
        """
        about = self._folder.about()
        if about is None:
            message = "no record of the run's stream of data; start a new run"
            raise DataError(self._folder.records, 0, message)
        changes = listed_changes(about["origin"], origin)
        if not changes:
            return
        if not self._config.checkpoint.allow_changed_config:
            message = (
                f"what the run reads its data from has changed since it started:\n{changes}\n"
                "add checkpoint.allow_changed_config=true to read on all the same, at the same places"
            )
            raise DataError(self._folder.records, 0, message)
        log.warning("reading on, although has changed since the run started:\n%s", changes)
        self._folder.write_about({**about, "origin": dict(origin)})

    def _start(
        self,
        sources: Mapping[str, TaskSources],
        origin: Mapping[str, Any],
        tokenizer: PreTrainedTokenizerFast,
        workers: Workers,
    ) -> None:
        """Tokenizes the validation samples and records where the stream begins behind them."""
        encoder = build_group(self._config, "template").encoder(tokenizer)
        begins, has_valid = {}, []
        for index, (name, task) in enumerate(sources.items()):
            stream = TaskStream(task.train)
            size = settings_of(self._config).validation_size
            held = 0 if task.valid is not None else held_out(task.train, name, self._config.seed, size)
            samples = task.valid or (Taken(stream, task.train.location, held) if held else None)
            if samples is not None:
                file = tokenize(
                    samples,
                    encoder,
                    self._folder.valid_tokens(index),
                    workers=workers,
                    title=f"tokenizing {name} (validation)",
                )
                bad = BadLines(name, file.meta.bad, file.meta.bad_examples)
                ON_BAD[self._config.data.on_bad].late([bad])
                has_valid.append(index)
            begins[name] = stream.position
        self._folder.write_start(0, Start(begins, {}))
        places = {name: asdict(begin) for name, begin in begins.items()}
        self._folder.write_about({"origin": dict(origin), "begins": places, "has_valid": has_valid})

    def _keep_only(self, number: int) -> None:
        """Removes shards, and parts of shards, that an earlier start has left and this one has no use for."""
        for other in self._folder.numbers():
            if not number <= other <= number + AHEAD or not self._folder.holds(other):
                self._folder.remove(other)

    def _report(
        self, maker: ShardMaker, number: int, origin: Mapping[str, Any], tokenizer: PreTrainedTokenizerFast
    ) -> DataReport:
        """The tables of the first shard and of the validation samples, and the report on them."""
        stored = read_report(self._layout.data)
        if stored is not None and self._has_valid_table():
            return DataReport.from_dict({**stored["report"], "reused": True})
        about = self._folder.about()
        assert about is not None, "it was recorded, or adopted"
        tasks = [
            self._with_valid(task, index, about["has_valid"])
            for index, task in enumerate(maker.files(number))
        ]
        report = DataReport({}, digest(dict(origin)), tokenizer_digest(tokenizer))
        rules = _rules(self._config)
        report.tasks = write_tables(self._layout.data, tasks, rules, report.fingerprint)
        valid = {index: task.valid for index, task in enumerate(tasks) if task.valid is not None}
        # That one names the token files of the shard, too, which go before it does.
        write_valid(self._layout.data / VALID_TABLE, valid, [task.task for task in tasks], rules.limit)
        write_json(self._layout.data / REPORT, {"origin": dict(origin), "report": report.to_dict()})
        return report

    def _with_valid(self, task: TaskTokens, index: int, has_valid: list[int]) -> TaskTokens:
        valid = TokenFile.open(self._folder.valid_tokens(index)) if index in has_valid else None
        return TaskTokens(task.task, task.train, valid, None, task.location)

    def _has_valid_table(self) -> bool:
        try:
            self.valid()
        except DataError as error:
            log.warning("making the table of validation samples again: %s", error)
            return False
        return True


def shard_samples(config: RunConfig) -> dict[str, int]:
    """How many samples of each task a shard holds."""
    usual = config.data.shard_samples
    assert usual is not None, "the run's data comes in shards"
    return {name: task.shard_samples or usual for name, task in task_configs(config.data).items()}


def shard_maker(
    config: RunConfig, folder: ShardFolder, tokenizer: PreTrainedTokenizerFast, workers: Workers
) -> ShardMaker:
    """The maker of a run's shards.

    Args:
        config: The run's configuration.
        folder: Its shards; what its stream is made from has been recorded there.
        tokenizer: Its tokenizer.
        workers: Processes that tokenize.
    """
    about = folder.about()
    assert about is not None, "the parent has recorded it"
    sources = task_sources(config)
    tasks = {
        name: ShardTask(sources[name].train, count, Position(**about["begins"][name]))
        for name, count in shard_samples(config).items()
    }
    encoder = build_group(config, "template").encoder(tokenizer)
    recipe = Recipe(encoder, _rules(config), ON_BAD[config.data.on_bad], digest(about["origin"]))
    return ShardMaker(folder, tasks, recipe, workers)


def _seen_from(number: int, freezes: Sequence[Freeze]) -> list[Freeze]:
    """The freezes that matter to a shard, which is the first epoch of its own planner."""
    return [
        Freeze(freeze.task, 0, freeze.batch if freeze.epoch == number else 0)
        for freeze in concerning(freezes, number)
    ]


def _rules(config: RunConfig) -> Rules:
    data = config.data
    cuts = build_group(config, "rows").splits_samples
    limit = Limit(None if cuts else data.max_length, ON_OVERLONG[data.on_overlong])
    return Rules(limit, _NOTHING_SPLIT_OFF, config.seed)
