"""Runs side by side: what was set, what came of it, and their curves, as a table and as a page."""
