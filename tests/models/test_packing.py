"""A sample's losses are the same packed, padded or alone."""

from __future__ import annotations

import pytest
import torch
from model_families import VOCAB, Text, gradients, largest_difference, tiny

from mftrun.errors import ConfigError
from mftrun.models.families import FAMILIES
from mftrun.models.parts import decode
from mftrun.models.verify import verify_packing
from mftrun.models.with_nll import ModelWithNll

SIZES = (9, 5, 1, 12, 7, 2, 20)
PAD = 0

# What the list of families says of every architecture, and of two that have no option.
ISOLATED = [
    *dict.fromkeys(
        (model_type, attention)
        for family in FAMILIES.values()
        for model_type in family.model_types
        for attention in family.isolated
    ),
    ("cohere", "sdpa"),
    ("gptj", "eager"),
]


def samples() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randint(3, VOCAB, (size,), generator=generator) for size in SIZES]


def micro_batch(rows: list[list[int]], extra: int = 0) -> tuple[Text, torch.Tensor]:
    """Rows of whole samples, padded on the right by at least `extra`, and the sample of each target."""
    texts = samples()
    length = max(sum(SIZES[s] for s in row) for row in rows) + extra
    ids = torch.full((len(rows), length), PAD)
    positions = torch.zeros(len(rows), length, dtype=torch.int64)
    predict, targets, owners = [], [], []
    for r, row in enumerate(rows):
        at = 0
        for s in row:
            size = SIZES[s]
            ids[r, at : at + size] = texts[s]
            positions[r, at:] = torch.arange(length - at)  # what follows the last sample counts on
            predict.append(r * length + torch.arange(at, at + size - 1))
            targets.append(texts[s][1:])
            owners.append(torch.full((size - 1,), s))
            at += size
    return Text(ids, positions, torch.cat(predict), torch.cat(targets)), torch.cat(owners)


def alone(wrapped: ModelWithNll) -> torch.Tensor:
    losses = []
    for s in range(len(SIZES)):
        text, _ = micro_batch([[s]])
        losses.append(wrapped(*text.args()).nll)
    return torch.cat(losses)


def in_sample_order(nll: torch.Tensor, owners: torch.Tensor) -> torch.Tensor:
    return torch.cat([nll[owners == s] for s in range(len(SIZES))])


LAYOUTS = {
    "one packed row": ([[0, 1, 2, 3, 4, 5, 6]], 0),
    "one packed row and padding": ([[3, 2, 6, 0, 1, 5, 4]], 6),
    "packed rows": ([[0, 1, 2], [3, 4], [5, 6]], 0),
    "packed rows and padding": ([[6, 2], [0, 1, 4], [5, 3]], 4),
    "packed beside single rows": ([[6], [0, 1, 2, 5], [3], [4]], 3),
    "single rows": ([[s] for s in range(7)], 0),
    "single rows and padding": ([[s] for s in range(7)], 5),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_every_layout_of_llama(attention, layout):
    model = tiny("llama", attention)
    wrapped = ModelWithNll(model)
    expected = alone(wrapped)
    expected.sum().backward()
    expected_gradients = gradients(model)
    text, owners = micro_batch(*LAYOUTS[layout])
    found = in_sample_order(wrapped(*text.args()).nll, owners)
    found.sum().backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert largest_difference(gradients(model), expected_gradients) <= 1e-4


@pytest.mark.parametrize(("family", "attention"), ISOLATED)
def test_families(family, attention):
    model = tiny(family, attention)
    wrapped = ModelWithNll(model)
    with torch.no_grad():
        expected = alone(wrapped)
        for layout in ("packed rows and padding", "packed beside single rows"):
            text, owners = micro_batch(*LAYOUTS[layout])
            found = in_sample_order(wrapped(*text.args()).nll, owners)
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert verify_packing(model) <= 1e-5


def test_the_traps_are_real():
    """With a mask of ones, or a cache, packed samples see each other; if not, this file proves nothing."""
    model = tiny("llama", "sdpa")
    text, _ = micro_batch(*LAYOUTS["one packed row"])
    arguments = {"input_ids": text.input_ids, "position_ids": text.position_ids}
    with torch.no_grad():
        apart = decode(model, text.input_ids, text.position_ids)[0]
        masked = model.model(**arguments, use_cache=False, attention_mask=torch.ones_like(text.input_ids))[0]
        cached = model.model(**arguments, use_cache=True)[0]
    first = SIZES[0]
    for leaking in (masked, cached):
        torch.testing.assert_close(leaking[:, :first], apart[:, :first], rtol=1e-4, atol=1e-4)
        assert (leaking[:, first:] - apart[:, first:]).abs().max() > 1e-2


def test_flash_attention_gets_a_single_row():
    """It keeps segments apart only then: with more rows it silently takes the plain causal path."""
    model = tiny("llama")
    text, _ = micro_batch(*LAYOUTS["packed rows and padding"])
    seen = []
    model.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.append((kwargs["input_ids"].shape, kwargs["position_ids"])),
        with_kwargs=True,
    )
    model.config._attn_implementation_internal = "flash_attention_2"
    model.model.forward = lambda **kwargs: (torch.zeros(*kwargs["input_ids"].shape, 32),)
    ModelWithNll(model)(*text.args())
    ((shape, positions),) = seen
    assert shape == (1, text.input_ids.numel())
    starts = (positions == 0).sum()
    assert starts == len(SIZES)


def test_a_leak_is_refused():
    model = tiny("llama", "sdpa")
    forward = model.model.forward
    model.model.forward = lambda **kwargs: forward(**kwargs | {"use_cache": True})
    with pytest.raises(ConfigError, match="rows=padding") as caught:
        verify_packing(model)
    assert caught.value.key == "rows"
    assert model.training
