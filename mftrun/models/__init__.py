"""Models: where they come from, what is trained of them, and their per-token losses."""
