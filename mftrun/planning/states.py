"""Weights, gradients and optimizer state: what a step leaves behind, counted per rank.

With weights in 32 bit, AdamW takes 16 bytes per trained weight: 4 for it, 4 for its gradient, 4 for each of
two moments. DeepSpeed in bf16 takes 18: 2 for the weight, 4 for the sum of gradients, 4 for the optimizer's
copy, 8 for its moments (arXiv 1910.02054, section 3.1, with gradients in 16 bit: 16).
"""

from __future__ import annotations

from mftrun.planning.model import ModelSize, Parameters
from mftrun.planning.setup import Setup

_FP32 = 4


def stored(parameters: Parameters, setup: Setup) -> int:
    """Bytes of some weights, whole, as they are stored."""
    numerics = setup.numerics
    linear = numerics.weight if setup.quantized is None else setup.quantized
    other = parameters.other * numerics.weight + parameters.adapter * numerics.adapter
    return round(parameters.linear * linear) + other


def weights(model: ModelSize, setup: Setup) -> int:
    """Bytes of a rank's own part of the weights on its device."""
    return 0 if setup.layout.cpu_weights else stored(model.whole, setup) // setup.weight_ranks


def gathered(model: ModelSize, setup: Setup) -> int:
    """Bytes of weights that are gathered for computing.

    Two layers (one computes, the next one arrives), and what belongs to none; ZeRO-3 keeps more of them if it
    expects to need them again.
    """
    if not setup.layout.weights:
        return 0
    whole = _computed(model.whole, setup)
    two_layers = 2 * _computed(model.layer, setup) + _computed(model.outside, setup)
    kept = whole * min(1.0, setup.layout.live / max(model.whole.total, 1))
    return min(whole, max(two_layers, round(kept)))


def gradients(model: ModelSize, setup: Setup) -> int:
    """Bytes of a rank's gradients after a backward pass. They go where the optimizer's state is."""
    if setup.layout.cpu_optimizer:
        return 0
    whole = _gradient_bytes(model.whole, setup)
    if setup.layout.whole_gradients and setup.micro_batches > 1:
        return whole + whole // setup.gradient_ranks
    return whole // setup.gradient_ranks


def buffers(model: ModelSize, setup: Setup) -> int:
    """Bytes of the buffers in which gradients are exchanged, where they are not the gradients themselves."""
    trained = model.whole.trained
    if setup.layout.bucket:  # one is filled while another is sent
        return 2 * min(trained, setup.layout.bucket) * setup.numerics.compute
    if setup.layout.weights:  # a layer's gradient, and its copy in 32 bit to be added up
        largest = max(model.layer.trained, model.outside.trained)
        return largest * (setup.numerics.compute + _FP32)
    return 0


def optimizer(model: ModelSize, setup: Setup) -> int:
    """Bytes of a rank's optimizer state on its device."""
    return 0 if setup.layout.cpu_optimizer else _optimizer_state(model, setup)


def host(model: ModelSize, setup: Setup) -> int:
    """Bytes of what training keeps in the memory of one machine, for all of its ranks."""
    layout, here = setup.layout, setup.ranks_per_host
    moved = 0
    if layout.cpu_optimizer:  # the step needs gradients where the state lies
        moved += _optimizer_state(model, setup) + model.whole.trained * _FP32 // setup.optimizer_ranks
    if layout.cpu_weights:
        moved += stored(model.whole, setup) // setup.weight_ranks
    return moved * here


def loading(model: ModelSize, setup: Setup) -> int:
    """Bytes that loading takes of one machine: the whole model, once for each rank that reads it."""
    readers = 1 if setup.layout.weights and setup.quantized is None else setup.ranks_per_host
    return stored(model.whole, setup) * readers


def _optimizer_state(model: ModelSize, setup: Setup) -> int:
    """Two moments in the dtype of the weights; with 32-bit copies of those, copies and moments in 32 bit."""
    if setup.layout.master:
        return model.whole.trained * 3 * _FP32 // setup.optimizer_ranks
    return 2 * _trained_bytes(model.whole, setup) // setup.optimizer_ranks


def _gradient_bytes(parameters: Parameters, setup: Setup) -> int:
    """DeepSpeed is told to add gradients up in 32 bit; others have them in the dtype of the weights."""
    return parameters.trained * _FP32 if setup.layout.master else _trained_bytes(parameters, setup)


def _trained_bytes(parameters: Parameters, setup: Setup) -> int:
    base = parameters.trained_linear + parameters.trained_other
    return base * setup.numerics.weight + parameters.trained_adapter * setup.numerics.adapter


def _computed(parameters: Parameters, setup: Setup) -> int:
    """Bytes of gathered weights: quantised ones as they are stored, others as they compute."""
    compute = setup.numerics.compute
    linear = compute if setup.quantized is None else setup.quantized
    return round(parameters.linear * linear) + (parameters.other + parameters.adapter) * compute
