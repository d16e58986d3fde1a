"""The arithmetic of choosing tokens, and of ending answers."""

import pytest
import torch

from mftrun.errors import ConfigError
from mftrun.generation.base import Ending, Weights
from mftrun.generation.choice import Draw, Penalty, RowEnds, choices
from mftrun.generation.finishing import finished
from mftrun.generation.sampling import Sampling
from mftrun.generation.streaming import TextStream

LETTERS = Ending(stop_ids=[0], stop=["cd", "gh"], decode=lambda ids: "".join(chr(96 + i) for i in ids if i))


def test_draws_follow_the_probabilities_and_rows_are_their_own():
    chances = torch.tensor([0.5, 0.0, 0.3, 0.2])
    seeds = [f"0 {number} 0" for number in range(4000)]
    found = Draw(seeds)(None, chances.log().expand(4000, -1)).argmax(-1)
    shares = torch.bincount(found, minlength=4) / 4000
    assert shares[1] == 0
    assert torch.allclose(shares, chances, atol=0.03)  # four standard deviations
    some = Draw(seeds[7:9])(None, chances.log().expand(2, -1)).argmax(-1)
    assert torch.equal(some, found[7:9])


def test_what_is_sampled_from():
    logits = torch.tensor([[2.0, 1.0, 0.0, -1.0]])
    mask = torch.ones(1, 1, dtype=torch.int64)

    def drawn(**settings):
        sampling = Sampling(**{"temperature": 1.0, "top_p": 1.0, **settings})
        rows = [f"{number}" for number in range(300)]
        scores = logits.expand(300, -1).clone()
        ids = torch.zeros(300, 1, dtype=torch.int64)
        return set(choices(sampling, rows, mask.expand(300, -1))(ids, scores).argmax(-1).tolist())

    assert drawn() == {0, 1, 2, 3}
    assert drawn(top_k=2) == {0, 1}
    assert drawn(top_p=0.6) == {0}
    assert drawn(top_p=0.7) == {0, 1}
    assert drawn(temperature=0.01) == {0}
    assert not choices(Sampling(temperature=0.0, top_k=3, top_p=0.5), ["a"], mask)


def test_the_penalty_passes_over_padding():
    ids = torch.tensor([[3, 3, 1, 2], [0, 1, 1, 2]])
    mask = torch.tensor([[0, 0, 1], [1, 1, 1]])
    found = Penalty(2.0, mask)(ids, torch.tensor([[1.0, 1.0, -1.0, 1.0]] * 2))
    assert found.tolist() == [[1.0, 0.5, -2.0, 1.0], [0.5, 0.5, -2.0, 1.0]]


def test_rows_end_by_length_and_by_text():
    rows = RowEnds(1, [2, 9, 9], LETTERS)
    ids = torch.tensor([[9, 1, 1], [9, 3, 4], [9, 4, 3]])
    assert rows(ids, None).tolist() == [True, True, False]
    assert RowEnds(1, [3, 3, 2], LETTERS)(ids[:, :2], None).tolist() == [False] * 3


@pytest.mark.parametrize(
    ("ids", "budget", "expected"),
    [
        ([1, 2, 0, 5], 9, ("ab", 2, "stop")),
        ([0, 5], 9, ("", 0, "stop")),
        ([1, 2, 3], 3, ("abc", 3, "length")),
        ([1, 2, 3, 4], 2, ("ab", 2, "length")),
        ([1, 2], 9, ("ab", 2, "interrupted")),
        ([1, 3, 4, 5], 9, ("a", 3, "stop")),
        ([7, 8, 3, 4], 9, ("", 2, "stop")),
        ([1, 2, 0, 3, 4], 9, ("ab", 2, "stop")),
        ([1, 3, 0], 3, ("ac", 2, "stop")),
    ],
)
def test_where_an_answer_ends(ids, budget, expected):
    assert finished(ids, budget, LETTERS) == expected


def test_a_stream_shows_nothing_that_may_change():
    shown = []
    stream = TextStream(LETTERS, shown.append)
    steps = [[1], [1, 3], [1, 3, 5], [1, 3, 5, 3], [1, 3, 5, 3, 4], [1, 3, 5, 3, 4, 1]]
    after = []
    for ids in steps:
        stream.feed(ids)
        after.append("".join(shown))
    assert after == ["a", "a", "ace", "ace", "ace", "ace"]
    stream.finish("ace")
    assert "".join(shown) == "ace"
    bytes_of = {1: b"\xc3", 2: b"\xa9", 3: b"x"}
    shown.clear()
    stream = TextStream(
        Ending([], [], lambda ids: b"".join(bytes_of[i] for i in ids).decode(errors="replace")), shown.append
    )
    for size in (1, 2, 3):
        stream.feed([1, 2, 3][:size])
    assert shown == ["é", "x"]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("max_new_tokens", 0),
        ("temperature", -0.1),
        ("top_p", 0),
        ("top_p", 1.1),
        ("top_k", 0),
        ("repetition_penalty", 0),
        ("num_samples", 0),
        ("stop", ["a", ""]),
    ],
)
def test_values_out_of_range(key, value):
    with pytest.raises(ConfigError) as caught:
        Sampling(**{key: value})
    assert caught.value.key == f"job.{key}"


def test_values_that_contradict():
    with pytest.raises(ConfigError, match="would all be the same"):
        Sampling(temperature=0, num_samples=2)
    for wrong in ({"dtype": "int8"}, {"quantization": "2bit"}):
        with pytest.raises(ConfigError):
            Weights(**wrong)
