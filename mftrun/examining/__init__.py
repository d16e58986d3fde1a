"""A model in training, scored on benchmarks: its answers by all ranks, judged by the first."""
