"""Validation losses are those of whole samples, whatever the rows, micro-batches and ranks."""

import pytest
import worlds
from worlds import ROWS, Split

from mftrun.launch import run_ranks

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
