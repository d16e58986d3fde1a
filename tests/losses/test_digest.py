"""Sums of exponentials over a long series, held in bounded memory, against sums over all of it."""

import pytest
import torch

from mftrun.losses.weightings.digest import Digest


def series(length, seed=0):
    """Falls fast at first, then is small and noisy, as slopes of loss curves are."""
    random = torch.Generator().manual_seed(seed)
    steps = torch.arange(length, dtype=torch.float64)
    return -0.05 * torch.exp(-steps / 300) + 1e-4 * torch.randn(length, generator=random, dtype=torch.float64)


def filled(values, capacity=1024):
    digest = Digest(capacity)
    for value in values.tolist():
        digest.add(value)
    return digest


def test_is_exact_up_to_its_capacity():
    values = series(64)
    digest = filled(values, capacity=64)
    for scale in (0.0, -3.0, 100.0, -1e6):
        expected = torch.logsumexp(scale * values, 0)
        assert digest.log_sum_exp(scale).item() == pytest.approx(expected.item(), rel=1e-13)


@pytest.mark.parametrize("length", [65, 500, 5000])
def test_counts_and_sums_stay_exact(length):
    values = series(length)
    digest = filled(values, capacity=64)
    assert digest.number == length
    assert digest.absolute == pytest.approx(values.abs().sum().item())
    assert digest.log_sum_exp(0.0).exp().item() == pytest.approx(length)
    slope = (digest.log_sum_exp(1e-6) - digest.log_sum_exp(-1e-6)).item() / 2e-6
    assert slope == pytest.approx(values.mean().item(), rel=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_share_of_the_newest_is_close_after_many_more_than_fit(seed):
    """The share in CoBa's divergence factor, tau = 5, from all numbers and from those held."""
    values = series(20_000, seed)
    digest = Digest()
    for index, value in enumerate(values.tolist(), 1):
        digest.add(value)
        if index % 997 == 0:
            seen = values[:index]
            scale = -5 * index / seen.abs().sum().item()
            exact = index * torch.softmax(scale * seen, 0)[-1].item()
            close = index * torch.exp(scale * seen[-1] - digest.log_sum_exp(scale)).item()
            assert close == pytest.approx(exact, rel=1e-4, abs=1e-12)


def test_state_is_of_one_size_and_continues_exactly():
    values = series(3000)
    whole, first = filled(values, 256), filled(values[:1500], 256)
    second = Digest(256)
    second.load_state_dict(first.state_dict())
    for value in values[1500:].tolist():
        second.add(value)
    assert torch.equal(second.log_sum_exp(-50.0), whole.log_sum_exp(-50.0))
    shapes = {tuple(filled(values[:length], 256).state_dict()["values"].shape) for length in (0, 10, 3000)}
    assert shapes == {(256,)}
