"""job=generate: let a trained model answer, on the command line, from a file, or in a chat."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from mftrun.errors import ConfigError
from mftrun.generation.base import BackendOption, Weights
from mftrun.generation.sampling import Sampling

if TYPE_CHECKING:
    from mftrun.generation.answers_file import AnswersFile
    from mftrun.generation.finishing import Finished
    from mftrun.generation.generator import Generator
    from mftrun.generation.ready import Ready
    from mftrun.generation.requests import Request

log = logging.getLogger(__name__)

ANSWERS = "generated.jsonl"
_SOURCES = ("prompt", "prompts", "chat")


@dataclass(frozen=True)
class GenerateJob:
    """Answers prompts with a base model, an adapter on its base, or a whole trained model.

    Args:
        path: Folder of a run, of a model or of an adapter, or an id on the hub.
        backend: What generates tokens.
        prompt: A text, or a list of texts.
        prompts: A file of prompts.
        chat: Whether to talk on the terminal.
        system: System text, for conversations that have none.
        max_new_tokens: See `Sampling`, as the next six.
        temperature: 0 is greedy.
        top_p: Share of the probability to sample from.
        top_k: Number of tokens to sample from; None takes all.
        repetition_penalty: What tokens are penalised with that were there before.
        num_samples: Answers to each prompt.
        stop: Texts that end an answer.
        dtype: See `Weights`, as the next two.
        quantization: Bits of linear layers' weights; None does not quantise.
        trust_remote_code: Whether Python code in the model's folder may run.
        revision: Branch, tag or commit on the hub.
        base: Folder or hub id of the base of an adapter; None takes what the adapter names.
        output: JSON lines of answers; None takes ``generated.jsonl`` in the run's folder.

    Raises:
        ConfigError: Not exactly one of `prompt`, `prompts` and `chat` is given, or a value is out of range.
    """

    reads: ClassVar[frozenset[str]] = frozenset({"seed", "template", "data.on_bad", "data.on_overlong"})

    path: str
    backend: BackendOption
    prompt: str | list[str] | None = None
    prompts: str | None = None
    chat: bool = False
    system: str = ""
    max_new_tokens: int = 512
    temperature: float = 0.1
    top_p: float = 0.95
    top_k: int | None = None
    repetition_penalty: float = 1.0
    num_samples: int = 1
    stop: list[str] = field(default_factory=list)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    quantization: Literal["4bit", "8bit"] | None = None
    trust_remote_code: bool = False
    revision: str | None = None
    base: str | None = None
    output: str | None = None

    def __post_init__(self) -> None:
        given = [name for name in _SOURCES if getattr(self, name) not in (None, False)]
        if len(given) != 1:
            asked = " and ".join(given) or "nothing"
            raise ConfigError(
                "prompt", f'{asked} is given; give one of prompt="TEXT", prompts=FILE and chat=true'
            )
        self._sampling(0)
        self._weights()
        if self.chat and (self.num_samples > 1 or self.output is not None):
            key = "job.num_samples" if self.num_samples > 1 else "job.output"
            raise ConfigError(key, "does not act in a chat; leave it out")

    def run(self, config: Mapping[str, Any], run_dir: Path) -> None:
        """Loads the model, and answers.

        Args:
            config: The resolved configuration, already checked.
            run_dir: The run's folder.

        Raises:
            MftrunError: Anything that the user can put right.
        """
        from mftrun.generation.chat import Chat
        from mftrun.generation.ready import ready

        self.backend.check()
        requests = self._requests(config["data"]["on_bad"])
        generator = self._generator(config)
        sampling = self._sampling(config["seed"])
        if self.chat:
            Chat(generator, sampling, self.system).run()
            return
        policies = {key: config["data"][key] for key in ("on_bad", "on_overlong")}
        found = ready(generator, requests, self.system, **policies)
        if len(found) == 1 and self.prompt is not None and self.num_samples == 1:
            self._one(generator, found[0], sampling, run_dir)
        else:
            self._many_or_some(generator, found, sampling, run_dir)

    def _requests(self, on_bad: str) -> list[Request]:
        from mftrun.generation.requests import given_requests, read_requests

        if self.prompts is not None:
            return read_requests(self.prompts, on_bad)
        return [] if self.prompt is None else given_requests(self.prompt)

    def _generator(self, config: Mapping[str, Any]) -> Generator:
        from mftrun.generation.generator import Generator
        from mftrun.generation.identity import identity
        from mftrun.generation.place import look_up
        from mftrun.generation.prompts import prompts_for
        from mftrun.generation.templates import asked_template, choose_template

        place = look_up(self.path, self.revision, self.base)
        tokenizer = _tokenizer(place.tokenizer, place.tokenizer_revision, self)
        template = choose_template(asked_template(config), place, tokenizer, config["allowed_targets"])
        prompts = prompts_for(template, tokenizer)
        weights = self._weights()
        backend = self.backend.open(place, tokenizer, weights)
        known = identity(place, weights, self.backend, template, prompts.stop_ids)
        return Generator(backend, prompts, known)

    def _one(self, generator: Generator, asked: Ready, sampling: Sampling, run_dir: Path) -> None:
        """Shows an answer while it grows, and keeps it."""
        start = time.monotonic()
        with self._file(generator, [asked], sampling, run_dir) as file:
            answer = generator.stream(asked.prompt, sampling, _show)
            _show("\n")
            if not file.done:
                file.write(0, [answer])
        _tell([answer], time.monotonic() - start)
        log.info("the answer is in %s", self._output(run_dir))

    def _many_or_some(
        self, generator: Generator, asked: Sequence[Ready], sampling: Sampling, run_dir: Path
    ) -> None:
        try:
            self._many(generator, asked, sampling, run_dir)
        except KeyboardInterrupt as interrupt:
            interrupt.add_note(f"go on with the same command and job.output={self._output(run_dir)}")
            raise

    def _many(self, generator: Generator, asked: Sequence[Ready], sampling: Sampling, run_dir: Path) -> None:
        """Writes answers to the file as they come; those of a list on the command line are shown, too."""
        from mftrun.data.progress import progress

        start = time.monotonic()
        log.info("answers go to %s", self._output(run_dir))
        said: list[Finished] = []
        with (
            self._file(generator, asked, sampling, run_dir) as file,
            progress(f"answering {len(asked) - file.done:,} prompts", len(asked) - file.done) as advance,
        ):
            if file.done:
                log.info("%s answers are there already", f"{file.done:,}")
            left = asked[file.done :]
            found = generator.answers([one.prompt for one in left], sampling)
            for number, (one, answers) in enumerate(zip(left, found, strict=True), file.done):
                file.write(number, answers)
                said += answers
                if self.prompt is not None:
                    _show_all(one.request, answers)
                advance(1)
        _tell(said, time.monotonic() - start)

    def _file(
        self, generator: Generator, asked: Sequence[Ready], sampling: Sampling, run_dir: Path
    ) -> AnswersFile:
        from mftrun.generation.answers_file import AnswersFile, answer_key

        settings = {**generator.identity, "sampling": {**vars(sampling), "stop": list(self.stop)}}
        keys = [answer_key(one.prompt.ids, one.prompt.number, settings) for one in asked]
        return AnswersFile(self._output(run_dir), keys, [one.request for one in asked])

    def _output(self, run_dir: Path) -> Path:
        return run_dir / ANSWERS if self.output is None else Path(self.output).expanduser().absolute()

    def _sampling(self, seed: int) -> Sampling:
        return Sampling(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            num_samples=self.num_samples,
            stop=tuple(self.stop),
            seed=seed,
        )

    def _weights(self) -> Weights:
        return Weights(self.dtype, self.quantization, self.trust_remote_code)


def _tokenizer(where: str, revision: str | None, job: GenerateJob) -> Any:
    from mftrun.models.tokenizers import load_tokenizer

    try:
        return load_tokenizer(where, revision, job.trust_remote_code)
    except ConfigError as error:
        raise ConfigError("path", error.message) from error


def _show(text: str) -> None:
    print(text, end="", flush=True)


def _show_all(request: Request, answers: Sequence[Finished]) -> None:
    _show(f"── {request.origin}\n")
    for answer in answers:
        _show(f"{answer.text}\n")


def _tell(answers: Sequence[Finished], seconds: float) -> None:
    tokens = sum(answer.tokens for answer in answers)
    rate = tokens / seconds if seconds > 0 else 0.0
    log.info("%s tokens in %.1f s, %.1f tokens/s", f"{tokens:,}", seconds, rate)
    long = sum(answer.finish == "length" for answer in answers)
    if long:
        log.info("%s of %s answers were cut at their longest length", f"{long:,}", f"{len(answers):,}")
    empty = sum(answer.ended_at_once for answer in answers)
    if empty and len(answers) == 1:
        log.info("the model ended its answer at once: it is empty")
    elif empty:
        log.info(
            "%s of %s answers are empty: the model ended them at once", f"{empty:,}", f"{len(answers):,}"
        )
