"""Made-up loss curves, and what it takes to show them to a weighting."""

import torch

from mftrun.losses.weightings import Observation


def look(weights, losses, step=0, draw=0, active=None, gradient_norms=None):
    """Shows losses (numbers, nan for absent) to running weights; returns the weights after it."""
    losses = torch.as_tensor(losses, dtype=torch.float64)
    active = torch.ones(len(losses), dtype=torch.bool) if active is None else torch.as_tensor(active)
    weights.observe(Observation(step, losses, active, draw, gradient_norms))
    return weights.current()


def look_at_all(weights, course, start=0, active=None, every_draw=None):
    """Shows a course of losses, one observation per row [T, K], and returns all weights, [T, K].

    The number of the draw goes up by `every_draw` from one to the next: unless said, so that weights which
    compare one with the next do so.
    """
    every_draw = getattr(weights, "_next_draw", 0) if every_draw is None else every_draw
    steps = range(start, start + len(course))
    rows = [
        look(weights, row, step, every_draw * step, active) for step, row in zip(steps, course, strict=True)
    ]
    return torch.stack(rows) if rows else torch.zeros(0, len(weights.current()), dtype=torch.float64)


def course(length, num_tasks, seed=0, absent=0.0):
    """Losses that fall at speeds of their own, with noise, [length, num_tasks]; some absent, if wanted."""
    random = torch.Generator().manual_seed(seed)
    start = 1 + 3 * torch.rand(num_tasks, generator=random, dtype=torch.float64)
    speed = 0.05 * torch.rand(num_tasks, generator=random, dtype=torch.float64)
    steps = torch.arange(length, dtype=torch.float64)[:, None]
    noise = 0.02 * torch.randn(length, num_tasks, generator=random, dtype=torch.float64)
    losses = (start * torch.exp(-speed * steps) + noise).clamp(min=1e-3)
    gone = torch.rand(length, num_tasks, generator=random) < absent
    return losses.masked_fill(gone, torch.nan)
