"""The objective against worked examples, for every split over ranks and micro-batches."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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

REFERENCE = Path(__file__).resolve().parents[2].parent / "shared" / "reference" / "losses.json"
NORMALIZATIONS = {
    "token_mean": TokenMean(),
    "sample_mean": SampleMean(),
    "task_mean": TaskMean(),
    "task_sample_mean": TaskSampleMean(),
}


@dataclass
class Tokens:
    """A global batch: one entry per target token."""

    nll: Tensor
    task: Tensor
    sample: Tensor
    num_tasks: int
    weights: dict[str, float]

    @property
    def sizes(self) -> Tensor:
        return torch.bincount(self.sample)[self.sample]

    def counts(self, chosen: Tensor) -> Counts:
        tokens = torch.bincount(self.task[chosen], minlength=self.num_tasks).double()
        pairs = torch.unique(torch.stack([self.task[chosen], self.sample[chosen]]), dim=1)
        return Counts(tokens, torch.bincount(pairs[0], minlength=self.num_tasks).double())


# Task a: samples 0 (2 tokens) and 1 (1 token); task b: sample 2 (2 tokens); task c is absent.
HAND = Tokens(
    nll=torch.tensor([1.0, 3.0, 5.0, 2.0, 8.0]),
    task=torch.tensor([0, 0, 0, 1, 1]),
    sample=torch.tensor([0, 0, 1, 2, 2]),
    num_tasks=3,
    weights={"0": 3.0, "1": 1.0, "2": 100.0},
)
HAND_EXPECTED = {
    "token_mean": 19 / 5,
    "sample_mean": (2 + 5 + 5) / 3,
    "task_mean": (3 * 9 / 3 + 1 * 10 / 2) / 4,
    "task_sample_mean": (3 * (2 + 5) / 2 + 1 * 5) / 4,
}


def objective(tokens: Tokens, name: str) -> Objective:
    normalization = NORMALIZATIONS[name]
    weighting = Static(tokens.weights) if normalization.uses_weights else Static()
    return Objective(CrossEntropy(), normalization, weighting, [str(k) for k in range(tokens.num_tasks)])


def sum_of_shares(tokens: Tokens, name: str, part: Tensor) -> tuple[float, Tensor]:
    """Loss and gradient, added up over the parts that `part` assigns each token to."""
    made = objective(tokens, name)
    counts = tokens.counts(torch.arange(len(tokens.nll)))
    nll = tokens.nll.clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for value in range(int(part.max()) + 1):
        own = part == value
        share = made.loss(nll[own], tokens.task[own], tokens.sample[own], tokens.sizes[own], counts)
        share.backward()
        total += share.detach().double()
    assert nll.grad is not None
    return float(total), nll.grad


def splits(tokens: Tokens) -> list[Tensor]:
    """All in one part, one sample a part, and random parts of whole samples, some of them empty."""
    rng = np.random.default_rng(0)
    samples = int(tokens.sample.max()) + 1
    ways = [np.zeros(samples, np.int64), np.arange(samples)]
    ways += [rng.integers(0, parts, samples) for parts in (2, 3, 8, 40)]
    return [torch.from_numpy(way)[tokens.sample] for way in ways]


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_hand_worked(name):
    for part in splits(HAND):
        loss, gradient = sum_of_shares(HAND, name, part)
        assert loss == pytest.approx(HAND_EXPECTED[name], rel=1e-6)
        # Every loss is linear, so the gradient says it again.
        assert float(gradient @ HAND.nll) == pytest.approx(HAND_EXPECTED[name], rel=1e-6)


def test_hand_worked_coefficients():
    _, gradient = sum_of_shares(HAND, "task_mean", torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(gradient, torch.tensor([1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8]))
    _, gradient = sum_of_shares(HAND, "task_sample_mean", torch.zeros(5, dtype=torch.int64))
    torch.testing.assert_close(gradient, torch.tensor([3 / 16, 3 / 16, 3 / 8, 1 / 8, 1 / 8]))


def reference_batches() -> list[tuple[dict, Tokens]]:
    if not REFERENCE.exists():
        pytest.skip("the reference numbers are not beside the repository")
    cases = json.loads(REFERENCE.read_text())["batch"]
    return [(case, tokens_of(case)) for case in cases]


def tokens_of(case: dict) -> Tokens:
    return Tokens(
        nll=torch.tensor(case["nll"]),
        task=torch.tensor(case["task_id"]),
        sample=torch.tensor(case["sample_id"]),
        num_tasks=case["tasks"],
        weights={str(k): w for k, w in enumerate(case["task_weights"])},
    )


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_reference(name):
    for case, tokens in reference_batches():
        given = torch.tensor(case["rank"]) * 1000 + torch.tensor(case["micro_batch"])
        given = torch.unique(given, return_inverse=True)[1]
        gradients = []
        for part in [given, *splits(tokens)]:
            loss, gradient = sum_of_shares(tokens, name, part)
            assert loss == pytest.approx(case["expected"][name], rel=1e-6)
            gradients.append(gradient)
        for gradient in gradients[1:]:
            torch.testing.assert_close(gradient, gradients[0], rtol=1e-6, atol=0)


def test_counts_add_up_over_ranks():
    part = torch.tensor([0, 0, 1, 1, 1])
    parts = [HAND.counts(torch.nonzero(part == value).flatten()) for value in range(2)]
    whole = HAND.counts(torch.arange(5))
    assert (parts[0] + parts[1]).stack().tolist() == whole.stack().tolist() == [3, 2, 0, 2, 1, 0]
    again = Counts.from_vector(whole.stack())
    assert again.tokens.tolist() == [3, 2, 0]
    assert again.samples.tolist() == [2, 1, 0]


def test_task_weights_act_with_one_sample_per_micro_batch():
    """The released code divided by the tasks of the micro-batch, so that weights cancelled out."""
    one_sample_each = HAND.sample
    _, weighted = sum_of_shares(HAND, "task_mean", one_sample_each)
    plain = Tokens(HAND.nll, HAND.task, HAND.sample, 3, {})
    _, unweighted = sum_of_shares(plain, "task_mean", one_sample_each)
    assert weighted[0] / weighted[-1] == pytest.approx(3 * float(unweighted[0] / unweighted[-1]))


def test_mean_is_over_all_ranks_tokens_not_over_rank_means():
    uneven = torch.tensor([0, 0, 1, 1, 1])
    loss, _ = sum_of_shares(HAND, "token_mean", uneven)
    mean_of_means = ((1 + 3) / 2 + (5 + 2 + 8) / 3) / 2
    assert loss == pytest.approx(19 / 5)
    assert loss != pytest.approx(mean_of_means)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_loss_of_zero_is_not_absence(name):
    """Task 1 has a loss of exactly 0: it still takes its part of the weight."""
    tokens = Tokens(torch.tensor([4.0, 0.0]), torch.tensor([0, 1]), torch.tensor([0, 1]), 2, {})
    loss, gradient = sum_of_shares(tokens, name, torch.tensor([0, 1]))
    assert loss == pytest.approx(2.0)
    assert gradient.tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_nothing_to_train_is_zero_with_a_graph(name):
    made = objective(HAND, name)
    nll = torch.zeros(0, requires_grad=True)
    empty = torch.zeros(0, dtype=torch.int64)
    loss = made.loss(nll, empty, empty, empty, Counts.zeros(3))
    loss.backward()
    assert float(loss.detach()) == 0
    assert nll.grad is not None
    assert nll.grad.shape == (0,)


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_a_token_of_weight_w_counts_as_w_tokens(name):
    """The loss is that of a batch in which the token stands w times."""
    times = torch.tensor([3, 1, 2, 1, 4])
    repeated = Tokens(
        *(part.repeat_interleave(times) for part in (HAND.nll, HAND.task, HAND.sample)), 3, HAND.weights
    )
    expected, _ = sum_of_shares(repeated, name, torch.zeros(11, dtype=torch.int64))
    counts = repeated.counts(torch.arange(11))
    sizes = torch.zeros(3).double().index_add_(0, HAND.sample, times.double())[HAND.sample]
    for part in splits(HAND):
        found = weighted_loss(HAND, name, part, counts, sizes, times.float())
        assert found == pytest.approx(expected, rel=1e-6)
    plain, _ = sum_of_shares(HAND, name, HAND.sample)
    assert found != pytest.approx(plain, rel=1e-3)


def weighted_loss(
    tokens: Tokens, name: str, part: Tensor, counts: Counts, sizes: Tensor, weights: Tensor
) -> float:
    made = objective(tokens, name)
    total = 0.0
    for value in range(int(part.max()) + 1):
        own = part == value
        place = tokens.nll[own], tokens.task[own], tokens.sample[own]
        total += float(made.loss(*place, sizes[own], counts, weights[own]))
    return total


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_weights_of_one_change_no_bit(name):
    counts = HAND.counts(torch.arange(5))
    losses = []
    for weights in (None, torch.ones(5)):
        nll = HAND.nll.clone().requires_grad_()
        sizes = HAND.sizes if weights is None else HAND.sizes.double()
        share = objective(HAND, name).loss(nll, HAND.task, HAND.sample, sizes, counts, weights)
        share.backward()
        losses.append((share.item(), nll.grad.tolist()))
    assert losses[0] == losses[1]


@pytest.mark.parametrize("name", ["task_mean", "task_sample_mean"])
def test_only_tasks_of_weight_zero_present(name):
    weights = {"0": 0.0, "1": 0.0}
    loss, gradient = sum_of_shares(Tokens(HAND.nll, HAND.task, HAND.sample, 3, weights), name, HAND.sample)
    assert loss == 0
    assert gradient.tolist() == [0] * 5


def test_small_coefficients_keep_their_accuracy():
    """A hundred thousand tokens: single precision sums would drift."""
    generator = torch.Generator().manual_seed(0)
    nll = torch.rand(100_000, generator=generator)
    task = torch.randint(0, 5, (100_000,), generator=generator)
    sample = torch.arange(100_000) // 50
    tokens = Tokens(nll, task, sample, 5, {})
    exact = torch.stack([nll[task == k].double().mean() for k in range(5)]).mean()
    loss, _ = sum_of_shares(tokens, "task_mean", torch.arange(100_000) % 8)
    assert loss == pytest.approx(float(exact), rel=1e-6)


def test_gradient_flows_in_the_dtype_of_the_nll():
    nll = HAND.nll.clone().requires_grad_()
    counts = HAND.counts(torch.arange(5))
    loss = objective(HAND, "task_mean").loss(nll, HAND.task, HAND.sample, HAND.sizes, counts)
    loss.backward()
    assert loss.dtype == nll.dtype
    assert nll.grad is not None
    assert nll.grad.dtype == torch.float32


@pytest.mark.parametrize("normalization", [TokenMean(), SampleMean()])
def test_weights_without_effect_are_refused(normalization):
    with pytest.raises(ConfigError, match=type(normalization).__name__) as caught:
        Objective(CrossEntropy(), normalization, Static({"a": 2.0}), ["a", "b"])
    assert caught.value.key == "loss.weighting"
    assert "loss=coba" in caught.value.message
    with pytest.raises(ConfigError, match="adaptive"):
        Objective(CrossEntropy(), normalization, Watching(), ["a", "b"])
    Objective(CrossEntropy(), normalization, Static({"a": 1.0}), ["a", "b"])


def test_cross_entropy_needs_no_statistics():
    made = objective(HAND, "task_mean")
    assert not made.needs_statistics
    counts = HAND.counts(torch.arange(5))
    assert made.statistics(HAND.nll, HAND.task, HAND.sample, HAND.sizes, counts).shape == (0,)


class Watching:
    """A weighting whose weights are the losses it has seen last, plus one; 1 before."""

    weighs = True
    watch = "probe"
    draw_repeats = 7
    needs_gradient_norms = True

    def build(self, tasks, draws=None):
        return WatchingWeights(len(tasks))


class WatchingWeights:
    def __init__(self, num_tasks):
        self.seen = []
        self.weights = torch.ones(num_tasks).double()

    def current(self):
        return self.weights

    def observe(self, observation):
        self.seen.append(observation)
        self.weights = 1 + observation.losses

    def diagnostics(self):
        return {"seen": torch.tensor(len(self.seen))}

    def state_dict(self):
        return {"weights": self.weights}

    def load_state_dict(self, state):
        self.weights = state["weights"]


def watching() -> Objective:
    return Objective(CrossEntropy(), TaskMean(), Watching(), ["a", "b"])


def doubles(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_says_what_its_weighting_wants_to_see():
    made = watching()
    assert (made.watch, made.draw_repeats, made.needs_gradient_norms) == ("probe", 7, True)
    plain = objective(HAND, "task_mean")
    assert (plain.watch, plain.draw_repeats, plain.needs_gradient_norms) == (None, 1, False)


def test_observed_losses_reach_the_weighting_and_change_the_next_loss():
    made = watching()
    ids, nll = torch.tensor([0, 1]), torch.tensor([1.0, 5.0])
    counts = Counts(torch.ones(2).double(), torch.ones(2).double())
    assert float(made.loss(nll, ids, ids, torch.ones(2), counts)) == pytest.approx(3.0)
    losses, norms = doubles(2.0, 0.0), doubles(0.1, 0.2)
    made.observe(3, losses, 5, norms)
    (seen,) = made._weights.seen
    assert (seen.step, seen.draw, seen.active.tolist()) == (3, 5, [True, True])
    assert seen.losses is losses
    assert seen.gradient_norms is norms
    assert made.task_weights().tolist() == [3, 1]
    assert float(made.loss(nll, ids, ids, torch.ones(2), counts)) == pytest.approx(2.0)
    assert made.diagnostics() == {"seen": 1}


def test_frozen_tasks_are_not_active_in_observations():
    made = watching()
    made.freeze([1])
    made.observe(1, doubles(4.0, 9.0), 0)
    assert made._weights.seen[0].active.tolist() == [True, False]
    assert made._weights.seen[0].gradient_norms is None
    assert made.task_weights().tolist() == [5, 0]
    made.freeze([0, 1])
    made.observe(2, doubles(3.0, 3.0), 1)
    assert len(made._weights.seen) == 1, "nobody is left to observe"
    made.freeze([])
    assert made.task_weights().tolist() == [5, 10]


def test_weights_are_a_new_object_only_on_change():
    made = watching()
    first = made.task_weights()
    made.freeze([])
    assert made.task_weights() is first
    made.freeze({1})
    second = made.task_weights()
    made.freeze([1])
    assert made.task_weights() is second is not first
    made.observe(1, doubles(1.0, 1.0), 0)
    assert made.task_weights() is not second


@pytest.mark.parametrize("level", [None, "token", "sample", "task"])
@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_frozen_tasks_are_as_if_absent(name, level):
    """Loss and gradient are those of the other tasks alone."""
    loss = CrossEntropy() if level is None else Focal(level)
    weighting = Static(HAND.weights) if NORMALIZATIONS[name].uses_weights else Static()
    made, plain = (Objective(loss, NORMALIZATIONS[name], weighting, ["0", "1", "2"]) for _ in range(2))
    made.freeze([0])
    own = HAND.task != 0
    expected = step_of(plain, HAND, own)
    found = step_of(made, HAND, torch.ones(5, dtype=torch.bool))
    assert found[0] == expected[0] > 0
    assert found[1] == [0, 0, 0, *expected[1]]
    made.freeze([])
    assert step_of(made, HAND, own)[0] == expected[0]


@pytest.mark.parametrize("name", NORMALIZATIONS)
def test_all_frozen_is_zero_with_a_graph(name):
    made = objective(HAND, name)
    made.freeze(range(3))
    assert made.task_weights().tolist() == [0, 0, 0]
    assert step_of(made, HAND, torch.ones(5, dtype=torch.bool)) == (0, [0] * 5)


def step_of(made: Objective, tokens: Tokens, own: Tensor) -> tuple[float, list[float]]:
    """Loss and gradient of the chosen tokens as one global batch."""
    nll, counts = tokens.nll[own].requires_grad_(), tokens.counts(torch.nonzero(own).flatten())
    arguments = nll, tokens.task[own], tokens.sample[own], tokens.sizes[own], counts
    loss = made.loss(*arguments, statistics=made.statistics(*arguments))
    loss.backward()
    return float(loss.detach()), nll.grad.tolist()


def test_state_is_restored():
    made, other = watching(), watching()
    made.observe(1, doubles(2.0, 3.0), 0)
    other.load_state_dict(made.state_dict())
    assert other.task_weights().tolist() == made.task_weights().tolist() == [3, 4]
    static = objective(HAND, "task_mean")
    static.load_state_dict(static.state_dict())
    assert static.task_weights().tolist() == [3.0, 1.0, 100.0]


def test_state_of_another_weighting_is_left_with_a_warning(caplog):
    made = watching()
    made.observe(1, doubles(2.0, 3.0), 0)
    static = objective(HAND, "task_mean")
    static.load_state_dict(made.state_dict())
    assert static.task_weights().tolist() == [3.0, 1.0, 100.0]
    assert "the state of Watching (watch: probe)" in caplog.text
    assert "Static (watch: None), which starts afresh" in caplog.text
    caplog.clear()
    made.load_state_dict(made.state_dict())
    assert not caplog.records
