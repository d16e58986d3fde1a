"""Generation by transformers, on one device."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from mftrun.errors import ConfigError
from mftrun.generation.base import Backend, Ending, TokenPrompt, Weights

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerFast

    from mftrun.generation.place import Place
    from mftrun.generation.sampling import Sampling

_WINDOW = 8  # batches whose rows are sorted together


@dataclass(frozen=True)
class Transformers:
    """Generates with transformers: any model that trains here, batched.

    Args:
        batch_size: Answers that are generated together, at most. It changes speed and memory, not answers.
        device: ``auto`` takes a GPU where there is one; else a device as torch names it.
        attention: Implementation of attention; ``auto`` takes the default of the model option.
        merge: Whether an adapter is folded into the weights: faster, and equal but for rounding.

    Raises:
        ConfigError: The batch size is below 1.
    """

    batch_size: int = 16
    device: str = "auto"
    attention: str = "auto"
    merge: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError("job.backend.batch_size", f"must be 1 or more, not {self.batch_size}")

    def check(self) -> None:
        """See `BackendOption.check`."""
        self._device()

    def gpus(self) -> int:
        """See `BackendOption.gpus`: one, or all where a certain one is asked for."""
        from mftrun.distributed.machines import visible_gpus

        device = self._device()
        if device.type != "cuda":
            return 0
        return 1 if device.index is None else visible_gpus()

    def identity(self, weights: Weights) -> Mapping[str, Any]:
        """See `BackendOption.identity`: all but the batch size; `auto` as what it means here."""
        from mftrun.generation.loading import resolve_dtype

        device = self._device()
        dtype = str(resolve_dtype(weights.dtype, device))
        return {"device": device.type, "dtype": dtype, "attention": self.attention, "merge": self.merge}

    def open(self, place: Place, tokenizer: PreTrainedTokenizerFast, weights: Weights) -> Backend:
        """See `BackendOption.open`."""
        from mftrun.generation.loading import load

        model = load(place, tokenizer, weights, self._device(), self.attention, merge=self.merge)
        return TransformersBackend(model, int(tokenizer.pad_token_id or 0), self.batch_size)

    def _device(self) -> torch.device:
        import torch

        if self.device == "auto":
            return torch.device("cuda" if torch.cuda.is_available() else "cpu")
        try:
            device = torch.device(self.device)
            torch.empty(0, device=device)
        except (RuntimeError, AssertionError) as error:
            raise ConfigError("job.backend.device", f"{self.device} is not here: {error}") from error
        return device


class _Row(NamedTuple):
    """One answer to be generated."""

    prompt: TokenPrompt
    sample: int
    place: int


class TransformersBackend:
    """A model of transformers, or an adapter of peft on one.

    Args:
        model: In evaluation mode.
        pad_id: Token that fills rows; nothing sees it.
        batch_size: Rows that are generated together, at most.
        device: Where it computes; None takes where its weights lie.
    """

    def __init__(
        self, model: Any, pad_id: int, batch_size: int = 16, device: torch.device | None = None
    ) -> None:
        from transformers import GenerationConfig

        from mftrun.models.parts import causal_lm_of, text_config_of

        causal_lm = causal_lm_of(model)
        # Settings that came with the model would act unseen: the keys of the job alone do.
        causal_lm.generation_config = GenerationConfig()
        self._model = model
        self._pad_id = pad_id
        self._batch_size = batch_size
        self._device = device or model.device
        self.positions: int | None = getattr(text_config_of(causal_lm), "max_position_embeddings", None)

    def generate(
        self, prompts: Sequence[TokenPrompt], sampling: Sampling, ending: Ending
    ) -> Iterator[list[list[int]]]:
        """See `Backend.generate`."""
        samples = range(sampling.num_samples)
        per_window = max(1, self._batch_size * _WINDOW // sampling.num_samples)
        for begin in range(0, len(prompts), per_window):
            window = prompts[begin : begin + per_window]
            rows = [_Row(prompt, sample, place) for place, prompt in enumerate(window) for sample in samples]
            answers: list[list[list[int] | None]] = [[None for _ in samples] for _ in window]
            waiting = iter(answers)  # for all of its samples, and for those before it
            first = next(waiting)
            for row, answer in self._answered(rows, sampling, ending):
                answers[row.place][row.sample] = answer
                while (whole := [one for one in first if one is not None]) and len(whole) == len(first):
                    yield whole
                    first = next(waiting, [])

    def stream(
        self, prompt: TokenPrompt, sampling: Sampling, ending: Ending, feed: Callable[[list[int]], None]
    ) -> list[int]:
        """See `Backend.stream`."""
        streamer = _Streamer(feed)
        try:
            (answer,) = self._batch([_Row(prompt, 0, 0)], sampling, ending, streamer)
        except KeyboardInterrupt:
            return streamer.ids
        return answer

    def _answered(
        self, rows: Sequence[_Row], sampling: Sampling, ending: Ending
    ) -> Iterator[tuple[_Row, list[int]]]:
        """Rows of a like length together, the longest first: what does not fit in memory shows at once."""
        ordered = sorted(rows, key=lambda row: -len(row.prompt.ids))
        for begin in range(0, len(ordered), self._batch_size):
            batch = ordered[begin : begin + self._batch_size]
            yield from zip(batch, self._batch(batch, sampling, ending), strict=True)

    def _batch(
        self, rows: Sequence[_Row], sampling: Sampling, ending: Ending, streamer: Any = None
    ) -> list[list[int]]:
        import torch
        from transformers import GenerationConfig, StoppingCriteriaList

        from mftrun.generation.choice import RowEnds, choices

        ids, mask = self._padded([row.prompt.ids for row in rows])
        budgets = [sampling.budget(len(row.prompt.ids), self.positions) for row in rows]
        seeds = [f"{sampling.seed} {row.prompt.number} {row.prompt.sample + row.sample}" for row in rows]
        settings = GenerationConfig(
            max_new_tokens=max(budgets),
            do_sample=False,
            use_cache=True,
            eos_token_id=list(ending.stop_ids),
            pad_token_id=self._pad_id,
        )
        try:
            whole = self._generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=settings,
                logits_processor=choices(sampling, seeds, mask),
                stopping_criteria=StoppingCriteriaList([RowEnds(ids.shape[1], budgets, ending)]),
                streamer=streamer,
            )
        except torch.OutOfMemoryError as error:
            raise ConfigError(
                "job.backend.batch_size",
                f"{len(rows)} answers at once need more memory than there is: {error}",
            ) from error
        answers: list[list[int]] = whole[:, ids.shape[1] :].tolist()
        return answers

    def _generate(self, **inputs: Any) -> torch.Tensor:
        """Prompts and answers, int64 [rows, length]."""
        import torch

        with torch.inference_mode():
            whole: torch.Tensor = self._model.generate(**inputs)
        return whole

    def _padded(self, prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Tokens and their mask, int64 [rows, longest], padded on the left: all answers begin alike."""
        import torch

        width = max(map(len, prompts))
        ids = [[self._pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
        mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
        device = self._device
        return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


class _Streamer:
    """Collects the tokens of one row, as transformers hands them over."""

    def __init__(self, feed: Callable[[list[int]], None]) -> None:
        self.ids: list[int] = []
        self._feed = feed
        self._is_prompt = True

    def put(self, value: torch.Tensor) -> None:
        """Takes the prompt first, then each token."""
        if self._is_prompt:
            self._is_prompt = False
            return
        self.ids += value.reshape(-1).tolist()
        self._feed(self.ids)

    def end(self) -> None:
        """There is nothing more."""
