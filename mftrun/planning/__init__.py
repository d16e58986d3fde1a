"""Memory of a run, by arithmetic: dataclasses in, dataclasses out. Knows neither Hydra nor ranks."""
