"""Multi-task fine-tuning of language models, composed by Hydra and kept in balance."""

__version__ = "0.1.0"
