"""Stretches of flattened tensors, as ZeRO holds them, in the form of torch's distributed checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class Block:
    """A rectangular part of a tensor.

    Attributes:
        offsets: Where it begins, by dimension.
        sizes: How far it goes, by dimension.
    """

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]


def blocks(shape: tuple[int, ...], start: int, stop: int) -> list[Block]:
    """The rectangles that a stretch of a flattened tensor consists of, in its order.

    Args:
        shape: Of the tensor.
        start: First element of the stretch, in row-major order.
        stop: The element after its last.
    """
    if start >= stop:
        return []
    if len(shape) <= 1:
        return [Block((start,), (stop - start,))] if shape else [Block((), ())]
    row = math.prod(shape[1:])
    first, last = -(-start // row), stop // row  # the rows that are whole
    if first > last:  # within one row
        return _in_row(shape, last, start - last * row, stop - last * row)
    head = _in_row(shape, first - 1, start - (first - 1) * row, row) if start < first * row else []
    rest = tuple(0 for _ in shape[1:])
    body = [Block((first, *rest), (last - first, *shape[1:]))] if first < last else []
    tail = _in_row(shape, last, 0, stop - last * row) if last * row < stop else []
    return [*head, *body, *tail]


def _in_row(shape: tuple[int, ...], index: int, start: int, stop: int) -> list[Block]:
    inner = blocks(shape[1:], start, stop)
    return [Block((index, *block.offsets), (1, *block.sizes)) for block in inner]


class Fragment(Tensor):
    """A stretch of a flattened tensor, which knows the whole tensor's shape.

    It follows torch's protocol for tensors of a distributed checkpoint, under which ranks save and load
    rectangular parts of a tensor.

    Args:
        values: The stretch, one-dimensional and contiguous.
        shape: Of the whole tensor.
        start: The stretch's first element in it, in row-major order.
    """

    _shape: torch.Size
    _blocks: list[Block]

    def __new__(cls, values: Tensor, shape: torch.Size, start: int) -> Fragment:
        """A view of `values`."""
        fragment: Fragment = Tensor._make_subclass(cls, values.detach())
        fragment._shape = shape
        fragment._blocks = blocks(tuple(shape), start, start + values.numel())
        return fragment

    def size(self, dim: Any = None) -> Any:
        """Shape of the whole tensor."""
        return self._shape if dim is None else self._shape[dim]

    def __create_write_items__(self, fqn: str, _object: object) -> list[Any]:
        from torch.distributed.checkpoint.metadata import MetadataIndex, TensorProperties
        from torch.distributed.checkpoint.planner import TensorWriteData, WriteItem, WriteItemType

        properties = TensorProperties.create_from_tensor(self.as_subclass(Tensor))
        return [
            WriteItem(
                index=MetadataIndex(fqn, chunk.offsets),
                type=WriteItemType.SHARD,
                tensor_data=TensorWriteData(chunk=chunk, properties=properties, size=self._shape),
            )
            for chunk in self.__create_chunk_list__()
        ]

    def __create_chunk_list__(self) -> list[Any]:
        from torch.distributed.checkpoint.metadata import ChunkStorageMetadata

        return [
            ChunkStorageMetadata(torch.Size(block.offsets), torch.Size(block.sizes)) for block in self._blocks
        ]

    def __get_tensor_shard__(self, index: Any) -> Tensor:
        begin = 0
        for block in self._blocks:
            length = math.prod(block.sizes)
            if torch.Size(block.offsets) == index.offset:
                return self.as_subclass(Tensor).narrow(0, begin, length).view(block.sizes)
            begin += length
        raise ValueError(f"this rank holds no part of {index.fqn} at {index.offset}")
