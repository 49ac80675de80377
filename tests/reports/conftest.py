"""Fixtures of the tests of reports."""

from fake_runs import make_run

__all__ = ["make_run"]
