"""Every option of the `peft` group, built and put to the test on a small model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from gradient_record import GradientRecord
from model_families import random_text

from mftrun.build import build
from mftrun.models.adapters import Adapter
from mftrun.models.with_nll import ModelWithNll
from mftrun.paths import resource_dir

OPTIONS = sorted(path.stem for path in (resource_dir("conf") / "peft").glob("*.yaml"))
# Sizes that every method can divide.
SIZES: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 4}


def option(name: str, **changes: Any) -> Adapter:
    """An option as its YAML has it, without dropout."""
    node = yaml.safe_load((resource_dir("conf") / "peft" / f"{name}.yaml").read_text())
    if "dropout" in node:
        node["dropout"] = 0.0
    (node.get("config", node)).update(changes)
    adapter = build(node, Adapter, "peft")
    assert isinstance(adapter, Adapter)
    return adapter


def trained(model: Any) -> dict[str, torch.nn.Parameter]:
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def train(model: Any, steps: int = 3, evaluate: bool = True) -> GradientRecord:
    """Trains in fp32 on one text, with an evaluation after each step."""
    wrapped, record = ModelWithNll(model), GradientRecord()
    optimizer = torch.optim.AdamW(trained(model).values(), lr=0.02)
    for _ in range(steps):
        wrapped(*random_text().args()).nll.mean().backward()
        record.add((name, p.grad) for name, p in trained(model).items())
        optimizer.step()
        optimizer.zero_grad()
        if evaluate:
            nll(model)
    return record


@torch.no_grad()
def nll(model: Any) -> torch.Tensor:
    """Losses by the model's own logits, in evaluation mode."""
    text, training = random_text(), model.training
    logits = model.eval()(input_ids=text.input_ids).logits.float()
    model.train(training)
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), text.target_ids, reduction="none")


def saved(adapter: Adapter, model: Any, folder: Path, **arguments: Any) -> Path:
    folder.mkdir(exist_ok=True)
    adapter.save(model, folder, **arguments)
    return folder
