"""The parts of the router loss, by themselves."""

from __future__ import annotations

import pytest
import torch
from model_families import random_text, tiny

from mftrun.errors import ConfigError
from mftrun.models.router import RouterLoss, describe_router_loss, router_loss_of
from mftrun.models.with_nll import ModelWithNll

EXPERTS, TOP_K = 6, 2


def logits(tokens, layers=3):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(tokens, EXPERTS, generator=generator) * 2 for _ in range(layers)]


def definition(layers, top_k, coefficient):
    """Equations 4-6 of arXiv 2101.03961, token by token."""
    choices, probabilities, tokens = torch.zeros(EXPERTS), torch.zeros(EXPERTS), 0
    for layer in layers:
        for token in layer:
            chances = token.exp() / token.exp().sum()
            for expert in sorted(range(EXPERTS), key=lambda e: -float(chances[e]))[:top_k]:
                choices[expert] += 1
            probabilities += chances
            tokens += 1
    return coefficient * EXPERTS * float((choices / tokens * probabilities / tokens).sum())


def test_the_parts_of_micro_batches_add_up_to_the_definition():
    whole, loss = logits(13), RouterLoss(0.1, EXPERTS, TOP_K)
    parts = [loss.sums([layer[piece] for layer in whole]) for piece in (slice(0, 4), slice(4, 13))]
    choices = sum(part.choices for part in parts)
    total = sum(float(part.share(choices, 13)) for part in parts)
    assert total == pytest.approx(definition(whole, TOP_K, 0.1), rel=1e-5)


def test_padding_is_left_out():
    whole, loss = logits(9), RouterLoss(0.1, EXPERTS, TOP_K)
    real = torch.arange(9) % 3 > 0
    found = loss.sums(whole, real)
    expected = loss.sums([layer[real] for layer in whole])
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_only_padding_still_reaches_the_router():
    layer = torch.randn(3, EXPERTS, requires_grad=True)
    sums = RouterLoss(0.1, EXPERTS, TOP_K).sums([layer], torch.zeros(3, dtype=torch.bool))
    sums.share(torch.ones(EXPERTS), 5).backward()
    assert torch.equal(layer.grad, torch.zeros_like(layer))


def test_rows_know_where_their_padding_begins():
    wrapped, text = ModelWithNll(tiny("mixtral")), random_text(rows=2, length=8)
    one = wrapped(*text.args(), torch.tensor([8, 3])).router
    alone = [wrapped(*random_text_of(text, row, size).args()).router for row, size in ((0, 8), (1, 3))]
    torch.testing.assert_close(one.choices, alone[0].choices + alone[1].choices)
    torch.testing.assert_close(one.probabilities, alone[0].probabilities + alone[1].probabilities)


def random_text_of(text, row, size):
    flat = torch.arange(size - 1)
    own = text.input_ids[row : row + 1, :size]
    return type(text)(own, text.position_ids[:1, :size], flat, own[0, 1:])


def test_evaluation_asks_for_no_router_logits(monkeypatch):
    wrapped, asked = ModelWithNll(tiny("mixtral")), []
    forward = wrapped.model.model.forward
    monkeypatch.setattr(
        wrapped.model.model,
        "forward",
        lambda **given: asked.append("output_router_logits" in given) or forward(**given),
    )
    assert wrapped(*random_text().args()).router is not None
    assert wrapped.eval()(*random_text().args()).router is None
    assert asked == [True, False]


@pytest.mark.parametrize(("coefficient", "said"), [(0.02, "coefficient 0.02"), (0.0, "is 0 in")])
def test_what_is_said_of_a_coefficient(coefficient, said):
    model = tiny("mixtral", router_aux_loss_coef=coefficient)
    assert said in describe_router_loss(model)
    assert (router_loss_of(model) is None) == (coefficient == 0)
    assert ModelWithNll(model).has_router_loss == (coefficient > 0)


def test_nothing_is_said_of_models_without_experts():
    assert describe_router_loss(tiny("llama")) is None
    assert router_loss_of(tiny("llama")) is None


def test_families_without_such_a_loss_in_transformers(monkeypatch):
    from transformers.models.mixtral import modeling_mixtral

    model = tiny("mixtral")
    monkeypatch.delattr(modeling_mixtral, "load_balancing_loss_func")
    assert router_loss_of(model) is None
    assert "transformers has none for MixtralForCausalLM" in describe_router_loss(model)


def test_a_loss_that_is_defined_in_another_way_is_refused(monkeypatch):
    from transformers.models.mixtral import modeling_mixtral

    own = modeling_mixtral.load_balancing_loss_func
    monkeypatch.setattr(modeling_mixtral, "load_balancing_loss_func", lambda *given: own(*given) * 1.1)
    with pytest.raises(ConfigError, match="router_aux_loss_coef"):
        ModelWithNll(tiny("mixtral"))
