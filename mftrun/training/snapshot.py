"""What a checkpoint holds besides tensors: plain objects, and the states of the generators."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import torch

STATE = "state.pt"


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
