"""What is put into checkpoints for others, and left at the end: whole, nothing twice, and what has grown."""

import pytest
import torch
from peft import PeftModel
from safetensors import safe_open
from transformers import AutoModelForCausalLM
from worlds import engine_of, llama

from mftrun.jobs.export import ModelExport
from mftrun.models.adapters import FullFineTuning, Lora
from mftrun.models.with_nll import ModelWithNll


class NoTokenizer:
    def save_pretrained(self, folder):
        (folder / "tokenizer.json").touch()


def export(adapter, model):
    return ModelExport(engine_of(1, ModelWithNll(adapter.apply(model))), adapter, NoTokenizer(), [3, 5])


def write(exported, folder):
    exported.write(folder, exported.gathered())
    return folder


def tensor_names(file):
    with safe_open(file, "pt") as found:
        return set(found.keys())


@pytest.mark.parametrize("tied", [True, False])
def test_a_whole_model_is_read_by_plain_transformers_and_tied_weights_lie_in_it_once(tmp_path, tied):
    model = llama()
    model.config.tie_word_embeddings = tied
    model.tie_weights()
    folder = write(export(FullFineTuning(), model), tmp_path / "model")
    assert ("lm_head.weight" in tensor_names(folder / "model.safetensors")) is not tied
    read, information = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not information["missing_keys"]
    assert (read.lm_head.weight is read.model.embed_tokens.weight) is tied
    ids = torch.arange(1, 9)[None]
    assert torch.equal(read(ids).logits, model.eval()(ids).logits)
    assert read.generation_config.eos_token_id == [3, 5]
    assert (folder / "tokenizer.json").exists()


@pytest.mark.parametrize("grows", [True, False])
def test_embeddings_that_have_grown_are_saved_with_the_adapter(tmp_path, grows):
    llama().save_pretrained(tmp_path / "base")
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    if grows:
        base.resize_token_embeddings(70)
    exported = export(Lora(r=2, dropout=0.0, init="gaussian"), base)
    folder = write(exported, tmp_path / "adapter")
    saved = {name for name in tensor_names(folder / "adapter_model.safetensors") if "lora" not in name}
    ends = {f"base_model.model.{name}.weight" for name in ("model.embed_tokens", "lm_head")}
    assert saved == (ends if grows else set())
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    if grows:
        again.resize_token_embeddings(70)
    read = PeftModel.from_pretrained(again, folder)
    ids = torch.arange(1, 9)[None] + 52 * grows
    assert torch.equal(read(ids).logits, exported.engine.bare.model.eval()(ids).logits)


def test_a_write_that_fails_says_so_in_the_common_way(tmp_path):
    (tmp_path / "model").touch()
    with pytest.raises(OSError, match="exists"):
        write(export(FullFineTuning(), llama()), tmp_path / "model")
