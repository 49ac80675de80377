"""What Python calls: training, evaluating, loading, attacking tensors, and what these return.

`rpat_cli/api/rpat/`, which is installed as the package `rpat`, hands these on by their names.
"""
