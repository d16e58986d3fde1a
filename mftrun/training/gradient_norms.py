"""Norms of each task's gradient in one layer, measured on the backward pass that training does anyway."""

from __future__ import annotations

import logging
import math
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from mftrun.errors import ConfigError
from mftrun.models.parts import causal_lm_of, decoder_of

if TYPE_CHECKING:
    from torch.utils.hooks import RemovableHandle

    from mftrun.data.batch import Batch
    from mftrun.distributed import Ranks
    from mftrun.models.with_nll import ModelWithNll

log = logging.getLogger(__name__)

_KEY = "loss.weighting"
# In models with experts: layers that see some of the tokens, in another order, or only decide where they go.
_ROUTED = frozenset({"experts", "gate", "router", "shared_expert_gate"})


class TaskGradients:
    """Gradients of one layer's weights, apart for each task, summed over the global batch.

    The layer is the last trainable linear one of the decoder: with LoRA the last adapter's B matrix, else
    the last decoder layer's last linear layer. The gradient of its weights is the sum over positions i of
    d_i a_i^T, with a_i its input and d_i the gradient of its output. Segments do not see each other, so the
    positions of a task's segments give the gradient of that task's share of the loss: no backward pass beside
    the one of training is needed. The work is that of this layer's weight gradient once more, whatever
    the number of tasks.

    Between `begin` and `end` it holds 4 * K * out * in bytes, and with gradient checkpointing the layer's
    input besides. Outside of them there are no hooks and no cost. In models with experts, what the router
    loss adds at a position counts for the task of that position.

    Args:
        model: The model-with-nll, the bare one, before or after a strategy has prepared it.
        num_tasks: K.
        device: Where the model computes; None takes where the layer's weights are.

    Raises:
        ConfigError: The decoder has no trainable linear layer.
    """

    def __init__(self, model: ModelWithNll, num_tasks: int, device: torch.device | None = None) -> None:
        path, self._layer = _last_linear(decoder_of(causal_lm_of(model.model)))
        self._device = device or _weight(self._layer).device
        self._shape = (num_tasks, *_out_in(self._layer))
        self._hook: RemovableHandle | None = None
        self._positions = 0
        self._groups: list[tuple[int, Tensor]] = []
        self._sums = torch.zeros(0)
        size = 4 * math.prod(self._shape) / 2**20
        log.info("gradient norms of the tasks are those of %s; they take %.1f MiB", path, size)

    def begin(self) -> None:
        """Starts the measurement of one optimizer step."""
        self.end()
        self._sums = torch.zeros(self._shape, dtype=torch.float32, device=self._device)
        self._hook = self._layer.register_forward_hook(self._watch)

    def attend(self, batch: Batch) -> None:
        """Says which micro-batch goes through the model next.

        Args:
            batch: As it comes from the feed: on the CPU, where its segments are found without waiting for
                the device. One on a device is read back from there.
        """
        assert self._hook is not None, "attend() belongs between begin() and end()"
        self._positions = batch.position_ids.numel()
        self._groups = _positions_by_task(batch, self._sums.device)

    def norms(self, ranks: Ranks, scale: float, present: Tensor) -> Tensor:
        """Norm of the gradient of each task's weighted loss w_k L_k. Call it once, after the last backward.

        A collective call, and the step's one read-back. Equal on all ranks.

        Args:
            ranks: The ranks of the run; each share must have been multiplied by their number.
            scale: Sum of the weights of the tasks in the global batch, by which the objective divided.
            present: bool [K] on the CPU, the tasks with targets in the global batch.

        Returns:
            float64 [K] on the CPU; nan for a task that is not present.
        """
        ranks.sum_in_place(self._sums)
        norms: Tensor = torch.linalg.vector_norm(self._sums.flatten(1), dim=1, dtype=torch.float64)
        norms = norms.cpu() * (scale / ranks.count)
        return norms.masked_fill(~present, torch.nan)

    def end(self) -> None:
        """Ends the measurement and gives its memory back."""
        if self._hook is not None:
            self._hook.remove()
        self._hook = None
        self._groups = []
        self._sums = torch.zeros(0)

    def _watch(self, layer: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """Waits for the gradient of the layer's output; a forward pass without one is none of training."""
        if not output.requires_grad:
            return
        self._refuse_other_positions(output)
        # Checkpointing runs this forward again, but sends no gradient through what that returns.
        output.register_hook(partial(self._add, self._groups, inputs[0].detach()))  # type: ignore[no-untyped-call]

    def _add(self, groups: list[tuple[int, Tensor]], inputs: Tensor, gradient: Tensor) -> None:
        """Adds the products of one micro-batch.

        The groups are ragged: one matrix product for each task that is there, each over its positions alone,
        is the least work there is. Nothing is read back from the device.
        """
        inputs, gradient = inputs.flatten(0, -2), gradient.flatten(0, -2)
        for task, positions in groups:
            left = gradient.index_select(0, positions).to(self._sums.dtype)
            right = inputs.index_select(0, positions).to(self._sums.dtype)
            self._sums[task].addmm_(left.T, right)

    def _refuse_other_positions(self, output: Tensor) -> None:
        found = output.shape[:-1].numel()
        if found != self._positions:
            raise ConfigError(
                _KEY,
                "gradnorm needs a layer that sees every token once, and the last trainable one saw "
                f"{found} of {self._positions}; change peft.target_modules, or use another weighting",
            )


def _last_linear(decoder: nn.Module) -> tuple[str, nn.Module]:
    """The last linear layer with a trainable weight, and its path."""
    from transformers.pytorch_utils import Conv1D  # the linear layer of GPT-2

    found = None
    for path, module in decoder.named_modules():
        if isinstance(module, nn.Linear | Conv1D) and _is_trained_on_every_token(path, module):
            found = path, module
    if found is None:
        raise ConfigError(
            _KEY,
            "gradnorm measures gradients in the decoder's last trainable linear layer, and it has none; "
            "train the decoder or adapters in it, or use another weighting",
        )
    return found


def _is_trained_on_every_token(path: str, module: nn.Module) -> bool:
    return _weight(module).requires_grad and not _ROUTED.intersection(path.split("."))


def _weight(layer: nn.Module) -> Tensor:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight


def _out_in(layer: nn.Module) -> tuple[int, int]:
    # Not the weight's shape: a sharded one has another.
    if isinstance(layer, nn.Linear):
        return layer.out_features, layer.in_features
    out, taken = layer.nf, layer.nx
    assert isinstance(out, int)
    assert isinstance(taken, int)
    return out, taken


def _positions_by_task(batch: Batch, device: torch.device) -> list[tuple[int, Tensor]]:
    """The tasks in a micro-batch, each with the positions of its segments, int64 [n] on `device`.

    The task of a segment is that of its targets. Segments without any have no gradient and are left out, as
    is a row of padding alone.
    """
    starts = batch.position_ids.cpu() == 0
    starts[:, 0] = True
    segment = starts.flatten().cumsum(0) - 1
    task_of_segment = torch.full_like(segment, -1)
    task_of_segment[segment[batch.predict_from.cpu()]] = batch.task_ids.cpu()
    task = task_of_segment[segment]
    tasks, sizes = torch.unique(task, return_counts=True)
    order = task.argsort(stable=True)
    if device.type == "cuda":
        order = order.pin_memory()
    groups = torch.split(order.to(device, non_blocking=True), sizes.tolist())
    return [(k, group) for k, group in zip(tasks.tolist(), groups, strict=True) if k >= 0]
