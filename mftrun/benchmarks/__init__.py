"""Benchmarks of code: prompts, stop texts, and the programs that answers become."""
