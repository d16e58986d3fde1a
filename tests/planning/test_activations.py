"""Activations by arithmetic are those that autograd saves."""

import pytest
import torch
from planning.simulated import SMALL, model_of, saved_bytes, setup_of

from mftrun.planning import activations, head
from mftrun.planning.skeleton import CHECKED, measure


def counted(family, lora, half, rows=2, length=64, sizes=SMALL, **setup):
    """Estimated and saved bytes."""
    dtype = torch.bfloat16 if half and lora is not None else torch.float32
    attention = setup.get("attention", "sdpa")
    model = model_of(family, sizes, lora, dtype, attention, device="cpu")
    run = setup_of(rows, length, half=half, lora=lora, **setup)
    size = measure(model)
    layers = size.architecture.layers
    copies = 0 if run.checkpointing else layers * activations.weight_copies(size, run)
    saved, _ = saved_bytes(model, run)
    return activations.saved(size, run) + copies + _head(size, run), saved


def _head(size, run):
    """What the head saves: hidden states, their copy, and log-probabilities where it has one chunk only."""
    hidden, vocab = size.architecture.hidden, size.architecture.vocab
    if not run.half:
        return head.kept(size, run) // 2
    return run.tokens * (hidden * 2 + vocab * 4) + (hidden * vocab * 2 if run.numerics.casts_weights else 0)


CASES = [(family, True) for family in CHECKED] + [("llama", False)]


@pytest.mark.parametrize("half", [True, False], ids=["bf16", "fp32"])
@pytest.mark.parametrize("lora", [None, 0.0, 0.1], ids=["full", "lora", "lora-dropout"])
@pytest.mark.parametrize(("family", "packed"), CASES)
def test_layers_keep_what_is_counted(family, packed, lora, half):
    estimated, saved = counted(family, lora, half, shares_rows=packed)
    # The first layer's frozen part keeps nothing, which is a small share of a deep model.
    assert estimated == pytest.approx(saved, rel=0.025 if lora is None else 0.065)


@pytest.mark.parametrize("half", [True, False], ids=["bf16", "fp32"])
@pytest.mark.parametrize("lora", [None, 0.1], ids=["full", "lora"])
def test_eager_attention_keeps_its_scores(lora, half):
    estimated, saved = counted("llama", lora, half, length=128, attention="eager")
    assert estimated == pytest.approx(saved, rel=0.06)


@pytest.mark.parametrize("lora", [None, 0.1], ids=["full", "lora"])
def test_with_gradient_checkpointing_layers_keep_their_input(lora):
    sizes = {**SMALL, "num_hidden_layers": 8, "hidden_size": 128}
    estimated, saved = counted("llama", lora, False, sizes=sizes, checkpointing=True)
    assert estimated == pytest.approx(saved, rel=0.15)


def test_a_masked_row_costs_the_square_of_its_length():
    size = measure(model_of("llama", SMALL))
    short, long = (setup_of(1, length, half=True, lora=None, shares_rows=True) for length in (256, 512))
    apart = setup_of(1, 512, half=True, lora=None, shares_rows=False)
    assert activations.layer(size, long) > 2 * activations.layer(size, short)
    assert activations.layer(size, long) > activations.layer(size, apart) + 512 * 512 * 2
