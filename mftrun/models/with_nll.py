"""The hinge between model and objective: a module whose forward returns the nll of each target token.

It is what the strategies prepare, so that DDP, FSDP, ZeRO and compile all see one forward.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mftrun.models.heads import Head, head_for
from mftrun.models.parts import causal_lm_of, decode, decoder_of, output_head_of
from mftrun.models.router import RouterSums, router_loss_of


class NllOutput(NamedTuple):
    """What `ModelWithNll` returns. A tuple, as DDP and accelerate look for tensors inside of outputs.

    Attributes:
        nll: float32 [T].
        router: What the tokens bring to the load-balancing loss; None in evaluation, and without such a loss.
    """

    nll: Tensor
    router: RouterSums | None


class ModelWithNll(nn.Module):
    """A causal language model that returns losses instead of logits.

    Only the positions that predict a target go through the output head, so full logits never exist. Packed
    segments do not see each other: that rests on `position_ids` which restart, on passing no attention mask
    and on keeping no cache. With a mask or a cache they would, silently.

    Args:
        model: A causal language model, or a peft wrapper around one, with its adapters in place.
        head: How target positions are projected; None takes what `head_for` chooses.

    Raises:
        ConfigError: The model has no decoder or no output head.
    """

    def __init__(self, model: nn.Module, head: Head | None = None) -> None:
        super().__init__()
        self.model = model
        self.head = head or head_for(model).head
        # Strategies that have none of their own set it; it surrounds every forward pass.
        self.autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
        causal_lm = causal_lm_of(model)
        decoder_of(causal_lm)
        output_head_of(causal_lm)
        self._router_loss = router_loss_of(causal_lm)

    @property
    def has_router_loss(self) -> bool:
        """Whether a load-balancing loss belongs to the model's training."""
        return self._router_loss is not None

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        predict_from: Tensor,
        target_ids: Tensor,
        row_lengths: Tensor | None = None,
        instead: Callable[[ModelWithNll], Any] | None = None,
    ) -> NllOutput:
        """Losses of the target tokens of one micro-batch.

        Args:
            input_ids: int64 [rows, length].
            position_ids: int64 [rows, length]; restart at 0 at every segment, count on through padding.
            predict_from: int64 [T], index into rows * length of the position that predicts each target.
            target_ids: int64 [T], the tokens predicted there.
            row_lengths: int64 [rows], tokens of each row before its padding; None where nothing is padded.
            instead: Called in place of all this, the other arguments left alone: sharded weights can be
                computed with inside of a forward pass only.

        Returns:
            The nlls; with T = 0 they are empty and still connected to every parameter. Or what `instead`
            returns.
        """
        with self.autocast():
            if instead is not None:
                return instead(self)  # type: ignore[no-any-return]
            return self._losses(input_ids, position_ids, predict_from, target_ids, row_lengths)

    def _losses(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        predict_from: Tensor,
        target_ids: Tensor,
        row_lengths: Tensor | None,
    ) -> NllOutput:
        causal_lm = causal_lm_of(self.model)
        balanced = self._router_loss if self.training else None
        outputs = decode(causal_lm, input_ids, position_ids, router_logits=balanced is not None)
        hidden = outputs[0].flatten(0, 1).index_select(0, predict_from)
        nll = self.head.nll(output_head_of(causal_lm), hidden, target_ids)
        if balanced is None or not outputs.router_logits:
            return NllOutput(nll, None)
        return NllOutput(nll, balanced.sums(outputs.router_logits, _real(input_ids, row_lengths)))


def _real(input_ids: Tensor, row_lengths: Tensor | None) -> Tensor | None:
    """Which positions are no padding, bool [rows * length]; None for all."""
    if row_lengths is None:
        return None
    columns = torch.arange(input_ids.shape[1], device=input_ids.device)
    return (columns < row_lengths[:, None]).flatten()
