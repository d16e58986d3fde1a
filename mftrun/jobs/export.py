"""A trained model as a plain folder, as transformers and peft read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from mftrun.data.tokenizer import load_saved
from mftrun.distributed.trained import trained_parameters
from mftrun.jobs.preparation import build_group
from mftrun.models.parts import causal_lm_of, text_config_of

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerFast

    from mftrun.distributed import Engine
    from mftrun.jobs.layout import RunLayout
    from mftrun.models.adapters import Adapter
    from mftrun.models.with_nll import ModelWithNll
    from mftrun.schema import RunConfig


@dataclass(frozen=True)
class ModelExport:
    """Saves what was trained, the whole model or its adapter, with the tokenizer.

    Attributes:
        engine: Holds the model.
        adapter: Knows what of it is saved, and how.
        tokenizer: The run's.
        stop_ids: Tokens that end the generation.
    """

    engine: Engine
    adapter: Adapter
    tokenizer: PreTrainedTokenizerFast
    stop_ids: list[int]

    @classmethod
    def of(cls, config: RunConfig, layout: RunLayout, engine: Engine) -> ModelExport:
        """That of a run."""
        tokenizer = load_saved(layout.tokenizer)
        stop_ids = build_group(config, "template").stop_ids(tokenizer)
        return cls(engine, build_group(config, "peft"), tokenizer, stop_ids)

    def gathered(self) -> dict[str, Tensor]:
        """What training has changed, and the embeddings, by the names of the causal LM or its adapters.

        Peft saves embeddings that have grown with the tokenizer, although they are frozen.

        Returns:
            Whole tensors on the main rank, nothing elsewhere. A collective call.
        """
        bare = self.engine.bare
        # Under each of its names: layers of some adapters share a buffer, and peft looks for all of them.
        buffers = (name for name, _ in bare.named_buffers(remove_duplicate=False))
        wanted = {*trained_parameters(bare), *buffers, *_embeddings(bare)}
        if not self.adapter.freezes_base:  # what is frozen nevertheless belongs to the whole model
            wanted.update(name for name, _ in bare.named_parameters())
        found = self.engine.gathered(wanted.__contains__)
        return {name.removeprefix("model."): tensor for name, tensor in found if self.engine.ranks.is_main}

    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Writes the folder; for the main rank.

        Args:
            folder: Made if need be.
            weights: As `gathered` gave them.

        Raises:
            OSError: It could not be written.
        """
        model = self.engine.bare.model
        generation = _set_generation(causal_lm_of(model), self.stop_ids)
        folder.mkdir(exist_ok=True)
        try:
            self.adapter.save(model, folder, weights)
        except SafetensorError as error:
            raise OSError(str(error)) from error
        generation.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)


def _embeddings(bare: ModelWithNll) -> Iterator[str]:
    """Names of the weights of the token embeddings and the output head; tied ones once."""
    causal_lm = causal_lm_of(bare.model)
    ends = (causal_lm.get_input_embeddings(), causal_lm.get_output_embeddings())
    for name, module in bare.named_modules():
        if any(module is end for end in ends):
            yield from (f"{name}.{inner}" for inner, _ in module.named_parameters())


def _set_generation(causal_lm: Any, stop_ids: list[int]) -> Any:
    """Generation ends at the template's end token."""
    generation = causal_lm.generation_config
    generation.eos_token_id = stop_ids[0] if len(stop_ids) == 1 else stop_ids
    generation.pad_token_id = text_config_of(causal_lm).pad_token_id
    return generation
