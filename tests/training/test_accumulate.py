"""What a step hands to its objective."""

from contextlib import nullcontext
from types import SimpleNamespace

import torch
import worlds

from mftrun.training.step import accumulate


def test_samples_are_told_apart_by_their_pieces():
    """A sample that is cut or repeated within a micro-batch is several for losses per sample."""
    feed = worlds.feed_of(worlds.Split("token_mean", 8, "concat", (1.0, 0.5)), 0, 1)
    batch = next(feed.window(0, 0))
    assert len(batch.piece_ids.unique()) > len(batch.sample_ids.unique())
    given = []

    def loss(*arguments):
        given.append(arguments)
        return arguments[0].sum()

    nll = torch.ones(len(batch.target_ids), requires_grad=True)
    accumulate(
        accelerator=SimpleNamespace(
            device="cpu", num_processes=1, no_sync=nullcontext, backward=lambda share: share.backward()
        ),
        model=lambda *_: SimpleNamespace(nll=nll, router_loss=None),
        objective=SimpleNamespace(loss=loss),
        window=[batch],
        agreement=SimpleNamespace(counts="counts", tokens=1),
        meter=SimpleNamespace(add=lambda *_: None),
    )
    expected = [nll, batch.task_ids, batch.piece_ids, batch.sample_sizes, "counts", batch.target_weights]
    assert all(found is one or torch.equal(found, one) for found, one in zip(given[0], expected, strict=True))
