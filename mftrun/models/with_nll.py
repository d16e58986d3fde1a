"""The hinge between model and objective: a module whose forward returns the nll of each target token.

It is what the strategies prepare, so that DDP, FSDP, ZeRO and compile all see one forward.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

from torch import Tensor, nn

from mftrun.models.heads import Head, head_for
from mftrun.models.parts import causal_lm_of, decode, decoder_of, output_head_of
from mftrun.models.router import router_coefficient, router_loss


class NllOutput(NamedTuple):
    """What `ModelWithNll` returns. A tuple, as DDP and accelerate look for tensors inside of outputs.

    Attributes:
        nll: float32 [T].
        router_loss: Load-balancing loss with the model's own coefficient, a scalar; None without experts.
    """

    nll: Tensor
    router_loss: Tensor | None


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
        self._router_coefficient = router_coefficient(causal_lm)

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        predict_from: Tensor,
        target_ids: Tensor,
        instead: Callable[[ModelWithNll], Any] | None = None,
    ) -> NllOutput:
        """Losses of the target tokens of one micro-batch.

        Args:
            input_ids: int64 [rows, length].
            position_ids: int64 [rows, length]; restart at 0 at every segment, count on through padding.
            predict_from: int64 [T], index into rows * length of the position that predicts each target.
            target_ids: int64 [T], the tokens predicted there.
            instead: Called in place of all this, the other arguments left alone: sharded weights can be
                computed with inside of a forward pass only.

        Returns:
            The nlls; with T = 0 they are empty and still connected to every parameter. Or what `instead`
            returns.
        """
        with self.autocast():
            if instead is not None:
                return instead(self)  # type: ignore[no-any-return]
            return self._losses(input_ids, position_ids, predict_from, target_ids)

    def _losses(
        self, input_ids: Tensor, position_ids: Tensor, predict_from: Tensor, target_ids: Tensor
    ) -> NllOutput:
        causal_lm = causal_lm_of(self.model)
        routed = self._router_coefficient > 0
        outputs = decode(causal_lm, input_ids, position_ids, router_logits=routed)
        hidden = outputs[0].flatten(0, 1).index_select(0, predict_from)
        nll = self.head.nll(output_head_of(causal_lm), hidden, target_ids)
        balance = router_loss(causal_lm, outputs.router_logits) if routed else None
        return NllOutput(nll, None if balance is None else balance * self._router_coefficient)
