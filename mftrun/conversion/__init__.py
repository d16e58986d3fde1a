"""Checkpoints of old modelling code turned into ones that transformers has a class for."""

from mftrun.conversion.families import LEGACY_TYPES, native_config

__all__ = ["LEGACY_TYPES", "native_config"]
