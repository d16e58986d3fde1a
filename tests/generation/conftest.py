"""A tiny run that has been trained once, its adapter's base, and the same merged."""

import json

import pytest
import yaml
from runs import overrides_for, train, write_task
from tiny_models import sure_model, tiny_tokenizer

from mftrun.compose import compose


@pytest.fixture(scope="session")
def tokenizer():
    """A tokenizer with control tokens of several templates."""
    return tiny_tokenizer()


@pytest.fixture(scope="session")
def model(tokenizer):
    """A model that has learnt nothing, but is sure of itself: answers depend on the prompt."""
    return sure_model(tokenizer, positions=64)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a run that has trained an adapter; its positions end soon."""
    folder = tmp_path_factory.mktemp("generation")
    write_task(folder / "data", "words", 20)
    small = ["model.max_position_embeddings=96", "data.valid_fraction=0.1", "peft=lora", "peft.r=2"]
    overrides = overrides_for(folder / "data", *small, "train.max_steps=2", "optimizer.lr=0.05")
    train(folder / "run", *overrides)
    config = compose(overrides, folder / "run")
    (folder / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    return folder / "run"


@pytest.fixture(scope="session")
def merged(run, tmp_path_factory):
    """The adapter of the run folded into its base, as a plain folder."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer

    folder = tmp_path_factory.mktemp("merged") / "model"
    AutoPeftModelForCausalLM.from_pretrained(run / "model").merge_and_unload().save_pretrained(folder)
    AutoTokenizer.from_pretrained(run / "model").save_pretrained(folder)
    return folder


@pytest.fixture
def jsonl(tmp_path):
    """Writes records to a file: jsonl(name, records)."""

    def write(name, records):
        path = tmp_path / name
        path.write_text("".join(f"{one if isinstance(one, str) else json.dumps(one)}\n" for one in records))
        return path

    return write
