"""A pretrained causal language model from a local folder or the hub."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

from mftrun.errors import ConfigError
from mftrun.models.attention import Attention, check_named, choose, implementation
from mftrun.models.base import HeadKind, ModelSource, Texts
from mftrun.models.checkpoint import (
    architecture_of,
    brings_model_code,
    check_family,
    check_native,
    check_not_quantized,
    check_weights,
    describe_code,
    native_type,
    read_config,
)

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pretrained:
    """Loads a model that transformers has a class for.

    Args:
        path: Folder with config.json, weights and tokenizer, or the id of a model on the hub.
        model_types: The architectures this option is for, as config.json names them; None takes any.
        dtype: Of the weights; `auto` takes what the run's precision asks for.
        attention: Implementation of attention; see `mftrun.models.attention.choose`.
        trust_remote_code: Whether Python code in the model's folder may run.
        revision: Branch, tag or commit on the hub.
        head: How target positions are projected.
        end_token: Ends a text; None takes the tokenizer's own.
        pad_token: Fills rows; None takes the tokenizer's own, else its end token.
        adapter_targets: The layers that adapters are for, unless their option names others.
    """

    path: str
    model_types: Sequence[str] | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Attention = "auto"
    trust_remote_code: bool = False
    revision: str | None = None
    head: HeadKind = "auto"
    end_token: str | None = None
    pad_token: str | None = None
    adapter_targets: str | Sequence[str] = "all-linear"

    @property
    def has_files(self) -> bool:
        """True; see `ModelSource.has_files`."""
        return True

    @property
    def tokenizer_recipe(self) -> None:
        """None: the model brings its own; see `ModelSource.tokenizer_recipe`."""
        return None

    @property
    def model_type(self) -> str:
        """The architecture, from config.json.

        Raises:
            ConfigError: There is none.
        """
        return str(self._config()["model_type"])

    def check(self) -> None:
        """See `ModelSource.check`: the folder, the architecture, and the libraries that were asked for.

        Raises:
            ConfigError: One of them is missing or does not fit.
        """
        from mftrun.models.heads import check_kind

        check_kind(self.head)
        config = self._config()
        check_family(config, self.path, self.model_types)
        self._warn_of_code(config)
        if not self.trust_remote_code:
            check_native(config, self.path)
        check_named(self.attention, config["model_type"])
        check_not_quantized(config, self.path)
        check_weights(self._where)

    def tokenizer(self, texts: Texts, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerFast:
        """The model's own tokenizer, with the option's end and pad tokens; see `ModelSource.tokenizer`."""
        from mftrun.models.tokenizers import load_tokenizer

        return load_tokenizer(
            self._where,
            self.revision,
            self.trust_remote_code,
            end_token=self.end_token,
            pad_token=self.pad_token,
        )

    def settled(self, compute: torch.dtype) -> Pretrained:
        """The same with the attention that it will run with, instead of ``auto``.

        Args:
            compute: What matrix products are made in, which need not be the dtype of the weights.

        Raises:
            ConfigError: The attention that was named does not work here.
        """
        config = self._config()
        if self._runs_own_code(config):
            return self
        choice = choose(self.attention, native_type(config), compute)
        log.info("attention: %s (%s)", choice.name, choice.reason)
        return replace(self, attention=choice.name)  # type: ignore[arg-type]

    def load(
        self,
        tokenizer: PreTrainedTokenizerFast,
        dtype: torch.dtype,
        quantization: BitsAndBytesConfig | None = None,
        mesh: DeviceMesh | None = None,
    ) -> PreTrainedModel:
        """See `ModelSource.load`. Embeddings grow when the tokenizer has more entries than they have rows.

        Raises:
            ConfigError: Files are missing or broken, weights are missing, the family lacks this attention, or
                the weights are quantised already.
        """
        from mftrun.models.parts import text_config_of
        from mftrun.models.quantization import keep_differentiable, quiet_casts

        model = self._weights(dtype, quantization, mesh)
        keep_differentiable(model)
        quiet_casts()
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            log.info("the tokenizer has grown: embeddings resized to %d entries", len(tokenizer))
            model.resize_token_embeddings(len(tokenizer))
        if self.pad_token is not None:
            for config in (model.config, text_config_of(model)):  # one inside the other in some families
                config.pad_token_id = tokenizer.pad_token_id
        return model.train()

    def skeleton(self, entries: int, dtype: torch.dtype) -> PreTrainedModel:
        """The model without numbers (on the meta device): its architecture alone, from config.json.

        A checkpoint that is yet to be converted gives the architecture that it will have.

        Args:
            entries: Of the tokenizer.
            dtype: Of the weights, unless the option names one.

        Raises:
            ConfigError: The architecture cannot be made.
        """
        import torch
        from transformers import AutoModelForCausalLM

        config = self._config()
        check_family(config, self.path, self.model_types)
        self._warn_of_code(config)
        options = {"dtype": self._dtype(dtype), "trust_remote_code": self.trust_remote_code}
        try:
            architecture = architecture_of(config, self._where, self.revision, self.trust_remote_code)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    architecture, attn_implementation=self._attention(dtype), **options
                )
        except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
            raise self._loading_error(error) from error
        if entries > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(entries, mean_resizing=False)
        result: PreTrainedModel = model.train()
        return result

    def _config(self) -> Mapping[str, Any]:
        return read_config(self._where, self.revision)

    def _warn_of_code(self, config: Mapping[str, Any]) -> None:
        if self.trust_remote_code:
            log.warning(describe_code(config, self._where, self.revision))

    def _runs_own_code(self, config: Mapping[str, Any]) -> bool:
        return self.trust_remote_code and brings_model_code(config)

    def _attention(self, dtype: torch.dtype) -> str | None:
        """Transformers' name of the attention; None leaves it to code of the model's own."""
        config = self._config()
        if self._runs_own_code(config):
            return None if self.attention == "auto" else implementation(self.attention)
        # Mixed precision may compute in another dtype than a named attention finds here; see `settled`.
        compute = self._dtype(dtype) if self.attention == "auto" else None
        return implementation(choose(self.attention, native_type(config), compute).name)

    def _dtype(self, wanted: torch.dtype) -> torch.dtype:
        import torch

        named: torch.dtype = wanted if self.dtype == "auto" else getattr(torch, self.dtype)
        return named

    @property
    def _where(self) -> str:
        return str(Path(self.path).expanduser()) if self.path.startswith("~") else self.path

    def _weights(
        self, dtype: torch.dtype, quantization: BitsAndBytesConfig | None, mesh: DeviceMesh | None
    ) -> PreTrainedModel:
        from safetensors import SafetensorError
        from transformers import AutoModelForCausalLM

        self._warn_of_code(self._config())
        attention = self._attention(dtype)
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                self._where,
                dtype=self._dtype(dtype),
                attn_implementation=attention,
                trust_remote_code=self.trust_remote_code,
                revision=self.revision,
                quantization_config=quantization,
                output_loading_info=True,
                **({} if mesh is None else {"tp_plan": "auto", "device_mesh": mesh}),
            )
        except (OSError, ValueError, ImportError, RuntimeError, UnpicklingError, SafetensorError) as error:
            raise self._loading_error(error) from error
        self._refuse_missing(sorted(report["missing_keys"]))
        return model

    def _loading_error(self, error: Exception) -> ConfigError:
        """Transformers says that a family lacks an attention in prose alone."""
        if "scaled_dot_product_attention" in str(error) or "attn_implementation" in str(error):
            return ConfigError("model.attention", f"{self.attention} does not work here; use eager: {error}")
        return ConfigError("model.path", f"{self.path} cannot be loaded: {error}")

    def _refuse_missing(self, names: list[str]) -> None:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            shown = ", ".join(names[:3]) + more
            raise ConfigError("model.path", f"{self.path} lacks weights, which would stay random: {shown}")


def settle_attention(source: ModelSource, compute: torch.dtype) -> ModelSource:
    """A model option with the attention that it will run with, logged; what is not `Pretrained` as it is.

    Args:
        source: The option.
        compute: What matrix products are made in.

    Raises:
        ConfigError: The attention that was named does not work here.
    """
    return source.settled(compute) if isinstance(source, Pretrained) else source
