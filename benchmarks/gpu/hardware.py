"""What the measurements were made on."""

from __future__ import annotations

import importlib.metadata
from types import MappingProxyType

# Dense bf16 TFLOP/s of NVIDIA's data sheets, without sparsity; the first part of a name that fits decides.
PEAKS = MappingProxyType(
    {
        "B200": 2250.0,
        "GH200": 989.0,
        "H200": 989.0,
        "H100 PCIe": 756.0,
        "H100 NVL": 835.0,
        "H100": 989.0,
        "A100": 312.0,
        "A800": 312.0,
        "H800": 989.0,
        "L40S": 362.0,
        "L40": 181.0,
        "L4": 121.0,
        "A10G": 70.0,
        "A10": 125.0,
        "RTX 5090": 209.0,
        "RTX 4090": 165.0,
        "RTX 3090": 71.0,
        "RTX 6000 Ada": 364.0,
        "RTX A6000": 155.0,
    }
)
LIBRARIES = (
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "bitsandbytes",
    "flash-attn",
    "trl",
    "liger-kernel",
)


def peak_tflops(device: str) -> float | None:
    """Dense bf16 TFLOP/s of a device by its name; None where it is not known."""
    return next((peak for name, peak in PEAKS.items() if name in device), None)


def version(library: str) -> str | None:
    """Installed version; None without the library."""
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> str:
    """Of all libraries that matter, in one line."""
    return ", ".join(f"{name} {version(name) or 'not installed'}" for name in LIBRARIES)
