"""Generation by vLLM: fast for many prompts on GPUs."""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mftrun.errors import ConfigError
from mftrun.generation.base import Backend, Ending, TokenPrompt, Weights

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from mftrun.generation.place import Place
    from mftrun.generation.sampling import Sampling

_GROUP = "job/backend"
_WINDOW = 1024  # prompts that are handed over together; their answers come together
_ALL = -1  # as `top_k`
_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # what vLLM makes room for


@dataclass(frozen=True)
class Vllm:
    """Generates with vLLM, which is installed apart.

    Args:
        tensor_parallel: GPUs that each matrix is divided over.
        memory: Share of the GPU's memory that vLLM takes.
        max_length: Most tokens of a prompt and its answer; None takes what the model says.

    Raises:
        ConfigError: A number is out of its range.
    """

    tensor_parallel: int = 1
    memory: float = 0.9
    max_length: int | None = None

    def __post_init__(self) -> None:
        if self.tensor_parallel < 1:
            raise ConfigError("job.backend.tensor_parallel", f"must be 1 or more, not {self.tensor_parallel}")
        if not 0 < self.memory <= 1:
            raise ConfigError("job.backend.memory", f"must be above 0 and at most 1, not {self.memory}")
        if self.max_length is not None and self.max_length < 2:
            raise ConfigError("job.backend.max_length", f"must be 2 or more, or null, not {self.max_length}")

    def check(self) -> None:
        """See `BackendOption.check`."""
        _module("vllm")

    def gpus(self) -> int:
        """See `BackendOption.gpus`."""
        return self.tensor_parallel

    def identity(self, weights: Weights) -> Mapping[str, Any]:
        """See `BackendOption.identity`: all but the share of memory."""
        return {"tensor_parallel": self.tensor_parallel, "max_length": self.max_length}

    def open(self, place: Place, tokenizer: PreTrainedTokenizerFast, weights: Weights) -> Backend:
        """See `BackendOption.open`."""
        vllm = _module("vllm")
        settings = {
            "model": place.model,
            "tokenizer": place.tokenizer,
            "dtype": weights.dtype,
            "trust_remote_code": weights.trust_remote_code,
            "tensor_parallel_size": self.tensor_parallel,
            "gpu_memory_utilization": self.memory,
            "generation_config": "vllm",  # nothing that came with the model acts unseen
            **({} if self.max_length is None else {"max_model_len": self.max_length}),
            **_revisions(place),
            **_quantization(weights),
            **_lora_settings(place),
        }
        try:
            engine = vllm.LLM(**settings)
        except (OSError, ValueError, RuntimeError) as error:
            raise ConfigError(_GROUP, f"vLLM cannot load {place.model}: {error}") from error
        lora = None
        if place.adapter is not None:
            lora = _module("vllm.lora.request").LoRARequest("adapter", 1, place.adapter)
        return VllmBackend(engine, vllm.SamplingParams, lora)


class VllmBackend:
    """A vLLM engine.

    Args:
        engine: A `vllm.LLM`.
        params: `vllm.SamplingParams`.
        lora: A `LoRARequest`, or None.
    """

    def __init__(self, engine: Any, params: Callable[..., Any], lora: Any = None) -> None:
        self._engine = engine
        self._params = params
        self._lora = lora
        self.positions: int | None = engine.llm_engine.model_config.max_model_len

    def generate(
        self, prompts: Sequence[TokenPrompt], sampling: Sampling, ending: Ending
    ) -> Iterator[list[list[int]]]:
        """See `Backend.generate`."""
        for begin in range(0, len(prompts), _WINDOW):
            window = prompts[begin : begin + _WINDOW]
            outputs = self._engine.generate(
                [{"prompt_token_ids": list(prompt.ids)} for prompt in window],
                [self._params(**sampling_values(prompt, sampling, ending)) for prompt in window],
                use_tqdm=False,
                lora_request=self._lora,
            )
            for output in outputs:
                yield [list(answer.token_ids) for answer in output.outputs]

    def stream(
        self, prompt: TokenPrompt, sampling: Sampling, ending: Ending, feed: Callable[[list[int]], None]
    ) -> list[int]:
        """See `Backend.stream`; vLLM's offline engine hands over whole answers."""
        ((answer,),) = self.generate([prompt], replace(sampling, num_samples=1), ending)
        feed(answer)
        return answer


def sampling_values(prompt: TokenPrompt, sampling: Sampling, ending: Ending) -> dict[str, Any]:
    """The settings as `vllm.SamplingParams` takes them.

    Args:
        prompt: What is answered; its number and its sample decide the random numbers.
        sampling: The settings.
        ending: What ends an answer.
    """
    sample = f" {prompt.sample}" if prompt.sample else ""
    drawn = hashlib.sha256(f"{sampling.seed} {prompt.number}{sample}".encode()).digest()
    return {
        "n": sampling.num_samples,
        "max_tokens": sampling.budget(len(prompt.ids), None),
        "temperature": float(sampling.temperature),
        "top_p": float(sampling.top_p),
        "top_k": _ALL if sampling.top_k is None else sampling.top_k,
        "repetition_penalty": float(sampling.repetition_penalty),
        "stop": list(ending.stop),
        "stop_token_ids": list(ending.stop_ids),
        "seed": int.from_bytes(drawn[:4], "big") >> 1,
    }


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise ConfigError(
            _GROUP, f"vLLM is not installed ({error}): pip install vllm, or leave out job/backend=vllm"
        ) from error


def _revisions(place: Place) -> dict[str, str]:
    given = {"revision": place.model_revision, "tokenizer_revision": place.tokenizer_revision}
    return {key: revision for key, revision in given.items() if revision is not None}


def _quantization(weights: Weights) -> dict[str, str]:
    if weights.quantization == "8bit":
        raise ConfigError("job.quantization", "vLLM quantises to 4bit while it loads, not to 8bit")
    return {} if weights.quantization is None else {"quantization": "bitsandbytes"}


def _lora_settings(place: Place) -> dict[str, Any]:
    settings = place.adapter_settings
    if not settings:
        return {}
    rank = int(settings.get("r") or 0)
    unfit = [name for name in ("use_dora", "modules_to_save") if settings.get(name)]
    if settings.get("peft_type") != "LORA" or unfit or rank > _RANKS[-1]:
        what = ", ".join(unfit) or f"{settings.get('peft_type')} of rank {rank}"
        raise ConfigError(
            _GROUP,
            f"vLLM takes plain LoRA adapters, and {place.adapter} has {what}; merge it into its base with "
            "job=merge, and give path= the merged model",
        )
    return {"enable_lora": True, "max_lora_rank": next(size for size in _RANKS if size >= rank)}
