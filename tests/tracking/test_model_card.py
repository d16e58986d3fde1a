import re

import pytest

import mftrun
from mftrun.tracking.model_card import ModelCard
from mftrun.tracking.summary import TaskCounts, summarize


def card(**changes):
    records = [
        {"step": 1, "train/loss/add": 3.25, "valid/loss/add": 3.5},
        {"step": 9, "train/loss/add": 1.25, "valid/loss/add": 1.5},
    ]
    summary = summarize(
        records,
        {"add": TaskCounts(1234, 10, 56789), "a|b": TaskCounts(1, 0, 2)},
        steps=9,
        seconds=61.0,
        tokens_per_second=100.0,
        trainable_parameters=10,
        total_parameters=100,
    )
    fields = {
        "name": "demo",
        "base_model": None,
        "adapter": False,
        "chat": True,
        "summary": summary,
        "settings": {"loss": "mft", "learning rate": 2e-4},
    }
    return ModelCard(**(fields | changes))


def metadata(tmp_path, **changes):
    from huggingface_hub import metadata_load

    return metadata_load(card(**changes).write(tmp_path))


def test_the_front_matter_is_the_hubs(tmp_path):
    assert metadata(tmp_path) == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["mftrun", "multi-task"],
    }
    adapter = metadata(tmp_path, base_model="org/some-model_1.5", adapter=True)
    assert adapter["library_name"] == "peft"
    assert adapter["base_model"] == "org/some-model_1.5"
    assert "lora" in adapter["tags"]


@pytest.mark.parametrize("base", ["/models/llama", "./llama", "models", "a/b/c", "org/with space"])
def test_a_folder_is_no_hub_id(tmp_path, base):
    assert "base_model" not in metadata(tmp_path, base_model=base)
    assert f"`{base}`" in (tmp_path / "README.md").read_text()


def test_a_relative_folder_that_looks_like_an_id(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "llama").mkdir(parents=True)
    assert "base_model" not in metadata(tmp_path, base_model="models/llama")


def test_the_card_tells_tasks_settings_and_version():
    text = card().render()
    assert "# demo" in text
    assert f"from random weights on 2 tasks by mftrun {mftrun.__version__}." in text
    assert "| add | 1,234 | 56,789 | 3.2500 | 1.2500 | 1.5000 | 1.5000 |" in text
    assert r"| a\|b | 1 | 2 | - | - | - | - |" in text
    assert "| learning rate | 0.0002 |" in text
    assert "9 steps in 1m01s" in text


@pytest.mark.parametrize(
    ("adapter", "loader"), [(False, "AutoModelForCausalLM"), (True, "AutoPeftModelForCausalLM")]
)
def test_the_snippet_loads_the_right_way(adapter, loader):
    text = card(adapter=adapter, base_model="org/base").render()
    (code,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    compile(code, "card", "exec")
    assert f"= {loader}.from_pretrained(folder)" in code
    assert "apply_chat_template" in code


def test_a_model_without_a_chat_template_continues_text():
    (code,) = re.findall(r"```python\n(.*?)```", card(chat=False).render(), flags=re.DOTALL)
    compile(code, "card", "exec")
    assert "apply_chat_template" not in code
    assert 'tokenizer("The text to continue"' in code
    assert "model.generate(" in code
