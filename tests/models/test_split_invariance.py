"""Loss and gradient of a real model do not depend on how the global batch is cut into micro-batches."""

from __future__ import annotations

import pytest
import torch
from model_families import gradients, random_text, tiny
from peft import LoraConfig, get_peft_model

from mftrun.losses.counts import Counts
from mftrun.losses.normalizations import SampleMean, TaskMean, TaskSampleMean, TokenMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Static
from mftrun.models.heads import head_for
from mftrun.models.with_nll import ModelWithNll

ROWS, LENGTH = 8, 11
TASKS = ["a", "b", "c"]
TASK_OF_ROW = torch.tensor([0, 0, 1, 0, 0, 1, 0, 0])  # task c is absent; many micro-batches miss task b
SKIPPED = torch.tensor([1, 7, 2, 5, 9, 4, 10, 3])  # tokens of each row that are no targets
WAYS = {"1 x 8": 8, "2 x 4": 4, "8 x 1": 1}
NORMALIZATIONS = {
    "token_mean": TokenMean(),
    "sample_mean": SampleMean(),
    "task_mean": TaskMean(),
    "task_sample_mean": TaskSampleMean(),
}


def model_of(kind):
    if kind == "lora":
        settings = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False)
        return get_peft_model(tiny("llama", "sdpa"), settings)
    return tiny(kind, "eager" if kind == "gemma2" else "sdpa")


def run(model, objective, rows_each, kind="auto"):
    """Loss and gradients of the global batch, in micro-batches of so many rows."""
    wrapped = ModelWithNll(model, head_for(model, kind).head)
    ids = random_text(ROWS, LENGTH).input_ids
    sizes = LENGTH - SKIPPED
    counts = Counts(
        torch.zeros(3).double().index_add_(0, TASK_OF_ROW, sizes.double()),
        torch.zeros(3).double().index_add_(0, TASK_OF_ROW, (sizes > 0).double()),
    )
    total = 0.0
    for rows in torch.arange(ROWS).split(rows_each):
        row, column = torch.nonzero(torch.arange(LENGTH) >= SKIPPED[rows, None], as_tuple=True)
        own = ids[rows]
        positions = torch.arange(LENGTH).expand_as(own)
        nll = wrapped(own, positions, row * LENGTH + column - 1, own[row, column]).nll
        share = objective.loss(nll, TASK_OF_ROW[rows][row], rows[row], sizes[rows][row], counts)
        share.backward()
        total += float(share.detach())
    return total, gradients(model)


@pytest.mark.parametrize("normalization", NORMALIZATIONS)
@pytest.mark.parametrize("kind", ["llama", "gemma2", "mixtral", "lora"])
def test_micro_batches(kind, normalization):
    weighting = Static({"b": 2.5} if NORMALIZATIONS[normalization].uses_weights else None)
    objective = Objective(CrossEntropy(), NORMALIZATIONS[normalization], weighting, TASKS)
    results = {way: run(model_of(kind), objective, rows) for way, rows in WAYS.items()}
    loss, expected = results["1 x 8"]
    largest = max(float(gradient.abs().max()) for gradient in expected.values())
    for other, found in results.values():
        assert other == pytest.approx(loss, rel=1e-6)
        assert found.keys() == expected.keys()
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=1e-6, atol=2e-6 * largest)


def test_heads_agree():
    objective = Objective(CrossEntropy(), TaskMean(), Static(), TASKS)
    (loss, expected), (other, found) = (
        run(model_of("llama"), objective, 4, kind) for kind in ("auto", "chunked")
    )
    assert other == pytest.approx(loss, rel=1e-6)
    for name in expected:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-4, atol=1e-6)
