"""Where ZeRO keeps each parameter's float32 weights and optimizer state, and how the model gets them back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mftrun.distributed.fragments import Fragment
from mftrun.distributed.trained import OPTIMIZER, WEIGHT, begin_state, saved_buffers, trained_parameters


@dataclass(frozen=True)
class Stretch:
    """The part of a parameter that this rank steps.

    Attributes:
        shape: Of the whole parameter.
        start: Its first element in the flattened parameter.
        length: Its number of elements.
        flat: The tensor that the optimizer steps.
        offset: Where in that tensor it lies.
    """

    shape: torch.Size
    start: int
    length: int
    flat: Tensor
    offset: int

    def of(self, values: Tensor) -> Fragment:
        """The same part of a tensor that goes with `flat` element by element."""
        return Fragment(values.detach().narrow(0, self.offset, self.length), self.shape, self.start)


def zero_state(engine: Any, *, optimizer: bool = True) -> dict[str, Any]:
    """Views of what this rank holds of the weights and the optimizer's state; see `Engine.state`.

    Args:
        engine: DeepSpeed's.
        optimizer: Whether the optimizer's state is wanted.
    """
    state: dict[str, Any] = {f"{WEIGHT}{name}": b for name, b in saved_buffers(engine.module).items()}
    if optimizer:
        _begin(engine.optimizer)
    for name, stretch in _stretches(engine):
        state[f"{WEIGHT}{name}"] = stretch.of(stretch.flat)
        kept = engine.optimizer.optimizer.state[stretch.flat] if optimizer else {}
        for key, value in kept.items():
            whole = isinstance(value, Tensor) and value.shape == stretch.flat.shape
            state[f"{OPTIMIZER}{name}.{key}"] = stretch.of(value) if whole else value
    return state


def refresh(engine: Any) -> None:
    """Makes the model compute with float32 weights that were written into the state. A collective call."""
    zero = engine.optimizer
    if not _divides_weights(zero):
        zero.update_lp_params()
        return
    for index in range(len(zero.fp32_partitioned_groups_flat)):
        zero._reassign_or_swap_out_partitioned_parameters(index)
    if zero.persistent_parameters:
        zero.persistent_parameters[0].all_gather(zero.persistent_parameters)


def whole_parameter(parameter: Any) -> Tensor:
    """A whole parameter on every rank: the float32 weights of one that is trained. A collective call."""
    import deepspeed
    from deepspeed.utils import safe_get_full_fp32_param

    if parameter.requires_grad:
        whole: Tensor = safe_get_full_fp32_param(parameter)
        return whole
    if not hasattr(parameter, "ds_id"):
        return parameter  # type: ignore[no-any-return]
    with deepspeed.zero.GatheredParameters([parameter]):
        return parameter.detach().clone()  # type: ignore[no-any-return]


def _stretches(engine: Any) -> Iterator[tuple[str, Stretch]]:
    find = _of_stage_3 if _divides_weights(engine.optimizer) else _of_stage_1_and_2
    for name, parameter in trained_parameters(engine.module).items():
        stretch = find(engine.optimizer, parameter)
        if stretch is not None:
            yield name, stretch


def _of_stage_1_and_2(zero: Any, parameter: Any) -> Stretch | None:
    mapping = parameter._hp_mapping
    if mapping is None:
        return None
    flat = _partitions(zero)[mapping.param_group_index]
    own, held = mapping.lp_fragment_address, mapping.hp_fragment_address
    return Stretch(parameter.shape, own.start, own.numel, flat, held.start)


def _of_stage_3(zero: Any, parameter: Any) -> Stretch | None:
    group, offset, padded = zero.grad_position[zero.get_param_id(parameter)]
    start = padded * zero._get_param_partition_rank(parameter)
    length = min(padded, parameter.ds_numel - start)
    if length <= 0:
        return None
    return Stretch(parameter.ds_shape, start, length, zero.fp32_partitioned_groups_flat[group], offset)


def _begin(zero: Any) -> None:
    groups = _flats_by_group(zero)
    # Where the host steps, these are buffers that gradients are copied into.
    kept = [(flat, flat.grad) for group in groups for flat in group]
    begin_state(zero.optimizer, groups)
    for flat, gradient in kept:
        flat.grad = gradient


def _flats_by_group(zero: Any) -> list[list[Tensor]]:
    """The tensors that the optimizer steps, by its parameter groups."""
    if not _divides_weights(zero):
        return [[flat] for flat in _partitions(zero)]
    groups: list[list[Tensor]] = [[] for _ in zero.optimizer.param_groups]
    for index, flat in enumerate(zero.fp32_partitioned_groups_flat):
        groups[zero.sub_group_to_group_id[index]].append(flat)
    return groups


def _divides_weights(zero: Any) -> bool:
    return hasattr(zero, "fp32_partitioned_groups_flat")


def _partitions(zero: Any) -> list[Tensor]:
    """The part of each parameter group that is stepped here; stage 1 in bf16 has an optimizer of its own."""
    name = "single_partition_of_fp32_groups"
    found: list[Tensor] = getattr(zero, name if hasattr(zero, name) else "fp32_groups_flat_partition")
    return found
