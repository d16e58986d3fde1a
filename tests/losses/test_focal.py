"""Focal losses against their definitions on whole batches, for every level, normalization and split."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import Tensor

from mftrun.errors import ConfigError
from mftrun.losses.counts import Counts
from mftrun.losses.focal import Focal
from mftrun.losses.normalizations import SampleMean, TaskMean, TaskSampleMean, TokenMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Static

LEVELS = ["token", "sample", "task"]
NORMALIZATIONS = {
    "token_mean": TokenMean(),
    "sample_mean": SampleMean(),
    "task_mean": TaskMean(),
    "task_sample_mean": TaskSampleMean(),
}
TASKS = ["a", "b", "c", "absent"]
TASK_WEIGHTS = [2.0, 0.5, 1.0, 100.0]
ALPHA = {"a": 0.5, "c": 3.0}
GAMMAS = [0.0, 0.4, 1.0, 2.0, 3.5]

every_level = pytest.mark.parametrize("level", LEVELS)
every_normalization = pytest.mark.parametrize("normalization", NORMALIZATIONS)


@dataclass
class Tokens:
    """A global batch: one entry per target token, of weight v."""

    nll: Tensor
    task: Tensor
    sample: Tensor
    v: Tensor

    @property
    def sizes(self) -> Tensor:
        """n_s of each token's sample."""
        same = self.sample[:, None] == self.sample
        return (same * self.v.double()).sum(1)

    @property
    def counts(self) -> Counts:
        return Counts(
            torch.stack([self.v[self.task == k].double().sum() for k in range(len(TASKS))]),
            torch.tensor([self.sample[self.task == k].unique().numel() for k in range(len(TASKS))]).double(),
        )

    def chosen(self, own: Tensor) -> Tokens:
        return Tokens(self.nll[own], self.task[own], self.sample[own], self.v[own])


def random_tokens(seed: int, weighted: bool = True) -> Tokens:
    """About twelve samples of three of the four tasks, their tokens in any order, ids far above T."""
    random = np.random.default_rng(seed)
    lengths = random.integers(1, 6, 12)
    task = np.concatenate([[0, 1, 2], random.integers(0, 3, 9)])
    order = random.permutation(lengths.sum())
    v = random.choice([0.25, 1.0, 3.0], len(order)) if weighted else np.ones(len(order))
    return Tokens(
        torch.from_numpy(random.exponential(1.5, len(order))),
        torch.from_numpy(np.repeat(task, lengths)[order]),
        torch.from_numpy(np.repeat(np.arange(12) * 1000 + 7, lengths)[order]),
        torch.from_numpy(v),
    )


def objective(level: str, normalization: str, gamma: float = 2.0) -> Objective:
    made = NORMALIZATIONS[normalization]
    weights = dict(zip(TASKS, TASK_WEIGHTS, strict=True)) if made.uses_weights else None
    return Objective(Focal(level, gamma, ALPHA), made, Static(weights), TASKS)


def shares(tokens: Tokens, normalization: str) -> Tensor:
    """Factor of each token's value in the loss, token by token as the normalizations are defined."""
    tasks = [int(task) for task in tokens.task]
    total = sum(TASK_WEIGHTS[k] for k in set(tasks))
    counts, found = tokens.counts, []
    for k, v, size in zip(tasks, tokens.v.tolist(), tokens.sizes.tolist(), strict=True):
        by_name = {
            "token_mean": v / float(counts.tokens.sum()),
            "sample_mean": v / size / float(counts.samples.sum()),
            "task_mean": TASK_WEIGHTS[k] * v / float(counts.tokens[k]) / total,
            "task_sample_mean": TASK_WEIGHTS[k] * v / size / float(counts.samples[k]) / total,
        }
        found.append(by_name[normalization])
    return torch.tensor(found, dtype=torch.float64)


def focal(p: Tensor, q: Tensor, task: int, gamma: float) -> Tensor:
    return ALPHA.get(TASKS[task], 1.0) * (1 - p) ** gamma * q


def definition(level: str, normalization: str, tokens: Tokens, gamma: float) -> Tensor:
    """The loss of the whole batch, group by group."""
    share = shares(tokens, normalization)
    group = {"token": torch.arange(len(share)), "sample": tokens.sample, "task": tokens.task}[level]
    # In a sample all tokens of a weight have the same share, so the mean by share is the one by weight.
    total = torch.zeros(()).double()
    for value in group.unique():
        own = group == value
        mass = share[own].sum()
        p, q = ((share[own] * x).sum() / mass for x in (torch.exp(-tokens.nll[own]), tokens.nll[own]))
        total = total + mass * focal(p, q, int(tokens.task[own][0]), gamma)
    return total


def whole(level: str, normalization: str, tokens: Tokens, gamma: float) -> tuple[float, Tensor]:
    nll = tokens.nll.clone().requires_grad_()
    loss = definition(level, normalization, replace(tokens, nll=nll), gamma)
    loss.backward()
    return float(loss.detach()), nll.grad


def places(tokens: Tokens, own: Tensor, counts: Counts) -> tuple:
    return tokens.task[own], tokens.sample[own], tokens.sizes[own], counts, tokens.v[own]


def summed(made: Objective, tokens: Tokens, part: Tensor) -> tuple[float, Tensor]:
    """Loss and gradient, added up over the parts that `part` assigns each token to."""
    nll, counts = tokens.nll.clone().requires_grad_(), tokens.counts
    owned = [part == value for value in range(int(part.max()) + 1)]
    statistics = sum(made.statistics(nll[own], *places(tokens, own, counts)) for own in owned)
    assert not statistics.requires_grad
    total = 0.0
    for own in owned:
        share = made.loss(nll[own], *places(tokens, own, counts), statistics)
        share.backward()
        total += float(share.detach())
    return total, nll.grad


def splits(tokens: Tokens, seed: int) -> list[Tensor]:
    """All in one part, and random parts of whole samples, some of them empty."""
    random = np.random.default_rng(seed)
    _, sample = tokens.sample.unique(return_inverse=True)
    ways = [random.integers(0, parts, 12) for parts in (1, 2, 4, 30)]
    return [torch.from_numpy(way)[sample] for way in ways]


@pytest.mark.parametrize("weighted", [True, False])
@every_normalization
@every_level
def test_shares_add_up_to_the_definition(level, normalization, weighted):
    for seed, gamma in enumerate(GAMMAS):
        tokens = random_tokens(seed, weighted)
        loss, gradient = whole(level, normalization, tokens, gamma)
        made = objective(level, normalization, gamma)
        for part in splits(tokens, seed):
            found, slope = summed(made, tokens, part)
            assert found == pytest.approx(loss, rel=1e-10)
            torch.testing.assert_close(slope, gradient, rtol=1e-9, atol=1e-13)


@every_normalization
@every_level
def test_gradient_is_that_of_the_value(level, normalization):
    """By differences of the very values that are reported, without the definition."""
    tokens, made = random_tokens(5), objective(level, normalization, 1.7)
    part = splits(tokens, 5)[2]
    _, gradient = summed(made, tokens, part)
    step = 1e-5
    for index in range(0, len(tokens.nll), 5):
        nudge = torch.zeros_like(tokens.nll).index_fill(0, torch.tensor(index), step)
        ends = [summed(made, replace(tokens, nll=tokens.nll + sign * nudge), part)[0] for sign in (1, -1)]
        assert float(gradient[index]) == pytest.approx((ends[0] - ends[1]) / (2 * step), rel=1e-6, abs=1e-9)


# Task a: samples 0 (2 tokens) and 1 (1 token); task b: sample 2 (1 token). p = 1/2, 1/4, 1/2; 1/4.
HALF, QUARTER = math.log(2), math.log(4)
HAND = Tokens(
    torch.tensor([HALF, QUARTER, HALF, QUARTER], dtype=torch.float64),
    torch.tensor([0, 0, 0, 1]),
    torch.tensor([0, 0, 1, 2]),
    torch.ones(4).double(),
)
LN2 = HALF
BY_HAND = {
    # Means over tokens, then over the two tasks; (1 - p)^2 is 1/4, 9/16, 1/4; 9/16.
    "token": ((LN2 / 4 + 2 * LN2 * 9 / 16 + LN2 / 4) / 3 + 2 * LN2 * 9 / 16) / 2,
    # P is 3/8 and Q 1.5 ln 2 in sample 0, which holds two of the three tokens of its task.
    "sample": ((2 * (5 / 8) ** 2 * 1.5 * LN2 + LN2 / 4) / 3 + 2 * LN2 * 9 / 16) / 2,
    # P is 5/12 and Q 4/3 ln 2 in task a.
    "task": ((7 / 12) ** 2 * 4 / 3 * LN2 + 2 * LN2 * 9 / 16) / 2,
}


@every_level
def test_by_hand(level):
    made = Objective(Focal(level), TaskMean(), Static(), TASKS)
    for part in (torch.zeros(4, dtype=torch.int64), HAND.sample):
        assert summed(made, HAND, part)[0] == pytest.approx(BY_HAND[level], rel=1e-12)


def test_equation_2_by_hand():
    """Samples within a task count alike: the mean over its samples, then over tasks."""
    made = Objective(Focal("sample"), TaskSampleMean(), Static(), TASKS)
    expected = (((5 / 8) ** 2 * 1.5 * LN2 + LN2 / 4) / 2 + 2 * LN2 * 9 / 16) / 2
    assert summed(made, HAND, HAND.sample)[0] == pytest.approx(expected, rel=1e-12)


def test_alpha_multiplies_its_task():
    for level in LEVELS:
        plain, raised = (
            summed(Objective(Focal(level, 2.0, alpha), TaskMean(), Static(), TASKS), HAND, HAND.sample)
            for alpha in (None, {"b": 3})
        )
        assert raised[1].tolist() == pytest.approx([*plain[1][:3].tolist(), 3 * float(plain[1][3])])


@every_normalization
@every_level
def test_gamma_of_zero_is_cross_entropy(level, normalization):
    tokens = random_tokens(1)
    pair = [
        summed(Objective(loss, NORMALIZATIONS[normalization], Static(), TASKS), tokens, splits(tokens, 1)[2])
        for loss in (Focal(level, 0), CrossEntropy())
    ]
    if level == "token":
        assert pair[0][1].tolist() == pair[1][1].tolist()
    assert pair[0][0] == pytest.approx(pair[1][0], rel=1e-12)
    torch.testing.assert_close(pair[0][1], pair[1][1], rtol=1e-12, atol=0)


@every_normalization
@every_level
def test_a_target_of_weight_v_counts_as_v_targets(level, normalization):
    times = torch.tensor([3, 1, 2, 4])
    once = replace(HAND, v=times.double())
    repeated = Tokens(*(x.repeat_interleave(times) for x in (HAND.nll, HAND.task, HAND.sample, HAND.v)))
    made = objective(level, normalization)
    expected, gradient = summed(made, repeated, repeated.sample)
    found, slope = summed(made, once, once.sample)
    assert found == pytest.approx(expected, rel=1e-12)
    per_target = torch.zeros(4).double().index_add(0, torch.arange(4).repeat_interleave(times), gradient)
    torch.testing.assert_close(slope, per_target)
    assert found != pytest.approx(summed(made, HAND, HAND.sample)[0], rel=1e-3)


@pytest.mark.parametrize("nll", [0.0, -1e-7, 1e-45, 1e-30, 1e-12, 80.0, 1e4])
@pytest.mark.parametrize("gamma", [0.0, 0.01, 0.5, 1.0, 2.0, 200.0])
@every_level
def test_certain_and_hopeless_targets_have_finite_gradients(level, gamma, nll):
    """Also an nll that rounding took below 0, and a batch that holds nothing else."""
    tokens = replace(HAND, nll=torch.full((4,), nll, dtype=torch.float32))
    loss, gradient = summed(objective(level, "task_mean", gamma), tokens, tokens.sample)
    assert math.isfinite(loss)
    assert gradient.isfinite().all()
    # The value of 0 is exact; the gradient is of the order of the limit, alpha * (1 + gamma) at the most.
    assert loss == pytest.approx(0, abs=1e-6) or nll > 1
    assert float(gradient.abs().max()) <= 3.0 * (1 + gamma)


@every_level
def test_small_losses_keep_their_accuracy(level):
    """Where p rounds to 1 in single precision, 1 - p is the nll."""
    tokens = replace(HAND, nll=torch.full((4,), 1e-9, dtype=torch.float32))
    loss, _ = summed(Objective(Focal(level, 1.0), TaskMean(), Static(), TASKS), tokens, tokens.sample)
    assert loss == pytest.approx(1e-18, rel=1e-6)


@every_level
def test_nothing_to_train_is_zero_with_a_graph(level):
    made = objective(level, "task_mean")
    nll, empty = torch.zeros(0, requires_grad=True), torch.zeros(0, dtype=torch.int64)
    arguments = nll, empty, empty, empty, Counts.zeros(4)
    loss = made.loss(*arguments, statistics=made.statistics(*arguments))
    loss.backward()
    assert float(loss.detach()) == 0
    assert nll.grad.shape == (0,)


def test_only_the_task_level_needs_statistics():
    assert [objective(level, "task_mean").needs_statistics for level in LEVELS] == [False, False, True]
    assert not Objective(CrossEntropy(), TaskMean(), Static(), TASKS).needs_statistics


@every_level
def test_easy_targets_lose_their_share_of_the_gradient(level):
    """Against cross entropy, the harder task gains."""
    tokens = Tokens(
        torch.tensor([0.05, 3.0], dtype=torch.float64),
        torch.tensor([0, 1]),
        torch.tensor([0, 1]),
        torch.ones(2).double(),
    )
    _, gradient = summed(Objective(Focal(level), TaskMean(), Static(), TASKS), tokens, tokens.sample)
    assert gradient[1] > 20 * gradient[0] > 0


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf, "2", None])
def test_impossible_numbers(value):
    with pytest.raises(ConfigError) as caught:
        Focal(gamma=value)
    assert caught.value.key == "loss.token_loss.gamma"
    with pytest.raises(ConfigError) as caught:
        Focal(alpha={"a": value})
    assert caught.value.key == "loss.token_loss.alpha.a"
    assert repr(value) in caught.value.message


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ConfigError, match="did you mean sample") as caught:
        Focal(level="samples")
    assert caught.value.key == "loss.token_loss.level"
    with pytest.raises(ConfigError, match="did you mean absent") as caught:
        Focal(alpha={"abesnt": 2.0}).for_tasks(TASKS)
    assert caught.value.key == "loss.token_loss.alpha.abesnt"


def test_all_factors_zero_is_refused():
    with pytest.raises(ConfigError, match="nothing would be trained") as caught:
        Focal(alpha=dict.fromkeys(TASKS, 0)).for_tasks(TASKS)
    assert caught.value.key == "loss.token_loss.alpha"
