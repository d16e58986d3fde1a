"""Validation losses are those of whole samples, whatever the rows, micro-batches and ranks."""

import probe_worlds
import pytest
import worlds
from worlds import ROWS, Split

from mftrun.data.plan import evaluation_plan
from mftrun.launch import StopRequest, run_ranks
from mftrun.training.evaluation import Evaluator

WEIGHTS = (1.0, 0.25, 3.0)


def losses(split: Split, ranks: int = 1) -> dict[str, float]:
    return run_ranks(worlds.validated, split, num_processes=ranks, log_file=None)


@pytest.mark.parametrize("rows", ROWS)
def test_losses_are_the_same_for_all_rows(rows: str) -> None:
    expected = losses(Split("token_mean", 1, "padding", WEIGHTS))
    assert list(expected) == worlds.TASKS
    for size, ranks in ((1, 1), (3, 1), (2, 2)):
        assert losses(Split("token_mean", size, rows, WEIGHTS), ranks) == pytest.approx(expected, rel=1e-5)


def test_weights_count() -> None:
    plain, weighted = (losses(Split("token_mean", 8, "padding", weights)) for weights in ((1.0,), WEIGHTS))
    assert plain["large"] != pytest.approx(weighted["large"], rel=1e-4)


@pytest.mark.parametrize(("micro_batches", "finishes"), [(0, False), (1, False), (7, False), (8, True)])
def test_a_stop_cuts_it_short_between_micro_batches(micro_batches: int, finishes: bool) -> None:
    """Eight samples, one in each micro-batch; the request to stop comes after some of them."""
    samples, model, stop = worlds.make_samples(), probe_worlds.model(), StopRequest()
    plan = evaluation_plan(samples.lengths, ROWS["padding"], 32)
    evaluator = Evaluator(probe_worlds.Rank(), samples, plan, micro_batch_size=1, pad_id=0)
    done: list[bool] = []
    stop.stop_requested = not micro_batches

    def note(*_: object) -> None:
        done.append(True)
        stop.stop_requested = len(done) >= micro_batches

    model.register_forward_hook(note)
    found = evaluator.losses(model, stop)
    assert len(done) == micro_batches
    assert (found is not None) == finishes
    assert all(module.training for module in model.modules())


def test_ranks_that_hear_of_a_stop_at_different_moments_leave_together() -> None:
    """Strategies that divide a model would wait for each other for ever."""
    split = Split("token_mean", 1)
    assert run_ranks(worlds.stopped_on_one, split, num_processes=2, log_file=None) == [1, 1]
