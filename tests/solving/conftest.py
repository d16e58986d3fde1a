"""A tiny model."""

import pytest
from made_up import GREEDY, LIVELY
from tiny_models import saved

from mftrun.generation.base import Weights
from mftrun.generation.generator import Generator
from mftrun.generation.place import Place
from mftrun.generation.transformers_backend import Transformers
from mftrun.solving.candidate import Candidate
from mftrun.solving.sharing import Manner
from mftrun.solving.styles import STYLES


@pytest.fixture(scope="session")
def model_dir(tmp_path_factory):
    """The folder of a model that has learnt nothing, but is sure of itself."""
    return saved(tmp_path_factory.mktemp("solving") / "tiny")


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
