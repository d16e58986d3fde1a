"""Where the tokens of a run come from: its sources, through the cache, or a folder tokenized before."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from mftrun.data.cache import TokenCache
from mftrun.data.digests import digest, tokenizer_digest
from mftrun.data.files import Files
from mftrun.data.policies import ON_BAD, BadLines
from mftrun.data.sample import Sample
from mftrun.data.scan import Reading, scan
from mftrun.data.selection import TaskTokens
from mftrun.data.settings import DataSettings, TaskSources
from mftrun.data.source import Source, fingerprint, read
from mftrun.data.split import subset
from mftrun.data.template import ConversationEncoder, Template
from mftrun.data.token_file import TokenFile
from mftrun.data.tokenize import Chosen, Identity, tokenize
from mftrun.data.tokenized import TOKENIZER, Fingerprints, open_tokenized, read_manifest
from mftrun.data.workers import Workers, worker_count
from mftrun.errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_FORMAT = 3
# A tokenizer for a model from nothing learns from so many samples of each task, at most, and from so many
# characters of each message: one text of 50 MB would take it gigabytes.
_TEXT_SAMPLES, _TEXT_CHARACTERS = 50_000, 100_000

Texts = Callable[[], Iterator[str]]


class TokenizerMaker(Protocol):
    """What a model option knows of tokenizers."""

    @property
    def tokenizer_recipe(self) -> Mapping[str, Any] | None:
        """What a tokenizer depends on that is trained on the tasks; None where the model brings its own."""

    def tokenizer(self, texts: Texts, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerFast:
        """The tokenizer."""


class Supply(Protocol):
    """Gives the tokenizer and the tokens of a run."""

    def fingerprint(self) -> Mapping[str, Any]:
        """Plain values that change when the tokens may.

        Raises:
            DataError, ConfigError: Sources, or the folder, are gone.
        """

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The tokenizer, with the template's chat template.

        Raises:
            DataError, ConfigError: There is none, or the text to train one on cannot be read.
        """

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[TaskTokens]:
        """The tokens of all tasks, in their order.

        Raises:
            DataError: Lines that the policy refuses, a source that cannot be read.
            ConfigError: The template or the folder does not fit the tokenizer.
        """


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
            "tasks": {name: _fingerprint(task) for name, task in self._tasks.items()},
            "tokenizer recipe": dict(self._model.tokenizer_recipe or {}),
        }

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The model's own, or one trained on the tasks, which the cache keeps."""
        recipe, control = self._model.tokenizer_recipe, self._template.required_tokens
        if recipe is None:
            return templated(self._model.tokenizer(self._texts, control), self._template)
        sources = [fingerprint(task.train) for task in self._tasks.values()]
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
        self._on_bad.late([_bad_lines(place.task, file) for place, file in files.items()])
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
            place: {**common, "source": fingerprint(place.source), "chosen": self._choice(place)}
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


class FromFolder:
    """What job=tokenize wrote, if the tokenizer and the template are those it was made with.

    Args:
        folder: The folder.
        settings: Policies.
        template: How conversations become tokens.
        model: Makes the tokenizer, unless it would be trained on the tasks.
    """

    def __init__(
        self, folder: Path, settings: DataSettings, template: Template, model: TokenizerMaker
    ) -> None:
        self._folder = folder
        self._on_bad = ON_BAD[settings.on_bad]
        self._template = template
        self._model = model

    def fingerprint(self) -> Mapping[str, Any]:
        """Of the folder's manifest."""
        return {"tokenized": digest(read_manifest(self._folder))}

    def tokenizer(self) -> PreTrainedTokenizerFast:
        """The model's own, or the one that was trained on the tasks."""
        if self._model.tokenizer_recipe is None:
            own = self._model.tokenizer(lambda: iter(()), self._template.required_tokens)
            return templated(own, self._template)
        return templated(load_saved(self._folder / TOKENIZER), self._template)

    def tokens(self, tokenizer: PreTrainedTokenizerFast) -> list[TaskTokens]:
        """The folder's token files."""
        fingerprints = Fingerprints(
            self._template.fingerprint(), self._model.tokenizer_recipe, tokenizer_digest(tokenizer)
        )
        tasks = open_tokenized(self._folder, fingerprints)
        self._on_bad.late(
            [
                BadLines(task.task, file.meta.bad, file.meta.bad_examples)
                for task in tasks
                for file in task.files
            ]
        )
        return tasks


@dataclass(frozen=True, eq=False)
class _Place:
    """One source of a task."""

    task: str
    is_valid: bool
    source: Source
    max_samples: int | None

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


def first_texts(source: Source, most: int = _TEXT_SAMPLES) -> Iterator[str]:
    """What a tokenizer is trained on: the texts of the first samples of a source.

    Args:
        source: The source.
        most: Of how many samples, at most.
    """
    samples = (item for item in read(source) if isinstance(item, Sample))
    for sample in islice(samples, min(most, _TEXT_SAMPLES)):
        yield from (message.content[:_TEXT_CHARACTERS] for message in sample.messages)


def _fingerprint(task: TaskSources) -> dict[str, Any]:
    valid = None if task.valid is None else fingerprint(task.valid)
    return {"train": fingerprint(task.train), "valid": valid, "max_samples": task.max_samples}


def _task_tokens(name: str, task: TaskSources, files: Mapping[_Place, TokenFile]) -> TaskTokens:
    mine = {place.is_valid: file for place, file in files.items() if place.task == name}
    return TaskTokens(name, mine[False], mine.get(True), task.max_samples, task.train.location)


def _bad_lines(task: str, file: TokenFile) -> BadLines:
    return BadLines(task, file.meta.bad, file.meta.bad_examples)


def templated(tokenizer: PreTrainedTokenizerFast, template: Template) -> PreTrainedTokenizerFast:
    """The tokenizer, with the template's own chat template where it has one."""
    own = template.chat_template()
    if own is not None:
        tokenizer.chat_template = own
    return tokenizer


def load_saved(folder: Path) -> PreTrainedTokenizerFast:
    """A tokenizer as it was saved."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)
