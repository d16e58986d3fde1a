"""Adam for one parameter per task, against torch's."""

import pytest
import torch

from mftrun.losses.weightings.adam import TaskAdam


def gradients(length, num_tasks):
    random = torch.Generator().manual_seed(4)
    return torch.randn(length, num_tasks, generator=random, dtype=torch.float64)


def by_torch(gradients, lr, weight_decay):
    values = torch.zeros(gradients.shape[1], dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([values], lr=lr, weight_decay=weight_decay)
    for gradient in gradients:
        values.grad = gradient.clone()
        optimizer.step()
    return values.detach()


@pytest.mark.parametrize("weight_decay", [0.0, 0.3])
def test_equals_torch_where_all_take_part(weight_decay):
    all_gradients = gradients(50, 4)
    adam = TaskAdam(4, 0.025, weight_decay)
    for gradient in all_gradients:
        adam.update(gradient, torch.ones(4, dtype=torch.bool))
    assert torch.allclose(adam.values, by_torch(all_gradients, 0.025, weight_decay), rtol=1e-12, atol=0)


def test_a_task_that_takes_no_part_is_as_if_there_had_been_no_update():
    all_gradients = gradients(60, 3)
    part = torch.rand(60, 3, generator=torch.Generator().manual_seed(1)) < 0.4
    adam = TaskAdam(3, 0.1, 0.01)
    for gradient, present in zip(all_gradients, part, strict=True):
        adam.update(gradient.masked_fill(~present, torch.nan), present)
    for task in range(3):
        own = all_gradients[part[:, task], task][:, None]
        assert adam.values[task].item() == pytest.approx(by_torch(own, 0.1, 0.01).item(), rel=1e-12)
