"""Answers of a model to the problems of a benchmark, recorded as they come."""
