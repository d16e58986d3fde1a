"""Tokens from the sources of the tasks, through the cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mftrun.data.cache import TokenCache
from mftrun.data.digests import digest
from mftrun.data.files import Files
from mftrun.data.policies import ON_BAD, BadLines
from mftrun.data.scan import Reading, scan
from mftrun.data.selection import TaskTokens
from mftrun.data.settings import DataSettings, TaskSources
from mftrun.data.source import Source, fingerprint
from mftrun.data.split import subset
from mftrun.data.template import ConversationEncoder, Template
from mftrun.data.token_file import TokenFile
from mftrun.data.tokenize import Chosen, Identity, tokenize
from mftrun.data.tokenizer import TokenizerMaker, first_texts, load_saved, templated, tokenizer_digest
from mftrun.data.workers import Workers, worker_count
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_FORMAT = 3


class FromSources:
    """Reads, tokenizes and caches the tasks' sources.

    Args:
        tasks: By name.
        settings: Policies.
        template: How conversations become tokens.
        model: Makes the tokenizer.
        cache: Where tokens and trained tokenizers are kept.
        seed: Seed of the subsets.
        workers: Processes that read and tokenize; None takes as many as there are CPU cores.
    """

    def __init__(
        self,
        tasks: Mapping[str, TaskSources],
        settings: DataSettings,
        template: Template,
        model: TokenizerMaker,
        cache: TokenCache,
        seed: int,
        workers: int | None = None,
    ) -> None:
        self._tasks = tasks
        self._on_bad = ON_BAD[settings.on_bad]
        self._workers = worker_count(workers)
        self._template = template
        self._model = model
        self._cache = cache
        self._seed = seed
        self._places = list(_places(tasks))
        self._readings: dict[_Place, Reading] = {}

    def fingerprint(self) -> Mapping[str, Any]:
        """Of all sources and the tokenizer's recipe."""
        return {
            "tasks": {name: self._task_fingerprint(name) for name in self._tasks},
            "tokenizer recipe": dict(self._model.tokenizer_recipe or {}),
        }

    def _task_fingerprint(self, task: str) -> dict[str, Any]:
        train, *others = [place for place in self._places if place.task == task]
        valid = others[0].fingerprint if others else None
        return {"train": train.fingerprint, "valid": valid, "max_samples": train.max_samples}

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The model's own, or one trained on the tasks, which the cache keeps."""
        recipe, control = self._model.tokenizer_recipe, self._template.required_tokens
        if recipe is None:
            return templated(self._model.tokenizer(self._texts, control), self._template)
        sources = [place.fingerprint for place in self._places if not place.is_valid]
        key = {"kind": "tokenizer", "recipe": dict(recipe), "control": list(control), "sources": sources}
        return templated(load_saved(self._cache.get_or_make(key, self._train_tokenizer)), self._template)

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[TaskTokens]:
        """Tokens from the cache; what is not there is scanned, all of it, then tokenized."""
        for name, task in self._tasks.items():
            refuse_shared(name, task)
        encoder = self._template.encoder(tokenizer)
        keys = self._keys(tokenizer)
        with Workers(self._workers) as workers:
            self._scan([place for place in self._places if self._cache.find(keys[place]) is None], workers)
            files = {place: self._file(place, keys[place], encoder, workers) for place in self._places}
        metas = ((place.task, file.meta) for place, file in files.items())
        self._on_bad.late([BadLines(task, meta.bad, meta.bad_examples) for task, meta in metas])
        return [_task_tokens(name, task, files) for name, task in self._tasks.items()]

    def _keys(self, tokenizer: PreTrainedTokenizerFast) -> dict[_Place, dict[str, Any]]:
        """What the tokens of each source depend on."""
        common = {
            "kind": "tokens",
            "format": _FORMAT,
            "template": dict(self._template.fingerprint()),
            "tokenizer": tokenizer_digest(tokenizer),
        }
        return {
            place: {**common, "source": place.fingerprint, "chosen": self._choice(place)}
            for place in self._places
        }

    def _choice(self, place: _Place) -> dict[str, Any] | None:
        if place.max_samples is None:
            return None
        return {"task": place.task, "seed": self._seed, "max_samples": place.max_samples}

    def _scan(self, places: Sequence[_Place], workers: Workers) -> None:
        """Reads sources to their end that were not read before, and applies the policy on bad lines."""
        for place in places:
            if place not in self._readings:
                self._readings[place] = scan(place.source, workers, f"reading {place.title}")
        found = [(place, self._readings[place]) for place in places]
        self._on_bad.early([BadLines(place.task, one.bad, one.examples) for place, one in found])

    def _file(
        self, place: _Place, key: Mapping[str, Any], encoder: ConversationEncoder, workers: Workers
    ) -> TokenFile:
        def make(folder: Path) -> None:
            self._scan([place], workers)  # nothing, unless its entry was there a moment ago
            tokenize(
                place.source,
                encoder,
                folder,
                workers=workers,
                chosen=self._chosen(place),
                identity=Identity(digest(key), key["tokenizer"], key["template"]),
                title=f"tokenizing {place.title}",
            )

        return TokenFile.open(self._cache.get_or_make(key, make))

    def _chosen(self, place: _Place) -> Chosen | None:
        if place.max_samples is None:
            return None
        reading = self._readings[place]
        mask = subset(reading.good, place.task, self._seed, place.max_samples)
        return Chosen(mask, reading.counts)

    def _train_tokenizer(self, folder: Path) -> None:
        with Workers(self._workers) as workers:
            self._scan(self._places, workers)
        self._model.tokenizer(self._texts, self._template.required_tokens).save_pretrained(folder)

    def _texts(self) -> Iterator[str]:
        for task in self._tasks.values():
            yield from first_texts(task.train)


@dataclass(frozen=True, eq=False)
class _Place:
    """One source of a task."""

    task: str
    is_valid: bool
    source: Source
    max_samples: int | None

    @cached_property
    def fingerprint(self) -> dict[str, Any]:
        """What its samples depend on, looked up once: that may walk folders, or ask the hub."""
        return fingerprint(self.source)

    @property
    def title(self) -> str:
        """What people call it."""
        return f"{self.task} (validation)" if self.is_valid else self.task


def _places(tasks: Mapping[str, TaskSources]) -> Iterator[_Place]:
    for name, task in tasks.items():
        yield _Place(name, False, task.train, task.max_samples)
        if task.valid is not None:
            yield _Place(name, True, task.valid, None)


def refuse_shared(name: str, task: TaskSources) -> None:
    """Refuses validation on samples that are trained on.

    Args:
        name: Of the task.
        task: Its sources.

    Raises:
        ConfigError: A file, or the whole source, is for both.
        DataError: Nothing is at a path.
    """
    if task.valid is None:
        return
    key, valid = f"data.tasks.{name}.valid_path", task.valid
    if isinstance(task.train, Files) and isinstance(valid, Files):
        shared = {file.resolve() for file in task.train.files()} & {file.resolve() for file in valid.files()}
        if shared:
            message = f"{min(shared)} would be trained on, too: it is also among the task's files"
            raise ConfigError(key, message)
    elif fingerprint(task.train) == fingerprint(valid):
        raise ConfigError(
            f"data.tasks.{name}.valid_split", f"{valid.location} is what the task is trained on, too"
        )


def _task_tokens(name: str, task: TaskSources, files: Mapping[_Place, TokenFile]) -> TaskTokens:
    mine = {place.is_valid: file for place, file in files.items() if place.task == name}
    return TaskTokens(name, mine[False], mine.get(True), task.max_samples, task.train.location)
