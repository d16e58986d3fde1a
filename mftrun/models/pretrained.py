"""A pretrained causal language model from a local folder or the hub."""

from __future__ import annotations

import importlib.util
import json
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import TYPE_CHECKING, Any, Literal

import yaml

from mftrun.errors import ConfigError
from mftrun.models.base import HeadKind, Texts
from mftrun.paths import resource_dir

if TYPE_CHECKING:
    import torch
    from torch.distributed.device_mesh import DeviceMesh
    from transformers import BitsAndBytesConfig, PreTrainedModel, PreTrainedTokenizerFast

log = logging.getLogger(__name__)

_WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class Pretrained:
    """Loads a model that transformers has a class for.

    Args:
        path: Folder with config.json, weights and tokenizer, or the id of a model on the hub.
        model_types: The architectures this option is for, as config.json names them; None takes any.
        dtype: Of the weights; `auto` takes what the run's precision asks for.
        attention: Implementation of attention.
        trust_remote_code: Whether Python code in the model's folder may run.
        revision: Branch, tag or commit on the hub.
        head: How target positions are projected.
    """

    path: str
    model_types: Sequence[str] | None = None
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    trust_remote_code: bool = False
    revision: str | None = None
    head: HeadKind = "auto"

    @property
    def has_files(self) -> bool:
        """True; see `ModelSource.has_files`."""
        return True

    @property
    def tokenizer_recipe(self) -> None:
        """None: the model brings its own; see `ModelSource.tokenizer_recipe`."""
        return None

    def check(self) -> None:
        """See `ModelSource.check`: the folder, the architecture, and the libraries that were asked for.

        Raises:
            ConfigError: One of them is missing or does not fit.
        """
        from mftrun.models.heads import check_kind

        check_kind(self.head)
        self._check_attention()
        config = _read_config(self._where, self.revision)
        self._check_type(config)
        self._check_whole(config)
        self._check_weights()

    def tokenizer(self, texts: Texts, control_tokens: Sequence[str] = ()) -> PreTrainedTokenizerFast:
        """The model's own tokenizer, as it is; see `ModelSource.tokenizer`."""
        from mftrun.models.tokenizers import load_tokenizer

        return load_tokenizer(self._where, self.revision, self.trust_remote_code)

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
        from mftrun.models.quantization import keep_differentiable, quiet_casts

        model = self._weights(dtype, quantization, mesh)
        keep_differentiable(model)
        quiet_casts()
        if len(tokenizer) > model.get_input_embeddings().num_embeddings:
            log.info("the tokenizer has grown: embeddings resized to %d entries", len(tokenizer))
            model.resize_token_embeddings(len(tokenizer))
        return model.train()

    def skeleton(self, entries: int, dtype: torch.dtype) -> PreTrainedModel:
        """The model without numbers (on the meta device): its architecture alone, from config.json.

        Args:
            entries: Of the tokenizer.
            dtype: Of the weights, unless the option names one.

        Raises:
            ConfigError: The architecture cannot be made.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCausalLM

        self._check_type(_read_config(self._where, self.revision))
        where = {"revision": self.revision, "trust_remote_code": self.trust_remote_code}
        options = {"dtype": self._dtype(dtype), "trust_remote_code": self.trust_remote_code}
        try:
            config = AutoConfig.from_pretrained(self._where, **where)
            with torch.device("meta"):
                model = AutoModelForCausalLM.from_config(
                    config, attn_implementation=self.attention, **options
                )
        except (OSError, ValueError, ImportError, RuntimeError, KeyError) as error:
            raise self._loading_error(error) from error
        if entries > model.get_input_embeddings().num_embeddings:
            model.resize_token_embeddings(entries, mean_resizing=False)
        result: PreTrainedModel = model.train()
        return result

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

        if self.trust_remote_code:
            log.warning("model.trust_remote_code=true: Python code that came with %s may run", self.path)
        try:
            model, report = AutoModelForCausalLM.from_pretrained(
                self._where,
                dtype=self._dtype(dtype),
                attn_implementation=self.attention,
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
            return ConfigError("model.attention", f"{self.attention} does not work here; use eager. {error}")
        return ConfigError("model.path", f"{self.path} cannot be loaded: {error}")

    def _refuse_missing(self, names: list[str]) -> None:
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            shown = ", ".join(names[:3]) + more
            raise ConfigError("model.path", f"{self.path} lacks weights, which would stay random: {shown}")

    def _check_attention(self) -> None:
        if self.attention == "flash_attention_2" and importlib.util.find_spec("flash_attn") is None:
            raise ConfigError(
                "model.attention",
                'flash-attn is not installed: pip install "mftrun[flash-attn]", or use sdpa',
            )

    def _check_type(self, config: Mapping[str, Any]) -> None:
        found = config.get("model_type")
        if found is None:
            raise ConfigError("model.path", f"config.json of {self.path} names no model_type")
        if self.model_types is not None and found not in self.model_types:
            expected = " or ".join(self.model_types)
            raise ConfigError(
                "model.path",
                f"{self.path} holds a {found} model, not {expected}; use model={_option_for(found)}",
            )
        if not self.trust_remote_code:
            _check_known(found, self.path)

    def _check_whole(self, config: Mapping[str, Any]) -> None:
        """Transformers would keep to the quantisation of the files, whatever was asked for."""
        if (found := config.get("quantization_config")) is not None:
            method = found.get("quant_method", "an unknown method")
            raise ConfigError(
                "model.path",
                f"{self.path} holds weights that are quantised already ({method}); give the model in 16 or "
                "32 bit: peft=qlora quantises it while it loads",
            )

    def _check_weights(self) -> None:
        folder = Path(self._where)
        if folder.is_dir() and not any(next(folder.glob(pattern), None) for pattern in _WEIGHTS):
            raise ConfigError("model.path", f"{self.path} holds no weights ({' or '.join(_WEIGHTS)})")


def _read_config(where: str, revision: str | None) -> Mapping[str, Any]:
    """Contents of config.json, from the folder or from the hub."""
    if Path(where).is_dir():
        return _read_local_config(Path(where))
    if not _HUB_ID.fullmatch(where):
        raise ConfigError(
            "model.path", f"{where} is not a folder; give one with config.json, or owner/name on the hub"
        )
    from transformers import PretrainedConfig

    try:
        config: Mapping[str, Any] = PretrainedConfig.get_config_dict(where, revision=revision)[0]
    except (OSError, ValueError) as error:
        message = f"{where} is neither a local folder nor a model that the hub or its cache gives: {error}"
        raise ConfigError("model.path", message) from error
    return config


def _read_local_config(folder: Path) -> Mapping[str, Any]:
    if (folder / "adapter_config.json").exists() and not (folder / "config.json").exists():
        raise ConfigError(
            "model.path", f"{folder} holds an adapter, not a model; give the folder of its base model"
        )
    try:
        content: Mapping[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError(
            "model.path", f"{folder} holds no config.json; give the folder of a model"
        ) from None
    except (OSError, ValueError) as error:
        raise ConfigError("model.path", f"{folder / 'config.json'} cannot be read: {error}") from error
    return content


def _check_known(model_type: str, path: str) -> None:
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise ConfigError(
            "model.path",
            f"transformers has no causal language model of type {model_type!r} ({path}); if its folder "
            "brings its own code and you trust it, set model.trust_remote_code=true",
        )


def _option_for(model_type: str) -> str:
    """Option of the `model` group that is for an architecture; `auto` takes any."""
    for file in sorted((resource_dir("conf") / "model").glob("*.yaml")):
        option = yaml.safe_load(file.read_text(encoding="utf-8"))
        if model_type in (option.get("model_types") or ()):
            return file.stem
    return "auto"
