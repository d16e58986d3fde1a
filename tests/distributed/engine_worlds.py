"""What one rank does to find out whether a strategy's step is the step it should be."""

import json
import math
from contextlib import suppress

import numpy as np
import torch
from gradient_record import GradientRecord
from memory_samples import joined
from transformers import AutoTokenizer

from mftrun.data.epochs import SameSamples
from mftrun.data.mixture import Proportional
from mftrun.data.plan import Planner
from mftrun.data.rows import Padding
from mftrun.distributed import leave_group, support
from mftrun.losses.normalizations import TokenMean
from mftrun.losses.objective import Objective
from mftrun.losses.token_losses import CrossEntropy
from mftrun.losses.weightings import Static
from mftrun.models.adapters import FullFineTuning, Lora
from mftrun.models.pretrained import Pretrained
from mftrun.models.quantization import FourBit
from mftrun.models.with_nll import ModelWithNll
from mftrun.training.agreement import Ballot, agree
from mftrun.training.feed import Feed
from mftrun.training.meter import Meter
from mftrun.training.optimizers import AdamW
from mftrun.training.step import accumulate

ADAPTERS = {
    "none": FullFineTuning(),
    "lora": Lora(r=4, dropout=0.0),
    "qlora": Lora(r=4, dropout=0.0, quantization=FourBit()),
}
MAX_NORM = 0.2


def probe(context, base):
    """For each adapter: the norms of its steps, what is wrong with gradients, what a bad step has changed."""
    strategy = strategies(context.world_size)[base["strategy"]]
    ranks = strategy.join("fp32")
    reports = {
        name: _probe(strategy, ranks, adapter, base["folder"])
        for name, adapter in ADAPTERS.items()
        if name in base["adapters"]
    }
    leave_group()
    return json.dumps(reports)


def strategies(ranks):
    """Those of the table, for so many ranks."""
    from dataclasses import replace

    chosen = {}
    for name, strategy in support.options().items():
        # A model this small would stay whole on every rank.
        divided = {"persistence_threshold": 0} if name.startswith("zero3") else {}
        chosen[name] = replace(strategy, num_processes=ranks, **divided) if name != "single" else strategy
    return chosen


def _probe(strategy, ranks, adapter, folder):
    engine = _engine(strategy, ranks, adapter, folder)
    record, norms = GradientRecord(), []
    for _ in range(2):
        _accumulate(engine)
        record.add(_gradients(engine))
        norms.append(engine.step(1e-2))
    before = _numbers(engine)
    with _BadLosses(engine):
        _accumulate(engine)
    spoilt = engine.step(1e-2)
    changed = _different(before, _numbers(engine))
    _accumulate(engine)
    norms.append(engine.step(1e-2))
    still = sorted(set(before) - set(_different(before, _numbers(engine))))
    return {
        "norms": norms,
        "problems": record.problems(),
        "noticed": not math.isfinite(spoilt),
        "changed": changed,
        "still": [name for name in still if name.startswith("model.")],
    }


def _engine(strategy, ranks, adapter, folder):
    torch.manual_seed(0)
    source, tokenizer = Pretrained(str(folder)), AutoTokenizer.from_pretrained(folder)
    if adapter.quantization is None:
        model = strategy.load(source, tokenizer, torch.float32, ranks)
    else:
        packed = adapter.quantization.config(strategy.quant_storage("fp32"))
        model = source.load(tokenizer, torch.float32, packed)
    model = ModelWithNll(adapter.apply(model, adapter_dtype=strategy.adapter_dtype("fp32")))
    engine = strategy.engine(ranks, model, AdamW(lr=1e-2), precision="fp32", max_grad_norm=MAX_NORM)
    engine.model.train()
    return engine


def _accumulate(engine):
    """One global batch of eight samples, in micro-batches of one row."""
    random = np.random.default_rng(3)
    samples = []
    for task, length in enumerate((30, 11, 24, 9, 17, 5, 21, 13)):
        ids = random.integers(1, 250, length).astype(np.int32)
        samples.append((ids, np.arange(length) >= length // 3, task % 2))
    store = joined(samples, tasks=["a", "b"])
    planner = Planner(store.lengths, store.task, Proportional(), Padding(), 0, 8, 64)
    ranks = engine.ranks
    split = {"rank": ranks.index, "world_size": ranks.count, "micro_batch_size": 1, "pad_id": 0}
    feed = Feed(SameSamples(store, planner), 1, **split)
    ballot = Ballot(*feed.ballot(0, 0), stop=False, save=False)
    agreement = agree(ranks, ballot, torch.zeros(0, dtype=torch.float64, device=ranks.device))
    objective = Objective(CrossEntropy(), TokenMean(), Static({}), ["a", "b"])
    accumulate(engine, objective, feed.window(0, 0), agreement, Meter(ranks, ["a", "b"]))


class _BadLosses:
    """Inside, what is sent backward on the last rank is not a number."""

    def __init__(self, engine):
        self._engine, self._backward = engine, engine.backward

    def __enter__(self):
        bad = self._engine.ranks.index == self._engine.ranks.count - 1
        self._engine.backward = lambda share: self._backward(share * (float("nan") if bad else 1.0))

    def __exit__(self, *_):
        del self._engine.backward


def _gradients(engine):
    for name, parameter in engine.bare.named_parameters():
        if parameter.requires_grad:
            yield name, _gradient(parameter)


def _gradient(parameter):
    if hasattr(parameter, "_hp_mapping") or hasattr(parameter, "ds_id"):
        from deepspeed.utils import safe_get_full_grad

        return safe_get_full_grad(parameter)
    gradient = parameter.grad
    return gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient


def _numbers(engine):
    """Copies of what this rank holds of weights and optimizer state."""
    copies = {}
    for name, value in engine.state().items():
        with suppress(AttributeError):
            value = value.to_local()
        copies[name] = value.detach().as_subclass(torch.Tensor).clone()
    return copies


def _different(one, other):
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]
