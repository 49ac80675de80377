"""Data sets by name, as tensors or batches."""

from rpat_cli.calls.datasets import load, names
from rpat_cli.data.base import Dataset, Split
from rpat_cli.data.in_memory import as_split

__all__ = ["Dataset", "Split", "as_split", "load", "names"]
