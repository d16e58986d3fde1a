"""The training loop: steps, evaluation, metrics and checkpoints."""
