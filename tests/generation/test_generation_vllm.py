"""vLLM behind the same keys, against a stand-in that takes the documented names alone."""

import sys
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import pytest

from mftrun.errors import ConfigError
from mftrun.generation.base import Ending, TokenPrompt, Weights
from mftrun.generation.place import Place
from mftrun.generation.sampling import Sampling
from mftrun.generation.vllm_backend import Vllm, sampling_values

ENDING = Ending([7, 9], ("END",), str)


@dataclass
class SamplingParams:
    """The settings that are used, as vLLM documents them."""

    n: int = 1
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    repetition_penalty: float = 1.0
    max_tokens: int | None = 16
    stop: list | None = None
    stop_token_ids: list | None = None
    seed: int | None = None


class LLM:
    """Keeps what it is given; answers with the length of each prompt."""

    def __init__(
        self,
        model,
        *,
        tokenizer=None,
        trust_remote_code=False,
        tensor_parallel_size=1,
        dtype="auto",
        quantization=None,
        revision=None,
        tokenizer_revision=None,
        gpu_memory_utilization=0.9,
        generation_config="auto",
        max_model_len=100,
        enable_lora=False,
        max_lora_rank=16,
    ):
        self.settings = {key: value for key, value in locals().items() if key != "self"}
        self.llm_engine = SimpleNamespace(model_config=SimpleNamespace(max_model_len=max_model_len))
        self.calls = []

    def generate(self, prompts, sampling_params, *, use_tqdm=True, lora_request=None):
        self.calls.append((prompts, sampling_params, lora_request))
        for prompt, params in zip(prompts, sampling_params, strict=True):
            size = len(prompt["prompt_token_ids"])
            answers = [SimpleNamespace(token_ids=(size, number)) for number in range(params.n)]
            yield SimpleNamespace(outputs=answers)


@pytest.fixture
def vllm(monkeypatch):
    """The stand-in, in vLLM's place."""
    modules = {name: ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request")}
    modules["vllm"].LLM, modules["vllm"].SamplingParams = LLM, SamplingParams
    modules["vllm.lora.request"].LoRARequest = lambda lora_name, lora_int_id, lora_path: lora_path
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)


def test_every_setting_reaches_vllm(vllm):
    option = Vllm(tensor_parallel=2, memory=0.5, max_length=50)
    option.check()
    weights = Weights("bfloat16", "4bit", trust_remote_code=True)
    found = option.open(Place("owner/name", "owner/name", revision="v1"), None, weights)
    assert found._engine.settings == {
        **{"model": "owner/name", "tokenizer": "owner/name", "trust_remote_code": True, "dtype": "bfloat16"},
        **{"tensor_parallel_size": 2, "gpu_memory_utilization": 0.5, "max_model_len": 50},
        **{"revision": "v1", "tokenizer_revision": "v1"},
        **{
            "quantization": "bitsandbytes",
            "generation_config": "vllm",
            "enable_lora": False,
            "max_lora_rank": 16,
        },
    }
    assert found.positions == 50
    sampling = Sampling(9, 0.5, 0.8, 40, 1.1, 2, ("END",), 3)
    prompts = [TokenPrompt([1, 2, 3], 0), TokenPrompt([4], 1)]
    assert list(found.generate(prompts, sampling, ENDING)) == [[[3, 0], [3, 1]], [[1, 0], [1, 1]]]
    ((given, params, lora),) = found._engine.calls
    assert given == [{"prompt_token_ids": [1, 2, 3]}, {"prompt_token_ids": [4]}]
    assert params[0].seed != params[1].seed
    assert params[0] == SamplingParams(2, 0.5, 0.8, 40, 1.1, 9, ["END"], [7, 9], params[0].seed)
    assert lora is None
    greedy = Sampling(temperature=0)
    fed = []
    assert found.stream(prompts[0], greedy, ENDING, fed.append) == [3, 0]
    assert fed == [[3, 0]]
    assert (found._engine.calls[1][1][0].temperature, found._engine.calls[1][1][0].top_k) == (0.0, -1)


def test_what_answers_depend_on():
    weights = Weights("bfloat16")
    plain = Vllm().identity(weights)
    assert Vllm(memory=0.5).identity(weights) == plain
    assert Vllm(max_length=50).identity(weights) != plain
    assert Vllm(tensor_parallel=2).identity(weights) != plain


def adapter(folder, **settings):
    import json

    (folder / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 96, **settings}))
    return Place("base", "base", str(folder))


def test_the_base_of_an_adapter_has_a_revision_of_its_own(vllm, tmp_path):
    place = replace(adapter(tmp_path), revision="of-adapter", base_revision="of-base")
    settings = Vllm().open(place, None, Weights())._engine.settings
    assert (settings["revision"], settings["tokenizer_revision"]) == ("of-base", "of-base")


def test_adapters_are_given_beside_the_base(vllm, tmp_path):
    found = Vllm().open(adapter(tmp_path), None, Weights())
    assert found._engine.settings["enable_lora"] is True
    assert found._engine.settings["max_lora_rank"] == 128
    list(found.generate([TokenPrompt([1], 0)], Sampling(), ENDING))
    assert found._engine.calls[0][2] == str(tmp_path)


@pytest.mark.parametrize(
    "settings", [{"use_dora": True}, {"modules_to_save": ["lm_head"]}, {"peft_type": "LOHA"}, {"r": 513}]
)
def test_adapters_that_vllm_does_not_take(vllm, tmp_path, settings):
    with pytest.raises(ConfigError, match="job=merge"):
        Vllm().open(adapter(tmp_path, **settings), None, Weights())


def test_what_is_missing_or_out_of_range(vllm, monkeypatch):
    with pytest.raises(ConfigError, match="not to 8bit"):
        Vllm().open(Place("base", "base"), None, Weights(quantization="8bit"))
    for wrong in ({"tensor_parallel": 0}, {"memory": 0}, {"memory": 1.5}, {"max_length": 1}):
        with pytest.raises(ConfigError, match="must be"):
            Vllm(**wrong)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ConfigError, match="pip install vllm"):
        Vllm().check()


def test_a_single_answer_has_random_numbers_and_room_of_its_own():
    prompt = TokenPrompt([1, 2, 3], 4)
    settings = Sampling(max_new_tokens=9, temperature=1.0, max_length=5)
    first, second = (
        sampling_values(one, settings, ENDING) for one in (prompt, prompt._replace(sample=1, begun=2))
    )
    assert first["seed"] == sampling_values(prompt, replace(settings, max_length=None), ENDING)["seed"]
    assert first["seed"] != second["seed"]
    assert first["max_tokens"] == second["max_tokens"] == 2
    assert Vllm(tensor_parallel=2).gpus() == 2
