"""What a step hands to its objective and to those who measure, and what passes it makes."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import torch
import worlds

from mftrun.losses.counts import Counts
from mftrun.losses.metrics import TaskSums
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.step import accumulate


class Alone:
    """What a step needs of an engine, for a single rank; notes which micro-batches were a step's last."""

    ranks = SimpleNamespace(device=torch.device("cpu"), count=1, sum=lambda tensor: tensor)

    def __init__(self, model):
        self.model = model
        self.bare = SimpleNamespace(has_router_loss=False)
        self.lasts = []

    def micro_step(self, *, is_last):
        self.lasts.append(is_last)
        return nullcontext()

    def backward(self, share):
        share.backward()


class Shares:
    """A meter that keeps what it is given."""

    def __init__(self):
        self.losses = []

    def add(self, nll, task_ids, target_weights, share):
        self.losses.append(float(share))

    @property
    def total(self):
        return sum(self.losses)


def test_samples_are_told_apart_by_their_pieces():
    """A sample that is cut or repeated within a micro-batch is several for losses per sample."""
    feed = worlds.feed_of(worlds.Split("token_mean", 8, "concat", (1.0, 0.5)), 0, 1)
    batch = next(feed.window(0, 0))
    assert len(batch.piece_ids.unique()) > len(batch.sample_ids.unique())
    given = []

    def loss(*arguments, statistics):
        given.append((*arguments, statistics))
        return arguments[0].sum()

    nll = torch.ones(len(batch.target_ids), requires_grad=True)
    accumulate(
        engine=Alone(lambda *_: SimpleNamespace(nll=nll, router=None)),
        objective=SimpleNamespace(loss=loss, needs_statistics=False),
        window=[batch],
        agreement=SimpleNamespace(counts="counts", tokens=1),
        meter=SimpleNamespace(add=lambda *_: None),
    )
    expected = [
        nll,
        batch.task_ids,
        batch.piece_ids,
        batch.sample_sizes,
        "counts",
        batch.target_weights,
        None,
    ]
    for found, one in zip(given[0], expected, strict=True):
        assert found is one or torch.equal(found, one)


def window_of(split):
    """The first window, and what the ranks agree on about it."""
    feed = worlds.feed_of(split, 0, 1)
    targets, samples, tokens, _ = feed.ballot(0, 0)
    counts = Counts(torch.from_numpy(targets), torch.from_numpy(samples))
    return list(feed.window(0, 0)), SimpleNamespace(counts=counts, tokens=tokens)


class Recording(torch.nn.Module):
    """Keeps the nlls of every pass, and whether it was one with gradients."""

    def __init__(self, dropout):
        super().__init__()
        self.inner = ModelWithNll(worlds.llama(dropout))
        self.passes = []

    def forward(self, *arguments):
        assert self.training
        output = self.inner(*arguments)
        self.passes.append((output.nll.requires_grad, output.nll.detach().clone()))
        return output


def step(split, dropout=0.1, seed=1, **more):
    """One accumulation: the model with its gradients and passes, the loss, and the generator's state."""
    window, agreement = window_of(split)
    model, meter = Recording(dropout), Shares()
    torch.manual_seed(seed)
    accumulate(Alone(model), worlds.objective_of(split), iter(window), agreement, meter, **more)
    return model, meter.total, torch.get_rng_state()


@pytest.mark.parametrize("size", [8, 3])
def test_both_passes_of_a_task_level_loss_draw_the_same_masks(size):
    """The loss is the definition's, of the very nlls whose gradient is taken."""
    split = worlds.Split("task_mean", size, "padding", (1.0, 0.25), "focal_task")
    model, total, state = step(split)
    first, second = ([nll for with_grad, nll in model.passes if with_grad is own] for own in (False, True))
    assert len(first) == len(second) == -(-8 // size)
    assert [with_grad for with_grad, _ in model.passes] == [False] * len(first) + [True] * len(second)
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))
    assert total == pytest.approx(float(task_level(split, torch.cat(second))), rel=1e-6)

    others = step(split, seed=2)[0].passes
    assert not torch.equal(others[0][1], first[0]), "dropout must be at work"
    plain = worlds.Split("task_mean", size, "padding", (1.0, 0.25))
    assert torch.equal(step(plain)[2], state), "the pass more may not move the generator"


def task_level(split, nll):
    """Equation 3 of arXiv 2311.02303 on all targets of the window, with gamma 2."""
    batches, _ = window_of(split)
    task = torch.cat([batch.task_ids for batch in batches])
    weights = torch.cat([batch.target_weights for batch in batches]).double()
    total, nll = 0.0, nll.double()
    factors = [(0, 1.0), (1, 3.0 * 1.0), (2, 0.5)]  # task weight times alpha
    for k, factor in factors:
        own = task == k
        p, q = (float((weights * x)[own].sum() / weights[own].sum()) for x in (torch.exp(-nll), nll))
        total += factor * (1 - p) ** 2 * q
    return total / (1 + 3 + 1)


def test_one_pass_where_no_statistics_are_needed():
    for token_loss in ("cross_entropy", "focal_token", "focal_sample"):
        model, _, _ = step(worlds.Split("task_mean", 3, token_loss=token_loss))
        assert [with_grad for with_grad, _ in model.passes] == [True] * 3


def test_sums_and_gradients_are_told_of_every_micro_batch():
    split = worlds.Split("task_mean", 3, "padding", (1.0, 0.25), "focal_task")
    events = []
    watch = SimpleNamespace(attend=lambda batch: events.append(batch.num_tokens))
    sums = TaskSums(3)
    model, _, _ = step(split, sums=sums, gradients=watch)
    batches, agreement = window_of(split)
    assert events == [batch.num_tokens for batch in batches]
    expected = TaskSums(3)
    for batch, (_, nll) in zip(batches, model.passes[3:], strict=True):
        expected.add(nll, batch.task_ids, batch.target_weights)
    assert sums.vector().tolist() == expected.vector().tolist()
    assert sums.vector()[3:].tolist() == agreement.counts.tokens.tolist()


def test_a_micro_batch_is_announced_right_before_its_forward_with_gradients():
    order = []
    split = worlds.Split("task_mean", 3, token_loss="focal_task")
    window, agreement = window_of(split)
    model = ModelWithNll(worlds.llama())
    model.register_forward_pre_hook(lambda *_: order.append(f"forward {torch.is_grad_enabled()}"))
    watch = SimpleNamespace(attend=lambda batch: order.append(f"attend {window.index(batch)}"))
    engine = Alone(model)
    accumulate(engine, worlds.objective_of(split), window, agreement, Shares(), gradients=watch)
    pairs = [event for index in range(3) for event in (f"attend {index}", "forward True")]
    assert order == ["forward False"] * 3 + pairs
    assert engine.lasts == [False, False, True], "ranks exchange gradients once"
