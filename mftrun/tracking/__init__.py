"""Where a run's numbers go: metrics.jsonl, console, TensorBoard, W&B, plot, summary, model card."""
