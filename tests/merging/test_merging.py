"""Merged logits are the adapter's, by plain transformers on one side and plain peft on the other."""

import json

import pytest
import torch
from merge_worlds import VOCAB, base_folder, load, logits, saved, settings_of, tokenizer, with_adapter, world
from peft import LoraConfig, TaskType, get_peft_model
from safetensors import safe_open
from safetensors.torch import load_file, save_file

EXACT = 3e-6


def names_in(folder):
    return {name for file in folder.glob("*.safetensors") for name in safe_open(file, "pt").keys()}  # noqa: SIM118


CASES = {
    "plain": ("llama", {}),
    "rslora": ("llama", {"use_rslora": True, "lora_alpha": 3}),
    "dora": ("qwen3", {"use_dora": True}),
    "dora in another layout": ("gpt2", {"use_dora": True, "target_modules": ["c_attn", "c_fc"]}),
    "ranks by layer": ("llama", {"rank_pattern": {"q_proj": 3}, "alpha_pattern": {"layers.1.mlp.*": 5}}),
    "biases": ("gpt_neox", {"bias": "all", "target_modules": ["query_key_value"]}),
    "biases of factors": ("gpt_bigcode", {"lora_bias": True, "target_modules": ["c_attn"]}),
    "head in full": ("llama", {"modules_to_save": ["lm_head"]}),
    "embeddings": ("llama", {"target_modules": ["q_proj", "embed_tokens"]}),
    "norms in full": ("gemma2", {"modules_to_save": ["norm"]}),
    "attention of experts": ("mixtral", {"target_modules": ["q_proj", "o_proj"]}),
    "latent attention, and buffers in the files": (
        "deepseek_v3",
        {"target_modules": ["kv_b_proj", "o_proj"]},
    ),
    "experts": (
        "mixtral",
        {
            "target_modules": ["q_proj"],
            "target_parameters": ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
        },
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_merged_logits_are_the_adapters(case, tmp_path):
    family, settings = CASES[case]
    made = world(tmp_path, family, **settings)
    merged = made.merge()
    assert made.difference(merged) < EXACT
    assert float((logits(load(made.base)) - made.logits).abs().max()) > 0.01  # the adapter says something
    assert names_in(merged) == names_in(made.base)


def test_embeddings_that_have_grown_are_the_heads_too_where_both_are_one(tmp_path):
    made = world(tmp_path, "llama_tied", entries=VOCAB + 7, target_modules=["q_proj"])
    weights = made.adapter / "adapter_model.safetensors"
    save_file({name: one for name, one in load_file(weights).items() if "lm_head" not in name}, weights)
    merged = made.merge()
    assert made.difference(merged) < EXACT
    assert "lm_head.weight" not in names_in(merged)


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("entries", [VOCAB + 7, VOCAB - 7])
def test_embeddings_that_have_another_size(tied, entries, tmp_path):
    made = world(tmp_path, "llama_tied" if tied else "llama", entries=entries, target_modules=["q_proj"])
    merged = made.merge()
    assert made.difference(merged) < EXACT
    assert settings_of(merged)["vocab_size"] == entries
    assert ("lm_head.weight" in names_in(merged)) is not tied


@pytest.mark.parametrize(
    "settings", [{"modules_to_save": ["lm_head"]}, {"target_modules": ["q_proj", "embed_tokens"]}]
)
def test_one_of_two_tied_ends_is_trained(settings, tmp_path):
    made = world(tmp_path, "llama_tied", **settings)
    merged = made.merge()
    assert settings_of(merged)["tie_word_embeddings"] is False
    assert made.difference(merged) < EXACT


@pytest.mark.parametrize(("dtype", "bound"), [("float32", EXACT), ("bfloat16", 3e-2), ("float16", 3e-3)])
def test_dtype_is_that_asked_for(dtype, bound, tmp_path):
    made = world(tmp_path)
    merged = made.merge(dtype=dtype)
    found = {value.dtype for value in load_as_stored(merged).values()}
    assert found == {getattr(torch, dtype)}
    assert settings_of(merged)["dtype"] == dtype
    assert made.difference(merged) < bound


def test_dtype_of_the_base_is_kept(tmp_path):
    made = world(tmp_path)
    load(made.base).to(torch.bfloat16).save_pretrained(made.base)
    merged = made.merge()
    assert {value.dtype for value in load_as_stored(merged).values()} == {torch.bfloat16}


def load_as_stored(folder):
    found = {}
    for file in folder.glob("*.safetensors"):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


@pytest.mark.parametrize("mapped", [True, False])
def test_weights_that_torch_has_saved(mapped, tmp_path):
    made = world(tmp_path)
    state = load(made.base).state_dict()
    for file in made.base.glob("*.safetensors*"):
        file.unlink()
    torch.save(state, made.base / "pytorch_model.bin", _use_new_zipfile_serialization=mapped)
    assert made.difference(made.merge()) < EXACT


def test_files_are_divided_and_no_more_than_one_is_in_memory(tmp_path, monkeypatch):
    import weakref

    from mftrun.weight_files.checkpoint import Checkpoint

    made = world(tmp_path, "llama", target_modules=["q_proj"])
    read, alive, most = Checkpoint.read, {}, []

    def watched(self, name):
        tensor = read(self, name)
        alive[id(tensor)] = tensor.nbytes
        weakref.finalize(tensor, alive.pop, id(tensor))
        most.append(sum(alive.values()))
        return tensor

    monkeypatch.setattr(Checkpoint, "read", watched)
    merged = made.merge(shard_size="0.03MB", verify=False)
    index = json.loads((merged / "model.safetensors.index.json").read_text())
    files = {merged / name for name in index["weight_map"].values()}
    whole = sum(file.stat().st_size for file in files)
    assert len(files) > 3
    assert all(file.stat().st_size < 33_000 for file in files)
    assert max(most) < whole / 3
    assert made.difference(merged) < EXACT


def test_what_lies_beside_comes_along(tmp_path):
    made = world(tmp_path, entries=300)
    own = tokenizer()
    own.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    own.save_pretrained(made.adapter)
    (made.adapter / "generation_config.json").write_text('{"eos_token_id": [3, 5]}')
    (made.adapter / "README.md").write_text("# first\n\n## Tasks\n\nmany\n\n## Use\n\nas an adapter\n")
    merged = made.merge()
    model = load(merged)
    assert model.generation_config.eos_token_id == [3, 5]
    assert (merged / "chat_template.jinja").read_text() == own.chat_template
    assert (merged / "tokenizer.json").read_bytes() == (made.adapter / "tokenizer.json").read_bytes()
    card = (merged / "README.md").read_text()
    assert "# first" in card
    assert "many" in card
    assert "as an adapter" not in card
    assert "nats per token" in card


def test_a_start_inside_the_weights_is_merged_by_peft(tmp_path, caplog):
    base = base_folder(tmp_path / "base")
    config = LoraConfig(
        task_type=TaskType.CAUSAL_LM, r=2, init_lora_weights="olora", target_modules=["q_proj"]
    )
    made = saved(tmp_path / "adapter", base, get_peft_model(load(base), config))
    merged = made.merge()
    assert "olora changes the base" in caplog.text
    expected = with_adapter(base, made.adapter)
    assert float((logits(load(merged)) - expected).abs().max()) < 1e-5
