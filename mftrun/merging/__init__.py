"""Merging an adapter into the model it was trained on."""
