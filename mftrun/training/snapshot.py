"""What a checkpoint holds of one rank's objects, and how it goes back into them."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

WEIGHTS = "weights.safetensors"
OPTIMIZER = "optimizer.pt"
STATE = "state.pt"


def trained_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """The tensors that training changes: trainable parameters and saved buffers, by name, detached."""
    saved = model.state_dict().keys()
    tensors = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
    tensors.update({name: b for name, b in model.named_buffers() if name in saved})
    return tensors


def save_weights(model: nn.Module, folder: Path) -> None:
    """Writes the trained tensors as safetensors.

    Raises:
        OSError: The file cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    tensors = {name: t.to("cpu").contiguous() for name, t in trained_tensors(model).items()}
    try:
        save_file(tensors, folder / WEIGHTS)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def save_object(value: Any, path: Path) -> None:
    """Writes tensors in plain containers with torch.

    Raises:
        OSError: The file cannot be written.
    """
    try:
        torch.save(value, path)
    except RuntimeError as error:  # torch's word for a failed write
        raise OSError(str(error).splitlines()[0]) from error


def load_object(path: Path) -> Any:
    """The inverse of :func:`save_object`; runs no code from the file."""
    return torch.load(path, map_location="cpu", weights_only=True)


def load_weights(model: nn.Module, folder: Path) -> None:
    """Copies the saved tensors into the model, in place.

    Raises:
        ValueError: The names or shapes are not those of this model.
    """
    from safetensors.torch import load_file

    saved = load_file(folder / WEIGHTS)
    own = trained_tensors(model)
    if saved.keys() != own.keys():
        odd = sorted(saved.keys() ^ own.keys())[:3]
        raise ValueError(f"{folder / WEIGHTS} belongs to another model: {', '.join(odd)} is not in both")
    for name, tensor in own.items():
        if saved[name].shape != tensor.shape:
            shapes = f"{list(saved[name].shape)} there, {list(tensor.shape)} here"
            raise ValueError(f"{folder / WEIGHTS} belongs to another model: {name} is {shapes}")
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(saved[name])


def random_state() -> dict[str, Any]:
    """The states of Python's, NumPy's and torch's generators, as tensors and plain numbers."""
    version, keys, gauss = random.getstate()
    numpy_state: Any = np.random.get_state(legacy=False)
    return {
        "python": [version, list(keys), gauss],
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """The inverse of :func:`random_state`."""
    version, keys, gauss = state["python"]
    random.setstate((version, tuple(keys), gauss))
    saved = state["numpy"]
    key = saved["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, saved["pos"], saved["has_gauss"], saved["gauss"]))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])
