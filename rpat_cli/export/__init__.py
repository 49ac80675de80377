"""Trained models for other programs: files that hold them, a card, and a check that they predict
the same."""
