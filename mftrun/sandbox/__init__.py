"""Where programs that nobody has read can run."""
