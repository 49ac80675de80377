"""Anything that names a model, turned into a model to evaluate."""
