"""Time collating against training: `python benchmarks/collating.py`.

Prints, for every kind of rows, the time to collate a micro-batch as a share of a training step of a Llama of
20 million parameters on it (forward, backward, AdamW), on the CPU or the GPU that is there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
import torch
from packing import MemorySamples, make_samples, real_like

from mftrun.data.batch import Batch, collate, window_counts
from mftrun.data.mixture import Int64Array, Proportional
from mftrun.data.plan import Planner
from mftrun.data.rows import Concat, Packing, Padding, PaddingFree, RowBuilder
from mftrun.models.with_nll import ModelWithNll

ROW = "{:<16}{:>8}{:>10}{:>12}{:>12}{:>10}"
ROWS: Mapping[str, RowBuilder] = MappingProxyType(
    {"padding": Padding(), "packing": Packing(), "concat": Concat(), "padding_free": PaddingFree()}
)
MAX_LENGTH = 1024
VOCABULARY = 8192


class Share(NamedTuple):
    """Mean seconds of a micro-batch of so many tokens.

    Attributes:
        tokens: tokens that are not padding.
        collating: seconds to count its targets and to collate it.
        training: seconds of forward, backward and optimizer step.
    """

    tokens: float
    collating: float
    training: float

    @property
    def share(self) -> float:
        """Seconds of collating for each second of training."""
        return self.collating / self.training


def llama(hidden: int = 384, intermediate: int = 1024, layers: int = 8, heads: int = 6) -> torch.nn.Module:
    """A Llama, randomly initialized; of 20 million parameters if nothing is said."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        max_position_embeddings=MAX_LENGTH,
    )
    return LlamaForCausalLM(config)


def collating_share(rows: RowBuilder, micro_batch_size: int = 4, batches: int = 4) -> Share:
    """Time some micro-batches of realistic samples, collated and trained one after the other."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rng = np.random.default_rng(0)
    samples = make_samples(rng, real_like(rng, 5000, MAX_LENGTH), VOCABULARY)
    windows = _windows(samples, rows, micro_batch_size, batches)
    made = [make() for make in windows]
    model = ModelWithNll(llama()).to(device)
    optimizer = torch.optim.AdamW(model.parameters())
    _train(model, optimizer, made[0].to(device))  # what is only done once
    return Share(
        tokens=sum(batch.num_tokens for batch in made) / batches,
        collating=min(_seconds(lambda: [make() for make in windows]) for _ in range(5)) / batches,
        training=_seconds(lambda: [_train(model, optimizer, batch.to(device)) for batch in made]) / batches,
    )


def _windows(samples: MemorySamples, rows: RowBuilder, size: int, batches: int) -> list[Callable[[], Batch]]:
    planner = Planner(samples.lengths, samples.task, Proportional(), rows, 0, size, MAX_LENGTH)
    plan = planner.epoch(0)

    def make(window: list[Int64Array]) -> Batch:
        window_counts(samples, plan.rows, window, 6)
        return collate(samples, plan.rows, window[0], 0, plan.layout)

    return [partial(make, plan.window(index, 0, 1, size)) for index in range(batches)]


def _train(model: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    nll = model(batch.input_ids, batch.position_ids, batch.predict_from, batch.target_ids).nll
    nll.mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    if nll.is_cuda:
        torch.cuda.synchronize()


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> None:
    """Print the table."""
    print(ROW.format("rows of 1,024", "rows", "tokens", "collate ms", "train ms", "share %"))
    for name, rows in ROWS.items():
        found = collating_share(rows)
        times = f"{1e3 * found.collating:.3f}", f"{1e3 * found.training:.1f}"
        print(ROW.format(name, 4, f"{found.tokens:.0f}", *times, f"{100 * found.share:.3f}"))


if __name__ == "__main__":
    main()
