"""Templates: how samples become tokens, and which of them are trained."""
