from __future__ import annotations

import pytest
import torch
from transformers import AutoConfig

from mftrun.models.final_logits import FinalLogits, final_logits_of


@pytest.mark.parametrize(
    ("family", "settings", "expected"),
    [
        ("llama", {}, FinalLogits()),
        ("gemma2", {"final_logit_softcapping": 30.0}, FinalLogits(cap=30.0)),
        ("gemma2", {"final_logit_softcapping": None}, FinalLogits()),
        ("cohere", {"logit_scale": 0.0625}, FinalLogits(scale=0.0625)),
        ("granite", {"logits_scaling": 8.0}, FinalLogits(scale=0.125)),
        ("mpt", {"logit_scale": 3.0}, FinalLogits()),  # a field that its code never reads
    ],
)
def test_families(family, settings, expected):
    assert final_logits_of(AutoConfig.for_model(family, **settings)) == expected


def test_arithmetic():
    logits = FinalLogits(scale=2.0, cap=3.0)(torch.tensor([0.0, 1.0, 100.0]))
    torch.testing.assert_close(logits, torch.tensor([0.0, 3 * torch.tanh(torch.tensor(2 / 3)), 3.0]))
    assert FinalLogits().plain
    assert not FinalLogits(scale=2.0).plain
