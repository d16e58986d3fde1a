"""Law: ranks that divide matrices make the step of one process, in every family, and save it whole."""

import pytest
import tensor_parallel_worlds
import torch
from runs import checkpoint_tensors
from tensor_parallel_worlds import FAMILIES

from mftrun.launch import run_ranks


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Of one process and of two ranks: what each has found, and the folder of its checkpoints."""
    folder = tmp_path_factory.mktemp("worlds")
    bases = tensor_parallel_worlds.write(folder / "bases")
    found = []
    for ranks in (1, 2):
        given = {"bases": str(bases), "out": str(folder / str(ranks))}
        steps = run_ranks(tensor_parallel_worlds.steps, given, num_processes=ranks, log_file=None)
        found.append((steps, folder / str(ranks)))
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_those_of_one_process(runs, family):
    """Of three micro-batches: what ranks add up of one must not be added up again with the next."""
    alone, divided = (steps[family] for steps, _ in runs)
    assert divided["loss"] == pytest.approx(alone["loss"], rel=1e-6)
    assert divided["norm"] == pytest.approx(alone["norm"], rel=1e-5)
    assert divided["gradients"].keys() == alone["gradients"].keys()
    for name, gradient in alone["gradients"].items():
        torch.testing.assert_close(divided["gradients"][name], gradient, rtol=1e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("family", FAMILIES)
def test_checkpoints_hold_whole_tensors(runs, family):
    (alone, one), (divided, two) = runs
    assert divided[family]["lost"] == alone[family]["lost"] == []
    ours, theirs = checkpoint_tensors(two / family), checkpoint_tensors(one / family)
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours[name].shape == tensor.shape, name
        if "exp_avg" in name:
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-8, msg=name)
    saved = {name: tensor for name, tensor in ours.items() if name.startswith("model.")}
    assert saved
    for name, tensor in saved.items():
        assert torch.equal(divided[family]["model"][name], tensor), name
