"""The recipe: everything that decides a run, and the ways to write it."""
