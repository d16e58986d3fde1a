"""Stretches of flattened tensors, written by some ranks and read by others in other pieces."""

import math
import warnings
from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.distributed import checkpoint

from mftrun.distributed.fragments import Fragment, blocks

SHAPES = st.lists(st.integers(1, 5), max_size=4).map(tuple)


@st.composite
def shapes_and_cuts(draw, ways=1):
    """A shape, and so many ways to cut the flattened tensor into stretches, which may be empty."""
    shape = draw(SHAPES)
    place = st.integers(0, math.prod(shape))
    cuts = [sorted([0, *draw(st.lists(place, max_size=4)), math.prod(shape)]) for _ in range(ways)]
    return shape, [list(pairwise(ends)) for ends in cuts]


@given(shapes_and_cuts())
def test_blocks_are_the_stretch_in_its_order(case):
    shape, (stretches,) = case
    whole = torch.arange(math.prod(shape)).view(shape)
    for start, stop in stretches:
        found = [part(whole, block).flatten() for block in blocks(shape, start, stop)]
        assert torch.cat([*found, torch.empty(0, dtype=torch.int64)]).tolist() == list(range(start, stop))


@given(shapes_and_cuts())
def test_a_stretch_is_of_few_blocks(case):
    shape, (stretches,) = case
    for start, stop in stretches:
        assert len(blocks(shape, start, stop)) <= max(1, 2 * len(shape) - 1)


def part(whole, block):
    return whole[tuple(slice(o, o + n) for o, n in zip(block.offsets, block.sizes, strict=True))]


@settings(max_examples=25, deadline=None)
@given(case=shapes_and_cuts(ways=2))
def test_what_is_saved_in_some_pieces_is_loaded_in_others(tmp_path_factory, case):
    shape, (saved, loaded) = case
    whole = torch.rand(shape)
    folder = tmp_path_factory.mktemp("pieces")
    save(folder, [fragment(whole, *stretch) for stretch in saved if stretch[0] < stretch[1]])
    for start, stop in loaded:
        values = torch.full((stop - start,), -1.0)
        load(folder, Fragment(values, whole.shape, start))
        assert torch.equal(values, whole.flatten()[start:stop])
    all_of_it = torch.empty(shape)
    load(folder, all_of_it)
    assert torch.equal(all_of_it, whole)


def fragment(whole, start, stop):
    return Fragment(whole.flatten()[start:stop].clone(), whole.shape, start)


def save(folder, pieces):
    """As ranks do that hold a piece each."""
    writer = checkpoint.FileSystemWriter(folder)
    planners = [checkpoint.DefaultSavePlanner() for _ in pieces]
    for planner, piece in zip(planners, pieces, strict=True):
        planner.set_up_planner({"x": piece}, is_coordinator=planner is planners[0])
    plans, metadata = planners[0].create_global_plan([planner.create_local_plan() for planner in planners])
    plans = writer.prepare_global_plan(plans)
    written = [
        writer.write_data(planner.finish_plan(plan), planner).wait()
        for planner, plan in zip(planners, plans, strict=True)
    ]
    writer.finish(metadata, written)


def load(folder, tensor):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        checkpoint.load({"x": tensor}, storage_reader=checkpoint.FileSystemReader(folder), no_dist=True)
