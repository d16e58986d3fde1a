"""Jobs of Slurm: `launcher` submits what Hydra has composed, `job` runs it there, `waiting` gets results."""
