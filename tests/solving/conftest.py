"""A tiny model."""

import pytest
import torch
from made_up import GREEDY, LIVELY

from mftrun.generation.base import Weights
from mftrun.generation.generator import Generator
from mftrun.generation.place import Place
from mftrun.generation.transformers_backend import Transformers
from mftrun.models.tiny import TinyLlama
from mftrun.solving.candidate import Candidate
from mftrun.solving.sharing import Manner
from mftrun.solving.styles import STYLES

SIZES = TinyLlama(
    vocab_size=300,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=48,
    max_position_embeddings=96,
)
TEXTS = [
    "def add(a, b):\n    return a + b\n",
    "Write a function that adds two numbers.",
    "system human bot\n",
]
CONTROL = ("<s>", "<|im_start|>", "<|im_end|>")


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """The folder of a model that has learnt nothing, but is sure of itself."""
    folder = tmp_path_factory.mktemp("solving") / "tiny"
    tokenizer = SIZES.tokenizer(lambda: iter(TEXTS * 3), CONTROL)
    torch.manual_seed(1)
    model = SIZES.load(tokenizer, torch.float32).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4.0)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def model(model_dir):
    """The same, not loaded yet."""
    place = Place(str(model_dir), str(model_dir))
    return Candidate(place, Transformers(batch_size=3, device="cpu"), Weights(), STYLES["instruct"], None)


@pytest.fixture(scope="session")
def generator(model):
    """The same, loaded."""
    found = model.generator()
    assert isinstance(found, Generator)
    return found


@pytest.fixture
def greedy():
    """How questions are answered."""
    return Manner(GREEDY)


@pytest.fixture
def lively():
    """The same, twice and by chance."""
    return Manner(LIVELY)
