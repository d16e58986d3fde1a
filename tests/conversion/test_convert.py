"""A converted checkpoint computes what the legacy code computed, and nothing else appears."""

import json
import weakref

import pytest
import torch
from legacy_checkpoints import CONFIGS, HIDDEN, LAYERS, REFERENCES, VOCAB, tensors, write
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mftrun.conversion import native_config
from mftrun.errors import ConfigError, DataError
from mftrun.jobs.convert import ConvertJob
from mftrun.weight_files.checkpoint import Checkpoint
from mftrun.weight_files.writer import ShardWriter

IDS = torch.tensor([3, 61, 17, 200, 5, 61, 90, 511, 8, 77, 140, 33, 2, 6, 250, 301])


def converted(source, output, **options):
    ConvertJob(str(source), str(output), **options).run({}, output.parent)
    return output


def nlls(folder):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        logits = model(IDS[None], use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits[:-1], IDS[1:], reduction="none")


def expected(config, weights):
    doubles = {name: tensor.double() for name, tensor in weights.items()}
    return REFERENCES[config["model_type"]](config, doubles, IDS)


@pytest.mark.parametrize("name", CONFIGS)
def test_converted_model_computes_the_papers_nlls(tmp_path, name):
    config, weights = CONFIGS[name], tensors(CONFIGS[name])
    output = converted(write(tmp_path / "legacy", config, weights), tmp_path / "native")
    torch.testing.assert_close(nlls(output), expected(config, weights), atol=1e-5, rtol=0)


@pytest.mark.parametrize("form", ["safetensors", "bin", "old bin"])
def test_the_form_and_the_shards_change_nothing(tmp_path, form):
    config, weights = CONFIGS["chatglm3"], tensors(CONFIGS["chatglm3"])
    source = write(tmp_path / "legacy", config, weights, form, shards=2)
    output = converted(source, tmp_path / "native", shard_size="30KB")
    assert len(list(output.glob("model-*-of-*.safetensors"))) > 2
    assert not list(output.glob("shard-*"))
    torch.testing.assert_close(nlls(output), expected(config, weights), atol=1e-5, rtol=0)


def test_memory_stays_near_one_shard(tmp_path, monkeypatch):
    """What is read is let go of, and what waits to be written is never more than a shard."""
    config, limit = CONFIGS["qwen"], 100_000
    source = write(tmp_path / "legacy", config, tensors(config), shards=3)
    read, add, alive, most = Checkpoint.read, ShardWriter.add, weakref.WeakSet(), []

    def watched_read(self, name):
        tensor = read(self, name)
        alive.add(tensor)
        assert len(alive) <= 2, "earlier tensors are still there"
        return tensor

    def watched_add(self, name, tensor):
        assert tensor.untyped_storage().nbytes() == tensor.nbytes, "it holds on to what it was cut from"
        add(self, name, tensor)
        most.append(sum(tensor.nbytes for tensor in self._pending.values()))

    monkeypatch.setattr(Checkpoint, "read", watched_read)
    monkeypatch.setattr(ShardWriter, "add", watched_add)
    output = converted(source, tmp_path / "native", shard_size=limit)
    assert 0 < max(most) <= limit
    assert sum(len(load_file(file)) for file in output.glob("*.safetensors")) == 3 + 12 * LAYERS


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_dtype_of_the_weights(tmp_path, dtype):
    source = write(tmp_path / "legacy", CONFIGS["aquila2"], tensors(CONFIGS["aquila2"]))
    output = converted(source, tmp_path / "native", dtype=dtype)
    with safe_open(output / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {getattr(torch, dtype)}  # noqa: SIM118
    assert json.loads((output / "config.json").read_text())["dtype"] == dtype


def test_a_tied_head_is_the_embedding(tmp_path):
    config = {**CONFIGS["internlm2"], "tie_word_embeddings": True}
    weights = tensors(config)
    weights["output.weight"] = weights["model.tok_embeddings.weight"]
    stored = {name: tensor for name, tensor in weights.items() if name != "output.weight"}
    output = converted(write(tmp_path / "legacy", config, stored), tmp_path / "native")
    torch.testing.assert_close(nlls(output), expected(config, weights), atol=1e-5, rtol=0)


def test_buffers_of_angles_are_left_out(tmp_path):
    config, weights = CONFIGS["chatglm2"], tensors(CONFIGS["chatglm2"])
    weights["transformer.rotary_pos_emb.inv_freq"] = torch.ones(2)
    output = converted(write(tmp_path / "legacy", config, weights), tmp_path / "native")
    assert "inv_freq" not in str(list(load_file(output / "model.safetensors")))


def refused(tmp_path, source, match, error=ConfigError, **options):
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(error, match=match):
        converted(source, tmp_path / "native", **options)
    assert sorted(tmp_path.rglob("*")) == before


def without(weights, name):
    return {key: tensor for key, tensor in weights.items() if key != name}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: without(w, "transformer.h.1.mlp.w2.weight"), r"lacks tensors: transformer\.h\.1\.mlp\.w2"),
        (lambda w: {**w, "transformer.h.0.moe.weight": torch.ones(2)}, "no rule knows: transformer.h.0.moe"),
        (lambda w: {**w, "transformer.ln_f.weight": torch.ones(HIDDEN + 1)}, r"model\.norm\.weight of shape"),
        (lambda w: {**w, "transformer.h.0.attn.c_attn.bias": torch.ones(9)}, r"c_attn\.bias has shape \[9\]"),
        (lambda w: {**w, "lm_head.weight": torch.ones(VOCAB, HIDDEN, dtype=torch.int8)}, "quantised"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, change, match):
    source = write(tmp_path / "legacy", CONFIGS["qwen"], change(tensors(CONFIGS["qwen"])))
    refused(tmp_path, source, match)


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("baichuan2", {"max_position_embeddings": None}, "ALiBi"),
        ("chatglm3", {"apply_residual_connection_post_layernorm": True}, "apply_residual_connection"),
        ("chatglm3", {"pre_seq_len": 8}, "pre_seq_len"),
        ("chatglm3_32k", {"_name_or_path": ""}, "rope_ratio of 4"),
        ("qwen", {"rotary_pct": 0.5}, "rotary_pct"),
        ("qwen", {"seq_length": None}, "lacks seq_length"),
        ("qwen", {"quantization_config": {"bits": 4}}, "quantised"),
        ("internlm2", {"rope_scaling": {"type": "yarn", "factor": 2}}, "yarn"),
        ("internlm2", {"num_key_value_heads": 3}, "wqkv"),
        ("qwen", {"vocab_size": 512}, "embed_tokens"),
        ("aquila2", {"model_type": "llama"}, "holds a llama model"),
        ("aquila2", {"model_type": "llama", "converted_from": "aquila"}, "converted already"),
    ],
)
def test_what_has_no_native_equal_is_refused(tmp_path, name, change, match):
    config = {**CONFIGS[name], **change}
    refused(tmp_path, write(tmp_path / "legacy", config, tensors(CONFIGS[name])), match)


def test_broken_sources_are_named(tmp_path):
    source = write(tmp_path / "legacy", CONFIGS["qwen"], tensors(CONFIGS["qwen"]), "bin", shards=2)
    second = source / "pytorch_model-00002-of-00002.bin"
    content = second.read_bytes()
    second.write_bytes(content[:500])
    refused(tmp_path, source, second.name, DataError)
    second.unlink()
    refused(tmp_path, source, f"{second.name}: is missing", DataError)
    (source / "pytorch_model.bin.index.json").unlink()
    second.write_bytes(content)
    refused(tmp_path, source, "no index", DataError)
    for file in source.glob("*.bin"):
        file.unlink()
    refused(tmp_path, source, "no weights", DataError)
    refused(tmp_path, tmp_path / "nothing", "neither a folder")


def test_pickled_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("it ran",))

    source = write(tmp_path / "legacy", CONFIGS["qwen"], tensors(CONFIGS["qwen"]), "bin")
    torch.save({"lm_head.weight": Bomb()}, source / "pytorch_model.bin")
    refused(tmp_path, source, "weights alone", DataError)


def test_a_tokenizer_that_is_missing_or_too_large_leaves_nothing(tmp_path):
    source = write(tmp_path / "legacy", CONFIGS["baichuan2"], tensors(CONFIGS["baichuan2"]))
    model = (source / "tokenizer.model").read_bytes()
    (source / "tokenizer.model").unlink()
    refused(tmp_path, source, r"no tokenizer\.model")
    (source / "tokenizer.model").write_bytes(b"\x0a\xff")
    refused(tmp_path, source, "no SentencePiece model", DataError)
    (source / "tokenizer.model").write_bytes(model)
    (source / "added_tokens.json").write_text(json.dumps({f"<{n}>": 520 + n for n in range(VOCAB - 519)}))
    refused(tmp_path, source, f"tokenizer has {VOCAB + 1} entries")


def test_a_folder_that_holds_something_is_kept(tmp_path):
    source = write(tmp_path / "legacy", CONFIGS["qwen"], tensors(CONFIGS["qwen"]))
    (tmp_path / "native").mkdir()
    (tmp_path / "native" / "notes").write_text("mine")
    refused(tmp_path, source, "exists")
    refused(tmp_path, source, "must be a size", shard_size="5 lots")


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    source = write(tmp_path / "legacy", CONFIGS["qwen"], tensors(CONFIGS["qwen"]))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("", (), {"free": 9}))
    refused(tmp_path, source, "GB left")


def test_a_disk_that_fails_is_named(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    source = write(tmp_path / "legacy", CONFIGS["qwen"], tensors(CONFIGS["qwen"]))
    monkeypatch.setattr("mftrun.weight_files.writer.save_file", fail)
    refused(tmp_path, source, "native cannot be written .*No space left")


def test_tensors_that_an_index_promises_or_that_are_there_twice(tmp_path):
    source = write(tmp_path / "legacy", CONFIGS["qwen"], tensors(CONFIGS["qwen"]), "safetensors", shards=2)
    index = source / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["other"] = "model-00001-of-00002.safetensors"
    index.write_text(json.dumps(content))
    refused(tmp_path, source, "promises other")
    del content["weight_map"]["other"]
    index.write_text(json.dumps(content))
    first, second = sorted(source.glob("*.safetensors"))
    save_file({**load_file(first), **load_file(second)}, second)
    refused(tmp_path, source, "twice, the second time in")


def test_native_config_needs_no_weights():
    native = native_config(CONFIGS["qwen"])
    assert (native["model_type"], native["intermediate_size"], native["converted_from"]) == (
        "qwen2",
        40,
        "qwen",
    )
    assert native_config({"model_type": "llama"}) is None
    with pytest.raises(ConfigError, match="ALiBi"):
        native_config({**CONFIGS["baichuan2"], "max_position_embeddings": None})
