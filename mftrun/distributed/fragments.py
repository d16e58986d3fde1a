"""Parts of tensors in the form of torch's distributed checkpoint, where it does not know how they lie itself.

ZeRO holds stretches of flattened tensors, and tensor parallel the same part of each of several matrices that
are packed in one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Self

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


class _Part(Tensor):
    """What this rank holds of a tensor, by rectangles; knows the whole tensor's shape.

    It follows torch's protocol for tensors of a distributed checkpoint, under which ranks save and load
    rectangular parts of a tensor.
    """

    _shape: torch.Size
    _blocks: list[Block]

    @classmethod
    def _of(cls, values: Tensor, shape: torch.Size, blocks: list[Block]) -> Self:
        part: Self = Tensor._make_subclass(cls, values.detach())
        part._shape, part._blocks = shape, blocks
        return part

    def size(self, dim: Any = None) -> Any:
        """Shape of the whole tensor."""
        return self._shape if dim is None else self._shape[dim]

    def _view(self, index: int) -> Tensor:
        """The values in one of the rectangles, to be read and written."""
        raise NotImplementedError

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
        for number, block in enumerate(self._blocks):
            if torch.Size(block.offsets) == index.offset:
                return self._view(number)
        raise ValueError(f"this rank holds no part of {index.fqn} at {index.offset}")


class Fragment(_Part):
    """A stretch of a flattened tensor, which knows the whole tensor's shape.

    Args:
        values: The stretch, one-dimensional and contiguous.
        shape: Of the whole tensor.
        start: The stretch's first element in it, in row-major order.
    """

    def __new__(cls, values: Tensor, shape: torch.Size, start: int) -> Fragment:
        """A view of `values`."""
        return cls._of(values, shape, blocks(tuple(shape), start, start + values.numel()))

    def _view(self, index: int) -> Tensor:
        begin = sum(math.prod(block.sizes) for block in self._blocks[:index])
        sizes = self._blocks[index].sizes
        return self.as_subclass(Tensor).narrow(0, begin, math.prod(sizes)).view(sizes)


class PackedPart(_Part):
    """A rank's part of a tensor in which matrices are packed along a dimension, each divided over the ranks.

    Args:
        values: The parts of the matrices, one after another along that dimension.
        shape: Of the whole tensor.
        dim: The dimension.
        matrices: How many are packed.
        rank: The rank that holds `values`.
        ranks: How many hold a part.
    """

    _dim: int

    def __new__(
        cls, values: Tensor, shape: torch.Size, dim: int, *, matrices: int, rank: int, ranks: int
    ) -> PackedPart:
        """A view of `values`."""
        part = cls._of(values, shape, _stripes(tuple(shape), dim, matrices, rank, ranks))
        part._dim = dim
        return part

    def _view(self, index: int) -> Tensor:
        begin = sum(block.sizes[self._dim] for block in self._blocks[:index])
        return self.as_subclass(Tensor).narrow(self._dim, begin, self._blocks[index].sizes[self._dim])


def _stripes(shape: tuple[int, ...], dim: int, matrices: int, rank: int, ranks: int) -> list[Block]:
    """A rank's part of every matrix; the last parts are smaller where sizes do not divide."""
    found = []
    for matrix in torch.arange(shape[dim]).chunk(matrices):
        parts = matrix.chunk(ranks)
        if rank < len(parts):
            begin, length = int(parts[rank][0]), len(parts[rank])
            offsets = tuple(begin if axis == dim else 0 for axis in range(len(shape)))
            found.append(Block(offsets, (*shape[:dim], length, *shape[dim + 1 :])))
    return found
